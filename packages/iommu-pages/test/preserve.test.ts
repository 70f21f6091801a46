/** Table pages that outlive their kernel. */
import { beforeEach, describe, expect, test } from 'vitest';
import { ArenaSource, BuddySource, IommuPages, IommuPagesList, NO_PAGE, PhysicalMemory } from '../src/index.ts';
import type { Handover } from '../src/index.ts';
import { codeOf } from './code-of.ts';
import { makePages } from './make-pages.ts';

const RANGES = [
  { base: 0n, size: 0x10_0000n },
  { base: 0x1_0000_0000n, size: 0x10_0000n },
];
let memory: PhysicalMemory;
let pages: IommuPages;
beforeEach(() => {
  memory = new PhysicalMemory([RANGES[0]!, { ...RANGES[1]!, node: 1 }]);
  pages = makePages(memory, new BuddySource(memory, RANGES));
});

const address = (pfn: number): bigint => BigInt(pfn) << 12n;

/** The next kernel: nothing of the last one but memory and a text. */
const boot = (handover: Handover) => {
  const source = new BuddySource(memory, RANGES);
  const next = makePages(memory, source, { handover: JSON.parse(JSON.stringify(handover)) as Handover });
  return { source, next };
};

describe('across a kexec', () => {
  test('content, size, node and group survive; the rest is free', () => {
    pages.setMemcg(5);
    const top = pages.allocPagesNodeSz(1, 0x4000);
    pages.setMemcg(0);
    const lost = pages.allocPagesSz(0x1000);
    const leaf = pages.allocPagesSz(0x1000);
    memory.writeU64(address(top) + 0x3ff8n, 0x1122_3344_5566_7788n);
    memory.writeU64(address(leaf), 42n);
    pages.startIncoherent(leaf);
    pages.preserve(leaf);
    pages.preserve(top);
    expect([pages.isPreserved(top), pages.isPreserved(lost)]).toEqual([true, false]);

    const { source, next } = boot(pages.kexec());
    expect(next.unrestored).toEqual([
      { pfn: leaf, bytes: 0x1000, memcg: 0 },
      { pfn: top, bytes: 0x4000, memcg: 5 },
    ]);
    expect([next.nrIommuPages(), source.freePages(0), source.freePages(1)]).toEqual([0, 255, 252]);
    // Nothing that waits is handed out, even when memory runs out.
    const taken = new Set<number>();
    for (let pfn = next.allocPagesSz(0x1000); pfn !== NO_PAGE; pfn = next.allocPagesSz(0x1000)) taken.add(pfn);
    expect(taken.size).toBe(255 + 252);
    for (const pfn of [leaf, top, top + 1, top + 2, top + 3]) expect(taken.has(pfn)).toBe(false);
    expect(taken.has(lost)).toBe(true);
    for (const pfn of taken) next.freePages(pfn);

    expect([next.restore(address(leaf)), next.restore(address(top))]).toEqual([leaf, top]);
    expect([memory.readU64(address(top) + 0x3ff8n), memory.readU64(address(leaf))]).toEqual([
      0x1122_3344_5566_7788n,
      42n,
    ]);
    expect([next.sizeOf(top), next.sizeOf(leaf), next.unrestored]).toEqual([0x4000, 0x1000, []]);
    expect([next.nrIommuPages(0), next.nrIommuPages(1), next.counters.memcgPages(5)]).toEqual([1, 4, 4]);
    // The new kernel's mapping for the device is still to be made, and the next handover to be asked for.
    expect([next.isIncoherent(leaf), next.isPreserved(top)]).toEqual([false, false]);
    const list = new IommuPagesList();
    next.listAdd(list, top);
    next.putPagesList(list);
    next.freePages(leaf);
    expect([next.nrIommuPages(), next.counters.memcgPages(5), source.freePages()]).toEqual([0, 0, 512]);
  });

  test('twice in a row', () => {
    const pfn = pages.allocPagesSz(0x2000);
    memory.writeU64(address(pfn), 7n);
    pages.preserve(pfn);
    const second = boot(pages.kexec()).next;
    second.restore(address(pfn));
    second.preserve(pfn);
    const { next, source } = boot(second.kexec());
    next.restore(address(pfn));
    expect([memory.readU64(address(pfn)), next.nrIommuPages(), source.freePages()]).toEqual([7n, 2, 510]);
  });

  test('a list of tables in use: all or none, and it is released after', () => {
    const blocks = Array.from({ length: 5 }, () => pages.allocPagesSz(0x1000));
    const list = new IommuPagesList();
    for (const pfn of blocks) pages.listAdd(list, pfn);
    pages.preserve(blocks[3]!);
    expect(codeOf(() => pages.preserveList(list))).toBe('EBUSY');
    expect(blocks.map((pfn) => pages.isPreserved(pfn))).toEqual([false, false, false, true, false]);
    pages.unpreserve(blocks[3]!);
    pages.preserveList(list);
    expect(blocks.every((pfn) => pages.isPreserved(pfn))).toBe(true);
    pages.unpreserve(blocks[0]!);
    pages.unpreserveList(list);
    expect(blocks.some((pfn) => pages.isPreserved(pfn))).toBe(false);
    pages.preserveList(list);
    pages.listRelease(list);
    expect(pages.kexec().blocks.map(({ pfn }) => pfn)).toEqual(blocks);
  });

  test('what nobody restores goes back when the new kernel says so', () => {
    const [a, b] = [pages.allocPagesSz(0x1000), pages.allocPagesSz(0x8000)];
    pages.preserve(a);
    pages.preserve(b);
    const { source, next } = boot(pages.kexec());
    next.restore(address(a));
    expect([next.finishRestore(), source.freePages(), next.unrestored]).toEqual([8, 511, []]);
    expect(codeOf(() => next.restore(address(b)))).toBe('EINVAL');
    expect(next.finishRestore()).toBe(0);
  });
});

test.each(['host', 'overlay', 'memdesc'] as const)('descriptors within the memory they describe: %s', (layout) => {
  const old = new IommuPages(memory, new BuddySource(memory, RANGES), { layout });
  const blocks = [0x1000, 0x8000, 0x1000].map((size) => old.allocPagesSz(size));
  for (const pfn of blocks.slice(1)) old.preserve(pfn);
  const handover = old.kexec();
  const next = new IommuPages(memory, new BuddySource(memory, RANGES), { layout, handover });
  for (const pfn of blocks.slice(1)) expect(next.restore(address(pfn))).toBe(pfn);
  expect([next.nrIommuPages(), next.sizeOf(blocks[1]!)]).toEqual([9, 0x8000]);
  for (const pfn of blocks.slice(1)) next.freePages(pfn);
  expect(next.nrIommuPages()).toBe(0);
});

describe('misuse', () => {
  test('the old kernel', () => {
    const pfn = pages.allocPagesSz(0x4000);
    expect(codeOf(() => pages.unpreserve(pfn))).toBe('EINVAL');
    expect(codeOf(() => pages.preserve(pfn + 1))).toBe('EINVAL');
    pages.preserve(pfn);
    expect(codeOf(() => pages.preserve(pfn))).toBe('EBUSY');
    pages.freePages(pfn);
    expect(pages.warnings.map((w) => [w.kind, w.pfn])).toEqual([['freed-preserved', pfn]]);
    expect(pages.kexec()).toEqual({ version: 1, blocks: [] });
  });

  test('nothing can be done with an allocator whose kernel has ended', () => {
    const [a, b] = [pages.allocPagesSz(0x1000), pages.allocPagesSz(0x1000)];
    pages.preserve(a);
    pages.kexec();
    expect(codeOf(() => pages.allocPagesSz(0x1000))).toBe('EINVAL');
    expect(codeOf(() => pages.freePages(b))).toBe('EINVAL');
    expect(codeOf(() => pages.restore(address(a)))).toBe('EINVAL');
    expect(codeOf(() => pages.kexec())).toBe('EINVAL');
  });

  test('a grace period that ends after the kernel frees nothing', () => {
    const [a, b] = [pages.allocPagesSz(0x1000), pages.allocPagesSz(0x1000)];
    const reader = pages.rcu.readLock();
    for (const pfn of [a, b]) {
      const list = new IommuPagesList();
      pages.listAdd(list, pfn);
      pages.putPagesListRcu(list);
    }
    expect(pages.rcuPending).toBe(2);
    pages.kexec();
    pages.rcu.readUnlock(reader);
    pages.rcu.run();
    expect(pages.rcuPending).toBe(0);
  });

  test('restoring what was not preserved, twice, or from the middle', () => {
    const [a, b] = [pages.allocPagesSz(0x4000), pages.allocPagesSz(0x1000)];
    pages.preserve(a);
    expect(
      codeOf(() => pages.restore(address(a))),
      'before the kexec',
    ).toBe('EINVAL');
    const { next } = boot(pages.kexec());
    expect(codeOf(() => next.restore(address(b)))).toBe('EINVAL');
    expect(codeOf(() => next.restore(address(a + 1)))).toBe('EINVAL');
    expect(codeOf(() => next.restore(address(a) + 8n))).toBe('EINVAL');
    next.restore(address(a));
    expect(codeOf(() => next.restore(address(a)))).toBe('EINVAL');
    expect(next.nrIommuPages()).toBe(4);
    next.freePages(a);
    expect(
      codeOf(() => next.restore(address(a))),
      'after it was freed',
    ).toBe('EINVAL');
  });

  test('handovers that do not fit', () => {
    const block = { pfn: 0, bytes: 0x2000, memcg: 0 };
    const bad: [blocks: unknown, code: string][] = [
      ['no list', 'EFORMAT'],
      [[{ ...block, bytes: 0x3000 }], 'EFORMAT'],
      [[{ ...block, bytes: 0x800 }], 'EFORMAT'],
      [[{ ...block, pfn: 0.25 }], 'EFORMAT'],
      [[{ ...block, pfn: -1 }], 'EFORMAT'],
      [[{ ...block, pfn: 1 }], 'EALIGN'],
      [[{ ...block, pfn: 0x8_0000 }], 'ERANGE'],
      [[block, { ...block, pfn: 1, bytes: 0x1000 }], 'EBUSY'],
      [[block, block], 'EBUSY'],
    ];
    for (const [blocks, code] of bad) {
      const handover = { version: 1, blocks } as Handover;
      expect(
        codeOf(() => boot(handover)),
        JSON.stringify(blocks),
      ).toBe(code);
    }
    expect(codeOf(() => boot({ version: 2, blocks: [] } as unknown as Handover))).toBe('EFORMAT');
    const arena = new ArenaSource(memory, 0n);
    expect(codeOf(() => makePages(memory, arena, { handover: { version: 1, blocks: [block] } }))).toBe('EOPNOTSUPP');
    expect(codeOf(() => makePages(memory, arena, { handover: { version: 1, blocks: [] } }))).toBe('nothing thrown');
  });

  test('a kernel hands over whole pages', () => {
    const small = makePages(memory, new BuddySource(memory, [{ base: 0x1_0000_0000n, size: 0x10_0000n }]), {
      subPage: true,
    });
    const [part, whole] = [small.allocPagesSz(0x400), small.allocPagesSz(0x1000)];
    expect(codeOf(() => small.preserve(part))).toBe('EOPNOTSUPP');
    small.preserve(whole);
    expect(small.kexec().blocks.length).toBe(1);
  });
});
