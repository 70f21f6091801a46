import { NO_DESC } from './ioptdesc.ts';

/**
 * Linux `struct iommu_pages_list`: blocks on their way back to the allocator, threaded through their descriptors.
 * Only for batch freeing, after the invalidation that covers them; the allocator's `listAdd` and `listSplice` fill it.
 */
export class IommuPagesList {
  /** First and last descriptor; the allocator's business. */
  head = NO_DESC;
  tail = NO_DESC;
  /** The same for blocks that are parts of a page; they are freed after the others. */
  partHead = NO_DESC;
  partTail = NO_DESC;
  /** Number of blocks. */
  length = 0;
  /** True after `putPagesList` or as the source of `listSplice`, until {@link init}. */
  stale = false;

  /** Linux `iommu_pages_list_empty()`. */
  get empty(): boolean {
    return this.length === 0;
  }

  /** Linux `IOMMU_PAGES_LIST_INIT`: forgets what is on it. */
  init(): void {
    this.head = NO_DESC;
    this.tail = NO_DESC;
    this.partHead = NO_DESC;
    this.partTail = NO_DESC;
    this.length = 0;
    this.stale = false;
  }
}
