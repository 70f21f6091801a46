/**
 * The quick ways (one granule, one block, a run in one table, SIMD) against the full rules alone, which the golden files
 * prove: the same random operations, good and bad, on two tables in two arenas must give the same returns, the same
 * gather, the same allocations and the same bytes.
 */
import { ArenaSource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { ArenaEvent } from '@iommu-ts/iommu-pages';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GatherRecord, PageTable, RULES_GENERIC_PT, X86_64_4LEVEL } from '../src/index.ts';
import type { PageTableConfig } from '../src/index.ts';
import { mapGeneric, mapIo } from '../src/map.ts';
import { unmapGeneric, unmapIo } from '../src/unmap.ts';
import { CONFIGS } from './local-formats.ts';

const BASE = 0x1_0000_0000n;

/** A table, its memory and its log; `quick` takes the public way over flat memory, the other the full rules over sparse. */
class Side {
  readonly memory: PhysicalMemory;
  readonly pages: IommuPages;
  readonly table: PageTable;
  readonly gather = new GatherRecord();
  readonly log: ArenaEvent[] = [];
  readonly quick: boolean;

  constructor(config: PageTableConfig, quick: boolean) {
    this.quick = quick;
    this.memory = new PhysicalMemory([{ base: BASE, size: 1n << 26n, kind: quick ? 'flat' : 'sparse' }]);
    const source = new ArenaSource(this.memory, BASE);
    source.onEvent = (event) => this.log.push(event);
    this.pages = new IommuPages(this.memory, source);
    const sync = (gather: GatherRecord): void => {
      this.pages.putPagesList(gather.freelist);
      gather.reset();
    };
    this.table = new PageTable(this.pages, { ...config, sync });
  }

  map(iova: bigint, pa: bigint, length: number, prot: number): unknown[] {
    const { table } = this;
    const words = [
      Number(iova >> 32n) | 0,
      Number(iova & 0xffff_ffffn) | 0,
      Number(pa >> 32n) | 0,
      Number(pa & 0xffff_ffffn) | 0,
    ] as const;
    const full = table.rules === RULES_GENERIC_PT ? mapGeneric : mapIo;
    const result = this.quick
      ? table.map(...words, length, prot, this.gather)
      : full(table, ...words, length, prot, this.gather);
    return [result, table.mapped, ...this.#settle()];
  }

  unmap(iova: bigint, length: number): unknown[] {
    const { table } = this;
    const words = [Number(iova >> 32n) | 0, Number(iova & 0xffff_ffffn) | 0] as const;
    const full = table.rules === RULES_GENERIC_PT ? unmapGeneric : unmapIo;
    const bytes = this.quick ? table.unmap(...words, length, this.gather) : full(table, ...words, length, this.gather);
    return [bytes, ...this.#settle()];
  }

  /** What the gather says, which is then given back. */
  #settle(): unknown[] {
    const { gather } = this;
    const said = [
      gather.startPfn,
      gather.lastPfn,
      gather.pgsizeLg2,
      gather.leafLevels,
      gather.tableLevels,
      gather.freelist.length,
    ];
    this.pages.putPagesList(gather.freelist);
    gather.reset();
    return said;
  }

  tables(): string[] {
    return [...this.table.tables()].map(
      ({ pa, level, bytes }) => `${pa} ${level} ${Buffer.from(this.memory.readBytes(pa, bytes)).toString('hex')}`,
    );
  }
}

const all: readonly (readonly [string, PageTableConfig])[] = [
  ...CONFIGS,
  ['x86-64', { format: X86_64_4LEVEL, ias: 48, oas: 52 }],
  ['x86-64 incoherent, no gaps', { format: X86_64_4LEVEL, ias: 48, oas: 46, incoherent: true, flushRangeNoGaps: true }],
];

describe.each(all)('%s', (_name, config) => {
  const granuleLg2 = config.format.granuleLg2;
  const granule = 1 << granuleLg2;
  const span = 2 ** (config.format.signExtend ? config.ias - 1 : config.ias);
  /** Places that meet often: a few windows, at table ends, at the end of the space and beyond it. */
  const place = fc
    .tuple(
      fc.constantFrom(0, 510 * granule, 2 ** 21, 2 ** 29, 2 ** 30, span - 520 * granule, span),
      fc.nat(600),
      fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 8),
    )
    .map(([base, pages, skew]) => BigInt(base + pages * granule + skew));
  const length = fc.oneof(
    { weight: 4, arbitrary: fc.constant(granule) },
    { weight: 3, arbitrary: fc.integer({ min: 1, max: 1100 }).map((pages) => pages * granule) },
    {
      weight: 2,
      arbitrary: fc.constantFrom(
        0,
        granule / 2,
        2 ** 16,
        2 ** 21,
        2 ** 21 - granule,
        2 ** 22,
        2 ** 29,
        2 ** 30,
        2 ** 31,
      ),
    },
  );
  const pa = fc.oneof(
    place,
    fc.constantFrom(
      0n,
      1n << BigInt(config.oas),
      (1n << BigInt(config.oas)) - BigInt(granule) * 3n,
      0xfff0_0000n,
      (1n << 48n) - BigInt(granule),
    ),
  );
  const aligned = fc
    .tuple(fc.nat(3), fc.constantFrom(2 ** 21, 2 ** 29, 2 ** 30))
    .map(([n, size]) => [BigInt(n) * BigInt(size), size] as const);
  const prot = fc.oneof({ weight: 6, arbitrary: fc.constant(3) }, { weight: 1, arbitrary: fc.nat(63) });
  const operation = fc.oneof(
    fc.record({ op: fc.constant('map' as const), iova: place, pa, length, prot }),
    fc.record({ op: fc.constant('unmap' as const), iova: place, pa, length, prot }),
    aligned.map(([at, size]) => ({ op: 'map' as const, iova: at, pa: at, length: size, prot: 3 })),
    aligned.map(([at, size]) => ({ op: 'unmap' as const, iova: at, pa: at, length: size, prot: 3 })),
  );

  it('quick and full agree', () => {
    fc.assert(
      fc.property(fc.array(operation, { minLength: 1, maxLength: 30 }), (operations) => {
        const [quick, full] = [new Side(config, true), new Side(config, false)];
        for (const { op, iova, pa: to, length: bytes, prot: allow } of operations) {
          if (op === 'map') expect(quick.map(iova, to, bytes, allow)).toEqual(full.map(iova, to, bytes, allow));
          else expect(quick.unmap(iova, bytes)).toEqual(full.unmap(iova, bytes));
        }
        expect(quick.log).toEqual(full.log);
        expect(quick.tables()).toEqual(full.tables());
      }),
      { numRuns: 60 },
    );
  });
});
