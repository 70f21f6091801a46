/**
 * Structures in memory that say what to do with a requester.
 * VT-d specification revision 4.1, chapter 9 "Translation Structure Formats". Bits of later words count on from 64.
 */
import { bit, bits } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';

/** Bytes of a root entry: one for each bus, 256 in the 4 KiB root table. */
export const ROOT_ENTRY_BYTES = 16;
/** Bytes of a legacy-mode context entry: one for each device and function of a bus, 256 in a 4 KiB table. */
export const CONTEXT_ENTRY_BYTES = 16;

/** Root entry (9.1). */
export const ROOT_ENTRY = {
  CTP: bits(63, 12, 'context table'),
  P: bit(0, 'present'),
} as const satisfies Layout;

/** Legacy-mode context entry (9.3). */
export const CONTEXT_ENTRY = {
  DID: bits(87, 72, 'domain-id'),
  IGN: bits(70, 67, 'free for software'),
  AW: bits(66, 64, 'address width of the page table: 1 39-bit, 2 48-bit, 3 57-bit'),
  SSPTPTR: bits(63, 12, 'second-stage page table'),
  TT: bits(3, 2, 'translation type'),
  FPD: bit(1, 'do not record qualified faults'),
  P: bit(0, 'present'),
} as const satisfies Layout;

/** Translation types of a legacy-mode context entry. */
export const TT = {
  /** Untranslated requests go through the second stage; other requests are blocked. */
  UNTRANSLATED: 0,
  /** As 0, and requests of a device TLB are allowed (needs ECAP.DT). */
  DEVICE_TLB: 1,
  /** Untranslated requests pass through (needs ECAP.PT). */
  PASS_THROUGH: 2,
} as const;

/** Translation table modes of RTADDR. */
export const TTM = { LEGACY: 0, SCALABLE: 1, ABORT: 3 } as const;

/** Scalable-mode root entry (9.2): the lower half of a bus and the upper half have a context table each. */
export const SM_ROOT_ENTRY = {
  UCTP: bits(127, 76, 'context table of devices 16-31'),
  UP: bit(64, 'upper half present'),
  LCTP: bits(63, 12, 'context table of devices 0-15'),
  LP: bit(0, 'lower half present'),
} as const satisfies Layout;

/** Bytes of a scalable-mode context entry; 128 in a 4 KiB table. */
export const SM_CONTEXT_ENTRY_BYTES = 32;

/** Scalable-mode context entry (9.4). */
export const SM_CONTEXT_ENTRY = {
  RID_PRIV: bit(84, 'requests without PASID are privileged'),
  RID_PASID: bits(83, 64, 'PASID of requests without PASID'),
  PASIDDIRPTR: bits(63, 12, 'PASID directory'),
  PDTS: bits(11, 9, 'PASID directory size: 2^(PDTS + 7) entries'),
  PRE: bit(4, 'page requests'),
  PASIDE: bit(3, 'requests with PASID'),
  DTE: bit(2, 'device TLB'),
  FPD: bit(1, 'do not record qualified faults'),
  P: bit(0, 'present'),
} as const satisfies Layout;

/** Scalable-mode PASID directory entry (9.5), 8 bytes. */
export const PASID_DIR_ENTRY = {
  SMPTBLPTR: bits(63, 12, 'PASID table of 64 entries'),
  FPD: bit(1, 'do not record qualified faults'),
  P: bit(0, 'present'),
} as const satisfies Layout;

/** Bytes of a PASID table entry; 64 in a 4 KiB table. */
export const PASID_ENTRY_BYTES = 64;

/** Scalable-mode PASID table entry (9.6), 512 bits. */
export const PASID_ENTRY = {
  FSPTPTR: bits(191, 140, 'first-stage page table'),
  EAFE: bit(135, 'extended accessed flag'),
  SMEP: bit(134, 'supervisor may not execute user pages'),
  NXE: bit(133, 'bit 63 of first-stage entries disables execution'),
  WPE: bit(132, 'supervisor writes honour write protection'),
  FSPM: bits(131, 130, 'first-stage paging mode: 0 4-level, 1 5-level'),
  ERE: bit(129, 'execute requests'),
  SRE: bit(128, 'supervisor requests'),
  PAT: bits(127, 96, 'page attribute table'),
  PCD: bit(95, 'cache disable of the first-stage walk'),
  PWT: bit(94, 'write-through of the first-stage walk'),
  EMT: bits(93, 91, 'memory type of the second stage'),
  EMTE: bit(90, 'memory type enable'),
  CD: bit(89, 'cache disable'),
  PGSNP: bit(88, 'page snoop'),
  PWSNP: bit(87, 'page-walk snoop'),
  DID: bits(79, 64, 'domain-id'),
  SSPTPTR: bits(63, 12, 'second-stage page table'),
  SSADE: bit(9, 'second-stage accessed and dirty bits'),
  PGTT: bits(8, 6, 'translation: 1 first stage, 2 second stage, 3 nested, 4 pass-through'),
  SSEE: bit(5, 'second-stage execute'),
  AW: bits(4, 2, 'address width of the second stage'),
  FPD: bit(1, 'do not record qualified faults'),
  P: bit(0, 'present'),
} as const satisfies Layout;

/** PASID granular translation types. */
export const PGTT = { FIRST_STAGE: 1, SECOND_STAGE: 2, NESTED: 3, PASS_THROUGH: 4 } as const;

/** Second-stage paging entry (9.8), as hardware reads it. */
export const SS_ENTRY = {
  ADDR: bits(51, 12, 'table or page'),
  SNP: bit(11, 'snoop (leaves, needs ECAP.SC)'),
  D: bit(9, 'dirty'),
  A: bit(8, 'accessed'),
  PS: bit(7, 'page size: a leaf above level 1'),
  IPAT: bit(6, 'ignore PAT'),
  EMT: bits(5, 3, 'memory type'),
  X: bit(2, 'execute'),
  W: bit(1, 'write'),
  R: bit(0, 'read'),
} as const satisfies Layout;

/** First-stage paging entry (9.7), as hardware reads it. */
export const FS_ENTRY = {
  XD: bit(63, 'execute disable'),
  ADDR: bits(51, 12, 'table or page'),
  EA: bit(10, 'extended accessed'),
  G: bit(8, 'global'),
  PS: bit(7, 'page size: a leaf above level 1'),
  D: bit(6, 'dirty'),
  A: bit(5, 'accessed'),
  PCD: bit(4, 'cache disable'),
  PWT: bit(3, 'write-through'),
  US: bit(2, 'user'),
  RW: bit(1, 'write'),
  P: bit(0, 'present'),
} as const satisfies Layout;
