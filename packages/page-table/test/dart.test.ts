/** DART's own look-up against the walk, which reads entry by entry: two and three levels, several start tables, garbage. */
import { bit, bits } from '@iommu-ts/bits';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, it } from 'vitest';
import { PageTable, defineFormat } from '../src/index.ts';
import type { PageTableConfig } from '../src/index.ts';
import { ROOTS } from './local-formats.ts';

const BIG = { granuleLg2: 14, maxTopLevel: 2, maxRoots: 1, sizes: [{ lg2: 14 }] };
const ADDR = bits(37, 10);
const ONE = defineFormat({ ...ROOTS.definition, ...BIG, name: 'one root' });
const SHIFTED = defineFormat({
  ...ROOTS.definition,
  ...BIG,
  name: 'one root, shifted',
  leafLayout: { ADDR, W: bit(2), P: bit(0) },
  tableLayout: { ADDR, P: bit(0) },
  oa: ADDR,
  oaShift: 4,
  maxOas: 42,
});

const configs: readonly (readonly [string, number, PageTableConfig])[] = [
  ['four roots, two levels', 2, { format: ROOTS, ias: 32, oas: 36 }],
  ['two roots, two levels', 2, { format: ROOTS, ias: 31, oas: 36 }],
  ['one root, two levels', 2, { format: ONE, ias: 36, oas: 36 }],
  ['shifted, two levels', 2, { format: SHIFTED, ias: 32, oas: 42 }],
  ['shifted, three levels', 3, { format: SHIFTED, ias: 42, oas: 42 }],
];

/** A number below `below`, the same sequence in each run. */
const random = (seed: number): ((below: number) => number) => {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return Math.floor(((state >>> 0) / 2 ** 32) * below);
  };
};

describe.each(configs)('%s', (_name, levels, config) => {
  // The second base puts addresses of tables on both sides of a sign change of the low word.
  it.each([0x1_0000_0000n, 0x7f80_0000n])('memory at %i', (base) => {
    const far = base + 0x200_0000n;
    const memory = new PhysicalMemory([
      { base, size: 1n << 24n, kind: 'flat' },
      { base: far, size: 1n << 16n, kind: 'flat' },
    ]);
    for (let at = 0n; at < 0x1_0000n; at += 8n) memory.writeU64(far + at, 0x123_4001n + (at << 12n));
    const pages = new IommuPages(memory, new BuddySource(memory, [{ base, size: 1n << 24n }]));
    const table = new PageTable(pages, config);
    expect(table.topLevel + 1).toBe(levels);
    const next = random(7);
    const granule = table.granuleBytes;
    const span = 2 ** config.ias;
    const windows = [0, span / 4, span / 2 - 8 * granule, (span / 4) * 3, span - 600 * granule];
    const iovas = Array.from({ length: 300 }, () => windows[next(5)]! + next(600) * granule + next(granule));
    for (const iova of iovas.slice(0, 150)) {
      const page = Math.floor(iova / granule) * granule;
      const pa = next(2 ** config.oas / granule) * granule;
      const words = [Math.floor(page / 2 ** 32), page | 0, Math.floor(pa / 2 ** 32), pa | 0] as const;
      expect([0, -17]).toContain(table.map(...words, granule, 1 + next(3)));
    }
    let found = 0;
    const compare = (): void => {
      for (const iova of [...iovas, span, span * 2 + 5, 2 ** 52]) {
        const { pa } = table.walk(BigInt(iova));
        const quick = table.iovaToPhys(Math.floor(iova / 2 ** 32), iova | 0);
        expect(quick, `${iova}`).toBe(pa !== null);
        if (pa === null) continue;
        found++;
        const out = (BigInt(table.outHi >>> 0) << 32n) | BigInt(table.outLo >>> 0);
        expect([out, table.leafSizeLg2, table.leafLevel], `${iova}`).toEqual([pa, table.format.granuleLg2, 0]);
      }
    };
    compare();
    expect(found).toBeGreaterThanOrEqual(150);
    // One bit of an entry on the way turned over, or the entry led elsewhere: nothing, outside RAM, a table of leaves in another range.
    for (let round = 0; round < 25; round++) {
      const steps = table.walk(BigInt(iovas[next(300)]!)).steps.filter((step) => step.kind !== 'outside');
      const { entryPa, entry } = steps[next(steps.length)]!;
      const other = (config.format === SHIFTED ? far >> 4n : far) | 1n;
      memory.writeU64(entryPa, next(4) === 0 ? other : entry ^ (1n << BigInt(next(64))));
      compare();
      if (next(2) === 0) memory.writeU64(entryPa, entry);
    }
  });
});
