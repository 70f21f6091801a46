/** Largest block: 2^MAX_ORDER pages (1 GiB). */
export const MAX_ORDER = 18;
const NONE = -1;

/**
 * A zone of a buddy allocator: one stretch of page frames with its own free lists, kept in typed arrays, so that neither
 * taking nor giving makes garbage. Everything is in 32-bit integers: a page is its index from `basePfn`, and its buddy is
 * found by flipping a bit of the index moved by `#skew`, which has the low bits of the page frame number.
 */
export class Zone {
  readonly basePfn: number;
  readonly count: number;
  readonly node: number;
  freePages = 0;
  /** Free-list links by page index; only the first page of a free block is linked. */
  readonly #next: Int32Array;
  readonly #prev: Int32Array;
  /** 1 + order of the free block that begins here, 0 otherwise. */
  readonly #order: Uint8Array;
  readonly #heads = new Int32Array(MAX_ORDER + 1).fill(NONE);
  /** Bit n: the list of order n is not empty. */
  #some = 0;
  readonly #skew: number;

  /** @param count at most 2^30 pages. */
  constructor(basePfn: number, count: number, node: number) {
    this.basePfn = basePfn;
    this.count = count;
    this.node = node;
    this.#skew = basePfn % (1 << MAX_ORDER);
    this.#next = new Int32Array(count);
    this.#prev = new Int32Array(count);
    this.#order = new Uint8Array(count);
    for (let at = count; at > 0;) {
      // Cut from the top so that the lists end up with the lowest addresses first.
      let order = 0;
      while (order < MAX_ORDER && ((this.#skew + at) & ((2 << order) - 1)) === 0 && at >= 2 << order) order++;
      at -= 1 << order;
      this.#push(at, order);
    }
    this.freePages = count;
  }

  /** Index of a block of 2^order pages, or -1. */
  take(order: number): number {
    const some = this.#some >>> order;
    if (some === 0) return NONE;
    let have = order + 31 - Math.clz32(some & -some);
    const at = this.#heads[have]!;
    this.#remove(at, have);
    while (have > order) {
      have--;
      this.#push(at + (1 << have), have);
    }
    this.freePages -= 1 << order;
    return at;
  }

  /** Takes the block of 2^order pages at `index` if it is free, all of it. */
  reserve(index: number, order: number): boolean {
    const skew = this.#skew;
    let have = order;
    let at = index;
    while (at < 0 || this.#order[at] !== have + 1) {
      have++;
      if (have > MAX_ORDER) return false;
      at = ((index + skew) & -(1 << have)) - skew;
    }
    this.#remove(at, have);
    while (have > order) {
      have--;
      const upper = at + (1 << have);
      if (index >= upper) {
        this.#push(at, have);
        at = upper;
      } else this.#push(upper, have);
    }
    this.freePages -= 1 << order;
    return true;
  }

  /** Takes back what {@link take} gave, or {@link reserve} kept. */
  give(index: number, order: number): void {
    this.freePages += 1 << order;
    const skew = this.#skew;
    let at = index;
    let size = order;
    while (size < MAX_ORDER) {
      const buddy = ((at + skew) ^ (1 << size)) - skew;
      if (buddy < 0 || buddy >= this.count || this.#order[buddy] !== size + 1) break;
      this.#remove(buddy, size);
      if (buddy < at) at = buddy;
      size++;
    }
    this.#push(at, size);
  }

  #push(at: number, order: number): void {
    const head = this.#heads[order]!;
    this.#next[at] = head;
    this.#prev[at] = NONE;
    if (head !== NONE) this.#prev[head] = at;
    this.#heads[order] = at;
    this.#some |= 1 << order;
    this.#order[at] = order + 1;
  }

  #remove(at: number, order: number): void {
    const next = this.#next[at]!;
    const prev = this.#prev[at]!;
    if (prev === NONE) {
      this.#heads[order] = next;
      if (next === NONE) this.#some &= ~(1 << order);
    } else this.#next[prev] = next;
    if (next !== NONE) this.#prev[next] = prev;
    this.#order[at] = 0;
  }
}
