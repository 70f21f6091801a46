/** Event records, 32 bytes each, and what they mean (Arm IHI 0070, chapter 7.3). */
import { bit, bits, decode, hex } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';
import type { FaultEvent } from '@iommu-ts/iommu-core';

/** Event numbers (7.3). */
export const EVENT = {
  F_UUT: 0x01,
  C_BAD_STREAMID: 0x02,
  F_STE_FETCH: 0x03,
  C_BAD_STE: 0x04,
  F_BAD_ATS_TREQ: 0x05,
  F_STREAM_DISABLED: 0x06,
  F_TRANSL_FORBIDDEN: 0x07,
  C_BAD_SUBSTREAMID: 0x08,
  F_CD_FETCH: 0x09,
  C_BAD_CD: 0x0a,
  F_WALK_EABT: 0x0b,
  F_TRANSLATION: 0x10,
  F_ADDR_SIZE: 0x11,
  F_ACCESS: 0x12,
  F_PERMISSION: 0x13,
  F_TLB_CONFLICT: 0x20,
  F_CFG_CONFLICT: 0x21,
  E_PAGE_REQUEST: 0x24,
  F_VMS_FETCH: 0x25,
} as const;

/** CLASS of a fault: what was being looked up when it arose. */
export const CLASS = { CD: 0, TT: 1, IN: 2 } as const;

/** Fields of an event record; which of them are valid depends on the event. */
export const EVENT_RECORD = {
  IPA: bits(247, 204, 'IPA bits 55:12'),
  FetchAddr: bits(247, 195, 'address bits 55:3 of a fetch that aborted'),
  InputAddr: bits(191, 128, 'address of the transaction'),
  TTRnW: bit(108, 'CLASS TT of F_PERMISSION: the walk read (1) or wrote (0)'),
  CLASS: bits(105, 104, '0 CD, 1 TT, 2 IN'),
  S2: bit(103, 'stage 2'),
  NSIPA: bit(100),
  RnW: bit(99, 'read'),
  InD: bit(98, 'instruction'),
  PnU: bit(97, 'privileged'),
  Stall: bit(95),
  STAG: bits(79, 64),
  StreamID: bits(63, 32),
  SubstreamID: bits(31, 12),
  SSV: bit(11, 'SubstreamID is valid'),
  EVENT: bits(7, 0),
} as const satisfies Layout;

/** Bytes of an event record (7.3). */
export const EVENT_BYTES = 32;

const NAMES: ReadonlyMap<number, string> = new Map(Object.entries(EVENT).map(([name, code]) => [code, name]));

/** The specification's name of an event number. */
export const eventName = (code: number): string => NAMES.get(code) ?? `event ${hex(code)}`;

/** One sentence for each event. */
const MEANING: Readonly<Record<number, string>> = {
  [EVENT.C_BAD_STREAMID]: 'StreamID outside the stream table',
  [EVENT.F_STE_FETCH]: 'external abort on the fetch of the STE',
  [EVENT.C_BAD_STE]: 'the STE is invalid or ILLEGAL: the stream is not configured',
  [EVENT.F_STREAM_DISABLED]: 'traffic of this kind is disabled for the stream (STE.S1DSS)',
  [EVENT.C_BAD_SUBSTREAMID]: 'SubstreamID outside the CD table',
  [EVENT.F_CD_FETCH]: 'external abort on the fetch of the CD',
  [EVENT.C_BAD_CD]: 'the CD is invalid or ILLEGAL',
  [EVENT.F_WALK_EABT]: 'external abort on a table walk',
  [EVENT.F_TRANSLATION]: 'no valid translation for the address',
  [EVENT.F_ADDR_SIZE]: 'output address beyond the address size',
  [EVENT.F_ACCESS]: 'the Access flag of the descriptor is 0',
  [EVENT.F_PERMISSION]: 'the descriptor does not permit the access',
};

const isTranslationRelated = (code: number): boolean => code >= EVENT.F_TRANSLATION && code <= EVENT.F_PERMISSION;
const CLASS_NAMES = ['CD', 'TT', 'IN', 'reserved'];

/** Decodes a record of four 64-bit words, lowest address first. */
export const decodeEvent = (raw: readonly [bigint, bigint, bigint, bigint]): FaultEvent => {
  const all = decode(EVENT_RECORD, raw[0] | (raw[1] << 64n) | (raw[2] << 128n) | (raw[3] << 192n));
  const code = Number(all.EVENT);
  const name = eventName(code);
  const requester = Number(all.StreamID);
  const hasSubstream = all.SSV === 1n || code === EVENT.C_BAD_SUBSTREAMID;
  const walk = code === EVENT.F_WALK_EABT;
  const address = walk || isTranslationRelated(code);
  const fetch = walk || code === EVENT.F_STE_FETCH || code === EVENT.F_CD_FETCH;
  const fields: Record<string, bigint | number | string> = { StreamID: all.StreamID, SSV: Number(all.SSV) };
  if (hasSubstream) fields['SubstreamID'] = all.SubstreamID;
  if (address) {
    fields['S2'] = Number(all.S2);
    fields['CLASS'] = CLASS_NAMES[Number(all.CLASS)]!;
    fields['RnW'] = Number(all.RnW);
    fields['InD'] = Number(all.InD);
    fields['PnU'] = Number(all.PnU);
    fields['InputAddr'] = all.InputAddr;
  }
  if (fetch) fields['FetchAddr'] = all.FetchAddr << 3n;
  if (isTranslationRelated(code) && all.S2 === 1n) fields['IPA'] = all.IPA << 12n;
  const access = !address ? 'unknown' : all.RnW === 1n ? 'read' : 'write';
  const where = address ? `, ${access} of ${hex(all.InputAddr)}, stage ${all.S2 === 1n ? 2 : 1}` : '';
  return {
    name,
    code,
    requester,
    pasid: hasSubstream ? Number(all.SubstreamID) : -1,
    iova: address ? all.InputAddr : 0n,
    access,
    fields,
    raw,
    text: `${name}: ${MEANING[code] ?? 'not explained'} (StreamID ${hex(requester)}${where})`,
  };
};
