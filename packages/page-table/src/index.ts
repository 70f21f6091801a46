/**
 * `@iommu-ts/page-table`: one engine for every radix I/O page-table format; a format is data.
 * @packageDocumentation
 */
export { PROT } from './prot.ts';
export {
  CONTIG_AMD,
  CONTIG_NAPOT,
  CONTIG_NONE,
  PageTableFormat,
  RULES_GENERIC_PT,
  RULES_IO_PGTABLE_ARM,
  RULES_IO_PGTABLE_DART,
  defineFormat,
} from './format.ts';
export type { AttributeRule, FormatSize, FormatSpec, PermissionTest } from './format.ts';
export type { HwInfo, PageTableConfig, PageTableFeatures, TableGeometry } from './config.ts';
export { GatherRecord } from './gather.ts';
export { PageTable } from './page-table.ts';
export { NOT_MAPPED, iovaToPhysBatch, mapBatch, unmapBatch } from './batch.ts';
export type { WalkRecord, WalkStep } from './walk.ts';
export type { EntryFields, LeafProt } from './decode.ts';
export type { Leaf, TableInfo } from './iterate.ts';
export { goldenFeatures } from './golden.ts';
export type { GoldenConfig, GoldenHeader } from './golden.ts';
export { X86_64_4LEVEL, X86_64_5LEVEL, X86_64_AMD_4LEVEL, X86_64_AMD_5LEVEL } from './formats/x86-64.ts';
export type { Existing } from './state.ts';
