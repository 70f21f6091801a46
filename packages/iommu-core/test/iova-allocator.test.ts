import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { IovaAllocator } from '../src/iova-allocator.ts';

describe('IovaAllocator', () => {
  test('hands out from the top, aligned to the size rounded up to a power of two', () => {
    const iova = new IovaAllocator(12, 0n, 0xffff_ffffn);
    expect(iova.alloc(0x1000n)).toBe(0xffff_f000n);
    expect(iova.alloc(0x3000n)).toBe(0xffff_c000n); // three pages, aligned to four
    expect(iova.alloc(0x20_0000n)).toBe(0xffc0_0000n);
    // The search goes on below the last range, as from the cached node in Linux.
    expect(iova.alloc(0x1000n)).toBe(0xffbf_f000n);
    expect(iova.allocatedBytes).toBe(0x20_5000n);
  });

  test('a limit, reserved regions and freed ranges', () => {
    const msi = { start: 0xfee0_0000n, last: 0xfeef_ffffn, type: 'msi', doc: '' } as const;
    const iova = new IovaAllocator(12, 0n, 0xfff_ffff_ffffn, [msi]);
    expect(iova.alloc(0x1000n, 0xfeef_ffffn)).toBe(0xfedf_f000n);
    expect(iova.reserve(0xfee0_0000n, 0x1000n)).toBe(false);
    expect(iova.reserve(0x1000n, 0x2000n)).toBe(true);
    expect(iova.reserve(0x2000n, 0x1000n)).toBe(false);
    iova.free(0x1000n);
    expect(iova.reserve(0x2000n, 0x1000n)).toBe(true);
    expect(() => iova.free(0x5000n)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  test('never hands out IOVA 0, and says when nothing is left', () => {
    const iova = new IovaAllocator(14, 0n, 0xffffn);
    expect([iova.alloc(1n), iova.alloc(0x4000n), iova.alloc(0x4000n)]).toEqual([0xc000n, 0x8000n, 0x4000n]);
    expect(() => iova.alloc(0x4000n)).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
    expect(() => iova.alloc(0n)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  test('agrees with a list of all granules', () => {
    const command = fc.oneof(
      fc.record({
        op: fc.constant('alloc' as const),
        count: fc.integer({ min: 1, max: 9 }),
        limit: fc.integer({ min: 8, max: 127 }),
      }),
      fc.record({ op: fc.constant('free' as const), pick: fc.nat() }),
      fc.record({
        op: fc.constant('reserve' as const),
        at: fc.integer({ min: 1, max: 120 }),
        count: fc.integer({ min: 1, max: 5 }),
      }),
    );
    fc.assert(
      fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
        const size = 128;
        const taken = Array.from({ length: size }, () => false);
        taken[0] = true;
        for (let i = 40; i < 48; i++) taken[i] = true;
        const iova = new IovaAllocator(12, 0n, BigInt(size * 4096 - 1), [
          { start: 40n << 12n, last: (48n << 12n) - 1n, type: 'reserved', doc: '' },
        ]);
        const live: { start: number; count: number }[] = [];
        const free = (start: number, count: number): boolean => taken.slice(start, start + count).every((t) => !t);
        for (const c of commands) {
          if (c.op === 'alloc') {
            const align = 2 ** Math.ceil(Math.log2(c.count));
            let want = -1;
            for (let start = 0; start + c.count - 1 <= c.limit; start += align) if (free(start, c.count)) want = start;
            let got = -1;
            try {
              got = Number(iova.alloc(BigInt(c.count) << 12n, (BigInt(c.limit + 1) << 12n) - 1n) >> 12n);
            } catch (error) {
              expect(error).toMatchObject({ code: 'ENOSPC' });
            }
            expect(got).toBe(want);
            if (got >= 0) {
              taken.fill(true, got, got + c.count);
              live.push({ start: got, count: c.count });
            }
          } else if (c.op === 'reserve') {
            const ok = free(c.at, c.count) && c.at + c.count <= size;
            expect(iova.reserve(BigInt(c.at) << 12n, BigInt(c.count) << 12n)).toBe(ok);
            if (ok) {
              taken.fill(true, c.at, c.at + c.count);
              live.push({ start: c.at, count: c.count });
            }
          } else if (live.length > 0) {
            const [gone] = live.splice(c.pick % live.length, 1);
            iova.free(BigInt(gone!.start) << 12n);
            taken.fill(false, gone!.start, gone!.start + gone!.count);
          }
          expect(iova.allocatedBytes).toBe(BigInt(live.reduce((sum, l) => sum + l.count, 0)) << 12n);
        }
      }),
      { numRuns: 300, seed: 20260 },
    );
  });

  test('what is reserved, or begins elsewhere, is not freed', () => {
    const reserved = [{ start: 0xf000n, last: 0xffffn, type: 'msi', doc: 'doorbell' }] as const;
    const iova = new IovaAllocator(12, 0x4000n, 0xf_ffffn, reserved);
    const at = iova.alloc(0x1000n, 0xffffn);
    expect(at).toBe(0xe000n);
    for (const wrong of [0xf000n, 0xe001n, 0xd000n]) expect(() => iova.free(wrong)).toThrow(/no IOVA range begins/);
    expect(iova.allocatedBytes).toBe(0x1000n);
    iova.free(at);
    expect(iova.allocatedBytes).toBe(0n);
    expect(iova.reserve(0xf000n, 0x1000n)).toBe(false);
    // Outside the aperture, below and above.
    expect(iova.reserve(0x3000n, 0x2000n)).toBe(false);
    expect(iova.reserve(0x10_0000n, 0x1000n)).toBe(false);
    expect(iova.reserve(0x4000n, 0x1000n)).toBe(true);
  });

  test('without a limit the search is complete even after frees above where it stopped', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ count: fc.integer({ min: 1, max: 8 }), free: fc.boolean(), pick: fc.nat() }), {
          maxLength: 80,
        }),
        (steps) => {
          const iova = new IovaAllocator(12, 0n, 0x3_ffffn);
          const live: [bigint, number][] = [];
          for (const s of steps) {
            if (s.free && live.length > 0) {
              const [gone] = live.splice(s.pick % live.length, 1);
              iova.free(gone![0]);
              continue;
            }
            const taken = new Set([0]);
            for (const [at, n] of live) for (let i = 0; i < n; i++) taken.add(Number(at >> 12n) + i);
            const align = 2 ** Math.ceil(Math.log2(s.count));
            let possible = false;
            for (let start = 0; start + s.count <= 64; start += align) {
              let ok = true;
              for (let i = 0; i < s.count; i++) if (taken.has(start + i)) ok = false;
              possible ||= ok;
            }
            try {
              const at = iova.alloc(BigInt(s.count) << 12n);
              for (let i = 0; i < s.count; i++) expect(taken.has(Number(at >> 12n) + i)).toBe(false);
              live.push([at, s.count]);
            } catch (error) {
              expect(error).toMatchObject({ code: 'ENOSPC' });
              expect(possible).toBe(false);
            }
          }
        },
      ),
      { numRuns: 300, seed: 20261 },
    );
  });
});
