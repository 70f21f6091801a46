/** Rows of the page-table engine alone, for one format: what the kernel's C figures are about. */
import { hi32, lo32 } from '@iommu-ts/bits';
import type { FormatVariant } from '@iommu-ts/iommu-core';
import { BuddySource, IommuPages } from '@iommu-ts/iommu-pages';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { GatherRecord, PROT, PageTable } from '@iommu-ts/page-table';
import type { PageTableConfig } from '@iommu-ts/page-table';
import { Random, now } from './stats.ts';

export const MIB = 2 ** 20;
export const GIB = 2 ** 30;
const RW = PROT.READ | PROT.WRITE;
/** Physical addresses begin at 4 GiB: both words take part. */
const PA_HI = 1;

/** A row: `pass()` does the work once and returns the nanoseconds that its timed part took, for `ops` operations. */
export interface Row {
  readonly name: string;
  /** Operations (calls or entries, see `per`) in a pass. */
  readonly ops: number;
  readonly per: 'call' | 'entry';
  pass(): number;
}

/** Sizes of a run. */
export interface Scale {
  /** Bytes mapped in the rows that say 1g; less in a quick run. */
  readonly large: number;
  readonly small: number;
  /** Look-ups, translations and DMAs in a pass. */
  readonly lookups: number;
}
export const FULL: Scale = { large: GIB, small: 64 * MIB, lookups: 1 << 16 };
export const QUICK: Scale = { large: 64 * MIB, small: 16 * MIB, lookups: 1 << 15 };
/** For tests: each function runs, nothing is learnt about speed. */
export const TINY: Scale = { large: 2 * MIB, small: MIB, lookups: 64 };

/** `4k`, `16k`, `2m`, … */
export const sizeName = (lg2: number): string =>
  lg2 >= 30 ? `${2 ** (lg2 - 30)}g` : lg2 >= 20 ? `${2 ** (lg2 - 20)}m` : `${2 ** (lg2 - 10)}k`;

/** A table on flat memory with everything around it; {@link release} gives all pages back. */
export class TableRig {
  readonly pages: IommuPages;
  table: PageTable;
  readonly #config: PageTableConfig;
  readonly gather = new GatherRecord();
  readonly granuleLg2: number;
  /** High and low word of the first IOVA: 1 GiB, in the upper half where the table is of the upper half. */
  readonly iovaHi: number;
  readonly iovaLo: number;

  /** @param pageSizes restricts the format's sizes; the default is all. */
  constructor(memory: PhysicalMemory, config: PageTableConfig, pageSizes?: 'granule', firstIova = BigInt(GIB)) {
    this.pages = new IommuPages(memory, new BuddySource(memory, [{ base: 0x100_0000n, size: tableBytes(memory) }]));
    this.#config = { ...config, sync: (gather) => putGather(this.pages, gather) };
    this.table = new PageTable(this.pages, this.#config);
    this.granuleLg2 = lowestBit(this.table.pageSizes);
    if (pageSizes === 'granule') {
      this.#config = { ...this.#config, pageSizes: 1n << BigInt(this.granuleLg2) };
      this.renew();
    }
    const iova = config.ttbr1 === true ? (1n << 64n) - (1n << BigInt(config.ias)) + firstIova : firstIova;
    this.iovaHi = hi32(iova) | 0;
    this.iovaLo = lo32(iova) | 0;
  }

  /** Maps `bytes` from the first IOVA, `chunk` bytes a call. @throws Error when a call fails. */
  map(bytes: number, chunk: number): void {
    const { table, gather } = this;
    let hi = this.iovaHi;
    let lo = this.iovaLo;
    let paHi = PA_HI;
    let paLo = 0;
    let bad = 0;
    for (let done = 0; done < bytes; done += chunk) {
      bad |= table.map(hi, lo, paHi, paLo, chunk, RW, gather);
      const next = (lo >>> 0) + chunk;
      lo = next | 0;
      if (next >= 2 ** 32) hi += Math.floor(next / 2 ** 32);
      const nextPa = (paLo >>> 0) + chunk;
      paLo = nextPa | 0;
      if (nextPa >= 2 ** 32) paHi += Math.floor(nextPa / 2 ** 32);
    }
    if (bad !== 0) throw new Error(`map failed: errno ${bad}`);
    if (!gather.freelist.empty) putGather(this.pages, gather);
  }

  /** Unmaps what {@link map} mapped; the record is flushed once, at the end, as Linux's `iommu_unmap()` users may. */
  unmap(bytes: number, chunk: number): void {
    const { table, gather } = this;
    let hi = this.iovaHi;
    let lo = this.iovaLo;
    let total = 0;
    for (let done = 0; done < bytes; done += chunk) {
      total += table.unmap(hi, lo, chunk, gather);
      const next = (lo >>> 0) + chunk;
      lo = next | 0;
      if (next >= 2 ** 32) hi += Math.floor(next / 2 ** 32);
    }
    if (total !== bytes) throw new Error(`unmapped ${total} of ${bytes} bytes`);
    putGather(this.pages, gather);
  }

  /** An empty table with no tables below its top, in memory that was in use before. */
  renew(): void {
    this.table.destroy();
    this.table = new PageTable(this.pages, this.#config);
  }

  release(): void {
    this.table.destroy();
  }
}

const putGather = (pages: IommuPages, gather: GatherRecord): void => {
  if (!gather.freelist.empty) {
    pages.putPagesList(gather.freelist);
    gather.freelist.init();
  }
  gather.reset();
};

/** The flat memory holds tables from 16 MiB up to its half; the half above is for the data of DMAs. */
const tableBytes = (memory: PhysicalMemory): bigint => BigInt(memory.ranges[0]!.endPfn) * 2048n - 0x100_0000n;

const lowestBit = (sizes: bigint): number => {
  let lg2 = 0;
  while (((sizes >> BigInt(lg2)) & 1n) === 0n) lg2++;
  return lg2;
};

const mapRow = (name: string, rig: TableRig, bytes: number, chunk: number, ops: number, per: Row['per']): Row => ({
  name,
  ops,
  per,
  pass() {
    const start = now();
    rig.map(bytes, chunk);
    const ns = now() - start;
    rig.unmap(bytes, chunk);
    return ns;
  },
});

const unmapRow = (name: string, rig: TableRig, bytes: number, chunk: number, ops: number, per: Row['per']): Row => ({
  name,
  ops,
  per,
  pass() {
    rig.map(bytes, chunk);
    const start = now();
    rig.unmap(bytes, chunk);
    return now() - start;
  },
});

/** Offsets (int32 words, below 1 GiB) of random bytes in `bytes`. */
export const randomOffsets = (bytes: number, count: number, seed = 1): Int32Array => {
  const random = new Random(seed);
  return Int32Array.from({ length: count }, () => random.below(bytes));
};

/** Looks all `offsets` up once. @throws Error when one is not mapped. */
export const lookUpAll = (rig: TableRig, offsets: Int32Array, count: number): number => {
  const { table, iovaHi, iovaLo } = rig;
  const mask = offsets.length - 1;
  let sum = 0;
  let missing = 0;
  for (let i = 0; i < count; i++) {
    if (table.iovaToPhys(iovaHi, (iovaLo + offsets[i & mask]!) | 0)) sum = (sum + table.outLo) | 0;
    else missing++;
  }
  if (missing > 0) throw new Error(`${missing} of ${count} look-ups found nothing`);
  return sum;
};

/** The rows of one format. Each call of a row's maker builds its own tables; `release` when done with the row. */
export const tableRows = (
  memory: PhysicalMemory,
  variant: FormatVariant,
  scale: Scale,
): { readonly name: string; make(): { row: Row; rig: TableRig } }[] => {
  const probe = new TableRig(memory, variant.config);
  const lg2 = probe.granuleLg2;
  const sizes = probe.table.pageSizes;
  probe.release();
  const granule = 2 ** lg2;
  const g = sizeName(lg2);
  const large = Math.max(scale.large, 256 * granule);
  const pages = large / granule;
  const runs = pages / 256;
  const make = (build: (rig: TableRig) => Row, only?: 'granule') => (): { row: Row; rig: TableRig } => {
    const rig = new TableRig(memory, variant.config, only);
    return { row: build(rig), rig };
  };
  const lookup = (name: string, bytes: number) => ({
    name,
    make: make((rig) => {
      rig.map(bytes, 256 * granule);
      const offsets = randomOffsets(bytes, Math.min(1 << 16, scale.lookups));
      return {
        name,
        ops: scale.lookups,
        per: 'call',
        pass() {
          const start = now();
          lookUpAll(rig, offsets, scale.lookups);
          return now() - start;
        },
      };
    }, 'granule'),
  });
  // Blocks: 2 MiB where the format has them, else its first block size; DART has none and maps 2 MiB of pages.
  let blockLg2 = ((sizes >> 21n) & 1n) === 1n ? 21 : 0;
  for (let n = lg2 + 1; blockLg2 === 0 && n < 40; n++) if (((sizes >> BigInt(n)) & 1n) === 1n) blockLg2 = n;
  const block = 2 ** (blockLg2 === 0 ? 21 : blockLg2);
  const blockName = blockLg2 === 0 ? `map-2m-of-${g}` : `map-${sizeName(blockLg2)}`;
  const blocks = Math.max(large, 2 * block);

  const named = (name: string, maker: () => { row: Row; rig: TableRig }) => ({ name, make: maker });
  const one = (name: string, of: typeof mapRow) =>
    named(
      name,
      make((rig) => of(name, rig, large, granule, pages, 'call'), 'granule'),
    );
  const many = (name: string, of: typeof mapRow) =>
    named(
      name,
      make((rig) => of(name, rig, large, 256 * granule, runs * 256, 'entry'), 'granule'),
    );
  const whole = `map-1g-of-${g}`;
  return [
    one(`map-${g}`, mapRow),
    one(`unmap-${g}`, unmapRow),
    many(`map-256x${g}`, mapRow),
    many(`unmap-256x${g}`, unmapRow),
    named(
      whole,
      make((rig) => mapRow(whole, rig, large, large, pages, 'entry'), 'granule'),
    ),
    named(
      blockName,
      make((rig) => mapRow(blockName, rig, blocks, block, blocks / block, 'call')),
    ),
    lookup('iova-to-phys-64m', Math.max(scale.small, 256 * granule)),
    lookup('iova-to-phys-1g', large),
  ];
};
