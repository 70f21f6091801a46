import { IommuPagesList } from '@iommu-ts/iommu-pages';
import type { IommuPages } from '@iommu-ts/iommu-pages';
import type { Timer, VirtualClock } from './clock.ts';

/** Entries and period of Linux's two flush queues (`drivers/iommu/dma-iommu.c`). */
export const FLUSH_QUEUE_DEFAULTS = {
  percpu: { entries: 256, periodNs: 10_000_000 },
  single: { entries: 32_768, periodNs: 1_000_000_000 },
} as const;

/** When a {@link FlushQueue} flushes. */
export interface FlushQueueOptions {
  /** Entries before a flush is forced (default 256). */
  readonly entries?: number;
  /** Virtual nanoseconds until a flush after the first entry (default 10 ms). */
  readonly periodNs?: number;
}

/**
 * Lazy mode: unmapped ranges wait here, with the table pages that hung below them, until one flush of the whole domain has
 * completed; only then may the IOVA be used again and the pages be freed.
 */
export class FlushQueue {
  readonly #entries: number;
  readonly #periodNs: number;
  readonly #clock: VirtualClock;
  readonly #pages: IommuPages;
  readonly #flushAll: () => void;
  readonly #put: (list: IommuPagesList) => void;
  readonly #freelist = new IommuPagesList('flush queue');
  #released: (() => void)[] = [];
  #timer: Timer | null = null;
  #count = 0;
  /** Flushes so far. */
  flushes = 0;

  /**
   * @param flushAll invalidates the whole domain and returns when the hardware has completed it.
   * @param put frees tables after that (default: `putPagesList`).
   */
  constructor(
    clock: VirtualClock,
    pages: IommuPages,
    flushAll: () => void,
    options: FlushQueueOptions = {},
    put: (list: IommuPagesList) => void = (list) => pages.putPagesList(list),
  ) {
    this.#clock = clock;
    this.#pages = pages;
    this.#flushAll = flushAll;
    this.#put = put;
    this.#entries = options.entries ?? FLUSH_QUEUE_DEFAULTS.percpu.entries;
    this.#periodNs = options.periodNs ?? FLUSH_QUEUE_DEFAULTS.percpu.periodNs;
  }

  /** Entries that wait. */
  get pending(): number {
    return this.#count;
  }

  /**
   * Queues one unmapped range. `freelist` is emptied into the queue. `released` runs after the flush (Linux frees the IOVA there).
   */
  add(freelist: IommuPagesList, released: (() => void) | null = null): void {
    if (!freelist.empty) {
      this.#pages.listSplice(freelist, this.#freelist);
      freelist.init();
    }
    if (released !== null) this.#released.push(released);
    this.#count++;
    if (this.#count >= this.#entries) this.flush();
    else this.#timer ??= this.#clock.after(this.#periodNs, () => this.flush());
  }

  /** Flushes now: one invalidation of the domain, then the pages are freed and the ranges released. */
  flush(): void {
    if (this.#timer !== null) {
      this.#clock.cancel(this.#timer);
      this.#timer = null;
    }
    if (this.#count === 0) return;
    this.#count = 0;
    this.#flushAll();
    this.flushes++;
    this.#put(this.#freelist);
    this.#freelist.init();
    const released = this.#released;
    this.#released = [];
    for (const run of released) run();
  }
}
