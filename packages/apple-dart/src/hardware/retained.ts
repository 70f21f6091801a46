/**
 * What the adversarial DART (IOTLB mode `'retain'`) keeps for a stream beside its translations, until a flush command names
 * the stream. Nobody has published what a DART caches; this takes as allowed whatever Linux's driver flushes for:
 *
 * - the top tables: the driver writes TTBRs and flushes afterwards, so a valid TTBR may be used until then. TCR, REMAP and the
 *   stream enables take effect at once: the driver blocks and bypasses by TCR without a flush.
 * - table entries above the leaf: one flush drops them with the rest, there is no narrower one.
 * - that nothing was there: the driver flushes after every map.
 *
 * Not kept: a TTBR that is not valid, leaves that refused an access, and bus errors (but a valid table entry is kept wherever
 * it leads).
 */
import { WalkCache } from '@iommu-ts/iommu-core';

export class Retained {
  /** Tables below the top, by stream and IOVA. */
  readonly tables = new WalkCache();
  /** Top tables by number of the TTBR. */
  readonly #roots = new Map<number, number>();
  readonly #ttbrs: number;
  /** By stream: why the walk of an IOVA page found nothing. */
  readonly #absent = new Map<number, Map<number, number>>();

  /** @param ttbrs TTBRs of a stream: numbers `ttbrs · sid` and up are the stream's. */
  constructor(ttbrs: number) {
    this.#ttbrs = ttbrs;
  }

  /** Page of the top table that TTBR `number` is taken to hold, -1 when none is kept. */
  root(number: number): number {
    return this.#roots.get(number) ?? -1;
  }
  keepRoot(number: number, pfn: number): void {
    this.#roots.set(number, pfn);
  }

  /** Reason of the fault that is kept for 4 KiB page `pfn`, or -1. */
  absent(sid: number, pfn: number): number {
    return this.#absent.get(sid)?.get(pfn) ?? -1;
  }
  keepAbsent(sid: number, pfn: number, reason: number): void {
    const known = this.#absent.get(sid);
    if (known === undefined) this.#absent.set(sid, new Map([[pfn, reason]]));
    else known.set(pfn, reason);
  }

  /** Entries kept, all kinds together. */
  get size(): number {
    let n = this.#roots.size + this.tables.size;
    for (const pages of this.#absent.values()) n += pages.size;
    return n;
  }

  /** A flush of one stream. */
  drop(sid: number): void {
    for (let i = 0; i < this.#ttbrs; i++) this.#roots.delete(this.#ttbrs * sid + i);
    this.tables.invalidate((tag) => tag === sid);
    this.#absent.delete(sid);
  }

  clear(): void {
    this.#roots.clear();
    this.tables.invalidate();
    this.#absent.clear();
  }
}
