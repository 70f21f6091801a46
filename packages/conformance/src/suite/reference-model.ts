/**
 * What a domain should translate, kept as a plain `Map` of granules: the oracle of the suites. It knows the two families'
 * rules only as far as a domain shows them when every mapping is made of granules: where a map stops, where an unmap stops.
 */

/** One granule of a mapping. */
export interface ModelPage {
  readonly pa: bigint;
  readonly prot: number;
}

export class ReferenceModel {
  readonly granule: bigint;
  readonly pages = new Map<bigint, ModelPage>();

  constructor(granule: bigint) {
    this.granule = granule;
  }

  /** Bytes of `[iova, iova + size)` before the first granule that is mapped already; `size` when none is. */
  freeBytes(iova: bigint, size: bigint): bigint {
    for (let at = 0n; at < size; at += this.granule) if (this.pages.has(iova + at)) return at;
    return size;
  }

  /** Maps the first `size` bytes (whole granules); what is there already is a mistake of the caller. */
  map(iova: bigint, pa: bigint, size: bigint, prot: number): void {
    for (let at = 0n; at < size; at += this.granule) {
      if (this.pages.has(iova + at)) throw new Error(`model: 0x${(iova + at).toString(16)} is mapped already`);
      this.pages.set(iova + at, { pa: pa + at, prot });
    }
  }

  /** Unmaps from `iova` up to the first hole; returns the bytes. */
  unmap(iova: bigint, size: bigint): bigint {
    let at = 0n;
    while (at < size && this.pages.delete(iova + at)) at += this.granule;
    return at;
  }

  /** Where `iova` goes, or null. */
  translate(iova: bigint): (ModelPage & { readonly address: bigint }) | null {
    const offset = iova % this.granule;
    const page = this.pages.get(iova - offset);
    return page === undefined ? null : { ...page, address: page.pa + offset };
  }
}
