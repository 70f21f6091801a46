/** The paths that run for every DMA and every unmapped page make no garbage: no scavenge over many calls. */
import { PerformanceObserver, constants } from 'node:perf_hooks';
import { PROT } from '@iommu-ts/page-table';
import { expect, test } from 'vitest';
import { createVtdIommu } from '../src/index.ts';

/** Minor collections while `run` runs. */
const scavenges = async (run: () => void): Promise<number> => {
  let count = 0;
  const observer = new PerformanceObserver((list) => {
    for (const item of list.getEntries()) {
      if ((item as { detail?: { kind?: number } }).detail?.kind === constants.NODE_PERFORMANCE_GC_MINOR) count++;
    }
  });
  observer.observe({ entryTypes: ['gc'] });
  run();
  await new Promise((resolve) => setTimeout(resolve, 5));
  observer.disconnect();
  return count;
};

test('the count sees garbage', async () => {
  const keep: bigint[] = [0n];
  const count = await scavenges(() => {
    for (let i = 0; i < 3_000_000; i++) keep[0] = BigInt(i) << 32n;
  });
  expect(count).toBeGreaterThan(2);
});

test('translate: hits, misses and faults', async () => {
  const { hardware, driver } = createVtdIommu();
  const domain = driver.createDomain();
  driver.attach(0x18, domain);
  // Not aligned to a large page: 4 KiB leaves.
  domain.map(0n, 0x8000_1000n, 0x100_0000n, PROT.READ | PROT.WRITE);
  const run = (): void => {
    let status = 0;
    for (let i = 0; i < 2_000_000; i++) {
      status |= hardware.translate(0x18, -1, 0, (i & 63) << 12, 1); // hits
      status |= hardware.translate(0x18, -1, 0, (Math.imul(i, 0x9e3779b1) >>> 20) << 12, 2); // mostly misses
      if ((i & 15) === 0) hardware.translate(0x20, -1, 0, i << 12, 1); // not configured
    }
    expect(status).toBe(0);
  };
  run();
  expect(await scavenges(run)).toBeLessThanOrEqual(2);
  expect(hardware.iotlb.hits).toBeGreaterThan(1_000_000);
  expect(hardware.stats.walks).toBeGreaterThan(100_000);
});

test('map and unmap with their invalidations', async () => {
  const { driver } = createVtdIommu();
  const domain = driver.createDomain();
  driver.attach(0x18, domain);
  domain.map(0x20_0000n, 0x8000_0000n, 0x1000n, PROT.READ);
  const run = (): void => {
    for (let i = 0; i < 200_000; i++) {
      domain.mapWords(0, 0x21_0000, 0, 0x1234_5000, 4096, 3);
      domain.unmapWords(0, 0x21_0000, 4096);
    }
  };
  run();
  expect(await scavenges(run)).toBeLessThanOrEqual(2);
});
