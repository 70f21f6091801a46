import { IommuError, hex } from '@iommu-ts/bits';
import type { ReservedRegion } from './reserved-region.ts';

/**
 * IOVA allocator with the placement rules of Linux's `alloc_iova()`: top down from a limit, size-aligned (to the size
 * rounded up to a power of two), never inside a reserved region. Works in granules (pages of `2^granuleLg2` bytes).
 *
 * Allocated ranges are a sorted array; a search starts from where the last one ended, as Linux's cached node does.
 * (A lock-free fast path of recently freed ranges comes later.)
 */
export class IovaAllocator {
  readonly granuleLg2: number;
  /** First granule of the aperture, and of what is handed out. */
  readonly #low: number;
  readonly #first: number;
  readonly #last: number;
  /** Sorted, disjoint, inclusive, in granules: starts and lasts side by side. */
  #starts: number[] = [];
  #lasts: number[] = [];
  /** Starts of the reserved regions, which nobody can free. */
  readonly #reserved: ReadonlySet<number>;
  /** Index below which the next search looks first, and the smallest size that failed from there. */
  #hint = Infinity;
  #allocated = 0;

  /**
   * @param first lowest IOVA, @param last highest IOVA (inclusive); both are cut to whole granules.
   * IOVA 0 is never handed out (Linux keeps it as the error value).
   */
  constructor(granuleLg2: number, first: bigint, last: bigint, reserved: readonly ReservedRegion[] = []) {
    const lg2 = BigInt(granuleLg2);
    this.granuleLg2 = granuleLg2;
    this.#low = Number((first + (1n << lg2) - 1n) >> lg2);
    this.#first = Math.max(1, this.#low);
    this.#last = Number(((last + 1n) >> lg2) - 1n);
    for (const r of reserved) this.#insertMerged(Number(r.start >> lg2), Number(r.last >> lg2));
    this.#reserved = new Set(this.#starts);
  }

  /** Bytes handed out. */
  get allocatedBytes(): bigint {
    return BigInt(this.#allocated) << BigInt(this.granuleLg2);
  }

  /**
   * A free range of `size` bytes (rounded up to granules), as high as possible, ending at or below `limit`.
   * @throws IommuError `ENOSPC` when there is none, `EINVAL` for size 0.
   */
  alloc(size: bigint, limit?: bigint): bigint {
    const lg2 = BigInt(this.granuleLg2);
    const count = Number((size + (1n << lg2) - 1n) >> lg2);
    if (count <= 0) throw new IommuError('EINVAL', `IOVA size ${hex(size)} is not positive`, { size });
    let align = 1;
    while (align < count) align *= 2;
    const top = limit === undefined ? this.#last : Math.min(this.#last, Number((limit + 1n) >> lg2) - 1);
    let start = limit === undefined ? this.#search(count, align, top, this.#hint) : -1;
    if (start < 0) start = this.#search(count, align, top, Infinity);
    if (start < 0) {
      throw new IommuError(
        'ENOSPC',
        `no free IOVA range of ${hex(size)} bytes below ${hex(limit ?? BigInt(this.#last) << lg2)}`,
        { size },
      );
    }
    const at = this.#lowerBound(start);
    this.#starts.splice(at, 0, start);
    this.#lasts.splice(at, 0, start + count - 1);
    this.#hint = start;
    this.#allocated += count;
    return BigInt(start) << lg2;
  }

  /**
   * Takes exactly this range, if it is free (for mappings whose IOVA is given).
   * @returns false when part of it is taken, reserved or outside.
   */
  reserve(iova: bigint, size: bigint): boolean {
    const lg2 = BigInt(this.granuleLg2);
    const start = Number(iova >> lg2);
    const last = Number((iova + size - 1n) >> lg2);
    if (start < this.#low || last > this.#last || size <= 0n) return false;
    const at = this.#lowerBound(start);
    if ((at < this.#starts.length && this.#starts[at]! <= last) || (at > 0 && this.#lasts[at - 1]! >= start))
      return false;
    this.#starts.splice(at, 0, start);
    this.#lasts.splice(at, 0, last);
    this.#allocated += last - start + 1;
    return true;
  }

  /** Gives back the range that begins at `iova`. @throws IommuError `EINVAL` when none does. */
  free(iova: bigint): void {
    const lg2 = BigInt(this.granuleLg2);
    const start = Number(iova >> lg2);
    const at = this.#lowerBound(start);
    const whole = BigInt(start) << lg2 === iova;
    if (!whole || this.#starts[at] !== start || this.#reserved.has(start))
      throw new IommuError('EINVAL', `no IOVA range begins at ${hex(iova)}`, { iova });
    this.#allocated -= this.#lasts[at]! - start + 1;
    if (start >= this.#hint) this.#hint = this.#lasts[at]! + 1;
    this.#starts.splice(at, 1);
    this.#lasts.splice(at, 1);
  }

  /** Highest aligned free run of `count` granules that ends at or below `top` and below `from`; -1 for none. */
  #search(count: number, align: number, top: number, from: number): number {
    let ceiling = Math.min(top, from - 1);
    let at = this.#lowerBound(ceiling + 1) - 1;
    for (;;) {
      if (at >= 0 && this.#lasts[at]! >= ceiling) {
        ceiling = Math.min(ceiling, this.#starts[at]! - 1);
        at--;
        if (ceiling < this.#first) return -1;
        continue;
      }
      const floor = Math.max(this.#first, at >= 0 ? this.#lasts[at]! + 1 : this.#first);
      const start = Math.floor((ceiling - count + 1) / align) * align;
      if (start >= floor) return start;
      if (at < 0) return -1;
      ceiling = this.#starts[at]! - 1;
      at--;
      if (ceiling < this.#first) return -1;
    }
  }

  /** Index of the first range that starts at or above `value`. */
  #lowerBound(value: number): number {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const mid = (low + high) >>> 1;
      if (this.#starts[mid]! < value) low = mid + 1;
      else high = mid;
    }
    return low;
  }

  #insertMerged(start: number, last: number): void {
    if (last < this.#first || start > this.#last) return;
    let at = this.#lowerBound(start);
    if (at > 0 && this.#lasts[at - 1]! >= start - 1) at--;
    let [from, to] = [start, last];
    let n = 0;
    while (at + n < this.#starts.length && this.#starts[at + n]! <= to + 1) {
      from = Math.min(from, this.#starts[at + n]!);
      to = Math.max(to, this.#lasts[at + n]!);
      n++;
    }
    this.#starts.splice(at, n, from);
    this.#lasts.splice(at, n, to);
  }
}
