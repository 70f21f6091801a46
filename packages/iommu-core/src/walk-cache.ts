/**
 * A cache of table entries above the leaf ("paging-structure cache", "walk cache", "PDE cache"): where the table of a level
 * lies for a part of an address space. Only the adversarial mode `'retain'` has one: architectures allow it, so a driver that
 * frees a table after an invalidation of leaves alone is wrong, and here it shows.
 *
 * Unbounded, kept until invalidated, and made for clarity rather than speed.
 */
interface WalkEntry {
  readonly tag: number;
  /** First and last 4 KiB page of the IOVAs whose walks go through the table. */
  readonly startPfn: number;
  readonly lastPfn: number;
  readonly hi: number;
  readonly lo: number;
  readonly extra: number;
}

/** Entries by (tag, level, IOVA above the table's span). Levels are the owner's; a lower number is nearer to the leaf. */
export class WalkCache {
  readonly #entries = new Map<string, WalkEntry>();
  #suspended = false;

  /** After a hit: level of the table, its address, and the word that the owner stored with it (permissions so far). */
  level = 0;
  hi = 0;
  lo = 0;
  extra = 0;

  /** Live entries. */
  get size(): number {
    return this.#entries.size;
  }

  /**
   * Finds the lowest known table for `iova` under `tag`, from `lowest` up to `highest` inclusive.
   * @param spanLg2 by level: how many IOVA bits a table of that level covers
   */
  find(
    tag: number,
    iovaHi: number,
    iovaLo: number,
    lowest: number,
    highest: number,
    spanLg2: (level: number) => number,
  ): boolean {
    if (this.#suspended) return false;
    for (let level = lowest; level <= highest; level++) {
      const entry = this.#entries.get(keyOf(tag, level, iovaHi, iovaLo, spanLg2(level)));
      if (entry === undefined) continue;
      this.level = level;
      this.hi = entry.hi;
      this.lo = entry.lo;
      this.extra = entry.extra;
      return true;
    }
    return false;
  }

  /** Remembers that walks of the IOVAs around `iova` go through the table `hi:lo` of `level`, which covers `2^spanLg2` bytes. */
  fill(
    tag: number,
    level: number,
    iovaHi: number,
    iovaLo: number,
    spanLg2: number,
    hi: number,
    lo: number,
    extra: number,
  ): void {
    if (this.#suspended) return;
    const pfn = (iovaHi >>> 0) * 0x10_0000 + (iovaLo >>> 12);
    const pages = 2 ** (spanLg2 - 12);
    const startPfn = Math.floor(pfn / pages) * pages;
    this.#entries.set(keyOf(tag, level, iovaHi, iovaLo, spanLg2), {
      tag,
      startPfn,
      lastPfn: startPfn + pages - 1,
      hi: hi | 0,
      lo: lo | 0,
      extra,
    });
  }

  /** Drops entries whose tag `matches` and that overlap the 4 KiB pages `startPfn … lastPfn`; returns how many went. */
  invalidate(matches: ((tag: number) => boolean) | null = null, startPfn = 0, lastPfn = Infinity): number {
    let dropped = 0;
    for (const [key, entry] of this.#entries) {
      if (entry.startPfn > lastPfn || entry.lastPfn < startPfn) continue;
      if (matches !== null && !matches(entry.tag)) continue;
      this.#entries.delete(key);
      dropped++;
    }
    return dropped;
  }

  /** Until {@link resume}: nothing is found, nothing is kept. For probes. */
  suspend(): void {
    this.#suspended = true;
  }

  resume(): void {
    this.#suspended = false;
  }
}

const keyOf = (tag: number, level: number, hi: number, lo: number, spanLg2: number): string => {
  const pfn = (hi >>> 0) * 0x10_0000 + (lo >>> 12);
  return `${tag}:${level}:${Math.floor(pfn / 2 ** (spanLg2 - 12))}`;
};
