/** The table that `iommu replay` ends with: a row a driver. */
import Table from 'cli-table3';
import type { DriverResult, ReplayReport } from './result.ts';
import { sanitizerText } from './sanitize.ts';

const count = (value: number): string => value.toLocaleString('en-US');
const fixed = (value: number | null, digits: number): string => (value === null ? '-' : value.toFixed(digits));
const percent = (value: number | null): string => (value === null ? '-' : `${(value * 100).toFixed(1)} %`);

/** Columns: heading (in lines) and cell. */
export const COLUMNS: readonly (readonly [string, (r: DriverResult) => string])[] = [
  ['driver', (r) => `${r.driver}\n${r.format}`],
  ['events', (r) => count(r.events)],
  ['ns per\nmap', (r) => fixed(r.nsPerMap, 0)],
  ['ns per\nunmap', (r) => fixed(r.nsPerUnmap, 0)],
  ['DMA\nchecked', (r) => count(r.dmaChecked)],
  ['faults\nprovoked\n/ caught', (r) => `${count(r.faultsProvoked)}\n/ ${count(r.faultsCaught)}`],
  ['table\npages now\n/ peak', (r) => `${count(r.tablePages.now)}\n/ ${count(r.tablePages.peak)}`],
  [
    'table bytes\nper mapped\nMiB',
    (r) => (r.tableBytesPerMappedMiB === null ? '-' : count(Math.round(r.tableBytesPerMappedMiB))),
  ],
  ['invalidation\ncommands', (r) => count(r.invalidationCommands)],
  ['IOTLB\nhit rate', (r) => percent(r.iotlbHitRate)],
  ['walk reads\nper miss', (r) => fixed(r.walkReadsPerMiss, 2)],
  ['moved', (r) => count(r.moved)],
  ['clipped', (r) => count(r.clipped)],
  ['refused', (r) => count(r.refused)],
];

/** What a reader should know about the run. */
export const remarks = (report: ReplayReport): string[] =>
  report.mode === 'lazy' && report.iova === 'keep'
    ? [
        ...report.notes,
        'lazy mode: an IOVA waits for the flush, so a mapping that the trace put there meanwhile is moved',
      ]
    : [...report.notes];

/** The table and what is to be said about the run, as text. */
export const reportText = (report: ReplayReport): string => {
  const table = new Table({
    head: COLUMNS.map(([head]) => head),
    style: { head: [], border: [], compact: true },
    colAligns: COLUMNS.map((_, i) => (i === 0 ? 'left' : 'right')),
  });
  for (const result of report.drivers) table.push(COLUMNS.map(([, cell]) => cell(result)));
  const lines = [
    `${report.trace}: ${count(report.drivers[0]?.events ?? 0)} events, mode ${report.mode}, check ${report.check}, ` +
      `iova ${report.iova}, seed ${report.seed}`,
    ...remarks(report).map((note) => `note: ${note}`),
    table.toString(),
  ];
  for (const r of report.drivers) {
    for (const [reason, n] of Object.entries(r.refusals)) lines.push(`${r.driver}: refused ${count(n)}: ${reason}`);
  }
  const found = report.drivers.reduce((sum, r) => sum + (r.sanitizer?.total ?? 0), 0);
  for (const r of report.drivers) if (r.sanitizer !== undefined) lines.push(...sanitizerText(r.driver, r.sanitizer));
  if (found > 0) lines.push(`the checks found ${count(found)} mistake(s)`);
  const wrong = report.drivers.filter((r) => r.wrong > 0);
  for (const r of wrong) {
    lines.push(`${r.driver}: ${count(r.wrong)} WRONG`, ...r.told.map((text) => `  ${text}`));
  }
  if (wrong.length > 0) lines.push('a byte or a fault was wrong');
  else if (report.check === 'none') lines.push('nothing was checked');
  else lines.push('every byte and every fault was right');
  return `${lines.join('\n')}\n`;
};
