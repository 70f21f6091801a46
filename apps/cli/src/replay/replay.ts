/** A trace through several drivers, one after the other. */
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { layOut, survey } from './layout.ts';
import type { Layout } from './layout.ts';
import { DriverPlayer } from './player.ts';
import type { DriverResult, ReplayOptions, ReplayReport } from './result.ts';
import { timeOps } from './timing.ts';
import type { Trace } from './trace.ts';

export interface ReplayProgress {
  /** A driver begins. */
  start(driver: string, events: number): void;
  done(events: number): void;
}

const silent: ReplayProgress = { start: () => {}, done: () => {} };

/** Replays `trace` through each of `harnesses`. */
export const replay = (
  trace: Trace,
  harnesses: readonly DriverHarness[],
  options: ReplayOptions,
  progress: ReplayProgress = silent,
): ReplayReport => {
  const surveyed = survey(trace);
  // Drivers that reach equally far share one memory: what was written by checks is written anew before it is read.
  const layouts = new Map<bigint, Layout>();
  const drivers: DriverResult[] = [];
  for (const harness of harnesses) {
    progress.start(harness.name, trace.events.length);
    const fresh = layOut(surveyed, harness.createSystem().driver.info.oas);
    const layout = layouts.get(fresh.tables.base) ?? fresh;
    layouts.set(fresh.tables.base, layout);
    const player = new DriverPlayer(harness, trace, layout, options);
    const result = player.play((done) => progress.done(done));
    drivers.push(options.timing ? { ...result, ...timeOps(harness, layout, player.log, options) } : result);
  }
  return {
    format: 'iommu-replay/1',
    trace: trace.name,
    source: trace.source,
    seed: options.seed,
    check: options.check,
    mode: options.mode,
    iova: options.iova,
    leftOut: trace.leftOut,
    notes: trace.notes,
    drivers,
  };
};
