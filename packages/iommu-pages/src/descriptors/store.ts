/** No descriptor: the end of a list. */
export const NO_DESC = -1;

/** What a descriptor says of its block. */
export const DESC = {
  /** On an {@link IommuPagesList}. */
  ON_LIST: 1,
  /** Between `startIncoherent` and its end (Linux: `ioptdesc.incoherent`). */
  INCOHERENT: 2,
  /** To be handed to the next kernel. */
  PRESERVED: 4,
} as const;

/** Which kernel's descriptors an allocator keeps; see `DescriptorStore`. */
export type DescriptorLayout = 'host' | 'overlay' | 'memdesc';

/** Bytes that descriptors take in emulated memory. */
export interface DescriptorUsage {
  readonly layout: DescriptorLayout;
  /** The array of one entry a page frame. */
  readonly memmapBytes: number;
  /** Pages of separately allocated descriptors. */
  readonly slabBytes: number;
  /** Of these: descriptors in use. */
  readonly slabUsedBytes: number;
}

/**
 * The descriptors of live allocations (Linux: `struct ioptdesc`), one an allocation. Three implementations:
 * - `host`: arrays of the host; nothing in emulated memory, fastest;
 * - `overlay`: today's kernel, a `struct page` for every page frame, in emulated memory;
 * - `memdesc`: tomorrow's, 8 bytes for every page frame and one separately allocated descriptor, in emulated memory.
 *
 * A descriptor is named by a number that is the store's own affair. No method makes garbage.
 */
export interface DescriptorStore {
  /**
   * A descriptor for the block of `2^sizeLg2` bytes at `pfn`, charged to group `memcg`, without flags;
   * {@link NO_DESC} when there is no memory for it.
   */
  add(pfn: number, sizeLg2: number, node: number, memcg: number): number;
  /** Ends the life of a descriptor. */
  remove(desc: number): void;
  /** Descriptor of the block that begins at `pfn`, or {@link NO_DESC}. */
  find(pfn: number): number;
  /** First page of the block that `pfn` lies in (it may be the first itself), or -1. Not for the hot path. */
  headOf(pfn: number): number;
  pfn(desc: number): number;
  sizeLg2(desc: number): number;
  node(desc: number): number;
  /** The one after `desc` on its list, or {@link NO_DESC}. */
  next(desc: number): number;
  /** Puts `next` (or the end) behind `desc`; both are on a list. */
  setNext(desc: number, next: number): void;
  /** Memory control group that the block is charged to; 0: none. */
  memcg(desc: number): number;
  /** {@link DESC} bits. */
  flags(desc: number): number;
  /** Sets {@link DESC} bits. With `DESC.ON_LIST` it becomes the last of a list, without it it leaves its list. */
  setFlags(desc: number, flags: number): void;
  /** What the descriptors take of emulated memory. */
  usage(): DescriptorUsage;
}
