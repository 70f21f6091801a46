/**
 * Structures in memory: RISC-V IOMMU Architecture Specification 1.0, chapter "Data Structures"; page-table entries as the
 * Privileged specification has them (chapter "Supervisor-Level ISA", Sv39, Svnapot, Svpbmt). Bits of a structure of several
 * doublewords are counted within each doubleword.
 */
import { bit, bits } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';

/** Non-leaf entry of the device directory (section "Non-leaf DDT entry"). */
export const DDTE = { PPN: bits(53, 10, 'next level'), V: bit(0) } as const satisfies Layout;

/** Bytes of a device context in base format and, where `capabilities.MSI_FLAT` is 1, in extended format. */
export const DC_BYTES = { base: 32, extended: 64 } as const;

/** Device context, doubleword 0: translation control. */
export const DC_tc = {
  custom: bits(31, 24),
  SXL: bit(11, 'first-stage schemes of RV32'),
  SBE: bit(10, 'PDT and first-stage PTEs are big-endian'),
  DPE: bit(9, 'requests without process_id use process_id 0'),
  SADE: bit(8, 'A/D of first-stage PTEs set by hardware'),
  GADE: bit(7, 'A/D of second-stage PTEs set by hardware'),
  PRPR: bit(6, 'PRG responses need a PASID'),
  PDTV: bit(5, 'fsc is a process-directory pointer'),
  DTF: bit(4, 'translation faults are not reported'),
  T2GPA: bit(3, 'ATS completions return guest-physical addresses'),
  EN_PRI: bit(2, 'page requests'),
  EN_ATS: bit(1, 'ATS transactions'),
  V: bit(0, 'valid'),
} as const satisfies Layout;

/** Device context, doubleword 1: second stage. */
export const DC_iohgatp = {
  MODE: bits(63, 60, '0 Bare, 8 Sv39x4, 9 Sv48x4, 10 Sv57x4'),
  GSCID: bits(59, 44, 'guest soft-context id'),
  PPN: bits(43, 0, 'root, 16 KiB aligned'),
} as const satisfies Layout;

/** Device context, doubleword 2: translation attributes. */
export const DC_ta = {
  MCID: bits(63, 52, 'only with QOSID'),
  RCID: bits(51, 40, 'only with QOSID'),
  PSCID: bits(31, 12, 'process soft-context id'),
} as const satisfies Layout;

/** Device context, doubleword 3, when `tc.PDTV` is 0; and doubleword 1 of a process context: first stage. */
export const iosatp = {
  MODE: bits(63, 60, '0 Bare, 8 Sv39, 9 Sv48, 10 Sv57'),
  PPN: bits(43, 0, 'root'),
} as const satisfies Layout;

/** Device context, doubleword 3, when `tc.PDTV` is 1. */
export const pdtp = {
  MODE: bits(63, 60, '0 Bare, 1 PD8, 2 PD17, 3 PD20'),
  PPN: bits(43, 0, 'root of the process directory'),
} as const satisfies Layout;

/** Device context, doubleword 4 (extended format): MSI page table. */
export const DC_msiptp = { MODE: bits(63, 60, '0 Off, 1 Flat'), PPN: bits(43, 0) } as const satisfies Layout;
/** Device context, doublewords 5 and 6 (extended format). */
export const DC_msi_addr_mask = { mask: bits(51, 0) } as const satisfies Layout;
/** `DC.msi_addr_pattern`: page number bits of an interrupt file outside the mask. */
export const DC_msi_addr_pattern = { pattern: bits(51, 0) } as const satisfies Layout;

/** Values of `iohgatp.MODE` and `iosatp.MODE` (with GXL = SXL = 0), `pdtp.MODE`, and `msiptp.MODE`. */
export const MODE = { Bare: 0, Sv39: 8, Sv48: 9, Sv57: 10, Sv39x4: 8, Sv48x4: 9, Sv57x4: 10 } as const;
/** Encodings of `pdtp.MODE`. */
export const PDTP_MODE = { Bare: 0, PD8: 1, PD17: 2, PD20: 3 } as const;
/** Encodings of `msiptp.MODE`. */
export const MSIPTP_MODE = { Off: 0, Flat: 1 } as const;

/** Non-leaf entry of the process directory. */
export const PDTE = { PPN: bits(53, 10), V: bit(0) } as const satisfies Layout;

/** Bytes of a process context. */
export const PC_BYTES = 16;

/** Process context, doubleword 0; doubleword 1 is {@link iosatp}. */
export const PC_ta = {
  PSCID: bits(31, 12),
  SUM: bit(2, 'supervisor may access user pages'),
  ENS: bit(1, 'supervisor privilege may be asked for'),
  V: bit(0),
} as const satisfies Layout;

/** MSI page-table entry, doubleword 0, basic mode (M = 3); doubleword 1 is reserved. */
export const MSIPTE = {
  C: bit(63, 'custom'),
  PPN: bits(53, 10),
  M: bits(2, 1, '1 MRIF, 3 basic translate'),
  V: bit(0),
} as const satisfies Layout;

/** MSI page-table entry in MRIF mode (M = 1), doublewords 0 and 1. */
export const MSIPTE_MRIF = {
  C: bit(63),
  MRIF_ADDR_55_9: bits(53, 7, 'address of the memory-resident interrupt file'),
  M: bits(2, 1),
  V: bit(0),
} as const satisfies Layout;
/** MSI page-table entry in MRIF mode, second doubleword. */
export const MSIPTE_MRIF_1 = {
  N10: bit(60, 'NID bit 10'),
  NPPN: bits(53, 10, 'page of the notice MSI'),
  N90: bits(9, 0, 'NID bits 9:0'),
} as const satisfies Layout;

/** Page-table entry of Sv39/48/57 and their x4 forms. */
export const PTE = {
  N: bit(63, 'Svnapot: 64 KiB when ppn[3:0] = 1000'),
  PBMT: bits(62, 61, 'Svpbmt: 0 PMA, 1 NC, 2 IO'),
  RSW60T59B: bits(60, 59, 'for software with Svrsw60t59b, else reserved'),
  reserved: bits(58, 54),
  PPN: bits(53, 10),
  RSW: bits(9, 8, 'for software'),
  D: bit(7),
  A: bit(6),
  G: bit(5),
  U: bit(4),
  X: bit(3),
  W: bit(2),
  R: bit(1),
  V: bit(0),
} as const satisfies Layout;
