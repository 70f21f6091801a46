/**
 * Page-table formats of the RISC-V IOMMU: Sv39, Sv48, Sv57 for the first stage and Sv39x4, Sv48x4, Sv57x4 for the second.
 * RISC-V Privileged Architecture, "Supervisor-Level ISA" (Sv39 …, Svnapot, Svpbmt) and "Hypervisor Extension".
 */
import { bit, bits } from '@iommu-ts/bits';
import { CONTIG_NAPOT, PROT, RULES_GENERIC_PT, defineFormat, goldenFeatures } from '@iommu-ts/page-table';
import type {
  AttributeRule,
  FormatSpec,
  GoldenHeader,
  PageTableConfig,
  PageTableFormat,
  TableGeometry,
} from '@iommu-ts/page-table';

const RWX = bits(3, 1, 'all zero: a pointer to the next table');
const PPN = bits(53, 10, 'page number of the page or of the next table');

// A writable page is readable and dirty from the start; every page is user and accessed.
const attributes: readonly AttributeRule[] = [
  { field: 'V', value: 1 },
  { field: 'U', value: 1 },
  { field: 'A', value: 1 },
  { field: 'R', value: 1, when: PROT.READ },
  { field: 'R', value: 1, when: PROT.WRITE },
  { field: 'W', value: 1, when: PROT.WRITE },
  { field: 'D', value: 1, when: PROT.WRITE },
  { field: 'X', value: 1, unless: PROT.NOEXEC },
  { field: 'PBMT', value: 2, when: PROT.MMIO, feature: 'svpbmt' },
  { field: 'PBMT', value: 1, unless: PROT.MMIO | PROT.CACHE, feature: 'svpbmt' },
];

const base: Omit<FormatSpec, 'name' | 'maxTopLevel' | 'topLevel' | 'sizes' | 'hw'> = {
  spec: 'RISC-V Privileged, Sv39/Sv48/Sv57, Svnapot, Svpbmt',
  rules: RULES_GENERIC_PT,
  granuleLg2: 12,
  leafLayout: {
    N: bit(63, 'NAPOT: contiguous, size in the low PPN bits'),
    PBMT: bits(62, 61, 'memory type: 0 PMA, 1 NC, 2 IO'),
    PPN,
    RSW: bits(9, 8, 'for software'),
    D: bit(7, 'dirty'),
    A: bit(6, 'accessed'),
    G: bit(5, 'global'),
    U: bit(4, 'user'),
    X: bit(3, 'execute'),
    W: bit(2, 'write'),
    R: bit(1, 'read'),
    V: bit(0, 'valid'),
  },
  tableLayout: { PPN, RSW: bits(9, 8, 'for software'), V: bit(0, 'valid') },
  oa: PPN,
  oaShift: 2,
  maxOas: 56,
  present: bit(0),
  tableType: { field: RWX, value: 0 },
  tableBits: [{ field: 'V', value: 1 }],
  attributes,
  contig: CONTIG_NAPOT,
  read: { field: 'R', value: 1 },
  write: { field: 'W', value: 1 },
  exec: { field: 'X', value: 1 },
};

/** Leaves at every level below 2^(ias-1), and 64 KiB with Svnapot. */
const sizes = (levels: number): FormatSpec['sizes'] => [
  { lg2: 12 },
  { lg2: 16, feature: 'svnapot' },
  ...Array.from({ length: levels - 1 }, (_, i) => ({ lg2: 21 + 9 * i })),
];

const firstStage = (name: string, levels: number, mode: number): PageTableFormat =>
  defineFormat({
    ...base,
    name,
    maxTopLevel: levels - 1,
    topLevel: levels - 1,
    signExtend: true,
    sizes: sizes(levels),
    hw: (table: TableGeometry) => ({ ppn: table.root >> 12n, fsc_iosatp_mode: mode }),
  });

const secondStage = (name: string, levels: number, mode: number): PageTableFormat =>
  defineFormat({
    ...base,
    name,
    maxTopLevel: levels - 1,
    topLevel: levels - 1,
    topExtraBits: 2,
    sizes: sizes(levels),
    hw: (table: TableGeometry) => ({ ppn: table.root >> 12n, iohgatp_mode: mode }),
  });

/** First stage, 39 bits, sign-extended. */
export const SV39 = /* @__PURE__ */ firstStage('sv39', 3, 8);
/** First stage, 48 bits, sign-extended. */
export const SV48 = /* @__PURE__ */ firstStage('sv48', 4, 9);
/** First stage, 57 bits, sign-extended. */
export const SV57 = /* @__PURE__ */ firstStage('sv57', 5, 10);
/** Second stage, 41 bits: the top table has 2048 entries in 16 KiB. */
export const SV39X4 = /* @__PURE__ */ secondStage('sv39x4', 3, 8);
/** Second stage, 50 bits. */
export const SV48X4 = /* @__PURE__ */ secondStage('sv48x4', 4, 9);
/** Second stage, 59 bits. */
export const SV57X4 = /* @__PURE__ */ secondStage('sv57x4', 5, 10);

/** The configuration of a golden file of this vendor, or null when it is another's. */
export const goldenConfig = (file: GoldenHeader): PageTableConfig | null => {
  if (file.pageTable !== 'riscv64') return null;
  const { ias } = file.config;
  return { ...goldenFeatures(file), format: ias <= 39 ? SV39 : ias <= 48 ? SV48 : SV57 };
};
