/** What descriptors cost in memory: computed for every size of RAM, and measured where a machine of that size can be built. */
import * as Plot from '@observablehq/plot';
import {
  BuddySource,
  IOPTDESC_MEMDESC,
  IOPTDESC_MEMDESC_NO_MEMCG,
  IOPTDESC_OVERLAY,
  IOPTDESC_OVERLAY_NO_MEMCG,
  IommuPages,
  MEMDESC,
  NO_PAGE,
  PhysicalMemory,
  STRUCT_PAGE,
  STRUCT_PAGE_NO_MEMCG,
  descriptorCost,
} from '@iommu-ts/iommu-pages';
import { svgText } from '../html.ts';
import type { PageDocument } from '../html.ts';
import { countText, sizeText } from './section.ts';
import type { Section } from './section.ts';

const GIB = 2 ** 30;
const MIB = 2 ** 20;
/** RAM sizes: powers of two, in bytes; up to the last that is measured, machines are built. */
const FIRST_RAM = GIB;
const LAST_RAM = 2 ** 44;
const LAST_MEASURED = 16 * GIB;

/** Layouts that have a cost. */
const LAYOUTS = ['overlay', 'memdesc'] as const;
type Layout = (typeof LAYOUTS)[number];

/**
 * The tables that stand against a RAM: leaf tables of 4 KiB that map all of it by 4 KiB pages with 8-byte entries, so a
 * page of tables for 2 MiB.
 */
const tableBlocks = (ram: number): number => ram / (2 * MIB);

interface LayoutCost {
  /** The memory map, for all of the RAM. */
  readonly memmapBytes: number;
  readonly percentOfRam: number;
  readonly bytesPerGiBOfRam: number;
  /** Separately allocated descriptors of the tables, in whole pages. */
  readonly slabBytes: number;
  /** What a MiB of tables of 4 KiB takes: its frames' part of the memory map, and its separately allocated descriptors. */
  readonly bytesPerMiBOfTables: number;
}

export interface CostRow {
  readonly ramBytes: number;
  readonly tableBytes: number;
  readonly how: 'measured' | 'computed';
  readonly overlay: LayoutCost;
  readonly memdesc: LayoutCost;
}

/** Bytes of a descriptor for each page frame, and of a separate one. */
const FRAME_BYTES = { overlay: STRUCT_PAGE.bytes, memdesc: MEMDESC.bytes };

const costOf = (layout: Layout, ram: number, memmapBytes: number, slabBytes: number): LayoutCost => {
  const tablesMiB = (tableBlocks(ram) * 4096) / MIB;
  return {
    memmapBytes,
    percentOfRam: (100 * memmapBytes) / ram,
    bytesPerGiBOfRam: memmapBytes / (ram / GIB),
    slabBytes,
    bytesPerMiBOfTables: (MIB / 4096) * FRAME_BYTES[layout] + slabBytes / tablesMiB,
  };
};

const computed = (layout: Layout, ram: number): LayoutCost => {
  const { memmapBytes, slabBytes } = descriptorCost(layout, ram, tableBlocks(ram));
  return costOf(layout, ram, memmapBytes, slabBytes);
};

/** What a machine with so much RAM can not use otherwise: pages that its page source no longer has. */
export const measure = (layout: Layout, ram: number): { memmapBytes: number; slabBytes: number } => {
  const memory = new PhysicalMemory([{ base: 0n, size: BigInt(ram) }]);
  const source = new BuddySource(memory);
  const before = source.freePages();
  const pages = new IommuPages(memory, source, { layout });
  const memmap = before - source.freePages();
  const blocks = tableBlocks(ram);
  for (let i = 0; i < blocks; i++) {
    if (pages.allocPagesSz(4096) === NO_PAGE)
      throw new Error(`${layout}: no page ${i} of ${blocks} in ${sizeText(ram)}`);
  }
  const slab = before - source.freePages() - memmap - blocks;
  return { memmapBytes: memmap * 4096, slabBytes: slab * 4096 };
};

/** All rows, and where a measurement was not what was computed. */
export const costRows = (measureOne: typeof measure = measure): { rows: CostRow[]; mismatches: string[] } => {
  const rows: CostRow[] = [];
  const mismatches: string[] = [];
  for (let ramBytes = FIRST_RAM; ramBytes <= LAST_RAM; ramBytes *= 2) {
    const expected = { overlay: computed('overlay', ramBytes), memdesc: computed('memdesc', ramBytes) };
    const measured = ramBytes <= LAST_MEASURED;
    const found = { ...expected };
    for (const layout of measured ? LAYOUTS : []) {
      const { memmapBytes, slabBytes } = measureOne(layout, ramBytes);
      found[layout] = costOf(layout, ramBytes, memmapBytes, slabBytes);
      for (const [what, got, want] of [
        ['memory map', memmapBytes, expected[layout].memmapBytes],
        ['separate descriptors', slabBytes, expected[layout].slabBytes],
      ] as const) {
        if (got !== want) {
          mismatches.push(
            `${layout}, ${sizeText(ramBytes)}: ${what}: measured ${countText(got)} bytes, computed ${countText(want)}`,
          );
        }
      }
    }
    const tableBytes = tableBlocks(ramBytes) * 4096;
    rows.push({ ramBytes, tableBytes, how: measured ? 'measured' : 'computed', ...found });
  }
  return { rows, mismatches };
};

/** The structures with their sizes, with and without memory control groups. */
const SIZES = [
  { name: 'overlay: struct page, one a page frame', memcg: STRUCT_PAGE.bytes, noMemcg: STRUCT_PAGE_NO_MEMCG.bytes },
  { name: 'overlay: struct ioptdesc in it', memcg: IOPTDESC_OVERLAY.bytes, noMemcg: IOPTDESC_OVERLAY_NO_MEMCG.bytes },
  { name: 'memdesc: word, one a page frame', memcg: MEMDESC.bytes, noMemcg: MEMDESC.bytes },
  {
    name: 'memdesc: struct ioptdesc, one an allocation',
    memcg: IOPTDESC_MEMDESC.bytes,
    noMemcg: IOPTDESC_MEMDESC_NO_MEMCG.bytes,
  },
] as const;

const round = (value: number): string => countText(Math.round(value));
const percent = (value: number): string => `${value.toFixed(4)} %`;

/** Descriptor bytes over RAM, a line a layout. */
const draw = (document: PageDocument, rows: readonly CostRow[]): string => {
  const points = rows.flatMap((row) =>
    LAYOUTS.map((layout) => ({
      layout,
      ram: row.ramBytes,
      bytes: row[layout].memmapBytes + row[layout].slabBytes,
      how: row.how,
    })),
  );
  const ends = points.filter((point) => point.ram === LAST_RAM);
  return svgText(
    Plot.plot({
      document,
      width: 960,
      height: 380,
      marginLeft: 80,
      marginRight: 90,
      x: { label: 'RAM', type: 'log', base: 2, tickFormat: sizeText, ticks: 8, grid: true },
      y: { label: 'descriptors', type: 'log', base: 2, tickFormat: sizeText, ticks: 10, grid: true },
      color: { domain: LAYOUTS, scheme: 'Observable10' },
      marks: [
        Plot.line(points, { x: 'ram', y: 'bytes', stroke: 'layout' }),
        Plot.dot(
          points.filter((point) => point.how === 'measured'),
          { x: 'ram', y: 'bytes', fill: 'layout' },
        ),
        Plot.dot(
          points.filter((point) => point.how === 'computed'),
          { x: 'ram', y: 'bytes', stroke: 'layout', fill: 'white' },
        ),
        Plot.text(ends, { x: 'ram', y: 'bytes', text: 'layout', fill: 'layout', textAnchor: 'start', dx: 8 }),
      ],
    }),
  );
};

export const descriptorSection = (): Section => {
  const { rows, mismatches } = costRows();
  return {
    key: 'descriptors',
    tables: [
      {
        title: 'Descriptors for RAM, with leaf tables of 4 KiB that map all of it by 4 KiB pages',
        head: [
          'RAM',
          ...LAYOUTS.flatMap((layout) => [
            `${layout}:\nof RAM`,
            `${layout}:\nbytes per\nGiB of RAM`,
            `${layout}:\nbytes per\nMiB of tables`,
            `${layout}:\nall`,
          ]),
          'saved',
          'how',
        ],
        rows: rows.map((row) => [
          sizeText(row.ramBytes),
          ...LAYOUTS.flatMap((layout) => [
            percent(row[layout].percentOfRam),
            round(row[layout].bytesPerGiBOfRam),
            round(row[layout].bytesPerMiBOfTables),
            sizeText(row[layout].memmapBytes + row[layout].slabBytes),
          ]),
          sizeText(row.overlay.memmapBytes + row.overlay.slabBytes - row.memdesc.memmapBytes - row.memdesc.slabBytes),
          row.how,
        ]),
      },
      {
        title: 'Sizes in bytes, 64-bit',
        head: ['', 'with memcg', 'without'],
        rows: SIZES.map(({ name, memcg, noMemcg }) => [name, `${memcg}`, `${noMemcg}`]),
      },
    ],
    notes: [
      'of RAM, per GiB of RAM: the memory map. Per MiB of tables: the part of it that belongs to their frames, and their ' +
        'separately allocated descriptors in whole pages. All: the memory map and those descriptors.',
      'measured: pages that the page source of an emulated machine with so much RAM no longer has',
      'without memcg a struct page needs 56 bytes, and is 64 all the same where it is aligned to two words (x86-64, arm64)',
    ],
    plots: [
      {
        title: 'Descriptors over RAM',
        words: 'Memory map and separately allocated descriptors of the tables; filled: measured, hollow: computed.',
        draw: (document) => draw(document, rows),
      },
    ],
    data: { sizes: SIZES, rows },
    mismatches,
  };
};
