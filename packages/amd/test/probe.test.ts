/** Probes: the answer with some of the caches, and not a trace. */
import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { AmdIommu } from '../src/index.ts';
import { Bare, COMMANDS, DEVICE_TABLE, EVENTS, IR, READ, RUNNING, RW, STATUS, WRITE } from './bare.ts';

const PAGE = 0x5555_5000n;
const NO_PASID = -1;

const words = (v: bigint): [number, number] => [Number(BigInt.asIntN(32, v >> 32n)), Number(BigInt.asIntN(32, v))];

/** As {@link Bare.access}, by a probe. */
const probe = (bare: Bare, id: number, iova: bigint, access: number, layers: number, pasid = NO_PASID) => {
  const code = bare.unit.probe(id, pasid, ...words(iova), access, layers);
  return code === 0 ? (BigInt(bare.unit.outHi >>> 0) << 32n) | BigInt(bare.unit.outLo >>> 0) : code;
};

/** Digest of a page of memory. */
const digest = (bare: Bare, page: bigint): string => {
  const buffer = new Uint8Array(4096);
  bare.memory.copyOut(...words(page), buffer, 0, 4096);
  return createHash('sha1').update(buffer).digest('hex');
};

/** Everything that can be seen of a unit, registers without their read hooks. */
const state = (bare: Bare) => ({
  registers: [...bare.unit.registers.words],
  stats: { ...bare.unit.stats },
  iotlb: [bare.unit.iotlb.size, bare.unit.iotlb.hits, bare.unit.iotlb.misses, bare.unit.iotlb.evictions],
  pending: bare.unit.pendingInvalidations,
  memory: [DEVICE_TABLE, COMMANDS, EVENTS, ...Array.from({ length: 24 }, (_, n) => 0x100_0000n + 0x1000n * BigInt(n))]
    .map((page) => digest(bare, page))
    .join(),
});

/** Devices and addresses with every outcome; several are cached, and some of those have changed since. */
const scene = (mode: 'none' | 'sized' | 'unbounded' | 'retain') => {
  const bare = new Bare({ iotlb: { mode }, efr: (1n << 6n) | (0n << 10n) });
  const leaf = bare.table();
  const middle = bare.table();
  const root = bare.table();
  bare.entry(root, 3, 0n, 1n | (2n << 9n) | middle | RW);
  bare.entry(middle, 2, 0n, 1n | (1n << 9n) | leaf | RW);
  bare.entry(leaf, 1, 0x1000n, 1n | PAGE | RW);
  bare.entry(leaf, 1, 0x2000n, 1n | (PAGE + 0x1000n) | IR);
  bare.entry(leaf, 1, 0x3000n, 1n | PAGE | RW | (1n << 55n)); // reserved bit
  bare.entry(leaf, 1, 0x4000n, 1n | PAGE | RW);
  bare.entry(middle, 2, 0x20_0000n, 1n | 0x4000_0000n | RW); // 2 MiB
  bare.entry(middle, 2, 0x40_0000n, 1n | (1n << 9n) | 0xff_ffff_f000n | RW); // a table where nothing answers
  bare.paging(1, 3, root);
  bare.paging(2, 3, root, 5n, IR);
  bare.dte(3, 1n); // TV=0
  bare.dte(4, 3n | (1n << 6n)); // reserved bit
  bare.dte(5, 3n | RW, 9n); // Mode 0
  bare.dte(6, 0n); // V=0
  bare.dte(7, 3n | (3n << 9n) | root | RW, 5n | (1n << 33n)); // SE
  const asks: [number, bigint, number, number?][] = [];
  for (const id of [1, 2, 3, 4, 5, 6, 7, 0x80, 0x1_0000]) {
    for (const iova of [0x1000n, 0x2008n, 0x3000n, 0x4010n, 0x5000n, 0x21_2345n, 0x40_0000n, 1n << 39n, 0xfee0_0000n]) {
      for (const access of [READ, WRITE]) asks.push([id, iova, access]);
    }
  }
  asks.push([1, 0x1000n, READ, 77]);
  return { bare, leaf, middle, root, asks };
};

describe.each(['none', 'sized', 'unbounded', 'retain'] as const)('IOTLB %s', (mode) => {
  test('a probe leaves no trace, whatever it answers, with any caches', () => {
    const { bare, asks } = scene(mode);
    for (const [id, iova, access] of asks.slice(0, 60)) bare.access(id, iova, access);
    bare.command((3n << 60n) | (5n << 32n), 0x7000n);
    const before = state(bare);
    const answers = new Set<string>();
    for (let layers = 0; layers < 8; layers++) {
      for (const [id, iova, access, pasid] of asks) {
        const got = probe(bare, id, iova, access, layers, pasid);
        answers.add(typeof got === 'bigint' ? 'ok' : `${got}`);
      }
    }
    expect(state(bare)).toEqual(before);
    // Passed, refused by id, illegal entry, page fault, table outside memory, invalid request.
    expect([...answers].toSorted()).toEqual(['-1', '1', '2', '4', '8', 'ok'].toSorted());
  });

  test('with all caches it is what a translation answers', () => {
    const { bare, leaf, middle, asks } = scene(mode);
    const check = (): void => {
      for (const [id, iova, access, pasid] of asks) {
        const expected = probe(bare, id, iova, access, 7, pasid);
        expect(bare.access(id, iova, access, pasid), `device ${id} iova ${iova} access ${access}`).toBe(expected);
      }
    };
    check();
    // All of it stale now, where it is cached.
    const next = bare.table();
    bare.entry(leaf, 1, 0x1000n, 0n);
    bare.entry(leaf, 1, 0x4000n, 1n | 0x7777_7000n | IR);
    bare.entry(middle, 2, 0n, 1n | (1n << 9n) | next | RW);
    bare.dte(5, 1n);
    bare.dte(3, 3n | RW, 9n);
    check();
    check();
  });

  test('without any it is what a fresh unit answers', () => {
    const { bare, leaf, middle, asks } = scene(mode);
    for (const [id, iova, access] of asks) bare.access(id, iova, access);
    bare.entry(leaf, 1, 0x1000n, 1n | 0x7777_7000n | IR);
    bare.entry(middle, 2, 0x20_0000n, 0n);
    bare.dte(5, 1n);
    bare.dte(6, 1n);
    const fresh = new AmdIommu(bare.memory, { efr: 1n << 6n, iotlb: { mode: 'none' } });
    fresh.mmio.write64(0x0, ...words(DEVICE_TABLE));
    fresh.mmio.write64(0x18, ...words(RUNNING & ~0x1004n)); // no queues: nothing is written
    for (const [id, iova, access, pasid = NO_PASID] of asks) {
      const code = fresh.translate(id, pasid, ...words(iova), access);
      const expected = code === 0 ? (BigInt(fresh.outHi >>> 0) << 32n) | BigInt(fresh.outLo >>> 0) : code;
      expect(probe(bare, id, iova, access, 0, pasid), `device ${id} iova ${iova} access ${access}`).toBe(expected);
    }
  });
});

test('each layer is looked into only when it is asked for', () => {
  const { bare, leaf, middle } = scene('retain');
  const [LEAF, TABLE, CONTEXT] = [1, 2, 4];
  bare.access(1, 0x1000n, READ);
  const old = bare.table();
  bare.entry(old, 1, 0x1000n, 1n | 0x7777_7000n | RW);
  bare.entry(middle, 2, 0n, 1n | (1n << 9n) | old | RW);
  bare.entry(leaf, 1, 0x1000n, 1n | 0x8888_8000n | RW);
  bare.dte(1, 3n | RW, 5n);
  // The entry in memory says Mode 0, the tables below what is cached were rewritten.
  expect(probe(bare, 1, 0x1000n, READ, CONTEXT | TABLE | LEAF)).toBe(PAGE);
  expect(probe(bare, 1, 0x1000n, READ, CONTEXT | TABLE)).toBe(0x8888_8000n);
  expect(probe(bare, 1, 0x1000n, READ, CONTEXT)).toBe(0x7777_7000n);
  expect(probe(bare, 1, 0x1000n, READ, CONTEXT | LEAF)).toBe(PAGE);
  expect(probe(bare, 1, 0x1000n, READ, 0)).toBe(0x1000n);
  expect(probe(bare, 1, 0x1000n, READ, TABLE | LEAF)).toBe(0x1000n);
});

test('a probe does not execute commands that wait, and a probed miss evicts nothing', () => {
  const { bare } = scene('retain');
  bare.command((3n << 60n) | (5n << 32n), 0x1000n);
  probe(bare, 1, 0x1000n, READ, 7);
  expect(bare.unit.pendingInvalidations).toBe(1);
  bare.unit.mmio.read32(STATUS);
  expect(bare.unit.pendingInvalidations).toBe(0);

  const small = new Bare({ iotlb: { sets: 1, ways: 1 } });
  const root = small.table();
  small.entry(root, 1, 0x1000n, 1n | PAGE | RW);
  small.entry(root, 1, 0x2000n, 1n | PAGE | RW);
  small.paging(1, 1, root);
  small.access(1, 0x1000n, READ);
  for (let layers = 0; layers < 8; layers++) expect(probe(small, 1, 0x2000n, READ, layers)).toBe(PAGE);
  small.entry(root, 1, 0x1000n, 0n);
  expect(small.access(1, 0x1000n, READ)).toBe(PAGE);
});

test('nothing that a probe came by is kept: what changes afterwards is seen', () => {
  const { bare, middle } = scene('retain');
  for (let layers = 0; layers < 8; layers++) for (const id of [1, 5]) probe(bare, id, 0x1000n, READ, layers);
  const leaf = bare.table();
  bare.entry(leaf, 1, 0x1000n, 1n | 0x7777_7000n | RW);
  bare.entry(middle, 2, 0n, 1n | (1n << 9n) | leaf | RW);
  bare.dte(5, 1n);
  expect(bare.access(1, 0x1000n, READ)).toBe(0x7777_7000n);
  expect(bare.access(5, 0x1000n, READ)).toBe(2);
});
