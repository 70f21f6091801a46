/** map, unmap and look-up make no garbage: scavenges are counted over 10^7 calls, beside a control that does make some. */
import { PerformanceObserver } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, it } from 'vitest';
import { GatherRecord, PageTable } from '../src/index.ts';
import { CONFIGS } from './local-formats.ts';

/** Garbage collections while `run` works. */
const collections = async (run: () => void): Promise<number> => {
  await sleep(5);
  let count = 0;
  const observer = new PerformanceObserver((list) => {
    count += list.getEntries().length;
  });
  observer.observe({ entryTypes: ['gc'] });
  run();
  await sleep(20);
  observer.disconnect();
  return count;
};

/** Calls in all, over the four formats. */
const CALLS = 10_000_000;
const ROUND = 4096;

it('the count sees a heap number a call', async () => {
  const box = { value: 0.5 as number | object };
  const count = await collections(() => {
    for (let i = 0; i < CALLS / 4; i++) box.value = { i };
  });
  expect(count).toBeGreaterThan(0);
});

describe.each(CONFIGS)('%s', (_name, config) => {
  it('no scavenge', async () => {
    const memory = new PhysicalMemory([{ base: 0xf_f000_0000n, size: 1n << 26n, kind: 'flat' }]);
    const pages = new IommuPages(memory, new BuddySource(memory));
    const table = new PageTable(pages, config);
    const gather = new GatherRecord();
    const size = table.granuleBytes;
    const hi = table.ias > 40 ? 0x7f : 0;
    let wrong = 0;
    const round = (): void => {
      for (let i = 0; i < ROUND; i++) {
        const lo = (i * size) | 0;
        if (table.map(hi, lo, 0xb, (i * size) | 0, size, 3) !== 0) wrong++;
      }
      for (let i = 0; i < ROUND; i++) if (!table.iovaToPhys(hi, (i * size) | 0)) wrong++;
      for (let i = 0; i < ROUND; i++) if (table.unmap(hi, (i * size) | 0, size, gather) !== size) wrong++;
      // Ranges, where tables come and go.
      for (let i = 0; i < 16; i++)
        if (table.map(hi, 0, 0xb, size, 700 * size, 3) !== 0 || table.unmap(hi, 0, 700 * size, gather) !== 700 * size)
          wrong++;
      if (!gather.freelist.empty) pages.putPagesList(gather.freelist);
      gather.reset();
    };
    for (let i = 0; i < 12; i++) round(); // warm
    const rounds = Math.ceil(CALLS / 4 / (3 * ROUND));
    const count = await collections(() => {
      for (let i = 0; i < rounds; i++) round();
    });
    expect(wrong).toBe(0);
    // The test runner itself may cause one or two; a heap number a call would cause about ten.
    expect(count).toBeLessThanOrEqual(2);
  });
});
