/** A row, measured by mitata. */
import { getHeapStatistics } from 'node:v8';
import { measure } from 'mitata';
import type { Row } from './table-rows.ts';

export interface RowResult {
  readonly driver: string;
  readonly format: string;
  readonly row: string;
  readonly per: 'call' | 'entry';
  /** Nanoseconds an operation: median, smallest, quartiles. */
  readonly ns: number;
  readonly min: number;
  readonly p25: number;
  readonly p75: number;
  /** Bytes allocated on the JavaScript heap an operation, set-up between passes included; null when a collection came between. */
  readonly heapBytes: number | null;
  readonly passes: number;
  readonly ops: number;
}

/**
 * Runs the row's passes for about `budgetNs` of timed work, at least `minPasses`. mitata runs its own warm-up and a
 * collection before; three passes more come first, as one is not enough to have everything compiled.
 */
export const measureRow = async (
  driver: string,
  format: string,
  row: Row,
  budgetNs: number,
  minPasses: number,
): Promise<RowResult> => {
  for (let i = 0; i < 3; i++) row.pass();
  // mitata's manual mode: what the function returns is the time; its declaration does not have it.
  const generator = function* (): Generator<unknown> {
    yield { manual: () => row.pass(), budget: 'manual' };
  };
  const stats = await measure(generator as unknown as Parameters<typeof measure>[0], {
    min_samples: minPasses,
    min_cpu_time: budgetNs,
    warmup_samples: 1,
    heap: () => getHeapStatistics().used_heap_size,
  });
  return {
    driver,
    format,
    row: row.name,
    per: row.per,
    ns: stats.p50 / row.ops,
    min: stats.min / row.ops,
    p25: stats.p25 / row.ops,
    p75: stats.p75 / row.ops,
    heapBytes: stats.heap === undefined || !Number.isFinite(stats.heap.min) ? null : stats.heap.min / row.ops,
    passes: stats.samples.length,
    ops: row.ops,
  };
};
