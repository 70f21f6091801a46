/**
 * The register map: RISC-V IOMMU Architecture Specification 1.0, chapter "Memory-mapped register interface".
 * Offsets in bytes from the base of the 4 KiB block.
 */
import { bit, bits } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';
import type { RegisterMap } from '@iommu-ts/iommu-core';

/** Bytes of the register block. */
export const REGISTER_BLOCK_BYTES = 4096;

/** `capabilities` (section "IOMMU capabilities"): what this IOMMU has. */
export const capabilities = {
  custom: bits(63, 56),
  S: bit(43, 'address range invalidation extension'),
  NL: bit(42, 'non-leaf PTE invalidation extension'),
  QOSID: bit(41, 'QoS ids with requests'),
  PD20: bit(40, 'three-level PDT'),
  PD17: bit(39, 'two-level PDT'),
  PD8: bit(38, 'one-level PDT'),
  PAS: bits(37, 32, 'physical address size in bits'),
  DBG: bit(31, 'translation-request interface'),
  HPM: bit(30, 'hardware performance monitor'),
  IGS: bits(29, 28, 'interrupt generation: 0 MSI, 1 WSI, 2 both'),
  END: bit(27, 'both endiannesses'),
  T2GPA: bit(26, 'ATS completions may return guest-physical addresses'),
  ATS: bit(25, 'PCIe ATS and PRI'),
  AMO_HWAD: bit(24, 'A and D bits updated by hardware'),
  MSI_MRIF: bit(23, 'MSI PTEs in MRIF mode'),
  MSI_FLAT: bit(22, 'MSI PTEs in basic mode; device contexts are 64 bytes'),
  AMO_MRIF: bit(21, 'atomic updates of MRIFs'),
  Sv57x4: bit(19),
  Sv48x4: bit(18),
  Sv39x4: bit(17),
  Sv32x4: bit(16),
  Svpbmt: bit(15, 'page-based memory types'),
  Svrsw60t59b: bit(14, 'PTE bits 60:59 are for software'),
  Sv57: bit(11),
  Sv48: bit(10),
  Sv39: bit(9),
  Sv32: bit(8),
  version: bits(7, 0, 'major in the high nibble, minor in the low'),
} as const satisfies Layout;

/** `fctl`: features control. */
export const fctl = {
  GXL: bit(2, 'guest physical addressing schemes of RV32'),
  WSI: bit(1, 'interrupts are wires'),
  BE: bit(0, 'structures in memory are big-endian'),
} as const satisfies Layout;

/** `ddtp`: device-directory-table pointer. */
export const ddtp = {
  PPN: bits(53, 10, 'root page of the DDT'),
  busy: bit(4),
  iommu_mode: bits(3, 0, 'Off, Bare, 1LVL, 2LVL, 3LVL'),
} as const satisfies Layout;

/** Values of `ddtp.iommu_mode`. */
export const IOMMU_MODE = { Off: 0, Bare: 1, '1LVL': 2, '2LVL': 3, '3LVL': 4 } as const;

/** `cqb`, `fqb` and `pqb`: base of a queue. */
export const queueBase = {
  PPN: bits(53, 10, 'root page of the queue'),
  'LOG2SZ-1': bits(4, 0, 'log2 of the number of entries, minus 1'),
} as const satisfies Layout;

/** `cqcsr`: command-queue control and status. */
export const cqcsr = {
  custom: bits(31, 28),
  busy: bit(17),
  cqon: bit(16, 'the queue is active'),
  fence_w_ip: bit(11, 'an IOFENCE.C with WSI has completed'),
  cmd_ill: bit(10, 'illegal or unsupported command'),
  cmd_to: bit(9, 'a command timed out'),
  cqmf: bit(8, 'memory fault at the queue or by a command'),
  cie: bit(1, 'interrupt enable'),
  cqen: bit(0, 'enable'),
} as const satisfies Layout;

/** `fqcsr`: fault-queue control and status. */
export const fqcsr = {
  custom: bits(31, 28),
  busy: bit(17),
  fqon: bit(16, 'the queue is active'),
  fqof: bit(9, 'overflow'),
  fqmf: bit(8, 'memory fault at the queue'),
  fie: bit(1, 'interrupt enable'),
  fqen: bit(0, 'enable'),
} as const satisfies Layout;

/** `pqcsr`: page-request-queue control and status. */
export const pqcsr = {
  custom: bits(31, 28),
  busy: bit(17),
  pqon: bit(16, 'the queue is active'),
  pqof: bit(9, 'overflow'),
  pqmf: bit(8, 'memory fault at the queue'),
  pie: bit(1, 'interrupt enable'),
  pqen: bit(0, 'enable'),
} as const satisfies Layout;

/** `ipsr`: interrupt pending status. */
export const ipsr = {
  pip: bit(3, 'page-request queue'),
  pmip: bit(2, 'performance monitor'),
  fip: bit(1, 'fault queue'),
  cip: bit(0, 'command queue'),
} as const satisfies Layout;

/** `icvec`: vector of each interrupt cause. */
export const icvec = {
  piv: bits(15, 12),
  pmiv: bits(11, 8),
  fiv: bits(7, 4),
  civ: bits(3, 0),
} as const satisfies Layout;

/** `tr_req_iova`: debug translation request, address. */
export const tr_req_iova = { vpn: bits(63, 12) } as const satisfies Layout;

/** `tr_req_ctl`: debug translation request, control. */
export const tr_req_ctl = {
  DID: bits(63, 40, 'device_id'),
  PV: bit(32, 'PID is valid'),
  PID: bits(31, 12, 'process_id'),
  NW: bit(3, 'no write permission is asked for'),
  Exe: bit(2, 'execute permission is asked for'),
  Priv: bit(1, 'privileged mode'),
  'Go/Busy': bit(0),
} as const satisfies Layout;

/** `tr_response`: debug translation response. */
export const tr_response = {
  PPN: bits(53, 10),
  S: bit(9, 'the range is larger than 4 KiB, coded in PPN'),
  PBMT: bits(8, 7),
  fault: bit(0),
} as const satisfies Layout;

/** `iohpmevt1-31`: event selectors. */
export const iohpmevt = {
  OF: bit(63),
  IDT: bit(62),
  DV_GSCV: bit(61),
  PV_PSCV: bit(60),
  DID_GSCID: bits(59, 36),
  PID_PSCID: bits(35, 16),
  DMASK: bit(15),
  eventID: bits(14, 0),
} as const satisfies Layout;

/** `msi_addr_x`, and `msi_vec_ctl_x`. */
export const msi_addr = { ADDR: bits(55, 2) } as const satisfies Layout;
/** Vector control of an entry of `msi_cfg_tbl`. */
export const msi_vec_ctl = { M: bit(0, 'masked') } as const satisfies Layout;

const CSR_RW1C = 0xf00n;
const PPN_BITS = 0x3f_ffff_ffff_fc00n;

/**
 * All registers. `writable` is what the architecture lets software change at most; the hardware narrows WARL fields (queue
 * sizes, `fctl`, `icvec`) to what the instance has, and leaves out registers whose capability bit is 0.
 */
export const REGISTERS = {
  capabilities: { offset: 0x000, width: 8, access: 'RO', layout: capabilities, doc: 'capabilities of the IOMMU' },
  fctl: { offset: 0x008, width: 4, access: 'RW', layout: fctl, writable: 0n, doc: 'features control' },
  ddtp: { offset: 0x010, width: 8, access: 'RW', layout: ddtp, writable: PPN_BITS | 0xfn, doc: 'DDT pointer' },
  cqb: {
    offset: 0x018,
    width: 8,
    access: 'RW',
    layout: queueBase,
    writable: PPN_BITS | 0x1fn,
    doc: 'command-queue base',
  },
  cqh: { offset: 0x020, width: 4, access: 'RO', doc: 'command-queue head' },
  cqt: { offset: 0x024, width: 4, access: 'RW', doc: 'command-queue tail' },
  fqb: {
    offset: 0x028,
    width: 8,
    access: 'RW',
    layout: queueBase,
    writable: PPN_BITS | 0x1fn,
    doc: 'fault-queue base',
  },
  fqh: { offset: 0x030, width: 4, access: 'RW', doc: 'fault-queue head' },
  fqt: { offset: 0x034, width: 4, access: 'RO', doc: 'fault-queue tail' },
  pqb: {
    offset: 0x038,
    width: 8,
    access: 'RW',
    layout: queueBase,
    writable: PPN_BITS | 0x1fn,
    doc: 'page-request-queue base',
  },
  pqh: { offset: 0x040, width: 4, access: 'RW', doc: 'page-request-queue head' },
  pqt: { offset: 0x044, width: 4, access: 'RO', doc: 'page-request-queue tail' },
  cqcsr: {
    offset: 0x048,
    width: 4,
    access: 'RW',
    layout: cqcsr,
    writable: 3n,
    rw1c: CSR_RW1C,
    doc: 'command-queue CSR',
  },
  fqcsr: { offset: 0x04c, width: 4, access: 'RW', layout: fqcsr, writable: 3n, rw1c: 0x300n, doc: 'fault-queue CSR' },
  pqcsr: {
    offset: 0x050,
    width: 4,
    access: 'RW',
    layout: pqcsr,
    writable: 3n,
    rw1c: 0x300n,
    doc: 'page-request-queue CSR',
  },
  ipsr: { offset: 0x054, width: 4, access: 'RW1C', layout: ipsr, rw1c: 0xfn, doc: 'interrupt pending status' },
  iocountovf: { offset: 0x058, width: 4, access: 'RO', doc: 'HPM counter overflows' },
  iocountinh: { offset: 0x05c, width: 4, access: 'RW', doc: 'HPM counter inhibits' },
  iohpmcycles: { offset: 0x060, width: 8, access: 'RW', doc: 'HPM cycles counter' },
  iohpmctr: { offset: 0x068, width: 8, access: 'RW', count: 31, stride: 8, doc: 'HPM event counters 1-31' },
  iohpmevt: {
    offset: 0x160,
    width: 8,
    access: 'RW',
    count: 31,
    stride: 8,
    layout: iohpmevt,
    writable: ~0x7fffn & 0xffff_ffff_ffff_ffffn,
    doc: 'HPM event selectors 1-31',
  },
  tr_req_iova: {
    offset: 0x258,
    width: 8,
    access: 'RW',
    layout: tr_req_iova,
    writable: 0xffff_ffff_ffff_f000n,
    doc: 'translation-request IOVA',
  },
  tr_req_ctl: {
    offset: 0x260,
    width: 8,
    access: 'RW',
    layout: tr_req_ctl,
    writable: 0xffff_ff01_ffff_f00fn,
    doc: 'translation-request control',
  },
  tr_response: { offset: 0x268, width: 8, access: 'RO', layout: tr_response, doc: 'translation-request response' },
  icvec: { offset: 0x2f8, width: 8, access: 'RW', layout: icvec, writable: 0xffffn, doc: 'interrupt cause to vector' },
  msi_addr: {
    offset: 0x300,
    width: 8,
    access: 'RW',
    count: 16,
    stride: 16,
    layout: msi_addr,
    writable: 0xff_ffff_ffff_fffcn,
    doc: 'msi_cfg_tbl: message address',
  },
  msi_data: { offset: 0x308, width: 4, access: 'RW', count: 16, stride: 16, doc: 'msi_cfg_tbl: message data' },
  msi_vec_ctl: {
    offset: 0x30c,
    width: 4,
    access: 'RW',
    count: 16,
    stride: 16,
    layout: msi_vec_ctl,
    writable: 1n,
    doc: 'msi_cfg_tbl: vector control',
  },
} as const satisfies RegisterMap;
