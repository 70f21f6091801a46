import { hiOfPfn, loOfPfn, pfnOfWords } from '@iommu-ts/bits';
import type { PageSource } from '../page-source.ts';
import type { PhysicalMemory } from '../physical-memory.ts';
import { MEMDESC_TYPE, SLAB_HEADER, slabObjects, wordOf } from './layouts.ts';
import type { Memmap } from './memmap.ts';

const NEXT = wordOf(SLAB_HEADER.fields.slab_list);
const PREV = NEXT + 2;
const FREELIST = wordOf(SLAB_HEADER.fields.freelist);
const INUSE = wordOf(SLAB_HEADER.fields.inuse);

/** No page: page 0 could hold descriptors, so the number cannot be 0. */
const NONE = -1;

/**
 * Objects of one size, aligned to 16 bytes, packed into 4 KiB pages of emulated memory. The free ones are threaded
 * through the pages themselves. Pages with a free object are on a list, the one used last first; an empty page goes back
 * to where it came from, except one.
 */
export class Slab {
  readonly #memory: PhysicalMemory;
  readonly #pages: PageSource;
  readonly #map: Memmap;
  readonly #bytes: number;
  readonly #capacity: number;
  /** First page with a free object. */
  #partial = NONE;
  #empty = 0;
  #held = 0;
  #used = 0;
  /** Set by {@link alloc}: address of the object. */
  hi = 0;
  lo = 0;

  /** @param pages where its pages come from: the page source of the tables, or a range of its own. */
  constructor(memory: PhysicalMemory, pages: PageSource, map: Memmap, bytes: number) {
    this.#memory = memory;
    this.#pages = pages;
    this.#map = map;
    this.#bytes = bytes;
    this.#capacity = slabObjects(bytes);
  }

  /** Pages held. */
  get pages(): number {
    return this.#held;
  }

  /** Objects in use. */
  get used(): number {
    return this.#used;
  }

  /** Takes a free object, its address into {@link hi} and {@link lo}; false without memory. Its bytes are not cleared. */
  alloc(node: number): boolean {
    let pfn = this.#partial;
    if (pfn === NONE) {
      pfn = this.#grow(node);
      if (pfn === NONE) return false;
    }
    const memory = this.#memory;
    memory.locate(pfn, true);
    const { view, index } = memory;
    const offset = view[index + FREELIST]!;
    view[index + FREELIST] = view[index + (offset >>> 2)]!;
    if (view[index + INUSE]!++ === 0) this.#empty--;
    this.#used++;
    this.hi = hiOfPfn(pfn) | 0;
    this.lo = loOfPfn(pfn) | offset;
    if (view[index + FREELIST] === 0) this.#unlist(pfn);
    return true;
  }

  /** Gives an object back. */
  free(hi: number, lo: number): void {
    const pfn = pfnOfWords(hi, lo);
    const memory = this.#memory;
    memory.locate(pfn, true);
    const { view, index } = memory;
    const offset = lo & 0xfff;
    const first = view[index + FREELIST]!;
    view[index + (offset >>> 2)] = first;
    view[index + FREELIST] = offset;
    const inuse = view[index + INUSE]! - 1;
    view[index + INUSE] = inuse;
    this.#used--;
    if (first === 0) this.#list(pfn);
    if (inuse === 0 && this.#empty++ > 0) this.#release(pfn);
  }

  /** A fresh page of free objects, listed. */
  #grow(node: number): number {
    const pfn = this.#pages.alloc(node, 4096);
    if (pfn < 0) return NONE;
    const memory = this.#memory;
    memory.zeroPages(pfn, 4096);
    memory.locate(pfn, true);
    const { view, index } = memory;
    for (let i = 0; i < this.#capacity; i++) {
      const offset = SLAB_HEADER.bytes + i * this.#bytes;
      view[index + (offset >>> 2)] = i + 1 < this.#capacity ? offset + this.#bytes : 0;
    }
    view[index + FREELIST] = SLAB_HEADER.bytes;
    this.#mark(pfn, true);
    this.#held++;
    this.#empty++;
    this.#list(pfn);
    return pfn;
  }

  #release(pfn: number): void {
    this.#unlist(pfn);
    this.#mark(pfn, false);
    this.#held--;
    this.#empty--;
    this.#pages.free(pfn, 4096);
  }

  /** Sets the page's own memdesc, where it has one. */
  #mark(pfn: number, slab: boolean): void {
    const map = this.#map;
    if (!map.locate(pfn, true)) return;
    map.view[map.index] = slab ? loOfPfn(pfn) | MEMDESC_TYPE.Slab : MEMDESC_TYPE.Misc;
    map.view[map.index + 1] = slab ? hiOfPfn(pfn) | 0 : 0;
  }

  /** Puts a page before the others. A link is the neighbour's address with bit 0 set, or 0. */
  #list(pfn: number): void {
    const old = this.#partial;
    this.#setLink(pfn, NEXT, old);
    this.#setLink(pfn, PREV, NONE);
    if (old !== NONE) this.#setLink(old, PREV, pfn);
    this.#partial = pfn;
  }

  #unlist(pfn: number): void {
    const next = this.#link(pfn, NEXT);
    const prev = this.#link(pfn, PREV);
    if (prev === NONE) this.#partial = next;
    else this.#setLink(prev, NEXT, next);
    if (next !== NONE) this.#setLink(next, PREV, prev);
  }

  #link(pfn: number, which: number): number {
    const memory = this.#memory;
    memory.locate(pfn, false);
    const lo = memory.view[memory.index + which]!;
    // Bit 0 tells a link to page 0 from none.
    return (lo & 1) === 0 ? NONE : pfnOfWords(memory.view[memory.index + which + 1]!, lo);
  }

  #setLink(pfn: number, which: number, to: number): void {
    const memory = this.#memory;
    memory.locate(pfn, true);
    memory.view[memory.index + which] = to === NONE ? 0 : loOfPfn(to) | 1;
    memory.view[memory.index + which + 1] = to === NONE ? 0 : hiOfPfn(to) | 0;
  }
}
