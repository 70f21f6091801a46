/** `iommu replay --sanitize`: what the checks of a run have found, as data and as text. */
import Table from 'cli-table3';
import { hex } from '@iommu-ts/bits';
import type { CheckEvent, CheckReport, Checks, CheckSummary, InvalidationRow, SyncRow } from '@iommu-ts/iommu-core';
import { formatReport } from '@iommu-ts/iommu-core';

/** Reports that are printed in full, a driver. */
const MAX_TOLD = 20;

/** A report as JSON has it: addresses in hex. */
interface SanitizerReport {
  readonly kind: string;
  readonly what: string;
  readonly hint: string;
  readonly operation: number;
  readonly timeNs: number;
  readonly addresses: Readonly<Record<string, string>>;
  readonly mappedBy?: CheckEvent;
  readonly unmappedBy?: CheckEvent;
  readonly freedBy?: CheckEvent;
  /** The report for people. */
  readonly text: string;
}

export interface SanitizerResult extends CheckSummary {
  /** The first of them. */
  readonly told: readonly SanitizerReport[];
  readonly invalidations: readonly InvalidationRow[];
  readonly syncs: readonly SyncRow[];
}

const toJson = ({ addresses, ...report }: CheckReport): SanitizerReport => ({
  ...report,
  addresses: Object.fromEntries(Object.entries(addresses).map(([name, value]) => [name, hex(value)])),
  text: formatReport({ ...report, addresses }),
});

/** Ends the checks of a run. */
export const sanitizerResult = (checks: Checks): SanitizerResult => {
  const reports = checks.finish();
  return {
    ...checks.summary(),
    told: reports.slice(0, MAX_TOLD).map(toJson),
    invalidations: checks.invalidationTable(),
    syncs: checks.operationTable(),
  };
};

const count = (value: number): string => value.toLocaleString('en-US');

const tableText = (head: string[], rows: readonly (readonly [string, ...number[]])[]): string => {
  const table = new Table({
    head,
    style: { head: [], border: [], compact: true },
    colAligns: ['left', 'right', 'right', 'right'],
  });
  for (const [name, ...numbers] of rows) table.push([name, ...numbers.map(count)]);
  return table.toString();
};

/** Lines about a driver's run under the checks. */
export const sanitizerText = (driver: string, result: SanitizerResult): string[] => {
  const lines: string[] = [];
  const lazy =
    result.lazyUses === 0
      ? ''
      : `; ${count(result.lazyUses)} translations were answered before a lazy flush, as they may`;
  lines.push(
    `${driver}: ${count(result.operations)} operations under the checks, ${count(result.total)} report(s)${lazy}`,
  );
  const commands = result.invalidations.map((row) => [row.command, row.sent, row.dropped, row.stillTrue] as const);
  const syncs = result.syncs.map((row) => [row.operation, row.calls, row.sent, row.minimum] as const);
  if (commands.length > 0) {
    lines.push(tableText(['invalidation', 'sent', 'entries\ndropped', 'of them\nstill true'], commands));
    lines.push(tableText(['operation', 'calls', 'invalidations\nsent', 'calls that\nneeded one'], syncs));
  }
  for (const report of result.told) lines.push(report.text);
  const more = result.total - result.told.length;
  if (more > 0) lines.push(`and ${count(more)} more`);
  return lines;
};
