/** The packing of parts into pages, against a model that is a list of intervals. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { NO_PART, PartMap } from '../src/part-map.ts';
import type { PartBacking } from '../src/part-map.ts';

fc.configureGlobal({ seed: 20_261_125 });

/** Pages of two nodes: node n begins at page n << 16. */
class Pages implements PartBacking {
  readonly taken = new Map<number, { node: number; group: number }>();
  readonly #free: number[][] = [[], []];
  constructor(pagePfns: number, count: number) {
    for (const node of [0, 1]) {
      for (let i = count - 1; i >= 0; i--) this.#free[node]!.push((node << 16) + i * pagePfns);
    }
  }
  takePage(node: number, group: number): number {
    const from = this.#free[node]!.length > 0 ? node : 1 - node;
    const pfn = this.#free[from]!.pop();
    if (pfn === undefined) return -1;
    this.taken.set(pfn, { node: from, group });
    return pfn;
  }
  givePage(pfn: number): void {
    expect(this.taken.delete(pfn), `page ${pfn}`).toBe(true);
    this.#free[this.nodeOf(pfn)]!.push(pfn);
  }
  nodeOf(pfn: number): number {
    return pfn >>> 16;
  }
}

describe('packing', () => {
  test('a page of 4 KiB holds 64 parts of 64 bytes, 4 of 1 KiB, or what makes it full', () => {
    for (const [size, count] of [
      [1, 64],
      [64, 64],
      [65, 32],
      [256, 16],
      [1024, 4],
      [1025, 2],
      [2048, 2],
    ] as const) {
      const pages = new Pages(1, 8);
      const map = new PartMap(pages, 12);
      const parts = Array.from({ length: count }, () => map.alloc(0, 0, size));
      expect(pages.taken.size, `${size}`).toBe(1);
      expect(map.parts).toBe(count);
      expect(map.bytes).toBe(4096);
      expect(new Set(parts.map((part) => map.pfn(part))).size).toBe(count);
      map.alloc(0, 0, size);
      expect(pages.taken.size, `${size}`).toBe(2);
    }
  });

  test('parts of different sizes share a page, and the smallest hole is taken', () => {
    const pages = new Pages(1, 8);
    const map = new PartMap(pages, 12);
    const kib = map.alloc(0, 0, 1024);
    const start = map.alloc(0, 0, 64);
    const half = map.alloc(0, 0, 2048);
    expect([kib, start, half].map((part) => map.pfn(part))).toEqual([0, 0.25, 0.5]);
    expect(pages.taken.size).toBe(1);
    map.free(kib);
    // 64, 128, 256 and 512 bytes are free behind the start table, 1 KiB before it.
    expect(map.pfn(map.alloc(0, 0, 100))).toBe(0.25 + 128 / 4096);
    expect(map.pfn(map.alloc(0, 0, 700))).toBe(0);
  });

  test('a page goes back with its last part, and not before', () => {
    const pages = new Pages(16, 4);
    const map = new PartMap(pages, 16);
    const parts = [4096, 64, 32_768, 16_384].map((size) => map.alloc(0, 0, size));
    expect(parts.map((part) => map.pfn(part))).toEqual([0, 1, 8, 4]);
    for (const part of [parts[2]!, parts[0]!, parts[1]!]) map.free(part);
    expect([pages.taken.size, map.pages, map.parts]).toEqual([1, 1, 1]);
    map.free(parts[3]!);
    expect([pages.taken.size, map.pages, map.parts, map.bytes]).toEqual([0, 0, 0, 0]);
  });

  test('nodes and groups do not share pages, but for want of any other', () => {
    const pages = new Pages(1, 1);
    const map = new PartMap(pages, 12);
    const a = map.alloc(0, 0, 64);
    const b = map.alloc(1, 0, 64);
    expect([map.pfn(a), map.pfn(b)]).toEqual([0, 0x1_0000]);
    expect(map.alloc(0, 5, 64)).toBe(NO_PART);
    // No page of node 0 is left: what fits is in the page of node 1.
    expect(map.pfn(map.alloc(0, 0, 2048))).toBe(0.5);
    expect(map.pfn(map.alloc(0, 0, 2048))).toBe(0x1_0000 + 0.5);
    expect(map.alloc(0, 0, 2048)).toBe(NO_PART);
  });

  test('an address finds its part', () => {
    const map = new PartMap(new Pages(4, 2), 14);
    const part = map.alloc(0, 0, 1024);
    const next = map.alloc(0, 0, 1024);
    expect([map.find(0), map.find(0.25), map.find(0.125), map.find(0.5), map.find(4)]).toEqual([
      part,
      next,
      NO_PART,
      NO_PART,
      NO_PART,
    ]);
    expect(map.find(0.001)).toBe(NO_PART);
    expect([map.owns(3.9), map.owns(4)]).toEqual([true, false]);
    expect([map.partOf(0.2), map.partOf(0.25), map.partOf(0.49), map.partOf(0.5), map.partOf(3)]).toEqual([
      part,
      next,
      next,
      NO_PART,
      NO_PART,
    ]);
    map.free(part);
    expect([map.find(0), map.partOf(0.2), map.partOf(0.3)]).toEqual([NO_PART, NO_PART, next]);
  });
});

interface Live {
  readonly part: number;
  readonly first: number;
  readonly bytes: number;
  readonly group: number;
}

test('against a model: no overlap, alignment, nothing leaks, and no fresh page while a hole fits', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(12, 14, 16),
      fc.array(
        fc.oneof(
          { weight: 3, arbitrary: fc.record({ size: fc.nat(), lg2: fc.nat(10), node: fc.nat(1), group: fc.nat(1) }) },
          { weight: 2, arbitrary: fc.nat() },
        ),
        { maxLength: 120 },
      ),
      (pageLg2, sequence) => {
        const pagePfns = 2 ** (pageLg2 - 12);
        const pageBytes = 2 ** pageLg2;
        const pages = new Pages(pagePfns, 6);
        const map = new PartMap(pages, pageLg2);
        const live: Live[] = [];
        /** True when an aligned hole of `bytes` is in a page of the node and group. */
        const fits = (bytes: number, node: number, group: number): boolean => {
          for (const [pfn, owner] of pages.taken) {
            if (owner.node !== node || owner.group !== group) continue;
            for (let at = 0; at < pageBytes; at += bytes) {
              const first = pfn * 4096 + at;
              if (live.every((l) => first + bytes <= l.first || l.first + l.bytes <= first)) return true;
            }
          }
          return false;
        };
        for (const step of sequence) {
          if (typeof step === 'number') {
            const [gone] = live.splice(step % Math.max(live.length, 1), 1);
            if (gone !== undefined) map.free(gone.part);
          } else {
            const size = Math.min(1 + (step.size % 2 ** (5 + step.lg2)), pageBytes / 2);
            const bytes = Math.max(64, 2 ** Math.ceil(Math.log2(size)));
            const before = pages.taken.size;
            const hole = fits(bytes, step.node, step.group);
            const part = map.alloc(step.node, step.group, size);
            if (part === NO_PART) {
              expect(pages.taken.size).toBe(12);
              expect(fits(bytes, 0, step.group) || fits(bytes, 1, step.group)).toBe(false);
              continue;
            }
            expect(pages.taken.size).toBe(hole || before === 12 ? before : before + 1);
            const first = map.pfn(part) * 4096;
            expect(first % bytes).toBe(0);
            expect(2 ** map.sizeLg2(part)).toBe(bytes);
            expect(map.find(map.pfn(part))).toBe(part);
            expect(map.group(part)).toBe(step.group);
            expect(map.node(part)).toBe(map.pfn(part) >>> 16);
            const page = Math.floor(map.pfn(part) / pagePfns) * pagePfns;
            expect(pages.taken.get(page)).toEqual({ node: map.node(part), group: step.group });
            for (const l of live) expect(first + bytes <= l.first || l.first + l.bytes <= first).toBe(true);
            live.push({ part, first, bytes, group: step.group });
          }
          const used = new Set(live.map(({ first }) => Math.floor(first / pageBytes)));
          expect(map.pages).toBe(used.size);
          expect(pages.taken.size).toBe(used.size);
          expect(map.parts).toBe(live.length);
          expect(map.bytes).toBe(live.reduce((sum, { bytes }) => sum + bytes, 0));
        }
        for (const { part } of live) map.free(part);
        expect([map.pages, map.parts, map.bytes, pages.taken.size]).toEqual([0, 0, 0, 0]);
      },
    ),
    { numRuns: 400 },
  );
});
