/**
 * Register map of an SMMUv3 (Arm IHI 0070, chapter 6.3), non-secure programming interface: page 0 at 0, page 1 at 0x10000.
 * Offsets count from the base of page 0.
 */
import { bit, bits } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';
import type { RegisterMap } from '@iommu-ts/iommu-core';

/** SMMU_IDR0, features (6.3.1). */
export const IDR0 = {
  ST_LEVEL: bits(28, 27, '1: two-level stream tables'),
  TERM_MODEL: bit(26, '1: terminated transactions always abort, CD.A must be 1'),
  STALL_MODEL: bits(25, 24, '0 stall and terminate, 1 terminate only, 2 stall only'),
  ATSRECERR: bit(23, 'configuration errors of ATS requests are recorded'),
  TTENDIAN: bits(22, 21, '0 mixed, 2 little-endian, 3 big-endian tables'),
  VATOS: bit(20, 'virtual address translation operations'),
  CD2L: bit(19, 'two-level context descriptor tables'),
  VMID16: bit(18, '16-bit VMIDs'),
  VMW: bit(17, 'VMID wildcards'),
  PRI: bit(16, 'page request interface'),
  ATOS: bit(15, 'address translation operations'),
  SEV: bit(14, 'WFE wake-up events'),
  MSI: bit(13, 'message signalled interrupts'),
  ASID16: bit(12, '16-bit ASIDs'),
  NS1ATS: bit(11, 'split-stage ATS is not supported'),
  ATS: bit(10, 'PCIe ATS'),
  Hyp: bit(9, 'EL2 stage 1 contexts'),
  DORMHINT: bit(8, 'dormant hint'),
  HTTU: bits(7, 6, 'hardware update of Access flag and dirty state'),
  BTM: bit(5, 'broadcast TLB maintenance'),
  COHACC: bit(4, 'tables and queues are accessed coherently'),
  TTF: bits(3, 2, 'table formats: bit 0 AArch32 LPAE, bit 1 AArch64'),
  S1P: bit(1, 'stage 1'),
  S2P: bit(0, 'stage 2'),
} as const satisfies Layout;

/** SMMU_IDR1, sizes (6.3.2). */
export const IDR1 = {
  ECMDQ: bit(31, 'enhanced command queues'),
  TABLES_PRESET: bit(30, 'the stream table base is fixed'),
  QUEUES_PRESET: bit(29, 'the queue bases are fixed'),
  REL: bit(28, 'preset bases are relative'),
  ATTR_TYPES_OVR: bit(27, 'incoming memory types can be overridden'),
  ATTR_PERMS_OVR: bit(26, 'incoming PRIV and INST can be overridden'),
  CMDQS: bits(25, 21, 'log2 of the largest command queue'),
  EVENTQS: bits(20, 16, 'log2 of the largest event queue'),
  PRIQS: bits(15, 11, 'log2 of the largest PRI queue'),
  SSIDSIZE: bits(10, 6, 'bits of SubstreamID'),
  SIDSIZE: bits(5, 0, 'bits of StreamID'),
} as const satisfies Layout;

/** SMMU_IDR3 (6.3.4). */
export const IDR3 = {
  DPT: bit(15, 'device permission table'),
  PTWNNC: bit(14, 'walks through device memory become normal non-cacheable'),
  E0PD: bit(13, 'CD.E0PD'),
  BBML: bits(12, 11, 'break-before-make level'),
  RIL: bit(10, 'range invalidation and level hint'),
  STT: bit(9, 'small translation tables'),
  FWB: bit(8, 'stage 2 forced write-back'),
  MPAM: bit(7, 'memory partitioning'),
  PPS: bit(5, 'PASID in PRI responses'),
  XNX: bit(4, 'stage 2 execute-never by privilege'),
  PBHA: bit(3, 'page-based hardware attributes'),
  HAD: bit(2, 'hierarchical attributes can be disabled'),
} as const satisfies Layout;

/** SMMU_IDR5 (6.3.6). */
export const IDR5 = {
  STALL_MAX: bits(31, 16, 'stalled transactions'),
  VAX: bits(11, 10, 'virtual addresses: 0 48 bits, 1 52 bits'),
  D128: bit(8, '128-bit descriptors'),
  DS: bit(7, '52-bit addresses with 4 KiB and 16 KiB granules'),
  GRAN64K: bit(6, '64 KiB granule'),
  GRAN16K: bit(5, '16 KiB granule'),
  GRAN4K: bit(4, '4 KiB granule'),
  OAS: bits(2, 0, 'output address size: 32, 36, 40, 42, 44, 48, 52 bits'),
} as const satisfies Layout;

/** SMMU_AIDR (6.3.8). */
export const AIDR = {
  ArchMajorRev: bits(7, 4, '0: SMMUv3'),
  ArchMinorRev: bits(3, 0, 'minor revision'),
} as const satisfies Layout;

/** SMMU_IIDR (6.3.7). */
export const IIDR = {
  ProductID: bits(31, 20),
  Variant: bits(19, 16),
  Revision: bits(15, 12),
  Implementer: bits(11, 0, 'JEP106 code'),
} as const satisfies Layout;

/** SMMU_CR0 and SMMU_CR0ACK (6.3.9, 6.3.10). */
export const CR0 = {
  VMW: bits(8, 6, 'VMID wildcard'),
  ATSCHK: bit(4, 'ATS translated traffic is checked'),
  CMDQEN: bit(3, 'command queue enabled'),
  EVENTQEN: bit(2, 'event queue enabled'),
  PRIQEN: bit(1, 'PRI queue enabled'),
  SMMUEN: bit(0, 'translation enabled'),
} as const satisfies Layout;

/** SMMU_CR1: attributes of the SMMU's own accesses (6.3.11). */
export const CR1 = {
  TABLE_SH: bits(11, 10),
  TABLE_OC: bits(9, 8),
  TABLE_IC: bits(7, 6),
  QUEUE_SH: bits(5, 4),
  QUEUE_OC: bits(3, 2),
  QUEUE_IC: bits(1, 0),
} as const satisfies Layout;

/** SMMU_CR2 (6.3.12). */
export const CR2 = {
  PTM: bit(2, 'private TLB maintenance'),
  RECINVSID: bit(1, 'C_BAD_STREAMID is recorded'),
  E2H: bit(0, 'EL2-E2H regime'),
} as const satisfies Layout;

/** SMMU_GBPA: what happens to traffic while SMMUEN is 0 (6.3.14). */
export const GBPA = {
  Update: bit(31, 'write 1 to apply the other fields; reads 0 when done'),
  ABORT: bit(20, 'abort all traffic'),
  INSTCFG: bits(19, 18),
  PRIVCFG: bits(17, 16),
  SHCFG: bits(13, 12),
  ALLOCCFG: bits(11, 8),
  MTCFG: bit(4),
  MemAttr: bits(3, 0),
} as const satisfies Layout;

/** SMMU_IRQ_CTRL and SMMU_IRQ_CTRLACK (6.3.17, 6.3.18). */
export const IRQ_CTRL = {
  EVENTQ_IRQEN: bit(2),
  PRIQ_IRQEN: bit(1),
  GERROR_IRQEN: bit(0),
} as const satisfies Layout;

/** SMMU_GERROR and SMMU_GERRORN (6.3.19, 6.3.20): an error is active while its bits differ. */
export const GERROR = {
  SFM_ERR: bit(8, 'service failure mode'),
  MSI_GERROR_ABT_ERR: bit(7),
  MSI_PRIQ_ABT_ERR: bit(6),
  MSI_EVENTQ_ABT_ERR: bit(5),
  MSI_CMDQ_ABT_ERR: bit(4),
  PRIQ_ABT_ERR: bit(3),
  EVENTQ_ABT_ERR: bit(2, 'a record could not be written'),
  CMDQ_ERR: bit(0, 'see CMDQ_CONS.ERR'),
} as const satisfies Layout;

/** SMMU_…_IRQ_CFG0: address of an MSI (6.3.21 …). */
export const IRQ_CFG0 = { ADDR: bits(55, 2, '0: no MSI, use the wire') } as const satisfies Layout;
/** SMMU_…_IRQ_CFG1: payload of an MSI. */
export const IRQ_CFG1 = { DATA: bits(31, 0) } as const satisfies Layout;
/** SMMU_…_IRQ_CFG2: memory attributes of an MSI. */
export const IRQ_CFG2 = { SH: bits(5, 4), MemAttr: bits(3, 0) } as const satisfies Layout;

/** SMMU_STRTAB_BASE (6.3.24). */
export const STRTAB_BASE = {
  RA: bit(62, 'read-allocate hint'),
  ADDR: bits(51, 6, 'aligned to the size of the table by the SMMU'),
} as const satisfies Layout;

/** SMMU_STRTAB_BASE_CFG (6.3.25). */
export const STRTAB_BASE_CFG = {
  FMT: bits(17, 16, '0 linear, 1 two-level'),
  SPLIT: bits(10, 6, 'StreamID bits of the second level: 6, 8 or 10'),
  LOG2SIZE: bits(5, 0, 'log2 of the number of streams'),
} as const satisfies Layout;

/** SMMU_CMDQ_BASE, SMMU_EVENTQ_BASE and SMMU_PRIQ_BASE (6.3.26 …); RA is WA for the latter two. */
export const QUEUE_BASE = {
  RA: bit(62, 'allocation hint'),
  ADDR: bits(51, 5, 'aligned to the size of the queue by the SMMU'),
  LOG2SIZE: bits(4, 0, 'log2 of the number of entries'),
} as const satisfies Layout;

/** SMMU_CMDQ_PROD (6.3.27): index and, above it, the wrap bit. */
export const CMDQ_PROD = { WR: bits(19, 0) } as const satisfies Layout;
/** SMMU_CMDQ_CONS (6.3.28). */
export const CMDQ_CONS = {
  ERR: bits(30, 24, 'CERROR_…, valid while GERROR.CMDQ_ERR is active'),
  RD: bits(19, 0),
} as const satisfies Layout;
/** SMMU_EVENTQ_PROD (6.3.30). */
export const EVENTQ_PROD = {
  OVFLG: bit(31, 'toggles when records are lost'),
  WR: bits(19, 0),
} as const satisfies Layout;
/** SMMU_EVENTQ_CONS (6.3.31). */
export const EVENTQ_CONS = {
  OVACKFLG: bit(31, 'set to OVFLG to acknowledge'),
  RD: bits(19, 0),
} as const satisfies Layout;

/** Offsets by name, for drivers and tools. */
export const REG = {
  IDR0: 0x0,
  IDR1: 0x4,
  IDR2: 0x8,
  IDR3: 0xc,
  IDR4: 0x10,
  IDR5: 0x14,
  IIDR: 0x18,
  AIDR: 0x1c,
  CR0: 0x20,
  CR0ACK: 0x24,
  CR1: 0x28,
  CR2: 0x2c,
  STATUSR: 0x40,
  GBPA: 0x44,
  AGBPA: 0x48,
  IRQ_CTRL: 0x50,
  IRQ_CTRLACK: 0x54,
  GERROR: 0x60,
  GERRORN: 0x64,
  GERROR_IRQ_CFG0: 0x68,
  GERROR_IRQ_CFG1: 0x70,
  GERROR_IRQ_CFG2: 0x74,
  STRTAB_BASE: 0x80,
  STRTAB_BASE_CFG: 0x88,
  CMDQ_BASE: 0x90,
  CMDQ_PROD: 0x98,
  CMDQ_CONS: 0x9c,
  EVENTQ_BASE: 0xa0,
  EVENTQ_IRQ_CFG0: 0xb0,
  EVENTQ_IRQ_CFG1: 0xb8,
  EVENTQ_IRQ_CFG2: 0xbc,
  PRIQ_BASE: 0xc0,
  PRIQ_IRQ_CFG0: 0xd0,
  PRIQ_IRQ_CFG1: 0xd8,
  PRIQ_IRQ_CFG2: 0xdc,
  EVENTQ_PROD: 0x100a8,
  EVENTQ_CONS: 0x100ac,
  PRIQ_PROD: 0x100c8,
  PRIQ_CONS: 0x100cc,
} as const;

/** Bytes of the register block: two 64 KiB pages. */
export const REGISTER_BYTES = 0x2_0000;

/** Base registers hold RA/WA, an address and (queues) LOG2SIZE; all other bits are RES0. */
const STRTAB_BITS = 0x400f_ffff_ffff_ffc0n;
const QUEUE_BITS = 0x400f_ffff_ffff_ffffn;
const MSI_ADDR_BITS = 0x00ff_ffff_ffff_fffcn;

/** The registers that are there. Identification registers take their values from the constructor of the device. */
export const REGISTERS = {
  IDR0: { offset: REG.IDR0, width: 4, access: 'RO', layout: IDR0, doc: 'features' },
  IDR1: { offset: REG.IDR1, width: 4, access: 'RO', layout: IDR1, doc: 'sizes' },
  IDR2: { offset: REG.IDR2, width: 4, access: 'RO', doc: 'VATOS page' },
  IDR3: { offset: REG.IDR3, width: 4, access: 'RO', layout: IDR3, doc: 'features' },
  IDR4: { offset: REG.IDR4, width: 4, access: 'RO', doc: 'implementation defined' },
  IDR5: { offset: REG.IDR5, width: 4, access: 'RO', layout: IDR5, doc: 'address sizes and granules' },
  IIDR: { offset: REG.IIDR, width: 4, access: 'RO', layout: IIDR, doc: 'implementer' },
  AIDR: { offset: REG.AIDR, width: 4, access: 'RO', layout: AIDR, doc: 'architecture revision' },
  CR0: { offset: REG.CR0, width: 4, access: 'RW', layout: CR0, writable: 0xdn, doc: 'enables' },
  CR0ACK: { offset: REG.CR0ACK, width: 4, access: 'RO', layout: CR0, doc: 'enables that have taken effect' },
  CR1: { offset: REG.CR1, width: 4, access: 'RW', layout: CR1, writable: 0xfffn, doc: 'attributes of own accesses' },
  CR2: { offset: REG.CR2, width: 4, access: 'RW', layout: CR2, writable: 0x7n, doc: 'event recording, EL2 mode' },
  STATUSR: { offset: REG.STATUSR, width: 4, access: 'RO', doc: 'DORMANT, bit 0' },
  GBPA: { offset: REG.GBPA, width: 4, access: 'RW', layout: GBPA, writable: 0x001f_3f1fn, doc: 'global bypass' },
  AGBPA: { offset: REG.AGBPA, width: 4, access: 'RO', doc: 'implementation defined bypass attributes' },
  IRQ_CTRL: {
    offset: REG.IRQ_CTRL,
    width: 4,
    access: 'RW',
    layout: IRQ_CTRL,
    writable: 0x5n,
    doc: 'interrupt enables',
  },
  IRQ_CTRLACK: { offset: REG.IRQ_CTRLACK, width: 4, access: 'RO', layout: IRQ_CTRL, doc: 'enables in effect' },
  GERROR: { offset: REG.GERROR, width: 4, access: 'RO', layout: GERROR, doc: 'global errors' },
  GERRORN: { offset: REG.GERRORN, width: 4, access: 'RW', layout: GERROR, writable: 0x1ffn, doc: 'acknowledgements' },
  GERROR_IRQ_CFG0: {
    offset: REG.GERROR_IRQ_CFG0,
    width: 8,
    access: 'RW',
    layout: IRQ_CFG0,
    writable: MSI_ADDR_BITS,
    doc: 'MSI address',
  },
  GERROR_IRQ_CFG1: { offset: REG.GERROR_IRQ_CFG1, width: 4, access: 'RW', layout: IRQ_CFG1, doc: 'MSI payload' },
  GERROR_IRQ_CFG2: {
    offset: REG.GERROR_IRQ_CFG2,
    width: 4,
    access: 'RW',
    layout: IRQ_CFG2,
    writable: 0x3fn,
    doc: 'MSI attributes',
  },
  STRTAB_BASE: {
    offset: REG.STRTAB_BASE,
    width: 8,
    access: 'RW',
    layout: STRTAB_BASE,
    writable: STRTAB_BITS,
    doc: 'stream table',
  },
  STRTAB_BASE_CFG: {
    offset: REG.STRTAB_BASE_CFG,
    width: 4,
    access: 'RW',
    layout: STRTAB_BASE_CFG,
    writable: 0x3_07ffn,
    doc: 'stream table shape',
  },
  CMDQ_BASE: {
    offset: REG.CMDQ_BASE,
    width: 8,
    access: 'RW',
    layout: QUEUE_BASE,
    writable: QUEUE_BITS,
    doc: 'command queue',
  },
  CMDQ_PROD: { offset: REG.CMDQ_PROD, width: 4, access: 'RW', layout: CMDQ_PROD, writable: 0xf_ffffn, doc: 'tail' },
  CMDQ_CONS: {
    offset: REG.CMDQ_CONS,
    width: 4,
    access: 'RW',
    layout: CMDQ_CONS,
    writable: 0x7f0f_ffffn,
    doc: 'head and error code; read-only while the queue is enabled',
  },
  EVENTQ_BASE: {
    offset: REG.EVENTQ_BASE,
    width: 8,
    access: 'RW',
    layout: QUEUE_BASE,
    writable: QUEUE_BITS,
    doc: 'event queue',
  },
  EVENTQ_IRQ_CFG0: {
    offset: REG.EVENTQ_IRQ_CFG0,
    width: 8,
    access: 'RW',
    layout: IRQ_CFG0,
    writable: MSI_ADDR_BITS,
    doc: 'MSI address',
  },
  EVENTQ_IRQ_CFG1: { offset: REG.EVENTQ_IRQ_CFG1, width: 4, access: 'RW', layout: IRQ_CFG1, doc: 'MSI payload' },
  EVENTQ_IRQ_CFG2: {
    offset: REG.EVENTQ_IRQ_CFG2,
    width: 4,
    access: 'RW',
    layout: IRQ_CFG2,
    writable: 0x3fn,
    doc: 'MSI attributes',
  },
  PRIQ_BASE: { offset: REG.PRIQ_BASE, width: 8, access: 'RO', layout: QUEUE_BASE, doc: 'RES0: IDR0.PRI is 0' },
  PRIQ_IRQ_CFG0: { offset: REG.PRIQ_IRQ_CFG0, width: 8, access: 'RO', layout: IRQ_CFG0, doc: 'RES0: IDR0.PRI is 0' },
  PRIQ_IRQ_CFG1: { offset: REG.PRIQ_IRQ_CFG1, width: 4, access: 'RO', layout: IRQ_CFG1, doc: 'RES0: IDR0.PRI is 0' },
  PRIQ_IRQ_CFG2: { offset: REG.PRIQ_IRQ_CFG2, width: 4, access: 'RO', layout: IRQ_CFG2, doc: 'RES0: IDR0.PRI is 0' },
  EVENTQ_PROD: {
    offset: REG.EVENTQ_PROD,
    width: 4,
    access: 'RW',
    layout: EVENTQ_PROD,
    writable: 0x800f_ffffn,
    doc: 'tail; read-only while the queue is enabled',
  },
  EVENTQ_CONS: {
    offset: REG.EVENTQ_CONS,
    width: 4,
    access: 'RW',
    layout: EVENTQ_CONS,
    writable: 0x800f_ffffn,
    doc: 'head',
  },
  PRIQ_PROD: { offset: REG.PRIQ_PROD, width: 4, access: 'RO', doc: 'RES0: IDR0.PRI is 0' },
  PRIQ_CONS: { offset: REG.PRIQ_CONS, width: 4, access: 'RO', doc: 'RES0: IDR0.PRI is 0' },
} as const satisfies RegisterMap;
