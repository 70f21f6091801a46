/** The allocator of I/O page-table pages: the semantics of Linux's iommu-pages, call by call. */
import { beforeEach, describe, expect, test } from 'vitest';
import { ArenaSource, BuddySource, IommuPagesList, NO_PAGE, NUMA_NO_NODE, PhysicalMemory } from '../src/index.ts';
import type { ArenaEvent, IommuPages } from '../src/index.ts';
import { codeOf } from './code-of.ts';
import { makePages } from './make-pages.ts';

let memory: PhysicalMemory;
let source: BuddySource;
let pages: IommuPages;
beforeEach(() => {
  memory = new PhysicalMemory([
    { base: 0n, size: 0x40_0000n },
    { base: 0x1_0000_0000n, size: 0x40_0000n, node: 1 },
  ]);
  source = new BuddySource(memory);
  pages = makePages(memory, source);
});

describe('alloc', () => {
  test('sizes round up to a power of two and a page, and blocks are aligned to their size', () => {
    const rows: [number, number][] = [
      [1, 0x1000],
      [16, 0x1000],
      [4096, 0x1000],
      [4097, 0x2000],
      [0x2000, 0x2000],
      [0x3000, 0x4000],
      [0x10_0000, 0x10_0000],
      [0x10_0001, 0x20_0000],
    ];
    for (const [asked, got] of rows) {
      const pfn = pages.allocPagesSz(asked);
      expect(pages.sizeOf(pfn), `${asked} bytes`).toBe(got);
      expect(pfn % (got / 4096), `${asked} bytes`).toBe(0);
      expect(pages.nrIommuPages()).toBe(got / 4096);
      pages.freePages(pfn);
      expect(pages.sizeOf(pfn)).toBe(0);
    }
    for (const bad of [0, -1, 2 ** 30 + 1, Number.NaN])
      expect(
        codeOf(() => pages.allocPagesSz(bad)),
        `${bad}`,
      ).toBe('EINVAL');
  });

  test('blocks are zeroed, also when they were used before', () => {
    const pfn = pages.allocPagesSz(0x4000);
    memory.writeBytes(BigInt(pfn) << 12n, new Uint8Array(0x4000).fill(0xa5));
    pages.freePages(pfn);
    expect(memory.readBytes(BigInt(pfn) << 12n, 1)).toEqual(Uint8Array.of(0xa5));
    const again = pages.allocPagesSz(0x3000);
    expect(again).toBe(pfn);
    expect(memory.readBytes(BigInt(pfn) << 12n, 0x4000)).toEqual(new Uint8Array(0x4000));
  });

  test('nodes: the one asked for, else the nearest, and its own counter', () => {
    const one = pages.allocPagesNodeSz(1, 0x2000);
    expect(one >= 0x10_0000).toBe(true);
    const local = pages.allocPagesNodeSz(NUMA_NO_NODE, 0x1000);
    expect(local < 0x400).toBe(true);
    expect([pages.nrIommuPages(0), pages.nrIommuPages(1), pages.nrIommuPages(), pages.nrIommuPages(7)]).toEqual([
      1, 2, 3, 0,
    ]);
    // Node 1 runs out: node 0 helps, and is charged.
    pages.allocPagesNodeSz(1, 0x20_0000);
    const far = pages.allocPagesNodeSz(1, 0x20_0000);
    expect(far < 0x400).toBe(true);
    expect([pages.nrIommuPages(0), pages.nrIommuPages(1)]).toEqual([1 + 512, 2 + 512]);
    const elsewhere = makePages(memory, source, { localNode: 1 });
    expect(elsewhere.allocPagesSz(0x1000) >= 0x10_0000).toBe(true);
  });

  test('out of memory is NO_PAGE, not an exception', () => {
    expect(pages.allocPagesSz(0x80_0000)).toBe(NO_PAGE);
    expect(pages.nrIommuPages()).toBe(0);
    let n = 0;
    while (pages.allocPagesSz(0x1000) !== NO_PAGE) n++;
    expect(n).toBe(2048);
  });
});

describe('free', () => {
  test('NO_PAGE is a no-op; misuse is found', () => {
    pages.freePages(NO_PAGE);
    const pfn = pages.allocPagesSz(0x4000);
    expect(codeOf(() => pages.freePages(pfn + 1))).toBe('EINVAL');
    expect(codeOf(() => pages.freePages(12_345))).toBe('EINVAL');
    pages.freePages(pfn);
    expect(codeOf(() => pages.freePages(pfn))).toBe('EINVAL');
  });

  test('counters', () => {
    const a = pages.allocPagesSz(0x4000);
    const b = pages.allocPagesSz(0x1000);
    expect([pages.nrSecPageTablePages, pages.peakPages, pages.allocations]).toEqual([5, 5, 2]);
    pages.freePages(a);
    expect([pages.nrSecPageTablePages, pages.peakPages, pages.allocations]).toEqual([1, 5, 2]);
    pages.freePages(b);
    pages.allocPagesSz(0x2000);
    expect([pages.nrSecPageTablePages, pages.peakPages, pages.allocations]).toEqual([2, 5, 3]);
  });
});

const alloc = (n: number): number[] => Array.from({ length: n }, () => pages.allocPagesSz(0x1000));

describe('lists', () => {
  test('add at the tail, put from the head', () => {
    const list = new IommuPagesList();
    expect(list.empty).toBe(true);
    const blocks = alloc(4);
    for (const pfn of blocks) pages.listAdd(list, pfn);
    expect(pages.listPages(list)).toEqual(blocks);
    expect([list.empty, list.length]).toEqual([false, 4]);
    expect(pages.nrIommuPages()).toBe(4);
    const freed: number[] = [];
    const free = source.free.bind(source);
    source.free = (pfn, size) => {
      freed.push(pfn);
      free(pfn, size);
    };
    pages.putPagesList(list);
    expect(freed).toEqual(blocks);
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('splice prepends', () => {
    const [from, to] = [new IommuPagesList(), new IommuPagesList()];
    const [a, b, c, d] = alloc(4) as [number, number, number, number];
    for (const pfn of [a, b]) pages.listAdd(from, pfn);
    for (const pfn of [c, d]) pages.listAdd(to, pfn);
    pages.listSplice(from, to);
    expect(pages.listPages(to)).toEqual([a, b, c, d]);
    expect(to.length).toBe(4);
    // The tail still is the tail.
    from.init();
    const e = pages.allocPagesSz(0x1000);
    pages.listAdd(to, e);
    expect(pages.listPages(to)).toEqual([a, b, c, d, e]);
    // Empty onto full, full onto empty.
    pages.listSplice(from, to);
    expect(pages.listPages(to)).toHaveLength(5);
    from.init();
    pages.listSplice(to, from);
    expect(pages.listPages(from)).toEqual([a, b, c, d, e]);
    const f = pages.allocPagesSz(0x1000);
    pages.listAdd(from, f);
    pages.putPagesList(from);
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('misuse is found', () => {
    const list = new IommuPagesList();
    const other = new IommuPagesList();
    const [a, b] = alloc(2) as [number, number];
    pages.listAdd(list, a);
    expect(codeOf(() => pages.listAdd(list, a))).toBe('EBUSY');
    expect(codeOf(() => pages.listAdd(other, a))).toBe('EBUSY');
    expect(codeOf(() => pages.freePages(a))).toBe('EBUSY');
    expect(codeOf(() => pages.listAdd(list, 999))).toBe('EINVAL');
    pages.putPagesList(list);
    // As in Linux, the list must be initialised before it is used again.
    expect(codeOf(() => pages.listAdd(list, b))).toBe('EINVAL');
    expect(codeOf(() => pages.listSplice(list, other))).toBe('EINVAL');
    expect(codeOf(() => pages.listSplice(other, list))).toBe('EINVAL');
    list.init();
    pages.listAdd(list, b);
    pages.listSplice(list, other);
    expect(codeOf(() => pages.listAdd(list, b))).toBe('EINVAL');
    expect(codeOf(() => pages.listAdd(other, a))).toBe('EINVAL');
    pages.putPagesList(other);
    expect(pages.nrIommuPages()).toBe(0);
    // A block that was on a list can be allocated, listed and freed again.
    list.init();
    const again = pages.allocPagesSz(0x1000);
    pages.listAdd(list, again);
    pages.putPagesList(list);
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('a list that was put is not put again, a list is not spliced into itself', () => {
    const list = new IommuPagesList();
    const [a, b] = alloc(2);
    pages.listAdd(list, a!);
    expect(codeOf(() => pages.listSplice(list, list))).toBe('EINVAL');
    expect(pages.listPages(list)).toEqual([a]);
    pages.putPagesList(list);
    const again = pages.allocPagesSz(4096);
    expect(codeOf(() => pages.putPagesList(list))).toBe('EINVAL');
    expect([pages.sizeOf(again), pages.nrIommuPages()]).toEqual([4096, 2]);
    list.init();
    pages.putPagesList(list);
    for (const pfn of [again, b!]) pages.freePages(pfn);
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('a size is a whole number of bytes', () => {
    for (const size of [4096.5, 0.5, 0, -1, Number.NaN, 2 ** 30 + 1, 2 ** 40]) {
      expect(
        codeOf(() => pages.allocPagesSz(size)),
        `${size}`,
      ).toBe('EINVAL');
    }
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('many blocks', () => {
    const list = new IommuPagesList();
    const blocks = alloc(1500);
    expect(new Set(blocks).size).toBe(1500);
    for (const pfn of blocks) pages.listAdd(list, pfn);
    expect(pages.listPages(list)).toEqual(blocks);
    pages.putPagesList(list);
    expect(pages.nrIommuPages()).toBe(0);
    expect(source.freePages()).toBe(2048);
  });
});

describe('arena', () => {
  test('takes the block of that size freed last, else the cursor aligned up; gaps are lost', () => {
    const ram = new PhysicalMemory([{ base: 0x8000_0000n, size: 0x10_0000n }]);
    const arena = new ArenaSource(ram, 0x8000_0000n);
    const log: ArenaEvent[] = [];
    arena.onEvent = (event) => log.push(event);
    const table = makePages(ram, arena);
    const a = table.allocPagesSz(16);
    const b = table.allocPagesSz(0x4000);
    const c = table.allocPagesSz(0x1000);
    expect([a, b, c]).toEqual([0x8_0000, 0x8_0004, 0x8_0008]);
    const d = table.allocPagesSz(0x1000);
    table.freePages(a);
    table.freePages(c);
    // Last freed first; another size does not take it.
    expect(table.allocPagesSz(0x2000)).toBe(0x8_000a);
    expect(table.allocPagesSz(0x1000)).toBe(c);
    expect(table.allocPagesSz(0x1000)).toBe(a);
    expect(table.allocPagesSz(0x1000)).toBe(0x8_000c);
    expect(d).toBe(0x8_0009);
    expect(log).toEqual([
      ['alloc', 0x8_0000, 0x1000],
      ['alloc', 0x8_0004, 0x4000],
      ['alloc', 0x8_0008, 0x1000],
      ['alloc', 0x8_0009, 0x1000],
      ['free', 0x8_0000, 0x1000],
      ['free', 0x8_0008, 0x1000],
      ['alloc', 0x8_000a, 0x2000],
      ['alloc', 0x8_0008, 0x1000],
      ['alloc', 0x8_0000, 0x1000],
      ['alloc', 0x8_000c, 0x1000],
    ]);
    expect(table.allocPagesSz(0x10_0000)).toBe(NO_PAGE);
    expect(codeOf(() => new ArenaSource(ram, 0n))).toBe('ERANGE');
  });
});
