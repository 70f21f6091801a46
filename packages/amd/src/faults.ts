/**
 * Events: codes, records and what they mean.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, section 2.5 "Event Logging".
 */
import { bit, bits, decode, hex } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';
import type { FaultEvent } from '@iommu-ts/iommu-core';

/** Bytes of an event log entry. */
export const EVENT_BYTES = 16;

/** Event codes (bits 63:60 of an entry). */
export const EVENT = {
  ILLEGAL_DEV_TABLE_ENTRY: 0x1,
  IO_PAGE_FAULT: 0x2,
  DEV_TAB_HARDWARE_ERROR: 0x3,
  PAGE_TAB_HARDWARE_ERROR: 0x4,
  ILLEGAL_COMMAND_ERROR: 0x5,
  COMMAND_HARDWARE_ERROR: 0x6,
  IOTLB_INV_TIMEOUT: 0x7,
  INVALID_DEVICE_REQUEST: 0x8,
  INVALID_PPR_REQUEST: 0x9,
} as const;

/** Name of an event, as the specification prints it. */
export type EventName = keyof typeof EVENT;

const EVENT_CODE = bits(63, 60, 'event code');
const DEVICE_ID = bits(15, 0, 'requester');
const ADDRESS = bits(127, 64, 'address');

/** Fields of each event log entry. */
export const EVENTS = {
  ILLEGAL_DEV_TABLE_ENTRY: {
    Address: bits(127, 66, 'device virtual address, bits 63:2'),
    EventCode: EVENT_CODE,
    TR: bit(56, 'translation request'),
    RZ: bit(55, 'a reserved bit is not zero; 0: an invalid level encoding'),
    RW: bit(53, 'write'),
    I: bit(51, 'interrupt request'),
    GN: bit(48, 'guest address'),
    PASIDLo: bits(47, 32, 'PASID bits 15:0'),
    PASIDHi: bits(19, 16, 'PASID bits 19:16'),
    DeviceID: DEVICE_ID,
  },
  IO_PAGE_FAULT: {
    Address: bits(127, 64, 'device virtual address'),
    EventCode: EVENT_CODE,
    TR: bit(56, 'translation request'),
    RZ: bit(55, 'a reserved bit of a table entry is not zero'),
    PE: bit(54, 'the device did not have the permission'),
    RW: bit(53, 'write'),
    PR: bit(52, 'the page is marked present'),
    I: bit(51, 'interrupt request'),
    US: bit(50, 'user privileges'),
    NX: bit(49, 'instruction fetch'),
    GN: bit(48, 'guest address'),
    DomainID: bits(47, 32, 'domain; PASID bits 15:0 with GN=1'),
    PASIDHi: bits(19, 16, 'PASID bits 19:16'),
    DeviceID: DEVICE_ID,
  },
  DEV_TAB_HARDWARE_ERROR: {
    Address: bits(127, 68, 'physical address of the entry, bits 63:4'),
    EventCode: EVENT_CODE,
    Type: bits(58, 57, '1 master abort, 2 target abort, 3 data error'),
    TR: bit(56, 'translation request'),
    RW: bit(53, 'write'),
    I: bit(51, 'interrupt request'),
    DeviceID: DEVICE_ID,
  },
  PAGE_TAB_HARDWARE_ERROR: {
    Address: bits(127, 67, 'physical address of the entry, bits 63:3'),
    EventCode: EVENT_CODE,
    Type: bits(58, 57, '1 master abort, 2 target abort, 3 data error'),
    TR: bit(56, 'translation request'),
    RW: bit(53, 'write'),
    I: bit(51, 'interrupt request'),
    GN: bit(48, 'guest address'),
    DomainID: bits(47, 32, 'domain; PASID bits 15:0 with GN=1'),
    DeviceID: DEVICE_ID,
  },
  ILLEGAL_COMMAND_ERROR: {
    Address: bits(127, 68, 'physical address of the command, bits 63:4'),
    EventCode: EVENT_CODE,
  },
  COMMAND_HARDWARE_ERROR: {
    Address: bits(127, 67, 'physical address that did not answer, bits 63:3'),
    EventCode: EVENT_CODE,
    Type: bits(58, 57, '1 master abort, 2 target abort, 3 data error'),
  },
  IOTLB_INV_TIMEOUT: {
    Address: bits(127, 68, 'physical address of the command, bits 63:4'),
    EventCode: EVENT_CODE,
    DeviceID: DEVICE_ID,
  },
  INVALID_DEVICE_REQUEST: {
    Address: ADDRESS,
    EventCode: EVENT_CODE,
    Type: bits(59, 57, 'which rule was broken'),
    TR: bit(56, 'translation request'),
    US: bit(49, 'user privileges'),
    GN: bit(48, 'guest address'),
    PASIDLo: bits(47, 32, 'PASID bits 15:0'),
    PASIDHi: bits(19, 16, 'PASID bits 19:16'),
    DeviceID: DEVICE_ID,
  },
  INVALID_PPR_REQUEST: {
    Address: ADDRESS,
    EventCode: EVENT_CODE,
    PASIDLo: bits(47, 32, 'PASID bits 15:0'),
    PASIDHi: bits(19, 16, 'PASID bits 19:16'),
    DeviceID: DEVICE_ID,
  },
} as const satisfies Record<EventName, Layout>;

/** Values of the Type field of the hardware errors. */
export const HARDWARE_ERROR = { MASTER_ABORT: 1, TARGET_ABORT: 2, DATA_ERROR: 3 } as const;

/** Values of the Type field of INVALID_DEVICE_REQUEST that this version records. */
export const INVALID_REQUEST = {
  /** A read, or a non-posted write, in the interrupt address range. */
  READ_IN_INTERRUPT_RANGE: 0,
  /** A write in the interrupt address range while DTE.IntCtl does not let it through. */
  INTERRUPT_REFUSED: 4,
} as const;

const NAMES: Readonly<Record<number, EventName>> = Object.fromEntries(
  Object.entries(EVENT).map(([name, code]) => [code, name as EventName]),
);

/** Name of an event code, `EVENT_0x…` for one that is reserved. */
export const eventName = (code: number): string => NAMES[code] ?? `EVENT_${hex(code)}`;

/** Decodes one event log entry, given as its two 64-bit words, lowest address first. */
export const decodeEvent = (low: bigint, high: bigint): FaultEvent => {
  const code = Number(low >> 60n);
  const name = eventName(code);
  const layout: Layout =
    NAMES[code] === undefined ? { Operand: bits(59, 0), EventCode: EVENT_CODE } : EVENTS[NAMES[code]];
  const fields = decode(layout, (high << 64n) | low);
  const has = (field: string): boolean => fields[field] !== undefined && fields[field] !== 0n;
  // The physical address of a table entry or a command is no input address.
  const ofDevice = code === 1 || code === 2 || code === 8 || code === 9;
  const requester = fields['DeviceID'] === undefined ? -1 : Number(fields['DeviceID']);
  const pasid = has('GN')
    ? Number(((fields['PASIDHi'] ?? 0n) << 16n) | (fields['PASIDLo'] ?? fields['DomainID'] ?? 0n))
    : -1;
  const access = fields['RW'] === undefined ? 'unknown' : has('RW') ? 'write' : 'read';
  const where = ofDevice ? `address ${hex(high)}` : `physical address ${hex(high)}`;
  const who = requester < 0 ? '' : ` by device ${hex(requester)}`;
  return {
    name,
    code,
    requester,
    pasid,
    iova: ofDevice ? high : 0n,
    access,
    fields,
    raw: [low, high],
    text: `${name}: ${access === 'unknown' ? '' : `${access} `}${where}${who}${reasonOf(code, has)}`,
  };
};

const reasonOf = (code: number, has: (field: string) => boolean): string => {
  if (code === EVENT.IO_PAGE_FAULT) {
    if (!has('PR')) return ', not present or outside the table';
    return has('RZ') ? ', reserved bit set in a table entry' : ', not permitted';
  }
  if (code === EVENT.ILLEGAL_DEV_TABLE_ENTRY) return has('RZ') ? ', reserved bit set' : ', invalid mode';
  return '';
};
