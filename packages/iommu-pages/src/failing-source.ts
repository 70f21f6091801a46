import { IommuError } from '@iommu-ts/bits';
import type { PageSource } from './page-source.ts';

/** When a {@link FailingSource} fails; what is left out never fails. Counted from the moment it is set. */
export interface FailurePlan {
  /** This allocation fails, and no other (Linux: `fail-nth`); from 1. */
  readonly nth?: number;
  /** This allocation fails, and all after it; from 1. */
  readonly from?: number;
  /** Every so manieth allocation fails. */
  readonly every?: number;
  /** An allocation that would take more than this in sum fails; what is freed counts back. Bytes. */
  readonly budget?: number;
}

/**
 * A page source that fails on purpose, so that error paths can be tested: put it between an allocator and its source with
 * {@link IommuPages.wrapSource}.
 *
 * ```ts
 * let failing!: FailingSource;
 * pages.wrapSource((source) => (failing = new FailingSource(source)));
 * for (let n = 1; ; n++) {
 *   failing.plan({ nth: n });
 *   tryTheOperation();
 *   if (failing.failures === 0) break; // it needs fewer than n allocations: every place has been tried
 * }
 * ```
 */
export class FailingSource implements PageSource {
  readonly reserve?: (pfn: number, size: number) => void;
  readonly ranges?: NonNullable<PageSource['ranges']>;
  readonly #inner: PageSource;
  #nth = 0;
  #from = Infinity;
  #every = 0;
  #budget = Infinity;
  #taken = 0;
  #allocations = 0;
  #failures = 0;

  constructor(inner: PageSource, plan: FailurePlan = {}) {
    this.#inner = inner;
    if (inner.reserve !== undefined) this.reserve = inner.reserve.bind(inner);
    if (inner.ranges !== undefined) this.ranges = inner.ranges;
    this.plan(plan);
  }

  /** Begins to count anew. @throws IommuError `EINVAL` when a number is not a whole one, or one but `budget` not positive. */
  plan({ nth, from, every, budget }: FailurePlan): void {
    for (const [name, value, least] of [
      ['nth', nth, 1],
      ['from', from, 1],
      ['every', every, 1],
      ['budget', budget, 0],
    ] as const) {
      if (value !== undefined && !(Number.isSafeInteger(value) && value >= least)) {
        throw new IommuError('EINVAL', `${name} ${value} is not a whole number from ${least} on`);
      }
    }
    this.#nth = nth ?? 0;
    this.#from = from ?? Infinity;
    this.#every = every ?? 0;
    this.#budget = budget ?? Infinity;
    this.#taken = 0;
    this.#allocations = 0;
    this.#failures = 0;
  }

  /** Allocations asked for since {@link plan}. */
  get allocations(): number {
    return this.#allocations;
  }

  /** Of these: those that failed on purpose. */
  get failures(): number {
    return this.#failures;
  }

  alloc(node: number, size: number): number {
    const number = ++this.#allocations;
    if (
      number === this.#nth ||
      number >= this.#from ||
      (this.#every !== 0 && number % this.#every === 0) ||
      this.#taken + size > this.#budget
    ) {
      this.#failures++;
      return -1;
    }
    const pfn = this.#inner.alloc(node, size);
    if (pfn >= 0) this.#taken += size;
    return pfn;
  }

  free(pfn: number, size: number): void {
    this.#taken -= size;
    this.#inner.free(pfn, size);
  }

  nodeOf(pfn: number): number {
    return this.#inner.nodeOf(pfn);
  }
}
