import { IommuError, hex, pfnOf } from '@iommu-ts/bits';
import type { PageSource } from './page-source.ts';
import type { PhysicalMemory } from './physical-memory.ts';

/** Largest block: 2^MAX_ORDER pages (1 GiB). */
const MAX_ORDER = 18;
const NONE = -1;
const BUSY = 0xff;

/** A zone: one stretch of page frames with its own free lists, kept in typed arrays (no allocation once made). */
class Zone {
  readonly basePfn: number;
  readonly count: number;
  readonly node: number;
  /** Free-list links by page index; only the first page of a free block is linked. */
  readonly #next: Int32Array;
  readonly #prev: Int32Array;
  /** Order of the free block that begins here, BUSY otherwise. */
  readonly #order: Uint8Array;
  readonly #heads = new Int32Array(MAX_ORDER + 1).fill(NONE);
  freePages = 0;

  constructor(basePfn: number, count: number, node: number) {
    this.basePfn = basePfn;
    this.count = count;
    this.node = node;
    this.#next = new Int32Array(count);
    this.#prev = new Int32Array(count);
    this.#order = new Uint8Array(count).fill(BUSY);
    for (let at = count; at > 0;) {
      // Cut from the top so that the lists end up with the lowest addresses first.
      let order = 0;
      while (order < MAX_ORDER && (basePfn + at) % 2 ** (order + 1) === 0 && at >= 2 ** (order + 1)) order++;
      at -= 2 ** order;
      this.#push(at, order);
      this.freePages += 2 ** order;
    }
  }

  /** Index of a block of 2^order pages, or -1. */
  take(order: number): number {
    let have = order;
    while (have <= MAX_ORDER && this.#heads[have] === NONE) have++;
    if (have > MAX_ORDER) return NONE;
    const at = this.#heads[have]!;
    this.#remove(at, have);
    while (have > order) {
      have--;
      this.#push(at + 2 ** have, have);
    }
    this.freePages -= 2 ** order;
    return at;
  }

  give(index: number, order: number): void {
    this.freePages += 2 ** order;
    let at = index;
    let size = order;
    while (size < MAX_ORDER) {
      const pfn = this.basePfn + at;
      const buddy = (pfn % 2 ** (size + 1) === 0 ? pfn + 2 ** size : pfn - 2 ** size) - this.basePfn;
      if (buddy < 0 || buddy + 2 ** size > this.count || this.#order[buddy] !== size) break;
      this.#remove(buddy, size);
      at = Math.min(at, buddy);
      size++;
    }
    this.#push(at, size);
  }

  #push(at: number, order: number): void {
    const head = this.#heads[order]!;
    this.#next[at] = head;
    this.#prev[at] = NONE;
    if (head !== NONE) this.#prev[head] = at;
    this.#heads[order] = at;
    this.#order[at] = order;
  }

  #remove(at: number, order: number): void {
    const next = this.#next[at]!;
    const prev = this.#prev[at]!;
    if (prev === NONE) this.#heads[order] = next;
    else this.#next[prev] = next;
    if (next !== NONE) this.#prev[next] = prev;
    this.#order[at] = BUSY;
  }
}

/** What a {@link BuddySource} may hand out; a part of one RAM range. */
export interface BuddyRange {
  readonly base: bigint;
  readonly size: bigint;
}

/**
 * A buddy allocator of page frames: power-of-two blocks, naturally aligned, lowest addresses first when fresh, one zone
 * a range. A node that has no block left falls back to the other nodes in ascending order of distance in node number.
 */
export class BuddySource implements PageSource {
  readonly #zones: Zone[] = [];
  readonly #memory: PhysicalMemory;

  /**
   * @param ranges what to hand out; default all RAM of `memory`.
   * @throws IommuError `ERANGE` when a range is not RAM, `EALIGN` when it is not in whole pages.
   */
  constructor(memory: PhysicalMemory, ranges?: readonly BuddyRange[]) {
    this.#memory = memory;
    if (ranges === undefined) {
      for (const r of memory.ranges) this.#zones.push(new Zone(r.basePfn, r.endPfn - r.basePfn, r.node));
      return;
    }
    for (const { base, size } of ranges) {
      if ((base & 0xfffn) !== 0n || (size & 0xfffn) !== 0n || size === 0n) {
        throw new IommuError('EALIGN', `range ${hex(base)}+${hex(size)} is not in whole 4 KiB pages`, { base, size });
      }
      let pfn = pfnOf(base);
      const end = pfn + pfnOf(size);
      while (pfn < end) {
        const ram = memory.rangeOf(pfn);
        if (ram === null) throw new IommuError('ERANGE', `page ${hex(pfn)} of the range is not RAM`, { pfn });
        const stop = Math.min(end, ram.endPfn);
        this.#zones.push(new Zone(pfn, stop - pfn, ram.node));
        pfn = stop;
      }
    }
  }

  /** Free 4 KiB pages, of one node or of all. */
  freePages(node?: number): number {
    return this.#zones.reduce((sum, z) => (node === undefined || z.node === node ? sum + z.freePages : sum), 0);
  }

  alloc(node: number, size: number): number {
    const order = 31 - Math.clz32(size >>> 12);
    if (order > MAX_ORDER) return -1;
    let best: Zone | null = null;
    let bestAt = NONE;
    for (let distance = this.#nearest(node, 0); bestAt === NONE && distance >= 0;) {
      for (const zone of this.#zones) {
        if (Math.abs(zone.node - node) !== distance) continue;
        bestAt = zone.take(order);
        best = zone;
        if (bestAt !== NONE) break;
      }
      if (bestAt === NONE) distance = this.#nearest(node, distance + 1);
    }
    return best === null || bestAt === NONE ? -1 : best.basePfn + bestAt;
  }

  /** Smallest distance in node number of a zone from `node` that is at least `least`; -1 for none. */
  #nearest(node: number, least: number): number {
    let nearest = -1;
    for (const zone of this.#zones) {
      const distance = Math.abs(zone.node - node);
      if (distance >= least && (nearest < 0 || distance < nearest)) nearest = distance;
    }
    return nearest;
  }

  free(pfn: number, size: number): void {
    const zone = this.#zones.find((z) => pfn >= z.basePfn && pfn < z.basePfn + z.count);
    if (zone === undefined) throw new IommuError('EINVAL', `page ${hex(pfn)} is not from this source`, { pfn });
    zone.give(pfn - zone.basePfn, 31 - Math.clz32(size >>> 12));
  }

  nodeOf(pfn: number): number {
    return this.#memory.rangeOf(pfn)?.node ?? 0;
  }
}
