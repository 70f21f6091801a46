/** `--report`: one self-contained page with plots that compare the drivers. Plots are drawn here, as SVG; no script runs in it. */
import * as Plot from '@observablehq/plot';
import { parseHTML } from 'linkedom';
import { COLUMNS, remarks } from './table.ts';
import type { DriverResult, ReplayReport } from './result.ts';

/** What Plot draws into: linkedom's document serves. */
type PageDocument = NonNullable<Plot.PlotOptions['document']>;

const escape = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1040px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; } p { margin: .3rem 0; color: #555; }
table { border-collapse: collapse; font-size: 13px; } th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: right; white-space: pre-line; }
th:first-child, td:first-child { text-align: left; } .wrong { color: #b00; font-weight: 600; } figure { margin: 0; } svg { max-width: 100%; height: auto; }
`;

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
  return svg(
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

const svg = (figure: { readonly outerHTML: string }): string =>
  figure.outerHTML.replace('<svg ', '<svg xmlns="http://www.w3.org/2000/svg" ');

/** Table pages over the events, a line a driver. */
const lines = (document: PageDocument, results: readonly DriverResult[]): string =>
  svg(
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
  const { document } = parseHTML('<!doctype html><html><body></body></html>') as unknown as { document: PageDocument };
  const results = report.drivers;
  const plot = (title: string, words: string, body: string): string =>
    `<h2>${escape(title)}</h2>\n<p>${escape(words)}</p>\n<figure>${body}</figure>`;
  const head = COLUMNS.map(([name]) => `<th>${escape(name)}</th>`).join('');
  const rows = results
    .map((r) => `<tr>${COLUMNS.map(([, cell]) => `<td>${escape(cell(r))}</td>`).join('')}</tr>`)
    .join('\n');
  const wrong = results.reduce((sum, r) => sum + r.wrong, 0);
  const verdict =
    wrong > 0
      ? `<p class="wrong">${wrong} bytes or faults were wrong</p>`
      : `<p>${report.check === 'none' ? 'nothing was checked' : 'every byte and every fault was right'}</p>`;
  const told = results.flatMap((r) => r.told.map((text) => `<li>${escape(`${r.driver}: ${text}`)}</li>`));
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(`iommu replay: ${report.trace}`)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escape(report.trace)}</h1>
<p>${escape(`${results[0]?.events ?? 0} events, mode ${report.mode}, check ${report.check}, iova ${report.iova}, seed ${report.seed}`)}</p>
${remarks(report)
  .map((note) => `<p>${escape(note)}</p>`)
  .join('\n')}
${verdict}
${told.length > 0 ? `<ul class="wrong">${told.join('\n')}</ul>` : ''}
<table>
<thead><tr>${head}</tr></thead>
<tbody>
${rows}
</tbody>
</table>
${plot(
  'Time per map',
  'One call of the driver, without checks; median of the rounds.',
  bars(document, results, 'ns per map', (r) => r.nsPerMap),
)}
${plot(
  'Time per unmap',
  `With its invalidation (${report.mode}).`,
  bars(document, results, 'ns per unmap', (r) => r.nsPerUnmap),
)}
${plot(
  'Bytes of tables per mapped MiB',
  'At the moment when most was mapped.',
  bars(document, results, 'bytes per MiB', (r) => r.tableBytesPerMappedMiB),
)}
${plot('Pages of tables over the trace', 'Queues and device structures are not counted.', lines(document, results))}
${plot(
  'Invalidation commands',
  'Sent by the driver.',
  bars(document, results, 'commands', (r) => r.invalidationCommands),
)}
${plot(
  'IOTLB hit rate',
  'Of the checking DMA.',
  bars(document, results, 'hits of 100 lookups', (r) => (r.iotlbHitRate === null ? null : r.iotlbHitRate * 100)),
)}
${plot(
  'Memory reads per walk',
  'Page-table entries read for a miss.',
  bars(document, results, 'reads', (r) => r.walkReadsPerMiss),
)}
${plot(
  'Events that did not fit',
  'Mappings moved to another IOVA, clipped, and refused.',
  bars(document, results, 'moved + clipped + refused', (r) => r.moved + r.clipped + r.refused),
)}
</body>
</html>
`;
};
