/** The sections of `iommu pages report` as text, JSON and a page. */
import Table from 'cli-table3';
import { escapeHtml, htmlFigure, htmlPage, htmlTable, plotDocument } from '../html.ts';
import type { Section } from './section.ts';

const TITLE = 'iommu pages report';

export const mismatchesOf = (sections: readonly Section[]): string[] => sections.flatMap((s) => s.mismatches);

const verdict = (sections: readonly Section[]): string[] => {
  const mismatches = mismatchesOf(sections);
  return mismatches.length === 0
    ? ['every measurement is what was computed']
    : [...mismatches, 'a measurement is not what was computed'];
};

export const pagesReportText = (sections: readonly Section[]): string => {
  const lines: string[] = [];
  for (const { tables, notes } of sections) {
    for (const { title, head, rows } of tables) {
      const table = new Table({
        head: [...head],
        style: { head: [], border: [], compact: true },
        colAligns: head.map((_, i) => (i === 0 ? 'left' : 'right')),
      });
      table.push(...rows.map((row) => [...row]));
      lines.push(title, table.toString());
    }
    lines.push(...notes.map((note) => `note: ${note}`), '');
  }
  return `${[...lines, ...verdict(sections)].join('\n')}\n`;
};

export const pagesReportJson = (sections: readonly Section[]): Record<string, unknown> => ({
  format: 'iommu-pages-report/1',
  mismatches: mismatchesOf(sections),
  ...Object.fromEntries(sections.map(({ key, data }) => [key, data])),
});

export const pagesReportHtml = (sections: readonly Section[]): string => {
  const document = plotDocument();
  const wrong = mismatchesOf(sections).length > 0 ? ' class="wrong"' : '';
  const parts = sections.flatMap(({ tables, notes, plots }) => [
    ...tables.map(({ title, head, rows }) => `<h2>${escapeHtml(title)}</h2>\n${htmlTable(head, rows)}`),
    ...notes.map((note) => `<p>${escapeHtml(note)}</p>`),
    ...plots.map(({ title, words, draw }) => htmlFigure(title, words, draw(document))),
  ]);
  const words = verdict(sections).map((line) => `<p${wrong}>${escapeHtml(line)}</p>`);
  return htmlPage(TITLE, [`<h1>${TITLE}</h1>`, ...words, ...parts].join('\n'));
};
