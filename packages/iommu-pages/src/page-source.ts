import { IommuError, hex, pfnOf } from '@iommu-ts/bits';
import type { PhysicalMemory } from './physical-memory.ts';

/**
 * Where the allocator's pages come from. Sizes are bytes, powers of two, at least 4096; a block is aligned to its size.
 * Addresses are page frame numbers (4 KiB).
 */
export interface PageSource {
  /** First page of a block of `size` bytes on `node` (or near it), or -1 when there is none. */
  alloc(node: number, size: number): number;
  /** Takes a block back. `pfn` and `size` are what `alloc` gave. */
  free(pfn: number, size: number): void;
  /** NUMA node of page `pfn`. */
  nodeOf(pfn: number): number;
  /** Takes one particular free block, so that it is not handed out; sources that can not have no such method. */
  reserve?(pfn: number, size: number): void;
  /** All that it may hand out, in 4 KiB pages, half-open; a source without it may hand out any RAM. */
  readonly ranges?: readonly { readonly basePfn: number; readonly endPfn: number }[];
}

/** An entry of the arena's log: `["alloc" | "free", first page, bytes]`. */
export type ArenaEvent = readonly [op: 'alloc' | 'free', pfn: number, size: number];

/**
 * A bump arena with free lists by size: the page source that the golden tables were made with.
 * `alloc` takes the block of that size that was freed last, else the cursor aligned up to the size; gaps are never reused.
 */
export class ArenaSource implements PageSource {
  readonly #endPfn: number;
  #cursor: number;
  readonly #free = new Map<number, number[]>();
  /** Called for every allocation and free. */
  onEvent: ((event: ArenaEvent) => void) | null = null;

  /** @throws IommuError `ERANGE` when `base` is not in the RAM of `memory`. */
  constructor(memory: PhysicalMemory, base: bigint) {
    const range = memory.rangeOf(pfnOf(base));
    if (range === null) throw new IommuError('ERANGE', `arena base ${hex(base)} is not RAM`, { base });
    this.#cursor = pfnOf(base);
    this.#endPfn = range.endPfn;
  }

  alloc(_node: number, size: number): number {
    const again = this.#free.get(size)?.pop();
    const pages = size / 4096;
    let pfn = again ?? Math.ceil(this.#cursor / pages) * pages;
    if (again === undefined) {
      if (pfn + pages > this.#endPfn) return -1;
      this.#cursor = pfn + pages;
    }
    this.onEvent?.(['alloc', pfn, size]);
    return pfn;
  }

  free(pfn: number, size: number): void {
    let list = this.#free.get(size);
    if (list === undefined) this.#free.set(size, (list = []));
    list.push(pfn);
    this.onEvent?.(['free', pfn, size]);
  }

  nodeOf(_pfn: number): number {
    return 0;
  }
}
