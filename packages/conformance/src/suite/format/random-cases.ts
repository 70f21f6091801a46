/** Random operations against a plain list of extents: the table must hold exactly what the list says, at every step. */
import { hex } from '@iommu-ts/bits';
import { expect } from 'vitest';
import { Random } from '../../random.ts';
import type { FormatSuiteCase } from './cases.ts';
import { same } from './rig.ts';
import type { FormatRig } from './rig.ts';

interface Extent {
  readonly iova: bigint;
  readonly pa: bigint;
  readonly length: bigint;
}

const STEPS = 150;

/** Adjacent leaves of a translation merged, so that page sizes do not matter. */
const merged = (extents: readonly Extent[]): string[] => {
  const out: { iova: bigint; pa: bigint; length: bigint }[] = [];
  for (const { iova, pa, length } of extents.toSorted((a, b) => (a.iova < b.iova ? -1 : 1))) {
    const last = out[out.length - 1];
    if (last !== undefined && last.iova + last.length === iova && last.pa + last.length === pa) last.length += length;
    else out.push({ iova, pa, length });
  }
  return out.map(({ iova, pa, length }) => `${hex(iova)} -> ${hex(pa)} + ${hex(length)}`);
};

const randomMap = (rig: FormatRig, seed: number): void => {
  const random = new Random(seed);
  const held: Extent[] = [];
  const sizes = rig.sizes.filter(
    (size) => size * 8n <= rig.span && size <= 1n << 32n && size < 1n << BigInt(rig.config.oas),
  );
  for (let step = 0; step < STEPS; step++) {
    const where = `seed ${seed} step ${step}`;
    if (held.length > 0 && random.oneIn(3)) {
      const [gone] = held.splice(random.below(held.length), 1);
      expect(rig.unmap(gone!.iova, gone!.length), where).toBe(gone!.length);
    } else {
      const size = random.pick(sizes);
      const length = size * BigInt(1 + random.below(random.oneIn(4) ? 600 : 4));
      if (length * 2n > rig.span || length >= 1n << BigInt(rig.config.oas)) continue;
      const slots = rig.span / size;
      const window = slots > 4096n ? 4096 : Number(slots);
      let iova = rig.origin + size * BigInt(random.below(window));
      if (random.oneIn(3)) iova = rig.origin + rig.span - size * BigInt(window) + size * BigInt(random.below(window));
      const paSlots = ((1n << BigInt(rig.config.oas)) - length) / size;
      const pa = size * (random.oneIn(2) ? (iova / size) % (paSlots + 1n) : BigInt(random.below(Number(paSlots) + 1)));
      if (iova + length > rig.origin + rig.span) continue;
      const clash = held.some((one) => iova < one.iova + one.length && one.iova < iova + length);
      // io-pgtable may drop live tables under a block: overlap is for the other cases.
      if (clash) continue;
      expect(rig.map(iova, pa, length), `${where}: map ${hex(iova)} -> ${hex(pa)} + ${hex(length)}`).toBe(0);
      held.push({ iova, pa, length });
    }
    const probe = rig.origin + rig.granule * BigInt(random.below(1 << 20));
    const owner = held.find((one) => probe >= one.iova && probe < one.iova + one.length);
    const want = owner === undefined ? null : owner.pa + (probe - owner.iova);
    if (probe < rig.origin + rig.span) same(rig.phys(probe), want, `${where}: look-up of ${hex(probe)}`);
    if (step % 25 === 24) {
      const leaves = [...rig.table.leaves()].map(({ iova, pa, size: length }) => ({ iova, pa, length }));
      expect(merged(leaves), where).toEqual(merged(held));
    }
  }
  for (const one of held) expect(rig.unmap(one.iova, one.length), `seed ${seed} end`).toBe(one.length);
  expect(rig.leaves()).toEqual([]);
};

export const randomCases: readonly FormatSuiteCase[] = [
  { name: 'random_map', run: (rig) => randomMap(rig, 0x5eed) },
  { name: 'random_map_2', run: (rig) => randomMap(rig, 0xbeef) },
];
