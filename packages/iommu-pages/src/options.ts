import type { BuddyRange } from './buddy.ts';
import type { DescriptorLayout } from './descriptors/store.ts';
import type { Coherency, DmaApi } from './incoherent.ts';
import type { Handover } from './preserve.ts';
import type { Rcu } from './rcu.ts';
import type { PagesWarning, WarnMode } from './warn.ts';

/** Options of {@link IommuPages}. */
export interface IommuPagesOptions {
  /** Node used for {@link NUMA_NO_NODE} (default 0); see {@link IommuPages.localNode}. */
  readonly localNode?: number;
  /** {@link GFP} flags of allocations that name none (default `GFP.KERNEL_ACCOUNT`); see {@link IommuPages.gfp}. */
  readonly gfp?: number;
  /** What becomes of a warning (default `'record'`); see {@link IommuPages.warnings}. */
  readonly warn?: WarnMode;
  /** Called for every warning, before it is thrown if it is. */
  readonly onWarn?: (warning: PagesWarning) => void;
  /** How this kernel flushes tables for a walker that does not snoop (default `'x86'`). */
  readonly coherency?: Coherency;
  /** The DMA API of a `'dma-api'` machine (default: the direct map). */
  readonly dma?: DmaApi;
  /** What the last kernel preserved; kept out of the source until it is restored. */
  readonly handover?: Handover;
  /** Readers and grace periods for `putPagesListRcu`; default: its own, without a clock (see {@link Rcu.run}). */
  readonly rcu?: Rcu;
  /** Size of a CPU page in bytes (default 4096): what sizes round up to, and what the counters count. */
  readonly cpuPageSize?: 4096 | 16384 | 65536;
  /**
   * Sizes of half a CPU page and less, down to 64 bytes, share CPU pages. Default false, as Linux is today: they are rounded
   * up to one, so that a 4 KiB table under a kernel with 64 KiB pages takes 64 KiB.
   */
  readonly subPage?: boolean;
  /**
   * Where the descriptors are kept. `'host'` (default): in arrays of the host. `'overlay'`: in emulated memory as Linux does
   * today, 64 bytes for every page frame of the source's ranges. `'memdesc'`: in emulated memory as is planned, 8 bytes a
   * page frame and a separate descriptor an allocation.
   */
  readonly layout?: DescriptorLayout;
  /** Memory for the descriptors (default: the end of each range of the source, which then does not hand it out). */
  readonly descriptorRange?: BuddyRange;
}
