/** Probes: the answer with some of the caches, and not a trace. */
import { createHash } from 'node:crypto';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { VtdUnit } from '../src/index.ts';
import { Bare, CAP, CONTEXTS, ECAP, R, ROOT, W } from './rig.ts';

const NO_PASID = -1;
const words = (v: bigint): [number, number] => [Number(BigInt.asIntN(32, v >> 32n)), Number(BigInt.asIntN(32, v))];

type Ask = readonly [sid: number, iova: bigint, access: number, pasid?: number];

/** As {@link Bare.go}, by a probe. */
const probe = (bare: Bare, [sid, iova, access, pasid = NO_PASID]: Ask, layers: number): bigint => {
  const { unit } = bare;
  const status = unit.probe(sid, pasid, ...words(iova), access, layers);
  return status !== 0 ? -BigInt(status) : (BigInt(unit.outHi >>> 0) << 32n) | BigInt(unit.outLo >>> 0);
};

/** Digest of a range of memory. */
const bytes = (memory: PhysicalMemory, from: bigint, length: number): string => {
  const buffer = new Uint8Array(4096);
  const hash = createHash('sha1');
  for (let at = 0; at < length; at += 4096) {
    memory.copyOut(...words(from + BigInt(at)), buffer, 0, 4096);
    hash.update(buffer);
  }
  return hash.digest('hex');
};

/** Everything that can be seen of a unit. */
const state = ({ unit, memory, interrupts }: Bare) => ({
  registers: [...unit.registers.words],
  stats: { ...unit.stats },
  iotlb: [unit.iotlb.size, unit.iotlb.hits, unit.iotlb.misses, unit.iotlb.evictions],
  pending: unit.pendingInvalidations,
  interrupts: [...interrupts],
  memory: bytes(memory, 0x10_0000n, 0x4_0000) + bytes(memory, 0x20_0000n, 0x4_0000),
});

const CAP_8 = CAP | (7n << 40n);

/** Legacy mode: several devices and pages, with every kind of answer. */
const legacy = (mode: 'none' | 'sized' | 'unbounded' | 'retain', cap = CAP_8) => {
  const bare = new Bare({ cap, iotlb: { mode } });
  const root = bare.attach(0x18, 7);
  bare.entry(root, 4, 0x5000n, 1, 0x100_0003n);
  bare.entry(root, 4, 0x6000n, 1, 0x100_1001n);
  bare.entry(root, 4, 0x7000n, 1, 0x100_2003n | (1n << 62n));
  bare.entry(root, 4, 0x8000n, 1, 0xfee0_0003n);
  bare.entry(root, 4, 0x4000_0000n, 2, 0x20_0083n);
  bare.entry(root, 4, 0x8000_0000n, 2, 0x7fff_f003n); // a table where nothing answers
  bare.context(0x20, 0x9n, 0x102n); // pass-through
  bare.context(0x21, 0x1_0000_0000_0001n, 0x702n); // address beyond the width
  bare.context(0x22, 0x2n, 0n); // FPD
  bare.context(0x23, root | 1n, 0x705n); // AW 5
  bare.put(ROOT + 16n * 2n, 0x7fff_f001n, 0n); // bus 2: a context table where nothing answers
  bare.put(ROOT + 16n * 3n, 3n, 0n); // bus 3: reserved bits
  bare.enable();
  const asks: Ask[] = [];
  for (const sid of [0x18, 0x19, 0x20, 0x21, 0x22, 0x23, 0x118, 0x218, 0x318]) {
    for (const iova of [
      0x5123n,
      0x6000n,
      0x7000n,
      0x8000n,
      0x9000n,
      0x4012_3000n,
      0x8000_0000n,
      1n << 50n,
      0xfee0_0000n,
    ]) {
      for (const access of [R, W]) asks.push([sid, iova, access]);
    }
  }
  asks.push([0x18, 0x5000n, R, 3]);
  return { bare, root, asks };
};

/** Scalable mode, first stage: SID 0x18 with PASIDs 5 and (RID_PASID) 9, no A or D bit set. */
const scalable = (mode: 'none' | 'sized' | 'unbounded' | 'retain') => {
  const cap = 0x11d2_078c_222f_0e06n;
  const ecap = ECAP | (1n << 49n) | (3n << 46n) | (1n << 43n) | (1n << 40n) | (19n << 35n) | (3n << 30n);
  const bare = new Bare({ cap, ecap, iotlb: { mode } });
  bare.put(ROOT, 0x11_0001n, 0n);
  bare.put(0x11_0000n + 32n * 0x18n, 0x12_0009n, 9n, 0n, 0n);
  bare.put(0x12_0000n, 0x13_0001n);
  for (const pasid of [5n, 9n]) {
    const root = bare.table();
    bare.put(0x13_0000n + 64n * pasid, 0x41n, 20n + pasid, root | 0x20n);
    bare.entry(root, 4, 0x5000n, 1, 0x100_0007n, 7n);
    bare.entry(root, 4, 0x6000n, 1, 0x100_1005n, 7n);
    bare.entry(root, 4, 0x7000n, 1, 0x100_2003n, 7n);
  }
  bare.put(0x13_0000n + 64n * 6n, 0n);
  bare.enable(1n);
  const asks: Ask[] = [];
  for (const pasid of [NO_PASID, 5, 6, 0x7000]) {
    for (const iova of [0x5000n, 0x6000n, 0x7000n, 0x9000n, 0xfee0_0000n]) {
      for (const access of [R, W, R | 4, R | 8]) asks.push([0x18, iova, access, pasid]);
    }
  }
  asks.push([0x19, 0x5000n, R, 5], [0x99, 0x5000n, R]);
  return { bare, asks };
};

const MODES = ['none', 'sized', 'unbounded', 'retain'] as const;

describe.each(MODES)('IOTLB %s', (mode) => {
  test.each(['legacy', 'caching mode', 'scalable'] as const)('%s: no trace, whatever it answers', (kind) => {
    const { bare, asks } =
      kind === 'scalable' ? scalable(mode) : legacy(mode, kind === 'legacy' ? CAP_8 : CAP_8 | (1n << 7n));
    const answers = new Set<bigint>();
    const probeAll = (): void => {
      const before = state(bare);
      for (let layers = 0; layers < 8; layers++) {
        for (const ask of asks) {
          const answer = probe(bare, ask, layers);
          answers.add(answer < 0n ? answer : 0n);
        }
      }
      expect(state(bare)).toEqual(before);
    };
    probeAll();
    for (const [sid, iova, access, pasid] of asks.slice(0, asks.length / 2)) bare.go(sid, iova, access, pasid);
    probeAll();
    expect(answers.size).toBeGreaterThan(6);
  });

  test('with all caches it is what a translation answers', () => {
    for (const { bare, asks } of [legacy(mode), legacy(mode, CAP_8 | (1n << 7n)), scalable(mode)]) {
      const check = (): void => {
        for (const ask of asks) {
          const [sid, iova, access, pasid] = ask;
          const expected = probe(bare, ask, 7);
          expect(bare.go(sid, iova, access, pasid), `${sid} ${iova} ${access} ${pasid}`).toBe(expected);
        }
      };
      check();
      // Now much of what is cached is wrong: a third of the entries go, a third are read only.
      for (let n = 0n; n < 0x20n * 512n; n++) {
        const at = 0x20_0000n + 8n * n;
        const entry = bare.memory.readU64(at);
        if (entry !== 0n) bare.put(at, n % 3n === 0n ? 0n : n % 3n === 1n ? entry & ~2n : entry);
      }
      bare.put(CONTEXTS + 16n * 0x20n, 0n, 0n);
      bare.put(CONTEXTS + 16n * 0x19n, 0x9n, 0x102n);
      check();
      check();
    }
  });

  test('without any it is what a fresh unit answers', () => {
    for (const [{ bare, asks }, ttm] of [
      [legacy(mode), 0n],
      [legacy(mode, CAP_8 | (1n << 7n)), 0n],
      [scalable(mode), 1n],
    ] as const) {
      for (const [sid, iova, access, pasid] of asks) bare.go(sid, iova, access, pasid);
      for (let n = 0n; n < 0x20n * 512n; n += 3n) bare.put(0x20_0000n + 8n * n, 0n);
      bare.put(CONTEXTS + 16n * 0x19n, 0x9n, 0x102n);
      const { cap, ecap } = bare.unit.capabilities;
      const fresh = new VtdUnit(bare.memory, { cap, ecap, iotlb: { mode: 'none' } });
      fresh.mmio.write64(0x20, ...words(ROOT | (ttm << 10n)));
      fresh.mmio.write32(0x18, 0x4000_0000);
      fresh.mmio.write32(0x18, 0x8000_0000 | 0);
      for (const ask of asks) {
        const [sid, iova, access, pasid = NO_PASID] = ask;
        const got = probe(bare, ask, 0);
        const status = fresh.translate(sid, pasid, ...words(iova), access);
        const expected =
          status !== 0 ? -BigInt(status) : (BigInt(fresh.outHi >>> 0) << 32n) | BigInt(fresh.outLo >>> 0);
        expect(got, `${sid} ${iova} ${access} ${pasid}`).toBe(expected);
      }
    }
  });
});

test('each layer is looked into only when it is asked for', () => {
  const { bare, root } = legacy('retain');
  const [LEAF, TABLE, CONTEXT] = [1, 2, 4];
  const ask: Ask = [0x18, 0x5000n, R];
  bare.go(0x18, 0x5000n);
  bare.entry(root, 4, 0x5000n, 1, 0x300_0003n); // in the table that is known
  const table = bare.table();
  bare.put(table + 8n * 5n, 0x400_0003n); // in the one that took its place
  bare.entry(root, 4, 0x5000n, 2, table | 3n);
  bare.context(0x18, 0x9n, 0x702n); // pass-through, by what memory says
  expect(probe(bare, ask, CONTEXT | TABLE | LEAF)).toBe(0x100_0000n);
  expect(probe(bare, ask, CONTEXT | LEAF)).toBe(0x100_0000n);
  expect(probe(bare, ask, CONTEXT | TABLE)).toBe(0x300_0000n);
  expect(probe(bare, ask, CONTEXT)).toBe(0x400_0000n);
  expect(probe(bare, ask, TABLE | LEAF)).toBe(0x5000n);
  expect(probe(bare, ask, 0)).toBe(0x5000n);
});

test('caching mode: what was not present counts as a translation, or as a context', () => {
  const { bare, root } = legacy('retain', CAP_8 | (1n << 7n));
  bare.go(0x18, 0x9000n);
  bare.go(0x19, 0x5000n);
  bare.entry(root, 4, 0x9000n, 1, 0x300_0003n);
  bare.context(0x19, 0x9n, 0x702n);
  const answers = (ask: Ask): bigint[] => [7, 6, 4, 3, 0].map((layers) => probe(bare, ask, layers));
  expect(answers([0x18, 0x9000n, R])).toEqual([-6n, 0x300_0000n, 0x300_0000n, -6n, 0x300_0000n]);
  expect(answers([0x19, 0x5000n, R])).toEqual([-2n, -2n, -2n, 0x5000n, 0x5000n]);
});

test('scalable mode: kept contexts and PASID entries are a layer of their own', () => {
  const { bare } = scalable('retain');
  const asks: Ask[] = [
    [0x18, 0x5000n, R, 5],
    [0x18, 0x5000n, R],
  ];
  for (const [sid, iova, access, pasid] of asks) bare.go(sid, iova, access, pasid);
  bare.put(0x13_0000n + 64n * 5n, 0n);
  bare.put(0x13_0000n + 64n * 9n, 0n);
  for (const ask of asks)
    expect([7, 4, 3, 0].map((l) => probe(bare, ask, l))).toEqual([0x100_0000n, 0x100_0000n, -0x59n, -0x59n]);
});

test('a probe does not execute invalidations that wait, and evicts nothing', () => {
  const { bare } = legacy('retain');
  bare.enableQueue();
  bare.submit(0x11n);
  probe(bare, [0x18, 0x5000n, R], 7);
  expect(bare.unit.pendingInvalidations).toBe(1);

  const small = new Bare({ iotlb: { sets: 1, ways: 1 } });
  const root = small.attach(0x18, 7);
  const first = small.entry(root, 4, 0x5000n, 1, 0x100_0003n);
  small.entry(root, 4, 0x6000n, 1, 0x100_1003n);
  small.enable();
  small.go(0x18, 0x5000n);
  small.put(first, 0n);
  for (let layers = 0; layers < 8; layers++) expect(probe(small, [0x18, 0x6000n, R], layers)).toBe(0x100_1000n);
  expect(small.go(0x18, 0x5000n)).toBe(0x100_0000n);
});

test('nothing that a probe came by is kept: what changes afterwards is seen', () => {
  const all = (bare: Bare, ...asks: Ask[]): void => {
    for (const ask of asks) for (let layers = 0; layers < 8; layers++) probe(bare, ask, layers);
  };
  const { bare, root } = legacy('retain', CAP_8 | (1n << 7n));
  all(bare, [0x18, 0x5000n, R], [0x18, 0x9000n, R], [0x19, 0x5000n, R], [0x119, 0x5000n, R]);
  const table = bare.table();
  bare.put(table + 8n * 5n, 0x400_0003n, 0n, 0n, 0n, 0x500_0003n);
  bare.entry(root, 4, 0x5000n, 2, table | 3n);
  bare.context(0x19, 0x9n, 0x702n);
  bare.context(0x119, 0x9n, 0x702n);
  expect(bare.go(0x18, 0x5000n)).toBe(0x400_0000n);
  expect(bare.go(0x18, 0x9000n)).toBe(0x500_0000n);
  expect(bare.go(0x19, 0x5000n)).toBe(0x5000n);
  expect(bare.go(0x119, 0x5000n)).toBe(0x5000n);

  const first = scalable('retain').bare;
  all(first, [0x18, 0x5000n, R, 5], [0x18, 0x5000n, R]);
  first.put(0x13_0000n + 64n * 5n, 0x101n, 30n); // pass-through
  first.put(0x12_0000n + 8n, 0x14_0001n);
  first.put(0x14_0000n, 0x101n, 31n);
  first.put(0x11_0000n + 32n * 0x18n, 0x12_0009n, 0x40n, 0n, 0n); // RID_PASID 0x40
  expect(first.go(0x18, 0x5000n, R, 5)).toBe(0x5000n);
  expect(first.go(0x18, 0x5000n)).toBe(0x5000n);
});
