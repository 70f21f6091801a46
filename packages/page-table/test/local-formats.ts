/** Formats of the tests' own, defined here: floor 3 knows no vendor. They differ in everything the engine distinguishes. */
import { bit, bits } from '@iommu-ts/bits';
import {
  CONTIG_NAPOT,
  PROT,
  RULES_GENERIC_PT,
  RULES_IO_PGTABLE_ARM,
  RULES_IO_PGTABLE_DART,
  defineFormat,
} from '../src/index.ts';
import type { PageTableConfig } from '../src/index.ts';

const P = bit(0, 'present');
const PS = bit(7, 'leaf');
const ADDR = bits(51, 12, 'address');
const protBits = [
  { field: 'P', value: 1 },
  { field: 'W', value: 1, when: PROT.WRITE },
];

/** 4 KiB, leaf bit, address in place, range rules. */
export const PLAIN = defineFormat({
  name: 'plain',
  spec: 'test',
  rules: RULES_GENERIC_PT,
  granuleLg2: 12,
  maxTopLevel: 3,
  topLevel: 3,
  sizes: [{ lg2: 12 }, { lg2: 21 }, { lg2: 30 }],
  leafLayout: { ADDR, PS, W: bit(1), P },
  tableLayout: { ADDR, PS, P },
  oa: ADDR,
  maxOas: 52,
  present: P,
  tableType: { field: PS, value: 0 },
  tableBits: [{ field: 'P', value: 1 }],
  blockBits: [{ field: 'PS', value: 1 }],
  attributes: protBits,
  write: { field: 'W', value: 1 },
  hw: (table) => ({ root: table.root }),
});

const PPN = bits(53, 10, 'page number');
/** Address shifted down by two, 64 KiB as sixteen entries, range rules, a wide top. */
export const SHIFTED = defineFormat({
  name: 'shifted',
  spec: 'test',
  rules: RULES_GENERIC_PT,
  granuleLg2: 12,
  maxTopLevel: 2,
  topLevel: 2,
  topExtraBits: 2,
  sizes: [{ lg2: 12 }, { lg2: 16 }, { lg2: 21 }, { lg2: 30 }],
  leafLayout: { N: bit(63), PPN, W: bit(2), R: bit(1), P },
  tableLayout: { PPN, P },
  oa: PPN,
  oaShift: 2,
  maxOas: 56,
  present: P,
  tableType: { field: bits(2, 1), value: 0 },
  tableBits: [{ field: 'P', value: 1 }],
  attributes: [...protBits, { field: 'R', value: 1 }],
  contig: CONTIG_NAPOT,
  write: { field: 'W', value: 1 },
  hw: (table) => ({ root: table.root }),
});

const TYPE = bits(1, 0, 'type');
const ADDR_64K = bits(47, 16, 'address');
/** 64 KiB granule, folded high address bits, page rules, a short top. */
export const FOLDED = defineFormat({
  name: 'folded',
  spec: 'test',
  rules: RULES_IO_PGTABLE_ARM,
  granuleLg2: 16,
  maxTopLevel: 2,
  shortTop: true,
  specLevelBase: 3,
  sizes: [{ lg2: 16 }, { lg2: 29 }],
  leafLayout: { W: bit(54), ADDR: ADDR_64K, TYPE },
  tableLayout: { ADDR: ADDR_64K, TYPE },
  oa: ADDR_64K,
  foldOa: true,
  maxOas: 52,
  tableType: { field: TYPE, value: 3 },
  tableBits: [{ field: 'TYPE', value: 3 }],
  pageBits: [{ field: 'TYPE', value: 3 }],
  blockBits: [{ field: 'TYPE', value: 1 }],
  attributes: [{ field: 'W', value: 1, when: PROT.WRITE }],
  write: { field: 'W', value: 1 },
  hw: (table) => ({ root: table.root }),
});

/** 16 KiB, one size, several start tables. */
export const ROOTS = defineFormat({
  name: 'roots',
  spec: 'test',
  rules: RULES_IO_PGTABLE_DART,
  granuleLg2: 12,
  maxTopLevel: 1,
  maxRoots: 4,
  sizes: [{ lg2: 12 }],
  leafLayout: { ADDR: bits(35, 12), W: bit(2), P },
  tableLayout: { ADDR: bits(35, 12), P },
  oa: bits(35, 12),
  maxOas: 36,
  present: P,
  tableType: { field: P, value: 1 },
  tableBits: [{ field: 'P', value: 1 }],
  attributes: protBits,
  write: { field: 'W', value: 1 },
  hw: (table) => ({ roots: table.roots }),
});

export const CONFIGS: readonly (readonly [name: string, config: PageTableConfig])[] = [
  ['plain', { format: PLAIN, ias: 48, oas: 52 }],
  ['shifted', { format: SHIFTED, ias: 41, oas: 56 }],
  ['folded', { format: FOLDED, ias: 48, oas: 52 }],
  ['roots', { format: ROOTS, ias: 32, oas: 36 }],
];
