const LEAF_PAGES = 512;

/** Small whole numbers by page number, in two levels, so that finding and setting one makes no garbage. */
export class PageIndex {
  readonly #leaves = new Map<number, Int32Array>();
  #lastKey = -1;
  #lastLeaf: Int32Array = new Int32Array(0);

  /** The number kept for `page`, -1 when there is none. */
  get(page: number): number {
    const key = Math.floor(page / LEAF_PAGES);
    if (key === this.#lastKey) return this.#lastLeaf[page - key * LEAF_PAGES]! - 1;
    const leaf = this.#leaves.get(key);
    if (leaf === undefined) return -1;
    this.#lastKey = key;
    this.#lastLeaf = leaf;
    return leaf[page - key * LEAF_PAGES]! - 1;
  }

  /** Keeps `value` (-1: nothing) for `page`. */
  set(page: number, value: number): void {
    const key = Math.floor(page / LEAF_PAGES);
    if (key !== this.#lastKey) {
      let leaf = this.#leaves.get(key);
      if (leaf === undefined) {
        leaf = new Int32Array(LEAF_PAGES);
        this.#leaves.set(key, leaf);
      }
      this.#lastKey = key;
      this.#lastLeaf = leaf;
    }
    this.#lastLeaf[page - key * LEAF_PAGES] = value + 1;
  }
}
