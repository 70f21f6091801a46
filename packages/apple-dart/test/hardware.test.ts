/** The device on its registers, programmed by hand with numbers typed from Linux and m1n1. */
import { Bus } from '@iommu-ts/iommu-core';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { Bare, GIB, R, Random, W } from './rig.ts';

/** DART1 leaf, whole page, read-write, sub-page protection off. */
const RW_LEAF = 0x000f_ff00_0000_0003n;

const codeOf = (options: ConstructorParameters<typeof Bare>[0]): string => {
  try {
    return new Bare(options).dart.name;
  } catch (error) {
    return (error as { code: string }).code;
  }
};

/** Streams 0 … 3 share a table; each has looked page 0 up. */
const warmed = (busyReads = 0): Bare => {
  const bare = new Bare({ busyReads }).simple();
  for (let s = 0; s < 4; s++) {
    bare.wr(0x200 + 16 * s, 0x8000_0010);
    bare.wr(0x100 + 4 * s, 0x80);
  }
  bare.leaf(0, 0x40_0000n | RW_LEAF);
  for (let s = 0; s < 4; s++) bare.go(s, 0n);
  bare.leaf(0, 0n);
  return bare;
};

const cached = (bare: Bare): boolean[] => [0, 1, 2, 3].map((s) => bare.go(s, 0n) === 0x40_0000n);

/** Stream 200 translates; its first leaf table is at 0x14000. */
const makeT8110 = (preset: 't8110' | 't6020' = 't8110', busyReads = 0): Bare => {
  const bare = new Bare({ preset, busyReads });
  bare.wr(0xc00 + 4 * 6, 1 << 8);
  bare.memory.writeU64(0x1_0000n, (0x1_4000n >> 4n) | 1n);
  bare.memory.writeU64(0x1_4000n, (0xfffn << 40n) | (0x3a_0000_4000n >> 4n) | 1n);
  bare.wr(0x1400 + 800, (0x1_0000 >> 12) | 1);
  bare.wr(0x1000 + 800, 1);
  return bare;
};

describe('identification', () => {
  test('t8103', () => {
    const bare = new Bare();
    expect(bare.rd(0)).toBe(0x0e00_0000);
    expect(bare.rd(4)).toBe(1);
    expect(bare.rd(8)).toBe(0);
    expect(new Bare({ bypass: false }).rd(4)).toBe(0);
    expect(new Bare({ preset: 't8103-4k' }).rd(0)).toBe(0x0c00_0000);
  });
  test('t8110 and t6020', () => {
    const bare = new Bare({ preset: 't8110', streams: 20 });
    expect(bare.rd(0)).toBe(0x0e00_0000);
    expect(bare.rd(8) & 0x3f3f_0000).toBe((42 << 24) | (36 << 16));
    expect(bare.rd(0xc) & 0x1ff).toBe(20);
    expect((new Bare({ preset: 't6020' }).rd(8) >>> 16) & 0x3f).toBe(42);
  });
  test('parts that do not exist are refused', () => {
    expect(codeOf({ streams: 17 })).toBe('EOPNOTSUPP');
    expect(codeOf({ preset: 't8110', streams: 257 })).toBe('EOPNOTSUPP');
    expect(codeOf({ preset: 't8110', vaWidth: 48 })).toBe('EOPNOTSUPP');
    expect(codeOf({ vaWidth: 40 })).toBe('EOPNOTSUPP');
    expect(codeOf({ preset: 'm7' as 't8103' })).toBe('EINVAL');
    expect(codeOf({ preset: 't8110', streams: 256 })).toBe('apple-dart');
  });
});

describe('t8020 translation', () => {
  test('a leaf, page offset and high address bits', () => {
    const bare = new Bare().simple();
    bare.leaf(0, 0xf_8000_c000n | RW_LEAF);
    expect(bare.go(1, 0x2abcn)).toBe(0xf_8000_eabcn);
    expect(bare.go(1, 0x2abcn, W)).toBe(0xf_8000_eabcn);
    expect(bare.dart.stats).toMatchObject({ walks: 1, walkReads: 2, faults: 0 });
  });

  test('no TTBR, no PMD, no PTE', () => {
    const bare = new Bare().simple();
    expect(bare.go(1, 0x4000n)).toBe(-4);
    expect(bare.go(1, 0x200_0000n)).toBe(-2);
    expect(bare.go(1, 0x10_0000_0000n)).toBe(-1);
    expect(bare.go(1, 0x40_0000_0000n)).toBe(-1);
    expect(bare.go(1, 0xffff_ffff_ffff_fff0n)).toBe(-1);
    // Stream 2 was never set up.
    expect(bare.go(2, 0x4000n)).toBe(-1);
    expect(bare.dart.stats.faults).toBe(6);
  });

  test('all four TTBRs, quarter by quarter', () => {
    for (const [preset, span, page] of [
      ['t8103', 1n << 36n, 0x4000n],
      ['t8103-4k', 1n << 30n, 0x1000n],
    ] as const) {
      const bare = new Bare({ preset });
      bare.wr(0xfc, 0xffff);
      bare.wr(0x100, 0x80);
      for (let i = 0n; i < 4n; i++) {
        const top = 0x10_0000n * (i + 1n);
        bare.memory.writeU64(top, (top + page) | 1n);
        bare.memory.writeU64(top + page, (0x1000_0000n * (i + 1n)) | RW_LEAF);
        bare.wr(0x200 + 4 * Number(i), Number(0x8000_0000n | (top >> 12n)));
      }
      for (let i = 0n; i < 4n; i++)
        expect(bare.go(0, i * span + 8n), `${preset} ${i}`).toBe(0x1000_0000n * (i + 1n) + 8n);
      expect(bare.go(0, 4n * span)).toBe(-1);
    }
  });

  test('permissions', () => {
    const bare = new Bare().simple();
    bare.leaf(0, 0x40_0000n | RW_LEAF | 0x80n);
    bare.leaf(1, 0x40_0000n | RW_LEAF | 0x100n);
    bare.leaf(2, 0x40_0000n | RW_LEAF | 0x180n);
    expect(bare.go(1, 0n)).toBe(0x40_0000n);
    expect(bare.go(1, 0n, W)).toBe(-8);
    expect(bare.go(1, 0n, R | W)).toBe(-8);
    expect(bare.go(1, 0x4000n, W)).toBe(0x40_0000n);
    expect(bare.go(1, 0x4000n)).toBe(-0x10);
    expect(bare.go(1, 0x8000n)).toBe(-0x10);
    expect(bare.go(1, 0x8000n, W)).toBe(-8);
    // An instruction fetch is a read.
    expect(bare.go(1, 0n, 4)).toBe(0x40_0000n);
    expect(bare.go(1, 0x4000n, 4)).toBe(-0x10);
  });

  test('sub-pages: 4 bytes each with 16 KiB pages', () => {
    for (const mode of ['none', 'sized'] as const) {
      const bare = new Bare({ iotlb: { mode } }).simple();
      // Bytes 0x100 … 0x20f.
      bare.leaf(0, (0x040n << 52n) | (0x083n << 40n) | 0x40_0001n);
      expect(bare.go(1, 0x100n, R, 0x110)).toBe(0x40_0100n);
      expect(bare.go(1, 0x20cn, W, 4)).toBe(0x40_020cn);
      expect(bare.go(1, 0x20cn, W, 5)).toBe(-0x80);
      expect(bare.go(1, 0xffn, R, 1)).toBe(-0x80);
      expect(bare.go(1, 0xfcn, R, 8)).toBe(-0x80);
      expect(bare.go(1, 0x210n, R)).toBe(-0x80);
      expect(bare.go(1, 0x100n, R, 4)).toBe(0x40_0100n);
      // With SP_DIS the fields mean nothing.
      bare.leaf(1, (0x040n << 52n) | (0x083n << 40n) | 0x40_0003n);
      expect(bare.go(1, 0x4000n, R, 4096)).toBe(0x40_0000n);
    }
  });

  test('sub-pages and DMA: what does not fit whole is refused whole, page by page', () => {
    const bare = new Bare().simple();
    const bus = new Bus(bare.memory, bare.dart);
    // The first 0x1800 bytes of a page.
    bare.leaf(0, (0x5ffn << 40n) | 0x40_0001n);
    expect(bus.device(1).write(0n, new Uint8Array(0x1800).fill(7))).toMatchObject({ ok: true, bytes: 0x1800 });
    bare.memory.writeBytes(0x40_0000n, new Uint8Array(0x1800));
    expect(bus.device(1).write(0n, new Uint8Array(0x1801).fill(7))).toMatchObject({
      ok: false,
      bytes: 0x1000,
      code: 0x80,
    });
    expect(bare.memory.readBytes(0x40_0ffen, 4)).toEqual(Uint8Array.of(7, 7, 0, 0));
    expect(bare.rd(0x50)).toBe(0x1000);
  });

  test('sub-pages: single bytes with 4 KiB pages', () => {
    const bare = new Bare({ preset: 't8103-4k' });
    bare.wr(0xfc, 1);
    bare.memory.writeU64(0x1_0000n, 0x1_1001n);
    bare.memory.writeU64(0x1_1000n, (0x010n << 52n) | (0x013n << 40n) | 0x40_0001n);
    bare.wr(0x200, 0x8000_0010);
    bare.wr(0x100, 0x80);
    expect(bare.go(0, 0x10n, R, 4)).toBe(0x40_0010n);
    expect(bare.go(0, 0x10n, R, 5)).toBe(-0x80);
    expect(bare.go(0, 0xfn, R)).toBe(-0x80);
  });

  test('tables outside memory', () => {
    const bare = new Bare().simple();
    bare.memory.writeU64(0x10008n, 0xf_ffff_c001n);
    expect(bare.go(1, 0x200_0000n)).toBe(-0x40);
    bare.wr(0x210, 0xffff_ffff);
    expect(bare.go(1, 0x4000n)).toBe(-0x40);
    // A register block is not memory to a walker.
    bare.memory.addMmio({
      name: 'device',
      base: 1n << 36n,
      size: 0x4000n,
      handler: {
        read: () => {
          throw new Error('the walker read a device');
        },
        write: () => undefined,
      },
    });
    bare.wr(0x210, 0x8100_0000);
    expect(bare.go(1, 0x4000n)).toBe(-0x40);
  });

  test('bypass, and TCR values that mean nothing', () => {
    const bare = new Bare().simple();
    bare.wr(0x104, 0x1100);
    expect(bare.rd(0x104)).toBe(0x1100);
    expect(bare.go(1, 0x3_1234_5678n)).toBe(0x3_1234_5678n);
    bare.wr(0x104, 0x0180);
    expect(bare.go(1, 0n)).toBe(-1);
    bare.wr(0x104, 0x1000);
    expect(bare.go(1, 0n)).toBe(-1);
    bare.wr(0x104, 0xffff_ffff);
    expect(bare.rd(0x104)).toBe(0x1180);
    const none = new Bare({ bypass: false }).simple();
    none.wr(0x104, 0x1100);
    expect(none.rd(0x104)).toBe(0x1000);
    expect(none.go(1, 0x4000n)).toBe(-1);
  });

  test('stream enables and remap', () => {
    const bare = new Bare().simple();
    bare.leaf(0, 0x40_0000n | RW_LEAF);
    expect(bare.rd(0x80)).toBe(0x0302_0100);
    expect(bare.rd(0x8c)).toBe(0x0f0e_0d0c);
    bare.wr(0xfc, 0xfffd);
    expect(bare.go(1, 0n)).toBe(-1);
    bare.wr(0xfc, 0xffff);
    expect(bare.go(1, 0n)).toBe(0x40_0000n);
    // Stream 6 is served by stream 1.
    expect(bare.go(6, 0n)).toBe(-1);
    bare.wr(0x84, 0x0701_0504);
    expect(bare.go(6, 0n)).toBe(0x40_0000n);
    bare.wr(0x84, 0x07ff_0504);
    expect(bare.go(6, 0n)).toBe(-1);
  });

  test('what has no stream is refused without a record', () => {
    const bare = new Bare().simple();
    for (const stream of [16, 255, -1, 2 ** 31]) expect(bare.go(stream, 0n)).toBe(1);
    expect(bare.dart.translate(1, 5, 0, 0, R)).toBe(-1);
    expect(bare.rd(0x40)).toBe(0);
    expect(bare.dart.stats.faults).toBe(5);
  });
});

describe('error registers', () => {
  test('first error sticks; ones clear; then the next is recorded', () => {
    const bare = new Bare().simple();
    expect(bare.dart.interruptLine).toBe(false);
    expect(bare.go(1, 0x3_0000_4123n, W)).toBe(-2);
    expect(bare.interrupts).toEqual(['error']);
    expect(bare.dart.interruptLine).toBe(true);
    expect(bare.rd(0x40)).toBe(0x8100_0002);
    expect(bare.rd(0x50)).toBe(0x0000_4123);
    expect(bare.rd(0x54)).toBe(3);
    expect(bare.go(7, 0x99n)).toBe(-1);
    expect(bare.rd(0x40)).toBe(0x8100_0002);
    expect(bare.rd(0x50)).toBe(0x0000_4123);
    expect(bare.interrupts).toHaveLength(1);
    // Zeros clear nothing, ones clear what they hit.
    bare.wr(0x40, 0);
    expect(bare.rd(0x40)).toBe(0x8100_0002);
    bare.wr(0x40, 0x8000_0000);
    expect(bare.rd(0x40)).toBe(0x0100_0002);
    expect(bare.dart.interruptLine).toBe(false);
    expect(bare.go(15, 0x98n)).toBe(-1);
    expect(bare.rd(0x40)).toBe(0x8f00_0001);
    expect(bare.rd(0x50)).toBe(0x98);
    expect(bare.interrupts).toHaveLength(2);
    bare.wr(0x40, bare.rd(0x40));
    expect(bare.rd(0x40)).toBe(0);
    // The address registers are read-only.
    bare.wr(0x50, 0xffff);
    expect(bare.rd(0x50)).toBe(0x98);
    expect(bare.dart.stats.faults).toBe(3);
  });

  test('a permission fault from a cached entry is the same as from a walk', () => {
    const bare = new Bare().simple();
    bare.leaf(0, 0x40_0000n | RW_LEAF | 0x80n);
    expect(bare.go(1, 0x10n)).toBe(0x40_0010n);
    expect(bare.go(1, 0x10n, W)).toBe(-8);
    expect(bare.rd(0x40)).toBe(0x8100_0008);
    // Read-only in the cache, writable by now in memory: the walk decides.
    bare.leaf(0, 0x40_0000n | RW_LEAF);
    expect(bare.go(1, 0x10n, W)).toBe(0x40_0010n);
  });
});

describe('t8020 flush', () => {
  test('by mask', () => {
    const bare = warmed();
    expect(cached(bare)).toEqual([true, true, true, true]);
    bare.wr(0x34, 0b0101);
    expect(cached(bare)).toEqual([true, true, true, true]);
    bare.wr(0x20, 0x10_0000);
    expect(bare.rd(0x20)).toBe(0);
    expect(bare.rd(0x34)).toBe(5);
    expect(cached(bare)).toEqual([false, true, false, true]);
    bare.wr(0x34, 0xffff_ffff);
    bare.wr(0x20, 0x10_0000);
    expect(cached(bare)).toEqual([false, false, false, false]);
    expect(bare.dart.stats).toMatchObject({ commands: 2, invalidations: 2 });
  });

  test('other commands do nothing', () => {
    const bare = warmed();
    bare.wr(0x34, 0xffff);
    bare.wr(0x20, 0x8);
    bare.wr(0x20, 0);
    expect(cached(bare)).toEqual([true, true, true, true]);
    expect(bare.dart.stats.commands).toBe(0);
  });

  test('table changes take effect only by a flush, TCR and enables at once', () => {
    const bare = warmed();
    bare.wr(0x210, 0);
    expect(bare.go(1, 0n)).toBe(0x40_0000n);
    bare.wr(0x104, 0);
    expect(bare.go(1, 0n)).toBe(-1);
    bare.wr(0xfc, 0xfffb);
    expect(bare.go(2, 0n)).toBe(-1);
  });

  test('BUSY: the flush happens when it falls', () => {
    const bare = warmed(3);
    bare.wr(0x34, 0b0010);
    bare.wr(0x20, 0x10_0000);
    // What is selected later is not part of it.
    bare.wr(0x34, 0b1111);
    expect(bare.rd(0x20)).toBe(4);
    expect(bare.rd(0x20)).toBe(4);
    expect(cached(bare)).toEqual([true, true, true, true]);
    expect(bare.rd(0x20)).toBe(4);
    expect(bare.rd(0x20)).toBe(0);
    expect(cached(bare)).toEqual([true, false, true, true]);
    // A second command finishes the first.
    bare.wr(0x34, 0b0001);
    bare.wr(0x20, 0x10_0000);
    bare.wr(0x34, 0b1000);
    bare.wr(0x20, 0x10_0000);
    expect(cached(bare)).toEqual([false, false, true, true]);
    // Reset forgets one under way.
    bare.dart.reset();
    expect(bare.rd(0x20)).toBe(0);
    expect(bare.dart.stats.commands).toBe(0);
  });
});

describe('locked', () => {
  test('t8020: TCR, TTBR, REMAP and CONFIG are read-only, the rest works', () => {
    const bare = new Bare().simple();
    bare.leaf(0, 0x40_0000n | RW_LEAF);
    bare.wr(0x60, 0x8000);
    expect(bare.rd(0x60)).toBe(0x8000);
    for (const offset of [0x60, 0x80, 0x8c, 0x100, 0x104, 0x13c, 0x200, 0x210, 0x2fc]) {
      const before = bare.rd(offset);
      bare.wr(offset, ~before);
      expect(bare.rd(offset), offset.toString(16)).toBe(before);
    }
    expect(bare.go(1, 0n)).toBe(0x40_0000n);
    expect(bare.go(1, 0x4000n)).toBe(-4);
    bare.wr(0x40, bare.rd(0x40));
    expect(bare.rd(0x40)).toBe(0);
    bare.leaf(0, 0n);
    bare.wr(0x34, 2);
    bare.wr(0x20, 0x10_0000);
    expect(bare.go(1, 0n)).toBe(-4);
    bare.dart.reset();
    expect(bare.rd(0x60)).toBe(0);
  });
  test('out of reset', () => {
    const bare = new Bare({ locked: true });
    expect(bare.rd(0x60)).toBe(0x8000);
    bare.wr(0x60, 0);
    bare.wr(0x100, 0x80);
    expect([bare.rd(0x60), bare.rd(0x100)]).toEqual([0x8000, 0]);
    const t8110 = new Bare({ preset: 't8110', locked: true });
    t8110.wr(0x204, 0xffff_ffff);
    t8110.wr(0x1000, 1);
    expect([t8110.rd(0x200), t8110.rd(0x1000)]).toEqual([1, 0]);
  });
});

describe('t8110', () => {
  test('three levels, and 42-bit addresses', () => {
    const bare = makeT8110();
    expect(bare.go(200, 0x123n)).toBe(0x3a_0000_4123n);
    expect(bare.go(200, 0x4000n, W)).toBe(-8);
    expect(bare.rd(0x100)).toBe((0x9000_0008 | (200 << 20)) >>> 0);
    bare.wr(0x100, 0xffff_ffff);
    expect(bare.go(200, 0x200_0000n)).toBe(-4);
    expect(bare.rd(0x100)).toBe((0x8000_0004 | (200 << 20)) >>> 0);
    expect(bare.go(200, 0x10_0000_0000n)).toBe(-1);
    // VA_WIDTH is 36: there is no fourth level to turn on.
    bare.wr(0x1000 + 800, 9);
    expect(bare.rd(0x1000 + 800)).toBe(1);
  });

  test('four levels', () => {
    const bare = makeT8110('t6020');
    bare.memory.writeU64(0x2_0000n, (0x1_0000n >> 4n) | 1n);
    bare.wr(0x1400 + 800, (0x2_0000 >> 12) | 1);
    bare.wr(0x1000 + 800, 9);
    expect(bare.go(200, 0x123n)).toBe(0x3a_0000_4123n);
    expect(bare.go(200, 0x10_0000_0000n)).toBe(-2);
    expect(bare.go(200, 0x3ff_ffff_ffffn)).toBe(-2);
    expect(bare.go(200, 0x400_0000_0000n)).toBe(-1);
    expect(bare.dart.stats.walkReads).toBe(5);
  });

  test('permissions and sub-pages', () => {
    const bare = makeT8110();
    const leaf = (bits: bigint): void => {
      bare.memory.writeU64(0x1_4000n, (0x40_0000n >> 4n) | bits);
      bare.wr(0x80, 0x100 | 200);
    };
    leaf((0xfffn << 40n) | 1n | 4n);
    expect([bare.go(200, 0n), bare.go(200, 0n, W)]).toEqual([0x40_0000n, -0x10]);
    leaf((0xfffn << 40n) | 1n | 8n);
    expect([bare.go(200, 0n), bare.go(200, 0n, W)]).toEqual([-0x20, 0x40_0000n]);
    leaf((0xfffn << 40n) | 1n | 2n);
    expect([bare.go(200, 0n), bare.go(200, 0n, W)]).toEqual([0x40_0000n, 0x40_0000n]);
    // Bit 1 is NO_CACHE here: it does not turn sub-page protection off.
    leaf((1n << 52n) | (1n << 40n) | 3n);
    expect([bare.go(200, 4n, R, 4), bare.go(200, 0n), bare.go(200, 4n, W, 5)]).toEqual([0x40_0004n, -0x20, -0x10]);
  });

  test('error streams, SECONDARY and the interrupt mask', () => {
    const bare = makeT8110();
    bare.wr(0xc00, 0xff);
    expect(bare.go(3, 0n)).toBe(-1);
    expect(bare.rd(0x100)).toBe(0x8030_0001);
    expect(bare.go(200, 0x4000n)).toBe(-8);
    expect(bare.rd(0x100)).toBe(0x8038_0001);
    expect([bare.rd(0x1c0), bare.rd(0x1c0 + 24)]).toEqual([8, 0x100]);
    bare.wr(0x1c0, 0xffff_ffff);
    bare.wr(0x100, bare.rd(0x100));
    expect([bare.rd(0x100), bare.rd(0x1c0), bare.rd(0x1c0 + 24)]).toEqual([0, 0, 0x100]);
    expect(bare.interrupts).toHaveLength(1);
    // Masked: recorded, but silent until unmasked.
    bare.wr(0x104, 8);
    expect(bare.go(200, 0x5_4000n)).toBe(-8);
    expect(bare.rd(0x170)).toBe(0x5_4000);
    expect([bare.interrupts.length, bare.dart.interruptLine]).toEqual([1, false]);
    bare.wr(0x104, 0);
    expect([bare.interrupts.length, bare.dart.interruptLine]).toEqual([2, true]);
  });

  test('TLB_CMD', () => {
    const bare = makeT8110('t8110', 2);
    bare.go(200, 0n);
    bare.memory.writeU64(0x1_4000n, 0n);
    bare.wr(0x80, 0x100 | 199);
    bare.wr(0x80, 0x200 | 200);
    bare.wr(0x80, 0x400);
    while (bare.rd(0x80) >>> 31 === 1);
    expect(bare.go(200, 0n)).toBe(0x3a_0000_4000n);
    bare.wr(0x80, 0x100 | 200);
    expect(bare.rd(0x80)).toBe(0x8000_0000);
    expect(bare.go(200, 0n)).toBe(0x3a_0000_4000n);
    expect([bare.rd(0x80), bare.rd(0x80)]).toEqual([0x8000_0000, 0]);
    expect(bare.go(200, 0n)).toBe(-8);
    expect(bare.dart.stats).toMatchObject({ commands: 2, invalidations: 2 });
    const all = makeT8110();
    all.go(200, 0n);
    all.memory.writeU64(0x1_4000n, 0n);
    all.wr(0x80, 0);
    expect(all.go(200, 0n)).toBe(-8);
  });

  test('enable and disable', () => {
    const bare = makeT8110();
    expect(bare.rd(0xc18)).toBe(0x100);
    bare.wr(0xc18, 0x1);
    expect(bare.rd(0xc18)).toBe(0x101);
    bare.wr(0xc38, 0x100);
    expect([bare.rd(0xc18), bare.rd(0xc38)]).toEqual([1, 0]);
    expect(bare.go(200, 0n)).toBe(-1);
    const few = new Bare({ preset: 't8110', streams: 5 });
    for (let i = 0; i < 8; i++) few.wr(0xc00 + 4 * i, 0xffff_ffff);
    expect([few.rd(0xc00), few.rd(0xc04)]).toEqual([0x1f, 0]);
    few.wr(0x1000 + 20, 1);
    few.wr(0x1400 + 20, 0xffff_ffff);
    expect([few.rd(0x1000 + 20), few.rd(0x1400 + 20)]).toEqual([0, 0]);
  });

  test('remap, one step only', () => {
    const bare = makeT8110();
    bare.wr(0xc00, 0xff);
    bare.memory.writeU64(0x1_4000n, (0xfffn << 40n) | (0x40_0000n >> 4n) | 1n);
    bare.wr(0x1400 + 8, 0x11);
    bare.wr(0x1000 + 8, 1);
    bare.wr(0x1000 + 12, 0x280);
    expect(bare.go(3, 0n)).toBe(0x40_0000n);
    // 4 → 3 → 2: stream 3's own TCR does not translate.
    bare.wr(0x1000 + 16, 0x380);
    expect(bare.go(4, 0n)).toBe(-1);
    bare.wr(0x1000 + 16, 0x480);
    expect(bare.go(4, 0n)).toBe(-1);
  });

  test('PROTECT, UNPROTECT and PROTECT_LOCK', () => {
    const bare = makeT8110();
    bare.wr(0x200, 0xffff_fff1);
    expect(bare.rd(0x200)).toBe(0x11);
    bare.wr(0x1000 + 800, 0);
    bare.wr(0x1400 + 800, 0);
    expect(bare.go(200, 0n)).toBe(0x3a_0000_4000n);
    bare.wr(0x204, 1);
    expect([bare.rd(0x200), bare.rd(0x204)]).toEqual([0x10, 0]);
    bare.wr(0x200, 1);
    bare.wr(0x208, 1);
    bare.wr(0x208, 0);
    bare.wr(0x204, 0x11);
    expect([bare.rd(0x200), bare.rd(0x208)]).toEqual([1, 1]);
    bare.wr(0x1000 + 800, 0);
    expect(bare.rd(0x1000 + 800)).toBe(1);
  });
});

describe('garbage', () => {
  test.each(['t8103', 't8103-4k', 't6000', 't8110', 't6020'] as const)(
    '%s: register writes and DMA at random',
    (preset) => {
      const seed = 77;
      const random = new Random(seed);
      const memory = new PhysicalMemory([{ base: 0n, size: GIB / 64n }]);
      const bare = new Bare({ preset, memory, iotlb: { mode: 'sized', sets: 4, ways: 2 }, busyReads: 2 });
      for (let i = 0; i < 4096; i++) memory.writeU64(BigInt(random.below(1 << 21)) * 8n, random.u64());
      const hot = [0x20, 0x34, 0x40, 0x60, 0x80, 0xfc, 0x80, 0x100, 0x104, 0x200, 0x204, 0xc00, 0xc20];
      let answered = 0;
      for (let i = 0; i < 40_000; i++) {
        const kind = random.below(8);
        // Locks would end the fun early: mostly others.
        let offset = kind < 3 ? random.pick(hot) : random.below(0x4000 + 64) - 16;
        if (kind === 3) offset = 0x100 + 4 * random.below(128);
        if (kind === 4) offset = 0x1000 + 4 * random.below(512);
        if (offset === 0x60 && random.below(50) > 0) continue;
        if (offset === 0x200 && preset.startsWith('t8110') && random.below(50) > 0) continue;
        switch (random.below(5)) {
          case 0:
            bare.dart.mmio.read32(offset);
            break;
          case 1:
            bare.dart.mmio.read64(offset);
            break;
          case 2:
            bare.dart.mmio.write64(offset, random.u32(), random.u32());
            break;
          default:
            bare.wr(offset, random.below(3) === 0 ? random.below(4096) | (random.u32() & 0x8000_0000) : random.u32());
        }
        for (let n = 0; n < 2; n++) {
          const got = bare.go(
            random.below(18) - 1,
            random.u64() >> BigInt(random.below(64)),
            1 + random.below(3),
            1 + random.below(64),
          );
          if (typeof got === 'bigint') answered++;
        }
        if (random.below(5000) === 0) bare.dart.reset();
      }
      expect(bare.dart.stats.faults + answered, `seed ${seed}`).toBeGreaterThan(100);
      // Still sound: after a reset it works.
      bare.dart.reset();
      expect(bare.dart.stats.faults).toBe(0);
      if (preset === 't8103') {
        bare.simple();
        bare.leaf(0, 0x40_0000n | RW_LEAF);
        expect(bare.go(1, 0x30n)).toBe(0x40_0030n);
      }
    },
  );
});
