import { describe, expect, test } from 'vitest';
import { passes } from '../src/suite/driver-suite.ts';
import { sameBytes } from '../src/suite/driver/rig.ts';
import { Random, ReferenceModel, driverCases, staleSkips } from '../src/suite/index.ts';

const model = (): ReferenceModel => {
  const m = new ReferenceModel(0x1000n);
  m.map(0x4000n, 0x9000n, 0x3000n, 3);
  return m;
};

describe('the reference model', () => {
  test('translates what was mapped, to the byte', () => {
    expect(model().translate(0x4000n)).toMatchObject({ address: 0x9000n, prot: 3 });
    expect(model().translate(0x6fffn)).toMatchObject({ address: 0xbfffn });
    expect(model().translate(0x3fffn)).toBeNull();
    expect(model().translate(0x7000n)).toBeNull();
  });
  test('an unmap stops at the first hole', () => {
    const m = model();
    expect(m.unmap(0x5000n, 0x1000n)).toBe(0x1000n);
    expect(m.unmap(0x4000n, 0x3000n)).toBe(0x1000n);
    expect(m.translate(0x6000n)).not.toBeNull();
    expect(m.unmap(0x5000n, 0x3000n)).toBe(0n);
    expect(m.pages.size).toBe(1);
  });
  test('knows how far a map gets', () => {
    expect(model().freeBytes(0x2000n, 0x4000n)).toBe(0x2000n);
    expect(model().freeBytes(0x7000n, 0x4000n)).toBe(0x4000n);
    expect(model().freeBytes(0x4000n, 0x1000n)).toBe(0n);
    expect(() => model().map(0x3000n, 0n, 0x2000n, 3)).toThrow(/0x4000 is mapped already/);
  });
});

describe('the suite', () => {
  test('has the cases that it promises, each once', () => {
    const names = driverCases.map((c) => c.name);
    expect(new Set(names).size).toBe(names.length);
    for (const name of [
      'map_simple',
      'map_table_to_oa',
      'unmap_split',
      'random_map',
      'pgsize_boundary',
      'mixed',
      'increase_level',
    ]) {
      expect(names).toContain(name);
    }
    expect(names.length).toBeGreaterThan(30);
  });
  test('a skip that names no case is found', () => {
    expect(staleSkips(driverCases, { map_simple: 'why' })).toEqual([]);
    expect(staleSkips(driverCases, { map_simpel: 'why' })).toEqual(['map_simpel']);
  });
  test('a skipped case that would pass is told from one that fails', () => {
    expect(passes(() => {})).toBe(true);
    expect(passes(() => expect(1).toBe(2))).toBe(false);
  });
  test('bytes that differ are found, and bytes that are missing', () => {
    const want = Uint8Array.of(1, 2, 3);
    sameBytes(Uint8Array.of(1, 2, 3), want, 'same');
    for (const got of [Uint8Array.of(1, 2, 4), Uint8Array.of(1, 2), Uint8Array.of(1, 2, 3, 4), null]) {
      expect(() => sameBytes(got, want, 'other')).toThrow();
    }
  });
});

test('random numbers are the same everywhere', () => {
  const a = new Random(42);
  // mulberry32 with seed 42, as published.
  expect([a.next(), a.next(), a.next()]).toEqual([2581720956, 1925393290, 3661312704]);
  for (let i = 0; i < 1000; i++) expect(a.below(7)).toBeLessThan(7);
  expect(new Set(Array.from({ length: 200 }, () => a.below(2 ** 40))).size).toBe(200);
});
