/** What a caller, a handover or an exhausted machine must not be able to upset. */
import { beforeEach, describe, expect, test } from 'vitest';
import { BuddySource, FailingSource, IommuPages, IommuPagesList, NO_PAGE, PhysicalMemory, Rcu } from '../src/index.ts';
import type { Handover, IommuPagesOptions } from '../src/index.ts';
import { codeOf } from './code-of.ts';

const LAYOUTS = ['host', 'overlay', 'memdesc'] as const;

let memory: PhysicalMemory;
let source: BuddySource;
const make = (options: IommuPagesOptions = {}): IommuPages => new IommuPages(memory, source, options);
beforeEach(() => {
  memory = new PhysicalMemory([{ base: 0x10_0000n, size: 0x80_0000n }]);
  source = new BuddySource(memory);
});

const listOf = (pages: IommuPages, ...pfns: number[]): IommuPagesList => {
  const list = new IommuPagesList('of the test');
  for (const pfn of pfns) pages.listAdd(list, pfn);
  return list;
};

describe.each(LAYOUTS)('layout %s', (layout) => {
  test.each([false, true])('a fraction of a page that is no live part is nothing (subPage %s)', (subPage) => {
    const pages = make({ layout, subPage });
    const block = pages.allocPagesSz(4096);
    const free = source.freePages();
    for (const pfn of [
      block + 0.5,
      block + 1 / 64,
      block + 1 / 128,
      block + 1 / 3,
      block + 1.5,
      0.5,
      -1.5,
      NaN,
      Infinity,
    ]) {
      expect(pages.sizeOf(pfn), `${pfn}`).toBe(0);
      expect(
        codeOf(() => pages.freePages(pfn)),
        `${pfn}`,
      ).toBe('EINVAL');
      expect(
        codeOf(() => pages.listAdd(new IommuPagesList(), pfn)),
        `${pfn}`,
      ).toBe('EINVAL');
      expect(
        codeOf(() => pages.preserve(pfn)),
        `${pfn}`,
      ).toBe('EINVAL');
    }
    expect([pages.nrIommuPages(), source.freePages()]).toEqual([1, free]);
    pages.freePages(block);
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('a part freed twice is found out when its page is gone, and when the page is a whole block by now', () => {
    const pages = make({ layout, subPage: true });
    const first = pages.allocPagesSz(64);
    const second = pages.allocPagesSz(64);
    pages.freePages(second);
    pages.freePages(first);
    expect(codeOf(() => pages.freePages(second))).toBe('EINVAL');
    expect(pages.allocPagesSz(4096)).toBe(first);
    expect(codeOf(() => pages.freePages(second))).toBe('EINVAL');
    expect(pages.nrIommuPages()).toBe(1);
  });

  test('the blocks of a list that was put or spliced away can not be listed', () => {
    const pages = make({ layout });
    const list = listOf(pages, pages.allocPagesSz(4096), pages.allocPagesSz(4096));
    expect(pages.listPages(list)).toHaveLength(2);
    const to = new IommuPagesList('another');
    pages.listSplice(list, to);
    expect(codeOf(() => pages.listPages(list))).toBe('EINVAL');
    pages.putPagesList(to);
    expect(codeOf(() => pages.listPages(to))).toBe('EINVAL');
    list.init();
    expect(pages.listPages(list)).toEqual([]);
  });
});

describe('a handover that was tampered with', () => {
  const good = { pfn: 0x200, bytes: 4096, memcg: 0 };
  const block = (change: object): unknown => ({
    version: 1,
    blocks: [good, { pfn: 0x300, bytes: 4096, memcg: 0, ...change }],
  });
  test.each<[code: string, handover: unknown]>([
    ['EFORMAT', null],
    ['EFORMAT', { version: 1 }],
    ['EFORMAT', { version: '1', blocks: [] }],
    ['EFORMAT', { version: 1, blocks: [good, null] }],
    ['EFORMAT', { version: 1, blocks: [good, 7] }],
    ['EFORMAT', block({ bytes: '4096' })],
    ['EFORMAT', block({ bytes: 12288 })],
    ['EFORMAT', block({ bytes: Infinity })],
    ['EFORMAT', block({ pfn: '768' })],
    ['EFORMAT', block({ pfn: 768.5 })],
    ['EFORMAT', block({ memcg: -1 })],
    ['EFORMAT', block({ memcg: 0x1_0000 })],
    ['EALIGN', block({ pfn: 0x301, bytes: 8192 })],
    ['EALIGN', block({ bytes: 2 ** 44 })],
    ['ERANGE', block({ pfn: 1 })],
    ['EBUSY', block({ pfn: 0x200 })],
  ])('%s: %j, and the source has lost nothing', (code, handover) => {
    const free = source.freePages();
    expect(codeOf(() => make({ handover: handover as Handover }))).toBe(code);
    expect(source.freePages()).toBe(free);
    const pages = make({ handover: { version: 1, blocks: [good] } });
    expect(pages.restore(0x20_0000n)).toBe(0x200);
  });

  test('an address beyond 64 bits is not cut down to one that was preserved', () => {
    const pages = make({ handover: { version: 1, blocks: [good] } });
    expect(codeOf(() => pages.restore((1n << 64n) + 0x20_0000n))).toBe('ERANGE');
    expect(codeOf(() => pages.restore(-0x1000n))).toBe('ERANGE');
    expect(pages.restore(0x20_0000n)).toBe(0x200);
  });

  test('a block whose descriptor finds no memory is not lost: it can be restored later', () => {
    const handover: Handover = { version: 1, blocks: [good] };
    const pages = make({ layout: 'memdesc', handover });
    const taken: number[] = [];
    for (let pfn = source.alloc(0, 4096); pfn >= 0; pfn = source.alloc(0, 4096)) taken.push(pfn);
    expect(codeOf(() => pages.restore(0x20_0000n))).toBe('ENOMEM');
    expect([pages.unrestored, pages.nrIommuPages()]).toEqual([[good], 0]);
    source.free(taken.pop()!, 4096);
    expect(pages.restore(0x20_0000n)).toBe(0x200);
    expect([pages.unrestored, pages.nrIommuPages()]).toEqual([[], 1]);
    expect(codeOf(() => pages.restore(0x20_0000n))).toBe('EINVAL');
  });
});

test('after kexec not even the parts of a page are given out, freed or poisoned', () => {
  const pages = make({ subPage: true });
  const [a, b] = [pages.allocPagesSz(64), pages.allocPagesSz(64)];
  const list = listOf(pages, b);
  pages.partPoison = { hi: -1, lo: -1 };
  pages.kexec();
  const at = BigInt(Math.floor(a)) << 12n;
  for (let offset = 0n; offset < 256n; offset += 8n) memory.writeU64(at + offset, 0x55n);
  expect(codeOf(() => pages.allocPagesSz(64))).toBe('EINVAL');
  expect(codeOf(() => pages.freePages(a))).toBe('EINVAL');
  expect(codeOf(() => pages.putPagesListRcu(list))).toBe('EINVAL');
  expect(codeOf(() => pages.putPagesList(list))).toBe('EINVAL');
  for (let offset = 0n; offset < 256n; offset += 8n) expect(memory.readU64(at + offset)).toBe(0x55n);
});

test('parts share pages also on the node that helps out', () => {
  memory = new PhysicalMemory([
    { base: 0x10_0000n, size: 0x4000n, node: 0 },
    { base: 0x20_0000n, size: 0x4_0000n, node: 1 },
  ]);
  source = new BuddySource(memory);
  const pages = make({ subPage: true });
  for (let i = 0; i < 4; i++) expect(pages.allocPagesNodeSz(0, 4096)).toBeLessThan(0x200);
  const parts = Array.from({ length: 65 }, () => pages.allocPagesNodeSz(0, 64));
  expect(new Set(parts).size).toBe(65);
  expect(parts.every((pfn) => pfn >= 0x200)).toBe(true);
  expect(pages.subPages).toEqual({ pages: 2, parts: 65, bytes: 65 * 64 });
  expect([pages.nrIommuPages(0), pages.nrIommuPages(1), source.freePages(1)]).toEqual([4, 2, 62]);
  // Nor is a page needed to ask where there is one: with none left what is free in a page serves.
  pages.wrapSource((inner) => new FailingSource(inner, { from: 1 }));
  expect(pages.allocPagesNodeSz(0, 64)).not.toBe(NO_PAGE);
  for (const pfn of parts) pages.freePages(pfn);
  expect(pages.nrIommuPages(1)).toBe(1);
});

describe('grace periods', () => {
  test('an empty list put during one gets its own, and poll() tells', () => {
    const pages = make();
    const early = pages.rcu.readLock();
    const first = pages.putPagesListRcu(listOf(pages, pages.allocPagesSz(4096)));
    const late = pages.rcu.readLock();
    const second = pages.putPagesListRcu(new IommuPagesList());
    expect(pages.rcu.pending).toBe(true);
    pages.rcu.readUnlock(early);
    expect(pages.rcu.run()).toBe(false);
    expect([pages.rcu.poll(first), pages.rcu.poll(second)]).toEqual([true, false]);
    pages.rcu.readUnlock(late);
    expect(pages.rcu.run()).toBe(true);
    expect([pages.rcu.poll(second), pages.rcu.pending, pages.rcuPending]).toEqual([true, false, 0]);
  });

  test('a warning that is thrown while a batch is freed leaves nobody waiting for ever', () => {
    const rcu = new Rcu();
    const strict = make({ rcu, warn: 'throw', coherency: 'dma-api' });
    const other = make({ rcu });
    const [first, marked, last] = [strict.allocPagesSz(4096), strict.allocPagesSz(4096), strict.allocPagesSz(4096)];
    strict.startIncoherent(marked);
    strict.putPagesListRcu(listOf(strict, first, marked, last));
    other.putPagesListRcu(listOf(other, other.allocPagesSz(4096)));
    expect(codeOf(() => rcu.run())).toBe('EBUSY');
    expect([strict.rcuPending, strict.nrIommuPages()]).toEqual([2, 2]);
    expect(rcu.pending).toBe(true);
    expect(rcu.run()).toBe(true); // that warning comes once
    expect([strict.rcuPending, strict.nrIommuPages()]).toEqual([0, 0]);
    expect([other.rcuPending, other.nrIommuPages()]).toEqual([0, 0]);
    expect(rcu.pending).toBe(false);
  });
});
