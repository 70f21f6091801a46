import { IommuError, hex, pfnOf } from '@iommu-ts/bits';
import { BuddySource } from '../buddy.ts';
import type { BuddyRange } from '../buddy.ts';
import { IoptdescPool } from '../ioptdesc.ts';
import type { PageSource } from '../page-source.ts';
import type { PhysicalMemory } from '../physical-memory.ts';
import { IOPTDESC_MEMDESC, MEMDESC, STRUCT_PAGE } from './layouts.ts';
import { MemdescStore } from './memdesc.ts';
import { Memmap, memmapPages } from './memmap.ts';
import type { PfnRange } from './memmap.ts';
import { OverlayStore } from './overlay.ts';
import { Slab } from './slab.ts';
import type { DescriptorLayout, DescriptorStore } from './store.ts';

/** What {@link createDescriptors} needs to know. */
export interface DescriptorOptions {
  readonly layout: DescriptorLayout;
  /**
   * Memory for the descriptors, beside what the source hands out. Default: the end of each of the source's ranges (the
   * source must be able to `reserve`), and pages of the source for separately allocated descriptors.
   */
  readonly range?: BuddyRange;
  /** 4 KiB pages in a CPU page (default 1). */
  readonly framePages?: number;
}

/** Largest block that a source is asked to reserve at once, in pages. */
const MAX_RESERVE = 2 ** 18;

/**
 * Makes the descriptors of an allocator; the memory map is set aside at once.
 * @throws IommuError `EINVAL` when the source can not set pages aside and no range is given, or its ranges are not in
 * whole CPU pages; `EALIGN`, `ERANGE`, `EADDRINUSE`, `ENOSPC` for a range that is not in whole pages, not RAM, handed
 * out by the source as well, or too small; `EBUSY` when a page at the end of a range of the source is in use.
 */
export const createDescriptors = (
  memory: PhysicalMemory,
  source: PageSource,
  options: DescriptorOptions,
): DescriptorStore => {
  const { layout, range, framePages = 1 } = options;
  if (layout === 'host') return new IoptdescPool();
  if (layout !== 'overlay' && layout !== 'memdesc') {
    throw new IommuError('EINVAL', `layout ${String(layout)} is not host, overlay or memdesc`, {
      layout: String(layout),
    });
  }
  const frameBytes = layout === 'overlay' ? STRUCT_PAGE.bytes : MEMDESC.bytes;
  const ranges = source.ranges ?? memory.ranges;
  for (const { basePfn } of ranges) {
    if (basePfn % framePages !== 0) {
      const text = `the range at page ${hex(basePfn)} does not begin with a whole CPU page of ${framePages} pages`;
      throw new IommuError('EINVAL', text, { pfn: basePfn });
    }
  }
  const sizes = ranges.map((r) => memmapPages(r, frameBytes, framePages));
  const { places, rest } = range === undefined ? reserved(source, ranges, sizes) : placed(memory, source, range, sizes);
  const map = new Memmap(memory, ranges, places, frameBytes, framePages);
  if (layout === 'overlay') return new OverlayStore(map, framePages);
  const pages = rest === null ? source : new BuddySource(memory, [rest]);
  return new MemdescStore(memory, map, new Slab(memory, pages, map, IOPTDESC_MEMDESC.bytes), framePages);
};

interface Places {
  /** First page of the array of each range. */
  readonly places: readonly number[];
  /** Memory left for descriptors that are allocated separately; null: from the source. */
  readonly rest: BuddyRange | null;
}

/** Sets the last pages of every range aside. */
const reserved = (source: PageSource, ranges: readonly PfnRange[], sizes: readonly number[]): Places => {
  if (source.reserve === undefined) {
    const text = 'this page source can not set pages aside: name a range for the descriptors (descriptorRange)';
    throw new IommuError('EINVAL', text);
  }
  const places = ranges.map(({ endPfn }, i) => endPfn - sizes[i]!);
  for (const [i, first] of places.entries()) {
    // In blocks as a buddy allocator has them: aligned to their size.
    for (let pfn = first, end = first + sizes[i]!; pfn < end;) {
      let pages = 1;
      while (pages < MAX_RESERVE && pfn % (2 * pages) === 0 && pfn + 2 * pages <= end) pages *= 2;
      source.reserve(pfn, pages * 4096);
      pfn += pages;
    }
  }
  return { places, rest: null };
};

/** One array after another in the range that was named. */
const placed = (memory: PhysicalMemory, source: PageSource, range: BuddyRange, sizes: readonly number[]): Places => {
  const { base, size } = range;
  if ((base & 0xfffn) !== 0n || (size & 0xfffn) !== 0n) {
    throw new IommuError('EALIGN', `range ${hex(base)}+${hex(size)} is not in whole 4 KiB pages`, { base, size });
  }
  const basePfn = pfnOf(base);
  const endPfn = basePfn + pfnOf(size);
  for (let pfn = basePfn; pfn < endPfn;) {
    const ram = memory.rangeOf(pfn);
    if (ram === null) throw new IommuError('ERANGE', `page ${hex(pfn)} of the range is not RAM`, { pfn });
    pfn = ram.endPfn;
  }
  if ((source.ranges ?? []).some((r) => basePfn < r.endPfn && r.basePfn < endPfn)) {
    const text = `range ${hex(base)}+${hex(size)} for descriptors is handed out by the page source as well`;
    throw new IommuError('EADDRINUSE', text, { base, size });
  }
  let pfn = basePfn;
  const places = sizes.map((pages) => {
    pfn += pages;
    return pfn - pages;
  });
  if (pfn > endPfn) {
    const [need, have] = [BigInt(pfn - basePfn) << 12n, size];
    const text = `range ${hex(base)}+${hex(have)} is too small for descriptors of ${hex(need)} bytes`;
    throw new IommuError('ENOSPC', text, { base, size, need });
  }
  const left = { base: BigInt(pfn) << 12n, size: BigInt(endPfn - pfn) << 12n };
  return { places, rest: left.size === 0n ? null : left };
};
