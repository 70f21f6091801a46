import { BuddySource, IommuPages, IommuPagesList, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { VirtualClock } from '../src/clock.ts';
import { FlushQueue } from '../src/flush-queue.ts';

const setup = (options = {}) => {
  const memory = new PhysicalMemory([{ base: 0n, size: 0x100_0000n }]);
  const pages = new IommuPages(memory, new BuddySource(memory));
  const clock = new VirtualClock();
  const log: string[] = [];
  const queue: FlushQueue = new FlushQueue(
    clock,
    pages,
    () => log.push(`flush@${clock.now} pages=${pages.nrIommuPages()}`),
    options,
  );
  const list = (n: number): IommuPagesList => {
    const made = new IommuPagesList();
    for (let i = 0; i < n; i++) pages.listAdd(made, pages.allocPagesSz(4096));
    return made;
  };
  return { pages, clock, log, queue, list };
};

describe('FlushQueue', () => {
  test('waits for its period, flushes once, and only then frees and releases', () => {
    const { pages, clock, log, queue, list } = setup();
    const first = list(2);
    queue.add(first, () => log.push(`released a pages=${pages.nrIommuPages()}`));
    expect(first.empty).toBe(true);
    clock.advance(4_000_000);
    queue.add(list(1), () => log.push('released b'));
    clock.advance(5_999_999);
    expect([log, queue.pending, pages.nrIommuPages()]).toEqual([[], 2, 3]);
    clock.advance(1);
    expect(log).toEqual(['flush@10000000 pages=3', 'released a pages=0', 'released b']);
    expect([queue.pending, queue.flushes]).toEqual([0, 1]);
  });

  test('a full queue flushes at once, and the old timer does not fire again', () => {
    const { clock, log, queue, list } = setup({ entries: 3 });
    for (let i = 0; i < 3; i++) queue.add(list(1));
    expect(log).toEqual(['flush@0 pages=3']);
    clock.advance(20_000_000);
    expect(queue.flushes).toBe(1);
    queue.add(list(1));
    clock.advance(10_000_000);
    expect(queue.flushes).toBe(2);
  });

  test('flush of an empty queue does nothing', () => {
    const { log, queue } = setup();
    queue.flush();
    expect([log, queue.flushes]).toEqual([[], 0]);
  });
});
