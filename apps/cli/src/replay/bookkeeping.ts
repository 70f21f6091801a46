/**
 * What is mapped where, for one domain: the trace's addresses and the driver's, which differ where a mapping was moved.
 */
import type { PagingDomain } from '@iommu-ts/iommu-core';
import type { IovaSpace } from './placement.ts';

/** A mapping (or what is left of one). All ranges are half-open. */
export interface Piece {
  /** Live range in the trace's IOVAs. */
  t0: bigint;
  t1: bigint;
  /** Range that is mapped, in the driver's IOVAs: whole granules. */
  a0: bigint;
  a1: bigint;
  /** Driver's IOVA minus trace's IOVA. */
  readonly shift: bigint;
  /** Physical address minus driver's IOVA. */
  readonly paShift: bigint;
  readonly prot: number;
  /** The requester that did DMA through it, when it was checked. */
  checkedBy: number;
}

/** No requester has checked the piece yet. */
export const UNCHECKED = -1;

/** A domain of the trace, and the driver's domain that plays it. */
export class DomainBook {
  readonly name: string;
  readonly domain: PagingDomain;
  readonly index: number;
  readonly space: IovaSpace;
  /** Requesters attached, in the driver's numbering. */
  readonly requesters = new Set<number>();
  /** Sorted by `t0`. */
  readonly pieces: Piece[] = [];
  /** Driver's IOVA ranges that wait for a flush: still answered by caches, maybe. */
  readonly pending = new Set<{ readonly a0: bigint; readonly a1: bigint }>();

  constructor(name: string, index: number, domain: PagingDomain, space: IovaSpace) {
    this.name = name;
    this.index = index;
    this.domain = domain;
    this.space = space;
  }

  /** Index of the first piece with `t0 >= value`. */
  #at(value: bigint): number {
    let low = 0;
    let high = this.pieces.length;
    while (low < high) {
      const mid = (low + high) >>> 1;
      if (this.pieces[mid]!.t0 < value) low = mid + 1;
      else high = mid;
    }
    return low;
  }

  add(piece: Piece): void {
    this.pieces.splice(this.#at(piece.t0), 0, piece);
  }

  /** Takes a piece out. */
  remove(piece: Piece): void {
    for (let at = this.#at(piece.t0); at < this.pieces.length; at++) {
      if (this.pieces[at] !== piece) continue;
      this.pieces.splice(at, 1);
      return;
    }
  }

  /** Pieces that overlap the trace's range `[start, end)`, ascending. */
  overlapping(start: bigint, end: bigint): Piece[] {
    // Pieces rarely overlap each other (a leftover of a cut may), so a short look back is enough.
    let at = Math.max(0, this.#at(start) - 4);
    const found: Piece[] = [];
    for (; at < this.pieces.length && this.pieces[at]!.t0 < end; at++) {
      if (this.pieces[at]!.t1 > start) found.push(this.pieces[at]!);
    }
    return found;
  }

  /** The piece that maps the driver's IOVA `address`, or null. */
  holder(address: bigint): Piece | null {
    return this.pieces.find((p) => p.a0 <= address && address < p.a1) ?? null;
  }

  /** True when caches may still answer for the driver's IOVA `address`. */
  waits(address: bigint): boolean {
    for (const range of this.pending) if (range.a0 <= address && address < range.a1) return true;
    return false;
  }
}
