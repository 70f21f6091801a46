/**
 * MMIO registers of the AMD IOMMU, as data.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, section 3.4 "IOMMU MMIO Registers".
 */
import { bit, bits, extract } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';
import type { RegisterMap, RegisterSpec } from '@iommu-ts/iommu-core';

/** Device Table Base Address Register, 0x0000; `Size` counts 4 KiB pages, less one. */
export const DevTabBaseAddr = {
  DevTabBase: bits(51, 12, 'physical address bits 51:12'),
  Size: bits(8, 0, 'length of the table in 4 KiB pages, minus one'),
} as const satisfies Layout;

/** Device Table Segment n Base Address Register, 0x0100 + 8 * (n - 1). */
export const DevTabSegBaseAddr = {
  DevTabSegBase: bits(51, 12, 'physical address bits 51:12'),
  Size: bits(7, 0, 'length of the segment in 4 KiB pages, minus one'),
} as const satisfies Layout;

/** Command Buffer Base Address Register, 0x0008. */
export const ComBaseAddr = {
  ComLen: bits(59, 56, 'log2 of the number of entries, 8 (256) to 15 (32768); smaller values are reserved'),
  ComBase: bits(51, 12, 'physical address bits 51:12'),
} as const satisfies Layout;

/** Event Log Base Address Register, 0x0010. */
export const EventBaseAddr = {
  EventLen: bits(59, 56, 'log2 of the number of entries, 8 (256) to 15 (32768); smaller values are reserved'),
  EventBase: bits(51, 12, 'physical address bits 51:12'),
} as const satisfies Layout;

/** IOMMU Control Register, 0x0018. */
export const Control = {
  DevTblSegEn: bits(36, 34, 'log2 of the number of device table segments'),
  GAIntEn: bit(29, 'guest virtual APIC interrupt enable'),
  GALogEn: bit(28, 'guest virtual APIC log enable'),
  GAEn: bit(17, 'guest virtual APIC enable'),
  GTEn: bit(16, 'guest translation enable'),
  PPREn: bit(15, 'peripheral page request processing enable'),
  PprIntEn: bit(14, 'peripheral page request interrupt enable'),
  PprLogEn: bit(13, 'peripheral page request log enable'),
  CmdBufEn: bit(12, 'command buffer enable'),
  Isoc: bit(11, 'isochronous table reads'),
  Coherent: bit(10, 'coherent (snooped) table reads'),
  ResPassPW: bit(9, 'responses may pass posted writes'),
  PassPW: bit(8, 'table reads may pass posted writes'),
  InvTimeOut: bits(7, 5, 'timeout of device IOTLB invalidations'),
  ComWaitIntEn: bit(4, 'completion wait interrupt enable'),
  EventIntEn: bit(3, 'event log interrupt enable'),
  EventLogEn: bit(2, 'event log enable'),
  HtTunEn: bit(1, 'HyperTransport tunnel translation enable'),
  IommuEn: bit(0, 'IOMMU enable: 0 forwards every request untranslated'),
} as const satisfies Layout;

/** Exclusion Base Register, 0x0020. */
export const ExclusionBase = {
  ExclusionBase: bits(51, 12, 'first 4 KiB page of the range'),
  Allow: bit(1, 'every device may use the range; 0: only those with DTE.EX'),
  ExEn: bit(0, 'the range is in force'),
} as const satisfies Layout;

/** Exclusion Range Limit Register, 0x0028. */
export const ExclusionLimit = {
  ExclusionLimit: bits(51, 12, 'last 4 KiB page of the range, inclusive'),
} as const satisfies Layout;

/** IOMMU Extended Feature Register, 0x0030. */
export const ExtFeature = {
  ForcePhyDestSup: bit(62, 'forced physical destination mode for remapped interrupts'),
  GAUpdateDisSup: bit(61, 'disabling of hardware updates in guest virtual APIC mode'),
  InvIotlbTypeSup: bit(54, 'type field of INVALIDATE_IOTLB_PAGES'),
  HDSup: bit(52, 'host dirty bit update'),
  AttrFWSup: bit(51, 'attribute forwarding'),
  EPHSup: bit(50, 'enhanced page request handling'),
  HASup: bit(49, 'host accessed bit update'),
  GIoSup: bit(48, 'guest I/O protection'),
  MsiCapMmioSup: bit(46, 'MSI capability registers in MMIO space'),
  PerfOptSup: bit(45, 'performance optimisation'),
  BlkStopMrkSup: bit(44, 'block StopMark messages'),
  MarcSup: bits(43, 42, 'memory access routing and control'),
  PprAutoRspSup: bit(41, 'automatic PPR response'),
  PprOvrflwEarlySup: bit(40, 'PPR log early overflow warning'),
  DevTblSegSup: bits(39, 38, 'log2 of the number of device table segments'),
  USSup: bit(37, 'user/supervisor protection'),
  PASmax: bits(36, 32, 'PASID width minus one'),
  DualEventLogSup: bits(29, 28, 'second event log'),
  DualPprLogSup: bits(25, 24, 'second PPR log'),
  GAMSup: bits(23, 21, 'guest virtual APIC mode'),
  SmiFRC: bits(20, 18, 'number of SMI filter registers'),
  SmiFSup: bits(17, 16, 'SMI filter'),
  GLXSup: bits(15, 14, 'levels of the GCR3 table'),
  GATS: bits(13, 12, 'guest translation levels'),
  HATS: bits(11, 10, 'host translation levels: 0 four, 1 five, 2 six, 3 reserved'),
  PCSup: bit(9, 'performance counters'),
  HESup: bit(8, 'hardware error registers'),
  GASup: bit(7, 'guest virtual APIC'),
  IASup: bit(6, 'INVALIDATE_IOMMU_ALL'),
  GTSup: bit(4, 'guest translation'),
  NXSup: bit(3, 'no-execute protection'),
  XTSup: bit(2, 'x2APIC'),
  PPRSup: bit(1, 'peripheral page requests'),
  PreFSup: bit(0, 'PREFETCH_IOMMU_PAGES'),
} as const satisfies Layout;

/** Head and tail pointers of the command buffer and the event log, 0x2000 … 0x2018: byte offsets of 16-byte entries. */
export const QueuePointer = {
  Ptr: bits(18, 4, 'byte offset into the ring, bits 18:4'),
} as const satisfies Layout;

/** IOMMU Status Register, 0x2020. */
export const Status = {
  GAInt: bit(10, 'guest virtual APIC interrupt'),
  GALOverflow: bit(9, 'guest virtual APIC log overflow'),
  GALogRun: bit(8, 'guest virtual APIC log running'),
  PprLogRun: bit(7, 'PPR log running'),
  PprInt: bit(6, 'PPR interrupt'),
  PprOverflow: bit(5, 'PPR log overflow'),
  CmdBufRun: bit(4, 'commands are being fetched'),
  EventLogRun: bit(3, 'events are being logged'),
  ComWaitInt: bit(2, 'a COMPLETION_WAIT with I=1 has completed; write 1 to clear'),
  EventLogInt: bit(1, 'an event was logged; write 1 to clear'),
  EventOverflow: bit(0, 'an event was lost because the log was full; write 1 to clear'),
} as const satisfies Layout;

/** MSI Capability Header Register, 0x0158. */
export const MsiCapHeader = {
  Msi64En: bit(23, '64-bit addresses'),
  MsiMultMessEn: bits(22, 20, 'messages enabled'),
  MsiMultMessCap: bits(19, 17, 'messages requested'),
  MsiEn: bit(16, 'MSI enable'),
  MsiCapPtr: bits(15, 8, 'next capability'),
  MsiCapID: bits(7, 0, 'capability id, 05h'),
} as const satisfies Layout;

const CONTROL_ALWAYS =
  (1n << 0n) | // IommuEn
  (1n << 1n) | // HtTunEn
  (0x7n << 2n) | // EventLogEn, EventIntEn, ComWaitIntEn
  (0x7n << 5n) | // InvTimeOut
  (0x1fn << 8n); // PassPW, ResPassPW, Coherent, Isoc, CmdBufEn

/** Every register of this version by its specification name. Which of them a unit has, its features decide: {@link registerMap}. */
export const REGISTERS = {
  DevTabBaseAddr: {
    offset: 0x0000,
    width: 8,
    access: 'RW',
    writable: 0x000f_ffff_ffff_f1ffn,
    layout: DevTabBaseAddr,
    doc: 'Device Table Base Address',
  },
  ComBaseAddr: {
    offset: 0x0008,
    width: 8,
    access: 'RW',
    reset: 8n << 56n,
    writable: 0x0f0f_ffff_ffff_f000n,
    layout: ComBaseAddr,
    doc: 'Command Buffer Base Address',
  },
  EventBaseAddr: {
    offset: 0x0010,
    width: 8,
    access: 'RW',
    reset: 8n << 56n,
    writable: 0x0f0f_ffff_ffff_f000n,
    layout: EventBaseAddr,
    doc: 'Event Log Base Address',
  },
  Control: {
    offset: 0x0018,
    width: 8,
    access: 'RW',
    writable: CONTROL_ALWAYS,
    layout: Control,
    doc: 'IOMMU Control; optional enables are writable where the feature exists',
  },
  ExclusionBase: {
    offset: 0x0020,
    width: 8,
    access: 'RW',
    writable: 0x000f_ffff_ffff_f003n,
    layout: ExclusionBase,
    doc: 'Exclusion Base',
  },
  ExclusionLimit: {
    offset: 0x0028,
    width: 8,
    access: 'RW',
    writable: 0x000f_ffff_ffff_f000n,
    layout: ExclusionLimit,
    doc: 'Exclusion Range Limit',
  },
  ExtFeature: { offset: 0x0030, width: 8, access: 'RO', layout: ExtFeature, doc: 'IOMMU Extended Feature' },
  PprBaseAddr: {
    offset: 0x0038,
    width: 8,
    access: 'RW',
    reset: 8n << 56n,
    writable: 0x0f0f_ffff_ffff_f000n,
    doc: 'PPR Log Base Address (with PPRSup; storage only)',
  },
  DevTabSegBaseAddr: {
    offset: 0x0100,
    width: 8,
    access: 'RW',
    writable: 0x000f_ffff_ffff_f0ffn,
    count: 7,
    stride: 8,
    layout: DevTabSegBaseAddr,
    doc: 'Device Table Segment 1 … 7 Base Address (with DevTblSegSup)',
  },
  MsiCapHeader: {
    offset: 0x0158,
    width: 4,
    access: 'RW',
    reset: 0x0080_0005n,
    writable: 0x0071_0000n,
    layout: MsiCapHeader,
    doc: 'MSI Capability Header (with MsiCapMmioSup)',
  },
  MsiAddrLo: { offset: 0x015c, width: 4, access: 'RW', writable: 0xffff_fffcn, doc: 'MSI Address Low' },
  MsiAddrHi: { offset: 0x0160, width: 4, access: 'RW', doc: 'MSI Address High' },
  MsiData: { offset: 0x0164, width: 4, access: 'RW', writable: 0xffffn, doc: 'MSI Data' },
  ExtFeature2: { offset: 0x01a0, width: 8, access: 'RO', doc: 'IOMMU Extended Feature 2' },
  CmdBufHead: {
    offset: 0x2000,
    width: 8,
    access: 'RW',
    writable: 0x7_fff0n,
    layout: QueuePointer,
    doc: 'Command Buffer Head Pointer: advanced by the IOMMU; software writes it while the buffer is stopped',
  },
  CmdBufTail: {
    offset: 0x2008,
    width: 8,
    access: 'RW',
    writable: 0x7_fff0n,
    layout: QueuePointer,
    doc: 'Command Buffer Tail Pointer: a write starts the fetching of commands',
  },
  EvtLogHead: {
    offset: 0x2010,
    width: 8,
    access: 'RW',
    writable: 0x7_fff0n,
    layout: QueuePointer,
    doc: 'Event Log Head Pointer: advanced by software',
  },
  EvtLogTail: {
    offset: 0x2018,
    width: 8,
    access: 'RW',
    writable: 0x7_fff0n,
    layout: QueuePointer,
    doc: 'Event Log Tail Pointer: advanced by the IOMMU; software writes it while the log is stopped',
  },
  Status: {
    offset: 0x2020,
    width: 8,
    access: 'RW',
    writable: 0n,
    rw1c: 0x667n,
    layout: Status,
    doc: 'IOMMU Status',
  },
  PprLogHead: { offset: 0x2030, width: 8, access: 'RW', writable: 0x7_fff0n, doc: 'PPR Log Head Pointer' },
  PprLogTail: { offset: 0x2038, width: 8, access: 'RW', writable: 0x7_fff0n, doc: 'PPR Log Tail Pointer' },
} as const satisfies RegisterMap;

/** Bytes of the register block: 16 KiB, without the performance counters. */
export const REGISTER_BLOCK_SIZE = 0x4000;

/** Extended features that this version has or takes without effect; the rest is refused at construction. */
export const EFR_ACCEPTED =
  (1n << 0n) | // PreFSup: PREFETCH_IOMMU_PAGES is a hint, taken and ignored
  (1n << 1n) | // PPRSup: log registers only, no device sends page requests
  (1n << 4n) | // GTSup: a DTE with GV=1 is answered as illegal
  (1n << 6n) | // IASup
  (1n << 7n) | // GASup: the enable is stored; there is no interrupt remapping yet
  (1n << 8n) | // HESup: no hardware error ever occurs that is not an event
  (3n << 10n) | // HATS
  (3n << 12n) | // GATS, of GTSup
  (3n << 14n) | // GLXSup, of GTSup
  (0x1fn << 32n) | // PASmax, of GTSup
  (3n << 38n) | // DevTblSegSup
  (1n << 46n); // MsiCapMmioSup

/** What a unit's feature registers say about its registers. */
export interface RegisterFeatures {
  /** Extended Feature Register. */
  readonly efr: bigint;
  /** Extended Feature 2 Register. */
  readonly efr2: bigint;
}

/** The registers that a unit with these features has; others read as zero and ignore writes. */
export const registerMap = ({ efr, efr2 }: RegisterFeatures): RegisterMap => {
  const has = (n: bigint): boolean => ((efr >> n) & 1n) === 1n;
  const segments = 2 ** Number(extract(efr, ExtFeature.DevTblSegSup)) - 1;
  let control: bigint = CONTROL_ALWAYS;
  if (has(1n)) control |= 0x7n << 13n;
  if (has(4n)) control |= 1n << 16n;
  if (has(7n)) control |= 1n << 17n;
  if (segments > 0) control |= 0x7n << 34n;
  const map: Record<string, RegisterSpec> = { ...REGISTERS };
  map['Control'] = { ...REGISTERS.Control, writable: control };
  map['ExtFeature'] = { ...REGISTERS.ExtFeature, reset: efr };
  map['ExtFeature2'] = { ...REGISTERS.ExtFeature2, reset: efr2 };
  if (segments > 0) map['DevTabSegBaseAddr'] = { ...REGISTERS.DevTabSegBaseAddr, count: segments };
  else delete map['DevTabSegBaseAddr'];
  if (!has(1n)) for (const name of ['PprBaseAddr', 'PprLogHead', 'PprLogTail']) delete map[name];
  if (!has(46n)) for (const name of ['MsiCapHeader', 'MsiAddrLo', 'MsiAddrHi', 'MsiData']) delete map[name];
  return map;
};
