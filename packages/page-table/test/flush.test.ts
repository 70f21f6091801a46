/**
 * Incoherent walkers: a device that sees memory only as it was at the last flush of each line must see the same tables.
 * The shadow below is that device's view; every operation must leave no written entry behind.
 */
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, it } from 'vitest';
import { GatherRecord, PageTable } from '../src/index.ts';
import { CONFIGS } from './local-formats.ts';

describe.each(CONFIGS)('%s', (_name, config) => {
  it.each(['sparse', 'flat'] as const)('%s memory: all that is written is flushed', (kind) => {
    const memory = new PhysicalMemory([{ base: 0x1_0000_0000n, size: 1n << 24n, kind }]);
    const pages = new IommuPages(memory, new BuddySource(memory));
    const shadow = new PhysicalMemory([{ base: 0x1_0000_0000n, size: 1n << 24n }]);
    let flushed = 0;
    const table = new PageTable(pages, {
      ...config,
      incoherent: true,
      flush: (pfn, offset, bytes) => {
        flushed += bytes;
        const at = BigInt(pfn) * 4096n + BigInt(offset);
        shadow.writeBytes(at, memory.readBytes(at, bytes));
      },
    });
    const check = (what: string): void => {
      for (const { pa, bytes, level } of table.tables()) {
        const [have, seen] = [memory.readBytes(pa, bytes), shadow.readBytes(pa, bytes)];
        expect(Buffer.compare(have, seen), `${what}: level ${level} at 0x${pa.toString(16)}`).toBe(0);
      }
    };
    const gather = new GatherRecord();
    const size = table.granuleBytes;
    const block = Number(table.pageSizes & -table.pageSizes) * 512;
    check('fresh');
    expect(table.map(0, 0, 0, 0, size, 3)).toBe(0);
    check('one page, new tables');
    expect(table.map(0, size, 0, size, size, 3)).toBe(0);
    check('one page, table present');
    expect(table.map(0, 16 * size, 0, 3 * size, 1200 * size, 3)).toBe(0);
    check('a run over table ends');
    expect(table.map(0, 8 * size, 0, 0, 64 * size, 3)).toBeLessThan(0);
    check('a run that meets a leaf');
    expect(table.unmap(0, size, size, gather)).toBe(size);
    check('one page unmapped');
    expect(table.unmap(0, 16 * size, 1200 * size, gather)).toBe(1200 * size);
    check('a run unmapped');
    pages.putPagesList(gather.freelist);
    gather.reset();
    if (table.pageSizes !== BigInt(size)) {
      expect(table.map(0, 4 * block, 0, 4 * block, block, 3)).toBe(0);
      check('blocks');
      expect(table.unmap(0, 4 * block, block, gather)).toBe(block);
      check('blocks unmapped');
    }
    expect(flushed).toBeGreaterThan(0);
  });

  it('without `incoherent` nothing is called', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 1n << 24n }]);
    const pages = new IommuPages(memory, new BuddySource(memory));
    let called = 0;
    const table = new PageTable(pages, { ...config, flush: () => void called++ });
    expect(table.map(0, 0, 0, 0, table.granuleBytes, 3)).toBe(0);
    expect(called).toBe(0);
  });
});
