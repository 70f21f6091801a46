/**
 * The page walk: from a TTBR through two or three levels of tables, from bytes. Facts: Linux `io-pgtable-dart.c`, m1n1
 * `dart8020.py` and `dart8110.py` (`iotranslate`).
 *
 * Index bits of the IOVA, lowest level first: 24:14, 35:25, 46:36 with 16 KiB pages; 20:12, 29:21 with 4 KiB.
 */
import { CHECKS, hiOfPfn, loOfPfn, maskHi, maskLo, pfnOfWords } from '@iommu-ts/bits';
import { ACCESS } from '@iommu-ts/iommu-core';
import type { WalkCache } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { REASON } from '../faults.ts';
import type { DartPart } from '../parts.ts';
import { DART1_PTE, DART2_PTE, DART2_PADDR_SHIFT } from '../structures.ts';

const VALID = maskLo(DART1_PTE.VALID); // the same bit in both versions
const SP_DIS = maskLo(DART1_PTE.SP_DIS);
const NO_READ_1 = maskLo(DART1_PTE.NO_READ);
const NO_WRITE_1 = maskLo(DART1_PTE.NO_WRITE);
const NO_READ_2 = maskLo(DART2_PTE.NO_READ);
const NO_WRITE_2 = maskLo(DART2_PTE.NO_WRITE);
const PADDR_1_HI = maskHi(DART1_PTE.PADDR);
const PADDR_2_LO = maskLo(DART2_PTE.PADDR);
const PADDR_2_HI = maskHi(DART2_PTE.PADDR);
const SP_END_SHIFT = DART1_PTE.SP_END.lsb - 32;
const SP_START_SHIFT = DART1_PTE.SP_START.lsb - 32;
const PTE_2_TO_LO = DART2_PADDR_SHIFT;
const PTE_2_TO_HI = 32 - DART2_PADDR_SHIFT;

/** By level: the reason when the entry there is not valid. */
const NOTHING_AT = [REASON.NO_PTE, REASON.NO_PMD, REASON.NO_PGD] as const;

/** {@link PageWalker.sub} of a leaf that may be accessed everywhere: first sub-page 0, last 0xfff. */
export const WHOLE_PAGE = 0xfff_000;

/** Can read, can write: {@link PageWalker.perm} and the IOTLB's. They are {@link ACCESS} bits. */
const READ_WRITE = ACCESS.READ | ACCESS.WRITE;

/**
 * True when `length` bytes at `offset` in the page stay inside the sub-pages of `sub` (first in bits 11:0, last in 23:12).
 * A sub-page is 1/4096 of a page: 4 bytes with 16 KiB pages, 1 byte with 4 KiB.
 */
export const insideSubPages = (sub: number, offset: number, length: number, shift: number): boolean =>
  offset >>> shift >= (sub & 0xfff) && (offset + length - 1) >>> shift <= sub >>> 12;

/** Walks tables of one part. The answer of the last walk stands in the fields. */
export class PageWalker {
  readonly #memory: PhysicalMemory;
  readonly #dart2: boolean;
  readonly #big: boolean;
  /** Physical address of the page, as words. */
  outHi = 0;
  outLo = 0;
  /** {@link ACCESS} READ and WRITE as the leaf grants them. */
  perm = 0;
  /** Sub-pages that may be accessed: first in bits 11:0, last in 23:12. */
  sub = WHOLE_PAGE;
  /** Entries read so far, over all walks. */
  reads = 0;
  /** Table entries that are used instead of memory, where there are any; {@link quiet}: but none is added. */
  tables: WalkCache | null = null;
  quiet = false;
  /** Last entry read. */
  #hi = 0;
  #lo = 0;

  constructor(memory: PhysicalMemory, part: DartPart) {
    this.#memory = memory;
    this.#dart2 = part.pte === 'dart2';
    this.#big = part.pageShift === 14;
  }

  /**
   * Walks from the table at page `rootPfn` through `levels` (2 or 3) levels of tables; permissions and sub-pages are
   * reported, not judged.
   * @param sid whose table entries may be used, where they are kept
   * @returns a {@link REASON}: OK, or why there is no leaf
   */
  walk(rootPfn: number, levels: number, iovaHi: number, iovaLo: number, sid: number): number {
    if (CHECKS && this.tables !== null) return this.#walkFrom(this.tables, rootPfn, levels, iovaHi, iovaLo, sid);
    const big = this.#big;
    let table = rootPfn;
    if (levels === 3) {
      if (!this.#read(table, (iovaHi >>> 4) & 0x7ff)) return REASON.TABLE_BUS_ERROR;
      if ((this.#lo & VALID) === 0) return REASON.NO_PGD;
      table = this.#tablePfn();
    }
    if (!this.#read(table, big ? ((iovaLo >>> 25) | (iovaHi << 7)) & 0x7ff : (iovaLo >>> 21) & 0x1ff))
      return REASON.TABLE_BUS_ERROR;
    if ((this.#lo & VALID) === 0) return REASON.NO_PMD;
    if (!this.#read(this.#tablePfn(), big ? (iovaLo >>> 14) & 0x7ff : (iovaLo >>> 12) & 0x1ff))
      return REASON.TABLE_BUS_ERROR;
    const lo = this.#lo;
    if ((lo & VALID) === 0) return REASON.NO_PTE;
    this.#leaf(lo, this.#hi);
    return REASON.OK;
  }

  /** {@link walk} from the lowest table that is kept. */
  #walkFrom(tables: WalkCache, rootPfn: number, levels: number, iovaHi: number, iovaLo: number, sid: number): number {
    const big = this.#big;
    const spanLg2 = (level: number): number => (big ? 25 + 11 * level : 21 + 9 * level);
    let table = rootPfn;
    let level = levels - 1;
    if (tables.find(sid, iovaHi, iovaLo, 0, level - 1, spanLg2)) {
      level = tables.level;
      table = pfnOfWords(tables.hi, tables.lo);
    }
    for (; ; level--) {
      const pfn = (iovaHi >>> 0) * 0x10_0000 + (iovaLo >>> 12);
      // The index stands right below the bits that lie above the table's span.
      const index = Math.floor((pfn * 4096) / 2 ** (spanLg2(level) - (big ? 11 : 9))) % (big ? 0x800 : 0x200);
      if (!this.#read(table, index)) return REASON.TABLE_BUS_ERROR;
      if ((this.#lo & VALID) === 0) return NOTHING_AT[level]!;
      if (level === 0) break;
      table = this.#tablePfn();
      if (!this.quiet) {
        tables.fill(sid, level - 1, iovaHi, iovaLo, spanLg2(level - 1), hiOfPfn(table), loOfPfn(table), 0);
      }
    }
    this.#leaf(this.#lo, this.#hi);
    return REASON.OK;
  }

  #leaf(lo: number, hi: number): void {
    let perm: number = READ_WRITE;
    if (this.#dart2) {
      if ((lo & NO_READ_2) !== 0) perm &= ~ACCESS.READ;
      if ((lo & NO_WRITE_2) !== 0) perm &= ~ACCESS.WRITE;
      this.outLo = (lo & PADDR_2_LO) << PTE_2_TO_LO;
      this.outHi = ((hi & PADDR_2_HI) << PTE_2_TO_LO) | (lo >>> PTE_2_TO_HI);
    } else {
      if ((lo & NO_READ_1) !== 0) perm &= ~ACCESS.READ;
      if ((lo & NO_WRITE_1) !== 0) perm &= ~ACCESS.WRITE;
      this.outLo = this.#big ? lo & ~0x3fff : lo & ~0xfff;
      this.outHi = hi & PADDR_1_HI;
    }
    this.perm = perm;
    this.sub =
      !this.#dart2 && (lo & SP_DIS) !== 0
        ? WHOLE_PAGE
        : (hi >>> SP_START_SHIFT) | (((hi >>> SP_END_SHIFT) & 0xfff) << 12);
  }

  /** Page of the table that the entry read last points to. */
  #tablePfn(): number {
    const lo = this.#lo;
    const hi = this.#hi;
    if (this.#dart2) return ((hi & PADDR_2_HI) << 24) + ((lo & PADDR_2_LO) >>> 8);
    return (hi & PADDR_1_HI) * 0x10_0000 + (this.#big ? (lo >>> 14) * 4 : lo >>> 12);
  }

  /** Reads entry `index` of the table at page `pfn`; false when that is not RAM (the walker reads nothing else). */
  #read(pfn: number, index: number): boolean {
    const memory = this.#memory;
    this.reads++;
    if (!memory.locate(pfn + (index >>> 9), false)) return false;
    const at = memory.index + (index & 0x1ff) * 2;
    this.#lo = memory.view[at]!;
    this.#hi = memory.view[at + 1]!;
    return true;
  }
}
