/**
 * The hardware against a second walker that shares nothing with it, on tables of random garbage and on tables that the
 * driver built; there the engine has its say too.
 */
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { createAppleDart } from '../src/system.ts';
import type { DartPreset } from '../src/parts.ts';
import { Bare, R, Random, W } from './rig.ts';
import { answer } from './walker.ts';
import type { Setup } from './walker.ts';

const SEED = 20_261_123;

interface Case {
  readonly preset: DartPreset;
  readonly setup: Omit<Setup, 'tops'>;
  readonly ttbrs: number;
}

const cases: readonly Case[] = [
  { preset: 't8103', setup: { registers: 't8020', entries: 1, pageBytes: 16384, levels: 2, iovaBits: 38 }, ttbrs: 4 },
  { preset: 't8103-4k', setup: { registers: 't8020', entries: 1, pageBytes: 4096, levels: 2, iovaBits: 32 }, ttbrs: 4 },
  { preset: 't6000', setup: { registers: 't8020', entries: 2, pageBytes: 16384, levels: 2, iovaBits: 38 }, ttbrs: 4 },
  { preset: 't8110', setup: { registers: 't8110', entries: 2, pageBytes: 16384, levels: 2, iovaBits: 36 }, ttbrs: 1 },
  { preset: 't6020', setup: { registers: 't8110', entries: 2, pageBytes: 16384, levels: 3, iovaBits: 42 }, ttbrs: 1 },
  { preset: 't6020', setup: { registers: 't8110', entries: 2, pageBytes: 16384, levels: 2, iovaBits: 36 }, ttbrs: 1 },
];

/** Puts top tables into the registers of `stream` and turns it on, with plain numbers. */
const program = (bare: Bare, { setup }: Case, stream: number, tops: readonly (bigint | null)[]): void => {
  if (setup.registers === 't8020') {
    bare.wr(0xfc, 0xffff);
    for (const [i, top] of tops.entries())
      bare.wr(0x200 + 16 * stream + 4 * i, top === null ? 0 : Number(0x8000_0000n | (top >> 12n)));
    bare.wr(0x100 + 4 * stream, 0x80);
    return;
  }
  for (let i = 0; i < 8; i++) bare.wr(0xc00 + 4 * i, 0xffff_ffff);
  bare.wr(0x1400 + 4 * stream, tops[0] === null ? 0 : Number(((tops[0]! >> 14n) << 2n) | 1n));
  bare.wr(0x1000 + 4 * stream, setup.levels === 3 ? 0x9 : 0x1);
};

const encodeAddress = (setup: Omit<Setup, 'tops'>, pa: bigint): bigint => (setup.entries === 1 ? pa : pa >> 4n);

/** An entry that points somewhere: mostly to one of `pages`, sometimes outside the RAM, sometimes not valid or pure noise. */
const randomEntry = (random: Random, setup: Omit<Setup, 'tops'>, pages: readonly bigint[]): bigint => {
  const kind = random.below(16);
  if (kind === 0) return 0n;
  if (kind === 1) return random.u64();
  const pa = kind === 2 ? 1n << 35n : random.pick(pages);
  // Bits that table entries and leaves may have besides: protection, sub-pages.
  const low = BigInt(random.below(512)) & (setup.entries === 1 ? 0x182n : 0xen);
  const whole = random.below(3) > 0;
  const sub = whole ? 0xfffn << 40n : (random.u64() >> 40n) << 40n;
  return encodeAddress(setup, pa) | low | sub | (kind === 3 ? 0n : 1n);
};

const withLimit = (random: Random, setup: Omit<Setup, 'tops'>): bigint => {
  const wide = BigInt(setup.iovaBits);
  return random.below(20) === 0 ? random.u64() : random.u64() & ((1n << wide) - 1n);
};

describe.each(cases)('$preset, $setup.levels levels', (which) => {
  const { setup } = which;

  test.each(['none', 'sized'] as const)('garbage tables, IOTLB %s', (mode) => {
    const random = new Random(SEED);
    // RAM above the 4 GiB line too, so that high address bits count.
    const memory = new PhysicalMemory([
      { base: 0n, size: 1n << 28n },
      { base: 0x8_0000_0000n - (1n << 24n), size: 1n << 24n },
    ]);
    const bare = new Bare({ preset: which.preset, iotlb: { mode, sets: 2, ways: 2 }, memory });
    const page = BigInt(setup.pageBytes);
    const pages = Array.from({ length: 12 }, (_, i) => (i % 3 === 0 ? 0x7_ff00_0000n : 0x40_0000n) + BigInt(i) * page);
    const slots = setup.pageBytes / 8;
    // Some slots are used, so that walks meet entries.
    const used = [...Array.from({ length: 60 }, (_, i) => i), slots - 1];
    for (const pa of pages)
      for (const slot of used) memory.writeU64(pa + BigInt(8 * slot), randomEntry(random, setup, pages));
    const tops = Array.from({ length: which.ttbrs }, (_, i) => (i === 2 ? null : random.pick(pages)));
    const stream = 3;
    program(bare, which, stream, tops);
    const seen = new Map<string, number>();
    for (let i = 0; i < 12_000; i++) {
      let iova = withLimit(random, setup);
      if (iova < 1n << BigInt(setup.iovaBits)) {
        // Move the walk onto the used slots.
        for (let level = 0n; level < BigInt(setup.levels); level++) {
          const unit = page * BigInt(slots) ** level;
          const slot = (iova / unit) % BigInt(slots);
          iova += (BigInt(random.pick(used)) - slot) * unit;
        }
      }
      const access = random.below(2) === 0 ? 'r' : 'w';
      const length = 1 + random.below(Math.min(64, 4096 - Number(iova & 0xfffn)));
      const want = answer(memory, { ...setup, tops }, iova, access, length);
      const got = bare.go(stream, iova, access === 'r' ? R : W, length);
      const wanted = 'pa' in want ? want.pa : -want.code;
      if (got !== wanted) {
        expect(got, `seed ${SEED} step ${i} iova 0x${iova.toString(16)} ${access} length ${length}`).toBe(wanted);
      }
      const kind = 'pa' in want ? 'ok' : `${want.code}`;
      seen.set(kind, (seen.get(kind) ?? 0) + 1);
    }
    // Every kind of answer was met.
    const kinds = setup.registers === 't8020' ? [1, 2, 4, 8, 16, 64, 128] : [1, 4, 8, 16, 32, 64];
    for (const kind of ['ok', ...kinds]) expect(seen.get(`${kind}`) ?? 0, `answers ${kind}`).toBeGreaterThan(10);
    if (setup.levels === 3) expect(seen.get('2') ?? 0).toBeGreaterThan(10);
  });
});

describe.each(['t8103', 't8103-4k', 't6000', 't8110', 't6020'] as const)('%s: what the driver built', (preset) => {
  test('engine, second walker and hardware agree', () => {
    const random = new Random(SEED + 1);
    const system = createAppleDart({ preset, streams: 16, iotlb: { mode: 'sized', sets: 4, ways: 2 } });
    const { driver, hardware, memory } = system;
    const { setup } = cases.find((c) => c.preset === preset)!;
    const domain = driver.createDomain();
    driver.attach(5, domain);
    const { granuleLg2, apertureLast, oas } = driver.info;
    const g = BigInt(granuleLg2);
    const pages = (apertureLast + 1n) >> g;
    const tops =
      setup.registers === 't8020'
        ? [0, 1, 2, 3].map((i) => {
            const ttbr = hardware.mmio.read32(0x200 + 16 * 5 + 4 * i) >>> 0;
            return ttbr >= 0x8000_0000 ? BigInt(ttbr - 0x8000_0000) << 12n : null;
          })
        : [BigInt((hardware.mmio.read32(0x1400 + 20) >>> 2) & 0xfff_ffff) << 14n];
    const live = new Map<bigint, { pa: bigint; prot: number }>();
    // Places close together, so that maps and unmaps meet, in several stretches of the aperture.
    const place = (): bigint => {
      const stretch = (BigInt(random.below(5)) * (pages - 64n)) / 4n;
      return (stretch + BigInt(random.below(64))) << g;
    };
    const access = [R, W] as const;
    for (let step = 0; step < 2000; step++) {
      const iova = place();
      const known = live.get(iova);
      if (known === undefined && random.below(2) === 0) {
        const pa = ((random.u64() & ((1n << BigInt(oas)) - 1n)) >> g) << g;
        const prot = 1 + random.below(3);
        domain.map(iova, pa, 1n << g, prot);
        live.set(iova, { pa, prot });
      } else if (known !== undefined && random.below(3) === 0) {
        expect(domain.unmap(iova, 1n << g)).toBe(1n << g);
        live.delete(iova);
      }
      const at = place() + BigInt(random.below(1 << granuleLg2));
      const mapped = live.get((at >> g) << g);
      const offset = at & ((1n << g) - 1n);
      const where = `seed ${SEED + 1} step ${step} iova 0x${at.toString(16)}`;
      expect(domain.iovaToPhys(at), where).toBe(mapped === undefined ? null : mapped.pa + offset);
      for (const bit of access) {
        const want = answer(memory, { ...setup, tops }, at, bit === R ? 'r' : 'w');
        const code = hardware.translate(5, -1, Number(at >> 32n), Number(at & 0xffff_ffffn), bit);
        if (mapped !== undefined && (mapped.prot & bit) !== 0) {
          expect(want, where).toEqual({ pa: mapped.pa + offset });
          expect(code, where).toBe(0);
          expect((BigInt(hardware.outHi >>> 0) << 32n) | BigInt(hardware.outLo >>> 0), where).toBe(mapped.pa + offset);
        } else {
          expect(want, where).toEqual({ code });
          expect(code, where).not.toBe(0);
        }
      }
    }
    expect(hardware.iotlb.hits).toBeGreaterThan(100);
  });
});
