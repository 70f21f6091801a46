/** No descriptor: the end of a list. */
export const NO_DESC = -1;

const LEAF_PFNS = 512;

/**
 * Descriptors of live allocations (Linux: `struct ioptdesc`), one an allocation, as a structure of arrays, so that
 * allocating and freeing makes no garbage. A page frame number finds its descriptor through a two-level table.
 */
export class IoptdescPool {
  #capacity = 256;
  #pfn = new Float64Array(this.#capacity);
  #next = new Int32Array(this.#capacity);
  #sizeLg2 = new Uint8Array(this.#capacity);
  #node = new Int16Array(this.#capacity);
  #onList = new Uint8Array(this.#capacity);
  #used = 0;
  #freeHead = NO_DESC;
  readonly #leaves = new Map<number, Int32Array>();
  #lastKey = -1;
  #lastLeaf: Int32Array = new Int32Array(0);

  add(pfn: number, sizeLg2: number, node: number): number {
    let desc = this.#freeHead;
    if (desc === NO_DESC) {
      if (this.#used === this.#capacity) this.#grow();
      desc = this.#used++;
    } else this.#freeHead = this.#next[desc]!;
    this.#pfn[desc] = pfn;
    this.#next[desc] = NO_DESC;
    this.#sizeLg2[desc] = sizeLg2;
    this.#node[desc] = node;
    this.#onList[desc] = 0;
    this.#leaf(pfn, true)![pfn % LEAF_PFNS] = desc + 1;
    return desc;
  }

  remove(desc: number): void {
    const pfn = this.#pfn[desc]!;
    this.#leaf(pfn, true)![pfn % LEAF_PFNS] = 0;
    this.#next[desc] = this.#freeHead;
    this.#freeHead = desc;
  }

  /** Descriptor of the block that begins at `pfn`, or {@link NO_DESC}. */
  find(pfn: number): number {
    const leaf = this.#leaf(pfn, false);
    return leaf === null ? NO_DESC : leaf[pfn % LEAF_PFNS]! - 1;
  }

  pfn(desc: number): number {
    return this.#pfn[desc]!;
  }
  sizeLg2(desc: number): number {
    return this.#sizeLg2[desc]!;
  }
  node(desc: number): number {
    return this.#node[desc]!;
  }
  next(desc: number): number {
    return this.#next[desc]!;
  }
  setNext(desc: number, next: number): void {
    this.#next[desc] = next;
  }
  onList(desc: number): boolean {
    return this.#onList[desc] === 1;
  }
  setOnList(desc: number, on: boolean): void {
    this.#onList[desc] = on ? 1 : 0;
  }

  #leaf(pfn: number, make: boolean): Int32Array | null {
    const key = Math.floor(pfn / LEAF_PFNS);
    if (key === this.#lastKey) return this.#lastLeaf;
    let leaf = this.#leaves.get(key);
    if (leaf === undefined) {
      if (!make) return null;
      leaf = new Int32Array(LEAF_PFNS);
      this.#leaves.set(key, leaf);
    }
    this.#lastKey = key;
    this.#lastLeaf = leaf;
    return leaf;
  }

  #grow(): void {
    this.#capacity *= 2;
    this.#pfn = copy(new Float64Array(this.#capacity), this.#pfn);
    this.#next = copy(new Int32Array(this.#capacity), this.#next);
    this.#sizeLg2 = copy(new Uint8Array(this.#capacity), this.#sizeLg2);
    this.#node = copy(new Int16Array(this.#capacity), this.#node);
    this.#onList = copy(new Uint8Array(this.#capacity), this.#onList);
  }
}

/** `to`, with `from` at its beginning. */
const copy = <T extends Float64Array | Int32Array | Uint8Array | Int16Array>(to: T, from: T): T => {
  to.set(from);
  return to;
};
