/** A paging domain's side of DART: which streams use it, and their flushes. DART cannot invalidate by address or by domain. */
import type { PagingDomain, PagingDomainOps } from '@iommu-ts/iommu-core';
import type { GatherRecord } from '@iommu-ts/page-table';
import type { TlbFlusher } from './flush.ts';

/** Operations of one domain: every one flushes all streams attached to it. */
export class DartDomainOps implements PagingDomainOps {
  /** Whoever made it: only that driver may attach the domain. */
  /** Streams attached, a bit each. */
  readonly streams = new Int32Array(8);
  /**
   * Streams that left without a flush: their TCR no longer translates (or they were flushed for another domain), so nothing
   * can hit what is cached for them, but it must go before the tables are freed.
   */
  readonly #left = new Int32Array(8);
  readonly #flusher: TlbFlusher;
  readonly #released: (domain: PagingDomain) => void;

  constructor(flusher: TlbFlusher, released: (domain: PagingDomain) => void) {
    this.#flusher = flusher;
    this.#released = released;
  }

  iotlbSync(_domain: PagingDomain, _gather: GatherRecord): void {
    this.#flusher.flush(this.streams);
  }

  flushIotlbAll(_domain: PagingDomain): void {
    const all = this.#left;
    for (let i = 0; i < all.length; i++) all[i]! |= this.streams[i]!;
    this.#flusher.flush(all);
    all.fill(0);
  }

  /** Linux flushes after every map too (`iotlb_sync_map`). */
  iotlbSyncMap(_domain: PagingDomain): void {
    this.#flusher.flush(this.streams);
  }

  release(domain: PagingDomain): void {
    this.#released(domain);
  }

  /** Notes that `sid` uses the domain. */
  add(sid: number): void {
    this.streams[sid >>> 5]! |= 1 << (sid & 31);
  }

  /** Notes that `sid` no longer uses it. */
  remove(sid: number): void {
    this.streams[sid >>> 5]! &= ~(1 << (sid & 31));
    this.#left[sid >>> 5]! |= 1 << (sid & 31);
  }
}
