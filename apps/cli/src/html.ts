/** Self-contained pages with plots. Plots are drawn here, as SVG; no script runs in a page. */
import type * as Plot from '@observablehq/plot';
import { parseHTML } from 'linkedom';

/** What Plot draws into: linkedom's document serves. */
export type PageDocument = NonNullable<Plot.PlotOptions['document']>;

export const escapeHtml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1040px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; } p { margin: .3rem 0; color: #555; }
table { border-collapse: collapse; font-size: 13px; } th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: right; white-space: pre-line; }
th:first-child, td:first-child { text-align: left; } .wrong { color: #b00; font-weight: 600; } figure { margin: 0; } svg { max-width: 100%; height: auto; }
`;

/** A document for Plot to draw into. */
export const plotDocument = (): PageDocument =>
  (parseHTML('<!doctype html><html><body></body></html>') as unknown as { document: PageDocument }).document;

/** What Plot drew, as text that stands on its own. */
export const svgText = (figure: { readonly outerHTML: string }): string =>
  figure.outerHTML.replace('<svg ', '<svg xmlns="http://www.w3.org/2000/svg" ');

const rowOf = (cells: readonly string[], tag: string): string =>
  `<tr>${cells.map((cell) => `<${tag}>${escapeHtml(cell)}</${tag}>`).join('')}</tr>`;

export const htmlTable = (head: readonly string[], rows: readonly (readonly string[])[]): string => `<table>
<thead>${rowOf(head, 'th')}</thead>
<tbody>
${rows.map((row) => rowOf(row, 'td')).join('\n')}
</tbody>
</table>`;

/** A figure with its heading and a sentence. */
export const htmlFigure = (title: string, words: string, body: string): string =>
  `<h2>${escapeHtml(title)}</h2>\n<p>${escapeHtml(words)}</p>\n<figure>${body}</figure>`;

/** A whole page. `body` is HTML. */
export const htmlPage = (title: string, body: string): string => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
${body}
</body>
</html>
`;
