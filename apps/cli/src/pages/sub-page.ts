/** What tables that share CPU pages save: start tables of domains, and a trace through the drivers. */
import * as Plot from '@observablehq/plot';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { IommuPagesOptions } from '@iommu-ts/iommu-pages';
import { PageTable } from '@iommu-ts/page-table';
import { svgText } from '../html.ts';
import type { PageDocument } from '../html.ts';
import { layOut, survey } from '../replay/layout.ts';
import { DriverPlayer } from '../replay/player.ts';
import type { Trace } from '../replay/trace.ts';
import { countText, sizeText } from './section.ts';
import type { Section } from './section.ts';

type CpuPage = NonNullable<IommuPagesOptions['cpuPageSize']>;
const CPU_PAGES: readonly CpuPage[] = [4096, 16384, 65536];
/** Domains whose start tables are allocated: so many 64-byte ones fill a page of 4 KiB. */
const DOMAINS = 64;

/** The start tables of many domains of one format. */
export interface StartTableRow {
  readonly driver: string;
  readonly format: string;
  /** Start tables of a domain, and bytes of each that the hardware reads. */
  readonly tables: number;
  readonly bytes: number;
  /** Bytes of memory a domain takes for them, measured over {@link DOMAINS} domains. */
  readonly cost: readonly { readonly cpuPageSize: CpuPage; readonly whole: number; readonly shared: number }[];
}

export const startTableRows = (harnesses: readonly DriverHarness[]): StartTableRow[] =>
  harnesses.flatMap((harness) =>
    harness.formats.map(({ name, config }) => {
      let tables = 0;
      let bytes = 0;
      const perDomain = (cpuPageSize: CpuPage, subPage: boolean): number => {
        const memory = new PhysicalMemory([{ base: 0n, size: 1n << 26n }]);
        const pages = new IommuPages(memory, new BuddySource(memory), { cpuPageSize, subPage });
        for (let i = 0; i < DOMAINS; i++) {
          const { roots, topBytes } = new PageTable(pages, config).geometry();
          tables = roots.length;
          bytes = topBytes;
        }
        return (pages.nrSecPageTablePages * cpuPageSize) / DOMAINS;
      };
      const cost = CPU_PAGES.map((cpuPageSize) => ({
        cpuPageSize,
        whole: perDomain(cpuPageSize, false),
        shared: perDomain(cpuPageSize, true),
      }));
      return { driver: harness.name, format: name, tables, bytes, cost };
    }),
  );

/** One trace through one driver, with one size of CPU page. */
export interface TraceSavingRow {
  readonly trace: string;
  readonly driver: string;
  readonly format: string;
  readonly cpuPageSize: CpuPage;
  /** Highest `SecPageTables` in bytes: tables, queues and structures; with whole pages, and with parts of them. */
  readonly whole: number;
  readonly shared: number;
  /** Events that went wrong in one of the two, or were refused in one of them only; must be 0. */
  readonly wrong: number;
}

const traceSavingRows = (traces: readonly Trace[], harnesses: readonly DriverHarness[]): TraceSavingRow[] =>
  traces.flatMap((trace) => {
    const surveyed = survey(trace);
    return harnesses.flatMap((harness) =>
      CPU_PAGES.map((cpuPageSize): TraceSavingRow => {
        const run = (subPage: boolean): { peak: number; wrong: number; refused: number; format: string } => {
          const layout = layOut(surveyed, harness.createSystem().driver.info.oas);
          const player = new DriverPlayer(harness, trace, layout, {
            check: 'none',
            mode: 'strict',
            iova: 'keep',
            seed: 1,
            timing: false,
            pages: { cpuPageSize, subPage },
          });
          const { peakPageBytes, wrong, refused, format } = player.play();
          return { peak: peakPageBytes, wrong, refused, format };
        };
        const whole = run(false);
        const shared = run(true);
        return {
          trace: trace.name,
          driver: harness.name,
          format: whole.format,
          cpuPageSize,
          whole: whole.peak,
          shared: shared.peak,
          wrong: whole.wrong + shared.wrong + Math.abs(whole.refused - shared.refused),
        };
      }),
    );
  });

const saved = (whole: number, shared: number): string => `${(100 * (1 - shared / whole)).toFixed(1)} %`;

/** Peak memory by driver, a bar with and without sharing, a facet a size of CPU page. */
const draw = (document: PageDocument, rows: readonly TraceSavingRow[]): string => {
  const bars = rows.flatMap(({ driver, cpuPageSize, whole, shared }) => [
    { driver, page: sizeText(cpuPageSize), how: 'whole pages', kib: whole / 1024 },
    { driver, page: sizeText(cpuPageSize), how: 'shared', kib: shared / 1024 },
  ]);
  return svgText(
    Plot.plot({
      document,
      width: 960,
      height: 120 + 44 * new Set(rows.map((row) => row.driver)).size,
      marginLeft: 90,
      x: { label: 'peak, KiB', grid: true },
      y: { label: null, domain: ['whole pages', 'shared'], axis: null },
      fy: { label: null },
      fx: { label: 'CPU page', domain: CPU_PAGES.map(sizeText) },
      color: { legend: false, domain: ['whole pages', 'shared'], scheme: 'Observable10' },
      marks: [
        Plot.barX(bars, { x: 'kib', y: 'how', fy: 'driver', fx: 'page', fill: 'how' }),
        Plot.text(bars, { x: 'kib', y: 'how', fy: 'driver', fx: 'page', text: 'how', textAnchor: 'start', dx: 4 }),
      ],
    }),
  );
};

/** @param traces traces to play; without any the section has the start tables only. */
export const subPageSection = (harnesses: readonly DriverHarness[], traces: readonly Trace[]): Section => {
  const starts = startTableRows(harnesses);
  const rows = traceSavingRows(traces, harnesses);
  return {
    key: 'subPages',
    tables: [
      {
        title: `Start tables: memory a domain takes for them, over ${DOMAINS} domains`,
        head: [
          'driver',
          'format',
          'start tables',
          ...CPU_PAGES.flatMap((page) => [`${sizeText(page)} pages:\nwhole`, 'shared']),
        ],
        rows: starts.map((row) => [
          row.driver,
          row.format,
          `${row.tables} × ${countText(row.bytes)} B`,
          ...row.cost.flatMap(({ whole, shared }) => [sizeText(whole), sizeText(shared)]),
        ]),
      },
      ...[...new Set(rows.map((row) => row.trace))].map((trace) => ({
        title: `Peak of SecPageTables over ${trace}`,
        head: [
          'driver',
          'format',
          ...CPU_PAGES.flatMap((page) => [`${sizeText(page)} pages:\nwhole`, 'shared', 'saved']),
        ],
        rows: harnesses.flatMap(({ name }) => {
          const mine = rows.filter((row) => row.trace === trace && row.driver === name);
          const [first] = mine;
          if (first === undefined) return [];
          return [
            [
              name,
              first.format,
              ...mine.flatMap(({ whole, shared }) => [sizeText(whole), sizeText(shared), saved(whole, shared)]),
            ],
          ];
        }),
      })),
    ],
    notes: [
      'whole: every table takes whole CPU pages, as in Linux today; shared: sizes of half a page and less, down to 64 bytes, ' +
        'share pages (IommuPages option subPage)',
      ...(rows.length === 0
        ? []
        : [
            'SecPageTables counts queues and device structures as well as page tables; a page counts once for all in it',
          ]),
    ],
    plots: [...new Set(rows.map((row) => row.trace))].map((trace) => ({
      title: `Peak memory over ${trace}`,
      words: 'Tables, queues and device structures, by size of the CPU page, in whole pages and sharing them.',
      draw: (document) =>
        draw(
          document,
          rows.filter((row) => row.trace === trace),
        ),
    })),
    data: { startTables: starts, traces: rows },
    mismatches: rows
      .filter(({ wrong }) => wrong !== 0)
      .map(({ trace, driver, cpuPageSize, wrong }) => `${trace}, ${driver}, ${sizeText(cpuPageSize)}: ${wrong} wrong`),
  };
};
