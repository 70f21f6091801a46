/**
 * Registers of a remapping hardware unit, as data.
 * Intel Virtualization Technology for Directed I/O, revision 4.1, chapter 11 "Register Descriptions"
 * (chapter 10 before revision 4). Names and bit positions are the specification's.
 */
import { IommuError, bit, bits, extract, hex, maskOf } from '@iommu-ts/bits';
import type { Field, Layout } from '@iommu-ts/bits';
import type { RegisterMap } from '@iommu-ts/iommu-core';

/** Version register. */
export const VER = {
  MAX: bits(7, 4, 'major version'),
  MIN: bits(3, 0, 'minor version'),
} as const satisfies Layout;

/** Capability register. */
export const CAP = {
  ESRTPS: bit(63, 'SRTP invalidates all caches'),
  ESIRTPS: bit(62, 'SIRTP invalidates the interrupt entry cache'),
  ECMDS: bit(61, 'enhanced commands'),
  FS5LP: bit(60, 'first-stage 5-level paging'),
  PI: bit(59, 'posted interrupts'),
  FS1GP: bit(56, 'first-stage 1-GByte pages'),
  DRD: bit(55, 'read draining'),
  DWD: bit(54, 'write draining'),
  MAMV: bits(53, 48, 'maximum address mask value of a page-selective invalidation'),
  NFR: bits(47, 40, 'number of fault recording registers, less one'),
  PSI: bit(39, 'page-selective invalidation'),
  SSLPS: bits(37, 34, 'second-stage large pages (SLLPS before revision 4): bit 0 2 MiB, bit 1 1 GiB'),
  FRO: bits(33, 24, 'offset of the first fault recording register, in 16 bytes'),
  ZLR: bit(22, 'zero-length reads to write-only pages'),
  MGAW: bits(21, 16, 'maximum guest address width, less one'),
  SAGAW: bits(12, 8, 'supported adjusted guest address widths: bit 1 39, bit 2 48, bit 3 57 bits'),
  CM: bit(7, 'caching mode: not-present entries may be cached'),
  PHMR: bit(6, 'protected high-memory region'),
  PLMR: bit(5, 'protected low-memory region'),
  RWBF: bit(4, 'write buffer must be flushed by software'),
  AFL: bit(3, 'advanced fault logging'),
  ND: bits(2, 0, 'number of domains: 2^(4 + 2 ND)'),
} as const satisfies Layout;

/** Extended capability register. */
export const ECAP = {
  RPRIVS: bit(53, 'RID_PRIV'),
  ADMS: bit(52, 'abort DMA mode'),
  PMS: bit(51, 'performance monitoring'),
  RPS: bit(49, 'RID_PASID'),
  SMPWCS: bit(48, 'scalable-mode page-walk coherency'),
  FSTS: bit(47, 'first-stage translation'),
  SSTS: bit(46, 'second-stage translation in scalable mode'),
  SSADS: bit(45, 'second-stage accessed and dirty bits'),
  VCS: bit(44, 'virtual commands'),
  SMTS: bit(43, 'scalable mode'),
  PDS: bit(42, 'page-request drain'),
  DIT: bit(41, 'device-TLB invalidation throttle'),
  PASID: bit(40, 'requests with PASID'),
  PSS: bits(39, 35, 'PASID bits, less one'),
  EAFS: bit(34, 'extended accessed flag'),
  NWFS: bit(33, 'no-write flag'),
  SRS: bit(31, 'supervisor requests'),
  ERS: bit(30, 'execute requests'),
  PRS: bit(29, 'page requests'),
  NEST: bit(26, 'nested translation'),
  MTS: bit(25, 'memory types'),
  MHMV: bits(23, 20, 'maximum handle mask value'),
  IRO: bits(17, 8, 'offset of the IOTLB registers, in 16 bytes'),
  SC: bit(7, 'snoop control'),
  PT: bit(6, 'pass-through'),
  EIM: bit(4, 'extended interrupt mode'),
  IR: bit(3, 'interrupt remapping'),
  DT: bit(2, 'device TLBs'),
  QI: bit(1, 'queued invalidation'),
  C: bit(0, 'page-walk coherency'),
} as const satisfies Layout;

/** Global command register (write only). */
export const GCMD = {
  TE: bit(31, 'translation enable'),
  SRTP: bit(30, 'set root table pointer'),
  SFL: bit(29, 'set fault log'),
  EAFL: bit(28, 'enable advanced fault logging'),
  WBF: bit(27, 'write buffer flush'),
  QIE: bit(26, 'queued invalidation enable'),
  IRE: bit(25, 'interrupt remapping enable'),
  SIRTP: bit(24, 'set interrupt remapping table pointer'),
  CFI: bit(23, 'compatibility format interrupts'),
} as const satisfies Layout;

/** Global status register. */
export const GSTS = {
  TES: bit(31, 'translation enabled'),
  RTPS: bit(30, 'root table pointer set'),
  FLS: bit(29, 'fault log set'),
  AFLS: bit(28, 'advanced fault logging enabled'),
  WBFS: bit(27, 'write buffer flush in progress'),
  QIES: bit(26, 'queued invalidation enabled'),
  IRES: bit(25, 'interrupt remapping enabled'),
  IRTPS: bit(24, 'interrupt remapping table pointer set'),
  CFIS: bit(23, 'compatibility format interrupts pass'),
} as const satisfies Layout;

/** Root table address register. */
export const RTADDR = {
  RTA: bits(63, 12, 'root table address'),
  TTM: bits(11, 10, 'translation table mode: 0 legacy, 1 scalable, 3 abort DMA'),
} as const satisfies Layout;

/** Context command register: register-based invalidation of the context cache. */
export const CCMD = {
  ICC: bit(63, 'invalidate; hardware clears it when done'),
  CIRG: bits(62, 61, 'granularity asked for: 1 global, 2 domain, 3 device'),
  CAIG: bits(60, 59, 'granularity performed, 0 for an incorrect request'),
  FM: bits(33, 32, 'function mask'),
  SID: bits(31, 16, 'source-id'),
  DID: bits(15, 0, 'domain-id'),
} as const satisfies Layout;

/** Fault status register. */
export const FSTS = {
  FRI: bits(15, 8, 'index of the first pending fault record, valid with PPF'),
  PRO: bit(7, 'deprecated'),
  ITE: bit(6, 'invalidation time-out error'),
  ICE: bit(5, 'invalidation completion error'),
  IQE: bit(4, 'invalidation queue error'),
  APF: bit(3, 'advanced pending fault'),
  AFO: bit(2, 'advanced fault overflow'),
  PPF: bit(1, 'primary pending fault: OR of all F fields'),
  PFO: bit(0, 'primary fault overflow'),
} as const satisfies Layout;

/** Control register of an event (fault events FECTL, invalidation completion IECTL). */
export const EVENT_CTL = {
  IM: bit(31, 'interrupt mask'),
  IP: bit(30, 'interrupt pending'),
} as const satisfies Layout;

/** Message data of an event. */
export const EVENT_DATA = {
  EIMD: bits(31, 16, 'extended message data'),
  IMD: bits(15, 0, 'message data'),
} as const satisfies Layout;

/** Message address of an event, low part; the upper address register holds bits 63:32. */
export const EVENT_ADDR = { MA: bits(31, 2, 'message address') } as const satisfies Layout;

/** Protected memory enable register. */
export const PMEN = {
  EPM: bit(31, 'enable protected memory'),
  PRS: bit(0, 'protected region status'),
} as const satisfies Layout;

/** Invalidation queue head. */
export const IQH = { QH: bits(18, 4, 'queue head, offset in 16 bytes') } as const satisfies Layout;
/** Invalidation queue tail. */
export const IQT = { QT: bits(18, 4, 'queue tail, offset in 16 bytes') } as const satisfies Layout;
/** Invalidation queue address. */
export const IQA = {
  IQA: bits(63, 12, 'queue address'),
  DW: bit(11, 'descriptor width: 0 128-bit, 1 256-bit'),
  QS: bits(2, 0, 'queue size: 2^QS pages of 4 KiB'),
} as const satisfies Layout;
/** Invalidation completion status. */
export const ICS = { IWC: bit(0, 'an invalidation wait with interrupt flag has completed') } as const satisfies Layout;
/** Invalidation queue error record. */
export const IQERCD = {
  ITESID: bits(63, 48, 'source-id of a time-out'),
  ICESID: bits(47, 32, 'source-id of a completion error'),
  IQEI: bits(3, 0, 'reason of an invalidation queue error'),
} as const satisfies Layout;

/** Invalidate address register, at ECAP.IRO. */
export const IVA = {
  ADDR: bits(63, 12, 'address'),
  IH: bit(6, 'invalidation hint: only leaf entries changed'),
  AM: bits(5, 0, 'address mask: 2^AM pages'),
} as const satisfies Layout;

/** IOTLB invalidate register, 8 bytes above IVA. */
export const IOTLB = {
  IVT: bit(63, 'invalidate; hardware clears it when done'),
  IIRG: bits(61, 60, 'granularity asked for: 1 global, 2 domain, 3 page'),
  IAIG: bits(58, 57, 'granularity performed, 0 for an incorrect request'),
  DR: bit(49, 'drain reads'),
  DW: bit(48, 'drain writes'),
  DID: bits(47, 32, 'domain-id'),
} as const satisfies Layout;

/** Fault recording register, 128 bits, at CAP.FRO; bits 127:64 count on. */
export const FRCD = {
  F: bit(127, 'fault recorded; a 1 clears it'),
  T1: bit(126, 'type, with T2: 0 write, 1 read, 2 page request, 3 atomic'),
  AT: bits(125, 124, 'address type'),
  PV: bits(123, 104, 'PASID'),
  FR: bits(103, 96, 'fault reason'),
  PP: bit(95, 'PASID present'),
  EXE: bit(94, 'execute requested'),
  PRIV: bit(93, 'privileged'),
  T2: bit(92, 'type, high bit'),
  SID: bits(79, 64, 'source-id'),
  FI: bits(63, 12, 'page of the address'),
} as const satisfies Layout;

/** Offsets of the registers that do not move, in bytes from the unit's base. */
export const OFFSET = {
  VER: 0x00,
  CAP: 0x08,
  ECAP: 0x10,
  GCMD: 0x18,
  GSTS: 0x1c,
  RTADDR: 0x20,
  CCMD: 0x28,
  FSTS: 0x34,
  FECTL: 0x38,
  FEDATA: 0x3c,
  FEADDR: 0x40,
  FEUADDR: 0x44,
  AFLOG: 0x58,
  PMEN: 0x64,
  PLMBASE: 0x68,
  PLMLIMIT: 0x6c,
  PHMBASE: 0x70,
  PHMLIMIT: 0x78,
  IQH: 0x80,
  IQT: 0x88,
  IQA: 0x90,
  ICS: 0x9c,
  IECTL: 0xa0,
  IEDATA: 0xa4,
  IEADDR: 0xa8,
  IEUADDR: 0xac,
  IQERCD: 0xb0,
  IRTA: 0xb8,
  PQH: 0xc0,
  PQT: 0xc8,
  PQA: 0xd0,
  PRS: 0xdc,
  PECTL: 0xe0,
  PEDATA: 0xe4,
  PEADDR: 0xe8,
  PEUADDR: 0xec,
} as const;

/** CAP and ECAP as numbers: what both sides of the register interface go by. */
export interface Capabilities {
  readonly cap: bigint;
  readonly ecap: bigint;
  /** Bits of a domain-id: 4 + 2 ND. */
  readonly didBits: number;
  /** Bits of a guest address. */
  readonly mgaw: number;
  readonly sagaw: number;
  readonly cachingMode: boolean;
  readonly pages2M: boolean;
  readonly pages1G: boolean;
  readonly psi: boolean;
  readonly mamv: number;
  readonly esrtps: boolean;
  readonly rwbf: boolean;
  readonly dwd: boolean;
  readonly drd: boolean;
  /** Fault recording registers: offset of the first, and how many. */
  readonly frcdOffset: number;
  readonly frcdCount: number;
  /** Offset of IVA; IOTLB follows it. */
  readonly ivaOffset: number;
  readonly coherent: boolean;
  readonly qi: boolean;
  readonly deviceTlb: boolean;
  readonly interruptRemapping: boolean;
  readonly passThrough: boolean;
  readonly snoopControl: boolean;
  readonly scalable: boolean;
  readonly firstStage: boolean;
  readonly secondStage: boolean;
  readonly firstStage1G: boolean;
  readonly firstStage5Level: boolean;
  readonly supervisor: boolean;
  readonly pasid: boolean;
  readonly pasidBits: number;
}

/** Reads CAP and ECAP apart. */
export const parseCapabilities = (cap: bigint, ecap: bigint): Capabilities => {
  const c = (field: Field): number => Number(extract(cap, field));
  const e = (field: Field): number => Number(extract(ecap, field));
  return {
    cap,
    ecap,
    didBits: Math.min(16, 4 + 2 * c(CAP.ND)),
    mgaw: c(CAP.MGAW) + 1,
    sagaw: c(CAP.SAGAW),
    cachingMode: c(CAP.CM) === 1,
    pages2M: (c(CAP.SSLPS) & 1) !== 0,
    pages1G: (c(CAP.SSLPS) & 2) !== 0,
    psi: c(CAP.PSI) === 1,
    mamv: c(CAP.MAMV),
    esrtps: c(CAP.ESRTPS) === 1,
    rwbf: c(CAP.RWBF) === 1,
    dwd: c(CAP.DWD) === 1,
    drd: c(CAP.DRD) === 1,
    frcdOffset: c(CAP.FRO) * 16,
    frcdCount: c(CAP.NFR) + 1,
    ivaOffset: e(ECAP.IRO) * 16,
    coherent: e(ECAP.C) === 1,
    qi: e(ECAP.QI) === 1,
    deviceTlb: e(ECAP.DT) === 1,
    interruptRemapping: e(ECAP.IR) === 1,
    passThrough: e(ECAP.PT) === 1,
    snoopControl: e(ECAP.SC) === 1,
    scalable: e(ECAP.SMTS) === 1,
    firstStage: e(ECAP.FSTS) === 1,
    secondStage: e(ECAP.SSTS) === 1,
    firstStage1G: c(CAP.FS1GP) === 1,
    firstStage5Level: c(CAP.FS5LP) === 1,
    supervisor: e(ECAP.SRS) === 1,
    pasid: e(ECAP.PASID) === 1,
    pasidBits: e(ECAP.PSS) + 1,
  };
};

const mask = (...fields: Field[]): bigint => fields.reduce((m, f) => m | maskOf(f), 0n);

/** Bytes of the register block of a unit: whole 4 KiB pages up to its last register. */
export const registerBytes = (caps: Capabilities): number =>
  Math.ceil(Math.max(0x1000, caps.frcdOffset + 16 * caps.frcdCount, caps.ivaOffset + 16) / 4096) * 4096;

/**
 * The register map of a unit with these capabilities. Registers of what a unit does not have read as zero and ignore writes.
 * @throws IommuError `EINVAL` when CAP.FRO or ECAP.IRO places registers over others.
 */
export const registerMap = (ver: number, caps: Capabilities): RegisterMap => {
  const { frcdOffset, frcdCount, ivaOffset } = caps;
  const iva = { first: ivaOffset, end: ivaOffset + 16 };
  const frcd = { first: frcdOffset, end: frcdOffset + 16 * frcdCount };
  if (iva.first < 0xf0 || frcd.first < 0xf0 || (iva.first < frcd.end && frcd.first < iva.end)) {
    throw new IommuError(
      'EINVAL',
      `IOTLB registers at ${hex(ivaOffset)} or fault records at ${hex(frcdOffset)} overlap other registers`,
      { ivaOffset, frcdOffset },
    );
  }
  const qi = caps.qi;
  const iq = (...fields: Field[]): bigint => (qi ? mask(...fields) : 0n);
  return {
    VER: { offset: OFFSET.VER, width: 4, access: 'RO', reset: BigInt(ver), layout: VER, doc: 'Version' },
    CAP: { offset: OFFSET.CAP, width: 8, access: 'RO', reset: caps.cap, layout: CAP, doc: 'Capability' },
    ECAP: { offset: OFFSET.ECAP, width: 8, access: 'RO', reset: caps.ecap, layout: ECAP, doc: 'Extended capability' },
    GCMD: { offset: OFFSET.GCMD, width: 4, access: 'WO', layout: GCMD, doc: 'Global command' },
    GSTS: { offset: OFFSET.GSTS, width: 4, access: 'RO', layout: GSTS, doc: 'Global status' },
    RTADDR: {
      offset: OFFSET.RTADDR,
      width: 8,
      access: 'RW',
      writable: mask(RTADDR.RTA, RTADDR.TTM),
      layout: RTADDR,
      doc: 'Root table address',
    },
    CCMD: {
      offset: OFFSET.CCMD,
      width: 8,
      access: 'RW',
      writable: mask(CCMD.ICC, CCMD.CIRG, CCMD.FM, CCMD.SID, CCMD.DID),
      layout: CCMD,
      doc: 'Context command',
    },
    FSTS: {
      offset: OFFSET.FSTS,
      width: 4,
      access: 'RO',
      rw1c: mask(FSTS.PFO, FSTS.IQE, FSTS.ICE, FSTS.ITE),
      layout: FSTS,
      doc: 'Fault status',
    },
    FECTL: {
      offset: OFFSET.FECTL,
      width: 4,
      access: 'RW',
      writable: mask(EVENT_CTL.IM),
      reset: mask(EVENT_CTL.IM),
      layout: EVENT_CTL,
      doc: 'Fault event control',
    },
    FEDATA: { offset: OFFSET.FEDATA, width: 4, access: 'RW', layout: EVENT_DATA, doc: 'Fault event data' },
    FEADDR: {
      offset: OFFSET.FEADDR,
      width: 4,
      access: 'RW',
      writable: mask(EVENT_ADDR.MA),
      layout: EVENT_ADDR,
      doc: 'Fault event address',
    },
    FEUADDR: { offset: OFFSET.FEUADDR, width: 4, access: 'RW', doc: 'Fault event upper address' },
    AFLOG: { offset: OFFSET.AFLOG, width: 8, access: 'RO', doc: 'Advanced fault log (CAP.AFL)' },
    PMEN: {
      offset: OFFSET.PMEN,
      width: 4,
      access: 'RO',
      layout: PMEN,
      doc: 'Protected memory enable (CAP.PLMR, PHMR)',
    },
    PLMBASE: { offset: OFFSET.PLMBASE, width: 4, access: 'RO', doc: 'Protected low memory base' },
    PLMLIMIT: { offset: OFFSET.PLMLIMIT, width: 4, access: 'RO', doc: 'Protected low memory limit' },
    PHMBASE: { offset: OFFSET.PHMBASE, width: 8, access: 'RO', doc: 'Protected high memory base' },
    PHMLIMIT: { offset: OFFSET.PHMLIMIT, width: 8, access: 'RO', doc: 'Protected high memory limit' },
    IQH: { offset: OFFSET.IQH, width: 8, access: 'RO', layout: IQH, doc: 'Invalidation queue head' },
    IQT: {
      offset: OFFSET.IQT,
      width: 8,
      access: 'RW',
      writable: iq(IQT.QT),
      layout: IQT,
      doc: 'Invalidation queue tail',
    },
    IQA: {
      offset: OFFSET.IQA,
      width: 8,
      access: 'RW',
      writable: iq(IQA.IQA, IQA.QS, ...(caps.scalable ? [IQA.DW] : [])),
      layout: IQA,
      doc: 'Invalidation queue address',
    },
    ICS: { offset: OFFSET.ICS, width: 4, access: 'RO', rw1c: iq(ICS.IWC), layout: ICS, doc: 'Invalidation completion' },
    IECTL: {
      offset: OFFSET.IECTL,
      width: 4,
      access: 'RW',
      writable: iq(EVENT_CTL.IM),
      reset: iq(EVENT_CTL.IM),
      layout: EVENT_CTL,
      doc: 'Invalidation event control',
    },
    IEDATA: {
      offset: OFFSET.IEDATA,
      width: 4,
      access: 'RW',
      writable: iq(EVENT_DATA.EIMD, EVENT_DATA.IMD),
      layout: EVENT_DATA,
      doc: 'Invalidation event data',
    },
    IEADDR: {
      offset: OFFSET.IEADDR,
      width: 4,
      access: 'RW',
      writable: iq(EVENT_ADDR.MA),
      layout: EVENT_ADDR,
      doc: 'Invalidation event address',
    },
    IEUADDR: {
      offset: OFFSET.IEUADDR,
      width: 4,
      access: 'RW',
      writable: qi ? 0xffff_ffffn : 0n,
      doc: 'Invalidation event upper address',
    },
    IQERCD: { offset: OFFSET.IQERCD, width: 8, access: 'RO', layout: IQERCD, doc: 'Invalidation queue error record' },
    IRTA: { offset: OFFSET.IRTA, width: 8, access: 'RO', doc: 'Interrupt remapping table address (ECAP.IR)' },
    PQH: { offset: OFFSET.PQH, width: 8, access: 'RO', doc: 'Page request queue head (ECAP.PRS)' },
    PQT: { offset: OFFSET.PQT, width: 8, access: 'RO', doc: 'Page request queue tail (ECAP.PRS)' },
    PQA: { offset: OFFSET.PQA, width: 8, access: 'RO', doc: 'Page request queue address (ECAP.PRS)' },
    PRS: { offset: OFFSET.PRS, width: 4, access: 'RO', doc: 'Page request status (ECAP.PRS)' },
    PECTL: { offset: OFFSET.PECTL, width: 4, access: 'RO', doc: 'Page request event control (ECAP.PRS)' },
    PEDATA: { offset: OFFSET.PEDATA, width: 4, access: 'RO', doc: 'Page request event data (ECAP.PRS)' },
    PEADDR: { offset: OFFSET.PEADDR, width: 4, access: 'RO', doc: 'Page request event address (ECAP.PRS)' },
    PEUADDR: { offset: OFFSET.PEUADDR, width: 4, access: 'RO', doc: 'Page request event upper address (ECAP.PRS)' },
    IVA: { offset: ivaOffset, width: 8, access: 'WO', layout: IVA, doc: 'Invalidate address' },
    IOTLB: {
      offset: ivaOffset + 8,
      width: 8,
      access: 'RW',
      writable: mask(IOTLB.IVT, IOTLB.IIRG, IOTLB.DR, IOTLB.DW, IOTLB.DID),
      layout: IOTLB,
      doc: 'IOTLB invalidate',
    },
    FRCD_LO: {
      offset: frcdOffset,
      width: 8,
      access: 'RO',
      count: frcdCount,
      stride: 16,
      doc: 'Fault recording, bits 63:0',
    },
    FRCD_HI: {
      offset: frcdOffset + 8,
      width: 8,
      access: 'RO',
      rw1c: 1n << 63n,
      count: frcdCount,
      stride: 16,
      doc: 'Fault recording, bits 127:64',
    },
  };
};
