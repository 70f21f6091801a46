import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { DRIVERS, loadDriver } from '../src/drivers.ts';
import { KERNEL, kernelFigure } from '../src/kernel-figures.ts';
import { measureRow } from '../src/measure.ts';
import { bulkRatios, iotlbRatio, ratioOf, representative, scaleRatios, singleRatios } from '../src/ratios.ts';
import { describeEnvironment, environment, kernelRows, kernelTable, ratioTable, rowTable } from '../src/report.ts';
import { LAYOUTS, fillRatio, pageRows } from '../src/page-rows.ts';
import { compare, comparison, median } from '../src/stats.ts';
import { systemRows } from '../src/system-rows.ts';
import { MIB, TINY, TableRig, sizeName, tableRows } from '../src/table-rows.ts';

const flat = (mib: number): PhysicalMemory => new PhysicalMemory([{ base: 0n, size: BigInt(mib * MIB), kind: 'flat' }]);

describe.each(Object.keys(DRIVERS))('%s', (name) => {
  test('the rows of every format run, each on tables of its own, and give every page back', async () => {
    const harness = await loadDriver(name);
    const memory = flat(128);
    for (const variant of harness.formats) {
      const granule = sizeName(new TableRig(memory, variant.config).granuleLg2);
      const rows = tableRows(memory, variant, TINY);
      expect(rows.map((r) => r.name)).toEqual([
        `map-${granule}`,
        `unmap-${granule}`,
        `map-256x${granule}`,
        `unmap-256x${granule}`,
        `map-1g-of-${granule}`,
        expect.stringMatching(/^map-(2m|32m|512m|2m-of-\d+k)$/),
        'iova-to-phys-64m',
        'iova-to-phys-1g',
      ]);
      for (const made of rows) {
        const { row, rig } = made.make();
        expect(row.name).toBe(made.name);
        for (let i = 0; i < 2; i++) expect(row.pass(), `${variant.name} ${row.name}`).toBeGreaterThan(0);
        rig.release();
        expect(rig.pages.nrSecPageTablePages).toBe(0);
      }
    }
  });

  test('the rows of the system run', async () => {
    const harness = await loadDriver(name);
    const memory = flat(64);
    for (const made of systemRows(memory, harness, TINY)) {
      const { row, rig } = made.make();
      const { hits, misses } = rig.system.hardware.iotlb;
      for (let i = 0; i < 2; i++) expect(row.pass(), row.name).toBeGreaterThan(0);
      const { iotlb, stats } = rig.system.hardware;
      expect(stats.faults).toBe(0);
      // The row does what its name says.
      if (row.name === 'translate-hit') expect(iotlb.hits - hits).toBeGreaterThan(row.ops);
      if (row.name === 'translate-walk') expect(stats.walks).toBeGreaterThanOrEqual(2 * row.ops);
      if (row.name === 'translate-miss') expect(iotlb.misses - misses).toBeGreaterThan(0);
      if (row.name === 'map-sync-unmap-strict') expect(stats.invalidations).toBeGreaterThanOrEqual(2 * row.ops);
      rig.release();
      expect(rig.system.pages.nrSecPageTablePages).toBe(0);
    }
  });

  test('the ratios are taken', async () => {
    const harness = await loadDriver(name);
    const variant = representative(harness);
    const memory = flat(128);
    const ratios = [
      ...singleRatios(memory, variant, TINY, 2),
      ...bulkRatios(memory, variant, TINY, 2),
      ...scaleRatios(memory, variant, TINY, 2),
      iotlbRatio(harness, TINY, 2),
    ];
    expect(ratios).toHaveLength(10);
    for (const r of ratios) {
      expect(r.ratio, r.name).toBeGreaterThan(0);
      expect(r.rounds).toBe(2);
      expect(ratioTable(ratios)).toContain(r.name);
    }
  });
});

describe.each(LAYOUTS)('iommu-pages, layout %s', (layout) => {
  test('the rows run and give every page back; a full allocator is compared with an empty one', () => {
    const memory = flat(64);
    const names = pageRows(memory, layout, TINY).map((made) => {
      const { row, rig } = made.make();
      for (let i = 0; i < 2; i++) expect(row.pass(), row.name).toBeGreaterThan(0);
      rig.release();
      return row.name;
    });
    expect(names).toEqual(['alloc-free-4k', 'alloc-list-512', 'alloc-free-1k', 'alloc-free-64']);
    expect(fillRatio([flat(24), flat(24)], layout, TINY, 2)).toMatchObject({ target: 1.5, rounds: 2 });
  });
});

describe('figures', () => {
  test('a ratio without a target passes and shows no verdict', () => {
    const factor = ratioOf('check on / off', 's', null, comparison([20], [1]));
    expect(factor.pass).toBe(true);
    expect(ratioTable([factor])).not.toMatch(/pass|MISS/);
  });

  test('median, rounds by turns, ratio of each round', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    const order: string[] = [];
    const side = (label: string, ns: number) => () => (order.push(label), ns);
    expect(compare(side('a', 6), side('b', 3), 3, 1)).toEqual({ ratio: 2, a: 6, b: 3, rounds: 3 });
    expect(order.join('')).toBe('ababababbababaababab');
    const falling = [9, 5, 7];
    expect(
      compare(
        () => falling.shift()!,
        () => 1,
        1,
        0,
      ).a,
    ).toBe(5);
    // The median of the ratios, not the ratio of the medians.
    expect(comparison([1, 2, 30], [1, 1, 10]).ratio).toBe(2);
    expect(ratioOf('r', 's', 2, comparison([2], [1])).pass).toBe(true);
    expect(ratioOf('r', 's', 2, comparison([2.01], [1])).pass).toBe(false);
  });

  test('sizes by name', () => {
    expect([12, 14, 16, 21, 25, 29, 30].map(sizeName)).toEqual(['4k', '16k', '64k', '2m', '32m', '512m', '1g']);
  });

  test("the kernel's figures stand beside the rows that do the same", () => {
    expect(kernelFigure('vtdss-48', 'map-4k')).toBe(20.1);
    expect(kernelFigure('vtdss-48', 'unmap-256x4k')).toBe(0.9);
    expect(kernelFigure('vtdss-48', 'iova-to-phys-1g')).toBe(33.8);
    expect(kernelFigure('dart1-16k-36-36', 'map-2m-of-16k')).toBeNull();
    expect(kernelFigure('vtdss-48', 'translate-hit')).toBeNull();
    expect(kernelFigure('no-such-format', 'map-4k')).toBeNull();
  });

  test('every format of the kernel table is a format of some driver', async () => {
    const formats = new Set<string>();
    for (const name of Object.keys(DRIVERS)) for (const f of (await loadDriver(name)).formats) formats.add(f.name);
    for (const name of Object.keys(KERNEL)) expect(formats, name).toContain(name);
  });

  test('a measured row and its tables', async () => {
    let passes = 0;
    const row = { name: 'map-4k', ops: 10, per: 'call' as const, pass: () => (passes++, 200) };
    const result = await measureRow('intel-vtd', 'vtdss-48', row, 1, 5);
    expect(result).toMatchObject({ row: 'map-4k', ns: 20, min: 20, p25: 20, p75: 20, ops: 10, passes: 5 });
    expect(passes).toBeGreaterThanOrEqual(8);
    expect(rowTable([result])).toMatch(/intel-vtd.*vtdss-48.*map-4k.*20\.0/);
    const kernel = kernelRows([result]);
    expect(kernel).toEqual([{ format: 'vtdss-48', row: 'map-4k', ns: 20, kernelNs: 20.1, ratio: 20 / 20.1 }]);
    expect(kernelTable(kernel)).toContain('AMD Zen 5');
  });

  test('the environment names machine, Node and commit', () => {
    const e = environment();
    expect(e.node).toBe(process.version);
    expect(e.commit).toMatch(/^([0-9a-f]{40}|unknown)$/);
    expect(describeEnvironment(e)).toContain(process.version);
  });
});
