/** Blocks map and unmap in the table that the last one used; a table that is freed must be forgotten. */
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { expect, it } from 'vitest';
import { GatherRecord, PageTable, X86_64_4LEVEL } from '../src/index.ts';

it('a freed table is not written again', () => {
  const memory = new PhysicalMemory([{ base: 0n, size: 1n << 24n, kind: 'flat' }]);
  const pages = new IommuPages(memory, new BuddySource(memory));
  const table = new PageTable(pages, { format: X86_64_4LEVEL, ias: 48, oas: 46, pageSizes: 0x20_1000n });
  const gather = new GatherRecord();
  const block = 2 ** 21;
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 512; i++) expect(table.map(0, i * block, 1, i * block, block, 3, gather)).toBe(0);
    expect(table.unmap(0, 0, 2 ** 30, gather)).toBe(2 ** 30);
    expect(gather.freelist.length).toBe(1);
    pages.putPagesList(gather.freelist);
    gather.reset();
    expect(table.map(0, 3 * block, 1, 5 * block, block, 3, gather)).toBe(0);
    expect(table.walk(BigInt(3 * block)).pa).toBe(0x1_0000_0000n + BigInt(5 * block));
    // The same place one table further is another place, and what is not one block is none.
    expect(table.walk(BigInt(3 * block + 2 ** 30)).pa).toBeNull();
    expect(table.map(0, 3 * block, 1, 0, block, 3, gather)).toBe(-98);
    expect(table.map(0, 0, 1, 0, 0, 3, gather)).toBe(-22);
    expect(table.unmap(0, 3 * block, block, gather)).toBe(block);
    expect(table.unmap(0, 3 * block, block, gather)).toBe(0);
    expect(gather.freelist.length).toBe(0);
    gather.reset();
  }
});
