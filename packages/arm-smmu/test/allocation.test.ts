/** The hot paths make no garbage: young-generation collections are counted over millions of calls. */
import { PerformanceObserver } from 'node:perf_hooks';
import { setImmediate } from 'node:timers/promises';
import { PROT } from '@iommu-ts/page-table';
import { describe, expect, test } from 'vitest';
import { createArmSmmuIommu } from '../src/index.ts';

const CALLS = 700_000;

/** Collections while `run` is called `CALLS` times, after a warm-up. */
const collections = async (run: (i: number) => void): Promise<number> => {
  for (let i = 0; i < 50_000; i++) run(i);
  let count = 0;
  const observer = new PerformanceObserver((list) => (count += list.getEntries().length));
  observer.observe({ entryTypes: ['gc'] });
  await setImmediate();
  count = 0;
  for (let i = 0; i < CALLS; i++) run(i);
  await setImmediate();
  await setImmediate();
  observer.disconnect();
  return count;
};

/** One heap number a call would make 16 bytes: 32 MB, several collections of a semi-space. */
const FEW = 3;

describe('no garbage', () => {
  test('the counter sees a heap number a call', async () => {
    const box: { value: number | string } = { value: 0 };
    const kept: object[] = [];
    const seen = await collections((i) => {
      kept[i & 7] = { value: box, i };
    });
    expect(seen).toBeGreaterThan(FEW);
  });

  test.each(['none', 'sized'] as const)('translate, IOTLB %s', async (mode) => {
    const { driver, hardware } = createArmSmmuIommu({ iotlb: { mode } });
    const domain = driver.createDomain();
    driver.attach(3, domain);
    domain.map(0xffff_0000_0000n, 0xc_0000_0000n, 0x10_0000n, PROT.READ | PROT.WRITE);
    let failed = 0;
    const seen = await collections((i) => {
      const lo = ((i * 0x1_3579) & 0xf_ffff) | 0;
      if (hardware.translate(3, -1, 0xffff, lo, 1 + (i & 1)) !== 0 || hardware.outHi !== 0xc) failed++;
    });
    expect(failed).toBe(0);
    expect(seen).toBeLessThan(FEW);
  });

  test('faults into a full event queue', async () => {
    const { driver, hardware } = createArmSmmuIommu();
    driver.attach(3, driver.createDomain());
    const seen = await collections((i) => {
      hardware.translate(3, -1, i & 0xff, i << 12, 2);
    });
    expect(seen).toBeLessThan(FEW);
  });

  test('map, invalidate, unmap through the command queue', async () => {
    const { driver } = createArmSmmuIommu();
    const domain = driver.createDomain();
    driver.attach(3, domain);
    let failed = 0;
    const seen = await collections((i) => {
      const lo = (i & 0xff) << 12;
      if (domain.mapWords(0x7f, lo, 1, lo, 0x1000, 3) !== 0) failed++;
      if (domain.unmapWords(0x7f, lo, 0x1000) !== 0x1000) failed++;
    });
    expect(failed).toBe(0);
    expect(seen).toBeLessThan(FEW);
  });
});
