/** Rows and ratios of the allocator of table pages. */
import type { IommuPagesOptions } from '@iommu-ts/iommu-pages';
import { BuddySource, IommuPages, IommuPagesList, NUMA_NO_NODE } from '@iommu-ts/iommu-pages';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { ratioOf } from './ratios.ts';
import type { Ratio } from './ratios.ts';
import { compare, now } from './stats.ts';
import type { Row, Scale } from './table-rows.ts';

type DescriptorLayout = NonNullable<IommuPagesOptions['layout']>;

/** The layouts of descriptors, as the rows' format. */
export const LAYOUTS: readonly DescriptorLayout[] = ['host', 'overlay', 'memdesc'];

const LIST = 512;
const BASE = 0x100_0000n;

const allocator = (memory: PhysicalMemory, layout: DescriptorLayout, subPage = false): IommuPages => {
  const size = (BigInt(memory.ranges[0]!.endPfn) << 12n) - BASE;
  return new IommuPages(memory, new BuddySource(memory, [{ base: BASE, size }]), { layout, subPage });
};

interface MadeRow {
  readonly row: Row;
  readonly rig: { release(): void };
}

/** Allocates and frees one block of `bytes`, over and over. */
const oneRow = (memory: PhysicalMemory, layout: DescriptorLayout, scale: Scale, name: string, bytes: number) => ({
  name,
  make(): MadeRow {
    const pages = allocator(memory, layout, bytes < 4096);
    const ops = scale.lookups;
    // A part keeps its page split, as one of many tables would.
    const stays = bytes < 4096 ? pages.allocPagesSz(bytes) : -1;
    const row: Row = {
      name,
      ops,
      per: 'call',
      pass() {
        let bad = 0;
        const start = now();
        for (let i = 0; i < ops; i++) {
          const pfn = pages.allocPagesNodeSz(NUMA_NO_NODE, bytes);
          if (pfn < 0) bad++;
          pages.freePages(pfn);
        }
        const ns = now() - start;
        if (bad > 0) throw new Error(`${bad} allocations failed`);
        return ns;
      },
    };
    return { row, rig: { release: () => pages.freePages(stays) } };
  },
});

/** Allocates {@link LIST} pages, puts them on a list, and gives the list back. */
const listRow = (memory: PhysicalMemory, layout: DescriptorLayout, scale: Scale) => ({
  name: `alloc-list-${LIST}`,
  make(): MadeRow {
    const pages = allocator(memory, layout);
    const list = new IommuPagesList();
    const rounds = Math.max(1, scale.lookups / LIST / 4);
    const row: Row = {
      name: `alloc-list-${LIST}`,
      ops: rounds * LIST,
      per: 'entry',
      pass() {
        const start = now();
        for (let round = 0; round < rounds; round++) {
          for (let i = 0; i < LIST; i++) pages.listAdd(list, pages.allocPagesNodeSz(NUMA_NO_NODE, 4096));
          pages.putPagesList(list);
          list.init();
        }
        const ns = now() - start;
        if (pages.nrSecPageTablePages !== 0) throw new Error('the list did not give every page back');
        return ns;
      },
    };
    return { row, rig: { release: () => {} } };
  },
});

/** Rows of one layout: a page, a list, parts of a page. */
export const pageRows = (
  memory: PhysicalMemory,
  layout: DescriptorLayout,
  scale: Scale,
): { readonly name: string; make(): MadeRow }[] => [
  oneRow(memory, layout, scale, 'alloc-free-4k', 4096),
  listRow(memory, layout, scale),
  oneRow(memory, layout, scale, 'alloc-free-1k', 1024),
  oneRow(memory, layout, scale, 'alloc-free-64', 64),
];

/** Fills the allocator to `part` of its pages, and returns a function that measures allocate and free there. */
const filled = (memory: PhysicalMemory, layout: DescriptorLayout, scale: Scale, part: number): (() => number) => {
  const pages = allocator(memory, layout);
  const source = pages.source as BuddySource;
  const keep = Math.floor(source.freePages() * (1 - part));
  while (source.freePages() > keep) pages.allocPagesSz(4096);
  const ops = Math.max(64, scale.lookups >>> 2);
  const got = new Float64Array(64);
  return () => {
    const start = now();
    for (let i = 0; i < ops; i += 64) {
      for (let j = 0; j < 64; j++) got[j] = pages.allocPagesNodeSz(NUMA_NO_NODE, 4096);
      for (let j = 0; j < 64; j++) pages.freePages(got[j]!);
    }
    return (now() - start) / ops;
  };
};

/** Allocate and free with 95 % of memory in use, against 1 %. */
export const fillRatio = (
  memories: readonly [PhysicalMemory, PhysicalMemory],
  layout: DescriptorLayout,
  scale: Scale,
  rounds: number,
): Ratio => {
  const full = filled(memories[0], layout, scale, 0.95);
  const empty = filled(memories[1], layout, scale, 0.01);
  return ratioOf('allocate and free, 95 % full / 1 % full', `layout ${layout}`, 1.5, compare(full, empty, rounds));
};
