/**
 * Structures in memory (Arm IHI 0070, chapter 5). Bit numbers count through the whole structure: word n of 64 bits begins at
 * bit 64·n.
 */
import { bit, bits } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';

/** Level 1 stream table descriptor, 8 bytes (5.1). */
export const L1STD = {
  L2Ptr: bits(51, 6, 'second-level array, aligned to its size by the SMMU'),
  Span: bits(4, 0, '0 invalid; n: 2^(n-1) STEs'),
} as const satisfies Layout;

/** Stream table entry, 64 bytes (5.2). */
export const STE = {
  S2TTB: bits(243, 196, 'stage 2 table address bits 51:4'),
  S2R: bit(186, 'stage 2 faults are recorded'),
  S2S: bit(185, 'stage 2 faults stall'),
  S2HA: bit(184, 'hardware update of the Access flag'),
  S2HD: bit(183, 'hardware update of dirty state'),
  S2PTW: bit(182, 'stage 1 walks to Device memory fault'),
  S2AFFD: bit(181, 'no Access flag faults'),
  S2ENDI: bit(180, 'big-endian tables'),
  S2AA64: bit(179, 'AArch64 tables'),
  S2PS: bits(178, 176, 'physical address size, coded as IDR5.OAS'),
  S2TG: bits(175, 174, 'granule: 0 4K, 1 64K, 2 16K'),
  S2SH0: bits(173, 172),
  S2OR0: bits(171, 170),
  S2IR0: bits(169, 168),
  S2SL0: bits(167, 166, 'start level, coded by granule'),
  S2T0SZ: bits(165, 160, '64 - bits of IPA'),
  S2VMID: bits(143, 128, 'tag of TLB entries'),
  INSTCFG: bits(115, 114),
  PRIVCFG: bits(113, 112),
  NSCFG: bits(111, 110),
  SHCFG: bits(109, 108),
  ALLOCCFG: bits(104, 101),
  MTCFG: bit(100),
  MemAttr: bits(99, 96),
  STRW: bits(95, 94, 'StreamWorld: 0 EL1, 2 EL2'),
  EATS: bits(93, 92),
  S1STALLD: bit(91, 'stage 1 stalls are disabled'),
  S1MPAM: bit(90),
  S2FWB: bit(89),
  MEV: bit(83, 'events may be merged'),
  CONT: bits(80, 77, 'contiguity hint'),
  S1CSH: bits(71, 70),
  S1COR: bits(69, 68),
  S1CIR: bits(67, 66),
  S1DSS: bits(65, 64, 'traffic without SubstreamID: 0 terminate, 1 bypass, 2 use CD 0'),
  S1CDMax: bits(63, 59, 'log2 of the number of CDs'),
  S1ContextPtr: bits(51, 6, 'CD or CD table'),
  S1Fmt: bits(5, 4, 'CD table: 0 linear, 1 two-level with 4 KiB leaves, 2 with 64 KiB leaves'),
  Config: bits(3, 1, '0xx abort, 4 bypass, 5 stage 1, 6 stage 2, 7 both'),
  V: bit(0, 'valid'),
} as const satisfies Layout;

/** Level 1 context descriptor, 8 bytes (5.3). */
export const L1CD = {
  L2Ptr: bits(51, 12, 'table of CDs'),
  V: bit(0, 'valid'),
} as const satisfies Layout;

/** Context descriptor, 64 bytes (5.4). */
export const CD = {
  AMAIR1: bits(319, 288),
  AMAIR0: bits(287, 256),
  MAIR1: bits(255, 224),
  MAIR0: bits(223, 192),
  TTB1: bits(179, 132, 'table of the upper half, address bits 51:4'),
  E0PD1: bit(130),
  HAD1: bit(129),
  NSCFG1: bit(128),
  TTB0: bits(115, 68, 'table of the lower half, address bits 51:4'),
  E0PD0: bit(66, 'unprivileged access faults'),
  HAD0: bit(65, 'hierarchical attributes are ignored'),
  NSCFG0: bit(64),
  ASID: bits(63, 48, 'tag of TLB entries'),
  ASET: bit(47, 'not part of broadcast maintenance'),
  A: bit(46, 'terminated transactions abort'),
  R: bit(45, 'faults are recorded'),
  S: bit(44, 'faults stall'),
  HA: bit(43, 'hardware update of the Access flag'),
  HD: bit(42, 'hardware update of dirty state'),
  AA64: bit(41, 'AArch64 tables'),
  PAN: bit(40),
  TBI1: bit(39, 'top byte ignored, upper half'),
  TBI0: bit(38, 'top byte ignored, lower half'),
  UWXN: bit(37),
  WXN: bit(36),
  AFFD: bit(35, 'no Access flag faults'),
  IPS: bits(34, 32, 'output address size, coded as IDR5.OAS'),
  V: bit(31, 'valid'),
  EPD1: bit(30, 'no walks of the upper half'),
  SH1: bits(29, 28),
  OR1: bits(27, 26),
  IR1: bits(25, 24),
  TG1: bits(23, 22, 'granule: 1 16K, 2 4K, 3 64K'),
  T1SZ: bits(21, 16, '64 - bits of the upper half'),
  ENDI: bit(15, 'big-endian tables'),
  EPD0: bit(14, 'no walks of the lower half'),
  SH0: bits(13, 12),
  OR0: bits(11, 10),
  IR0: bits(9, 8),
  TG0: bits(7, 6, 'granule: 0 4K, 1 64K, 2 16K'),
  T0SZ: bits(5, 0, '64 - bits of the lower half'),
} as const satisfies Layout;

/** STE.Config (5.2). */
export const STE_CONFIG = { ABORT: 0, BYPASS: 4, S1: 5, S2: 6, NESTED: 7 } as const;

/** Bytes of the structures. */
export const STE_BYTES = 64;
/** Bytes of a context descriptor (5.4). */
export const CD_BYTES = 64;
/** Bytes of a level 1 stream table descriptor (5.1). */
export const L1STD_BYTES = 8;
/** Bytes of a level 1 context descriptor (5.3). */
export const L1CD_BYTES = 8;

/** Address sizes in bits by IDR5.OAS, CD.IPS and STE.S2PS; the reserved code 7 behaves as 6. */
export const ADDRESS_SIZES: readonly number[] = [32, 36, 40, 42, 44, 48, 52, 52];
