/** How an allocation may be made: the few of Linux's `gfp_t` flags that mean something to a table page. */

/**
 * Flags of {@link IommuPages.allocPagesNodeSz}. The values are this project's own; the names are Linux's without `__GFP_`
 * (flags) or `GFP_` (sets).
 */
export const GFP = {
  /** May come from memory that the CPU has no permanent address for: refused, with a warning. */
  HIGHMEM: 0x1,
  /** May wait for memory to be reclaimed: a mistake in atomic context. */
  DIRECT_RECLAIM: 0x2,
  /** Charged to the memory control group that is active. */
  ACCOUNT: 0x4,
  /** From the node asked for or not at all. */
  THISNODE: 0x8,
  /** Process context: may sleep. */
  KERNEL: 0x2,
  /** {@link GFP.KERNEL}, charged: what a user's mappings are made with. */
  KERNEL_ACCOUNT: 0x6,
  /** From an interrupt or under a spinlock: does not sleep. */
  ATOMIC: 0,
} as const;

/** No particular node: the allocator's own (Linux: `NUMA_NO_NODE` → `numa_mem_id()`). */
export const NUMA_NO_NODE = -1;

/** What {@link IommuPages.allocPagesNodeSz} returns when there is no page (Linux: `NULL`). */
export const NO_PAGE = -1;
