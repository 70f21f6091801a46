/**
 * `@iommu-ts/iommu-pages`: emulated physical memory, and the allocator of I/O page-table pages after Linux's `iommu-pages`.
 * @packageDocumentation
 */
export { PhysicalMemory } from './physical-memory.ts';
export type { MmioHandler, MmioRange } from './physical-memory.ts';
export { CHUNK_PFNS } from './ram-range.ts';
export type { RamOptions, RamRange, WasmMemory } from './ram-range.ts';
export { ArenaSource } from './page-source.ts';
export type { ArenaEvent, PageSource } from './page-source.ts';
export { FailingSource } from './failing-source.ts';
export type { FailurePlan } from './failing-source.ts';
export { BuddySource } from './buddy.ts';
export type { BuddyRange, NumaOptions } from './buddy.ts';
export { GFP, NO_PAGE, NUMA_NO_NODE } from './gfp.ts';
export { Accounting } from './accounting.ts';
export type { VmStat } from './accounting.ts';
export type { PagesWarning, PagesWarningKind, WarnMode } from './warn.ts';
export { IommuPages } from './iommu-pages.ts';
export { TablePages } from './table-pages.ts';
export type { Poison, SubPageUsage } from './sub-page.ts';
export type { IommuPagesOptions } from './options.ts';
export { DMA_MAPPING_ERROR } from './incoherent.ts';
export type { CacheMaintenance, Coherency, DmaApi } from './incoherent.ts';
export type { Handover, PreservedBlock } from './preserve.ts';
export { IommuPagesList } from './pages-list.ts';
export { Rcu } from './rcu.ts';
export type { RcuClient, RcuClock, RcuOptions } from './rcu.ts';
export {
  IOPTDESC_MEMDESC,
  IOPTDESC_MEMDESC_NO_MEMCG,
  IOPTDESC_OVERLAY,
  IOPTDESC_OVERLAY_NO_MEMCG,
  MEMDESC,
  STRUCT_PAGE,
  STRUCT_PAGE_NO_MEMCG,
} from './descriptors/layouts.ts';
export type { StructField, StructLayout } from './descriptors/layouts.ts';
export { descriptorCost } from './descriptors/cost.ts';
export type { DescriptorCost } from './descriptors/cost.ts';
export type { DescriptorLayout, DescriptorUsage } from './descriptors/store.ts';
