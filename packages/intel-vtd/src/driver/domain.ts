/**
 * What a VT-d paging domain does beyond the common part: invalidations by domain-id through the queue.
 * VT-d specification revision 4.1, section 6.1 "Caching mode", 6.5.
 */
import type { PagingDomain, PagingDomainOps } from '@iommu-ts/iommu-core';
import type { GatherRecord } from '@iommu-ts/page-table';
import type { Invalidations } from './invalidation.ts';

/**
 * {@link PagingDomainOps} of a unit. A domain that no device is attached to has nothing in the IOTLB (detaching invalidates
 * it), so single ranges are not invalidated for it.
 */
export class DomainOps implements PagingDomainOps {
  protected readonly invalidations: Invalidations;
  private readonly released: (domain: PagingDomain) => void;

  constructor(invalidations: Invalidations, released: (domain: PagingDomain) => void) {
    this.invalidations = invalidations;
    this.released = released;
  }

  iotlbSync(domain: PagingDomain, gather: GatherRecord): void {
    if (domain.attachCount === 0) return;
    if (gather.empty) {
      if (!gather.freelist.empty) this.invalidations.iotlbDomain(domain.id);
      return;
    }
    this.invalidations.iotlbPages(domain.id, gather.startPfn, gather.lastPfn, gather.tableLevels === 0);
  }

  flushIotlbAll(domain: PagingDomain): void {
    this.invalidations.iotlbDomain(domain.id);
  }

  release(domain: PagingDomain): void {
    this.released(domain);
  }
}

/** Caching mode (6.1): not-present entries may be cached, so a new mapping needs an invalidation too. */
export class CachingModeDomainOps extends DomainOps {
  iotlbSyncMap(domain: PagingDomain, startPfn: number, lastPfn: number): void {
    if (domain.attachCount > 0) this.invalidations.iotlbPages(domain.id, startPfn, lastPfn, false);
  }
}
