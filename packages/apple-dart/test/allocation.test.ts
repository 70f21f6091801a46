/** The hot paths make no garbage: scavenges are counted over many calls. */
import { PerformanceObserver, constants } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { createAppleDart } from '../src/system.ts';

/** Scavenges while `run` runs. */
const scavenges = async (run: () => void): Promise<number> => {
  let count = 0;
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      if ((entry as { detail?: { kind?: number } }).detail?.kind === constants.NODE_PERFORMANCE_GC_MINOR) count++;
    }
  });
  observer.observe({ entryTypes: ['gc'] });
  run();
  await sleep(20);
  observer.disconnect();
  return count;
};

test('the counter counts', async () => {
  const keep: unknown[] = [];
  const count = await scavenges(() => {
    for (let i = 0; i < 3_000_000; i++) keep[i & 1023] = { i };
  });
  expect(count).toBeGreaterThan(1);
});

const PAGES = 256;

for (const preset of ['t8103', 't6020'] as const) {
  const { driver, hardware } = createAppleDart({ preset, iotlb: { mode: 'sized' } });
  const domain = driver.createDomain();
  driver.attach(1, domain);
  domain.map(0n, 0x9_0000_0000n, BigInt(PAGES) << 14n, 1);

  const translate = (n: number): number => {
    let sum = 0;
    for (let i = 0; i < n; i++)
      sum += hardware.translate(1, -1, 0, ((i * 7) % PAGES) << 14, 1, 64) + (hardware.outLo & 1);
    return sum;
  };
  const refuse = (n: number): number => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += hardware.translate(1, -1, 0, ((i * 7) % PAGES) << 14, 2, 64);
    return sum;
  };
  const walk = (n: number): number => {
    let sum = 0;
    for (let i = 0; i < n; i++) {
      if ((i & 15) === 0) hardware.iotlb.invalidateAll();
      sum += hardware.translate(1, -1, 0, ((i * 7) % PAGES) << 14, 1, 64);
    }
    return sum;
  };
  const mapUnmap = (n: number): number => {
    let sum = 0;
    for (let i = 0; i < n; i++) {
      sum += domain.mapWords(0, 0x4000_0000 + ((i % 512) << 14), 9, 0x1000_0000, 0x4000, 3);
      sum += domain.unmapWords(0, 0x4000_0000 + ((i % 512) << 14), 0x4000) - 0x4000;
    }
    return sum;
  };

  test(`${preset}: translate`, async () => {
    expect(translate(200_000) + walk(200_000)).toBe(0);
    expect(await scavenges(() => expect(translate(2_000_000)).toBe(0))).toBeLessThanOrEqual(1);
    expect(await scavenges(() => expect(walk(500_000)).toBe(0))).toBeLessThanOrEqual(1);
    expect(await scavenges(() => expect(refuse(1_000_000)).toBeGreaterThan(0))).toBeLessThanOrEqual(1);
  });

  test(`${preset}: map, unmap and flush`, async () => {
    expect(mapUnmap(100_000)).toBe(0);
    expect(await scavenges(() => expect(mapUnmap(300_000)).toBe(0))).toBeLessThanOrEqual(1);
  });
}
