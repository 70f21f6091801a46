/** `--report`: one self-contained page with plots that compare the drivers. */
import * as Plot from '@observablehq/plot';
import { escapeHtml, htmlFigure, htmlPage, htmlTable, plotDocument, svgText } from '../html.ts';
import type { PageDocument } from '../html.ts';
import { COLUMNS, remarks } from './table.ts';
import type { DriverResult, ReplayReport } from './result.ts';

/** A bar chart of one number a driver; drivers without it are left out. */
const bars = (
  document: PageDocument,
  results: readonly DriverResult[],
  label: string,
  value: (r: DriverResult) => number | null,
): string => {
  const data = results.flatMap((r) => {
    const v = value(r);
    return v === null ? [] : [{ driver: r.driver, value: v }];
  });
  if (data.length === 0) return '<p>no figures in this run</p>';
  return svgText(
    Plot.plot({
      document,
      width: 960,
      height: 60 + 30 * data.length,
      marginLeft: 110,
      marginRight: 90,
      x: { label, grid: true, zero: true },
      y: { label: null, domain: data.map((d) => d.driver) },
      marks: [
        Plot.barX(data, { x: 'value', y: 'driver', fill: '#4269d0' }),
        Plot.text(data, {
          x: 'value',
          y: 'driver',
          text: (d: { value: number }) => short(d.value),
          textAnchor: 'start',
          dx: 5,
        }),
        Plot.ruleX([0]),
      ],
    }),
  );
};

const short = (value: number): string =>
  Number.isInteger(value) ? value.toLocaleString('en-US') : value.toLocaleString('en-US', { maximumFractionDigits: 2 });

/** Table pages over the events, a line a driver. */
const lines = (document: PageDocument, results: readonly DriverResult[]): string =>
  svgText(
    Plot.plot({
      document,
      width: 960,
      height: 320,
      marginLeft: 70,
      marginRight: 110,
      x: { label: 'event', grid: true },
      y: { label: 'pages of tables', grid: true, zero: true },
      color: { domain: results.map((r) => r.driver), scheme: 'Observable10' },
      marks: [
        Plot.line(
          results.flatMap((r) => r.series.map((point) => ({ driver: r.driver, ...point }))),
          { x: 'event', y: 'tablePages', stroke: 'driver' },
        ),
        Plot.text(
          results.map((r) => ({ driver: r.driver, ...r.series.at(-1)! })),
          { x: 'event', y: 'tablePages', text: 'driver', fill: 'driver', textAnchor: 'start', dx: 4 },
        ),
        Plot.ruleY([0]),
      ],
    }),
  );

/** The page, as text. */
export const htmlReport = (report: ReplayReport): string => {
  const document = plotDocument();
  const results = report.drivers;
  const wrong = results.reduce((sum, r) => sum + r.wrong, 0);
  const verdict =
    wrong > 0
      ? `<p class="wrong">${wrong} bytes or faults were wrong</p>`
      : `<p>${report.check === 'none' ? 'nothing was checked' : 'every byte and every fault was right'}</p>`;
  const told = results.flatMap((r) => r.told.map((text) => `<li>${escapeHtml(`${r.driver}: ${text}`)}</li>`));
  const columns = COLUMNS.map(([name]) => name);
  const rows = results.map((r) => COLUMNS.map(([, cell]) => cell(r)));
  const settings = `mode ${report.mode}, check ${report.check}, iova ${report.iova}, seed ${report.seed}`;
  const body = `<h1>${escapeHtml(report.trace)}</h1>
<p>${escapeHtml(`${results[0]?.events ?? 0} events, ${settings}`)}</p>
${remarks(report)
  .map((note) => `<p>${escapeHtml(note)}</p>`)
  .join('\n')}
${verdict}
${told.length > 0 ? `<ul class="wrong">${told.join('\n')}</ul>` : ''}
${htmlTable(columns, rows)}
${htmlFigure(
  'Time per map',
  'One call of the driver, without checks; median of the rounds.',
  bars(document, results, 'ns per map', (r) => r.nsPerMap),
)}
${htmlFigure(
  'Time per unmap',
  `With its invalidation (${report.mode}).`,
  bars(document, results, 'ns per unmap', (r) => r.nsPerUnmap),
)}
${htmlFigure(
  'Bytes of tables per mapped MiB',
  'At the moment when most was mapped.',
  bars(document, results, 'bytes per MiB', (r) => r.tableBytesPerMappedMiB),
)}
${htmlFigure('Pages of tables over the trace', 'Queues and device structures are not counted.', lines(document, results))}
${htmlFigure(
  'Invalidation commands',
  'Sent by the driver.',
  bars(document, results, 'commands', (r) => r.invalidationCommands),
)}
${htmlFigure(
  'IOTLB hit rate',
  'Of the checking DMA.',
  bars(document, results, 'hits of 100 lookups', (r) => (r.iotlbHitRate === null ? null : r.iotlbHitRate * 100)),
)}
${htmlFigure(
  'Memory reads per walk',
  'Page-table entries read for a miss.',
  bars(document, results, 'reads', (r) => r.walkReadsPerMiss),
)}
${htmlFigure(
  'Events that did not fit',
  'Mappings moved to another IOVA, clipped, and refused.',
  bars(document, results, 'moved + clipped + refused', (r) => r.moved + r.clipped + r.refused),
)}`;
  return htmlPage(`iommu replay: ${report.trace}`, body);
};
