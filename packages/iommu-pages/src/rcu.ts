/**
 * Read-copy-update on a virtual clock: what a reader may see is not used again before the reader has ended.
 *
 * As in Linux a grace period ends when every reader that had begun before it began has ended; readers that come later do not
 * hold it up. Two counters are enough (as in SRCU): readers count themselves in the one that is current, a grace period makes
 * the other one current and waits for the first to become zero. What was handed in during a grace period waits for the next.
 *
 * Nothing runs by itself: a grace period that is over is noticed when its last reader ends, and what waits for it is run at
 * the next tick of the clock, or by {@link Rcu.run}, so never inside of whoever ended it.
 */
import { IommuError } from '@iommu-ts/bits';

/** The clock as RCU sees it: `VirtualClock` of `@iommu-ts/iommu-core` is one. */
export interface RcuClock {
  /** Runs `run` once, `ns` from now. */
  after(ns: number, run: () => void): unknown;
}

/** Whatever waits for grace periods, in batches of its own: an allocator with lists of pages. */
export interface RcuClient {
  /** A grace period begins: what waits joins the batch that it covers. */
  begin(): void;
  /** It has ended: frees that batch. */
  end(): void;
  /** True when something waits that the grace period under way, if any, does not cover, or that {@link end} left. */
  readonly waiting: boolean;
}

/** Options of {@link Rcu}. */
export interface RcuOptions {
  /** Runs what waits for a grace period at its next tick. Without one, only {@link Rcu.run} does. */
  readonly clock?: RcuClock;
  /** Length of a tick in virtual nanoseconds (default 1 ms). */
  readonly tickNs?: number;
}

/** States of a grace period. */
const IDLE = 0;
const WAITS_FOR_READERS = 1;
const OVER = 2;

/** Readers and grace periods. Cheap on the reader's side: a counter up, a counter down, no allocation. */
export class Rcu {
  readonly #clock: RcuClock | null;
  readonly #tickNs: number;
  readonly #clients: RcuClient[] = [];
  /** Readers by the parity of the epoch they began in. */
  #even = 0;
  #odd = 0;
  /** Grows by one with every grace period that begins. */
  #epoch = 0;
  /** The last epoch that someone polls for. */
  #requested = 0;
  #state = IDLE;
  #scheduled = false;
  #completed = 0;
  readonly #tick = (): void => {
    this.#scheduled = false;
    this.run();
  };

  constructor(options: RcuOptions = {}) {
    this.#clock = options.clock ?? null;
    this.#tickNs = options.tickNs ?? 1_000_000;
  }

  /** For who frees by grace periods; for as long as this object lives. */
  register(client: RcuClient): void {
    this.#clients.push(client);
  }

  /** Begins a reader. @returns the token that {@link readUnlock} takes. */
  readLock(): number {
    const epoch = this.#epoch;
    if ((epoch & 1) === 0) this.#even++;
    else this.#odd++;
    return epoch;
  }

  /** Ends a reader. @throws IommuError `EINVAL` for a token that has no reader. */
  readUnlock(token: number): void {
    const even = (token & 1) === 0;
    // Readers of the present epoch, and of the one before it while its grace period lasts.
    const known = token === this.#epoch || (token === this.#epoch - 1 && this.#state === WAITS_FOR_READERS);
    if (!known || (even ? this.#even : this.#odd) === 0) {
      throw new IommuError(
        'EINVAL',
        `RCU token ${token} has no reader: readUnlock() without or twice for a readLock()`,
      );
    }
    const left = even ? --this.#even : --this.#odd;
    if (left === 0 && token !== this.#epoch) this.#over();
  }

  /** Readers that have begun and not ended. */
  get readers(): number {
    return this.#even + this.#odd;
  }

  /** Grace periods so far. */
  get completed(): number {
    return this.#completed;
  }

  /** True while something waits for a grace period, or for being run after one. */
  get pending(): boolean {
    return this.#state !== IDLE || this.#wanted();
  }

  /**
   * A client has something that waits: begins a grace period if none is under way.
   * @returns what {@link poll} takes to tell whether the grace period for it is over (Linux `start_poll_synchronize_rcu()`).
   */
  request(): number {
    if (this.#state === IDLE) {
      this.#begin();
      return this.#epoch;
    }
    this.#requested = this.#epoch + 1;
    return this.#requested;
  }

  /** Linux `poll_state_synchronize_rcu()`: true when every reader that had begun before the `request` has ended. */
  poll(state: number): boolean {
    return this.#epoch > state || (this.#epoch === state && this.#state !== WAITS_FOR_READERS);
  }

  /**
   * Runs what is due: the batch of a grace period that is over, and further grace periods for as long as no reader holds
   * them up. @returns true when nothing waits any more (Linux `rcu_barrier()` would return).
   */
  run(): boolean {
    while (this.#state === OVER) {
      this.#state = IDLE;
      this.#completed++;
      try {
        for (const client of this.#clients) client.end();
      } finally {
        // Also when a warning is thrown: what it left undone waits for one more.
        if (this.#state === IDLE && this.#wanted()) this.#begin();
      }
    }
    return this.#state === IDLE;
  }

  #begin(): void {
    this.#epoch++;
    this.#state = WAITS_FOR_READERS;
    for (const client of this.#clients) client.begin();
    if (((this.#epoch & 1) === 0 ? this.#odd : this.#even) === 0) this.#over();
  }

  #over(): void {
    this.#state = OVER;
    if (this.#clock !== null && !this.#scheduled) {
      this.#scheduled = true;
      this.#clock.after(this.#tickNs, this.#tick);
    }
  }

  #wanted(): boolean {
    if (this.#requested > this.#epoch) return true;
    for (const client of this.#clients) if (client.waiting) return true;
    return false;
  }
}
