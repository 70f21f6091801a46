/** Tables smaller than a page, and tables that share pages: what is mapped does not depend on where tables lie. */
import { bit, bits } from '@iommu-ts/bits';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { IommuPagesOptions } from '@iommu-ts/iommu-pages';
import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import {
  GatherRecord,
  PageTable,
  RULES_GENERIC_PT,
  RULES_IO_PGTABLE_ARM,
  RULES_IO_PGTABLE_DART,
  defineFormat,
} from '../src/index.ts';
import type { FormatSpec, PageTableConfig } from '../src/index.ts';
import { CONFIGS } from './local-formats.ts';

/** Tables of 128 entries, 1 KiB, under pages of 4 KiB: table addresses have bits 11:10. */
const quarter: Omit<FormatSpec, 'name' | 'rules'> = {
  spec: 'test',
  granuleLg2: 12,
  bits: 7,
  maxTopLevel: 4,
  topLevel: 3,
  sizes: [{ lg2: 12 }, { lg2: 19 }, { lg2: 26 }],
  leafLayout: { ADDR: bits(51, 10), PS: bit(7), W: bit(1), P: bit(0) },
  tableLayout: { ADDR: bits(51, 10), PS: bit(7), P: bit(0) },
  oa: bits(51, 10),
  maxOas: 52,
  present: bit(0),
  tableType: { field: bit(7), value: 0 },
  tableBits: [{ field: 'P', value: 1 }],
  blockBits: [{ field: 'PS', value: 1 }],
  attributes: [
    { field: 'P', value: 1 },
    { field: 'W', value: 1, when: 2 },
  ],
  write: { field: 'W', value: 1 },
  hw: (table) => ({ root: table.root }),
};
const QUARTER = defineFormat({ ...quarter, name: 'quarter', rules: RULES_GENERIC_PT });
const GROWING = defineFormat({
  ...quarter,
  name: 'growing',
  rules: RULES_GENERIC_PT,
  topLevel: 0,
  dynamicTop: true,
});
const QUARTER_ARM = defineFormat({ ...quarter, name: 'quarter-arm', rules: RULES_IO_PGTABLE_ARM });
const QUARTER_ROOTS = defineFormat({
  ...quarter,
  name: 'quarter-roots',
  rules: RULES_IO_PGTABLE_DART,
  maxTopLevel: 1,
  topLevel: 1,
  maxRoots: 4,
  sizes: [{ lg2: 12 }],
  tableType: { field: bit(0), value: 1 },
});
/** A start table of two entries. */
const SHORT = defineFormat({
  ...quarter,
  name: 'short',
  rules: RULES_IO_PGTABLE_ARM,
  bits: 9,
  maxTopLevel: 3,
  topLevel: -1,
  shortTop: true,
  sizes: [{ lg2: 12 }, { lg2: 21 }, { lg2: 30 }],
  leafLayout: { ...quarter.leafLayout, ADDR: bits(51, 12) },
  tableLayout: { ...quarter.tableLayout, ADDR: bits(51, 12) },
  oa: bits(51, 12),
});

const SMALL: readonly (readonly [string, PageTableConfig])[] = [
  ['quarter', { format: QUARTER, ias: 40, oas: 52 }],
  ['growing', { format: GROWING, ias: 40, oas: 52 }],
  ['quarter-arm', { format: QUARTER_ARM, ias: 40, oas: 52 }],
  ['quarter-roots', { format: QUARTER_ROOTS, ias: 28, oas: 52 }],
  ['short', { format: SHORT, ias: 31, oas: 52 }],
];

const make = (config: PageTableConfig, kind: 'sparse' | 'flat', options: IommuPagesOptions): PageTable => {
  // Not at a multiple of 4 GiB, so that words of addresses carry.
  const memory = new PhysicalMemory([{ base: 0x1_4000_0000n, size: 1n << 23n, kind }]);
  return new PageTable(new IommuPages(memory, new BuddySource(memory), options), config);
};

const words = (address: bigint): [hi: number, lo: number] => [Number(address >> 32n), Number(address & 0xffff_ffffn)];

/** One text: comparing thousands of objects costs more than making them. */
const leavesOf = (table: PageTable): string =>
  [...table.leaves()].map(({ iova, pa, size, entry }) => `${iova} ${pa} ${size} ${entry}`).join('\n');

const op = fc.record({
  map: fc.boolean(),
  at: fc.nat(4200),
  pa: fc.nat(40_000),
  /** Lg2 of an alignment in granules that address and length get, so that larger pages and whole tables occur. */
  align: fc.constantFrom(0, 0, 3, 7, 9),
  length: fc.integer({ min: 1, max: 900 }),
});

describe.each([...SMALL, ...CONFIGS])('%s', (_name, config) => {
  it.each([
    ['sparse', 4096],
    ['flat', 4096],
    ['flat', 65536],
  ] as const)('%s memory, CPU pages of %d: as with whole pages', (kind, cpuPageSize) => {
    fc.assert(
      fc.property(fc.array(op, { minLength: 1, maxLength: 10 }), (operations) => {
        const plain = make(config, kind, {});
        const packed = make(config, kind, { cpuPageSize, subPage: true });
        const tables = [plain, packed];
        const gathers = [new GatherRecord(), new GatherRecord()];
        const granule = BigInt(plain.granuleBytes);
        for (const step of operations) {
          const mask = ~((1n << BigInt(step.align)) - 1n);
          const iova = (BigInt(step.at) & mask) * granule;
          const pa = (BigInt(step.pa) & mask) * granule;
          const length = step.align === 0 ? step.length : Math.ceil(step.length / 2 ** step.align) * 2 ** step.align;
          const bytes = length * plain.granuleBytes;
          const results = tables.map((table, i) => {
            const gather = gathers[i]!;
            const done = step.map
              ? [table.map(...words(iova), ...words(pa), bytes, 3, gather), table.mapped]
              : [table.unmap(...words(iova), bytes, gather)];
            const { startPfn, lastPfn, leafLevels, tableLevels, pgsizeLg2, freelist } = gather;
            const touched = [startPfn, lastPfn, leafLevels, tableLevels, pgsizeLg2, freelist.length];
            table.pages!.putPagesList(freelist);
            gather.reset();
            return [...done, ...touched];
          });
          expect(results[1]).toEqual(results[0]);
          for (const offset of [0n, BigInt(bytes) - 1n, BigInt(bytes)]) {
            const found = tables.map((table) => {
              const there = table.iovaToPhys(...words(iova + offset));
              return there ? [table.outHi, table.outLo, table.leafSizeLg2] : null;
            });
            expect(found[1]).toEqual(found[0]);
            expect(packed.walk(iova + offset).pa).toBe(plain.walk(iova + offset).pa);
          }
        }
        expect(leavesOf(packed)).toBe(leavesOf(plain));
        const shape = (table: PageTable): string[] =>
          [...table.tables()].map(({ level, bytes }) => `${level} ${bytes}`);
        expect(shape(packed)).toEqual(shape(plain));
        for (const { pa, bytes } of packed.tables()) expect(pa % BigInt(Math.max(bytes, 64))).toBe(0n);
        const opened = PageTable.open(packed.memory, { ...config, topLevel: packed.topLevel }, packed.geometry().roots);
        expect(leavesOf(opened)).toBe(leavesOf(plain));
        if (cpuPageSize === 4096) {
          expect(packed.pages!.nrSecPageTablePages).toBeLessThanOrEqual(plain.pages!.nrSecPageTablePages);
        }
        packed.destroy();
        expect([packed.pages!.nrSecPageTablePages, packed.pages!.subPages.parts]).toEqual([0, 0]);
      }),
      { numRuns: 8, seed: 20_261_127 },
    );
  });
});

test('1 KiB tables share a page, and a start table of two entries takes 64 bytes', () => {
  const packed = make(SMALL[0]![1], 'flat', { subPage: true });
  expect(packed.map(0, 0, 0, 0x1000, 4096, 3)).toBe(0);
  expect([...packed.tables()].map(({ bytes }) => bytes)).toEqual([1024, 1024, 1024, 1024]);
  expect(packed.pages!.nrSecPageTablePages).toBe(1);
  const plain = make(SMALL[0]![1], 'flat', {});
  plain.map(0, 0, 0, 0x1000, 4096, 3);
  expect(plain.pages!.nrSecPageTablePages).toBe(4);

  const short = make(SMALL[4]![1], 'flat', { subPage: true });
  expect(short.geometry().topBytes).toBe(16);
  expect(short.pages!.sizeOf(short.rootPfn)).toBe(64);
  const starts = [short];
  for (let i = 0; i < 63; i++) starts.push(new PageTable(short.pages, SMALL[4]![1]));
  expect(short.pages!.nrSecPageTablePages).toBe(1);
  expect(new Set(starts.map((table) => table.root)).size).toBe(64);
  expect(starts.every((table) => table.root % 64n === 0n)).toBe(true);
});

test('flushes name the table, with its fraction, and bytes in it', () => {
  const memory = new PhysicalMemory([{ base: 0n, size: 1n << 20n }]);
  const pages = new IommuPages(memory, new BuddySource(memory), { subPage: true });
  const flushed: [pfn: number, offset: number, bytes: number][] = [];
  const flush = (pfn: number, offset: number, length: number): void => void flushed.push([pfn, offset, length]);
  pages.allocPagesSz(64);
  const table = new PageTable(pages, { ...SMALL[0]![1], incoherent: true, flush });
  expect(flushed).toEqual([[table.rootPfn, 0, 1024]]);
  expect(Number.isInteger(table.rootPfn)).toBe(false);
  flushed.length = 0;
  table.map(0, 0x5000, 0, 0x1000, 4096, 3);
  const tables = [...table.tables()].map(({ pa }) => Number(pa) / 4096);
  const entry = (level: number): [number, number, number] => [tables[3 - level]!, level === 0 ? 40 : 0, 8];
  const whole = (level: number): [number, number, number] => [tables[3 - level]!, 0, 1024];
  expect(flushed).toEqual([whole(2), entry(3), whole(1), entry(2), whole(0), entry(1), entry(0)]);
  flushed.length = 0;
  table.unmap(0, 0x5000, 4096, new GatherRecord());
  expect(flushed).toEqual([entry(0)]);
});
