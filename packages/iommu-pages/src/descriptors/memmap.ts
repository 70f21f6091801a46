import { hiOfPfn, loOfPfn, pfnOfWords } from '@iommu-ts/bits';
import type { PhysicalMemory } from '../physical-memory.ts';

/** A run of 4 KiB page frames, half-open. */
export interface PfnRange {
  readonly basePfn: number;
  readonly endPfn: number;
}

/** One run of frames and where its descriptors begin. */
interface Section extends PfnRange {
  readonly mapPfn: number;
  readonly mapEndPfn: number;
}

/** Sections are cut here, so that an index within one is a small integer. */
const SECTION_PAGES = 2 ** 28;

/** Whole 4 KiB pages that the descriptors of `range` fill, at `bytes` (a power of two) for each frame of `framePages` pages. */
export const memmapPages = (range: PfnRange, bytes: number, framePages = 1): number =>
  Math.ceil((Math.ceil((range.endPfn - range.basePfn) / framePages) * bytes) / 4096);

/**
 * The memory map: an array, in emulated memory, of one descriptor for each page frame of the managed ranges.
 * The frames that hold the array have descriptors as well, as in Linux. A frame that was never used reads as zeros.
 */
export class Memmap {
  readonly #memory: PhysicalMemory;
  readonly #sections: Section[] = [];
  readonly #bytesLg2: number;
  readonly #perPageLg2: number;
  readonly #frameLg2: number;
  /** The section used last. */
  #section: Section;
  /** Set by {@link locate}: the words that hold a descriptor, and the index of its first. */
  view: Int32Array = new Int32Array(0);
  index = 0;
  /** Set by {@link address}: where a descriptor is. */
  hi = 0;
  lo = 0;

  /**
   * @param places where the array of each range goes: first page, one each; zeroed here.
   * @param bytes of a descriptor, a power of two.
   * @param framePages 4 KiB pages in a CPU page, a power of two.
   */
  constructor(
    memory: PhysicalMemory,
    ranges: readonly PfnRange[],
    places: readonly number[],
    bytes: number,
    framePages: number,
  ) {
    this.#memory = memory;
    this.#bytesLg2 = 31 - Math.clz32(bytes);
    this.#perPageLg2 = 12 - this.#bytesLg2;
    this.#frameLg2 = 31 - Math.clz32(framePages);
    for (const [i, range] of ranges.entries()) {
      let mapPfn = places[i]!;
      for (let basePfn = range.basePfn; basePfn < range.endPfn; basePfn += SECTION_PAGES) {
        const endPfn = Math.min(range.endPfn, basePfn + SECTION_PAGES);
        const pages = memmapPages({ basePfn, endPfn }, bytes, framePages);
        this.#sections.push({ basePfn, endPfn, mapPfn, mapEndPfn: mapPfn + pages });
        memory.zeroPages(mapPfn, pages * 4096);
        mapPfn += pages;
      }
    }
    this.#section = this.#sections[0] ?? { basePfn: 0, endPfn: 0, mapPfn: 0, mapEndPfn: 0 };
  }

  /** Bytes of the array. */
  get bytes(): number {
    return this.#sections.reduce((sum, s) => sum + (s.mapEndPfn - s.mapPfn) * 4096, 0);
  }

  /** True when `pfn` begins a frame that has a descriptor; {@link view} and {@link index} are set then. */
  locate(pfn: number, forWrite: boolean): boolean {
    let section = this.#section;
    if (!(pfn >= section.basePfn && pfn < section.endPfn)) {
      if (!this.#enter(pfn)) return false;
      section = this.#section;
    }
    const offset = pfn - section.basePfn;
    const page = offset | 0;
    const frame = page >>> this.#frameLg2;
    if (page !== offset || frame << this.#frameLg2 !== page) return false;
    const memory = this.#memory;
    memory.locate(section.mapPfn + (frame >>> this.#perPageLg2), forWrite);
    this.view = memory.view;
    this.index = memory.index + (((frame << this.#bytesLg2) & 0xfff) >>> 2);
    return true;
  }

  /** Address of the descriptor of `pfn` (which has one) into {@link hi} and {@link lo}. */
  address(pfn: number): void {
    let section = this.#section;
    if (!(pfn >= section.basePfn && pfn < section.endPfn)) {
      this.#enter(pfn);
      section = this.#section;
    }
    const frame = (pfn - section.basePfn) >>> this.#frameLg2;
    const mapPfn = section.mapPfn + (frame >>> this.#perPageLg2);
    this.hi = hiOfPfn(mapPfn) | 0;
    this.lo = loOfPfn(mapPfn) | ((frame << this.#bytesLg2) & 0xfff);
  }

  /** First page of the frame whose descriptor is at `hi:lo` (an address that {@link address} gave). */
  pfnAt(hi: number, lo: number): number {
    const mapPfn = pfnOfWords(hi, lo);
    let section = this.#section;
    if (!(mapPfn >= section.mapPfn && mapPfn < section.mapEndPfn)) {
      for (let i = 0; i < this.#sections.length; i++) {
        section = this.#sections[i]!;
        if (mapPfn >= section.mapPfn && mapPfn < section.mapEndPfn) break;
      }
    }
    const frame = ((mapPfn - section.mapPfn) << this.#perPageLg2) + ((lo & 0xfff) >>> this.#bytesLg2);
    return section.basePfn + (frame << this.#frameLg2);
  }

  /** Makes the section of `pfn` the one used last. */
  #enter(pfn: number): boolean {
    for (let i = 0; i < this.#sections.length; i++) {
      const section = this.#sections[i]!;
      if (pfn >= section.basePfn && pfn < section.endPfn) {
        this.#section = section;
        return true;
      }
    }
    return false;
  }
}
