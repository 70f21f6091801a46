import { IOPTDESC_MEMDESC, MEMDESC, STRUCT_PAGE, slabObjects } from './layouts.ts';
import { memmapPages } from './memmap.ts';
import type { DescriptorLayout } from './store.ts';

/** What descriptors take, in bytes of RAM. */
export interface DescriptorCost {
  /** The array of one entry a page frame, in whole pages. */
  readonly memmapBytes: number;
  /** Separately allocated descriptors, in whole pages. */
  readonly slabBytes: number;
}

/**
 * Computes what the descriptors of one range of RAM cost, without making them.
 * @param ramBytes of the range, in whole pages; below 2^53.
 * @param blocks live allocations.
 * @param framePages 4 KiB pages in a CPU page.
 */
export const descriptorCost = (
  layout: DescriptorLayout,
  ramBytes: number,
  blocks = 0,
  framePages = 1,
): DescriptorCost => {
  if (layout === 'host') return { memmapBytes: 0, slabBytes: 0 };
  const range = { basePfn: 0, endPfn: ramBytes / 4096 };
  if (layout === 'overlay')
    return { memmapBytes: memmapPages(range, STRUCT_PAGE.bytes, framePages) * 4096, slabBytes: 0 };
  return {
    memmapBytes: memmapPages(range, MEMDESC.bytes, framePages) * 4096,
    slabBytes: Math.ceil(blocks / slabObjects(IOPTDESC_MEMDESC.bytes)) * 4096,
  };
};
