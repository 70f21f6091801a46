/** The buddy allocator against a model that keeps a plain set of the pages in use. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BuddySource, PhysicalMemory } from '../src/index.ts';
import { codeOf } from './code-of.ts';

fc.configureGlobal({ seed: 20_261_123 });

/** Largest naturally aligned free block in pages, by looking at every page. */
const largestFree = (used: Set<number>, base: number, count: number): number => {
  for (let size = 2 ** 18; size >= 1; size /= 2) {
    for (let at = Math.ceil(base / size) * size; at + size <= base + count; at += size) {
      let free = true;
      for (let p = at; p < at + size && free; p++) free = !used.has(p);
      if (free) return size;
    }
  }
  return 0;
};

test('splits and merges: never overlapping, aligned, and refused only when no block fits', () => {
  // Ragged ends, so that the zone does not begin as one power of two.
  const zone = fc.record({ base: fc.integer({ min: 0, max: 40 }), count: fc.integer({ min: 1, max: 90 }) });
  const operation = fc.record({ free: fc.boolean(), order: fc.integer({ min: 0, max: 6 }), which: fc.nat() });
  fc.assert(
    fc.property(zone, fc.array(operation, { maxLength: 120 }), ({ base, count }, operations) => {
      const memory = new PhysicalMemory([{ base: BigInt(base) << 12n, size: BigInt(count) << 12n }]);
      const source = new BuddySource(memory);
      const used = new Set<number>();
      const live: { pfn: number; order: number }[] = [];
      for (const { free, order, which } of operations) {
        if (free && live.length > 0) {
          const [block] = live.splice(which % live.length, 1);
          source.free(block!.pfn, 4096 * 2 ** block!.order);
          for (let p = 0; p < 2 ** block!.order; p++) used.delete(block!.pfn + p);
        } else {
          const pages = 2 ** order;
          const pfn = source.alloc(0, 4096 * pages);
          if (pfn < 0) {
            // Merging is complete: a free aligned block of that size does not exist.
            expect(largestFree(used, base, count)).toBeLessThan(pages);
            continue;
          }
          expect(pfn % pages).toBe(0);
          expect(pfn >= base && pfn + pages <= base + count).toBe(true);
          for (let p = pfn; p < pfn + pages; p++) {
            expect(used.has(p)).toBe(false);
            used.add(p);
          }
          live.push({ pfn, order });
        }
        expect(source.freePages()).toBe(count - used.size);
      }
      for (const { pfn, order } of live) source.free(pfn, 4096 * 2 ** order);
      expect(source.freePages()).toBe(count);
      // All merged again: the largest block that ever fitted still does.
      const largest = largestFree(new Set(), base, count);
      expect(source.alloc(0, 4096 * largest)).toBeGreaterThanOrEqual(0);
    }),
    { numRuns: 300 },
  );
});

test('a reserved block is never handed out, and comes back by free', () => {
  const zone = fc.record({ base: fc.integer({ min: 0, max: 40 }), count: fc.integer({ min: 1, max: 90 }) });
  const block = fc.record({ at: fc.nat({ max: 130 }), order: fc.integer({ min: 0, max: 5 }) });
  fc.assert(
    fc.property(zone, fc.array(block, { maxLength: 12 }), fc.nat({ max: 60 }), ({ base, count }, wanted, taken) => {
      const memory = new PhysicalMemory([{ base: BigInt(base) << 12n, size: BigInt(count) << 12n }]);
      const source = new BuddySource(memory);
      const used = new Set<number>();
      const live: [number, number][] = [];
      for (let i = 0; i < taken && i < count; i++) {
        const pfn = source.alloc(0, 4096);
        used.add(pfn);
        live.push([pfn, 0]);
      }
      for (const { at, order } of wanted) {
        const pfn = Math.floor(at / 2 ** order) * 2 ** order;
        const all = Array.from({ length: 2 ** order }, (_, i) => pfn + i);
        const inside = all.every((p) => p >= base && p < base + count);
        const free = all.every((p) => !used.has(p));
        const code = codeOf(() => source.reserve(pfn, 4096 * 2 ** order));
        // Partly outside may be told either way; all inside must be told right.
        if (inside) expect(code).toBe(free ? 'nothing thrown' : 'EBUSY');
        else expect(code).toMatch(/ERANGE|EBUSY/);
        if (!inside || !free) continue;
        for (const p of all) used.add(p);
        live.push([pfn, order]);
      }
      expect(source.freePages()).toBe(count - used.size);
      const rest: number[] = [];
      for (let pfn = source.alloc(0, 4096); pfn >= 0; pfn = source.alloc(0, 4096)) rest.push(pfn);
      expect(rest.length).toBe(count - used.size);
      expect(rest.some((pfn) => used.has(pfn))).toBe(false);
      for (const pfn of rest) source.free(pfn, 4096);
      for (const [pfn, order] of live) source.free(pfn, 4096 * 2 ** order);
      expect(source.freePages()).toBe(count);
      expect(source.alloc(0, 4096 * largestFree(new Set(), base, count))).toBeGreaterThanOrEqual(0);
    }),
    { numRuns: 300 },
  );
});

describe('ranges', () => {
  const memory = new PhysicalMemory([
    { base: 0n, size: 0x10_0000n },
    { base: 0x10_0000n, size: 0x10_0000n, node: 2 },
    { base: 0x1_0000_0000n, size: 0x10_0000n, node: 1 },
  ]);

  test('lowest addresses first when fresh', () => {
    const source = new BuddySource(memory);
    expect([source.alloc(0, 4096), source.alloc(0, 4096), source.alloc(0, 8192)]).toEqual([0, 1, 2]);
  });

  test('only what was handed in, cut at range ends', () => {
    const source = new BuddySource(memory, [{ base: 0xf_0000n, size: 0x2_0000n }]);
    expect([source.freePages(), source.freePages(0), source.freePages(2)]).toEqual([32, 16, 16]);
    // The seam of two nodes is no block.
    expect(source.alloc(0, 0x2_0000)).toBe(-1);
    const got = new Set<number>();
    for (let pfn = source.alloc(2, 4096); pfn >= 0; pfn = source.alloc(2, 4096)) got.add(pfn);
    expect(got).toEqual(new Set(Array.from({ length: 32 }, (_, i) => 0xf0 + i)));
  });

  test('the nearest node helps out', () => {
    const source = new BuddySource(memory);
    while (source.freePages(1) > 0) expect(source.alloc(1, 4096)).toBeGreaterThanOrEqual(0x10_0000);
    expect(source.nodeOf(source.alloc(1, 4096))).not.toBe(1);
    expect([source.nodeOf(0), source.nodeOf(0x100), source.nodeOf(0x10_0000), source.nodeOf(2 ** 40)]).toEqual([
      0, 2, 1, 0,
    ]);
  });

  test('however far it is', () => {
    const far = new PhysicalMemory([
      { base: 0n, size: 0x1000n, node: 3 },
      { base: 0x10_0000n, size: 0x1000n, node: 900 },
    ]);
    const source = new BuddySource(far);
    expect([source.alloc(901, 4096), source.alloc(901, 4096), source.alloc(901, 4096)]).toEqual([0x100, 0, -1]);
  });

  test('distances between nodes, and a fallback order', () => {
    // Node 0 is nearer to 2 than to 1; nothing may go from 2 to 0.
    const distance = [
      [10, 30, 20],
      [30, 10, 25],
      [255, 20, 10],
    ];
    const source = new BuddySource(memory, undefined, { distance, fallback: { 1: [1, 0] } });
    expect([0, 1, 2, 5].map((node) => source.fallbackOf(node))).toEqual([
      [0, 2, 1],
      [1, 0],
      [2, 1],
      [2, 1, 0],
    ]);
    const nodesUntilEmpty = (from: number): number[] => {
      const seen: number[] = [];
      for (let pfn = source.alloc(from, 0x1_0000); pfn >= 0; pfn = source.alloc(from, 0x1_0000)) {
        seen.push(source.nodeOf(pfn));
      }
      return seen;
    };
    const sixteen = (node: number): number[] => Array.from({ length: 16 }, () => node);
    expect(nodesUntilEmpty(1)).toEqual([...sixteen(1), ...sixteen(0)]);
    expect([source.freePages(0), source.freePages(1), source.freePages(2)]).toEqual([0, 0, 256]);
    expect(nodesUntilEmpty(2)).toEqual(sixteen(2));
    source.free(0x10_0000, 0x1_0000);
    // Node 2 may help itself at node 1 by distance; not any more once it is bound to itself.
    source.setFallback(2, [2]);
    expect(source.alloc(2, 4096)).toBe(-1);
    expect(source.alloc(1, 4096)).toBe(0x10_0000);
  });

  test('a range far above 2^31 pages, longer than a zone', () => {
    const base = 1n << 50n;
    const huge = new PhysicalMemory([{ base, size: 3n << 40n }]);
    const first = Number((base + (1n << 40n) - 0x2000n) >> 12n);
    const source = new BuddySource(huge, [{ base: base + (1n << 40n) - 0x2000n, size: 0x6000n }]);
    expect([source.alloc(0, 8192), source.alloc(0, 8192)]).toEqual([first, first + 2]);
    source.free(first, 8192);
    source.reserve(first + 1, 4096);
    expect([source.alloc(0, 4096), source.freePages()]).toEqual([first, 2]);
  });

  test('refusals', () => {
    const overlap = [
      { base: 0x4000n, size: 0x4000n },
      { base: 0n, size: 0x5000n },
    ];
    expect(codeOf(() => new BuddySource(memory, overlap))).toBe('EADDRINUSE');
    expect(codeOf(() => new BuddySource(memory, [overlap[0]!, overlap[0]!]))).toBe('EADDRINUSE');
    expect(codeOf(() => new BuddySource(memory).reserve(1, 0x2000))).toBe('EALIGN');
    expect(codeOf(() => new BuddySource(memory).reserve(0, 0x3000))).toBe('EALIGN');
    expect(codeOf(() => new BuddySource(memory).reserve(0x200, 0x1000))).toBe('ERANGE');
    expect(codeOf(() => new BuddySource(memory, [{ base: 0x20_0000n, size: 0x1000n }]))).toBe('ERANGE');
    expect(codeOf(() => new BuddySource(memory, [{ base: 0x1f_f000n, size: 0x2000n }]))).toBe('ERANGE');
    expect(codeOf(() => new BuddySource(memory, [{ base: 0x800n, size: 0x1000n }]))).toBe('EALIGN');
    expect(codeOf(() => new BuddySource(memory, [{ base: 0n, size: 0n }]))).toBe('EALIGN');
    expect(codeOf(() => new BuddySource(memory, [{ base: 0n, size: 0x1000n }]).free(5, 4096))).toBe('EINVAL');
    expect(new BuddySource(memory).alloc(0, 2 ** 31)).toBe(-1);
  });
});
