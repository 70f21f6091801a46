import { pfnOfWords } from '@iommu-ts/bits';
import { IOPTDESC_MEMDESC, MEMDESC_TYPE, MEMDESC_TYPE_MASK, PAGE_FLAGS, wordOf } from './layouts.ts';
import { isLast, isLinked, linkAlone, linkLast, unlink } from './links.ts';
import type { Memmap } from './memmap.ts';
import { memcgData, memcgOf } from './overlay.ts';
import type { Slab } from './slab.ts';
import { DESC, NO_DESC } from './store.ts';
import type { DescriptorStore, DescriptorUsage } from './store.ts';
import type { PhysicalMemory } from '../physical-memory.ts';

const FIELDS = IOPTDESC_MEMDESC.fields;
const FLAGS = wordOf(FIELDS.flags);
const FLAGS_HI = FLAGS + 1;
const LINKS = wordOf(FIELDS.iopt_freelist_elm);
const PREV = LINKS + 2;
const PFN = wordOf(FIELDS.pfn);
/** `order` in bits 7:0, `incoherent` in bits 15:8 of one word. */
const ORDER = wordOf(FIELDS.order);
const INCOHERENT = 1 << (8 * (FIELDS.incoherent.offset - FIELDS.order.offset));
const REFCOUNT = wordOf(FIELDS.refcount);
const MEMCG = wordOf(FIELDS.memcg_data);

const NODE_SHIFT = PAGE_FLAGS.nodeShift - 32;
const TWO_32 = 0x1_0000_0000;
/** Flags that have a field of their own. */
const FIELD_FLAGS = DESC.ON_LIST | DESC.INCOHERENT;

/**
 * Tomorrow's descriptors: every frame of a block has the same word, the address of one `struct ioptdesc` from a slab with
 * the type in bits 3:0. A descriptor is named by the page frame number of its block.
 */
export class MemdescStore implements DescriptorStore {
  readonly #memory: PhysicalMemory;
  readonly #map: Memmap;
  readonly #slab: Slab;
  readonly #framePages: number;
  readonly #frameLg2: number;
  /** The descriptor that was reached last: its block, its words, its address. */
  #pfn = NO_DESC;
  #view: Int32Array = new Int32Array(0);
  #index = 0;
  #hi = 0;
  #lo = 0;

  /** @param framePages 4 KiB pages in a CPU page. */
  constructor(memory: PhysicalMemory, map: Memmap, slab: Slab, framePages: number) {
    this.#memory = memory;
    this.#map = map;
    this.#slab = slab;
    this.#framePages = framePages;
    this.#frameLg2 = 12 + Math.log2(framePages);
  }

  add(pfn: number, sizeLg2: number, node: number, memcg: number): number {
    const map = this.#map;
    if (!map.locate(pfn, true) || !this.#slab.alloc(node)) return NO_DESC;
    const { hi, lo } = this.#slab;
    this.#reach(hi, lo);
    this.#pfn = pfn;
    const view = this.#view;
    const index = this.#index;
    const order = sizeLg2 - this.#frameLg2;
    view[index + FLAGS] = 0;
    view[index + FLAGS_HI] = node << NODE_SHIFT;
    unlink(view, index + LINKS);
    view[index + PFN] = pfn;
    view[index + PFN + 1] = pfn / TWO_32;
    view[index + ORDER] = order;
    view[index + REFCOUNT] = 1;
    view[index + MEMCG] = memcgData(memcg);
    view[index + MEMCG + 1] = 0;
    this.#point(pfn, order, hi, lo | MEMDESC_TYPE.Ioptdesc);
    return pfn;
  }

  remove(desc: number): void {
    this.#to(desc);
    const order = this.#view[this.#index + ORDER]! & 0xff;
    this.#view[this.#index + REFCOUNT] = 0;
    this.#pfn = NO_DESC;
    this.#slab.free(this.#hi, this.#lo);
    this.#point(desc, order, 0, MEMDESC_TYPE.Misc);
  }

  find(pfn: number): number {
    if (pfn === this.#pfn) return pfn;
    return this.#enter(pfn) && this.#pfn === pfn ? pfn : NO_DESC;
  }

  headOf(pfn: number): number {
    return this.#enter(Math.floor(pfn / this.#framePages) * this.#framePages) ? this.#pfn : -1;
  }

  pfn(desc: number): number {
    return desc;
  }

  sizeLg2(desc: number): number {
    this.#to(desc);
    return this.#frameLg2 + (this.#view[this.#index + ORDER]! & 0xff);
  }

  node(desc: number): number {
    this.#to(desc);
    return this.#view[this.#index + FLAGS_HI]! >>> NODE_SHIFT;
  }

  next(desc: number): number {
    this.#to(desc);
    const at = this.#index + LINKS;
    if (isLast(this.#view, at)) return NO_DESC;
    this.#reach(this.#view[at + 1]!, this.#view[at]!);
    return this.#pfn;
  }

  setNext(desc: number, next: number): void {
    this.#to(desc);
    const view = this.#view;
    const at = this.#index + LINKS;
    if (next === NO_DESC) {
      linkLast(view, at);
      return;
    }
    const hi = this.#hi;
    const lo = this.#lo;
    this.#to(next);
    view[at] = this.#lo;
    view[at + 1] = this.#hi;
    this.#view[this.#index + PREV] = lo;
    this.#view[this.#index + PREV + 1] = hi;
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
      view[index + FLAGS]! |
      (isLinked(view, index + LINKS) ? DESC.ON_LIST : 0) |
      ((view[index + ORDER]! & INCOHERENT) === 0 ? 0 : DESC.INCOHERENT)
    );
  }

  setFlags(desc: number, flags: number): void {
    this.#to(desc);
    const view = this.#view;
    const index = this.#index;
    view[index + FLAGS] = flags & ~FIELD_FLAGS;
    const order = view[index + ORDER]! & ~INCOHERENT;
    view[index + ORDER] = (flags & DESC.INCOHERENT) === 0 ? order : order | INCOHERENT;
    const linked = isLinked(view, index + LINKS);
    if ((flags & DESC.ON_LIST) === 0) {
      if (linked) unlink(view, index + LINKS);
    } else if (!linked) linkAlone(view, index + LINKS);
  }

  usage(): DescriptorUsage {
    const { pages, used } = this.#slab;
    const slabUsedBytes = used * IOPTDESC_MEMDESC.bytes;
    return { layout: 'memdesc', memmapBytes: this.#map.bytes, slabBytes: pages * 4096, slabUsedBytes };
  }

  /** Makes the descriptor of a live block the one reached last. */
  #to(desc: number): void {
    if (desc !== this.#pfn) this.#enter(desc);
  }

  /** Through the frame's word to its descriptor; false when it has none. */
  #enter(pfn: number): boolean {
    const map = this.#map;
    if (!map.locate(pfn, false)) return false;
    const word = map.view[map.index]!;
    if ((word & MEMDESC_TYPE_MASK) !== MEMDESC_TYPE.Ioptdesc) return false;
    this.#reach(map.view[map.index + 1]!, word & ~MEMDESC_TYPE_MASK);
    return true;
  }

  /** Makes the descriptor at an address the one reached last. */
  #reach(hi: number, lo: number): void {
    const memory = this.#memory;
    memory.locate(pfnOfWords(hi, lo), true);
    const { view } = memory;
    const index = memory.index + ((lo & 0xfff) >>> 2);
    this.#view = view;
    this.#index = index;
    this.#hi = hi;
    this.#lo = lo;
    this.#pfn = (view[index + PFN + 1]! >>> 0) * TWO_32 + (view[index + PFN]! >>> 0);
  }

  /** Sets the words of all frames of a block. */
  #point(pfn: number, order: number, hi: number, lo: number): void {
    const map = this.#map;
    const frames = 1 << order;
    for (let i = 0; i < frames; i++) {
      map.locate(pfn + i * this.#framePages, true);
      map.view[map.index] = lo;
      map.view[map.index + 1] = hi;
    }
  }
}
