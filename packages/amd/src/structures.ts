/**
 * Structures in memory: the device table entry and the entries of the host (v1) page tables.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, sections 2.2.2 "Device Table" and 2.2.3 "I/O Page Tables
 * for Host Translations".
 */
import { bit, bits } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';

/** Bytes of a device table entry. */
export const DTE_BYTES = 32;

/** Device Table Entry, 256 bits. */
export const DTE = {
  SnoopAttribute: bits(255, 248, 'snoop attribute'),
  Mode0FC: bit(247, 'force coherent with Mode=0'),
  AttrV: bit(246, 'attribute override valid'),
  Lint1Pass: bit(191, 'LINT1 pass-through'),
  Lint0Pass: bit(190, 'LINT0 pass-through'),
  IntCtl: bits(189, 188, 'fixed and arbitrated interrupts: 0 abort, 1 forward unmapped, 2 remap, 3 reserved'),
  NMIPass: bit(186, 'NMI pass-through'),
  EIntPass: bit(185, 'ExtInt pass-through'),
  INITPass: bit(184, 'INIT pass-through'),
  IntTabRoot: bits(179, 134, 'interrupt table root pointer, physical address bits 51:6'),
  IG: bit(133, 'ignore unmapped interrupts: no event for them'),
  IntTabLen: bits(132, 129, 'log2 of the number of interrupt table entries'),
  IV: bit(128, 'interrupt map valid'),
  GCR3TRPHi: bits(127, 107, 'guest CR3 table root pointer, bits 51:31'),
  SysMgt: bits(105, 104, 'system management messages'),
  EX: bit(103, 'the device may use the exclusion range'),
  SD: bit(102, 'snoop disable'),
  Cache: bit(101, 'IOTLB cache hint'),
  IoCtl: bits(100, 99, 'port I/O control'),
  SA: bit(98, 'suppress all I/O page fault events'),
  SE: bit(97, 'suppress I/O page fault events after the first'),
  I: bit(96, 'device IOTLB enable'),
  GCR3TRPMid: bits(95, 80, 'guest CR3 table root pointer, bits 30:15'),
  DomainID: bits(79, 64, 'domain id: the tag of cached translations'),
  IW: bit(62, 'write permission, ANDed along the walk'),
  IR: bit(61, 'read permission, ANDed along the walk'),
  GCR3TRPLo: bits(60, 58, 'guest CR3 table root pointer, bits 14:12'),
  GLX: bits(57, 56, 'levels of the guest CR3 table, minus one'),
  GV: bit(55, 'guest translation valid'),
  GIoV: bit(54, 'guest I/O protection valid'),
  GPRP: bit(53, 'guest PPR response with PASID'),
  PPR: bit(52, 'peripheral page requests allowed'),
  HostPageTableRootPtr: bits(51, 12, 'host page table root, physical address bits 51:12'),
  Mode: bits(11, 9, 'levels of the host page table; 0 none, 7 reserved'),
  HAD: bits(8, 7, 'host accessed and dirty bit update'),
  TV: bit(1, 'translation information valid'),
  V: bit(0, 'valid: 0 forwards every request untranslated'),
} as const satisfies Layout;

/** Values of DTE.IntCtl. */
export const INT_CTL = { ABORT: 0, FORWARD: 1, REMAP: 2, RESERVED: 3 } as const;

/** Page translation entry (PTE): NextLevel 0 (the level's own size) or 7 (size in the address). */
export const PTE = {
  IW: bit(62, 'write permission'),
  IR: bit(61, 'read permission'),
  FC: bit(60, 'force coherent: the access is snooped'),
  U: bit(59, 'U bit of translation responses'),
  Reserved: bits(58, 52, 'must be zero'),
  PageAddress: bits(51, 12, 'page address; with NextLevel 7 the ones from bit 12 up encode the size'),
  NextLevel: bits(11, 9, '0 or 7'),
  D: bit(6, 'dirty'),
  A: bit(5, 'accessed'),
  PR: bit(0, 'present'),
} as const satisfies Layout;

/** Page directory entry (PDE): NextLevel 1 … 6, smaller than the level of its own table. */
export const PDE = {
  IW: bit(62, 'write permission'),
  IR: bit(61, 'read permission'),
  Reserved: bits(60, 52, 'must be zero'),
  NextTableAddress: bits(51, 12, 'table of level NextLevel'),
  NextLevel: bits(11, 9, 'level of the table pointed to; skipped levels need zero address bits'),
  A: bit(5, 'accessed'),
  PR: bit(0, 'present'),
} as const satisfies Layout;

/** Address bits of one table level. */
const LEVEL_BITS = 9;

/** Width of the input address of a table of `mode` levels: 21, 30, 39, 48, 57, 64. */
export const widthOfMode = (mode: number): number => (mode === 0 ? 64 : Math.min(64, 12 + LEVEL_BITS * mode));

/** First and last address of the window in which a write is an interrupt (MSI), not a memory access. */
export const INTERRUPT_RANGE = { first: 0xfee0_0000n, last: 0xfeef_ffffn } as const;

/** HyperTransport's special addresses, which no IOVA may use on real parts (48882 section 2.1). */
export const HT_RANGE = { first: 0xfd_0000_0000n, last: 0xff_ffff_ffffn } as const;
