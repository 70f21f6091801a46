/** Reading tables that are there already: whatever a dump holds, nothing throws, and a walk ends. */
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, it } from 'vitest';
import { GatherRecord, PageTable } from '../src/index.ts';
import type { PageTableConfig } from '../src/index.ts';
import { CONFIGS, PLAIN } from './local-formats.ts';

const config: PageTableConfig = { format: PLAIN, ias: 48, oas: 52 };

describe.each(['sparse', 'flat'] as const)('%s memory', (kind) => {
  it.each(CONFIGS)('%s: the same leaves through a table opened over it', (_name, one) => {
    const memory = new PhysicalMemory([{ base: 0x1_0000_0000n, size: 1n << 24n, kind }]);
    const table = new PageTable(new IommuPages(memory, new BuddySource(memory)), one);
    const bytes = table.granuleBytes;
    expect(table.map(0, 0x30_0000, 0, 0x40_0000, 20 * bytes, 3)).toBe(0);
    const { roots } = table.geometry();
    const opened = PageTable.open(memory, one, roots);
    expect([...opened.leaves()]).toEqual([...table.leaves()]);
    expect([...opened.tables()]).toEqual([...table.tables()]);
    expect(opened.walk(0x30_0000n)).toEqual(table.walk(0x30_0000n));
    expect(() => opened.map(0, 0, 0, 0, bytes, 3)).toThrow(expect.objectContaining({ code: 'EOPNOTSUPP' }) as Error);
    expect(() => opened.unmap(0, 0x30_0000, bytes, new GatherRecord())).toThrow(
      expect.objectContaining({ code: 'EOPNOTSUPP' }) as Error,
    );
  });

  it('a table outside RAM is a step of the walk', () => {
    const memory = new PhysicalMemory([{ base: 0x1000n, size: 0x10_0000n, kind }]);
    memory.writeU64(0x1000n, 0xdead_0000_0001n);
    const table = PageTable.open(memory, config, 0x1000n);
    const { steps, pa } = table.walk(0n);
    expect(steps.map((step) => step.kind)).toEqual(['table', 'outside']);
    expect(steps[1]!.tablePa).toBe(0xdead_0000_0000n);
    expect(pa).toBeNull();
    expect(table.iovaToPhys(0, 0)).toBe(false);
    expect([...table.leaves()]).toEqual([]);
  });

  it('a root outside RAM', () => {
    const memory = new PhysicalMemory([{ base: 0x1000n, size: 0x10_0000n, kind }]);
    const table = PageTable.open(memory, config, 0x7777_0000_0000n);
    expect(table.walk(0n).steps.map((step) => step.kind)).toEqual(['outside']);
    expect(table.iovaToPhys(0, 0)).toBe(false);
    expect([...table.leaves()]).toEqual([]);
  });

  it('a table that points to itself: a walk ends at the lowest level, the leaves come one by one', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 0x10_0000n, kind }]);
    for (let i = 0n; i < 512n; i++) memory.writeU64(0x1000n + 8n * i, 0x1001n);
    const table = PageTable.open(memory, config, 0x1000n);
    expect(table.walk(0x1234n).steps.map((step) => step.kind)).toEqual(['table', 'table', 'table', 'leaf']);
    expect(table.iovaToPhys(0, 0x1234)).toBe(true);
    let seen = 0;
    for (const leaf of table.leaves()) {
      expect(leaf.pa).toBe(0x1000n);
      if (++seen === 1000) break;
    }
    expect(seen).toBe(1000);
  });

  it('garbage', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 0x10_0000n, kind }]);
    let state = 12345;
    for (let at = 0n; at < 0x8000n; at += 4n) {
      state = (Math.imul(state, 1103515245) + 12345) | 0;
      memory.write(at, 4, BigInt(state >>> 0));
    }
    for (const [, one] of CONFIGS) {
      const table = PageTable.open(memory, one, [0x1000n, 0x2000n, 0x3000n, 0x4000n].slice(0, one.format.maxRoots));
      for (let i = 0n; i < 64n; i++) {
        const { steps } = table.walk(i << 26n);
        expect(steps.length).toBeLessThanOrEqual(4);
      }
      let seen = 0;
      for (const leaf of table.leaves()) if (leaf.size > 0n && ++seen > 500) break;
    }
  });
});
