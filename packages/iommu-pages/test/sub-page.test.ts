/** Allocations below a CPU page, through the allocator: same API, same counters rule, one descriptor a page. */
import { IommuError, addressOfPfn } from '@iommu-ts/bits';
import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { BuddySource, GFP, IommuPages, IommuPagesList, NO_PAGE, PhysicalMemory } from '../src/index.ts';
import type { IommuPagesOptions } from '../src/index.ts';

fc.configureGlobal({ seed: 20_261_126 });

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return error instanceof IommuError ? error.code : String(error);
  }
  return 'nothing thrown';
};
const messageOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return (error as Error).message;
  }
  return 'nothing thrown';
};

const machine = (options: IommuPagesOptions): { memory: PhysicalMemory; source: BuddySource; pages: IommuPages } => {
  const memory = new PhysicalMemory([
    { base: 0n, size: 0x80_0000n },
    { base: 0x1_0000_0000n, size: 0x80_0000n, node: 1 },
  ]);
  const source = new BuddySource(memory);
  return { memory, source, pages: new IommuPages(memory, source, options) };
};

describe('the size of a CPU page', () => {
  test('without sub-pages every size is rounded up to one, and the counters count them', () => {
    for (const cpuPageSize of [4096, 16384, 65536] as const) {
      const { pages } = machine({ cpuPageSize });
      const rows: [asked: number, got: number][] = [
        [64, cpuPageSize],
        [4096, Math.max(4096, cpuPageSize)],
        [cpuPageSize, cpuPageSize],
        [cpuPageSize + 1, 2 * cpuPageSize],
        [0x2_0000, 0x2_0000],
      ];
      for (const [asked, got] of rows) {
        const pfn = pages.allocPagesSz(asked);
        expect(pages.sizeOf(pfn), `${asked} of ${cpuPageSize}`).toBe(got);
        expect((pfn * 4096) % got).toBe(0);
        expect([pages.nrIommuPages(), pages.nrSecPageTablePages]).toEqual([got / cpuPageSize, got / cpuPageSize]);
        expect(pages.counters.secPageTablesKb()).toBe(got / 1024);
        pages.freePages(pfn);
        expect(pages.nrIommuPages()).toBe(0);
      }
    }
    expect(codeOf(() => machine({ cpuPageSize: 8192 as 4096 }))).toBe('EINVAL');
  });
});

describe.each(['host', 'overlay', 'memdesc'] as const)('parts of pages, layout %s', (layout) => {
  const make = (options: IommuPagesOptions = {}): ReturnType<typeof machine> =>
    machine({ layout, subPage: true, ...options });
  let memory: PhysicalMemory;
  let pages: IommuPages;
  beforeEach(() => {
    ({ memory, pages } = make());
  });

  test('sizes round up to a power of two from 64 bytes on, parts are aligned to it, and a page counts once', () => {
    const rows: [asked: number, got: number][] = [
      [1, 64],
      [64, 64],
      [65, 128],
      [1024, 1024],
      [1500, 2048],
      [2049, 4096],
      [4096, 4096],
      [5000, 8192],
    ];
    for (const [asked, got] of rows) {
      const pfn = pages.allocPagesSz(asked);
      expect(pages.sizeOf(pfn), `${asked} bytes`).toBe(got);
      expect(Number(addressOfPfn(pfn)) % got).toBe(0);
      expect(pages.nrIommuPages()).toBe(Math.max(1, got / 4096));
      pages.freePages(pfn);
      expect([pages.sizeOf(pfn), pages.nrIommuPages()]).toEqual([0, 0]);
    }
    const four = Array.from({ length: 4 }, () => pages.allocPagesSz(1024));
    expect(four.map((pfn) => pfn - four[0]!)).toEqual([0, 0.25, 0.5, 0.75]);
    expect(pages.nrSecPageTablePages).toBe(1);
    expect(pages.subPages).toEqual({ pages: 1, parts: 4, bytes: 4096 });
    for (const pfn of four.slice(1)) pages.freePages(pfn);
    expect(pages.nrSecPageTablePages).toBe(1);
    pages.freePages(four[0]!);
    expect([pages.nrSecPageTablePages, pages.allocations]).toEqual([0, rows.length + 4]);
  });

  test('4 KiB tables under a kernel with 64 KiB pages are sixteenths of one', () => {
    const big = make({ cpuPageSize: 65536 }).pages;
    const tables = Array.from({ length: 16 }, () => big.allocPagesSz(4096));
    expect([big.nrIommuPages(), big.counters.secPageTablesKb()]).toEqual([1, 64]);
    expect(tables.every((pfn) => Number.isInteger(pfn) && big.sizeOf(pfn) === 4096)).toBe(true);
    big.allocPagesSz(16384);
    expect(big.nrIommuPages()).toBe(2);
  });

  test('a part is zeroed, its neighbours are not; a freed one is poisoned when asked for', () => {
    const a = pages.allocPagesSz(256);
    const b = pages.allocPagesSz(256);
    memory.writeBytes(addressOfPfn(a), new Uint8Array(256).fill(0xaa));
    memory.writeBytes(addressOfPfn(b), new Uint8Array(256).fill(0xbb));
    pages.freePages(a);
    expect(memory.readBytes(addressOfPfn(a), 256)).toEqual(new Uint8Array(256).fill(0xaa));
    expect(pages.allocPagesSz(256)).toBe(a);
    expect(memory.readBytes(addressOfPfn(a), 256)).toEqual(new Uint8Array(256));
    expect(memory.readBytes(addressOfPfn(b), 256)).toEqual(new Uint8Array(256).fill(0xbb));
    pages.partPoison = { hi: 0x1234_5678, lo: -2 };
    pages.freePages(b);
    for (let at = 0n; at < 256n; at += 8n) {
      expect(memory.readU64(addressOfPfn(b) + at)).toBe(0x1234_5678_ffff_fffen);
    }
    expect(memory.readBytes(addressOfPfn(a), 256)).toEqual(new Uint8Array(256));
  });

  test('a part is freed once, by its first byte', () => {
    const keep = pages.allocPagesSz(64);
    const pfn = pages.allocPagesSz(1024);
    const page = Math.floor(pfn);
    expect(codeOf(() => pages.freePages(pfn + 0.125))).toBe('EINVAL');
    expect(messageOf(() => pages.freePages(pfn + 0.125))).toMatch(/inside/);
    expect(codeOf(() => pages.freePages(pfn + 1 / 128))).toBe('EINVAL');
    expect(codeOf(() => pages.freePages(page + 0.5))).toBe('EINVAL');
    pages.freePages(pfn);
    expect(codeOf(() => pages.freePages(pfn))).toBe('EINVAL');
    pages.freePages(keep);
    expect(codeOf(() => pages.freePages(keep))).toBe('EINVAL');
    // The first part gone, the page's own number is nobody's while another part lives.
    const first = pages.allocPagesSz(64);
    const second = pages.allocPagesSz(64);
    pages.freePages(first);
    expect(codeOf(() => pages.freePages(Math.floor(first)))).toBe('EINVAL');
    expect(pages.sizeOf(Math.floor(first))).toBe(0);
    pages.freePages(second);
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('whole blocks and parts on one list, in order, spliced and put', () => {
    const order = [64, 4096, 8192, 1024, 64, 4096];
    const made = order.map((size) => pages.allocPagesSz(size));
    const list = new IommuPagesList();
    for (const pfn of made) pages.listAdd(list, pfn);
    expect([list.length, list.empty]).toEqual([6, false]);
    expect(pages.listPages(list)).toEqual(made);
    expect(codeOf(() => pages.listAdd(list, made[0]!))).toBe('EBUSY');
    expect(codeOf(() => pages.freePages(made[3]!))).toBe('EBUSY');
    const front = new IommuPagesList();
    const more = [4096, 2048, 4096].map((size) => pages.allocPagesSz(size));
    for (const pfn of more) pages.listAdd(front, pfn);
    pages.listSplice(front, list);
    expect(pages.listPages(list)).toEqual([...more, ...made]);
    pages.putPagesList(list);
    expect([pages.nrIommuPages(), pages.subPages.parts]).toEqual([0, 0]);
    expect(codeOf(() => pages.putPagesList(list))).toBe('EINVAL');
  });

  test('groups and nodes are charged for their own pages only, and flags hold for parts', () => {
    pages.setMemcg(7);
    const a = pages.allocPagesNodeSz(1, 64, GFP.KERNEL_ACCOUNT);
    pages.setMemcg(8);
    const b = pages.allocPagesNodeSz(1, 64, GFP.KERNEL_ACCOUNT);
    expect(Math.floor(a)).not.toBe(Math.floor(b));
    expect([pages.nrIommuPages(1), pages.counters.memcgPages(7), pages.counters.memcgPages(8)]).toEqual([2, 1, 1]);
    pages.freePages(a);
    expect([pages.nrIommuPages(1), pages.counters.memcgPages(7), pages.counters.memcgPages(8)]).toEqual([1, 0, 1]);
    pages.freePages(b);
    expect(pages.allocPagesSz(64, GFP.HIGHMEM)).toBe(NO_PAGE);
    expect(pages.warnings.map(({ kind }) => kind)).toEqual(['highmem']);
  });

  test('incoherent parts are flushed where they lie', () => {
    const cleaned: [pfn: number, offset: number, length: number][] = [];
    pages.cacheMaintenance = { clean: (pfn, offset, length) => cleaned.push([pfn, offset, length]) };
    const first = pages.allocPagesSz(1024);
    const pfn = pages.allocPagesSz(1024);
    expect(pages.startIncoherent(pfn)).toBe(0);
    expect(cleaned.splice(0)).toEqual([[Math.floor(pfn), 1024, 1024]]);
    pages.flushIncoherent(pfn, 16, 8);
    expect(cleaned).toEqual([[Math.floor(pfn), 1040, 8]]);
    expect([pages.isIncoherent(first), pages.isIncoherent(pfn)]).toEqual([false, true]);
    pages.freeIncoherent(pfn);
    expect(pages.isIncoherent(pages.allocPagesSz(1024))).toBe(false);
  });
});

const op = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ op: fc.constant('alloc' as const), lg2: fc.integer({ min: 5, max: 17 }), node: fc.nat(1) }),
  },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('free' as const), which: fc.nat() }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('add' as const), which: fc.nat(), list: fc.nat(1) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('put' as const), list: fc.nat(1) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('rcu' as const), list: fc.nat(1) }) },
  { weight: 1, arbitrary: fc.constant({ op: 'splice' as const }) },
  { weight: 1, arbitrary: fc.constant({ op: 'run' as const }) },
);

test('against a model: parts and whole blocks, lists, grace periods; bytes and counters', () => {
  fc.assert(
    fc.property(
      fc.constantFrom('host' as const, 'overlay' as const, 'memdesc' as const),
      fc.constantFrom(4096 as const, 16384 as const, 65536 as const),
      fc.array(op, { maxLength: 100 }),
      (layout, cpuPageSize, sequence) => {
        const { memory, source, pages } = machine({ layout, cpuPageSize, subPage: true });
        const freeAtStart = source.freePages();
        /** Live blocks: number of first byte → bytes and mark. */
        const live = new Map<number, { bytes: number; mark: number }>();
        const lists = [new IommuPagesList('a'), new IommuPagesList('b')];
        const on: number[][] = [[], []];
        let waiting: number[] = [];
        let mark = 0;
        const check = (pfn: number): void => {
          const { bytes, mark: wanted } = live.get(pfn)!;
          const address = addressOfPfn(pfn);
          expect(pages.sizeOf(pfn)).toBe(bytes);
          expect(memory.readU64(address)).toBe(BigInt(wanted));
          expect(memory.readU64(address + BigInt(bytes) - 8n)).toBe(BigInt(wanted));
        };
        const gone = (pfns: readonly number[]): void => {
          for (const pfn of pfns) {
            expect(pages.sizeOf(pfn)).toBe(0);
            live.delete(pfn);
          }
        };
        const loose = (which: number): number | undefined => {
          const all = [...live.keys()].filter((pfn) => !on.flat().includes(pfn) && !waiting.includes(pfn));
          return all[which % Math.max(1, all.length)];
        };
        for (const step of sequence) {
          switch (step.op) {
            case 'alloc': {
              const size = 2 ** step.lg2 - (mark % 3);
              const pfn = pages.allocPagesNodeSz(step.node, size);
              if (pfn === NO_PAGE) break;
              const bytes = Math.max(64, 2 ** Math.ceil(Math.log2(size)));
              const address = addressOfPfn(pfn);
              expect(memory.readBytes(address, bytes).every((byte) => byte === 0)).toBe(true);
              expect(Number(address) % bytes).toBe(0);
              for (const [other, { bytes: length }] of live) {
                expect(pfn * 4096 + bytes <= other * 4096 || other * 4096 + length <= pfn * 4096).toBe(true);
              }
              mark++;
              live.set(pfn, { bytes, mark });
              memory.writeU64(address, BigInt(mark));
              memory.writeU64(address + BigInt(bytes) - 8n, BigInt(mark));
              break;
            }
            case 'free': {
              const pfn = loose(step.which);
              if (pfn === undefined) break;
              check(pfn);
              pages.freePages(pfn);
              gone([pfn]);
              break;
            }
            case 'add': {
              const pfn = loose(step.which);
              if (pfn === undefined) break;
              pages.listAdd(lists[step.list]!, pfn);
              on[step.list]!.push(pfn);
              break;
            }
            case 'put':
              on[step.list]!.forEach(check);
              pages.putPagesList(lists[step.list]!);
              lists[step.list]!.init();
              gone(on[step.list]!.splice(0));
              break;
            case 'rcu':
              pages.putPagesListRcu(lists[step.list]!);
              lists[step.list]!.init();
              waiting.push(...on[step.list]!.splice(0));
              break;
            case 'splice':
              pages.listSplice(lists[0]!, lists[1]!);
              lists[0]!.init();
              on[1]!.unshift(...on[0]!.splice(0));
              break;
            case 'run':
              waiting.forEach(check);
              pages.rcu.run();
              gone(waiting);
              waiting = [];
              break;
          }
          expect(pages.listPages(lists[0]!)).toEqual(on[0]);
          expect(pages.listPages(lists[1]!)).toEqual(on[1]);
          expect(pages.rcuPending).toBe(waiting.length);
          // A page counts once however many parts are in it.
          const counted = new Set<number>();
          for (const [pfn, { bytes }] of live) {
            for (let at = pfn; at < pfn + bytes / 4096; at += cpuPageSize / 4096) {
              counted.add(Math.floor((at * 4096) / cpuPageSize));
            }
          }
          expect(pages.nrSecPageTablePages).toBe(counted.size);
        }
        for (const pfn of live.keys()) check(pfn);
        for (const list of lists) pages.putPagesListRcu(list);
        const left = [...live.keys()].filter((pfn) => !on.flat().includes(pfn) && !waiting.includes(pfn));
        for (const pfn of left) pages.freePages(pfn);
        pages.rcu.run();
        expect([pages.nrSecPageTablePages, pages.subPages.parts, pages.rcuPending]).toEqual([0, 0, 0]);
        // Slab pages of the memdesc layout may stay.
        const slab = pages.descriptorUsage.slabBytes / 4096;
        expect(source.freePages()).toBe(freeAtStart - slab);
      },
    ),
    { numRuns: 300 },
  );
});
