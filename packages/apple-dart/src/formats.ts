/**
 * Page-table formats of Apple's DART. There is no public specification: the layouts are those found by the Asahi Linux
 * project (m1n1 `proxyclient/m1n1/hw/dart.py`, `dart8110.py`) and used by Linux's `io-pgtable-dart`.
 * Version 1: t8020, t8103; version 2: t6000, t8110.
 */
import { bit, bits } from '@iommu-ts/bits';
import { PROT, RULES_IO_PGTABLE_DART, defineFormat, goldenFeatures } from '@iommu-ts/page-table';
import type { FormatSpec, GoldenHeader, PageTableConfig, TableGeometry } from '@iommu-ts/page-table';

const VALID = bit(0, 'valid');
const SUBPAGE_START = bits(63, 52, 'first part of the page that may be used');
const SUBPAGE_END = bits(51, 40, 'last part of the page that may be used');

const ttbrs = (table: TableGeometry): { ttbr: readonly bigint[] } => ({ ttbr: table.roots });

const PADDR_V1 = bits(35, 12, 'address of the page or of the next table');
const PADDR_V2 = bits(37, 10, 'address of the page or of the next table, bits 41:14');

const v1: Omit<FormatSpec, 'name' | 'granuleLg2' | 'maxTopLevel' | 'sizes'> = {
  spec: 'Apple DART t8020/t8103 (reverse engineered)',
  rules: RULES_IO_PGTABLE_DART,
  maxRoots: 4,
  leafLayout: {
    SUBPAGE_START,
    SUBPAGE_END,
    PADDR: PADDR_V1,
    NO_READ: bit(8, 'reads refused'),
    NO_WRITE: bit(7, 'writes refused'),
    SP_DIS: bit(1, 'sub-page protection off'),
    VALID,
  },
  tableLayout: { PADDR: PADDR_V1, VALID },
  oa: PADDR_V1,
  maxOas: 36,
  present: VALID,
  // Only level 0 has leaves: what is valid above it is a table.
  tableType: { field: VALID, value: 1 },
  tableBits: [{ field: 'VALID', value: 1 }],
  attributes: [
    { field: 'SUBPAGE_END', value: 0xfff },
    { field: 'NO_READ', value: 1, unless: PROT.READ },
    { field: 'NO_WRITE', value: 1, unless: PROT.WRITE },
    { field: 'SP_DIS', value: 1 },
    { field: 'VALID', value: 1 },
  ],
  read: { field: 'NO_READ', value: 0 },
  write: { field: 'NO_WRITE', value: 0 },
  hw: ttbrs,
};

/** Version 1 with 16 KiB pages: 2048 entries a table, 36 address bits. */
export const DART_V1_16K = /* @__PURE__ */ defineFormat({
  ...v1,
  name: 'dart-v1-16k',
  granuleLg2: 14,
  maxRoots: 1,
  maxTopLevel: 2,
  sizes: [{ lg2: 14 }],
});

/** Version 1 with 4 KiB pages: 512 entries a table; up to four TTBRs side by side. */
export const DART_V1_4K = /* @__PURE__ */ defineFormat({
  ...v1,
  name: 'dart-v1-4k',
  granuleLg2: 12,
  maxTopLevel: 2,
  sizes: [{ lg2: 12 }],
});

/** Version 2 with 16 KiB pages, 42 address bits. With 4 KiB pages it could not address its own tables, so there is none. */
export const DART_V2_16K = /* @__PURE__ */ defineFormat({
  spec: 'Apple DART t6000/t8110 (reverse engineered)',
  name: 'dart-v2-16k',
  rules: RULES_IO_PGTABLE_DART,
  granuleLg2: 14,
  maxTopLevel: 2,
  sizes: [{ lg2: 14 }],
  leafLayout: {
    SUBPAGE_START,
    SUBPAGE_END,
    PADDR: PADDR_V2,
    NO_READ: bit(3, 'reads refused'),
    NO_WRITE: bit(2, 'writes refused'),
    NO_CACHE: bit(1, 'not coherent'),
    VALID,
  },
  tableLayout: { PADDR: PADDR_V2, VALID },
  oa: PADDR_V2,
  oaShift: 4,
  maxOas: 42,
  present: VALID,
  tableType: { field: VALID, value: 1 },
  tableBits: [{ field: 'VALID', value: 1 }],
  attributes: [
    { field: 'SUBPAGE_END', value: 0xfff },
    { field: 'NO_READ', value: 1, unless: PROT.READ },
    { field: 'NO_WRITE', value: 1, unless: PROT.WRITE },
    { field: 'NO_CACHE', value: 1, unless: PROT.CACHE },
    { field: 'VALID', value: 1 },
  ],
  read: { field: 'NO_READ', value: 0 },
  write: { field: 'NO_WRITE', value: 0 },
  hw: ttbrs,
});

/** The configuration of a golden file of this vendor, or null when it is another's. */
export const goldenConfig = (file: GoldenHeader): PageTableConfig | null => {
  if (file.pageTable !== 'dart') return null;
  const common = goldenFeatures(file);
  if (file.name.startsWith('dart2')) return { ...common, format: DART_V2_16K };
  return { ...common, format: file.config.granule === 4096 ? DART_V1_4K : DART_V1_16K };
};
