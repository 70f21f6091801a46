/**
 * `probe`: two equal devices live the same life, one of them is probed all the time. They stay equal to the last bit, in every
 * answer to come as well, so a probe leaves no trace; with all caches it says what `translate` says, and without any what a
 * device says that has none.
 */
import { Random } from '@iommu-ts/conformance';
import type { IotlbOptions } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { World, targetOf } from './world.ts';
import type { Target } from './world.ts';

const MODES: readonly IotlbOptions[] = [
  { mode: 'none' },
  { mode: 'sized', sets: 2, ways: 2 },
  { mode: 'unbounded' },
  { mode: 'retain' },
];
/** Faults that the run has to have met, so that none is left untried. */
const CAUSES = [5, 7, 12, 13, 15, 20, 21, 23, 256, 258, 259, 260, 262, 263, 266];

describe.each(MODES)('IOTLB $mode', (iotlb) => {
  test('no trace, and the answer of the caches asked for', () => {
    const seed = 0x1511;
    const random = new Random(seed);
    const script = new Random(seed);
    const probed = new World(iotlb);
    const left = new World(iotlb);
    const interrupts: [string[], string[]] = [[], []];
    probed.bare.hardware.onInterrupt = (source) => interrupts[0].push(source);
    left.bare.hardware.onInterrupt = (source) => interrupts[1].push(source);
    const met = new Set<string>();
    const recent: Target[] = [];
    let cached = 0;
    for (let i = 0; i < 2500; i++) {
      const at = `seed 0x${seed.toString(16)}, step ${i}`;
      for (let n = 0; n < 3; n++) {
        const target = targetOf(random);
        for (let layers = 0; layers < 8; layers++) probed.probe(target, layers);
      }
      // The same change on both: two generators of one seed would drift apart, so each step has its own.
      const step = script.next();
      if (script.oneIn(3)) for (const world of [probed, left]) world.step(new Random(step));
      // Half of the accesses come again, so that caches matter.
      const target = recent.length > 4 && script.oneIn(2) ? script.pick(recent) : targetOf(script);
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
      if (i % 50 === 0) {
        expect(probed.state(), at).toEqual(left.state());
        const fresh = probed.fresh();
        for (let n = 0; n < 20; n++) {
          const other = targetOf(random);
          // A and D bits that `fresh` sets for one access may not serve the next: probe first.
          expect(probed.probe(other, 0), `${at}: ${JSON.stringify({ ...other, iova: `${other.iova}` })}`).toBe(
            fresh.probe(other, 7),
          );
        }
        const other = targetOf(random);
        expect(probed.probe(other, 0), at).toBe(fresh.translate(other));
      }
    }
    expect(interrupts[0]).toEqual(interrupts[1]);
    for (const cause of CAUSES) expect(met, `cause ${cause}`).toContain(`cause ${cause}`);
    // The script leaves stale entries about, so caches have to have made a difference, if there are any.
    if (iotlb.mode === 'none') expect(cached).toBe(0);
    else expect(cached).toBeGreaterThan(10);
  });
});
