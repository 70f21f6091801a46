/** What an allocation is charged to, what it may not ask for, and what is warned of. */
import { IommuError } from '@iommu-ts/bits';
import { beforeEach, describe, expect, test } from 'vitest';
import { BuddySource, GFP, IommuPagesList, NO_PAGE, NUMA_NO_NODE, PhysicalMemory } from '../src/index.ts';
import type { IommuPages, PagesWarning } from '../src/index.ts';
import { codeOf } from './code-of.ts';
import { makePages } from './make-pages.ts';

let memory: PhysicalMemory;
let source: BuddySource;
let pages: IommuPages;
beforeEach(() => {
  memory = new PhysicalMemory([
    { base: 0n, size: 0x40_0000n },
    { base: 0x1_0000_0000n, size: 0x10_0000n, node: 1 },
  ]);
  source = new BuddySource(memory);
  pages = makePages(memory, source);
});

describe('memory control groups', () => {
  test('a block is taken off the group it was charged to, whatever group is active then', () => {
    expect(pages.setMemcg(7)).toBe(0);
    const a = pages.allocPagesSz(0x4000);
    expect(pages.setMemcg(9)).toBe(7);
    const b = pages.allocPagesNodeSz(1, 0x1000);
    const unaccounted = pages.allocPagesSz(0x2000, GFP.KERNEL);
    const { counters } = pages;
    expect([counters.memcgPages(7), counters.memcgPages(9), counters.memcgs]).toEqual([4, 1, [7, 9]]);
    expect(pages.nrSecPageTablePages).toBe(7);
    expect([counters.secPagetablesBytes(7), counters.secPagetablesBytes(9)]).toEqual([16_384, 4096]);
    pages.freePages(a);
    expect([counters.memcgPages(7), counters.memcgPages(9)]).toEqual([0, 1]);
    pages.setMemcg(0);
    const list = new IommuPagesList();
    pages.listAdd(list, b);
    pages.listAdd(list, unaccounted);
    pages.putPagesList(list);
    expect([counters.memcgPages(9), pages.nrIommuPages()]).toEqual([0, 0]);
  });

  test('no group: nothing is charged; a default of its own', () => {
    pages.allocPagesSz(0x1000);
    expect(pages.counters.memcgs).toEqual([]);
    const atomic = makePages(memory, source, { gfp: GFP.ATOMIC });
    atomic.setMemcg(3);
    atomic.allocPagesSz(0x1000);
    expect(atomic.counters.memcgPages(3)).toBe(0);
    atomic.allocPagesSz(0x1000, GFP.KERNEL_ACCOUNT);
    expect(atomic.counters.memcgPages(3)).toBe(1);
    for (const bad of [-1, 0.5, 0x1_0000]) expect(codeOf(() => pages.setMemcg(bad))).toBe('EINVAL');
  });
});

describe('views', () => {
  test('/proc/vmstat, meminfo, a node, a group', () => {
    pages.allocPagesNodeSz(0, 0x3000);
    pages.allocPagesNodeSz(1, 0x1000);
    const { counters } = pages;
    expect(counters.vmstat()).toEqual({ nr_sec_page_table_pages: 5, nr_iommu_pages: 5 });
    expect(counters.vmstatText()).toBe('nr_sec_page_table_pages 5\nnr_iommu_pages 5\n');
    expect(counters.vmstatText(1)).toBe('nr_sec_page_table_pages 1\nnr_iommu_pages 1\n');
    expect(counters.meminfoText()).toBe('SecPageTables:        20 kB\n');
    expect(counters.meminfoText(0)).toBe('Node 0 SecPageTables:        16 kB\n');
    expect(counters.secPageTablesKb()).toBe(20);
    expect(counters.nodes).toEqual([0, 1]);
  });

  test('with CPU pages of 64 KiB a page is 64 KiB', () => {
    const big = makePages(memory, source, { cpuPageSize: 65_536 });
    big.setMemcg(2);
    big.allocPagesSz(0x1000);
    expect(big.counters.vmstat().nr_iommu_pages).toBe(1);
    expect([big.counters.secPageTablesKb(), big.counters.secPagetablesBytes(2)]).toEqual([64, 65_536]);
  });
});

describe('nodes', () => {
  test('no particular node is the one of the running CPU', () => {
    pages.localNode = 1;
    expect(pages.allocPagesNodeSz(NUMA_NO_NODE, 0x1000) >= 0x10_0000).toBe(true);
    pages.localNode = 0;
    expect(pages.allocPagesSz(0x1000) < 0x400).toBe(true);
  });

  test('this node or none: nothing is lost when it has no memory', () => {
    const got: number[] = [];
    for (;;) {
      const pfn = pages.allocPagesNodeSz(1, 0x1_0000, GFP.KERNEL | GFP.THISNODE);
      if (pfn === NO_PAGE) break;
      got.push(pfn);
    }
    expect(got.length).toBe(16);
    expect([source.freePages(1), source.freePages(0), pages.failures]).toEqual([0, 1024, 1]);
    expect([pages.nrIommuPages(0), pages.nrIommuPages(1)]).toEqual([0, 256]);
    // Without the flag the other node helps out.
    expect(pages.allocPagesNodeSz(1, 0x1000) < 0x400).toBe(true);
    expect([pages.nrIommuPages(0), pages.failures]).toEqual([1, 1]);
  });
});

describe('warnings', () => {
  test('highmem is refused, and counted nowhere', () => {
    expect(pages.allocPagesSz(0x1000, GFP.KERNEL | GFP.HIGHMEM)).toBe(NO_PAGE);
    expect(pages.warnings.map(({ kind, pfn }) => [kind, pfn])).toEqual([['highmem', -1]]);
    expect([pages.nrIommuPages(), pages.allocations, pages.failures, source.freePages()]).toEqual([0, 0, 1, 1280]);
  });

  test('sleeping in atomic context is warned of, and done', () => {
    pages.enterAtomic();
    pages.enterAtomic();
    expect(pages.allocPagesSz(0x1000, GFP.ATOMIC)).toBeGreaterThanOrEqual(0);
    expect(pages.allocPagesSz(0x1000, GFP.ATOMIC | GFP.ACCOUNT)).toBeGreaterThanOrEqual(0);
    expect(pages.warningCount).toBe(0);
    pages.leaveAtomic();
    expect(pages.allocPagesSz(0x1000, GFP.KERNEL)).toBeGreaterThanOrEqual(0);
    expect(pages.warnings.map(({ kind }) => kind)).toEqual(['atomic']);
    pages.leaveAtomic();
    pages.allocPagesSz(0x1000);
    expect(pages.warningCount).toBe(1);
    expect(codeOf(() => pages.leaveAtomic())).toBe('EINVAL');
  });

  test('the last 64 are kept, all are counted and told', () => {
    const told: PagesWarning[] = [];
    const p = makePages(memory, source, { onWarn: (warning) => told.push(warning) });
    for (let n = 1; n <= 70; n++) p.allocPagesSz(n, GFP.HIGHMEM);
    expect([p.warnings.length, p.warningCount, told.length]).toEqual([64, 70, 70]);
    expect(p.warnings[0]!.message).toContain('0x7 bytes');
    expect(p.warnings[63]).toBe(told[69]);
  });

  test('thrown when asked for, and nothing is changed then', () => {
    const told: string[] = [];
    const p = makePages(memory, source, {
      warn: 'throw',
      onWarn: ({ kind }) => told.push(kind),
      coherency: 'dma-api',
    });
    expect(codeOf(() => p.allocPagesSz(0x1000, GFP.HIGHMEM))).toBe('EINVAL');
    const list = new IommuPagesList('unmapped');
    const three = [p.allocPagesSz(0x1000), p.allocPagesSz(0x2000), p.allocPagesSz(0x1000)] as const;
    for (const pfn of three) p.listAdd(list, pfn);
    p.startIncoherent(three[1]);
    expect(codeOf(() => p.putPagesList(list))).toBe('EBUSY');
    expect(told).toEqual(['highmem', 'freed-incoherent']);
    // The first went; the one that was warned of and the rest are still on the list.
    expect([p.listPages(list), p.nrIommuPages(), p.sizeOf(three[1])]).toEqual([[three[1], three[2]], 3, 0x2000]);
    p.stopIncoherentList(list);
    p.putPagesList(list);
    expect(p.nrIommuPages()).toBe(0);
  });
});

describe('a list that is used again', () => {
  const messageOf = (run: () => unknown): string => {
    try {
      run();
    } catch (error) {
      return error instanceof IommuError ? error.message : '';
    }
    return '';
  };

  test('which list, what was done to it, what was asked of it', () => {
    const freelist = new IommuPagesList('gather.freelist');
    const queue = new IommuPagesList('flush queue');
    pages.listAdd(freelist, pages.allocPagesSz(0x1000));
    pages.listSplice(freelist, queue);
    const spliced = messageOf(() => pages.listAdd(freelist, pages.allocPagesSz(0x1000)));
    for (const part of ['listAdd', '"gather.freelist"', 'listSplice', '"flush queue"', 'init()']) {
      expect(spliced).toContain(part);
    }
    pages.putPagesList(queue);
    const put = messageOf(() => pages.putPagesList(queue));
    for (const part of ['"flush queue"', 'putPagesList()', 'init()']) expect(put).toContain(part);
    for (const use of [
      () => pages.listSplice(new IommuPagesList(), queue),
      () => pages.listRelease(queue),
      () => pages.startIncoherentList(queue),
      () => pages.stopIncoherentList(queue),
      () => pages.preserveList(queue),
      () => pages.unpreserveList(queue),
    ]) {
      expect(codeOf(use), use.toString()).toBe('EINVAL');
    }
    queue.init();
    expect([queue.stale, queue.empty, queue.name]).toEqual([false, true, '"flush queue"']);
    expect(new IommuPagesList().name).toMatch(/^#\d+$/);
  });

  test('a block inside another is named', () => {
    const pfn = pages.allocPagesSz(0x8000);
    const text = messageOf(() => pages.freePages(pfn + 5));
    expect(text).toContain(`0x${(pfn + 5).toString(16)}`);
    expect(text).toContain(`inside the one at page 0x${pfn.toString(16)}`);
  });

  test('a list that is released gives its blocks back to their owner, not to the source', () => {
    const list = new IommuPagesList();
    const [a, b] = [pages.allocPagesSz(0x1000), pages.allocPagesSz(0x2000)];
    pages.listAdd(list, a);
    pages.listAdd(list, b);
    expect(codeOf(() => pages.freePages(a))).toBe('EBUSY');
    pages.listRelease(list);
    expect([list.empty, pages.nrIommuPages()]).toEqual([true, 3]);
    pages.freePages(a);
    pages.listAdd(list, b);
    pages.putPagesList(list);
    expect(pages.nrIommuPages()).toBe(0);
  });
});
