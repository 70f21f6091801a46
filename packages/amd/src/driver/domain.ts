/** What the AMD driver does for a paging domain: invalidations by domain id through the command buffer. */
import type { IdAllocator, PagingDomain, PagingDomainOps } from '@iommu-ts/iommu-core';
import type { GatherRecord } from '@iommu-ts/page-table';
import type { CommandQueue } from './queue.ts';

/** {@link PagingDomainOps} over the command buffer. One object serves all domains of a driver. */
export class AmdDomainOps implements PagingDomainOps {
  readonly #queue: CommandQueue;
  readonly #ids: IdAllocator;
  readonly #retarget: (domain: PagingDomain) => void;
  readonly #released: (domain: PagingDomain) => void;

  /**
   * @param retarget rewrites the device table entries of all devices of a domain
   * @param released the domain is gone
   */
  constructor(
    queue: CommandQueue,
    ids: IdAllocator,
    retarget: (domain: PagingDomain) => void,
    released: (domain: PagingDomain) => void,
  ) {
    this.#queue = queue;
    this.#ids = ids;
    this.#retarget = retarget;
    this.#released = released;
  }

  iotlbSync(domain: PagingDomain, gather: GatherRecord): void {
    if (gather.startPfn > gather.lastPfn) {
      // Tables without a range: nothing tells what is cached of them.
      if (!gather.freelist.empty) this.flushIotlbAll(domain);
      return;
    }
    this.#queue.invalidateRange(domain.id, gather.startPfn, gather.lastPfn);
    this.#queue.wait();
  }

  flushIotlbAll(domain: PagingDomain): void {
    this.#queue.invalidateDomain(domain.id);
    this.#queue.wait();
  }

  /** Cached translations stay true, the old top is part of the new table; only who points to the top must change. */
  topChanged(domain: PagingDomain): void {
    this.#retarget(domain);
  }

  release(domain: PagingDomain): void {
    this.#ids.free(domain.id);
    this.#released(domain);
  }
}
