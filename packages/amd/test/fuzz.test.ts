/** Whatever is written to the registers and to memory, the unit neither throws nor hangs, and keeps its own rules. */
import { expect, test } from 'vitest';
import { Bare, COMMANDS, CONTROL, DEVICE_TABLE, EVENTS, RAM_END, STATUS } from './bare.ts';

/** xorshift32: the seed in a failing test's name repeats it. */
const generator = (seed: number) => {
  let state = seed | 1;
  return (bound: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % bound;
  };
};

const OFFSETS = [
  0x0, 0x8, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x100, 0x138, 0x158, 0x1a0, 0x2000, 0x2008, 0x2010, 0x2018, 0x2020,
];

test.each([1, 20_261_123, 0x5eed])('garbage, seed %i', (seed) => {
  const random = generator(seed);
  const word = (): number => (random(3) === 0 ? random(0x1_0000) : random(0x1_0000_0000) | 0);
  const bare = new Bare({ efr: (1n << 6n) | (1n << 4n) | (1n << 1n) | (2n << 10n) | (3n << 38n) | (1n << 46n) });
  const { unit, memory } = bare;
  memory.addMmio({ name: 'iommu', base: RAM_END, size: 0x4000n, handler: unit.registers });
  let translated = 0;
  for (let i = 0; i < 20_000; i++) {
    switch (random(8)) {
      case 0:
        unit.mmio.write32(random(2) === 0 ? OFFSETS[random(OFFSETS.length)]! + 4 * random(2) : random(0x4100), word());
        break;
      case 1:
        unit.mmio.write64(random(2) === 0 ? OFFSETS[random(OFFSETS.length)]! : random(0x4100), word(), word());
        break;
      case 2:
        unit.mmio.read32(random(0x4100));
        unit.mmio.read64(OFFSETS[random(OFFSETS.length)]!);
        break;
      case 3: {
        // Commands, entries and tables of noise, with opcodes and present bits often right.
        const at = [COMMANDS, DEVICE_TABLE, 0x100_0000n][random(3)]! + BigInt(8 * random(512));
        const noise = (BigInt(word() >>> 0) << 32n) | BigInt(word() >>> 0);
        const shaped =
          random(2) === 0 ? noise : 0x6000_0000_0100_0003n | (BigInt(random(8)) << 9n) | (noise & 0xf0ff_f000n);
        memory.writeU64(
          at,
          BigInt.asUintN(64, random(3) === 0 ? (BigInt(random(16)) << 60n) | (noise & 0xffn) : shaped),
        );
        break;
      }
      case 4:
        // Back to something that runs, so that the rest is reached as well.
        bare.write64(0x0, DEVICE_TABLE);
        bare.write64(0x8, COMMANDS | (8n << 56n));
        bare.write64(0x10, EVENTS | (8n << 56n));
        bare.write64(CONTROL, 0n);
        bare.write64(CONTROL, 0x101dn);
        break;
      case 5:
        unit.mmio.write32(0x2008, random(512) << 4);
        break;
      default: {
        const code = unit.translate(
          random(300),
          random(9) === 0 ? random(0x10_0000) : -1,
          word(),
          word(),
          1 + random(3),
        );
        if (code === 0) translated++;
        else expect([-1, 1, 2, 3, 4, 8]).toContain(code);
      }
    }
  }
  expect(translated).toBeGreaterThan(100);
  expect(unit.stats.faults).toBeGreaterThan(100);
  expect(unit.stats.commands).toBeGreaterThan(100);
  // Still a working unit.
  unit.reset();
  expect(bare.read64(STATUS)).toBe(0n);
  bare.write64(0x0, DEVICE_TABLE);
  bare.write64(0x10, EVENTS | (8n << 56n));
  bare.write64(CONTROL, 5n);
  bare.dte(1, 1n);
  expect(bare.access(1, 0x1000n, 2)).toBe(2);
  expect(bare.event(0)).toEqual([0x2020_0000_0000_0001n, 0x1000n]);
});
