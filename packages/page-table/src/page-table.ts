/** The public face of the engine: one class for every format. */
import { IommuError, addressOfPfn, blockPfnOf, checkU64, hex } from '@iommu-ts/bits';
import type { IommuPages, IommuPagesList, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { mapOneBlock, unmapOneBlock } from './block.ts';
import type { HwInfo, PageTableConfig } from './config.ts';
import { decodeEntry, leafProt } from './decode.ts';
import type { EntryFields, LeafProt } from './decode.ts';
import { findTable } from './find.ts';
import { RULES_GENERIC_PT } from './format.ts';
import type { GatherRecord } from './gather.ts';
import { leavesOf, tablesOf } from './iterate.ts';
import type { Leaf, TableInfo } from './iterate.ts';
import { mapGeneric, mapIo, mapPagesIo } from './map.ts';
import { NOT_A_RUN, mapRun, unmapRun } from './run.ts';
import { TableState } from './state.ts';
import type { Existing } from './state.ts';
import { unmapGeneric, unmapIo, unmapPagesIo } from './unmap.ts';
import { lookUp, lookUpDart, walkRecord } from './walk.ts';
import type { WalkRecord } from './walk.ts';

/**
 * One I/O page table: builds and changes the tables in emulated memory, looks IOVAs up, and takes entries apart.
 *
 * `map` and `unmap` return numbers (0 or a negative errno, bytes unmapped), never throw for a mapping that cannot be
 * made, and allocate nothing on the JavaScript heap. Addresses are two 32-bit words, signed or unsigned.
 */
export class PageTable extends TableState {
  /**
   * Allocates the top table(s). `existing` is for {@link open}.
   * @throws IommuError `EINVAL` for a configuration the format does not have, `ENOMEM` when there is no page.
   */
  constructor(pages: IommuPages | null, config: PageTableConfig, existing: Existing | null = null) {
    if (pages === null && existing === null) throw new TypeError('"pages" expected IommuPages, got null');
    super(pages, config, existing);
  }

  /**
   * A read-only table over tables that are in memory already (a dump, or what another driver built): `iovaToPhys`,
   * `walk`, `leaves`, `tables`, `decode`. Whatever the tables hold, nothing throws.
   */
  static open(memory: PhysicalMemory, config: PageTableConfig, root: bigint | readonly bigint[]): PageTable {
    const roots = typeof root === 'bigint' ? [root] : root;
    for (const address of roots) checkU64(address, 'root');
    return new PageTable(null, config, { memory, roots: roots.map((address) => blockPfnOf(address)) });
  }

  /** Address of the top table (of the first one where there are several). */
  get root(): bigint {
    return addressOfPfn(this.rootPfns[0]!);
  }

  /** Page frame number of the top table, in 4 KiB pages; with a fraction of k/64 when it is part of a page. */
  get rootPfn(): number {
    return this.rootPfns[0]!;
  }

  /**
   * Maps `length` bytes from the IOVA to the output address. `mapped` tells how many bytes were mapped, also on error.
   * @returns 0, or -6 misaligned, -12 no memory, -17 / -98 something is mapped there, -22 bad argument, -34 out of range.
   */
  map(
    iovaHi: number,
    iovaLo: number,
    paHi: number,
    paLo: number,
    length: number,
    prot: number,
    gather: GatherRecord | null = null,
  ): number {
    // The commonest case: one granule, in the table that the last operation used, where nothing is mapped.
    if (
      length === this.granuleBytes &&
      this.cacheAt >= 0 &&
      (iovaHi | 0) === this.cacheHi &&
      (iovaLo ^ this.cacheLo) >>> this.leafSpanLg2 === 0 &&
      (prot & 3) !== 0 &&
      ((iovaLo | paLo) & this.granuleMask) === 0 &&
      ((paHi & this.oasMaskHi) | (paLo & this.oasMaskLo)) === 0 &&
      this.granuleAllowed !== 0 &&
      (this.forceWriteable === 0 || (prot & 2) !== 0)
    ) {
      const view = this.cacheView;
      const index = (iovaLo >>> this.granuleLg2) & this.cacheMask;
      const w = this.cacheAt + (index << 1);
      if ((view[w]! | view[w + 1]!) === 0) {
        const shift = this.oaShift;
        const attributes = this.attributes;
        const protAt = (prot & 63) << 2;
        // The word with the valid bit last.
        view[w + 1] = ((paHi >>> shift) & this.oaMaskHi) | attributes[protAt + 1]!;
        view[w] =
          (((paLo >>> shift) | ((paHi << (31 - shift)) << 1)) & this.oaMaskLo) |
          ((paHi >>> 4) & this.foldWriteLo) |
          attributes[protAt]!;
        if (this.flush !== null) this.flush(this.cachePfn, index * 8, 8);
        this.mapped = length;
        return 0;
      }
    }
    return this.#mapSlow(iovaHi | 0, iovaLo | 0, paHi | 0, paLo | 0, length, prot, gather);
  }

  #mapSlow(
    iovaHi: number,
    iovaLo: number,
    paHi: number,
    paLo: number,
    length: number,
    prot: number,
    gather: GatherRecord | null,
  ): number {
    this.#writable();
    if (mapOneBlock(this, iovaHi, iovaLo, paHi, paLo, length, prot)) return 0;
    const run = mapRun(this, iovaHi, iovaLo, paHi, paLo, length, prot, gather);
    if (run !== NOT_A_RUN) return run;
    return this.rules === RULES_GENERIC_PT
      ? mapGeneric(this, iovaHi, iovaLo, paHi, paLo, length, prot, gather)
      : mapIo(this, iovaHi, iovaLo, paHi, paLo, length, prot, gather);
  }

  /**
   * Maps `count` pages of 2^`pgsizeLg2` bytes (the `io-pgtable` form; formats with `generic_pt` rules take it as a range
   * of as many bytes). Returns as {@link map}.
   */
  mapPages(
    iovaHi: number,
    iovaLo: number,
    paHi: number,
    paLo: number,
    pgsizeLg2: number,
    count: number,
    prot: number,
    gather: GatherRecord | null = null,
  ): number {
    this.#writable();
    if (this.rules === RULES_GENERIC_PT) {
      return this.#mapSlow(iovaHi | 0, iovaLo | 0, paHi | 0, paLo | 0, count * 2 ** pgsizeLg2, prot, gather);
    }
    this.mapped = 0;
    return mapPagesIo(this, iovaHi | 0, iovaLo | 0, paHi | 0, paLo | 0, pgsizeLg2, count, prot, gather);
  }

  /** Unmaps `length` bytes from the IOVA. @returns bytes unmapped, which may be less or (`generic_pt`) more than asked. */
  unmap(iovaHi: number, iovaLo: number, length: number, gather: GatherRecord): number {
    if (
      length === this.granuleBytes &&
      this.cacheAt >= 0 &&
      (iovaHi | 0) === this.cacheHi &&
      (iovaLo ^ this.cacheLo) >>> this.leafSpanLg2 === 0 &&
      (iovaLo & this.granuleMask) === 0 &&
      this.granuleAllowed !== 0 &&
      this.noGaps === 0
    ) {
      const view = this.cacheView;
      const index = (iovaLo >>> this.granuleLg2) & this.cacheMask;
      const w = this.cacheAt + (index << 1);
      const lo = view[w]!;
      // A leaf of one entry, by the bits that all such leaves have.
      if (lo !== 0 && (lo & this.pageMaskLo) === this.pageValueLo && (view[w + 1]! & this.leafMaskHi) === 0) {
        view[w] = 0;
        view[w + 1] = 0;
        const first = (iovaHi >>> 0) * 0x10_0000 + (iovaLo >>> 12);
        const last = first + (this.granuleMask >>> 12);
        if (first < gather.startPfn) gather.startPfn = first;
        if (last > gather.lastPfn) gather.lastPfn = last;
        gather.leafLevels |= 1;
        gather.pgsizeLg2 = this.granuleLg2;
        if (this.flush !== null) this.flush(this.cachePfn, index * 8, 8);
        return length;
      }
    }
    return this.#unmapSlow(iovaHi | 0, iovaLo | 0, length, gather);
  }

  #unmapSlow(iovaHi: number, iovaLo: number, length: number, gather: GatherRecord): number {
    this.#writable();
    if (length === this.granuleBytes) {
      if (this.#enterTable(iovaHi, iovaLo)) return this.unmap(iovaHi, iovaLo, length, gather);
    } else if (unmapOneBlock(this, iovaHi, iovaLo, length, gather)) return length;
    else {
      const run = unmapRun(this, iovaHi, iovaLo, length, gather);
      if (run !== -NOT_A_RUN) return run;
    }
    return this.rules === RULES_GENERIC_PT
      ? unmapGeneric(this, iovaHi, iovaLo, length, gather)
      : unmapIo(this, iovaHi, iovaLo, length, gather);
  }

  /** Brings the lowest table for the IOVA into the cache; false when it was there already, or there is none. */
  #enterTable(iovaHi: number, iovaLo: number): boolean {
    const cached = this.cacheAt >= 0 && iovaHi === this.cacheHi && (iovaLo ^ this.cacheLo) >>> this.leafSpanLg2 === 0;
    if (cached || this.topLevel === 0 || !this.inRange(iovaHi, iovaLo)) return false;
    return findTable(this, iovaHi, iovaLo, 0, false) === 0;
  }

  /** Unmaps `count` pages of 2^`pgsizeLg2` bytes (the `io-pgtable` form). @returns bytes unmapped. */
  unmapPages(iovaHi: number, iovaLo: number, pgsizeLg2: number, count: number, gather: GatherRecord): number {
    this.#writable();
    return this.rules === RULES_GENERIC_PT
      ? unmapGeneric(this, iovaHi | 0, iovaLo | 0, count * 2 ** pgsizeLg2, gather)
      : unmapPagesIo(this, iovaHi | 0, iovaLo | 0, pgsizeLg2, count, gather);
  }

  /** Looks an IOVA up. @returns whether it is mapped; the output address is in {@link outHi} and {@link outLo} (int32). */
  iovaToPhys(iovaHi: number, iovaLo: number): boolean {
    return this.dartWord < -1 ? lookUp(this, iovaHi | 0, iovaLo | 0) : lookUpDart(this, iovaHi | 0, iovaLo | 0);
  }

  /** The walk for an IOVA, step by step; an RCU reader. @throws IommuError `ERANGE` when `iova` is not a 64-bit value. */
  walk(iova: bigint): WalkRecord {
    if (this.pages === null) return walkRecord(this, iova);
    const { rcu } = this.pages;
    const token = rcu.readLock();
    try {
      return walkRecord(this, iova);
    } finally {
      rcu.readUnlock(token);
    }
  }

  /**
   * All mappings, ascending. From the first one that is taken to the last (or to the end of the loop) this is an RCU reader:
   * tables that are freed meanwhile by `putPagesListRcu` are not used again, so what is shown was this table's at some time.
   */
  *leaves(): Generator<Leaf> {
    yield* this.#reading(leavesOf(this));
  }

  /** All tables, each before those below it. An RCU reader as {@link leaves}. */
  *tables(): Generator<TableInfo> {
    yield* this.#reading(tablesOf(this));
  }

  /** `items`, taken by an RCU reader of the allocator. */
  *#reading<T>(items: Generator<T>): Generator<T> {
    if (this.pages === null) {
      yield* items;
      return;
    }
    const { rcu } = this.pages;
    const token = rcu.readLock();
    try {
      yield* items;
    } finally {
      rcu.readUnlock(token);
    }
  }

  /** Fields of an entry at `level` by their specification names; empty when it is not present. */
  decode(entry: bigint, level: number): EntryFields {
    checkU64(entry, 'entry');
    return decodeEntry(this, entry, level);
  }

  /** What a leaf entry allows. */
  protOf(entry: bigint): LeafProt {
    checkU64(entry, 'entry');
    return leafProt(this, entry);
  }

  /** What the hardware is told about this table, by the names of the architecture's registers and structures. */
  hwInfo(): HwInfo {
    return this.format.definition.hw(this.geometry());
  }

  /**
   * Gives every table back to the allocator, or, with `freelist`, puts them on that for the caller to do so. The table must
   * not be used afterwards, nor be reachable by hardware.
   */
  destroy(freelist: IommuPagesList | null = null): void {
    if (this.pages === null) return;
    const all = [...this.tables()];
    for (const { pa } of all) {
      if (freelist === null) this.pages.freePages(blockPfnOf(pa));
      else this.pages.listAdd(freelist, blockPfnOf(pa));
    }
    this.rootPfns.length = 0;
    this.forget();
  }

  #writable(): void {
    if (this.pages === null) {
      throw new IommuError('EOPNOTSUPP', `the table at ${hex(this.root)} is open for reading only`, {
        root: this.root,
      });
    }
  }
}
