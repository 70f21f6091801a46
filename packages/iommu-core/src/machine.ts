import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { VirtualClock } from './clock.ts';
import type { SystemOptions } from './driver.ts';

/** Memory, table allocator and clock: what a driver needs before its IOMMU. */
export interface Machine {
  readonly memory: PhysicalMemory;
  readonly pages: IommuPages;
  readonly clock: VirtualClock;
}

const GIB = 1n << 30n;

/**
 * Fills in what `options` leaves out: 64 GiB of sparse RAM at 0, tables and queues from its last GiB (or, in a memory that
 * was given, from the last GiB of its last RAM range), a clock at 0.
 */
export const createMachine = (options: SystemOptions = {}): Machine => {
  const memory = options.memory ?? new PhysicalMemory([{ base: 0n, size: 64n * GIB }]);
  const clock = options.clock ?? new VirtualClock();
  if (options.pages !== undefined) return { memory, pages: options.pages, clock };
  const last = memory.ranges.at(-1);
  const end = last === undefined ? 0n : BigInt(last.endPfn) << 12n;
  const base = last === undefined ? 0n : BigInt(Math.max(last.basePfn, last.endPfn - Number(GIB >> 12n))) << 12n;
  return { memory, pages: new IommuPages(memory, new BuddySource(memory, [{ base, size: end - base }])), clock };
};
