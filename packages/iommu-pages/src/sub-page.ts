/**
 * Descriptors when blocks may be parts of pages: those of whole blocks are the layout's own, a part's is its place in the
 * map of its page ({@link PartMap}), a flag byte and a link. One page has one descriptor of the layout, however many parts.
 * Made only for an allocator with `subPage`, so that one without has nothing to ask.
 */
import { NO_DESC } from './descriptors/store.ts';
import type { DescriptorStore, DescriptorUsage } from './descriptors/store.ts';
import { NO_PART, PartMap } from './part-map.ts';
import type { PartBacking } from './part-map.ts';
import type { PhysicalMemory } from './physical-memory.ts';

/** A pattern of eight bytes, as int32 words. */
export interface Poison {
  readonly hi: number;
  readonly lo: number;
}

/** Parts of pages, counted. */
export interface SubPageUsage {
  /** CPU pages that are split. */
  readonly pages: number;
  /** Live parts in them, and their bytes. */
  readonly parts: number;
  readonly bytes: number;
}

/** Descriptors of parts are the numbers from here down; whole blocks have the layout's own, which are not negative. */
const FIRST_PART = -2;

/** True for the descriptor of a part of a page. */
export const isPart = (desc: number): boolean => desc <= FIRST_PART;

/** `DescriptorStore` over another one, for whole blocks, and a {@link PartMap}. */
export class SubPageStore implements DescriptorStore {
  readonly #whole: DescriptorStore;
  readonly #map: PartMap;
  readonly #memory: PhysicalMemory;
  #next = new Int32Array(0);
  #flags = new Uint8Array(0);
  /** Whole blocks that have a part behind them on a list: their own link can not name it. */
  readonly #partBehind = new Map<number, number>();
  /** What freed parts are filled with. */
  poison: Poison | null = null;

  constructor(whole: DescriptorStore, memory: PhysicalMemory, backing: PartBacking, pageLg2: number) {
    this.#whole = whole;
    this.#memory = memory;
    this.#map = new PartMap(backing, pageLg2);
  }

  /** What is in parts now. */
  get parts(): SubPageUsage {
    const { pages, parts, bytes } = this.#map;
    return { pages, parts, bytes };
  }

  /** A zeroed part of at least `size` bytes: its page frame number with a fraction, or -1. */
  take(node: number, memcg: number, size: number): number {
    const map = this.#map;
    const part = map.alloc(node, memcg, size);
    if (part === NO_PART) return -1;
    if (part >= this.#next.length) this.#grow();
    this.#flags[part] = 0;
    const pfn = map.pfn(part);
    fillPart(this.#memory, pfn, 1 << map.sizeLg2(part), 0, 0);
    return pfn;
  }

  add(pfn: number, sizeLg2: number, node: number, memcg: number): number {
    return this.#whole.add(pfn, sizeLg2, node, memcg);
  }

  remove(desc: number): void {
    if (desc > FIRST_PART) {
      if (this.#partBehind.size !== 0) this.#partBehind.delete(desc);
      this.#whole.remove(desc);
      return;
    }
    const part = FIRST_PART - desc;
    const map = this.#map;
    const { poison } = this;
    if (poison !== null) fillPart(this.#memory, map.pfn(part), 1 << map.sizeLg2(part), poison.hi, poison.lo);
    map.free(part);
  }

  find(pfn: number): number {
    const part = this.#map.find(pfn);
    if (part !== NO_PART) return FIRST_PART - part;
    // A page that is split is nobody's as a whole.
    return this.#map.owns(pfn) ? NO_DESC : this.#whole.find(pfn);
  }

  headOf(pfn: number): number {
    if (!this.#map.owns(pfn)) return this.#whole.headOf(pfn);
    const part = this.#map.partOf(pfn);
    return part === NO_PART ? -1 : this.#map.pfn(part);
  }

  pfn(desc: number): number {
    return desc > FIRST_PART ? this.#whole.pfn(desc) : this.#map.pfn(FIRST_PART - desc);
  }
  sizeLg2(desc: number): number {
    return desc > FIRST_PART ? this.#whole.sizeLg2(desc) : this.#map.sizeLg2(FIRST_PART - desc);
  }
  node(desc: number): number {
    return desc > FIRST_PART ? this.#whole.node(desc) : this.#map.node(FIRST_PART - desc);
  }
  memcg(desc: number): number {
    return desc > FIRST_PART ? this.#whole.memcg(desc) : this.#map.group(FIRST_PART - desc);
  }

  next(desc: number): number {
    if (desc <= FIRST_PART) return this.#next[FIRST_PART - desc]!;
    if (this.#partBehind.size !== 0) {
      const part = this.#partBehind.get(desc);
      if (part !== undefined) return part;
    }
    return this.#whole.next(desc);
  }

  setNext(desc: number, next: number): void {
    if (desc <= FIRST_PART) this.#next[FIRST_PART - desc] = next;
    else if (next <= FIRST_PART) {
      this.#partBehind.set(desc, next);
      this.#whole.setNext(desc, NO_DESC);
    } else {
      if (this.#partBehind.size !== 0) this.#partBehind.delete(desc);
      this.#whole.setNext(desc, next);
    }
  }

  flags(desc: number): number {
    return desc > FIRST_PART ? this.#whole.flags(desc) : this.#flags[FIRST_PART - desc]!;
  }

  setFlags(desc: number, flags: number): void {
    if (desc > FIRST_PART) this.#whole.setFlags(desc, flags);
    else this.#flags[FIRST_PART - desc] = flags;
  }

  usage(): DescriptorUsage {
    return this.#whole.usage();
  }

  #grow(): void {
    const next = new Int32Array(this.#map.capacity);
    next.set(this.#next);
    this.#next = next;
    const flags = new Uint8Array(this.#map.capacity);
    flags.set(this.#flags);
    this.#flags = flags;
  }
}

/** Fills a part, which lies in one view of the memory; what is not RAM is left alone. */
const fillPart = (memory: PhysicalMemory, pfn: number, bytes: number, hi: number, lo: number): void => {
  const page = Math.floor(pfn);
  if (!memory.locate(page, true)) return;
  const { view } = memory;
  const at = memory.index + (pfn - page) * 1024;
  if (hi === lo) view.fill(lo, at, at + bytes / 4);
  else {
    for (let w = 0; w < bytes / 4; w += 2) {
      view[at + w] = lo;
      view[at + w + 1] = hi;
    }
  }
};
