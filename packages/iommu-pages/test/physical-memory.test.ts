/** Emulated memory: the device path by words, the friendly path by bigint, and what lies outside both. */
import fc from 'fast-check';
import { IommuError } from '@iommu-ts/bits';
import { describe, expect, test } from 'vitest';
import { CHUNK_PFNS, PhysicalMemory } from '../src/index.ts';
import type { RamOptions } from '../src/index.ts';

fc.configureGlobal({ seed: 20_261_123 });

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return error instanceof IommuError ? error.code : String(error);
  }
  return 'nothing thrown';
};

const hi = (address: bigint): number => Number(BigInt.asIntN(32, address >> 32n));
const lo = (address: bigint): number => Number(BigInt.asIntN(32, address));

/** Two ranges side by side of each kind, one that crosses 4 GiB, and one high up. */
const kinds: readonly [string, readonly RamOptions[]][] = [
  [
    'sparse',
    [
      { base: 0x1000n, size: 0x80_0000n },
      { base: 0x80_1000n, size: 0x40_0000n },
    ],
  ],
  [
    'flat',
    [
      { base: 0x1000n, size: 0x80_0000n, kind: 'flat' },
      { base: 0x80_1000n, size: 0x40_0000n, kind: 'flat' },
    ],
  ],
  [
    'flat and sparse',
    [
      { base: 0x1000n, size: 0x80_0000n, kind: 'flat' },
      { base: 0x80_1000n, size: 0x40_0000n },
    ],
  ],
  [
    'shared',
    [
      { base: 0x1000n, size: 0x80_0000n, shared: true, kind: 'flat' },
      { base: 0x80_1000n, size: 0x40_0000n, shared: true },
    ],
  ],
];

describe.each(kinds)('%s RAM', (_name, ranges) => {
  const first = 0x1000n;
  const end = 0xc0_1000n;

  test('reads as zero until written', () => {
    const memory = new PhysicalMemory(ranges);
    expect(memory.readU64(first)).toBe(0n);
    expect(memory.readBytes(end - 100n, 100)).toEqual(new Uint8Array(100));
    expect(memory.load64(0, Number(end) - 8)).toBe(true);
    expect([memory.hi, memory.lo, memory.busError]).toEqual([0, 0, false]);
  });

  test('any access agrees with a model of bytes', () => {
    const memory = new PhysicalMemory(ranges);
    const model = new Map<bigint, number>();
    // Near the ends, near the seam, near a chunk's end.
    const address = fc.tuple(fc.constantFrom(first, 0x20_0000n, 0x80_1000n, end), fc.integer({ min: -20, max: 20 }));
    const size = fc.constantFrom(1, 2, 4, 8) as fc.Arbitrary<1 | 2 | 4 | 8>;
    const operation = fc.record({
      address,
      size,
      value: fc.bigInt(0n, 2n ** 64n - 1n),
      write: fc.boolean(),
      fast: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(operation, { minLength: 1, maxLength: 40 }), (operations) => {
        for (const {
          address: [base, delta],
          size: n,
          value,
          write,
          fast,
        } of operations) {
          const at = base + BigInt(delta);
          const inside = at >= first && at + BigInt(n) <= end;
          const cut = BigInt.asUintN(8 * n, value);
          const [vHi, vLo] = [hi(cut), lo(cut)];
          if (write && fast) {
            const done =
              n === 8
                ? memory.store64(hi(at), lo(at), vHi, vLo)
                : n === 4
                  ? memory.store32(hi(at), lo(at), vLo)
                  : n === 2
                    ? memory.store16(hi(at), lo(at), vLo)
                    : memory.store8(hi(at), lo(at), vLo);
            expect(done).toBe(inside);
          } else if (write) {
            expect(codeOf(() => memory.write(at, n, cut))).toBe(inside ? 'nothing thrown' : 'EIO');
          }
          // A refused write changes nothing.
          if (write && inside)
            for (let i = 0n; i < BigInt(n); i++) model.set(at + i, Number((cut >> (8n * i)) & 0xffn));
          let want = 0n;
          if (inside) for (let i = 0n; i < BigInt(n); i++) want |= BigInt(model.get(at + i) ?? 0) << (8n * i);
          if (fast) {
            if (n === 8) expect(memory.load64(hi(at), lo(at))).toBe(inside);
            const got =
              n === 8
                ? (BigInt(memory.hi >>> 0) << 32n) | BigInt(memory.lo >>> 0)
                : BigInt(
                    (n === 4
                      ? memory.load32(hi(at), lo(at))
                      : n === 2
                        ? memory.load16(hi(at), lo(at))
                        : memory.load8(hi(at), lo(at))) >>> 0,
                  );
            expect(got).toBe(want);
            expect(memory.busError).toBe(!inside);
          } else if (inside) expect(memory.read(at, n)).toBe(want);
          else expect(codeOf(() => memory.read(at, n))).toBe('EIO');
        }
      }),
      { numRuns: 300 },
    );
  });

  test('copies across pages, chunks and ranges', () => {
    const memory = new PhysicalMemory(ranges);
    const bytes = Uint8Array.from({ length: 0x2_0000 }, (_, i) => (i * 31) ^ (i >> 8));
    for (const at of [0x1fff1n, 0x1f_fff3n, 0x7f_2345n, first]) {
      memory.writeBytes(at, bytes);
      expect(Buffer.compare(memory.readBytes(at, bytes.length), bytes)).toBe(0);
    }
    // The device path with offsets, short and long.
    const target = new Uint8Array(64).fill(0xee);
    expect(memory.copyIn(0, 0x80_0fe0, bytes, 100, 48)).toBe(true);
    expect(memory.copyOut(0, 0x80_0fe0, target, 8, 48)).toBe(true);
    expect(target.subarray(8, 56)).toEqual(bytes.subarray(100, 148));
    expect([target[7], target[56]]).toEqual([0xee, 0xee]);
    // Part of it outside: false, and what came before is done.
    expect(memory.copyIn(0, Number(end) - 16, bytes, 1, 48)).toBe(false);
    expect(memory.readBytes(end - 16n, 16)).toEqual(bytes.subarray(1, 17));
    expect(codeOf(() => memory.readBytes(end - 16n, 17))).toBe('EIO');
    expect(codeOf(() => memory.writeBytes(first - 1n, Uint8Array.of(1, 2)))).toBe('EIO');
  });

  test('zeroPages', () => {
    const memory = new PhysicalMemory(ranges);
    for (const at of [0x1f_f000n, 0x20_0000n, 0x3f_f000n, 0x40_0000n])
      memory.writeBytes(at, new Uint8Array(0x1000).fill(0xff));
    memory.zeroPages(0x200, 0x20_0000);
    expect(memory.readBytes(0x1f_fff8n, 16)).toEqual(
      Uint8Array.from([...new Uint8Array(8).fill(0xff), ...new Uint8Array(8)]),
    );
    expect(memory.readBytes(0x20_0000n, 0x20_0000).every((byte) => byte === 0)).toBe(true);
    expect(memory.readBytes(0x40_0000n, 1)).toEqual(Uint8Array.of(0xff));
    // Not RAM: nothing happens.
    memory.zeroPages(0, 0x1000);
    memory.zeroPages(0xc00, 0x2000);
    memory.zeroPages(2 ** 40, 0x1000);
  });

  test('locate', () => {
    const memory = new PhysicalMemory(ranges);
    expect(memory.locate(0, true)).toBe(false);
    expect(memory.locate(0xc01, true)).toBe(false);
    expect(memory.locate(0x123, true)).toBe(true);
    memory.view[memory.index + 5] = 0x1234_5678;
    expect(memory.read(0x12_3014n, 4)).toBe(0x1234_5678n);
    expect(memory.locate(0x123, false)).toBe(true);
    expect(memory.view[memory.index + 5]).toBe(0x1234_5678);
    // An aligned run of 2 MiB lies in one view.
    expect(memory.locate(0x200, true)).toBe(true);
    const { view, index } = memory;
    for (let pfn = 0x200; pfn < 0x200 + CHUNK_PFNS; pfn++) {
      memory.locate(pfn, true);
      expect(memory.view).toBe(view);
      expect(memory.index).toBe(index + (pfn - 0x200) * 1024);
    }
  });
});

describe('addresses', () => {
  test('above 4 GiB, up to the top of 64 bits', () => {
    const top = 2n ** 64n;
    const memory = new PhysicalMemory([
      { base: 0xffff_0000n, size: 0x2_0000n },
      { base: 2n ** 40n, size: 2n ** 33n },
      { base: top - 0x4000n, size: 0x4000n },
    ]);
    for (const at of [0xffff_fffcn, 2n ** 40n + 5n, 2n ** 40n + 2n ** 33n - 8n, top - 8n]) {
      memory.write(at, 8, 0x0123_4567_89ab_cdefn);
      expect(memory.read(at, 8)).toBe(0x0123_4567_89ab_cdefn);
      expect(memory.load64(hi(at), lo(at))).toBe(true);
      expect([memory.hi, memory.lo]).toEqual([0x0123_4567, 0x89ab_cdef | 0]);
      // Unsigned words do as well.
      expect(memory.load32(hi(at) >>> 0, lo(at) >>> 0)).toBe(0x89ab_cdef | 0);
    }
    // Running past the top of 64 bits reaches nothing, and does not wrap to 0.
    expect(memory.load64(-1, -4)).toBe(false);
    expect(memory.busError).toBe(true);
    expect(codeOf(() => memory.read(2n ** 64n, 1))).toBe('ERANGE');
    expect(codeOf(() => memory.readBytes(-1n, 1))).toBe('ERANGE');
  });

  test('a sparse range of any size costs memory only where it is written', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 2n ** 63n }]);
    const places = [0n, 2n ** 31n - 4n, 2n ** 43n, 2n ** 43n - 8n, 2n ** 52n, 2n ** 63n - 8n];
    for (const [i, at] of places.entries()) memory.writeU64(at, BigInt(i) + 1n);
    for (const [i, at] of places.entries()) expect(memory.readU64(at)).toBe(BigInt(i) + 1n);
    expect(memory.readU64(2n ** 62n)).toBe(0n);
  });

  test('ranges that do not fit are refused', () => {
    const memory = new PhysicalMemory([{ base: 0x10_0000n, size: 0x1_0000n }]);
    const add = (base: bigint, size: bigint): string => codeOf(() => memory.addRam({ base, size }));
    expect(add(0x800n, 0x1000n)).toBe('EALIGN');
    expect(add(0x1000n, 0x1800n)).toBe('EALIGN');
    expect(add(0x1000n, 0n)).toBe('ERANGE');
    expect(add(2n ** 64n - 0x1000n, 0x2000n)).toBe('ERANGE');
    expect(add(0x10_f000n, 0x1000n)).toBe('EADDRINUSE');
    expect(add(0xf_f000n, 0x2000n)).toBe('EADDRINUSE');
    expect(add(0xf_f000n, 0x1000n)).toBe('nothing thrown');
    const mmio = { name: 'x', handler: { read: () => 0n, write: () => undefined } };
    expect(codeOf(() => memory.addMmio({ ...mmio, base: 0x10_0ff8n, size: 8n }))).toBe('EADDRINUSE');
    expect(codeOf(() => memory.addMmio({ ...mmio, base: 0x20_0000n, size: 0n }))).toBe('ERANGE');
    expect(memory.ranges).toHaveLength(2);
  });

  test('NUMA nodes', () => {
    const memory = new PhysicalMemory([
      { base: 0n, size: 0x4000n },
      { base: 0x4000n, size: 0x4000n, node: 1 },
    ]);
    expect([memory.rangeOf(3)!.node, memory.rangeOf(4)!.node, memory.rangeOf(8)]).toEqual([0, 1, null]);
  });
});

/** RAM, and a device that writes its accesses down. */
const withDevice = (): { memory: PhysicalMemory; log: string[] } => {
  const memory = new PhysicalMemory([{ base: 0n, size: 0x1_0000n }]);
  const log: string[] = [];
  memory.addMmio({
    name: 'device',
    base: 0x2_0004n,
    size: 0x20n,
    handler: {
      read: (offset, size) => {
        log.push(`r${size}@${offset}`);
        return 0x1122_3344_5566_7788n & ((1n << BigInt(8 * size)) - 1n);
      },
      write: (offset, size, value) => log.push(`w${size}@${offset}=${value.toString(16)}`),
    },
  });
  return { memory, log };
};

describe('MMIO', () => {
  test('reads and writes of every size arrive once, with the offset in the range', () => {
    const { memory, log } = withDevice();
    expect(memory.read(0x2_0004n, 8)).toBe(0x1122_3344_5566_7788n);
    expect(memory.load32(0, 0x2_0008)).toBe(0x5566_7788);
    expect(memory.load16(0, 0x2_0008)).toBe(0x7788);
    expect(memory.load8(0, 0x2_0009)).toBe(0x88);
    expect(memory.busError).toBe(false);
    memory.write(0x2_000cn, 8, 0xffff_ffff_0000_0001n);
    expect(memory.store32(0, 0x2_0004, -1)).toBe(true);
    expect(memory.store16(0, 0x2_0006, 0x1_2345)).toBe(true);
    expect(memory.store8(0, 0x2_0006, 0x1ff)).toBe(true);
    expect(log).toEqual([
      'r8@0',
      'r4@4',
      'r2@4',
      'r1@5',
      'w8@8=ffffffff00000001',
      'w4@0=ffffffff',
      'w2@2=2345',
      'w1@2=ff',
    ]);
    expect(memory.mmioRanges.map((m) => m.name)).toEqual(['device']);
  });

  test('an access that leaves the range is a bus error, and copies do not touch it', () => {
    const { memory, log } = withDevice();
    expect(memory.load64(0, 0x2_0020)).toBe(false);
    expect(memory.store64(0, 0x2_0000, 0, 0)).toBe(false);
    expect(codeOf(() => memory.read(0x2_0002n, 4))).toBe('EIO');
    expect(memory.copyOut(0, 0x2_0004, new Uint8Array(8), 0, 8)).toBe(false);
    expect(memory.copyIn(0, 0x2_0004, new Uint8Array(8), 0, 8)).toBe(false);
    expect(memory.locate(0x20, false)).toBe(false);
    expect(log).toEqual([]);
  });
});

test('shared RAM is seen through its buffer', () => {
  const memory = new PhysicalMemory([{ base: 0n, size: 0x1_0000n, kind: 'flat', shared: true }]);
  const range = memory.ranges[0]!;
  expect(range.shared).toBe(true);
  expect(range.words.buffer).toBeInstanceOf(SharedArrayBuffer);
  memory.writeU64(0x1008n, 0xdead_beefn);
  expect(Atomics.load(new Int32Array(range.words.buffer), 0x1008 / 4)).toBe(0xdead_beef | 0);
});

test('a flat range above 4 GiB stands as several', () => {
  const memory = new PhysicalMemory([{ base: 0x1000n, size: 5n << 30n, kind: 'flat' }]);
  expect(memory.ranges).toHaveLength(2);
  const seam = (4n << 30n) + 0x1000n;
  memory.writeBytes(seam - 4n, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  expect(memory.readBytes(seam - 4n, 8)).toEqual(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  expect(memory.readU64(seam - 4n)).toBe(0x0807_0605_0403_0201n);
});
