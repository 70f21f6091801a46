/** One page table on memory of its own, with `bigint` operations for the cases of the format suite. */
import { addressOfPfn, hex, hi32, join64, lo32 } from '@iommu-ts/bits';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { GatherRecord, PROT, PageTable, RULES_GENERIC_PT } from '@iommu-ts/page-table';
import type { PageTableConfig } from '@iommu-ts/page-table';
import { expect } from 'vitest';

/** A format with the options it is to be tried with. */
export interface FormatCase {
  readonly name: string;
  readonly config: PageTableConfig;
}

/** Where the tables lie: sparse RAM takes the engine's plain loops, flat RAM its SIMD ones. */
export type MemoryKind = 'sparse' | 'flat';

const RAM_BASE = 0x1_0000_0000n;

export class FormatRig {
  readonly memory: PhysicalMemory;
  readonly pages: IommuPages;
  /** The table under test; {@link renew} puts an empty one in its place. */
  table: PageTable;
  readonly gather = new GatherRecord();
  readonly config: PageTableConfig;
  /** `generic_pt` rules (else `io-pgtable`). */
  readonly generic: boolean;
  /** Page sizes, ascending. */
  readonly sizes: readonly bigint[];
  readonly granule: bigint;
  /** First IOVA, and the bytes of IOVA space from it on. */
  readonly origin: bigint;
  readonly span: bigint;

  constructor(config: PageTableConfig, kind: MemoryKind) {
    this.config = config;
    this.memory = new PhysicalMemory([{ base: RAM_BASE, size: 128n << 20n, kind }]);
    this.pages = new IommuPages(this.memory, new BuddySource(this.memory));
    this.table = new PageTable(this.pages, config);
    this.generic = config.format.rules === RULES_GENERIC_PT;
    const sizes: bigint[] = [];
    for (let lg2 = 12n; lg2 < 64n; lg2++) if ((this.table.pageSizes >> lg2) & 1n) sizes.push(1n << lg2);
    this.sizes = sizes;
    this.granule = sizes[0]!;
    const bits = BigInt(config.format.signExtend ? config.ias - 1 : config.ias);
    this.span = 1n << bits;
    this.origin = config.ttbr1 === true ? (1n << 64n) - this.span : 0n;
  }

  map(iova: bigint, pa: bigint, size: bigint, prot: number = PROT.READ | PROT.WRITE): number {
    return this.table.map(hi32(iova), lo32(iova), hi32(pa), lo32(pa), Number(size), prot, null);
  }

  /** Unmaps and frees what the unmap let go, as a driver does after its invalidation. */
  unmap(iova: bigint, size: bigint): bigint {
    const bytes = this.table.unmap(hi32(iova), lo32(iova), Number(size), this.gather);
    this.sync();
    return BigInt(bytes);
  }

  sync(): void {
    this.pages.putPagesList(this.gather.freelist);
    this.gather.reset();
  }

  phys(iova: bigint): bigint | null {
    return this.table.iovaToPhys(hi32(iova), lo32(iova)) ? join64(this.table.outHi, this.table.outLo) : null;
  }

  /** Every way to look: the fast look-up and the walk must agree at both ends and in the middle, and stop outside. */
  expectMapped(iova: bigint, pa: bigint, size: bigint): void {
    for (const offset of [0n, size / 2n + 1n, size - 1n]) {
      const where = `iova ${hex(iova + offset)}`;
      same(this.phys(iova + offset), pa + offset, where);
      same(this.table.walk(iova + offset).pa, pa + offset, `${where}, walked`);
    }
  }

  expectUnmapped(...iovas: readonly bigint[]): void {
    for (const iova of iovas) {
      same(this.phys(iova), null, `iova ${hex(iova)}`);
      same(this.table.walk(iova).pa, null, `iova ${hex(iova)}, walked`);
    }
  }

  /** All leaves as text, for comparison and messages. */
  leaves(): string[] {
    return [...this.table.leaves()].map((leaf) => leafText(leaf.iova, leaf.pa, leaf.size));
  }

  /** Largest aligned address with room for `size` that the format can map to. */
  topPa(size: bigint): bigint {
    return (1n << BigInt(this.config.oas)) - size;
  }

  /** Throws the table away and begins with an empty one. */
  renew(): void {
    this.table.destroy();
    this.table = new PageTable(this.pages, this.config);
  }

  /** Gives all back; nothing may be left. */
  destroy(): void {
    this.table.destroy();
    expect(this.pages.nrSecPageTablePages, 'pages left after destroy').toBe(0);
  }

  /** Address of the memory's first byte. */
  get ramBase(): bigint {
    return addressOfPfn(this.memory.ranges[0]!.basePfn);
  }
}

/** An `expect` that costs nothing while all is well: the suite makes hundreds of thousands. */
export const same = (got: bigint | null, want: bigint | null, where: string): void => {
  if (got !== want) expect(text(got), where).toBe(text(want));
};

const text = (pa: bigint | null): string => (pa === null ? 'not mapped' : hex(pa));
export const leafText = (iova: bigint, pa: bigint, size: bigint): string => `${hex(iova)} -> ${hex(pa)} + ${hex(size)}`;
