/**
 * `probe`: two equal DARTs live the same life, one of them is probed all the time. They stay equal in all that can be read and
 * in every answer to come; with all caches a probe says what `translate` says, without any what a DART says that has none.
 */
import type { IotlbOptions } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import type { DartPreset } from '../src/parts.ts';
import { Random } from './rig.ts';
import { DartWorld } from './world.ts';
import type { Target } from './world.ts';

const MODES: readonly IotlbOptions[] = [
  { mode: 'none' },
  { mode: 'sized', sets: 2, ways: 2 },
  { mode: 'unbounded' },
  { mode: 'retain' },
];
/** Codes that the run has to have met, -1 (refused without a record) among them. */
const PARTS: readonly (readonly [DartPreset, readonly number[]])[] = [
  ['t8103', [-1, 0x1, 0x2, 0x4, 0x8, 0x10, 0x40, 0x80]],
  ['t8103-4k', [-1, 0x1, 0x2, 0x4, 0x8, 0x10, 0x40, 0x80]],
  ['t6000', [-1, 0x1, 0x2, 0x4, 0x8, 0x10, 0x40, 0x80]],
  ['t8110', [-1, 0x1, 0x4, 0x8, 0x10, 0x20, 0x40]],
  ['t6020', [-1, 0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40]],
];

describe.each(PARTS)('%s', (preset, codes) => {
  test.each(MODES)('IOTLB $mode: no trace, and the answer of the caches asked for', (iotlb) => {
    const seed = 0xda27;
    const [random, script] = [new Random(seed), new Random(seed + 1)];
    const [probed, left] = [new DartWorld(preset, iotlb), new DartWorld(preset, iotlb)];
    const met = new Set<string>();
    const recent: Target[] = [];
    let cached = 0;
    for (let i = 0; i < 2000; i++) {
      const at = `seed 0x${seed.toString(16)}, step ${i}`;
      for (let n = 0; n < 3; n++) {
        const target = probed.targetOf(random);
        for (let layers = 0; layers < 8; layers++) probed.probe(target, layers);
      }
      const step = script.u32();
      if (script.below(3) === 0) for (const world of [probed, left]) world.step(new Random(step));
      // Half of the accesses come again, so that caches matter.
      const target = recent.length > 4 && script.below(2) === 0 ? script.pick(recent) : probed.targetOf(script);
      recent.unshift(target);
      recent.length = Math.min(recent.length, 8);
      const all = probed.probe(target, 7);
      const none = probed.probe(target, 0);
      const answer = probed.translate(target);
      const unprobed = left.translate(target);
      // Comparing first: tens of thousands of expectations take seconds.
      if (all !== answer || unprobed !== answer) expect([all, unprobed], at).toEqual([answer, answer]);
      met.add(answer);
      if (all !== none) cached++;
      if (i % 200 !== 0) continue;
      expect(probed.state(), at).toEqual(left.state());
      const fresh = probed.fresh(preset);
      for (let n = 0; n < 20; n++) {
        const other = probed.targetOf(random);
        expect(probed.probe(other, 0), at).toBe(fresh.translate(other));
      }
    }
    for (const code of codes) expect(met, `code ${code}`).toContain(`code ${code}`);
    // The script leaves stale entries about, so caches have to have made a difference, if there are any.
    if (iotlb.mode === 'none') expect(cached).toBe(0);
    else expect(cached).toBeGreaterThan(10);
  });
});
