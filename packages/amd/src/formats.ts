/**
 * Page-table formats of AMD-Vi. Host (v1) tables: AMD I/O Virtualization Technology Specification, 2.2.3 I/O Page Tables
 * for Host Translations; guest (v2) tables are x86-64 paging.
 */
import { bit, bits } from '@iommu-ts/bits';
import {
  CONTIG_AMD,
  PROT,
  RULES_GENERIC_PT,
  X86_64_AMD_4LEVEL,
  X86_64_AMD_5LEVEL,
  defineFormat,
  goldenFeatures,
} from '@iommu-ts/page-table';
import type { GoldenHeader, PageTableConfig, PageTableFormat, TableGeometry } from '@iommu-ts/page-table';

const NEXT_LEVEL = bits(11, 9, 'level of the next table; 0 and 7: a leaf');
const ADDRESS = bits(51, 12, 'address of the page or of the next table; NextLevel 7: the size in its low bits');

/**
 * v1: 1 to 6 levels (mode = levels), every power-of-two page size from 4 KiB on but 512 GiB, a top that grows.
 * 512 GiB would be the own size of level 3; Linux leaves it out because hardware has trouble with it.
 */
export const AMD_V1 = /* @__PURE__ */ defineFormat({
  name: 'amd-v1',
  spec: 'AMD IOMMU 2.2.3',
  rules: RULES_GENERIC_PT,
  granuleLg2: 12,
  maxTopLevel: 5,
  topLevel: 2,
  dynamicTop: true,
  sizes: /* @__PURE__ */ Array.from({ length: 40 }, (_, i) => ({ lg2: 12 + i })).filter(({ lg2 }) => lg2 !== 39),
  leafLayout: {
    IW: bit(62, 'write'),
    IR: bit(61, 'read'),
    FC: bit(60, 'force coherent'),
    U: bit(59, 'untranslated access'),
    ADDRESS,
    NEXT_LEVEL,
    D: bit(6, 'dirty'),
    A: bit(5, 'accessed'),
    PR: bit(0, 'present'),
  },
  tableLayout: {
    IW: bit(62, 'write'),
    IR: bit(61, 'read'),
    ADDRESS,
    NEXT_LEVEL,
    A: bit(5, 'accessed'),
    PR: bit(0, 'present'),
  },
  oa: ADDRESS,
  maxOas: 52,
  present: bit(0),
  tableType: { field: NEXT_LEVEL, value: 0, plusLevel: true },
  tableBits: [
    { field: 'PR', value: 1 },
    { field: 'IR', value: 1 },
    { field: 'IW', value: 1 },
  ],
  attributes: [
    { field: 'PR', value: 1 },
    { field: 'FC', value: 1 },
    { field: 'IR', value: 1, when: PROT.READ },
    { field: 'IW', value: 1, when: PROT.WRITE },
  ],
  contig: CONTIG_AMD,
  read: { field: 'IR', value: 1 },
  write: { field: 'IW', value: 1 },
  hw: (table: TableGeometry) => ({ host_pt_root: table.root, mode: table.levels }),
});

/** v2, 4 levels: 47 bits. */
export const AMD_V2_47: PageTableFormat = X86_64_AMD_4LEVEL;
/** v2, 5 levels: 56 bits. */
export const AMD_V2_56: PageTableFormat = X86_64_AMD_5LEVEL;

/** The configuration of a golden file of this vendor, or null when it is another's. */
export const goldenConfig = (file: GoldenHeader): PageTableConfig | null => {
  const common = goldenFeatures(file);
  if (file.pageTable === 'amdv1') return { ...common, format: AMD_V1 };
  if (file.pageTable === 'x86_64' && !file.config.signExtend) {
    return { ...common, format: file.config.ias <= 47 ? AMD_V2_47 : AMD_V2_56 };
  }
  return null;
};
