/** A model of the allocator for the property test: maps and arrays, nothing clever. */
import { GFP, NUMA_NO_NODE } from '../src/index.ts';
import type { PreservedBlock } from '../src/index.ts';

/** Ragged RAM of three nodes, in 4 KiB pages. */
export const RAM = [
  { first: 3, count: 70, node: 0 },
  { first: 0x10_0000, count: 64, node: 1 },
  { first: 0x20_0001, count: 33, node: 2 },
] as const;

/** What the model knows of a live block. */
export interface Block {
  readonly pfn: number;
  readonly pages: number;
  readonly node: number;
  readonly memcg: number;
  list: number;
  preserved: boolean;
  incoherent: boolean;
}

/** A list, or that it was put or spliced away. */
export type ModelList = number[] | 'stale';

/** Live blocks, lists, and what waits to be restored. */
export class Model {
  readonly live = new Map<number, Block>();
  readonly lists: ModelList[] = [[], [], []];
  readonly waiting = new Map<number, PreservedBlock>();
  readonly used = new Set<number>();
  memcg = 0;

  /** @throws Error when the block overlaps what is in use. */
  add(pfn: number, pages: number, memcg: number): Block {
    const node = nodeOf(pfn);
    for (let p = pfn; p < pfn + pages; p++) {
      if (this.used.has(p)) throw new Error(`page ${p} is handed out twice`);
      if (nodeOf(p) !== node) throw new Error(`page ${p} is not RAM of node ${node}`);
      this.used.add(p);
    }
    const block = { pfn, pages, node, memcg, list: -1, preserved: false, incoherent: false };
    this.live.set(pfn, block);
    return block;
  }

  remove(pfn: number): void {
    const block = this.live.get(pfn)!;
    for (let p = pfn; p < pfn + block.pages; p++) this.used.delete(p);
    this.live.delete(pfn);
  }

  /** Pages of live blocks that satisfy `which`. */
  pages(which: (block: Block) => boolean = () => true): number {
    let sum = 0;
    for (const block of this.live.values()) if (which(block)) sum += block.pages;
    return sum;
  }

  /** True when `node` (-2: any) has an aligned free block of `pages`. */
  hasRoom(node: number, pages: number): boolean {
    return RAM.some(({ first, count, node: of }) => {
      if (node !== -2 && of !== node) return false;
      for (let at = Math.ceil(first / pages) * pages; at + pages <= first + count; at += pages) {
        let free = true;
        for (let p = at; p < at + pages && free; p++) free = !this.used.has(p);
        if (free) return true;
      }
      return false;
    });
  }
}

/** Node of a page, -1 outside RAM. */
const nodeOf = (pfn: number): number => RAM.find(({ first, count }) => pfn >= first && pfn < first + count)?.node ?? -1;

/** Nodes to ask for, with their meaning when the running CPU is on node 1. */
export const ASKED = [NUMA_NO_NODE, 0, 1, 2] as const;
export const FLAGS = [GFP.KERNEL, GFP.KERNEL_ACCOUNT, GFP.ATOMIC, GFP.KERNEL_ACCOUNT | GFP.THISNODE] as const;
