/**
 * Fault reasons of DMA remapping, and fault records decoded.
 * VT-d specification revision 4.1, section 7.1 "Remapping Hardware Fault Conditions", 11.4.14 fault recording registers.
 */
import { decode } from '@iommu-ts/bits';
import type { FaultEvent } from '@iommu-ts/iommu-core';
import { FRCD } from './registers.ts';

/** Fault reasons (FRCD.FR) that this unit can record, by their condition in the specification. */
export const FAULT = {
  /** Legacy mode: root entry not present. */
  LRT_2: 0x01,
  /** Legacy mode: context entry not present. */
  LCT_2: 0x02,
  /** Legacy mode: context entry asks for a width or translation type that the unit does not have. */
  LCT_4: 0x03,
  /** Address beyond the guest address width. */
  LGN_1: 0x04,
  /** No write permission. */
  LGN_2: 0x05,
  /** No read permission. */
  LGN_3: 0x06,
  /** Second-stage entry can't be read. */
  LSS_1: 0x07,
  /** Root entry can't be read. */
  LRT_1: 0x08,
  /** Context entry can't be read. */
  LCT_1: 0x09,
  /** Reserved field of the root entry. */
  LRT_3: 0x0a,
  /** Reserved field of the context entry. */
  LCT_3: 0x0b,
  /** Reserved field of a second-stage entry. */
  LSS_2: 0x0c,
  /** Request of a device TLB that the context entry blocks. */
  LCT_5: 0x0d,
  /** Translates into the interrupt address range. */
  LGN_4: 0x0e,
  /** RTADDR.TTM that the unit does not have. */
  RTA_1: 0x30,
  /** Request with PASID in legacy mode. */
  RTA_2: 0x31,
  SRT_1: 0x38,
  SRT_2: 0x39,
  SRT_3: 0x3a,
  SCT_1: 0x40,
  SCT_2: 0x41,
  SCT_3: 0x42,
  SCT_4: 0x43,
  SCT_6: 0x45,
  SCT_7: 0x46,
  SPD_1: 0x50,
  SPD_2: 0x51,
  SPD_3: 0x52,
  SPT_1: 0x58,
  SPT_2: 0x59,
  SPT_3: 0x5a,
  SPT_4: 0x5b,
  SPT_5: 0x5c,
  SPT_6: 0x5d,
  SFS_1: 0x70,
  SFS_2: 0x71,
  SFS_3: 0x72,
  SFS_4: 0x73,
  SSS_1: 0x78,
  SSS_2: 0x79,
  SSS_3: 0x7a,
  SSS_4: 0x7b,
  SGN_1: 0x80,
  SGN_2: 0x81,
  SGN_3: 0x82,
  SGN_4: 0x83,
  SGN_6: 0x85,
  SGN_7: 0x86,
  SGN_8: 0x87,
} as const;

/** Name of each fault reason and what it means, for people. */
export const FAULT_REASONS: Readonly<Record<number, { readonly name: string; readonly text: string }>> = {
  0x01: { name: 'LRT.2', text: 'the root entry of the bus is not present' },
  0x02: { name: 'LCT.2', text: 'the context entry of the device is not present' },
  0x03: { name: 'LCT.4', text: 'the context entry has an address width or translation type that the unit lacks' },
  0x04: { name: 'LGN.1', text: 'the address is beyond the guest address width' },
  0x05: { name: 'LGN.2', text: 'the page is not writable' },
  0x06: { name: 'LGN.3', text: 'the page is not readable' },
  0x07: { name: 'LSS.1', text: 'a second-stage table could not be read' },
  0x08: { name: 'LRT.1', text: 'the root table could not be read' },
  0x09: { name: 'LCT.1', text: 'the context table could not be read' },
  0x0a: { name: 'LRT.3', text: 'a reserved field of the root entry is not zero' },
  0x0b: { name: 'LCT.3', text: 'a reserved field of the context entry is not zero' },
  0x0c: { name: 'LSS.2', text: 'a reserved field of a second-stage entry is not zero' },
  0x0d: { name: 'LCT.5', text: 'the context entry blocks requests of device TLBs' },
  0x0e: { name: 'LGN.4', text: 'the address translates into the interrupt address range' },
  0x30: { name: 'RTA.1', text: 'the translation table mode of RTADDR is not supported' },
  0x31: { name: 'RTA.2', text: 'a request with PASID came in legacy mode' },
  0x38: { name: 'SRT.1', text: 'the root table could not be read (scalable mode)' },
  0x39: { name: 'SRT.2', text: 'the half of the root entry is not present' },
  0x3a: { name: 'SRT.3', text: 'a reserved field of the root entry is not zero (scalable mode)' },
  0x40: { name: 'SCT.1', text: 'the context table could not be read (scalable mode)' },
  0x41: { name: 'SCT.2', text: 'the context entry of the device is not present (scalable mode)' },
  0x42: { name: 'SCT.3', text: 'a reserved field of the context entry is not zero (scalable mode)' },
  0x43: { name: 'SCT.4', text: 'the context entry is programmed wrongly' },
  0x45: { name: 'SCT.6', text: 'the context entry does not allow requests with PASID' },
  0x46: { name: 'SCT.7', text: 'the PASID is beyond the PASID directory' },
  0x50: { name: 'SPD.1', text: 'the PASID directory could not be read' },
  0x51: { name: 'SPD.2', text: 'the PASID directory entry is not present' },
  0x52: { name: 'SPD.3', text: 'a reserved field of the PASID directory entry is not zero' },
  0x58: { name: 'SPT.1', text: 'the PASID table could not be read' },
  0x59: { name: 'SPT.2', text: 'the PASID entry is not present' },
  0x5a: { name: 'SPT.3', text: 'a reserved field of the PASID entry is not zero' },
  0x5b: { name: 'SPT.4', text: 'the PASID entry is programmed wrongly' },
  0x5c: { name: 'SPT.5', text: 'the PASID entry does not allow execute requests' },
  0x5d: { name: 'SPT.6', text: 'the PASID entry does not allow supervisor requests' },
  0x70: { name: 'SFS.1', text: 'a first-stage table could not be read' },
  0x71: { name: 'SFS.2', text: 'a first-stage entry is not present' },
  0x72: { name: 'SFS.3', text: 'a reserved field of a first-stage entry is not zero' },
  0x73: { name: 'SFS.4', text: 'the top first-stage table could not be read' },
  0x78: { name: 'SSS.1', text: 'a second-stage table could not be read (scalable mode)' },
  0x79: { name: 'SSS.2', text: 'a second-stage entry does not allow the access' },
  0x7a: { name: 'SSS.3', text: 'a reserved field of a second-stage entry is not zero (scalable mode)' },
  0x7b: { name: 'SSS.4', text: 'the top second-stage table could not be read' },
  0x80: { name: 'SGN.1', text: 'the address is not canonical' },
  0x81: { name: 'SGN.2', text: 'a user request met a supervisor page' },
  0x82: { name: 'SGN.3', text: 'the page is not executable' },
  0x83: { name: 'SGN.4', text: 'the address is beyond the width of the hardware' },
  0x85: { name: 'SGN.6', text: 'the page is not writable (first stage)' },
  0x86: { name: 'SGN.7', text: 'the page is not readable (first stage)' },
  0x87: { name: 'SGN.8', text: 'the address translates into the interrupt address range (scalable mode)' },
};

/** A fault record as the driver reads it (bits 63:0 and 127:64), decoded. */
export const decodeFaultRecord = (lo: bigint, hi: bigint): FaultEvent => {
  const fields = decode(FRCD, (hi << 64n) | lo);
  const code = Number(fields.FR);
  const iova = fields.FI << 12n;
  const type = Number((fields.T2 << 1n) | fields.T1);
  const requester = Number(fields.SID);
  const reason = FAULT_REASONS[code] ?? { name: `reason 0x${code.toString(16)}`, text: 'unknown fault reason' };
  const access = type === 0 ? 'write' : type === 1 ? 'read' : 'unknown';
  const bdf = `${hex2(requester >> 8)}:${hex2((requester >> 3) & 31)}.${requester & 7}`;
  return {
    name: reason.name,
    code,
    requester,
    pasid: fields.PP === 1n ? Number(fields.PV) : -1,
    iova,
    access,
    fields,
    raw: [lo, hi],
    text: `${access === 'unknown' ? 'request' : access} of ${bdf} at page 0x${iova.toString(16)}: ${reason.text}`,
  };
};

const hex2 = (value: number): string => value.toString(16).padStart(2, '0');
