/** Fault recording, invalidation queue and registers, event messages, by hand with numbers from the specification. */
import { describe, expect, test } from 'vitest';
import { Bare, CAP, ECAP, QUEUE, R, W } from './rig.ts';

const SID = 0x18;
/** 8 fault records. */
const CAP_8 = CAP | (7n << 40n);

/** A unit where every page of SID faults, and page 0x5000 + 0x1000 n of domain 7 is mapped for SID + 8. */
const faulting = (options = {}): { bare: Bare; root: bigint } => {
  const bare = new Bare(options);
  bare.attach(SID, 6);
  const root = bare.attach(SID + 8, 7);
  for (let n = 0n; n < 8n; n++) bare.entry(root, 4, 0x5000n + 0x1000n * n, 1, 0x100_0003n + 0x1000n * n);
  bare.enable();
  return { bare, root };
};

describe('fault recording', () => {
  test('a ring of records: FRI, F, PPF, overflow', () => {
    const { bare } = faulting({ cap: CAP_8 });
    for (let i = 0n; i < 8n; i++) bare.go(SID, 0x1000n * i, i % 2n === 0n ? R : W);
    expect(bare.rd(0x34)).toBe(0x2);
    bare.go(SID, 0x9_9000n);
    expect(bare.rd(0x34)).toBe(0x3);
    // Two are taken; the ring goes on behind the last record, but not before PFO is cleared.
    expect(bare.fault(0)).toEqual({ reason: 6, requester: SID, page: 0n, read: true });
    expect(bare.fault(1)).toEqual({ reason: 5, requester: SID, page: 0x1000n, read: false });
    bare.go(SID, 0xa_a000n);
    expect(bare.fault(0)).toBeNull();
    expect(bare.rd(0x34)).toBe(0x3);
    bare.wr(0x34, 1);
    bare.go(SID, 0xb_b000n);
    expect(bare.fault(0)).toEqual({ reason: 6, requester: SID, page: 0xb_b000n, read: true });
    for (let i = 2; i < 8; i++) expect(bare.fault(i)).toMatchObject({ page: BigInt(i) * 0x1000n });
    expect(bare.rd(0x34)).toBe(0);
    // The next fault is recorded in register 1: FRI tells.
    bare.go(SID, 0xc_c000n);
    expect(bare.rd(0x34)).toBe(0x102);
    expect(bare.fault(1)).toMatchObject({ page: 0xc_c000n });
    expect(bare.unit.stats.faults).toBe(12);
  });

  test('the index starts over when translation is switched off', () => {
    const { bare } = faulting({ cap: CAP_8 });
    bare.go(SID, 0n);
    expect(bare.fault(0)).not.toBeNull();
    bare.wr(0x18, 0);
    bare.wr(0x18, 0x8000_0000);
    bare.go(SID, 0x1000n);
    expect(bare.rd(0x34)).toBe(0x2);
    expect(bare.fault(0)).toMatchObject({ page: 0x1000n });
  });

  test('a record keeps its fields when written, only F clears', () => {
    const { bare } = faulting();
    bare.go(SID, 0x7000n, W);
    bare.wr64(0x220, 0xffff_ffff_ffff_ffffn);
    bare.wr(0x228, 0xffff_ffff);
    expect(bare.rd64(0x220)).toBe(0x7000n);
    expect(bare.rd64(0x228)).toBe(0x8000_0005_0000_0018n);
    bare.wr(0x22c, 0x7fff_ffff);
    expect(bare.rd(0x34)).toBe(2);
    bare.wr64(0x228, 0x8000_0000_0000_0000n);
    expect(bare.rd64(0x228)).toBe(0x5_0000_0018n);
    expect(bare.rd(0x34)).toBe(0);
  });

  test('the event: masked it pends, unmasked it is written as a message, once until all is serviced', () => {
    const { bare } = faulting({ cap: CAP_8 });
    bare.wr(0x3c, 0x4021);
    bare.wr(0x40, 0x80_0007);
    bare.wr(0x44, 0);
    expect(bare.rd(0x40)).toBe(0x80_0004);
    bare.go(SID, 0n);
    expect(bare.rd(0x38)).toBe(0xc000_0000);
    expect(bare.interrupts).toEqual([]);
    bare.wr(0x38, 0);
    expect(bare.rd(0x38)).toBe(0);
    expect(bare.interrupts).toEqual(['fault']);
    expect(bare.memory.read(0x80_0004n, 4)).toBe(0x4021n);
    bare.go(SID, 0x1000n);
    expect(bare.interrupts).toEqual(['fault']);
    bare.fault(0);
    bare.go(SID, 0x2000n);
    expect(bare.interrupts).toEqual(['fault']);
    bare.fault(1);
    bare.fault(2);
    bare.go(SID, 0x3000n);
    expect(bare.interrupts).toEqual(['fault', 'fault']);
  });

  test('a pending event that was serviced while masked is not sent', () => {
    const { bare } = faulting();
    bare.go(SID, 0n);
    bare.fault();
    expect(bare.rd(0x38)).toBe(0x8000_0000);
    bare.wr(0x38, 0);
    expect(bare.interrupts).toEqual([]);
  });
});

describe('invalidation queue', () => {
  test('wait: status write and interrupt', () => {
    const { bare } = faulting();
    bare.enableQueue();
    bare.wr(0xa4, 0x33);
    bare.wr(0xa8, 0x80_0100);
    bare.wr(0xac, 0);
    bare.submit(0xcafe_babe_0000_0025n, 0x80_0200n);
    expect(bare.memory.read(0x80_0200n, 4)).toBe(0xcafe_baben);
    expect(bare.rd64(0x80)).toBe(0x10n);
    bare.submit(0x15n);
    expect([bare.rd(0x9c), bare.rd(0xa0)]).toEqual([1, 0xc000_0000]);
    bare.wr(0xa0, 0);
    expect(bare.interrupts).toEqual(['completion']);
    expect(bare.memory.read(0x80_0100n, 4)).toBe(0x33n);
    bare.submit(0x15n);
    expect(bare.interrupts).toEqual(['completion']);
    bare.wr(0x9c, 1);
    bare.submit(0x15n);
    expect(bare.interrupts).toEqual(['completion', 'completion']);
    expect(bare.unit.stats.commands).toBe(4);
  });

  test('several descriptors in one go, wrapping', () => {
    const { bare } = faulting();
    bare.enableQueue();
    for (let i = 0n; i < 256n; i++) bare.put(QUEUE + 16n * i, (i << 32n) | 0x25n, 0x80_0000n + 4n * i);
    bare.wr64(0x88, 0xff0n);
    expect(bare.rd64(0x80)).toBe(0xff0n);
    bare.wr64(0x88, 0x20n);
    expect(bare.rd64(0x80)).toBe(0x20n);
    expect(bare.memory.read(0x80_03fcn, 4)).toBe(255n);
    expect(bare.unit.stats.commands).toBe(258);
  });

  test('a larger queue', () => {
    const { bare } = faulting();
    bare.enableQueue(3n);
    bare.put(QUEUE + 0x7ff0n, 0x7700_0000_25n, 0x80_0000n);
    for (let i = 0n; i < 0x7ffn; i++) bare.put(QUEUE + 16n * i, 0x12n, 0n);
    bare.wr64(0x88, 0x7ff0n);
    bare.wr64(0x88, 0n);
    expect(bare.rd64(0x80)).toBe(0n);
    expect(bare.memory.read(0x80_0000n, 4)).toBe(0x77n);
  });

  const errors: [string, bigint, bigint, number][] = [
    ['type 0', 0n, 0n, 3],
    ['type 15', 15n, 0n, 3],
    ['type 9 (bits 11:9)', 0x201n, 0n, 3],
    ['device-TLB invalidation without device TLBs', 3n, 0n, 3],
    ['PASID-cache invalidation without scalable mode', 0x37n, 0n, 3],
    ['context: granularity 0', 0x1n, 0n, 4],
    ['context: bit 12', 0x1011n, 0n, 4],
    ['context: upper half', 0x11n, 1n, 4],
    ['IOTLB: granularity 0', 0x2n, 0n, 4],
    ['IOTLB: bit 8', 0x112n, 0n, 4],
    ['IOTLB: bit 32', 0x1_0000_0012n, 0n, 4],
    ['IOTLB: bit 71', 0x32n, 0x80n, 4],
    ['IOTLB: address mask above MAMV', 0x32n, 19n, 4],
    ['wait: bit 8', 0x125n, 0n, 4],
    ['wait: address bit 1', 0x25n, 2n, 4],
  ];
  test.each(errors)('error: %s', (_name, low, high, reason) => {
    const { bare } = faulting();
    bare.enableQueue();
    bare.submit(0x12n);
    bare.submit(low, high);
    bare.submit(0x5_0000_0025n, 0x80_0000n);
    expect(bare.rd(0x34)).toBe(0x10);
    expect(bare.rd64(0x80)).toBe(0x10n);
    expect(bare.rd64(0xb0) & 15n).toBe(BigInt(reason));
    expect(bare.rd(0x38)).toBe(0xc000_0000);
    expect(bare.memory.read(0x80_0000n, 4)).toBe(0n);
    // Mended and acknowledged, it goes on by itself.
    bare.put(QUEUE + 0x10n, 0x12n, 0n);
    bare.wr(0x34, 0x10);
    expect([bare.rd(0x34), bare.rd64(0x80)]).toEqual([0, 0x30n]);
    expect(bare.memory.read(0x80_0000n, 4)).toBe(5n);
  });

  test('error: tail beyond the queue', () => {
    const { bare } = faulting();
    bare.enableQueue();
    bare.wr64(0x88, 0x1000n);
    expect([bare.rd(0x34), bare.rd64(0xb0)]).toEqual([0x10, 1n]);
  });

  test('error: queue outside memory', () => {
    const { bare } = faulting();
    bare.wr64(0x88, 0n);
    bare.wr64(0x90, 0x7f00_0000_0000n);
    bare.wr(0x18, 0x8400_0000);
    bare.wr64(0x88, 0x10n);
    expect([bare.rd(0x34), bare.rd64(0xb0), bare.rd64(0x80)]).toEqual([0x10, 2n, 0n]);
  });

  test('switching the queue off resets the head; off, the tail moves nothing', () => {
    const { bare } = faulting();
    bare.enableQueue();
    bare.submit(0x12n);
    bare.wr(0x18, 0x8000_0000);
    expect([bare.rd(0x1c), bare.rd64(0x80)]).toEqual([0xc000_0000, 0n]);
    bare.wr64(0x88, 0x40n);
    expect([bare.rd64(0x80), bare.rd(0x34)]).toEqual([0n, 0]);
  });

  test('device-TLB and interrupt-entry descriptors are carried out (nothing to do)', () => {
    const { bare } = faulting({ ecap: ECAP | 4n });
    bare.enableQueue();
    bare.submit(0x18_0001_0003n, 0x5000n);
    bare.submit(0x4n);
    bare.submit(0x14n);
    expect([bare.rd(0x34), bare.rd64(0x80)]).toEqual([0, 0x30n]);
  });

  test('with the queue on, the registers invalidate nothing and say so', () => {
    const { bare } = faulting();
    expect(bare.go(SID + 8, 0x5000n)).toBe(0x100_0000n);
    bare.enableQueue();
    bare.wr64(0xf8, 0x9000_0000_0000_0000n);
    expect(bare.rd64(0xf8)).toBe(0x1000_0000_0000_0000n);
    bare.wr64(0x28, 0xa000_0000_0000_0000n);
    expect(bare.rd64(0x28)).toBe(0x2000_0000_0000_0000n);
    expect(bare.unit.iotlb.size).toBe(1);
  });
});

/** Pages 5 to 12 of domain 7, page 5 of domain 6, all cached, then all taken away from the tables. */
const cached = (options = {}): Bare => {
  const { bare, root } = faulting({ iotlb: { mode: 'unbounded' }, ...options });
  const other = bare.attach(SID, 6);
  bare.entry(other, 4, 0x5000n, 1, 0x200_0003n);
  for (let n = 0n; n < 8n; n++) bare.go(SID + 8, 0x5000n + 0x1000n * n);
  bare.go(SID, 0x5000n);
  for (let n = 0n; n < 8n; n++) bare.entry(root, 4, 0x5000n + 0x1000n * n, 1, 0n);
  bare.entry(other, 4, 0x5000n, 1, 0n);
  return bare;
};
/** Which of them still translate: pages of domain 7 by number, and 6 for the page of domain 6. */
const alive = (bare: Bare): number[] => {
  const pages: number[] = [];
  for (let n = 5; n < 13; n++) if (bare.go(SID + 8, BigInt(n) * 0x1000n) > 0n) pages.push(n);
  if (bare.go(SID, 0x5000n) > 0n) pages.push(66);
  return pages;
};

describe('scope of IOTLB invalidations', () => {
  const all = [5, 6, 7, 8, 9, 10, 11, 12];

  const cases: [string, bigint, bigint, bigint, bigint, number[]][] = [
    // name, descriptor low and high, IVA, IOTLB_REG, what stays
    ['global', 0x12n, 0n, 0n, 0x9000_0000_0000_0000n, []],
    ['domain 7', 0x7_0022n, 0n, 0n, 0xa000_0007_0000_0000n, [66]],
    ['domain 6', 0x6_0022n, 0n, 0n, 0xa000_0006_0000_0000n, all],
    ['page 6', 0x7_0032n, 0x6000n, 0x6000n, 0xb000_0007_0000_0000n, [5, 7, 8, 9, 10, 11, 12, 66]],
    ['page 6, hint', 0x7_0032n, 0x6040n, 0x6040n, 0xb000_0007_0000_0000n, [5, 7, 8, 9, 10, 11, 12, 66]],
    ['pages 8 to 11', 0x7_00f2n, 0x8002n, 0x8002n, 0xb003_0007_0000_0000n, [5, 6, 7, 12, 66]],
    ['pages 8 to 11, by page 10', 0x7_0032n, 0xa002n, 0xa002n, 0xb000_0007_0000_0000n, [5, 6, 7, 12, 66]],
    ['page 5 of another domain', 0x5_0032n, 0x5000n, 0x5000n, 0xb000_0005_0000_0000n, [...all, 66]],
    ['2^18 pages', 0x7_0032n, 0x12n, 0x12n, 0xb000_0007_0000_0000n, [66]],
  ];
  test.each(cases)('%s', (_name, low, high, iva, command, stays) => {
    const queued = cached();
    queued.enableQueue();
    queued.submit(low, high);
    expect(queued.rd(0x34)).toBe(0);
    expect(alive(queued)).toEqual(stays);
    const registers = cached();
    registers.wr64(0xf0, iva);
    registers.wr64(0xf8, command);
    expect(registers.rd64(0xf8) >> 63n).toBe(0n);
    expect((registers.rd64(0xf8) >> 57n) & 3n).toBe((command >> 60n) & 3n);
    expect(alive(registers)).toEqual(stays);
    expect(registers.unit.stats.invalidations).toBe(1);
  });

  test('incorrect register requests report granularity 0', () => {
    const bare = cached();
    bare.wr64(0xf8, 0x8000_0007_0000_0000n);
    expect(bare.rd64(0xf8)).toBe(0x7_0000_0000n);
    bare.wr64(0xf0, 19n);
    bare.wr64(0xf8, 0xb000_0007_0000_0000n);
    expect(bare.rd64(0xf8)).toBe(0x3000_0007_0000_0000n);
    bare.wr64(0x28, 0x8000_0000_0000_0000n);
    expect(bare.rd64(0x28)).toBe(0n);
    expect(alive(bare)).toEqual([...all, 66]);
  });

  test('without page-selective invalidation the domain goes', () => {
    const bare = cached({ cap: CAP & ~(1n << 39n) });
    bare.wr64(0xf0, 0x6000n);
    bare.wr64(0xf8, 0xb000_0007_0000_0000n);
    expect((bare.rd64(0xf8) >> 57n) & 3n).toBe(2n);
    expect(alive(bare)).toEqual([66]);
  });

  test('a large page goes with any of its pages', () => {
    const { bare, root } = faulting({ iotlb: { mode: 'unbounded' } });
    const at = bare.entry(root, 4, 0x4000_0000n, 2, 0x20_0083n);
    expect(bare.go(SID + 8, 0x4000_0000n)).toBe(0x20_0000n);
    bare.put(at, 0n);
    bare.enableQueue();
    bare.submit(0x7_0032n, 0x4020_0000n);
    expect(bare.go(SID + 8, 0x4000_0000n)).toBe(0x20_0000n);
    bare.submit(0x7_0032n, 0x401f_f000n);
    expect(bare.go(SID + 8, 0x4000_0000n)).toBe(-6n);
  });
});

/** Functions 0 to 7 of device 3 on bus 0, in domain 3 (even) or 4 (odd), cached, then taken out. */
const cachedContexts = (): Bare => {
  const bare = new Bare();
  for (let f = 0; f < 8; f++) bare.entry(bare.attach(SID + f, 3 + (f & 1)), 4, 0n, 1, 0x100_0003n);
  bare.enable();
  for (let f = 0; f < 8; f++) bare.go(SID + f, 0n);
  for (let f = 0; f < 8; f++) bare.context(SID + f, 0n, 0n);
  return bare;
};
const aliveContexts = (bare: Bare): number[] => {
  const out: number[] = [];
  for (let f = 0; f < 8; f++) if (bare.go(SID + f, 0n) > 0n) out.push(f);
  return out;
};
describe('scope of context-cache invalidations', () => {
  const cases: [string, bigint, bigint, number[]][] = [
    ['global', 0x11n, 0xa000_0000_0000_0000n, []],
    ['domain 3', 0x3_0021n, 0xc000_0000_0000_0003n, [1, 3, 5, 7]],
    ['device 0x1a', 0x1a_0003_0031n, 0xe000_0000_001a_0003n, [0, 1, 3, 4, 5, 6, 7]],
    ['function mask 1', 0x1_001a_0003_0031n, 0xe000_0001_001a_0003n, [0, 1, 3, 4, 5, 7]],
    ['function mask 2', 0x2_001a_0003_0031n, 0xe000_0002_001a_0003n, [1, 3, 5, 7]],
    ['function mask 3', 0x3_001a_0003_0031n, 0xe000_0003_001a_0003n, []],
  ];
  test.each(cases)('%s', (_name, descriptor, command, stays) => {
    const queued = cachedContexts();
    queued.enableQueue();
    queued.submit(descriptor);
    expect(aliveContexts(queued)).toEqual(stays);
    const registers = cachedContexts();
    registers.wr64(0x28, command);
    expect(registers.rd64(0x28) >> 63n).toBe(0n);
    expect((registers.rd64(0x28) >> 59n) & 3n).toBe((command >> 61n) & 3n);
    expect(aliveContexts(registers)).toEqual(stays);
  });
});

test('a status write onto the registers of the unit itself does not run the queue inside the queue', () => {
  const bare = new Bare();
  bare.memory.addMmio({ name: 'vtd', base: 0xfed9_0000n, size: 0x1000n, handler: bare.unit.registers });
  bare.enableQueue();
  // Each descriptor writes the tail register: the queue would chase its own tail for ever.
  for (let i = 0n; i < 256n; i++) bare.put(QUEUE + 16n * i, ((i * 16n) << 32n) | 0x25n, 0xfed9_0088n);
  bare.wr64(0x88, 0x100n);
  expect(bare.unit.stats.commands).toBeLessThanOrEqual(257);
  expect(bare.rd(0x1c)).toBe(0x0400_0000);
});
