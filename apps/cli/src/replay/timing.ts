/** Time per map and unmap: the operations of a played trace again, on fresh systems, with nothing between them. */
import type { DriverHarness, PagingDomain } from '@iommu-ts/iommu-core';
import type { Layout } from './layout.ts';
import { OP } from './op-log.ts';
import type { OpLog } from './op-log.ts';
import { EVENT_NS, systemFor } from './player.ts';
import type { ReplayOptions } from './result.ts';

/** Rounds are played untimed for so long, at least one: compilers and caches warm up. */
const WARM_MS = 150;
/** Then timed, at least one of them, until so many or so long. */
const ROUNDS = 9;
const BUDGET_MS = 700;

/** What one look at the clock costs, in ms. */
const clockCost = (): number => {
  let best = Infinity;
  for (let round = 0; round < 20; round++) {
    const start = performance.now();
    for (let i = 0; i < 500; i++) performance.now();
    best = Math.min(best, (performance.now() - start) / 501);
  }
  return best;
};

const median = (values: readonly number[]): number | null =>
  values.length === 0 ? null : values.toSorted((a, b) => a - b)[values.length >> 1]!;

/** Median nanoseconds per call over the rounds; null where the log has none of that kind. */
export const timeOps = (
  harness: DriverHarness,
  layout: Layout,
  log: OpLog,
  options: ReplayOptions,
): { nsPerMap: number | null; nsPerUnmap: number | null } => {
  const maps: number[] = [];
  const unmaps: number[] = [];
  const cost = clockCost();
  const began = performance.now();
  do playOnce(harness, layout, log, options, cost);
  while (performance.now() - began < WARM_MS);
  const timed = performance.now();
  for (let round = 0; round < ROUNDS && (round === 0 || performance.now() - timed < BUDGET_MS); round++) {
    const { map, unmap } = playOnce(harness, layout, log, options, cost);
    if (map !== null) maps.push(map);
    if (unmap !== null) unmaps.push(unmap);
  }
  return { nsPerMap: median(maps), nsPerUnmap: median(unmaps) };
};

const playOnce = (
  harness: DriverHarness,
  layout: Layout,
  log: OpLog,
  options: ReplayOptions,
  cost: number,
): { map: number | null; unmap: number | null } => {
  const { driver, clock } = systemFor(harness, layout, options);
  const domains: PagingDomain[] = [];
  const attached = new Set<number>();
  // ms, calls and runs of calls: one look at the clock a run.
  const spent = [0, 0];
  const calls = [0, 0];
  const runs = [0, 0];
  const n = log.length;
  for (let i = 0; i < n;) {
    const kind = log.kind[i]!;
    if (kind === OP.DOMAIN) {
      domains.push(driver.createDomain({ mode: options.mode }));
      i++;
    } else if (kind === OP.ATTACH) {
      driver.attach(log.size[i]!, domains[log.domainOf[i]!]!);
      attached.add(log.size[i]!);
      i++;
    } else {
      const which = kind === OP.MAP ? 0 : 1;
      const first = i;
      const start = performance.now();
      if (kind === OP.MAP) {
        for (; i < n && log.kind[i] === OP.MAP; i++) {
          const domain = domains[log.domainOf[i]!]!;
          domain.mapWords(log.iovaHi[i]!, log.iovaLo[i]!, log.paHi[i]!, log.paLo[i]!, log.size[i]!, log.prot[i]!);
        }
      } else {
        for (; i < n && log.kind[i] === OP.UNMAP; i++) {
          domains[log.domainOf[i]!]!.unmapWords(log.iovaHi[i]!, log.iovaLo[i]!, log.size[i]!);
          // The flush queue's timer belongs to the price of an unmap.
          clock.advance(2 * EVENT_NS);
        }
      }
      spent[which]! += performance.now() - start;
      calls[which]! += i - first;
      runs[which]!++;
    }
  }
  for (const requester of attached) driver.detach(requester);
  for (const domain of domains) domain.free();
  driver.release();
  const per = (which: number): number | null =>
    calls[which] === 0 ? null : Math.max(0, ((spent[which]! - runs[which]! * cost) * 1e6) / calls[which]!);
  return { map: per(0), unmap: per(1) };
};
