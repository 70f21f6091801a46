/** Memory that runs out when a case says so: for the error paths of drivers and engines. */
import { FailingSource } from '@iommu-ts/iommu-pages';
import type { IommuPages } from '@iommu-ts/iommu-pages';

/** How an armed source fails: one allocation, and the next succeeds, or all from there on. */
export type FailureMode = 'once' | 'from-then-on';
const FAILURE_MODES: readonly FailureMode[] = ['once', 'from-then-on'];

/** Operations make a few tens of tables at most; a case that still fails then would never end. */
const MOST = 2000;

/** The allocator's source, made to fail while armed. */
export class ArmedSource {
  readonly #source: FailingSource;
  /** Allocations refused between {@link arm} and {@link disarm}. */
  refused = 0;

  private constructor(source: FailingSource) {
    this.#source = source;
  }

  /** Puts a source that can fail between `pages` and its source. */
  static under(pages: IommuPages): ArmedSource {
    let source: FailingSource | null = null;
    pages.wrapSource((inner) => (source = new FailingSource(inner)));
    return new ArmedSource(source!);
  }

  /** The `n`-th allocation from now on fails (1: the next). */
  arm(n: number, mode: FailureMode): void {
    this.#source.plan(mode === 'once' ? { nth: n } : { from: n });
    this.refused = 0;
  }

  /** From now on nothing fails. */
  disarm(): void {
    this.refused = this.#source.failures;
    this.#source.plan({});
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
