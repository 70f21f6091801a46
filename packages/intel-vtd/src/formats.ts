/**
 * Page-table formats of Intel VT-d. Second stage: Architecture Specification, 9.8 Second-Stage Paging Entries; first
 * stage: 9.7, which is x86-64 paging.
 */
import { bit, bits } from '@iommu-ts/bits';
import {
  PROT,
  RULES_GENERIC_PT,
  X86_64_4LEVEL,
  X86_64_5LEVEL,
  defineFormat,
  goldenFeatures,
} from '@iommu-ts/page-table';
import type { FormatSpec, GoldenHeader, PageTableConfig, PageTableFormat, TableGeometry } from '@iommu-ts/page-table';

const PS = bit(7, 'page size: a leaf above level 0');
const ADDR = bits(51, 12, 'address of the page or of the next table');

const base: Omit<FormatSpec, 'name' | 'maxTopLevel' | 'topLevel'> = {
  spec: 'Intel VT-d 9.8 Second-Stage Paging Entries',
  rules: RULES_GENERIC_PT,
  granuleLg2: 12,
  sizes: [{ lg2: 12 }, { lg2: 21 }, { lg2: 30 }],
  leafLayout: {
    ADDR,
    SNP: bit(11, 'snoop behaviour'),
    D: bit(9, 'dirty'),
    A: bit(8, 'accessed'),
    PS,
    IPAT: bit(6, 'ignore PAT'),
    EMT: bits(5, 3, 'extended memory type'),
    X: bit(2, 'execute'),
    W: bit(1, 'write'),
    R: bit(0, 'read'),
  },
  tableLayout: {
    ADDR,
    SW: bit(10, 'ignored by hardware; Linux marks a flushed entry'),
    A: bit(8, 'accessed'),
    PS,
    X: bit(2, 'execute'),
    W: bit(1, 'write'),
    R: bit(0, 'read'),
  },
  oa: ADDR,
  maxOas: 52,
  tableType: { field: PS, value: 0 },
  tableBits: [
    { field: 'R', value: 1 },
    { field: 'W', value: 1 },
    { field: 'SW', value: 1, feature: 'incoherent' },
  ],
  blockBits: [{ field: 'PS', value: 1 }],
  attributes: [
    { field: 'R', value: 1, when: PROT.READ },
    { field: 'W', value: 1, when: PROT.WRITE },
    { field: 'SNP', value: 1, feature: 'snp' },
  ],
  read: { field: 'R', value: 1 },
  write: { field: 'W', value: 1 },
  // SSPTPTR is the address of the top table; AW as the context entry has it: 1, 2, 3 = 39, 48, 57 bits.
  hw: (table: TableGeometry) => ({ ssptptr: table.root, aw: table.topLevel - 1 }),
};

/** Second stage, 3 levels: 39 bits. */
export const VTD_SS_39 = /* @__PURE__ */ defineFormat({ ...base, name: 'vtd-ss-39', maxTopLevel: 2, topLevel: 2 });
/** Second stage, 4 levels: 48 bits. */
export const VTD_SS_48 = /* @__PURE__ */ defineFormat({ ...base, name: 'vtd-ss-48', maxTopLevel: 3, topLevel: 3 });
/** Second stage, 5 levels: 57 bits. */
export const VTD_SS_57 = /* @__PURE__ */ defineFormat({ ...base, name: 'vtd-ss-57', maxTopLevel: 4, topLevel: 4 });
/** First stage, 4 levels: 48 bits, sign-extended. */
export const VTD_FS_48: PageTableFormat = X86_64_4LEVEL;
/** First stage, 5 levels: 57 bits, sign-extended. */
export const VTD_FS_57: PageTableFormat = X86_64_5LEVEL;

/** The configuration of a golden file of this vendor, or null when it is another's. */
export const goldenConfig = (file: GoldenHeader): PageTableConfig | null => {
  const common = goldenFeatures(file);
  const { ias } = file.config;
  if (file.pageTable === 'vtdss') {
    const format = ias <= 39 ? VTD_SS_39 : ias <= 48 ? VTD_SS_48 : VTD_SS_57;
    return { ...common, format };
  }
  if (file.pageTable === 'x86_64' && file.config.signExtend)
    return { ...common, format: ias <= 48 ? VTD_FS_48 : VTD_FS_57 };
  return null;
};
