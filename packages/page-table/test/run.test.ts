/** The short ways over flat memory (single granules, runs, blocks, SIMD) against the full rules over sparse memory. */
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GatherRecord, PageTable } from '../src/index.ts';
import type { PageTableConfig } from '../src/index.ts';
import { CONFIGS } from './local-formats.ts';

const BASE = 0x1_0000_0000n;

/** A table with its memory; `step` plays one operation and tells all that a caller can see of it. */
class Side {
  readonly memory: PhysicalMemory;
  readonly pages: IommuPages;
  readonly table: PageTable;
  readonly gather = new GatherRecord();

  constructor(config: PageTableConfig, kind: 'flat' | 'sparse') {
    this.memory = new PhysicalMemory([{ base: BASE, size: 1n << 24n, kind }]);
    this.pages = new IommuPages(this.memory, new BuddySource(this.memory));
    this.table = new PageTable(this.pages, config);
  }

  map(iova: bigint, pa: bigint, bytes: number, prot: number): unknown {
    const { table, gather } = this;
    const status = table.map(hi(iova), lo(iova), hi(pa), lo(pa), bytes, prot, gather);
    return [status, table.mapped, this.#gathered()];
  }

  unmap(iova: bigint, bytes: number): unknown {
    return [this.table.unmap(hi(iova), lo(iova), bytes, this.gather), this.#gathered()];
  }

  /** The record, which is then flushed. */
  #gathered(): unknown {
    const g = this.gather;
    const seen = [
      g.startPfn,
      g.lastPfn,
      g.pgsizeLg2,
      g.leafLevels,
      g.tableLevels,
      this.pages.listPages(g.freelist),
    ] as const;
    this.pages.putPagesList(g.freelist);
    g.reset();
    return seen;
  }

  /** Every table, where it lies and what is in it. */
  tables(): unknown {
    return [...this.table.tables()].map(({ pa, level, bytes }) => [
      pa,
      level,
      Buffer.from(this.memory.readBytes(pa, bytes)).toString('base64'),
    ]);
  }
}

const hi = (value: bigint): number => Number(value >> 32n);
const lo = (value: bigint): number => Number(value & 0xffff_ffffn);

const operation = fc.record({
  map: fc.boolean(),
  /** In granules; the tables have 512, 2048 or 8192 entries. */
  page: fc.oneof(fc.nat(1100), fc.constantFrom(0, 512, 1024, 1536)),
  target: fc.oneof(fc.nat(1100), fc.constantFrom(0, 512, 1024), fc.integer({ min: 0xf_ff00, max: 0x10_0100 })),
  count: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 700 }), fc.constantFrom(4, 256, 512)),
  prot: fc.constantFrom(1, 3, 3, 0),
  misaligned: fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 512),
});

describe.each(CONFIGS)('%s', (_name, config) => {
  it.each(['all sizes', 'granules only'])('flat and sparse memory see the same, byte for byte (%s)', (sizes) => {
    const granuleLg2 = BigInt(config.format.granuleLg2);
    const used = sizes === 'granules only' ? { ...config, pageSizes: 1n << granuleLg2 } : config;
    fc.assert(
      fc.property(fc.array(operation, { minLength: 1, maxLength: 25 }), (operations) => {
        const [flat, sparse] = [new Side(used, 'flat'), new Side(used, 'sparse')];
        expect(flat.table.bulk).not.toBeNull();
        expect(sparse.table.bulk).toBeNull();
        const step = Number(1n << granuleLg2);
        for (const { map, page, target, count, prot, misaligned } of operations) {
          const iova = (BigInt(page) << granuleLg2) + BigInt(misaligned);
          const pa = BigInt(target) << granuleLg2;
          const play = (side: Side): unknown =>
            map ? side.map(iova, pa, count * step, prot) : side.unmap(iova, count * step);
          expect(play(flat), `${map ? 'map' : 'unmap'} ${page}+${count} -> ${target}`).toEqual(play(sparse));
        }
        expect(flat.tables()).toEqual(sparse.tables());
      }),
      { numRuns: 40, seed: 2026 },
    );
  });
});
