/**
 * An IOTLB: set-associative with LRU, unbounded, or none; entries of any power-of-two size.
 *
 * A hit costs one probe for each page size in use at that moment (a bit set of the sizes present tells which), usually one.
 * Keys are (tag, page). The tag is what the architecture qualifies an entry with: a domain id, ASID/VMID pair, device
 * context …, packed by the owner into one exact integer below 2^53. Everything is in typed arrays; nothing is allocated on a
 * hit, a fill or an eviction.
 */
export type IotlbMode = 'none' | 'sized' | 'unbounded';

export interface IotlbOptions {
  /** `'none'` caches nothing; `'sized'` (default) has `sets` × `ways`; `'unbounded'` keeps all until invalidated. */
  readonly mode?: IotlbMode;
  /** Power of two; default 64. */
  readonly sets?: number;
  /** Default 4. */
  readonly ways?: number;
}

const EMPTY = -1;

export class Iotlb {
  readonly mode: IotlbMode;
  #sets: number;
  readonly #ways: number;
  #tag: Float64Array;
  #vpn: Float64Array;
  #sizeLg2: Uint8Array;
  #outHi: Int32Array;
  #outLo: Int32Array;
  #perm: Int32Array;
  #extra: Int32Array;
  #stamp: Float64Array;
  #tick = 0;
  /** Entries by size: how many of each. */
  readonly #count = new Int32Array(65);
  /** Sizes present, as a list (usually of one). */
  readonly #sizes = new Int32Array(65);
  #nSizes = 0;
  #live = 0;
  /** Direct-mapped front for the last entry that hit. */
  #lastIndex = -1;

  /** After a hit: the address, the permissions and the word the owner stored with the entry. */
  outHi = 0;
  outLo = 0;
  perm = 0;
  extra = 0;
  sizeLg2 = 0;

  hits = 0;
  misses = 0;
  evictions = 0;
  /** Entries dropped by invalidations. */
  invalidated = 0;

  constructor(options: IotlbOptions = {}) {
    this.mode = options.mode ?? 'sized';
    this.#sets = options.sets ?? 64;
    this.#ways = options.ways ?? 4;
    const n = this.mode === 'none' ? 0 : this.#sets * this.#ways;
    this.#tag = new Float64Array(n).fill(EMPTY);
    this.#vpn = new Float64Array(n);
    this.#sizeLg2 = new Uint8Array(n);
    this.#outHi = new Int32Array(n);
    this.#outLo = new Int32Array(n);
    this.#perm = new Int32Array(n);
    this.#extra = new Int32Array(n);
    this.#stamp = new Float64Array(n);
  }

  /** Live entries. */
  get size(): number {
    return this.#live;
  }

  /**
   * Looks `iova` up under `tag`. On a hit true, with {@link outHi}/{@link outLo} the translated address of this very IOVA,
   * {@link perm} and {@link extra} as filled. The owner judges the permission.
   */
  lookup(tag: number, iovaHi: number, iovaLo: number): boolean {
    for (let i = 0; i < this.#nSizes; i++) {
      const sizeLg2 = this.#sizes[i]!;
      const vpn = vpnOf(iovaHi, iovaLo, sizeLg2);
      const at = this.#find(tag, vpn, sizeLg2);
      if (at < 0) continue;
      this.hits++;
      this.#stamp[at] = ++this.#tick;
      this.perm = this.#perm[at]!;
      this.extra = this.#extra[at]!;
      this.sizeLg2 = sizeLg2;
      if (sizeLg2 < 32) {
        this.outHi = this.#outHi[at]!;
        this.outLo = this.#outLo[at]! | (iovaLo & (2 ** sizeLg2 - 1));
      } else {
        this.outHi = this.#outHi[at]! | (sizeLg2 >= 64 ? iovaHi : iovaHi & (2 ** (sizeLg2 - 32) - 1));
        this.outLo = iovaLo | 0;
      }
      return true;
    }
    this.misses++;
    return false;
  }

  /**
   * Adds a translation of the naturally aligned page of `2^sizeLg2` bytes (12 … 63) around `iova`; `outHi:outLo` is the
   * translated address of the page or of any byte in it. An entry of the same page is replaced.
   */
  fill(
    tag: number,
    iovaHi: number,
    iovaLo: number,
    sizeLg2: number,
    outHi: number,
    outLo: number,
    perm: number,
    extra: number,
  ): void {
    if (this.mode === 'none') return;
    const vpn = vpnOf(iovaHi, iovaLo, sizeLg2);
    let at = this.#find(tag, vpn, sizeLg2);
    if (at < 0) {
      at = this.#victim(tag, vpn, sizeLg2);
      this.#tag[at] = tag;
      this.#vpn[at] = vpn;
      this.#sizeLg2[at] = sizeLg2;
      this.#live++;
      if (this.#count[sizeLg2]!++ === 0) this.#addSize(sizeLg2);
    }
    this.#outHi[at] = sizeLg2 < 32 ? outHi : outHi & ~(2 ** (sizeLg2 - 32) - 1);
    this.#outLo[at] = sizeLg2 < 32 ? outLo & ~(2 ** sizeLg2 - 1) : 0;
    this.#perm[at] = perm;
    this.#extra[at] = extra;
    this.#stamp[at] = ++this.#tick;
  }

  /** Drops everything; returns how many entries went. */
  invalidateAll(): number {
    const dropped = this.#live;
    if (dropped > 0) {
      this.#tag.fill(EMPTY);
      this.#count.fill(0);
      this.#nSizes = 0;
      this.#live = 0;
      this.invalidated += dropped;
    }
    return dropped;
  }

  /** Drops all entries of `tag`; returns how many went. */
  invalidateTag(tag: number): number {
    return this.#sweep(tag, 0, Infinity);
  }

  /**
   * Drops entries of `tag` that overlap the pages `startPfn` … `lastPfn` (4 KiB pages, inclusive); returns how many went.
   * Short ranges probe, long ones sweep.
   */
  invalidateRange(tag: number, startPfn: number, lastPfn: number): number {
    if (lastPfn - startPfn >= 64 || this.#nSizes > 4) return this.#sweep(tag, startPfn, lastPfn);
    let dropped = 0;
    for (let i = this.#nSizes - 1; i >= 0; i--) {
      const sizeLg2 = this.#sizes[i]!;
      const pages = 2 ** (sizeLg2 - 12);
      for (let vpn = Math.floor(startPfn / pages); vpn * pages <= lastPfn; vpn++) {
        const at = this.#find(tag, vpn, sizeLg2);
        if (at >= 0) {
          this.#drop(at);
          dropped++;
        }
      }
    }
    this.invalidated += dropped;
    return dropped;
  }

  /** Drops entries of every tag that `matches` says yes to and that overlap the pages; slow, for rare commands. */
  invalidateWhere(matches: (tag: number, extra: number) => boolean, startPfn = 0, lastPfn = Infinity): number {
    let dropped = 0;
    for (let at = 0; at < this.#tag.length; at++) {
      const tag = this.#tag[at]!;
      if (tag === EMPTY || !this.#overlaps(at, startPfn, lastPfn) || !matches(tag, this.#extra[at]!)) continue;
      this.#drop(at);
      dropped++;
    }
    this.invalidated += dropped;
    return dropped;
  }

  #sweep(tag: number, startPfn: number, lastPfn: number): number {
    let dropped = 0;
    for (let at = 0; at < this.#tag.length; at++) {
      if (this.#tag[at] !== tag || !this.#overlaps(at, startPfn, lastPfn)) continue;
      this.#drop(at);
      dropped++;
    }
    this.invalidated += dropped;
    return dropped;
  }

  #overlaps(at: number, startPfn: number, lastPfn: number): boolean {
    const pages = 2 ** (this.#sizeLg2[at]! - 12);
    const first = this.#vpn[at]! * pages;
    return first <= lastPfn && first + pages - 1 >= startPfn;
  }

  #drop(at: number): void {
    const sizeLg2 = this.#sizeLg2[at]!;
    this.#tag[at] = EMPTY;
    this.#live--;
    if (--this.#count[sizeLg2]! === 0) {
      const i = this.#sizes.subarray(0, this.#nSizes).indexOf(sizeLg2);
      this.#sizes[i] = this.#sizes[--this.#nSizes]!;
    }
  }

  #addSize(sizeLg2: number): void {
    this.#sizes[this.#nSizes++] = sizeLg2;
  }

  #setOf(tag: number, vpn: number, sizeLg2: number): number {
    // vpn and tag can exceed 32 bits: fold both halves in before mixing.
    const low = vpn % 0x1_0000_0000;
    let h = (low | 0) ^ Math.imul((vpn - low) / 0x1_0000_0000 + sizeLg2, 0x9e37_79b1);
    h ^= Math.imul((tag % 0x1_0000_0000) | 0, 0x85eb_ca6b);
    return (h ^ (h >>> 15)) & (this.#sets - 1);
  }

  #find(tag: number, vpn: number, sizeLg2: number): number {
    const last = this.#lastIndex;
    if (last >= 0 && this.#vpn[last] === vpn && this.#tag[last] === tag && this.#sizeLg2[last] === sizeLg2) return last;
    if (this.#live === 0) return -1;
    const base = this.#setOf(tag, vpn, sizeLg2) * this.#ways;
    for (let way = 0; way < this.#ways; way++) {
      const at = base + way;
      if (this.#vpn[at] === vpn && this.#tag[at] === tag && this.#sizeLg2[at] === sizeLg2) {
        this.#lastIndex = at;
        return at;
      }
    }
    return -1;
  }

  #victim(tag: number, vpn: number, sizeLg2: number): number {
    for (;;) {
      const base = this.#setOf(tag, vpn, sizeLg2) * this.#ways;
      let oldest = base;
      for (let at = base; at < base + this.#ways; at++) {
        if (this.#tag[at] === EMPTY) return at;
        if (this.#stamp[at]! < this.#stamp[oldest]!) oldest = at;
      }
      if (this.mode === 'sized') {
        this.#drop(oldest);
        this.evictions++;
        return oldest;
      }
      this.#double();
    }
  }

  /** Unbounded mode: twice the sets, everything placed anew. */
  #double(): void {
    const old = { tag: this.#tag, vpn: this.#vpn, size: this.#sizeLg2, hi: this.#outHi, lo: this.#outLo };
    const [perm, extra, stamp] = [this.#perm, this.#extra, this.#stamp];
    this.#sets *= 2;
    this.#lastIndex = -1;
    const n = this.#sets * this.#ways;
    this.#tag = new Float64Array(n).fill(EMPTY);
    this.#vpn = new Float64Array(n);
    this.#sizeLg2 = new Uint8Array(n);
    this.#outHi = new Int32Array(n);
    this.#outLo = new Int32Array(n);
    this.#perm = new Int32Array(n);
    this.#extra = new Int32Array(n);
    this.#stamp = new Float64Array(n);
    for (let i = 0; i < old.tag.length; i++) {
      if (old.tag[i] === EMPTY) continue;
      const base = this.#setOf(old.tag[i]!, old.vpn[i]!, old.size[i]!) * this.#ways;
      let at = base;
      // Entries of one set go to one of two sets, so a way is always free.
      while (this.#tag[at] !== EMPTY) at++;
      this.#tag[at] = old.tag[i]!;
      this.#vpn[at] = old.vpn[i]!;
      this.#sizeLg2[at] = old.size[i]!;
      this.#outHi[at] = old.hi[i]!;
      this.#outLo[at] = old.lo[i]!;
      this.#perm[at] = perm[i]!;
      this.#extra[at] = extra[i]!;
      this.#stamp[at] = stamp[i]!;
    }
  }
}

/** Page number of `hi:lo` in pages of `2^sizeLg2` bytes; exact for sizes from 4 KiB. */
const vpnOf = (hi: number, lo: number, sizeLg2: number): number =>
  sizeLg2 < 32 ? (hi >>> 0) * 2 ** (32 - sizeLg2) + (lo >>> sizeLg2) : Math.floor((hi >>> 0) / 2 ** (sizeLg2 - 32));
