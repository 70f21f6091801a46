/** Random map, unmap and look-up against a `Map` of granules that follows the rules of each family, errors included. */
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GatherRecord, PageTable, RULES_GENERIC_PT } from '../src/index.ts';
import type { PageTableConfig } from '../src/index.ts';
import { CONFIGS } from './local-formats.ts';

/** Only granules are used, so that a model without page sizes is exact: overlap and holes are where the families differ. */
class Model {
  readonly pages = new Map<number, number>();
  readonly range: boolean;
  readonly perTable: number;

  constructor(config: PageTableConfig) {
    this.range = config.format.rules === RULES_GENERIC_PT;
    this.perTable = 1 << config.format.bits;
  }

  /** Pages mapped before something stands in the way; io-pgtable maps all that is in one table or none of it. */
  map(page: number, target: number, count: number): number {
    for (let i = 0; i < count;) {
      const room = this.perTable - ((page + i) % this.perTable);
      const n = this.range ? 1 : Math.min(room, count - i);
      for (let k = 0; k < n; k++) if (this.pages.has(page + i + k)) return i;
      for (let k = 0; k < n; k++) this.pages.set(page + i + k, target + i + k);
      i += n;
    }
    return count;
  }

  unmap(page: number, count: number): number {
    let i = 0;
    while (i < count && this.pages.delete(page + i)) i++;
    return i;
  }
}

const PAGES = 2100; // a little more than four tables of 512, so that runs pass table ends

const operation = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.tuple(fc.constant('map' as const), fc.nat(PAGES - 1), fc.integer({ min: 1, max: 700 }), fc.nat(4000)),
  },
  {
    weight: 3,
    arbitrary: fc.tuple(
      fc.constant('unmap' as const),
      fc.nat(PAGES - 1),
      fc.integer({ min: 1, max: 900 }),
      fc.constant(0),
    ),
  },
);

describe.each(CONFIGS)('%s', (_name, config) => {
  it.each(['sparse', 'flat'] as const)('%s memory: returns, bytes and translations are the model’s', (kind) => {
    const granule = 1n << BigInt(config.format.granuleLg2);
    fc.assert(
      fc.property(fc.array(operation, { minLength: 1, maxLength: 12 }), (operations) => {
        const memory = new PhysicalMemory([{ base: 0x1_0000_0000n, size: 1n << 24n, kind }]);
        const pages = new IommuPages(memory, new BuddySource(memory));
        const table = new PageTable(pages, { ...config, pageSizes: granule });
        const model = new Model(config);
        const gather = new GatherRecord();
        const size = Number(granule);
        for (const [op, page, length, target] of operations) {
          const iova = BigInt(page) * granule;
          const [hi, lo] = [Number(iova >> 32n), Number(iova & 0xffff_ffffn)];
          if (op === 'map') {
            const pa = BigInt(target) * granule;
            const want = model.map(page, target, length);
            const got = table.map(hi, lo, Number(pa >> 32n), Number(pa & 0xffff_ffffn), length * size, 3);
            expect([got, table.mapped]).toEqual([want === length ? 0 : model.range ? -98 : -17, want * size]);
          } else {
            const want = model.unmap(page, length);
            expect(table.unmap(hi, lo, length * size, gather)).toBe(want * size);
            if (want > 0) {
              expect(gather.startPfn).toBe(Number(iova >> 12n));
              expect(gather.lastPfn).toBe(Number((iova + BigInt(want) * granule) >> 12n) - 1);
              expect(gather.pgsizeLg2).toBe(config.format.granuleLg2);
              expect(gather.leafLevels).toBe(1);
            }
            pages.putPagesList(gather.freelist);
            gather.reset();
          }
        }
        const leaves = [...table.leaves()].map((leaf) => [Number(leaf.iova / granule), Number(leaf.pa / granule)]);
        expect(leaves).toEqual([...model.pages].toSorted((a, b) => a[0] - b[0]));
        for (let page = 0; page < PAGES + 700; page += 97) {
          const iova = BigInt(page) * granule + 5n;
          const found = table.iovaToPhys(Number(iova >> 32n), Number(iova & 0xffff_ffffn));
          expect(found).toBe(model.pages.has(page));
        }
        table.destroy();
        expect(pages.nrSecPageTablePages).toBe(0);
      }),
      { numRuns: 60 },
    );
  });
});
