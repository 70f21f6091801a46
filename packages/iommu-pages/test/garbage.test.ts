/** Parts of pages, lists and grace periods make no garbage on the JavaScript heap. */
import { PerformanceObserver } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { BuddySource, IommuPages, IommuPagesList, PhysicalMemory } from '../src/index.ts';

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

/** A heap number each would be 8 MB: the control shows that it is seen. */
const ROUNDS = 500_000;

test('the count sees a heap number a call', async () => {
  const box = { value: null as number | null };
  const count = await collections(() => {
    for (let i = 0; i < ROUNDS; i++) box.value = i + 0.5;
  });
  expect(count).toBeGreaterThan(0);
});

describe.each([
  ['whole pages', {}],
  // 4 KiB of 64: the page frame numbers of such parts are whole.
  ['parts of pages', { cpuPageSize: 65536, subPage: true }],
] as const)('%s', (_name, options) => {
  const make = (): IommuPages => {
    const memory = new PhysicalMemory([{ base: 0n, size: 1n << 22n, kind: 'flat' }]);
    return new IommuPages(memory, new BuddySource(memory), options);
  };

  test('allocate, free', async () => {
    const pages = make();
    const keep = pages.allocPagesSz(4096);
    const round = (count: number): void => {
      for (let i = 0; i < count; i++) pages.freePages(pages.allocPagesSz(4096));
    };
    round(20_000);
    expect(await collections(() => round(ROUNDS))).toBe(0);
    expect(pages.sizeOf(keep)).toBe(4096);
  });

  test('list, put after a grace period with a reader in it', async () => {
    const pages = make();
    const { rcu } = pages;
    const list = new IommuPagesList();
    const round = (count: number): void => {
      for (let i = 0; i < count; i++) {
        const reader = rcu.readLock();
        pages.listAdd(list, pages.allocPagesSz(4096));
        pages.putPagesListRcu(list);
        list.init();
        rcu.readUnlock(reader);
        rcu.run();
      }
    };
    round(20_000);
    expect(await collections(() => round(ROUNDS))).toBe(0);
    expect([pages.rcuPending, pages.nrSecPageTablePages]).toEqual([0, 0]);
  });
});
