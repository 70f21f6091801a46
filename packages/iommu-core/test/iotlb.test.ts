import { PerformanceObserver } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Iotlb } from '../src/iotlb.ts';
import type { IotlbMode } from '../src/iotlb.ts';

const hi = (v: bigint): number => Number(BigInt.asIntN(32, v >> 32n));
const lo = (v: bigint): number => Number(BigInt.asIntN(32, v));
const join = (h: number, l: number): bigint => (BigInt(h >>> 0) << 32n) | BigInt(l >>> 0);
const base = (v: bigint, sizeLg2: number): bigint => v & ~((1n << BigInt(sizeLg2)) - 1n);

interface Entry {
  readonly tag: number;
  readonly page: bigint;
  readonly sizeLg2: number;
  readonly out: bigint;
  readonly perm: number;
  readonly extra: number;
}

/** What an IOTLB that forgets nothing would hold. */
class Model {
  readonly entries = new Map<string, Entry>();
  put(e: Entry): void {
    this.entries.set(`${e.tag}/${e.page}/${e.sizeLg2}`, e);
  }
  covering(tag: number, iova: bigint): Entry[] {
    return [...this.entries.values()].filter((e) => e.tag === tag && base(iova, e.sizeLg2) === e.page);
  }
  drop(which: (e: Entry) => boolean): number {
    let dropped = 0;
    for (const [key, e] of this.entries) {
      if (!which(e)) continue;
      this.entries.delete(key);
      dropped++;
    }
    return dropped;
  }
}

/** Tag 1, and the IOVA of a page. */
const at = (page: number): [number, number, number] => [1, 0, page << 12];

const overlaps = (e: Entry, startPfn: number, lastPfn: number): boolean => {
  const first = e.page >> 12n;
  const last = first + (1n << BigInt(e.sizeLg2 - 12)) - 1n;
  return first <= BigInt(lastPfn) && last >= BigInt(startPfn);
};

// Few bases and tags, so that entries meet; high bits, so that both words matter; a tag beyond 32 bits.
const tags = [0, 1, 7, 0x7fff_ffff, 0x8000_0000, 2 ** 40 + 7, 2 ** 53 - 1];
const bases = [0n, 0x10_0000_0000n, 0xffff_8000_0000_0000n, 0x7fff_ffff_f000n];
const iovas = fc
  .tuple(fc.constantFrom(...bases), fc.nat(600), fc.nat(4095))
  .map(([b, page, offset]) => BigInt.asUintN(64, b + BigInt(page) * 4096n + BigInt(offset)));
const operation = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant('fill' as const),
      tag: fc.constantFrom(...tags),
      iova: iovas,
      sizeLg2: fc.oneof(fc.constantFrom(12, 12, 16, 21), fc.integer({ min: 12, max: 40 })),
      out: fc.bigInt({ min: 0n, max: (1n << 56n) - 1n }),
      perm: fc.integer({ min: 0, max: 15 }),
      extra: fc.integer(),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({ op: fc.constant('lookup' as const), tag: fc.constantFrom(...tags), iova: iovas }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('range' as const),
      tag: fc.constantFrom(...tags),
      iova: iovas,
      pages: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 700 })),
    }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('tag' as const), tag: fc.constantFrom(...tags) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('where' as const), odd: fc.boolean(), iova: iovas }) },
);

const play = (mode: IotlbMode, sets: number, ways: number): void => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 120 }), (operations) => {
      const tlb = new Iotlb({ mode, sets, ways });
      const model = new Model();
      for (const o of operations) {
        if (o.op === 'fill') {
          tlb.fill(o.tag, hi(o.iova), lo(o.iova), o.sizeLg2, hi(o.out), lo(o.out), o.perm, o.extra);
          if (mode !== 'none') {
            const page = base(o.iova, o.sizeLg2);
            model.put({ ...o, page, out: base(o.out, o.sizeLg2) });
            // What was filled last is there, whatever was evicted for it.
            expect(tlb.lookup(o.tag, hi(o.iova), lo(o.iova))).toBe(true);
          }
        } else if (o.op === 'lookup') {
          const want = model.covering(o.tag, o.iova);
          const [hits, misses] = [tlb.hits, tlb.misses];
          const hit = tlb.lookup(o.tag, hi(o.iova), lo(o.iova));
          expect([tlb.hits - hits, tlb.misses - misses]).toEqual(hit ? [1, 0] : [0, 1]);
          if (mode !== 'sized') expect(hit).toBe(want.length > 0);
          if (hit) {
            const e = want.find((w) => w.sizeLg2 === tlb.sizeLg2)!;
            expect(e).toBeDefined();
            expect(join(tlb.outHi, tlb.outLo)).toBe(e.out | (o.iova - e.page));
            expect([tlb.perm, tlb.extra]).toEqual([e.perm, e.extra]);
          }
        } else {
          const before = tlb.size;
          const counted = tlb.invalidated;
          let dropped: number;
          let modelDropped: number;
          if (o.op === 'range') {
            const start = Number(o.iova >> 12n);
            dropped = tlb.invalidateRange(o.tag, start, start + o.pages - 1);
            modelDropped = model.drop((e) => e.tag === o.tag && overlaps(e, start, start + o.pages - 1));
          } else if (o.op === 'tag') {
            dropped = tlb.invalidateTag(o.tag);
            modelDropped = model.drop((e) => e.tag === o.tag);
          } else {
            const start = Number(o.iova >> 12n);
            const yes = (tag: number, extra: number): boolean => (tag % 2 === 1) === o.odd && extra > -1000;
            dropped = tlb.invalidateWhere(yes, start, start + 99);
            modelDropped = model.drop((e) => yes(e.tag, e.extra) && overlaps(e, start, start + 99));
          }
          if (mode === 'sized') expect(dropped).toBeLessThanOrEqual(modelDropped);
          else expect(dropped).toBe(modelDropped);
          expect(tlb.size).toBe(before - dropped);
          expect(tlb.invalidated).toBe(counted + dropped);
        }
        if (mode === 'unbounded') expect(tlb.size).toBe(model.entries.size);
        if (mode === 'sized') expect(tlb.size).toBeLessThanOrEqual(Math.min(sets * ways, model.entries.size));
        if (mode === 'none') expect(tlb.size).toBe(0);
      }
      const left = tlb.size;
      expect(tlb.invalidateAll()).toBe(left);
      expect(tlb.size).toBe(0);
      for (const e of model.entries.values()) expect(tlb.lookup(e.tag, hi(e.page), lo(e.page))).toBe(false);
    }),
    { numRuns: 250, seed: 20_26 },
  );
};

describe('Iotlb against a model', () => {
  test('unbounded', () => play('unbounded', 4, 2));
  test('unbounded, default geometry', () => play('unbounded', 64, 4));
  test('sized', () => play('sized', 4, 2));
  test('sized, one set', () => play('sized', 1, 4));
  test('sized, one way', () => play('sized', 16, 1));
  test('none', () => play('none', 64, 4));
});

describe('Iotlb', () => {
  test('sized: the least recently used way of a set is evicted', () => {
    const tlb = new Iotlb({ sets: 1, ways: 3 });
    for (const page of [1, 2, 3]) tlb.fill(...at(page), 12, 0, page << 12, 3, 0);
    expect(tlb.lookup(...at(1))).toBe(true);
    tlb.fill(...at(4), 12, 0, 0x4000, 3, 0); // 2 is the oldest
    expect([1, 2, 3, 4].map((page) => tlb.lookup(...at(page)))).toEqual([true, false, true, true]);
    expect(tlb.evictions).toBe(1);
    tlb.fill(...at(1), 12, 0, 0x1000, 3, 0); // again: replaces itself, evicts nothing
    expect([tlb.evictions, tlb.size]).toEqual([1, 3]);
    tlb.fill(...at(5), 12, 0, 0x5000, 3, 0); // 3 is the oldest now
    expect([1, 3, 4, 5].map((page) => tlb.lookup(...at(page)))).toEqual([true, false, true, true]);
  });

  test('sizes from 12 to 64 translate every address in them', () => {
    for (let sizeLg2 = 12; sizeLg2 <= 64; sizeLg2++) {
      const tlb = new Iotlb();
      const iova = 0xfedc_ba98_7654_3210n;
      const out = BigInt.asUintN(64, base(0xab_cdef_0123_4567n, sizeLg2));
      tlb.fill(9, hi(iova), lo(iova), sizeLg2, hi(out), lo(out), 1, -5);
      const first = base(iova, sizeLg2);
      const last = first + (1n << BigInt(sizeLg2)) - 1n;
      for (const address of [first, iova, last]) {
        expect(tlb.lookup(9, hi(address), lo(address)), `size 2^${sizeLg2}`).toBe(true);
        expect(join(tlb.outHi, tlb.outLo)).toBe(out + (address - first));
        expect([tlb.perm, tlb.extra, tlb.sizeLg2]).toEqual([1, -5, sizeLg2]);
      }
      if (first > 0n) expect(tlb.lookup(9, hi(first - 1n), lo(first - 1n))).toBe(false);
      if (last < (1n << 64n) - 1n) expect(tlb.lookup(9, hi(last + 1n), lo(last + 1n))).toBe(false);
      expect(tlb.lookup(8, hi(iova), lo(iova))).toBe(false);
      expect(tlb.invalidateRange(9, Number(last >> 12n), Number(last >> 12n))).toBe(1);
      expect(tlb.lookup(9, hi(iova), lo(iova))).toBe(false);
    }
  });

  test('an empty table and an empty entry match nothing, address 0 of tag 0 included', () => {
    for (const mode of ['none', 'sized', 'unbounded'] as const) {
      const tlb = new Iotlb({ mode });
      expect(tlb.lookup(0, 0, 0)).toBe(false);
      tlb.fill(0, 0, 0x5000, 12, 0, 0, 0, 0);
      expect(tlb.lookup(0, 0, 0)).toBe(false);
      tlb.invalidateAll();
      expect(tlb.lookup(0, 0, 0)).toBe(false);
      expect(tlb.lookup(0, 0, 0x5000)).toBe(false);
    }
  });

  test('an empty range drops nothing', () => {
    const tlb = new Iotlb();
    tlb.fill(1, 0, 0, 21, 0, 0, 3, 0);
    expect(tlb.invalidateRange(1, 5, 4)).toBe(0);
    expect(tlb.invalidateRange(1, 5, 5)).toBe(1);
  });

  test('unbounded: one page under 20,000 tags, and 20,000 pages 1 TiB apart, all stay', () => {
    const tlb = new Iotlb({ mode: 'unbounded', sets: 1, ways: 1 });
    for (let tag = 0; tag < 20_000; tag++) tlb.fill(tag * 0x1_0000_0001, 0, 0x1000, 12, 0, tag << 12, 3, tag);
    expect(tlb.size).toBe(20_000);
    for (let tag = 0; tag < 20_000; tag++) {
      expect(tlb.lookup(tag * 0x1_0000_0001, 0, 0x1000)).toBe(true);
      expect(tlb.extra).toBe(tag);
    }
    for (let i = 0; i < 20_000; i++) tlb.fill(3, i << 8, 0x1000, 12, 0, 0, 3, i);
    expect(tlb.size).toBe(40_000);
    expect(tlb.evictions).toBe(0);
  });

  test('peek finds what a look-up finds, and the least recently used entry is evicted as if nobody had peeked', () => {
    const tlb = new Iotlb({ sets: 1, ways: 2 });
    tlb.fill(1, 0, 0x1000, 12, 0, 0x5000, 3, 7);
    tlb.fill(1, 0, 0x20_0000, 21, 4, 0x80_0000, 1, 8);
    expect(tlb.peek(1, 0, 0x1234)).toBe(true);
    expect([tlb.outHi, tlb.outLo, tlb.perm, tlb.extra, tlb.sizeLg2]).toEqual([0, 0x5234, 3, 7, 12]);
    expect(tlb.peek(1, 0, 0x20_0042)).toBe(true);
    expect([tlb.outHi, tlb.outLo, tlb.perm, tlb.extra, tlb.sizeLg2]).toEqual([4, 0x80_0042, 1, 8, 21]);
    expect(tlb.peek(2, 0, 0x1234)).toBe(false);
    expect(tlb.peek(1, 0, 0x1234)).toBe(true);
    expect([tlb.hits, tlb.misses]).toEqual([0, 0]);
    tlb.fill(1, 0, 0x9000, 12, 0, 0x9000, 3, 0);
    expect(tlb.lookup(1, 0, 0x1000)).toBe(false);
    expect(tlb.lookup(1, 0, 0x20_0000)).toBe(true);
    tlb.suspend();
    expect(tlb.peek(1, 0, 0x20_0000)).toBe(false);
  });

  test('hit, miss, fill and eviction allocate nothing', async () => {
    let scavenges = 0;
    const observer = new PerformanceObserver((list) => (scavenges += list.getEntries().length));
    const run = (n: number): number => {
      let sum = 0;
      for (let i = 0; i < n; i++) {
        const page = i & 0xff;
        if (tlb.lookup(5, 0x7f, page << 12)) sum = (sum + tlb.outLo) | 0;
        else tlb.fill(5, 0x7f, page << 12, 12, 1, page << 12, 3, -1);
        if (tlb.lookup(6, 0x7f, page << 12)) sum++;
        if ((i & 63) === 0) tlb.invalidateRange(5, 0x7f0_0000 + page, 0x7f0_0000 + page);
      }
      return sum;
    };
    const tlb = new Iotlb({ sets: 16, ways: 4 });
    run(1_000_000); // warm: feedback and optimised code are allocated here
    observer.observe({ entryTypes: ['gc'] });
    run(5_000_000);
    await sleep(20); // entries are delivered from the event loop
    observer.disconnect();
    expect(tlb.evictions).toBeGreaterThan(1000);
    // 10^7 look-ups with one 12-byte number each would be some 100 scavenges; a stray one comes from the test runner.
    expect(scavenges).toBeLessThanOrEqual(3);
  });
});
