import { COMPOUND_TAIL, IOPTDESC_OVERLAY, PAGE_FLAGS, wordOf } from './layouts.ts';
import { isLast, isLinked, linkAlone, linkLast, unlink } from './links.ts';
import type { Memmap } from './memmap.ts';
import { DESC, NO_DESC } from './store.ts';
import type { DescriptorStore, DescriptorUsage } from './store.ts';

const {
  __page_flags: flagsField,
  iopt_freelist_elm: linksField,
  __page_mapping: mappingField,
  __index: indexField,
  _private: privateField,
  __page_type: typeField,
  __page_refcount: refcountField,
  memcg_data: memcgField,
} = IOPTDESC_OVERLAY.fields;
const FLAGS = wordOf(flagsField);
const FLAGS_HI = FLAGS + 1;
const LINKS = wordOf(linksField);
const PREV = LINKS + 2;
const MAPPING = wordOf(mappingField);
const INDEX = wordOf(indexField);
const PRIVATE = wordOf(privateField);
const TYPE = wordOf(typeField);
const REFCOUNT = wordOf(refcountField);
const MEMCG = wordOf(memcgField);

const HEAD = 2 ** PAGE_FLAGS.PG_head;
const NODE_SHIFT = PAGE_FLAGS.nodeShift - 32;
/** `page_type` of a page that has none. */
const NO_TYPE = -1;
/** Flags that have a field of their own; the others are kept in `_private`, which is the owner's. */
const FIELD_FLAGS = DESC.ON_LIST | DESC.INCOHERENT;

/** `memcg_data` of a page charged to group `id`: the group's address in Linux; here its number, above the kernel's low bits. */
export const memcgData = (id: number): number => (id === 0 ? 0 : (id << 4) | MEMCG_DATA_KMEM);
/** The page is kernel memory (`MEMCG_DATA_KMEM`). */
const MEMCG_DATA_KMEM = 2;
/** Group of a `memcg_data`. */
export const memcgOf = (data: number): number => data >>> 4;

/**
 * Today's descriptors: the `struct page` of a block's first frame, seen as `struct ioptdesc`. A block of several frames is
 * a compound page: PG_head in the first, the order in the flags of the second, and in every other the address of the
 * first's descriptor with bit 0 set. A descriptor is named by the page frame number of its block.
 */
export class OverlayStore implements DescriptorStore {
  readonly #map: Memmap;
  readonly #framePages: number;
  readonly #frameLg2: number;

  /** The descriptor that was reached last, and its words; a descriptor never moves. */
  #last = NO_DESC;
  #view: Int32Array = new Int32Array(0);
  #index = 0;

  /** @param framePages 4 KiB pages in a CPU page. */
  constructor(map: Memmap, framePages: number) {
    this.#map = map;
    this.#framePages = framePages;
    this.#frameLg2 = 12 + Math.log2(framePages);
  }

  add(pfn: number, sizeLg2: number, node: number, memcg: number): number {
    if (!this.#map.locate(pfn, true)) return NO_DESC;
    this.#to(pfn);
    const view = this.#view;
    const index = this.#index;
    const order = sizeLg2 - this.#frameLg2;
    view[index + FLAGS] = order > 0 ? HEAD : 0;
    view[index + FLAGS_HI] = node << NODE_SHIFT;
    unlink(view, index + LINKS);
    view[index + MAPPING] = 0;
    view[index + MAPPING + 1] = 0;
    view[index + INDEX] = 0;
    view[index + INDEX + 1] = 0;
    view[index + PRIVATE] = 0;
    view[index + PRIVATE + 1] = 0;
    view[index + TYPE] = NO_TYPE;
    view[index + REFCOUNT] = 1;
    view[index + MEMCG] = memcgData(memcg);
    view[index + MEMCG + 1] = 0;
    if (order > 0) this.#addTails(pfn, order, node);
    return pfn;
  }

  remove(desc: number): void {
    this.#to(desc);
    const view = this.#view;
    const index = this.#index;
    const compound = (view[index + FLAGS]! & HEAD) !== 0;
    view[index + FLAGS] = 0;
    unlink(view, index + LINKS);
    view[index + INDEX] = 0;
    view[index + PRIVATE] = 0;
    view[index + TYPE] = NO_TYPE;
    view[index + REFCOUNT] = 0;
    view[index + MEMCG] = 0;
    if (compound) this.#removeTails(desc);
  }

  find(pfn: number): number {
    if (pfn !== this.#last) {
      const map = this.#map;
      // Looking makes no memory; what is not in use is not remembered.
      if (!map.locate(pfn, false) || map.view[map.index + REFCOUNT] !== 1) return NO_DESC;
      this.#last = pfn;
      this.#view = map.view;
      this.#index = map.index;
      return pfn;
    }
    // A frame in use that is no tail is the first of a block: whatever else holds frames is not among these.
    return this.#view[this.#index + REFCOUNT] === 1 ? pfn : NO_DESC;
  }

  headOf(pfn: number): number {
    const map = this.#map;
    const frame = Math.floor(pfn / this.#framePages) * this.#framePages;
    if (!map.locate(frame, false)) return -1;
    const { view, index } = map;
    const head = view[index + LINKS]!;
    if ((head & COMPOUND_TAIL) !== 0) return map.pfnAt(view[index + LINKS + 1]!, head - COMPOUND_TAIL);
    return view[index + REFCOUNT] === 1 ? frame : -1;
  }

  pfn(desc: number): number {
    return desc;
  }

  sizeLg2(desc: number): number {
    this.#to(desc);
    return (this.#view[this.#index + FLAGS]! & HEAD) === 0 ? this.#frameLg2 : this.#frameLg2 + this.#order(desc);
  }

  node(desc: number): number {
    this.#to(desc);
    return this.#view[this.#index + FLAGS_HI]! >>> NODE_SHIFT;
  }

  next(desc: number): number {
    this.#to(desc);
    const at = this.#index + LINKS;
    return isLast(this.#view, at) ? NO_DESC : this.#map.pfnAt(this.#view[at + 1]!, this.#view[at]!);
  }

  setNext(desc: number, next: number): void {
    this.#to(desc);
    const at = this.#index + LINKS;
    if (next === NO_DESC) {
      linkLast(this.#view, at);
      return;
    }
    const map = this.#map;
    map.address(next);
    this.#view[at] = map.lo;
    this.#view[at + 1] = map.hi;
    map.address(desc);
    this.#to(next);
    this.#view[this.#index + PREV] = map.lo;
    this.#view[this.#index + PREV + 1] = map.hi;
  }

  memcg(desc: number): number {
    this.#to(desc);
    return memcgOf(this.#view[this.#index + MEMCG]!);
  }

  flags(desc: number): number {
    this.#to(desc);
    const view = this.#view;
    const index = this.#index;
    return (
      view[index + PRIVATE]! |
      (isLinked(view, index + LINKS) ? DESC.ON_LIST : 0) |
      ((view[index + INDEX]! & 0xff) === 0 ? 0 : DESC.INCOHERENT)
    );
  }

  setFlags(desc: number, flags: number): void {
    this.#to(desc);
    const view = this.#view;
    const index = this.#index;
    view[index + PRIVATE] = flags & ~FIELD_FLAGS;
    view[index + INDEX] = (flags & DESC.INCOHERENT) === 0 ? 0 : 1;
    const linked = isLinked(view, index + LINKS);
    if ((flags & DESC.ON_LIST) === 0) {
      if (linked) unlink(view, index + LINKS);
    } else if (!linked) linkAlone(view, index + LINKS);
  }

  usage(): DescriptorUsage {
    return { layout: 'overlay', memmapBytes: this.#map.bytes, slabBytes: 0, slabUsedBytes: 0 };
  }

  #to(desc: number): void {
    if (desc === this.#last) return;
    const map = this.#map;
    map.locate(desc, true);
    this.#last = desc;
    this.#view = map.view;
    this.#index = map.index;
  }

  /** Order of the compound block: in the flags of its second frame. */
  #order(desc: number): number {
    const map = this.#map;
    map.locate(desc + this.#framePages, false);
    return map.view[map.index + FLAGS]! & PAGE_FLAGS.orderMask;
  }

  #addTails(pfn: number, order: number, node: number): void {
    const map = this.#map;
    const frames = 1 << order;
    map.address(pfn);
    const { hi } = map;
    const lo = map.lo | COMPOUND_TAIL;
    for (let i = 1; i < frames; i++) {
      map.locate(pfn + i * this.#framePages, true);
      const { view, index } = map;
      view[index + FLAGS] = i === 1 ? order : 0;
      view[index + FLAGS_HI] = node << NODE_SHIFT;
      view[index + LINKS] = lo;
      view[index + LINKS + 1] = hi;
      view[index + REFCOUNT] = 0;
    }
  }

  #removeTails(pfn: number): void {
    const map = this.#map;
    const frames = 1 << this.#order(pfn);
    for (let i = 1; i < frames; i++) {
      map.locate(pfn + i * this.#framePages, true);
      map.view[map.index + FLAGS] = 0;
      map.view[map.index + LINKS] = 0;
      map.view[map.index + LINKS + 1] = 0;
    }
  }
}
