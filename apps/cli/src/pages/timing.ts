/** How long allocating and freeing takes with each layout, on this machine. */
import * as Plot from '@observablehq/plot';
import { BuddySource, IommuPages, IommuPagesList, PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { DescriptorLayout } from '@iommu-ts/iommu-pages';
import { svgText } from '../html.ts';
import type { PageDocument } from '../html.ts';
import type { Section } from './section.ts';

const LAYOUTS: readonly DescriptorLayout[] = ['host', 'overlay', 'memdesc'];
/** Pages of tables; descriptors lie elsewhere, so that all layouts have the same page source. */
const RAM = { base: 0n, size: 1n << 28n } as const;
const DESCRIPTORS = { base: 1n << 32n, size: 1n << 25n } as const;
/** So long each case is run untimed with each layout: compilers and caches warm up. */
const WARM_MS = 100;
const ROUNDS = 101;
/** Blocks a round: so few that most rounds are over before the machine's other work interrupts them. */
const BLOCKS = 512;

interface Case {
  readonly name: string;
  /** Allocates and frees {@link BLOCKS} blocks. */
  readonly run: (pages: IommuPages) => void;
}

const single =
  (size: number) =>
  (pages: IommuPages): void => {
    for (let i = 0; i < BLOCKS; i++) pages.freePages(pages.allocPagesSz(size));
  };

const CASES: readonly Case[] = [
  { name: 'alloc + free of 4 KiB', run: single(4096) },
  { name: 'alloc + free of 64 KiB', run: single(65_536) },
  {
    name: `alloc ${BLOCKS} of 4 KiB, list, put: each`,
    run: (pages) => {
      const list = new IommuPagesList();
      for (let i = 0; i < BLOCKS; i++) pages.listAdd(list, pages.allocPagesSz(4096));
      pages.putPagesList(list);
    },
  },
];

interface TimingRow {
  readonly what: string;
  /** Median nanoseconds a block, by layout. */
  readonly ns: Readonly<Record<DescriptorLayout, number>>;
}

const timingRows = (): TimingRow[] => {
  const allocators = LAYOUTS.map((layout) => {
    const memory = new PhysicalMemory([RAM, DESCRIPTORS].map((range) => ({ ...range, kind: 'flat' })));
    const source = new BuddySource(memory, [RAM]);
    return { layout, pages: new IommuPages(memory, source, { layout, descriptorRange: DESCRIPTORS }) };
  });
  return CASES.map(({ name, run }) => {
    const times = { host: [] as number[], overlay: [] as number[], memdesc: [] as number[] };
    for (const { pages } of allocators) {
      const began = performance.now();
      do run(pages);
      while (performance.now() - began < WARM_MS);
    }
    // The layouts take turns, so that all meet the same disturbances.
    for (let round = 0; round < ROUNDS; round++) {
      for (const { layout, pages } of allocators) {
        const start = performance.now();
        run(pages);
        times[layout].push(((performance.now() - start) * 1e6) / BLOCKS);
      }
    }
    const ns = { host: median(times.host), overlay: median(times.overlay), memdesc: median(times.memdesc) };
    return { what: name, ns };
  });
};

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;

const draw = (document: PageDocument, rows: readonly TimingRow[]): string =>
  svgText(
    Plot.plot({
      document,
      width: 960,
      height: 60 + 90 * rows.length,
      marginLeft: 90,
      marginRight: 190,
      x: { label: 'ns a block', grid: true, zero: true },
      y: { label: null, domain: LAYOUTS },
      fy: { label: null },
      color: { domain: LAYOUTS, scheme: 'Observable10' },
      marks: [
        Plot.barX(
          rows.flatMap((row) => LAYOUTS.map((layout) => ({ what: row.what, layout, ns: row.ns[layout] }))),
          { x: 'ns', y: 'layout', fy: 'what', fill: 'layout' },
        ),
        Plot.ruleX([0]),
      ],
    }),
  );

export const timingSection = (): Section => {
  const rows = timingRows();
  return {
    key: 'timing',
    tables: [
      {
        title: 'Time to allocate and free a block, ns, zeroing included',
        head: ['', ...LAYOUTS],
        rows: rows.map((row) => [row.what, ...LAYOUTS.map((layout) => row.ns[layout].toFixed(0))]),
      },
    ],
    notes: [
      `times: of this machine, Node ${process.versions.node}; median of ${ROUNDS} rounds of ${BLOCKS} blocks, the layouts in ` +
        'turn. host: descriptors in arrays of the host, nothing emulated',
    ],
    plots: [
      {
        title: 'Time to allocate and free',
        words: 'A block, zeroing included, on the machine that made this page.',
        draw: (document) => draw(document, rows),
      },
    ],
    data: { node: process.versions.node, rounds: ROUNDS, blocks: BLOCKS, rows },
    mismatches: [],
  };
};
