/** Whatever is written to registers and structures: no exception, no hang, nothing outside memory. */
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { expect, test } from 'vitest';
import { RiscvIommuHardware } from '../src/hardware/unit.ts';
import { CAPABILITIES } from './bare-metal.ts';

/** xorshift32: the same sequence everywhere. */
const random = (seed: number): (() => number) => {
  let x = seed | 0 || 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
};

const ALL =
  CAPABILITIES | (1n << 25n) | (1n << 30n) | (1n << 42n) | (1n << 43n) | (1n << 14n) | (1n << 15n) | (2n << 28n);

test.each([1, 2, 3, 4])('random register accesses and DMA, seed %i', (seed) => {
  const next = random(seed * 0x9e37_79b1);
  const base = 0x10_0000n;
  const memory = new PhysicalMemory([{ base, size: 0x10_0000n }]);
  const hardware = new RiscvIommuHardware(memory, { capabilities: ALL }, { mode: seed % 2 === 0 ? 'none' : 'sized' });
  const { mmio } = hardware;
  // Addresses that often lie in memory, entries that are often valid.
  const page = (): number => 0x100 + (next() & 0xff);
  const entry = (): number => (page() << 10) | (next() & 0xff) | (next() % 4 === 0 ? 0 : 1);
  const word = (): number => {
    switch (next() % 4) {
      case 0:
        return next() | 0;
      case 1:
        return entry();
      case 2:
        return next() & 0xf;
      default:
        return (page() << 10) | (next() & 0x1f);
    }
  };
  for (let i = 0; i < 0x10_0000; i += 8) {
    if (next() % 3 === 0) continue;
    memory.store64(0, Number(base) + i, next() % 3 === 0 ? next() | 0 : (next() % 11) << 28, entry());
  }
  const counts = [0, 0];
  let faults = 0;
  for (let i = 0; i < 30_000; i++) {
    const offset =
      next() % 5 === 0
        ? next() & 0xfff
        : [8, 16, 24, 32, 36, 40, 48, 56, 64, 72, 76, 80, 84, 600, 608, 760][next() % 16]!;
    switch (next() % 6) {
      case 0:
        mmio.write32(offset, word());
        break;
      case 1:
        mmio.write64(offset & ~7, next() % 4 === 0 ? next() | 0 : 0, word());
        break;
      case 2:
        // A sane step now and then, or nothing would ever be on.
        if (next() % 2 === 0) mmio.write64(16, 0, (page() << 10) | (next() % 5));
        else mmio.write32(next() % 2 === 0 ? 72 : 76, (next() & 0xf00) | 3);
        break;
      case 3:
        expect(Number.isInteger(mmio.read32(offset))).toBe(true);
        mmio.read64(offset & ~7);
        break;
      default: {
        const pid = next() % 3 === 0 ? next() & 0xf_ffff : -1;
        const code = hardware.translate(
          next() % 2 === 0 ? next() & 0x3f : next(),
          pid,
          next() & 0x7f,
          next() | 0,
          1 + (next() % 15),
        );
        if (code === 0) counts[0]!++;
        else {
          faults++;
          expect(
            code === 1 || code === 5 || code === 7 || (code >= 12 && code <= 23) || (code >= 256 && code <= 274),
            `${code}`,
          ).toBe(true);
        }
      }
    }
  }
  expect(counts[0], `seed ${seed}: translations that succeeded`).toBeGreaterThan(10);
  expect(faults).toBeGreaterThan(1000);
  // Still sane: after a reset it behaves.
  hardware.reset();
  expect(hardware.translate(1, -1, 0, 0, 1)).toBe(256);
  mmio.write64(16, 0, 1);
  expect(hardware.translate(1, -1, 0, 0x1234, 1)).toBe(0);
});

test('a command queue as large as it can be ends at the first bad command', () => {
  const memory = new PhysicalMemory([{ base: 0n, size: 1n << 40n }]);
  const hardware = new RiscvIommuHardware(memory);
  const { mmio } = hardware;
  mmio.write64(24, 0, 31);
  mmio.write32(36, -1);
  mmio.write32(72, 1);
  expect(mmio.read32(36) >>> 0).toBe(0xffff_ffff);
  expect(mmio.read32(72)).toBe(0x1_0401);
  // And the fault queue with the index at its very end.
  mmio.write64(40, 0, (1 << 30) | 31);
  mmio.write32(48, 0);
  mmio.write32(76, 1);
  for (let i = 0; i < 10; i++) hardware.translate(1, -1, 0, 0, 1);
  expect(mmio.read32(52)).toBe(10);
});
