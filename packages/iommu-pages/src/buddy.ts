import { IommuError, hex, pfnOf } from '@iommu-ts/bits';
import { MAX_ORDER, Zone } from './buddy-zone.ts';
import type { PageSource } from './page-source.ts';
import type { PhysicalMemory } from './physical-memory.ts';

/** What a {@link BuddySource} may hand out; RAM, of one range or of several that touch. */
export interface BuddyRange {
  readonly base: bigint;
  readonly size: bigint;
}

/** Which node helps out when one has no block left. */
export interface NumaOptions {
  /**
   * Distances as the ACPI SLIT has them, `distance[from][to]`, by node number: 10 is local, 255 unreachable (never used).
   * Default: 10 and the difference of the node numbers. Equal distances: in the order of the ranges.
   */
  readonly distance?: readonly (readonly number[])[];
  /** Nodes to take from, in this order and no others, for requests on the node that is the key. Overrides `distance`. */
  readonly fallback?: Readonly<Record<number, readonly number[]>>;
}

const UNREACHABLE = 255;

/**
 * A zone is cut here, so that an index within it is a small integer. A multiple of the largest block: no block is lost.
 */
const ZONE_PAGES = 2 ** 28;

/**
 * A buddy allocator of page frames: power-of-two blocks, naturally aligned, lowest addresses first when fresh, one zone
 * a range. A node that has no block left falls back to the others, nearest first.
 */
export class BuddySource implements PageSource {
  /** By address, and as the ranges were given (who comes first among equals). */
  readonly #zones: readonly Zone[];
  readonly #inOrder: Zone[] = [];
  readonly #memory: PhysicalMemory;
  readonly #distance: readonly (readonly number[])[] | null;
  readonly #fallback = new Map<number, readonly number[]>();
  /** Zones to try for a node, best first; made on the first request for it. */
  readonly #lists = new Map<number, readonly Zone[]>();
  #lastNode = -1;
  #lastList: readonly Zone[] = [];
  #lastZone: Zone | null = null;

  /**
   * @param ranges what to hand out; default all RAM of `memory`.
   * @throws IommuError `ERANGE` when a range is not RAM, `EALIGN` when it is not in whole pages, `EADDRINUSE` when two
   * overlap.
   */
  constructor(memory: PhysicalMemory, ranges?: readonly BuddyRange[], numa: NumaOptions = {}) {
    this.#memory = memory;
    this.#distance = numa.distance ?? null;
    for (const [node, order] of Object.entries(numa.fallback ?? {})) this.#fallback.set(Number(node), order);
    for (const { base, size } of ranges ?? memory.ranges.map(boundsOf)) this.#addRange(base, size);
    const byAddress = this.#inOrder.toSorted((a, b) => a.basePfn - b.basePfn);
    for (let i = 1; i < byAddress.length; i++) {
      const [below, zone] = [byAddress[i - 1]!, byAddress[i]!];
      if (below.basePfn + below.count > zone.basePfn) {
        const text = `the range at page ${hex(zone.basePfn)} overlaps the one at page ${hex(below.basePfn)}`;
        throw new IommuError('EADDRINUSE', text, { pfn: zone.basePfn, other: below.basePfn });
      }
    }
    this.#zones = byAddress;
  }

  #addRange(base: bigint, size: bigint): void {
    if ((base & 0xfffn) !== 0n || (size & 0xfffn) !== 0n || size === 0n) {
      throw new IommuError('EALIGN', `range ${hex(base)}+${hex(size)} is not in whole 4 KiB pages`, { base, size });
    }
    let pfn = pfnOf(base);
    const end = pfn + pfnOf(size);
    while (pfn < end) {
      const ram = this.#memory.rangeOf(pfn);
      if (ram === null) throw new IommuError('ERANGE', `page ${hex(pfn)} of the range is not RAM`, { pfn });
      const stop = Math.min(end, ram.endPfn, (Math.floor(pfn / ZONE_PAGES) + 1) * ZONE_PAGES);
      this.#inOrder.push(new Zone(pfn, stop - pfn, ram.node));
      pfn = stop;
    }
  }

  /** What it was made for, used or free, by address; a large range stands as several. */
  get ranges(): { readonly basePfn: number; readonly endPfn: number }[] {
    return this.#zones.map(({ basePfn, count }) => ({ basePfn, endPfn: basePfn + count }));
  }

  /** Free 4 KiB pages, of one node or of all. */
  freePages(node?: number): number {
    return this.#zones.reduce((sum, z) => (node === undefined || z.node === node ? sum + z.freePages : sum), 0);
  }

  /** Nodes that a request on `node` is served from, in this order and no others. */
  setFallback(node: number, order: readonly number[]): void {
    this.#fallback.set(node, order);
    this.#lists.delete(node);
    this.#lastNode = -1;
  }

  /** Nodes that a request on `node` is served from, best first. */
  fallbackOf(node: number): number[] {
    return [...new Set(this.#listOf(node).map((zone) => zone.node))];
  }

  alloc(node: number, size: number): number {
    const order = 31 - Math.clz32(size >>> 12);
    if (order > MAX_ORDER) return -1;
    const zones = node === this.#lastNode ? this.#lastList : this.#listOf(node);
    for (let i = 0; i < zones.length; i++) {
      const zone = zones[i]!;
      const at = zone.take(order);
      if (at >= 0) return zone.basePfn + at;
    }
    return -1;
  }

  free(pfn: number, size: number): void {
    const zone = this.#zoneOf(pfn);
    if (zone === null) throw new IommuError('EINVAL', `page ${hex(pfn)} is not from this source`, { pfn });
    zone.give(pfn - zone.basePfn, 31 - Math.clz32(size >>> 12));
  }

  /**
   * Takes one particular free block, so that it is not handed out: a page that the last kernel left, a hole.
   * @throws IommuError `ERANGE` when it is not from this source, `EBUSY` when it is not all free, `EALIGN` when `size` is
   * no power of two of at least 4096 or `pfn` is not aligned to it.
   */
  reserve(pfn: number, size: number): void {
    const order = 31 - Math.clz32(size >>> 12);
    if (size < 4096 || size !== 2 ** (order + 12) || pfn % 2 ** order !== 0 || order > MAX_ORDER) {
      const text = `a block of ${hex(size)} bytes at page ${hex(pfn)} is no aligned power of two`;
      throw new IommuError('EALIGN', text, { pfn, size });
    }
    const zone = this.#zoneOf(pfn);
    if (zone === null || pfn + 2 ** order > zone.basePfn + zone.count) {
      throw new IommuError('ERANGE', `page ${hex(pfn)} is not from this source`, { pfn, size });
    }
    if (!zone.reserve(pfn - zone.basePfn, order)) {
      throw new IommuError('EBUSY', `the block of ${hex(size)} bytes at page ${hex(pfn)} is not free`, { pfn, size });
    }
  }

  nodeOf(pfn: number): number {
    const zone = this.#zoneOf(pfn);
    return zone !== null ? zone.node : (this.#memory.rangeOf(pfn)?.node ?? 0);
  }

  #zoneOf(pfn: number): Zone | null {
    const last = this.#lastZone;
    if (last !== null && pfn >= last.basePfn && pfn < last.basePfn + last.count) return last;
    const zones = this.#zones;
    let low = 0;
    let high = zones.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const zone = zones[middle]!;
      if (pfn < zone.basePfn) high = middle - 1;
      else if (pfn >= zone.basePfn + zone.count) low = middle + 1;
      else {
        this.#lastZone = zone;
        return zone;
      }
    }
    return null;
  }

  #listOf(node: number): readonly Zone[] {
    const list = this.#lists.get(node) ?? this.#makeList(node);
    this.#lastNode = node;
    this.#lastList = list;
    return list;
  }

  /** Apart from {@link #listOf}, which would make a context for these closures on every call. */
  #makeList(node: number): readonly Zone[] {
    const order = this.#fallback.get(node);
    const list =
      order !== undefined
        ? order.flatMap((from) => this.#inOrder.filter((zone) => zone.node === from))
        : this.#inOrder
            .map((zone) => ({ zone, far: this.#distanceOf(node, zone.node) }))
            .filter(({ far }) => far < UNREACHABLE || this.#distance === null)
            .toSorted((a, b) => a.far - b.far)
            .map(({ zone }) => zone);
    this.#lists.set(node, list);
    return list;
  }

  #distanceOf(from: number, to: number): number {
    return this.#distance?.[from]?.[to] ?? 10 + Math.abs(from - to);
  }
}

const boundsOf = (range: { readonly basePfn: number; readonly endPfn: number }): BuddyRange => ({
  base: BigInt(range.basePfn) << 12n,
  size: BigInt(range.endPfn - range.basePfn) << 12n,
});
