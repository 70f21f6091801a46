import { NO_DESC } from './descriptors/store.ts';

let serial = 0;

/**
 * Linux `struct iommu_pages_list`: blocks on their way back to the allocator, threaded through their descriptors.
 * Only for batch freeing, after the invalidation that covers them; the allocator's `listAdd` and `listSplice` fill it.
 */
export class IommuPagesList {
  /** First and last descriptor; the allocator's business. */
  head = NO_DESC;
  tail = NO_DESC;
  /** Number of blocks. */
  length = 0;
  /** The call after which the list must be {@link init}ed, and the list that its blocks went to; null when in order. */
  done: string | null = null;
  into: IommuPagesList | null = null;
  readonly #name: string;
  readonly #serial = ++serial;

  /** @param name for messages (default: a number). */
  constructor(name = '') {
    this.#name = name;
  }

  /** How messages name it. */
  get name(): string {
    return this.#name === '' ? `#${this.#serial}` : `"${this.#name}"`;
  }

  /** True after `putPagesList` or as the source of `listSplice`, until {@link init}. */
  get stale(): boolean {
    return this.done !== null;
  }

  /** Linux `iommu_pages_list_empty()`. */
  get empty(): boolean {
    return this.length === 0;
  }

  /** Linux `IOMMU_PAGES_LIST_INIT`: forgets what is on it. */
  init(): void {
    this.head = NO_DESC;
    this.tail = NO_DESC;
    this.length = 0;
    this.done = null;
    this.into = null;
  }
}
