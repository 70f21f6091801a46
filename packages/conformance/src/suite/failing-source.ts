/** Memory that runs out when a case says so: for the error paths of drivers and engines. */
import type { IommuPages, PageSource } from '@iommu-ts/iommu-pages';

/** How an armed source fails: one allocation, and the next succeeds, or all from there on. */
export type FailureMode = 'once' | 'from-then-on';
export const FAILURE_MODES: readonly FailureMode[] = ['once', 'from-then-on'];

/** Operations make a few tens of tables at most; a case that still fails then would never end. */
const MOST = 2000;

/** A layer over a page source whose n-th allocation fails. Disarmed it only passes through. */
export class ArmedSource implements PageSource {
  readonly #inner: PageSource;
  #left = 0;
  #mode: FailureMode = 'once';
  #armed = false;
  /** Allocations refused since {@link arm}. */
  refused = 0;

  private constructor(inner: PageSource) {
    this.#inner = inner;
  }

  /** Puts an armed source between `pages` and its source. */
  static under(pages: IommuPages): ArmedSource {
    let armed: ArmedSource | null = null;
    pages.wrapSource((inner) => (armed = new ArmedSource(inner)));
    return armed!;
  }

  /** The `n`-th allocation from now on fails (1: the next). */
  arm(n: number, mode: FailureMode): void {
    this.#left = n;
    this.#mode = mode;
    this.#armed = true;
    this.refused = 0;
  }

  disarm(): void {
    this.#armed = false;
  }

  alloc(node: number, size: number): number {
    if (this.#armed) {
      this.#left--;
      if (this.#left === 0 || (this.#left < 0 && this.#mode === 'from-then-on')) {
        this.refused++;
        return -1;
      }
    }
    return this.#inner.alloc(node, size);
  }

  free(pfn: number, size: number): void {
    this.#inner.free(pfn, size);
  }

  nodeOf(pfn: number): number {
    return this.#inner.nodeOf(pfn);
  }
}

/**
 * Calls `attempt` with n = 1, 2, 3, … until an operation no longer meets the failing allocation, in both modes. `attempt`
 * arms the source, makes the operation, disarms, looks around, and returns whether an allocation was refused.
 * @returns how many attempts met a failure
 */
export const forEachFailure = (attempt: (n: number, mode: FailureMode, label: string) => boolean): number => {
  let failures = 0;
  for (const mode of FAILURE_MODES) {
    let n = 1;
    while (attempt(n, mode, `allocation ${n} fails ${mode}`)) {
      failures++;
      if (++n > MOST) throw new Error(`still short of memory with ${MOST} allocations`);
    }
  }
  return failures;
};
