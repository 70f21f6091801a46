import type { IommuPages } from './iommu-pages.ts';
import { IommuPagesList } from './pages-list.ts';
import type { Rcu, RcuClient } from './rcu.ts';

/**
 * Blocks that go back after a grace period. Two lists are all that it takes, whatever waits: they are threaded through the
 * descriptors, so that nothing is allocated and a caller in atomic context may hand a list in.
 */
export class RcuFree implements RcuClient {
  readonly #pages: IommuPages;
  readonly #rcu: Rcu;
  /** For the next grace period, and what the present one covers. */
  readonly #later = new IommuPagesList('of putPagesListRcu, waiting');
  readonly #batch = new IommuPagesList('of putPagesListRcu, in a grace period');

  constructor(pages: IommuPages, rcu: Rcu) {
    this.#pages = pages;
    this.#rcu = rcu;
    rcu.register(this);
  }

  get waiting(): boolean {
    // Asked between grace periods: what is in the batch then was left by a warning that was thrown.
    return this.length !== 0;
  }

  /** Blocks that wait. */
  get length(): number {
    return this.#later.length + this.#batch.length;
  }

  /** Takes all of `list`. @returns what `Rcu.poll` takes. */
  put(list: IommuPagesList): number {
    this.#pages.listSplice(list, this.#later);
    list.done = 'putPagesListRcu';
    list.into = null;
    return this.#rcu.request();
  }

  /** The kernel has ended: nothing that waits is anybody's any more. */
  forget(): void {
    this.#later.init();
    this.#batch.init();
  }

  begin(): void {
    this.#pages.listSplice(this.#later, this.#batch);
    this.#later.init();
  }

  end(): void {
    this.#pages.putPagesList(this.#batch);
    this.#batch.init();
  }
}
