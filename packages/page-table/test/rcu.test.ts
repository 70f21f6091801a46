/** Dumping a table while it changes: what a reader may see is not used again before it has ended. */
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { IommuPagesList } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { GatherRecord, PageTable } from '../src/index.ts';
import type { Leaf, PageTableConfig } from '../src/index.ts';
import { PLAIN } from './local-formats.ts';

const config: PageTableConfig = { format: PLAIN, ias: 48, oas: 52 };
const SPAN = 512 * 4096;
/** Where the two tables' mappings go: no leaf of the one can be taken for one of the other. */
const OWN = 0x1000_0000;
const FOREIGN = 0x7000_0000;

const machine = (): { pages: IommuPages; dumped: PageTable; other: PageTable } => {
  const memory = new PhysicalMemory([{ base: 0x1_0000_0000n, size: 1n << 24n }]);
  const pages = new IommuPages(memory, new BuddySource(memory));
  const dumped = new PageTable(pages, { ...config, pageSizes: 0x1000n });
  const other = new PageTable(pages, { ...config, pageSizes: 0x1000n });
  expect(dumped.map(0, 0, 0, OWN, 2 * SPAN, 3)).toBe(0);
  // Its upper tables are there: what it takes later are tables of leaves.
  expect(other.map(0, 8 * SPAN, 0, FOREIGN, 4096, 3)).toBe(0);
  return { pages, dumped, other };
};

/** Dumps half of the first table, has it unmapped and its tables freed by `free` and used by another domain, and goes on. */
const dumpAcross = (free: (pages: IommuPages, list: IommuPagesList) => void): { seen: Leaf[]; pages: IommuPages } => {
  const { pages, dumped, other } = machine();
  const dump = dumped.leaves();
  const seen: Leaf[] = [];
  for (let i = 0; i < 256; i++) seen.push(dump.next().value as Leaf);
  const gather = new GatherRecord();
  expect(dumped.unmap(0, 0, SPAN, gather)).toBe(SPAN);
  expect(gather.freelist.length).toBe(1);
  free(pages, gather.freelist);
  gather.reset();
  // The other domain takes what pages there are for its own tables.
  for (let i = 0; i < 4; i++) expect(other.map(0, i * SPAN, 0, FOREIGN + i * SPAN, SPAN, 3)).toBe(0);
  for (const leaf of dump) seen.push(leaf);
  return { seen, pages };
};

const foreign = (leaves: readonly Leaf[]): Leaf[] => leaves.filter(({ pa }) => pa >= BigInt(FOREIGN));

describe('a dump that goes on while its tables are freed', () => {
  test('with putPagesList it shows mappings that never were this table’s', () => {
    const { seen } = dumpAcross((pages, list) => pages.putPagesList(list));
    expect(foreign(seen)).toHaveLength(256);
  });

  test('with putPagesListRcu it does not, and the pages come free after it', () => {
    const { seen, pages } = dumpAcross((allocator, list) => {
      allocator.putPagesListRcu(list);
      // Not even when everything is run that may be.
      expect(allocator.rcu.run()).toBe(false);
    });
    expect(foreign(seen)).toEqual([]);
    // What was cleared is not shown, what stands is.
    expect(seen.map(({ iova }) => iova)).toEqual([
      ...Array.from({ length: 256 }, (_, i) => BigInt(i) * 0x1000n),
      ...Array.from({ length: 512 }, (_, i) => BigInt(SPAN + i * 4096)),
    ]);
    expect([pages.rcuPending, pages.rcu.readers]).toEqual([1, 0]);
    const before = pages.nrSecPageTablePages;
    expect(pages.rcu.run()).toBe(true);
    expect([pages.rcuPending, pages.nrSecPageTablePages]).toEqual([0, before - 1]);
  });
});

test('a dump is a reader from its first leaf to its end, also when it is left early', () => {
  const { pages, dumped } = machine();
  const { rcu } = pages;
  const dump = dumped.leaves();
  expect(rcu.readers).toBe(0);
  dump.next();
  expect(rcu.readers).toBe(1);
  for (const { level } of dumped.tables()) if (level === 0) break;
  expect(rcu.readers).toBe(1);
  dump.return(undefined);
  expect(rcu.readers).toBe(0);
  expect([...dumped.leaves()]).toHaveLength(1024);
  expect(rcu.readers).toBe(0);
  expect([...PageTable.open(dumped.memory, { ...config, pageSizes: 0x1000n }, dumped.root).leaves()]).toHaveLength(
    1024,
  );
});

test('a walk is a reader while it lasts, also when it throws', () => {
  const { pages, dumped } = machine();
  let most = 0;
  const { memory } = pages;
  const locate = memory.locate.bind(memory);
  memory.locate = (pfn, forWrite) => {
    most = Math.max(most, pages.rcu.readers);
    return locate(pfn, forWrite);
  };
  expect(dumped.walk(0x1000n).pa).toBe(BigInt(OWN + 0x1000));
  expect([most, pages.rcu.readers]).toEqual([1, 0]);
  expect(() => dumped.walk(1n << 64n)).toThrow(expect.objectContaining({ code: 'ERANGE' }) as Error);
  expect(pages.rcu.readers).toBe(0);
});

test('a whole table goes after a grace period, too', () => {
  const { pages, dumped, other } = machine();
  const dump = dumped.leaves();
  dump.next();
  const before = pages.nrSecPageTablePages;
  const gather = new GatherRecord();
  dumped.destroy(gather.freelist);
  pages.putPagesListRcu(gather.freelist);
  pages.rcu.run();
  expect(pages.nrSecPageTablePages).toBe(before);
  for (let i = 0; i < 4; i++) expect(other.map(0, i * SPAN, 0, FOREIGN + i * SPAN, SPAN, 3)).toBe(0);
  const rest = [...dump];
  expect(rest).toHaveLength(1023);
  expect(foreign(rest)).toEqual([]);
  pages.rcu.run();
  other.destroy();
  expect(pages.nrSecPageTablePages).toBe(0);
});
