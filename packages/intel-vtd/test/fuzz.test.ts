/** Garbage: registers, structures, tables and queues of random bytes must neither throw, hang nor read outside memory. */
import { Random } from '@iommu-ts/conformance';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { Bare, CAP, ECAP, QUEUE, ROOT } from './rig.ts';

const OFFSETS = [
  0x0, 0x8, 0x10, 0x18, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x34, 0x38, 0x3c, 0x40, 0x44, 0x58, 0x64, 0x80, 0x88, 0x8c, 0x90,
  0x94, 0x9c, 0xa0, 0xa4, 0xa8, 0xac, 0xb0, 0xb8, 0xf0, 0xf4, 0xf8, 0xfc, 0x220, 0x224, 0x228, 0x22c,
];
const LEGACY = { cap: CAP, ecap: ECAP };
const SCALABLE = {
  cap: CAP | (1n << 56n),
  ecap: ECAP | (1n << 49n) | (1n << 47n) | (1n << 46n) | (1n << 43n) | (1n << 40n),
};

const u64 = (random: Random): bigint => (BigInt(random.next()) << 32n) | BigInt(random.next());

/** A value that means something now and then: addresses of the areas in use, single bits, small numbers. */
const value = (random: Random): bigint => {
  switch (random.below(6)) {
    case 0:
      return u64(random);
    case 1:
      return random.pick([ROOT, ROOT | 0x400n, QUEUE, QUEUE | 0x801n, 0x7f00_0000_0000n]);
    case 2:
      return 1n << BigInt(random.below(64));
    case 3:
      return BigInt(random.below(0x1000));
    case 4:
      return 0xffff_ffff_ffff_ffffn;
    default:
      return random.pick([
        0x8000_0000n,
        0xc400_0000n,
        0x0400_0000n,
        0x4000_0000n,
        0x8400_0000n,
        0x9000_0000_0000_0000n,
      ]);
  }
};

/** An entry that often points into memory and often has a plausible low part. */
const entry = (random: Random): bigint => {
  const address = random.oneIn(20) ? u64(random) & 0xf_ffff_ffff_f000n : BigInt(random.below(0x400)) << 12n;
  return address | BigInt(random.pick([0, 1, 3, 3, 7, 0x83, 0x87, 0x49, 0x8d, 0x101, random.below(0x1000)]));
};

describe.each([
  ['legacy', LEGACY],
  ['scalable', SCALABLE],
])('%s', (_name, config) => {
  test.each([1, 2, 3])('registers, seed %i', (seed) => {
    const random = new Random(seed);
    const bare = new Bare(config);
    bare.memory.addMmio({ name: 'vtd', base: 0xfed9_0000n, size: 0x1000n, handler: bare.unit.registers });
    for (let i = 0; i < 4096; i++)
      bare.put(QUEUE + 8n * BigInt(i), random.oneIn(3) ? u64(random) : BigInt(random.below(0x40)));
    for (let i = 0; i < 20_000; i++) {
      const offset = random.oneIn(10) ? random.below(0x1100) : random.pick(OFFSETS);
      switch (random.below(5)) {
        case 0:
          bare.unit.mmio.read32(offset);
          bare.unit.mmio.read64(offset);
          break;
        case 1:
          bare.wr(offset, Number(value(random) & 0xffff_ffffn));
          break;
        case 2:
        case 3:
          bare.wr64(offset, value(random));
          break;
        default: {
          const status = bare.go(
            random.below(0x1_0000),
            value(random),
            random.below(16),
            random.oneIn(4) ? random.below(0x10_0000) : -1,
          );
          expect(typeof status, `seed ${seed} step ${i}`).toBe('bigint');
        }
      }
    }
    // The identification registers have not moved.
    expect(bare.rd64(8)).toBe(config.cap);
    bare.unit.reset();
    expect(bare.go(1, 0x1234n)).toBe(0x1234n);
  });

  test.each([4, 5, 6])('structures and tables, seed %i', (seed) => {
    const random = new Random(seed);
    const memory = new PhysicalMemory([{ base: 0n, size: 4n << 20n }]);
    const bare = new Bare({ ...config, memory });
    for (let at = 0n; at < 0x40_0000n; at += 8n) if (random.oneIn(3)) memory.writeU64(at, entry(random));
    let translated = 0;
    let faults = 0;
    for (const mode of [0n, 1n, 2n, 3n]) {
      bare.enable(mode);
      for (let i = 0; i < 5000; i++) {
        const iova = random.oneIn(8) ? u64(random) : BigInt(random.below(0x1_0000_0000));
        const pasid = random.oneIn(4) ? random.below(0x100) : -1;
        const got = bare.go(random.below(0x1_0000), iova, 1 + random.below(3), pasid);
        if (got < 0n) faults++;
        else translated++;
        if (i % 50 === 0) bare.fault();
      }
    }
    expect(faults, `seed ${seed}`).toBeGreaterThan(1000);
    expect(translated + faults).toBe(20_000);
  });
});
