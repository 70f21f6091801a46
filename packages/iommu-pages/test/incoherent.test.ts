/** Walkers that do not snoop: start, flush and stop, and what goes wrong, in both behaviours. */
import { beforeEach, describe, expect, test } from 'vitest';
import { BuddySource, DMA_MAPPING_ERROR, IommuPagesList, NO_PAGE, PhysicalMemory } from '../src/index.ts';
import type { IommuPages, IommuPagesOptions } from '../src/index.ts';
import { codeOf } from './code-of.ts';
import { makePages } from './make-pages.ts';

let memory: PhysicalMemory;
let flushed: [pfn: number, offset: number, length: number][];
beforeEach(() => {
  memory = new PhysicalMemory([{ base: 0x1_0000_0000n, size: 0x40_0000n }]);
  flushed = [];
});

const make = (options: IommuPagesOptions = {}): IommuPages => {
  const pages = makePages(memory, new BuddySource(memory, [{ base: 0x1_0000_0000n, size: 0x40_0000n }]), options);
  pages.cacheMaintenance = { clean: (pfn, offset, length) => flushed.push([pfn, offset, length]) };
  return pages;
};

const listOf = (pages: IommuPages, blocks: readonly number[]): IommuPagesList => {
  const list = new IommuPagesList();
  for (const pfn of blocks) pages.listAdd(list, pfn);
  return list;
};

describe.each(['x86', 'dma-api'] as const)('%s', (coherency) => {
  test('start flushes the whole block, flush a part of it', () => {
    const pages = make({ coherency });
    const pfn = pages.allocPagesSz(0x4000);
    expect(pages.isIncoherent(pfn)).toBe(false);
    expect(pages.startIncoherent(pfn)).toBe(0);
    expect(pages.isIncoherent(pfn)).toBe(true);
    pages.flushIncoherent(pfn, 0x3ff8, 8);
    expect(flushed).toEqual([
      [pfn, 0, 0x4000],
      [pfn, 0x3ff8, 8],
    ]);
  });

  test('starting twice is -22 with a warning, and changes nothing', () => {
    const pages = make({ coherency });
    const pfn = pages.allocPagesSz(0x1000);
    pages.startIncoherent(pfn);
    expect(pages.startIncoherent(pfn)).toBe(-22);
    expect(pages.warnings.map((w) => [w.kind, w.pfn])).toEqual([['already-incoherent', pfn]]);
    expect([flushed.length, pages.dmaMappings]).toEqual([1, coherency === 'x86' ? 0 : 1]);
  });

  test('a list: one that is incoherent already is warned of and passed over', () => {
    const pages = make({ coherency });
    const blocks = [pages.allocPagesSz(0x1000), pages.allocPagesSz(0x2000), pages.allocPagesSz(0x1000)] as const;
    pages.startIncoherent(blocks[1]);
    const list = listOf(pages, blocks);
    expect(pages.startIncoherentList(list)).toBe(0);
    expect(pages.warnings.map((w) => [w.kind, w.pfn])).toEqual([['already-incoherent', blocks[1]]]);
    expect(blocks.map((pfn) => pages.isIncoherent(pfn))).toEqual([true, true, true]);
    expect(flushed.map(([pfn]) => pfn)).toEqual([blocks[1], blocks[0], blocks[2]]);
  });

  test('an incoherent block on a list is not freed by freeIncoherent, and stays incoherent', () => {
    const pages = make({ coherency });
    const pfn = pages.allocPagesSz(0x1000);
    pages.startIncoherent(pfn);
    listOf(pages, [pfn]);
    expect(codeOf(() => pages.freeIncoherent(pfn))).toBe('EBUSY');
    expect([pages.isIncoherent(pfn), pages.dmaMappings]).toEqual([true, coherency === 'x86' ? 0 : 1]);
  });

  test('null-safe, and misuse is found', () => {
    const pages = make({ coherency });
    pages.freeIncoherent(NO_PAGE);
    expect(codeOf(() => pages.startIncoherent(0x10_0000))).toBe('EINVAL');
    expect(codeOf(() => pages.freeIncoherent(0x10_0000))).toBe('EINVAL');
    expect(codeOf(() => pages.isIncoherent(0x10_0000))).toBe('EINVAL');
  });

  test('a block that is made again is coherent', () => {
    const pages = make({ coherency });
    const pfn = pages.allocPagesSz(0x1000);
    pages.startIncoherent(pfn);
    pages.freeIncoherent(pfn);
    expect(pages.allocPagesSz(0x1000)).toBe(pfn);
    expect(pages.isIncoherent(pfn)).toBe(false);
    expect([pages.warningCount, pages.dmaMappings]).toEqual([0, 0]);
  });

  test('parts of pages', () => {
    const pages = make({ coherency, subPage: true });
    const [a, b] = [pages.allocPagesSz(0x400), pages.allocPagesSz(0x400)];
    expect(b - a).toBe(0.25);
    expect(pages.startIncoherent(b)).toBe(0);
    expect([pages.isIncoherent(a), pages.isIncoherent(b)]).toEqual([false, true]);
    pages.flushIncoherent(b, 0x10, 8);
    // The CPU's caches know pages and bytes.
    expect(flushed).toEqual([
      [a, 0x400, 0x400],
      [a, 0x410, 8],
    ]);
    expect(pages.startIncoherent(b)).toBe(-22);
    const list = listOf(pages, [a, b]);
    pages.stopIncoherentList(list);
    pages.putPagesList(list);
    expect([pages.nrIommuPages(), pages.dmaMappings, pages.warningCount]).toEqual([0, 0, 1]);
  });
});

test('x86 leaves the mark: stop is nothing, and a marked block may be freed', () => {
  const pages = make({ coherency: 'x86' });
  const [a, b] = [pages.allocPagesSz(0x1000), pages.allocPagesSz(0x1000)];
  const list = listOf(pages, [a, b]);
  pages.startIncoherentList(list);
  pages.stopIncoherentList(list);
  expect([pages.isIncoherent(a), pages.isIncoherent(b)]).toEqual([true, true]);
  pages.putPagesList(list);
  const c = pages.allocPagesSz(0x1000);
  pages.startIncoherent(c);
  pages.freePages(c);
  expect([pages.nrIommuPages(), pages.warningCount]).toEqual([0, 0]);
});

describe('dma-api', () => {
  test('stop unmaps what was mapped, and only that', () => {
    const unmapped: [number, number][] = [];
    const dma = {
      map: (pfn: number) => pfn,
      unmap: (address: number, bytes: number) => unmapped.push([address, bytes]),
    };
    const pages = make({ coherency: 'dma-api', dma });
    const [a, b, c] = [0x1000, 0x4000, 0x1000].map((size) => pages.allocPagesSz(size)) as [number, number, number];
    pages.startIncoherent(b);
    pages.startIncoherent(c);
    const list = listOf(pages, [a, b, c]);
    expect(pages.dmaMappings).toBe(2);
    pages.stopIncoherentList(list);
    expect(unmapped).toEqual([
      [b, 0x4000],
      [c, 0x1000],
    ]);
    pages.stopIncoherentList(list);
    pages.putPagesList(list);
    expect([unmapped.length, pages.dmaMappings, pages.warningCount]).toEqual([2, 0, 0]);
  });

  test('a mapping error is -22 without a warning; the block stays coherent', () => {
    const pages = make({ coherency: 'dma-api', dma: { map: () => DMA_MAPPING_ERROR } });
    const pfn = pages.allocPagesSz(0x1000);
    expect([pages.startIncoherent(pfn), pages.isIncoherent(pfn), pages.warningCount]).toEqual([-22, false, 0]);
    expect([flushed, pages.dmaMappings]).toEqual([[], 0]);
    pages.freePages(pfn);
  });

  test('a DMA address that is not the physical one is -95 with a warning, and unmapped again', () => {
    const unmapped: [number, number][] = [];
    const dma = {
      map: (pfn: number) => pfn + 0x1000,
      unmap: (address: number, bytes: number) => unmapped.push([address, bytes]),
    };
    const pages = make({ coherency: 'dma-api', dma });
    const pfn = pages.allocPagesSz(0x2000);
    expect([pages.startIncoherent(pfn), pages.isIncoherent(pfn), pages.dmaMappings]).toEqual([-95, false, 0]);
    expect(pages.warnings.map(({ kind }) => kind)).toEqual(['dma-not-direct']);
    expect(unmapped).toEqual([[pfn + 0x1000, 0x2000]]);
  });

  test('a list that fails in the middle: what went before is the business of stopIncoherentList', () => {
    let calls = 0;
    const pages = make({ coherency: 'dma-api', dma: { map: (pfn) => (++calls === 3 ? DMA_MAPPING_ERROR : pfn) } });
    const blocks = Array.from({ length: 5 }, () => pages.allocPagesSz(0x1000));
    const list = listOf(pages, blocks);
    expect(pages.startIncoherentList(list)).toBe(-22);
    expect(blocks.map((pfn) => pages.isIncoherent(pfn))).toEqual([true, true, false, false, false]);
    expect([calls, pages.dmaMappings]).toEqual([3, 2]);
    pages.stopIncoherentList(list);
    expect(pages.dmaMappings).toBe(0);
    pages.putPagesList(list);
    expect([pages.nrIommuPages(), pages.warningCount]).toEqual([0, 0]);
  });

  test('a block that is freed while mapped: warned of once, and the mapping is lost', () => {
    const pages = make({ coherency: 'dma-api' });
    const [a, b] = [pages.allocPagesSz(0x1000), pages.allocPagesSz(0x1000)];
    pages.startIncoherent(a);
    pages.startIncoherent(b);
    pages.freePages(a);
    pages.putPagesList(listOf(pages, [b]));
    expect(pages.warnings.map((w) => [w.kind, w.pfn])).toEqual([['freed-incoherent', a]]);
    expect([pages.nrIommuPages(), pages.dmaMappings]).toEqual([0, 2]);
  });

  test('the kind of machine is one of two', () => {
    expect(codeOf(() => make({ coherency: 'arm' as 'x86' }))).toBe('EINVAL');
  });
});

test('a machine that snoops has nothing to flush', () => {
  const pages = make();
  pages.cacheMaintenance = null;
  const pfn = pages.allocPagesSz(0x1000);
  expect(pages.startIncoherent(pfn)).toBe(0);
  pages.flushIncoherent(pfn, 0, 8);
  expect(flushed).toEqual([]);
});
