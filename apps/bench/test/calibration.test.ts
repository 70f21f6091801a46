import { describe, expect, test } from 'vitest';
import { Calibration, typedArrayFill } from '../src/calibration.ts';

const make = (pages = 4096): Calibration => new Calibration(new Int32Array(pages * 1024));

/** A second Sv48 walk, from the specification's steps and on bigint, to judge the first. */
const slowWalk = (words: Int32Array, iova: bigint): bigint | null => {
  const u32 = new Uint32Array(words.buffer);
  const canonical = BigInt.asUintN(64, BigInt.asIntN(48, iova));
  if (canonical !== iova) return null;
  let table = 0x1000n;
  for (let level = 3n; level >= 0n; level--) {
    const index = (iova >> (12n + 9n * level)) & 0x1ffn;
    const at = Number((table + 8n * index) / 4n);
    const pte = (BigInt(u32[at + 1]!) << 32n) | BigInt(u32[at]!);
    if ((pte & 1n) === 0n) return null;
    const ppn = (pte >> 10n) & ((1n << 44n) - 1n);
    if ((pte & 0xen) !== 0n) {
      const size = 1n << (12n + 9n * level);
      return ((ppn << 12n) & ~(size - 1n)) | (iova & (size - 1n));
    }
    table = ppn << 12n;
  }
  return null;
};

const hi = (v: bigint): number => Number(BigInt.asIntN(32, v >> 32n));
const lo = (v: bigint): number => Number(BigInt.asIntN(32, v));

describe('calibration', () => {
  test('mapPage and walk agree with a walk from the specification', () => {
    const c = make();
    let seed = 1;
    const random = (): bigint => BigInt((seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0));
    const seen = new Set<bigint>();
    for (let i = 0; i < 2000; i++) {
      const raw = (random() << 17n) ^ (random() << 5n) ^ random();
      const iova = BigInt.asUintN(64, BigInt.asIntN(48, (raw & 0x8000_03ff_ffffn) << 0n)) & ~0xfffn;
      const pa = ((random() << 28n) ^ random()) & 0xff_ffff_ffff_f000n;
      const status = c.mapPage(hi(iova), lo(iova), hi(pa), lo(pa), 3);
      expect(status).toBe(seen.has(iova) ? -98 : 0);
      if (status === 0) {
        seen.add(iova);
        expect(slowWalk(c.words, iova | 0x123n)).toBe(pa | 0x123n);
        expect(c.walk(hi(iova | 0x123n), lo(iova | 0x123n))).toBe(true);
        expect([c.outHi, c.outLo]).toEqual([hi(pa | 0x123n), lo(pa | 0x123n)]);
      }
    }
    for (const iova of seen) {
      expect(c.unmapPage(hi(iova), lo(iova))).toBe(true);
      expect(c.walk(hi(iova), lo(iova))).toBe(false);
    }
  });

  test('the entry is the one of the specification: PPN at 53:10, D A W R V', () => {
    const c = make();
    expect(c.mapPage(0, 0, 0x12, 0x3456_7000, 3)).toBe(0);
    // Root page 1, then tables 2, 3, 4; entry 0 of table 4.
    expect((c.words[4 * 1024]! >>> 0).toString(16)).toBe(
      Number(BigInt.asUintN(32, (0x12_3456_7000n >> 2n) | 0xc7n)).toString(16),
    );
    expect(c.words[4 * 1024 + 1]).toBe(0x12 >>> 2);
  });

  test('leaves above the lowest level', () => {
    const c = make();
    c.mapPage(0, 0, 0, 0x1000, 1); // makes tables 2, 3, 4
    const put = (at: number, pa: bigint): void => {
      const pte = (pa >> 2n) | 0x7n;
      c.words[at] = lo(pte);
      c.words[at + 1] = hi(pte);
    };
    put(3 * 1024 + 2, 0x40_0060_0000n); // 2 MiB at iova 0x200000
    put(2 * 1024 + 2, 0x80_c000_0000n); // 1 GiB at iova 0x40000000
    put(1 * 1024 + 2, 0xff_8000_0000_00n); // 512 GiB at iova 0x8000000000
    for (const iova of [0x20_1234n, 0x3f_ffffn, 0x4123_4567n, 0x7fff_ffffn, 0x80_0000_0000n, 0xff_ffff_ffffn]) {
      expect(c.walk(hi(iova), lo(iova))).toBe(true);
      expect((BigInt(c.outHi >>> 0) << 32n) | BigInt(c.outLo >>> 0)).toBe(slowWalk(c.words, iova));
    }
    expect(c.mapPage(0, 0x20_0000, 0, 0, 3)).toBe(-98);
  });

  test('mapRange fills across tables and across a carry of the low word, and refuses what is mapped', () => {
    const c = make();
    const pa = 0xff_ff00_0000n; // 16 MiB below a 4 GiB boundary; the low entry word carries at 16 GiB steps
    expect(c.mapRange(0, 0x1000, 0x3, -0x8000, 1500, 3)).toBe(0);
    for (const page of [0, 6, 7, 8, 9, 511, 512, 1499]) {
      const iova = 0x1000n + BigInt(page) * 4096n;
      expect(slowWalk(c.words, iova)).toBe(0x3_ffff_8000n + BigInt(page) * 4096n);
    }
    expect(slowWalk(c.words, 0n)).toBeNull();
    expect(slowWalk(c.words, 0x1000n + 1500n * 4096n)).toBeNull();
    expect(c.mapRange(0, 0, hi(pa), lo(pa), 2, 3)).toBe(-98);
    expect(c.fill(4 * 1024, 2, 0, 1)).toBe(0);
  });

  test('errors', () => {
    const c = make(4);
    expect(c.mapPage(0, 0x800, 0, 0, 3)).toBe(-6);
    expect(c.mapPage(0, 0, 0, 0, 0)).toBe(-22);
    expect(c.mapPage(0x8000, 0, 0, 0, 3)).toBe(-34);
    expect(c.mapPage(0, 0, 0x0100_0000, 0, 3)).toBe(-34);
    expect(c.mapPage(0, 0, 0, 0, 3)).toBe(-12);
    expect(c.walk(0x8000, 0)).toBe(false);
    expect(c.unmapPage(0x8000, 0)).toBe(false);
  });

  test('typedArrayFill writes as many bytes as entries have', () => {
    const words = new Int32Array(16);
    typedArrayFill(words, 2, 3, 7);
    expect([...words]).toEqual([0, 0, 7, 7, 7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
  });
});
