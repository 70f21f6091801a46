/**
 * Whatever is written to the registers and to memory, the unit neither throws nor hangs, and keeps its own rules; and a probe
 * foretells what a translation answers, without a trace.
 */
import { LAYER } from '@iommu-ts/iommu-core';
import { Random } from '@iommu-ts/conformance';
import { expect, test } from 'vitest';
import { PRESETS, SmmuV3 } from '../src/index.ts';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { Bare, CD, CMDQ, STRTAB, TABLES, TABLES2, cd0, s2, ste } from './bare.ts';

const OFFSETS = [
  0x20, 0x28, 0x2c, 0x44, 0x50, 0x64, 0x68, 0x70, 0x80, 0x88, 0x90, 0x98, 0x9c, 0xa0, 0xb0, 0xb8, 0x100a8, 0x100ac,
];
const CODES = [-1, 2, 3, 4, 6, 8, 9, 0xa, 0xb, 0x10, 0x11, 0x12, 0x13];

/** What a probe may not change: counters, registers, and how much is cached. */
const trace = (unit: SmmuV3): string => {
  let sum = 0;
  for (const word of unit.registers.words) sum = (Math.imul(sum, 31) + word) | 0;
  const { size, hits, misses, evictions, invalidated } = unit.iotlb;
  return JSON.stringify([sum, unit.stats, size, hits, misses, evictions, invalidated, unit.retained]);
};

test.each([
  [1, 'sized', 30_000],
  [20_261_123, 'sized', 30_000],
  [0x5eed, 'sized', 30_000],
  [2, 'retain', 15_000],
  [0xcafe, 'retain', 15_000],
] as const)('garbage, seed %i, IOTLB %s', (seed, mode, steps) => {
  const random = new Random(seed);
  const word = (): number => (random.oneIn(3) ? random.below(0x1_0000) : random.next()) | 0;
  const bare = new Bare(PRESETS.full, { mode });
  const { unit, memory } = bare;
  const without = new SmmuV3(memory, { ids: PRESETS.full, iotlb: { mode: 'none' } });
  // The unit's own registers are reachable by its MSIs.
  memory.addMmio({ name: 'smmu', base: 0x1_0000_0000n, size: 0x2_0000n, handler: unit.registers });
  const places = [CMDQ, STRTAB, CD, TABLES, TABLES + 0x1000n, TABLES2, TABLES2 + 0x1000n];
  const foretells = (sid: number, pasid: number, hi: number, lo: number, access: number): void => {
    const before = trace(unit);
    const told = unit.probe(sid, pasid, hi, lo, access, LAYER.ALL);
    const where = [unit.outHi, unit.outLo];
    const bareTold = unit.probe(sid, pasid, hi, lo, access, 0);
    const bareWhere = [unit.outHi, unit.outLo];
    for (let layers = 1; layers < 7; layers++) unit.probe(sid, pasid, hi, lo, access, layers);
    expect(trace(unit)).toBe(before);
    without.reset();
    without.registers.words.set(unit.registers.words);
    // Both have one memory: EVENTQEN = 0, so that this one writes no event into it.
    without.registers.words[0x20 / 4]! &= ~4;
    expect(bareTold).toBe(without.translate(sid, pasid, hi, lo, access));
    if (bareTold === 0) expect(bareWhere).toEqual([without.outHi, without.outLo]);
    expect(unit.translate(sid, pasid, hi, lo, access)).toBe(told);
    if (told === 0) expect(where).toEqual([unit.outHi, unit.outLo]);
  };
  let translated = 0;
  let faults = 0;
  let commands = 0;
  for (let i = 0; i < steps; i++) {
    switch (random.below(9)) {
      case 0:
        unit.mmio.write32(random.oneIn(2) ? random.pick(OFFSETS) : random.below(0x2_1000), word());
        break;
      case 1:
        unit.mmio.write64(random.oneIn(2) ? random.pick(OFFSETS) : random.below(0x2_1000), word(), word());
        break;
      case 2:
        unit.mmio.read32(random.below(0x2_1000));
        unit.mmio.read64(random.pick(OFFSETS) & ~7);
        break;
      case 3: {
        // Structures, commands and tables of noise, often with the bits that lead on.
        const at = random.pick(places) + BigInt(8 * random.below(64));
        const noise = (BigInt(random.next()) << 32n) | BigInt(random.next());
        const next = random.pick(places) | random.pick([1n, 3n, 0xc43n, 0x7ffn]);
        memory.writeU64(
          at,
          random.pick([noise, next, noise & 0xffn, (noise & 0x7fn) | (1n << 44n), next | (noise & ~0xffff_ffffn)]),
        );
        break;
      }
      case 4:
        // Back to something that runs, so that the rest is reached as well.
        faults += unit.stats.faults;
        commands += unit.stats.commands;
        unit.reset();
        bare.enable({ cfg: random.pick([8, 8, 16 | (6 << 6) | (1 << 16)]) });
        bare.stage1(1, 3, random.pick([5, 7]));
        bare.stream(2, ste(6, [0n, 0n, s2(25, 1), TABLES2]));
        bare.stream(3, ste(7, [CD, 0n, s2(25, 1), TABLES2]));
        bare.put(CD, [cd0(random.below(4)), TABLES]);
        bare.page(random.below(16), BigInt(random.below(0x10_0000)) << 12n);
        break;
      case 5:
        unit.mmio.write32(0x98, random.below(128));
        break;
      default: {
        const sid = random.oneIn(8) ? random.below(0x2_0000) : random.below(6);
        const pasid = random.oneIn(9) ? random.below(0x10_0000) : -1;
        const hi = random.oneIn(2) ? 0 : word();
        const lo = random.oneIn(2) ? random.below(0x1_0000) : word();
        const access = 1 + random.below(15);
        if (i % 32 === 0) foretells(sid, pasid, hi, lo, access);
        const code = unit.translate(sid, pasid, hi, lo, access);
        if (code === 0) translated++;
        else expect(CODES).toContain(code);
      }
    }
  }
  expect(translated).toBeGreaterThan(100);
  expect(faults).toBeGreaterThan(100);
  expect(commands).toBeGreaterThan(100);
});

test('a queue full of commands that ring the doorbell again ends', () => {
  const memory = new PhysicalMemory([{ base: 0n, size: 1n << 30n }]);
  const unit = new SmmuV3(memory, { ids: PRESETS.full });
  memory.addMmio({ name: 'smmu', base: 1n << 32n, size: 0x2_0000n, handler: unit.registers });
  // CMD_SYNC whose MSI writes CMDQ_PROD: always one entry further than the one that runs.
  for (let i = 0; i < 16; i++) {
    const prod = (i + 3) % 32;
    memory.writeU64(0x1000n + BigInt(16 * i), 0x1046n | (BigInt(prod) << 32n));
    memory.writeU64(0x1008n + BigInt(16 * i), (1n << 32n) + 0x98n);
  }
  unit.mmio.write64(0x90, 0, 0x1004);
  unit.mmio.write32(0x20, 8);
  unit.mmio.write32(0x98, 1);
  expect(unit.stats.commands).toBeLessThanOrEqual(64);
});
