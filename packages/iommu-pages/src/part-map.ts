/**
 * Below a CPU page: several tables share one page and its one descriptor.
 *
 * A page that is split is a small buddy system of 64-byte units: a part is a power of two of them, aligned to its size, and
 * parts of different sizes share a page. What the descriptor has to know beyond a whole page's is a map of the units (one
 * byte each: free, live, inside a part, and the part's size) and links for the free lists.
 *
 * Fragmentation: a page goes back when its last part does, so one part that lives long keeps a whole page. The smallest free
 * part that fits is taken first, which fills the pages that are in use before a fresh one is cut; parts are never moved,
 * for hardware holds their addresses. Pages of different nodes or groups are never mixed, so each has at most the parts of
 * one page unused for each size it asks for, beside what its long-lived parts hold.
 */
import { PageIndex } from './page-index.ts';

/** No part. */
export const NO_PART = -1;

/** Smallest part in bytes: what the hardware asks of the smallest table (Arm: start tables are aligned to 64 bytes). */
const MIN_PART_BYTES = 64;
const MIN_PART_LG2 = 6;

/** State of a unit: a free or a live part begins here (with its order), or neither. */
const INSIDE = 0;
const FREE = 0x40;
const LIVE = 0x80;
const ORDER = 0x0f;

/** Whole CPU pages for {@link PartMap}; the allocator itself. */
export interface PartBacking {
  /** A page on (or near) `node`, charged to `group`, with a descriptor, or -1. */
  takePage(node: number, group: number): number;
  /** Takes it back. */
  givePage(pfn: number): void;
  /** The node that page `pfn` lies on. */
  nodeOf(pfn: number): number;
}

/**
 * Parts of CPU pages. A part is named by its page frame number in 4 KiB units with an exact fraction (k/64); inside it is a
 * small number, `page slot × units a page + first unit`. Nothing is allocated on the JavaScript heap but for growth.
 */
export class PartMap {
  readonly #backing: PartBacking;
  /** 4 KiB pages in a CPU page. */
  readonly #pagePfns: number = 1;
  readonly #unitsLg2: number = 6;
  #slots = 4;
  #used = 0;
  #freeSlot = NO_PART;
  /** By page slot. */
  #pfn = new Float64Array(this.#slots);
  #pool = new Int32Array(this.#slots);
  /** By part: state of the unit, links. */
  #state: Uint8Array;
  #next: Int32Array;
  #prev: Int32Array;
  readonly #slotOf = new PageIndex();
  /** Free lists: one a pool and order. A pool is a node and a group. */
  #heads = new Int32Array(0);
  readonly #poolNode: number[] = [];
  readonly #poolGroup: number[] = [];
  #pages = 0;
  #live = 0;
  #liveBytes = 0;

  /** @param pageLg2 size of a CPU page. */
  constructor(backing: PartBacking, pageLg2: number) {
    this.#backing = backing;
    this.#pagePfns = 2 ** (pageLg2 - 12);
    this.#unitsLg2 = pageLg2 - MIN_PART_LG2;
    this.#state = new Uint8Array(this.#slots << this.#unitsLg2);
    this.#next = new Int32Array(this.#slots << this.#unitsLg2);
    this.#prev = new Int32Array(this.#slots << this.#unitsLg2);
  }

  /** Pages that are split now, live parts, and their bytes. */
  get pages(): number {
    return this.#pages;
  }
  get parts(): number {
    return this.#live;
  }
  get bytes(): number {
    return this.#liveBytes;
  }

  /**
   * A part of at least `size` bytes, at most half a CPU page, on (or near) `node`, in a page of `group`; it is not zeroed.
   * @returns the part, or {@link NO_PART} when there is no page.
   */
  alloc(node: number, group: number, size: number): number {
    const order = size <= MIN_PART_BYTES ? 0 : 32 - Math.clz32(size - 1) - MIN_PART_LG2;
    const wanted = this.#poolOf(node, group);
    let part = this.#takeFree(wanted, order);
    if (part === NO_PART) {
      const pfn = this.#backing.takePage(node, group);
      // When there is no page left anywhere, a free part on another node is better than none.
      if (pfn < 0) part = this.#takeAnywhere(group, order);
      else part = this.#takeFresh(pfn, wanted, group, order);
      if (part === NO_PART) return NO_PART;
    }
    this.#state[part] = LIVE | order;
    this.#live++;
    this.#liveBytes += MIN_PART_BYTES << order;
    return part;
  }

  /** Takes a live part back, and its page with it when it was the last. */
  free(part: number): void {
    let order = this.#state[part]! & ORDER;
    this.#live--;
    this.#liveBytes -= MIN_PART_BYTES << order;
    const slot = part >>> this.#unitsLg2;
    const pool = this.#pool[slot]!;
    const base = slot << this.#unitsLg2;
    let unit = part - base;
    this.#state[part] = INSIDE;
    for (; order < this.#unitsLg2; order++) {
      const buddy = base + (unit ^ (1 << order));
      if (this.#state[buddy] !== (FREE | order)) break;
      this.#unlink(buddy, pool, order);
      this.#state[buddy] = INSIDE;
      unit &= ~(1 << order);
    }
    if (order < this.#unitsLg2) this.#link(base + unit, pool, order);
    else this.#removePage(slot);
  }

  /** The live part that begins at `pfn`; {@link NO_PART} when none does. */
  find(pfn: number): number {
    const page = Math.floor(pfn / this.#pagePfns);
    const slot = this.#slotOf.get(page);
    if (slot < 0) return NO_PART;
    const unit = (pfn - page * this.#pagePfns) * 64;
    const part = (slot << this.#unitsLg2) + unit;
    // A fraction finer than a unit is no index of the array.
    return (this.#state[part] ?? 0) >= LIVE ? part : NO_PART;
  }

  /** True when `pfn` lies in a page that is split. */
  owns(pfn: number): boolean {
    return this.#slotOf.get(Math.floor(pfn / this.#pagePfns)) >= 0;
  }

  /** The live part that `pfn`, which lies in a page that is split, is a place of; {@link NO_PART} for none. */
  partOf(pfn: number): number {
    const page = Math.floor(pfn / this.#pagePfns);
    const base = this.#slotOf.get(page) << this.#unitsLg2;
    // The part that holds a unit begins at the nearest one before it that is not inside of a part.
    let unit = Math.floor((pfn - page * this.#pagePfns) * 64);
    while (unit > 0 && this.#state[base + unit] === INSIDE) unit--;
    return this.#state[base + unit]! >= LIVE ? base + unit : NO_PART;
  }

  /** Name of a part. */
  pfn(part: number): number {
    const slot = part >>> this.#unitsLg2;
    return this.#pfn[slot]! + (part - (slot << this.#unitsLg2)) / 64;
  }

  /** Size of a live part in bytes, as a power of two. */
  sizeLg2(part: number): number {
    return MIN_PART_LG2 + (this.#state[part]! & ORDER);
  }
  /** Node and group of its page. */
  node(part: number): number {
    return this.#poolNode[this.#pool[part >>> this.#unitsLg2]!]!;
  }
  group(part: number): number {
    return this.#poolGroup[this.#pool[part >>> this.#unitsLg2]!]!;
  }

  /** Parts are numbers below this. It grows. */
  get capacity(): number {
    return this.#slots << this.#unitsLg2;
  }

  #poolOf(node: number, group: number): number {
    const count = this.#poolNode.length;
    for (let i = 0; i < count; i++) if (this.#poolNode[i] === node && this.#poolGroup[i] === group) return i;
    this.#poolNode.push(node);
    this.#poolGroup.push(group);
    const heads = new Int32Array((count + 1) * this.#unitsLg2).fill(NO_PART);
    heads.set(this.#heads);
    this.#heads = heads;
    return count;
  }

  /** The smallest free part of the pool that fits, cut down to `order`. */
  #takeFree(pool: number, order: number): number {
    for (let have = order; have < this.#unitsLg2; have++) {
      const part = this.#heads[pool * this.#unitsLg2 + have]!;
      if (part === NO_PART) continue;
      this.#unlink(part, pool, have);
      this.#cut(part, pool, have, order);
      return part;
    }
    return NO_PART;
  }

  #takeAnywhere(group: number, order: number): number {
    let part = NO_PART;
    for (let pool = 0; pool < this.#poolNode.length && part === NO_PART; pool++) {
      if (this.#poolGroup[pool] === group) part = this.#takeFree(pool, order);
    }
    return part;
  }

  /** A part of a fresh page; or, when another node had to help out, of what is free there already. */
  #takeFresh(pfn: number, wanted: number, group: number, order: number): number {
    const pool = this.#poolOf(this.#backing.nodeOf(pfn), group);
    const part = pool === wanted ? NO_PART : this.#takeFree(pool, order);
    if (part === NO_PART) return this.#takeFrom(this.#addPage(pfn, group), order);
    this.#backing.givePage(pfn);
    return part;
  }

  /** The first part of a fresh page. */
  #takeFrom(slot: number, order: number): number {
    const part = slot << this.#unitsLg2;
    this.#cut(part, this.#pool[slot]!, this.#unitsLg2, order);
    return part;
  }

  /** Cuts the block at `part` from order `have` down to `order`; the upper halves become free. */
  #cut(part: number, pool: number, have: number, order: number): void {
    for (let left = have; left > order;) {
      left--;
      this.#link(part + (1 << left), pool, left);
    }
  }

  #link(part: number, pool: number, order: number): void {
    const head = pool * this.#unitsLg2 + order;
    const first = this.#heads[head]!;
    this.#state[part] = FREE | order;
    this.#next[part] = first;
    this.#prev[part] = NO_PART;
    if (first !== NO_PART) this.#prev[first] = part;
    this.#heads[head] = part;
  }

  #unlink(part: number, pool: number, order: number): void {
    const next = this.#next[part]!;
    const prev = this.#prev[part]!;
    if (prev === NO_PART) this.#heads[pool * this.#unitsLg2 + order] = next;
    else this.#next[prev] = next;
    if (next !== NO_PART) this.#prev[next] = prev;
  }

  #addPage(pfn: number, group: number): number {
    let slot = this.#freeSlot;
    if (slot === NO_PART) {
      if (this.#used === this.#slots) this.#grow();
      slot = this.#used++;
    } else this.#freeSlot = this.#next[slot << this.#unitsLg2]!;
    this.#pfn[slot] = pfn;
    this.#pool[slot] = this.#poolOf(this.#backing.nodeOf(pfn), group);
    this.#state.fill(INSIDE, slot << this.#unitsLg2, (slot + 1) << this.#unitsLg2);
    this.#slotOf.set(Math.floor(pfn / this.#pagePfns), slot);
    this.#pages++;
    return slot;
  }

  #removePage(slot: number): void {
    const pfn = this.#pfn[slot]!;
    this.#slotOf.set(Math.floor(pfn / this.#pagePfns), -1);
    this.#next[slot << this.#unitsLg2] = this.#freeSlot;
    this.#freeSlot = slot;
    this.#pages--;
    this.#backing.givePage(pfn);
  }

  #grow(): void {
    this.#slots *= 2;
    const size = this.#slots << this.#unitsLg2;
    const pfn = new Float64Array(this.#slots);
    pfn.set(this.#pfn);
    this.#pfn = pfn;
    const pool = new Int32Array(this.#slots);
    pool.set(this.#pool);
    this.#pool = pool;
    const state = new Uint8Array(size);
    state.set(this.#state);
    this.#state = state;
    const next = new Int32Array(size);
    next.set(this.#next);
    this.#next = next;
    const prev = new Int32Array(size);
    prev.set(this.#prev);
    this.#prev = prev;
  }
}
