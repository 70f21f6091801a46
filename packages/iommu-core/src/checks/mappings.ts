/** What a domain should have mapped, by the calls that were made: the model that tables and caches are held against. */
import type { CheckEvent } from './types.ts';

/** A run of pages that one call mapped, in 4 KiB pages. */
export interface Mapping {
  readonly startPfn: number;
  readonly lastPfn: number;
  /** Physical page of {@link startPfn}. */
  readonly paPfn: number;
  readonly mappedBy: CheckEvent;
}

/** A mapping, or a part of one, that is gone. */
interface GoneMapping extends Mapping {
  readonly unmappedBy: CheckEvent;
}

const REMEMBERED = 4096;

/** Mappings in order of IOVA; and the last few thousand that were removed, for reports. */
export class MappingModel {
  readonly #live: Mapping[] = [];
  #gone: GoneMapping[] = [];

  /** Mappings that are live, ascending. */
  get live(): readonly Mapping[] {
    return this.#live;
  }

  /** Index of the first mapping that ends at or after `pfn`. */
  #from(pfn: number): number {
    let low = 0;
    let high = this.#live.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#live[middle]!.lastPfn < pfn) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The first mapping that overlaps `startPfn … lastPfn`. */
  overlap(startPfn: number, lastPfn: number): Mapping | undefined {
    const found = this.#live[this.#from(startPfn)];
    return found !== undefined && found.startPfn <= lastPfn ? found : undefined;
  }

  /** The first page of `startPfn … lastPfn` that is not mapped, or -1. */
  firstHole(startPfn: number, lastPfn: number): number {
    let pfn = startPfn;
    for (let i = this.#from(startPfn); pfn <= lastPfn; i++) {
      const mapping = this.#live[i];
      if (mapping === undefined || mapping.startPfn > pfn) return pfn;
      pfn = mapping.lastPfn + 1;
    }
    return -1;
  }

  /** Adds a run of pages; whatever the model had there gives way. */
  add(mapping: Mapping): void {
    this.remove(mapping.startPfn, mapping.lastPfn, null);
    this.#live.splice(this.#from(mapping.startPfn), 0, mapping);
  }

  /** Forgets all: the domain is gone. */
  clear(): void {
    this.#live.length = 0;
  }

  /** Removes pages; with an event, they are remembered. */
  remove(startPfn: number, lastPfn: number, unmappedBy: CheckEvent | null): void {
    const first = this.#from(startPfn);
    let end = first;
    const rest: Mapping[] = [];
    for (let one = this.#live[end]; one !== undefined && one.startPfn <= lastPfn; one = this.#live[++end]) {
      const from = Math.max(startPfn, one.startPfn);
      const to = Math.min(lastPfn, one.lastPfn);
      if (one.startPfn < from) rest.push({ ...one, lastPfn: from - 1 });
      if (one.lastPfn > to) rest.push({ ...one, startPfn: to + 1, paPfn: one.paPfn + (to + 1 - one.startPfn) });
      if (unmappedBy !== null) {
        this.#gone.push({
          startPfn: from,
          lastPfn: to,
          paPfn: one.paPfn + (from - one.startPfn),
          mappedBy: one.mappedBy,
          unmappedBy,
        });
      }
    }
    if (end > first) this.#live.splice(first, end - first, ...rest);
    if (this.#gone.length > 2 * REMEMBERED) this.#gone = this.#gone.slice(-REMEMBERED);
  }

  /** The last mapping of `pfn` that was removed, as far as it is remembered. */
  lastGone(pfn: number): GoneMapping | undefined {
    return this.#gone.findLast((one) => one.startPfn <= pfn && pfn <= one.lastPfn);
  }

  /** The first live mapping of the physical pages `startPfn … lastPfn`. */
  ofPhysical(startPfn: number, lastPfn: number): Mapping | undefined {
    return this.#live.find((one) => one.paPfn <= lastPfn && one.paPfn + (one.lastPfn - one.startPfn) >= startPfn);
  }
}
