/** Memory runs out in the middle of a map: for every n the n-th table that it needs can't be had. */
import { IommuError, hex, hi32, lo32 } from '@iommu-ts/bits';
import { PageTable } from '@iommu-ts/page-table';
import { expect } from 'vitest';
import { ArmedSource, forEachFailure } from '../failing-source.ts';
import type { FormatSuiteCase } from './cases.ts';
import type { FormatRig } from './rig.ts';
import { leafText } from './rig.ts';

interface Range {
  readonly iova: bigint;
  readonly pa: bigint;
  readonly size: bigint;
}

/** One map; `prepare` runs while there is memory, null when the format has no room for it. */
interface Scenario {
  readonly name: string;
  readonly prepare: (rig: FormatRig) => Range | null;
}

/** Bytes that one table of the lowest level covers. */
const spanOf = (rig: FormatRig): bigint => (rig.granule / 8n) * rig.granule;
/** A range when it lies in the format's widths. */
const within = (rig: FormatRig, range: Range): Range | null =>
  range.iova - rig.origin + range.size <= rig.span && range.pa + range.size <= 1n << BigInt(rig.config.oas)
    ? range
    : null;

const SCENARIOS: readonly Scenario[] = [
  {
    name: 'one granule',
    prepare: (rig) => within(rig, { iova: rig.origin + spanOf(rig), pa: 0n, size: rig.granule }),
  },
  {
    name: 'granules over three tables',
    prepare: (rig) => {
      const span = spanOf(rig);
      const iova = rig.origin + 3n * span - 2n * rig.granule;
      return within(rig, { iova, pa: span - rig.granule, size: span + 4n * rig.granule });
    },
  },
  {
    name: 'page sizes around a boundary',
    prepare: (rig) => {
      const big = rig.sizes.findLast((size) => size <= 1n << 34n)!;
      const below = 3n * rig.granule;
      if (big <= below) return null;
      return within(rig, { iova: rig.origin + 2n * big - below, pa: big - below, size: big + 2n * below });
    },
  },
  {
    name: 'a block over an emptied table',
    prepare: (rig) => {
      const size = rig.sizes.find((s) => s >= spanOf(rig));
      if (size === undefined) return null;
      const range = within(rig, { iova: rig.origin + size, pa: size, size: size + 2n * rig.granule });
      if (range === null) return null;
      expect(rig.map(range.iova, rig.granule, rig.granule)).toBe(0);
      expect(rig.unmap(range.iova, rig.granule)).toBe(rig.granule);
      return range;
    },
  },
  {
    name: 'the last granule',
    prepare: (rig) => ({ iova: rig.origin + rig.span - rig.granule, pa: rig.granule, size: rig.granule }),
  },
];

/** All that a map may change: where the top is, and which tables there are. */
const shape = (rig: FormatRig): string =>
  [
    `top ${hex(rig.table.root)} level ${rig.table.topLevel}`,
    ...[...rig.table.tables()].map(({ pa, level, bytes }) => `table ${hex(pa)} level ${level} bytes ${bytes}`),
  ].join('\n');

const pagesOfTables = (rig: FormatRig, table: PageTable): number => {
  let bytes = 0;
  for (const { pa } of table.tables()) bytes += Math.max(4096, rig.pages.sizeOf(Number(pa >> 12n)));
  return bytes / 4096;
};

export const failureCases: readonly FormatSuiteCase[] = [
  {
    name: 'failure_creation',
    run: (rig) => {
      const source = ArmedSource.under(rig.pages);
      const before = rig.pages.nrIommuPages();
      const failures = forEachFailure((n, mode, label) => {
        source.arm(n, mode);
        let code = 'none';
        try {
          new PageTable(rig.pages, rig.config).destroy();
        } catch (error) {
          code = error instanceof IommuError ? error.code : String(error);
        }
        source.disarm();
        expect(code, label).toBe(source.refused > 0 ? 'ENOMEM' : 'none');
        expect(rig.pages.nrIommuPages(), `${label}: pages`).toBe(before);
        return source.refused > 0;
      });
      expect(failures).toBeGreaterThan(1);
    },
  },
  {
    name: 'failure_map',
    run: (rig) => {
      let failures = 0;
      const { pages } = rig;
      const source = ArmedSource.under(pages);
      for (const scenario of SCENARIOS) {
        failures += forEachFailure((n, mode, attempt) => {
          const label = `${scenario.name}, ${attempt}`;
          rig.renew();
          const near = { iova: rig.origin, pa: 2n * rig.granule };
          const range = scenario.prepare(rig);
          if (range === null) return false;
          expect(rig.map(near.iova, near.pa, rig.granule), label).toBe(0);
          const nearLeaf = leafText(near.iova, near.pa, rig.granule);
          const before = shape(rig);
          // What the whole map would have made.
          const whole = wholeLeaves(rig, range);

          const { iova, pa, size } = range;
          source.arm(n, mode);
          const errno = rig.map(iova, pa, size);
          source.disarm();
          const { refused } = source;
          const { mapped } = rig.table;
          if (refused === 0 || mode === 'from-then-on') expect(errno, label).toBe(refused === 0 ? 0 : -12);
          expect([0, -12], label).toContain(errno);
          if (errno === 0) expect(mapped, label).toBe(Number(size));
          // The leaves are the first ones of the whole map, as long as `mapped` says; nothing else came or went.
          let bytes = 0n;
          const leaves = whole.filter((leaf) => (bytes += leaf.size) <= BigInt(mapped));
          expect(
            leaves.reduce((sum, leaf) => sum + leaf.size, 0n),
            `${label}: whole leaves`,
          ).toBe(BigInt(mapped));
          expect(rig.leaves(), label).toEqual([nearLeaf, ...leaves.map((l) => leafText(l.iova, l.pa, l.size))]);
          rig.expectMapped(near.iova, near.pa, rig.granule);
          if (mapped < Number(size)) rig.expectUnmapped(iova + BigInt(mapped), iova + size - 1n);
          expect(pages.nrIommuPages(), `${label}: pages against tables`).toBe(pagesOfTables(rig, rig.table));
          if (refused > 0 && n === 1 && mode === 'from-then-on' && errno !== 0) {
            // Not one table could be had: the tables are what they were.
            if (mapped === 0 && scenario.name !== 'a block over an emptied table')
              expect(shape(rig), label).toBe(before);
          }
          // With memory again the rest goes in, and all comes out.
          if (mapped < Number(size)) {
            expect(rig.map(iova + BigInt(mapped), pa + BigInt(mapped), size - BigInt(mapped)), label).toBe(0);
          }
          rig.expectMapped(iova, pa, size);
          let done = 0n;
          while (done < size) {
            const more = rig.unmap(iova + done, size - done);
            if (more === 0n) expect(hex(done), `${label}: unmap stopped`).toBe(hex(size));
            done += more;
          }
          expect(rig.leaves(), label).toEqual([nearLeaf]);
          return refused > 0;
        });
      }
      expect(failures).toBeGreaterThan(1);
    },
  },
  {
    name: 'failure_nothing_to_allocate',
    run: (rig) => {
      const source = ArmedSource.under(rig.pages);
      for (const scenario of SCENARIOS) {
        const range = scenario.prepare(rig);
        if (range === null) continue;
        expect(rig.map(range.iova, range.pa, range.size), scenario.name).toBe(0);
        source.arm(1, 'from-then-on');
        let done = 0n;
        while (done < range.size) {
          const more = rig.unmap(range.iova + done, range.size - done);
          if (more === 0n) expect(hex(done), `${scenario.name}: unmap stopped`).toBe(hex(range.size));
          done += more;
        }
        source.disarm();
        expect(source.refused, `${scenario.name}: allocations by an unmap`).toBe(0);
      }
    },
  },
];

/** Leaves of the whole range, made in a second table that is thrown away. */
const wholeLeaves = (rig: FormatRig, range: Range): { iova: bigint; pa: bigint; size: bigint }[] => {
  const table = new PageTable(rig.pages, rig.config);
  const { iova, pa, size } = range;
  expect(table.map(hi32(iova), lo32(iova), hi32(pa), lo32(pa), Number(size), 3)).toBe(0);
  const leaves = [...table.leaves()];
  table.destroy();
  return leaves;
};
