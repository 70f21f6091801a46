/** What is printed and what is written. */
import { execFileSync } from 'node:child_process';
import { arch, cpus, platform, release, totalmem } from 'node:os';
import Table from 'cli-table3';
import { KERNEL_NOTE, kernelFigure } from './kernel-figures.ts';
import type { RowResult } from './measure.ts';
import type { Ratio } from './ratios.ts';

/** No colours, and no rule between rows. */
const PLAIN = { style: { head: [], border: [] }, chars: { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' } };

/** Three significant digits, as nanoseconds are known no better. */
export const figure = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

export const rowTable = (rows: readonly RowResult[]): string => {
  const table = new Table({
    head: ['driver', 'format', 'row', 'ns', 'min', 'p25 … p75', 'per', 'heap B'],
    colAligns: ['left', 'left', 'left', 'right', 'right', 'right', 'left', 'right'],
    ...PLAIN,
  });
  for (const r of rows) {
    table.push([
      r.driver,
      r.format,
      r.row,
      figure(r.ns),
      figure(r.min),
      `${figure(r.p25)} … ${figure(r.p75)}`,
      r.per,
      r.heapBytes === null ? '-' : r.heapBytes < 0.005 ? '0' : figure(r.heapBytes),
    ]);
  }
  return table.toString();
};

export const ratioTable = (ratios: readonly Ratio[]): string => {
  const table = new Table({
    head: ['ratio', 'of', 'ns', 'ns', 'median', 'target', ''],
    colAligns: ['left', 'left', 'right', 'right', 'right', 'right', 'left'],
    ...PLAIN,
  });
  for (const r of ratios) {
    const target = r.target === null ? '–' : `≤ ${r.target}`;
    const verdict = r.target === null ? '' : r.pass ? 'pass' : 'MISS';
    table.push([r.name, r.subject, figure(r.a), figure(r.b), r.ratio.toFixed(2), target, verdict]);
  }
  return table.toString();
};

export interface KernelRow {
  readonly format: string;
  readonly row: string;
  readonly ns: number;
  readonly kernelNs: number;
  readonly ratio: number;
}

/** Rows that have a figure of the kernel's beside them. */
export const kernelRows = (rows: readonly RowResult[]): readonly KernelRow[] =>
  rows.flatMap(({ format, row, ns }) => {
    const kernelNs = kernelFigure(format, row);
    return kernelNs === null ? [] : [{ format, row, ns, kernelNs, ratio: ns / kernelNs }];
  });

export const kernelTable = (rows: readonly KernelRow[]): string => {
  const table = new Table({
    head: ['format', 'row', 'ns here', 'ns kernel', 'here / kernel'],
    colAligns: ['left', 'left', 'right', 'right', 'right'],
    ...PLAIN,
  });
  for (const r of rows) table.push([r.format, r.row, figure(r.ns), figure(r.kernelNs), r.ratio.toFixed(2)]);
  return `${table.toString()}\nkernel: ${KERNEL_NOTE}; "here" is the machine below`;
};

const git = (...args: readonly string[]): string => {
  try {
    return execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return ''; // no git, or not a checkout
  }
};

export interface Environment {
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly memoryGiB: number;
    readonly platform: string;
  };
  readonly node: string;
  readonly v8: string;
  readonly commit: string;
  /** Tracked files differ from the commit. */
  readonly dirty: boolean;
  readonly date: string;
}

export const environment = (): Environment => ({
  machine: {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    platform: `${platform()} ${release()} ${arch()}`,
  },
  node: process.version,
  v8: process.versions.v8,
  commit: git('rev-parse', 'HEAD') || 'unknown',
  dirty: git('status', '--porcelain', '--untracked-files=no') !== '',
  date: new Date().toISOString(),
});

export const describeEnvironment = (e: Environment): string =>
  `${e.machine.cpu}, ${e.machine.cores} cores, ${e.machine.memoryGiB} GiB, ${e.machine.platform}; Node ${e.node}, V8 ${e.v8}; commit ${e.commit.slice(0, 12)}${e.dirty ? ' with changes' : ''}`;
