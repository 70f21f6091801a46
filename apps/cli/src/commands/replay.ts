/** `iommu replay`: a kernel's IOMMU trace through the drivers, every byte and every fault checked. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import cliProgress from 'cli-progress';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { selectDrivers } from '../harnesses.ts';
import { exists, inputError } from '../input.ts';
import type { Io } from '../io.ts';
import { htmlReport } from '../replay/html-report.ts';
import { replay } from '../replay/replay.ts';
import type { ReplayProgress } from '../replay/replay.ts';
import type { ReplayOptions } from '../replay/result.ts';
import { reportText } from '../replay/table.ts';
import { readTrace } from '../replay/trace.ts';
import { claimOutputs, jsonTarget, jsonText, writeOutput } from './output.ts';

export interface ReplayFlags {
  readonly driver: string;
  readonly check: string;
  readonly mode: string;
  readonly iova: string;
  readonly seed: string;
  readonly json?: string | boolean;
  readonly report?: string;
  readonly timing: boolean;
  readonly sanitize?: boolean;
}

/** The trace that comes with the program: a boot and some disk IO of a Linux 6.12 guest with an AMD IOMMU. */
export const BUNDLED_TRACE = ((): string => {
  // Beside `dist` when built into one file, two folders up in the source.
  const near = ['../traces/', '../../traces/'].map((folder) =>
    fileURLToPath(new URL(`${folder}linux-6.12-amd-vi.events.jsonl.gz`, import.meta.url)),
  );
  return near.find((file) => exists(file)) ?? near[0]!;
})();

const oneOf = <T extends string>(option: string, value: string, values: readonly T[]): T => {
  const found = values.find((v) => v === value);
  if (found === undefined) throw inputError(`${option} ${value}: expected ${values.join(', ')}`);
  return found;
};

const wholeNumber = (option: string, value: string): number => {
  const number = /^(?:0x[0-9a-f]+|\d+)$/i.test(value) ? Number(value) : Number.NaN;
  if (!(number <= 0xffff_ffff)) throw inputError(`${option} ${value}: expected a whole number from 0 to 4294967295`);
  return number;
};

const progressBar = (io: Io): ReplayProgress & { stop(): void } => {
  if (!io.progress) return { start: () => {}, done: () => {}, stop: () => {} };
  const bar = new cliProgress.SingleBar({
    format: '{driver} [{bar}] {percentage} % of {total} events',
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
    etaBuffer: 1,
  });
  let running = false;
  return {
    start: (driver, events) => {
      if (running) bar.stop();
      running = true;
      bar.start(events, 0, { driver: driver.padEnd(10) });
    },
    done: (events) => bar.update(events),
    stop: () => bar.stop(),
  };
};

/** @returns the exit status: 0, or 1 when a byte or a fault was wrong or the checks found something. */
export const replayCommand = (
  io: Io,
  name: string | undefined,
  flags: ReplayFlags,
  all: readonly DriverHarness[],
): number => {
  const target = jsonTarget(io, flags.json, name !== undefined);
  if (target.input !== null && name !== undefined) throw inputError(`${name}: expected one trace, found two`);
  const given = name ?? target.input;
  const harnesses = selectDrivers(flags.driver, all);
  const options: ReplayOptions = {
    check: oneOf('--check', flags.check, ['none', 'sample', 'all']),
    mode: oneOf('--mode', flags.mode, ['strict', 'lazy']),
    iova: oneOf('--iova', flags.iova, ['keep', 'allocate']),
    seed: wholeNumber('--seed', flags.seed),
    timing: flags.timing,
    sanitize: flags.sanitize === true,
  };
  const trace =
    given === null
      ? readTrace(BUNDLED_TRACE, path.basename(BUNDLED_TRACE))
      : readTrace(path.resolve(io.cwd, given), given);
  claimOutputs(
    io,
    [
      ['--report', flags.report],
      ['--json', target.file],
    ],
    given === null ? null : path.resolve(io.cwd, given),
  );
  const bar = progressBar(io);
  let report;
  try {
    report = replay(trace, harnesses, options, bar);
  } finally {
    bar.stop();
  }
  if (flags.report !== undefined) writeOutput(io, '--report', flags.report, htmlReport(report));
  if (target.json) {
    if (target.file === null) io.out(jsonText(report));
    else writeOutput(io, '--json', target.file, jsonText(report));
  }
  if (!(target.json && target.file === null)) io.out(reportText(report));
  return report.drivers.some((d) => d.wrong > 0 || (d.sanitizer?.total ?? 0) > 0) ? 1 : 0;
};
