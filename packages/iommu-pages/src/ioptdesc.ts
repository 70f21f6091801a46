import { NO_DESC } from './descriptors/store.ts';
import type { DescriptorStore, DescriptorUsage } from './descriptors/store.ts';

const LEAF_PFNS = 512;

/** Orders that a block can have. */
const MAX_SIZE_LG2 = 30;

/**
 * Layout `host`: descriptors of live allocations (Linux: `struct ioptdesc`), one an allocation, as a structure of arrays,
 * so that allocating and freeing makes no garbage. A page frame number finds its descriptor through a two-level table.
 */
export class IoptdescPool implements DescriptorStore {
  #capacity = 256;
  #pfn = new Float64Array(this.#capacity);
  #next = new Int32Array(this.#capacity);
  #sizeLg2 = new Uint8Array(this.#capacity);
  #node = new Int16Array(this.#capacity);
  #flags = new Uint8Array(this.#capacity);
  #memcg = new Int32Array(this.#capacity);
  #used = 0;
  #freeHead = NO_DESC;
  readonly #leaves = new Map<number, Int32Array>();
  #lastKey = -1;
  #lastLeaf: Int32Array = new Int32Array(0);

  add(pfn: number, sizeLg2: number, node: number, memcg: number): number {
    let desc = this.#freeHead;
    if (desc === NO_DESC) {
      if (this.#used === this.#capacity) this.#grow();
      desc = this.#used++;
    } else this.#freeHead = this.#next[desc]!;
    this.#pfn[desc] = pfn;
    this.#next[desc] = NO_DESC;
    this.#sizeLg2[desc] = sizeLg2;
    this.#node[desc] = node;
    this.#flags[desc] = 0;
    this.#memcg[desc] = memcg;
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
    // No block begins at a fraction of a page, which is no index of the array.
    return leaf === null ? NO_DESC : (leaf[pfn % LEAF_PFNS] ?? 0) - 1;
  }

  headOf(pfn: number): number {
    for (let lg2 = 12, head = Math.floor(pfn); lg2 <= MAX_SIZE_LG2; lg2++) {
      head -= head % 2 ** (lg2 - 12);
      const desc = this.find(head);
      if (desc !== NO_DESC && pfn < head + 2 ** (this.#sizeLg2[desc]! - 12)) return head;
    }
    return -1;
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
  /** Memory control group that the block is charged to; 0: none. */
  memcg(desc: number): number {
    return this.#memcg[desc]!;
  }
  /** {@link DESC} bits. */
  flags(desc: number): number {
    return this.#flags[desc]!;
  }
  setFlags(desc: number, flags: number): void {
    this.#flags[desc] = flags;
  }

  /** Nothing: they are arrays of the host. */
  usage(): DescriptorUsage {
    return { layout: 'host', memmapBytes: 0, slabBytes: 0, slabUsedBytes: 0 };
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
    this.#flags = copy(new Uint8Array(this.#capacity), this.#flags);
    this.#memcg = copy(new Int32Array(this.#capacity), this.#memcg);
  }
}

/** `to`, with `from` at its beginning. */
const copy = <T extends Float64Array | Int32Array | Uint8Array | Int16Array>(to: T, from: T): T => {
  to.set(from);
  return to;
};
