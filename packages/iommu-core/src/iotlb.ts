import { CHECKS } from '@iommu-ts/bits';
import type { IotlbListener } from './checks/types.ts';

/**
 * An IOTLB: set-associative with LRU, unbounded, or none; entries of any power-of-two size.
 *
 * A hit costs one probe for each page size in use at that moment (a list of the sizes present tells which), usually one.
 * Keys are (tag, page). The tag is what the architecture qualifies an entry with: a domain id, ASID/VMID pair, device
 * context …, packed by the owner into one exact integer from 0 to 2^53-1. A tag below 2^31 is the fastest: a larger one that
 * reaches {@link Iotlb.lookup} through a call that is not inlined is boxed by the host on the way.
 *
 * Everything is int32 words in typed arrays; nothing is allocated on a hit, a fill or an eviction.
 */
export type IotlbMode = 'none' | 'sized' | 'unbounded' | 'retain';

/** Kind and size of an {@link Iotlb}. */
export interface IotlbOptions {
  /**
   * `'none'` caches nothing; `'sized'` (default) has `sets` × `ways`; `'unbounded'` keeps all until invalidated; `'retain'`
   * is adversarial: the whole device (IOTLB, walk caches, structure caches, command processing) keeps what the architecture
   * allows it to keep, as long as it allows, and works off its command queue only when the driver next reads a register.
   */
  readonly mode?: IotlbMode;
  /** Power of two; default 64. */
  readonly sets?: number;
  /** Default 4. */
  readonly ways?: number;
}

/*
 * An entry is eight words, so that a probe touches one cache line:
 *   0  IOVA 31..12 of the page, and in the low bits (free, as no page is smaller than 4 KiB) sizeLg2; 0 = empty
 *   1  IOVA 63..32 of the page
 *   2  tag 31..0     3  tag 52..32
 *   4  out 63..32    5  out 31..0    of the page's first byte
 *   6  perm          7  extra
 */
const WORDS = 8;
const TWO_32 = 0x1_0000_0000;
/** The part of word 0 that is an address, and the part that is the size. */
const ADDRESS = ~0xfff;
const SIZE = 0xfff;
/** Stands for "no size": a key made with it matches no entry, not even an empty one. */
const NO_SIZE = 1;

/** The cache of translations of one IOMMU: pages of any size, tagged, in one of the kinds of {@link IotlbMode}. */
export class Iotlb {
  readonly mode: IotlbMode;
  #sets: number;
  #ways: number;
  #entries: Int32Array;
  /** By hash, four slots an entry: where the entry was found last. A hint only: the entry's own key decides. */
  #front: Int32Array;
  #frontMask: number;
  /** When each entry was used last, for LRU: {@link #tick} then. */
  #stamp: Int32Array;
  /** Wraps at 2^32; ages are differences, so that matters to an entry unused for 2^32 uses of others only. */
  #tick = 0;
  /** Entries by size: how many of each. */
  readonly #count = new Int32Array(65);
  /** Sizes present, usually one. */
  readonly #sizes = new Int32Array(65);
  #nSizes = 0;
  /** The first of {@link #sizes}, and its masks of a page's address. */
  #size = NO_SIZE;
  #maskHi = 0;
  #maskLo = 0;
  #live = 0;
  /** Entry (index of its first word) used last: its stamp is the newest already. -1: none. */
  #last = -1;

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
  /** Told of fills and drops; for the checks. */
  listener: IotlbListener | null = null;
  #suspended = false;

  constructor(options: IotlbOptions = {}) {
    this.mode = options.mode ?? 'sized';
    this.#sets = options.sets ?? 64;
    this.#ways = options.ways ?? 4;
    // Without entries there is still one, never filled, so that a look-up has something to compare with.
    const n = this.mode === 'none' ? 1 : this.#sets * this.#ways;
    this.#entries = new Int32Array(n * WORDS);
    this.#front = new Int32Array(frontSize(n));
    this.#frontMask = this.#front.length - 1;
    this.#stamp = new Int32Array(n);
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
    // Straight-line code for the usual case: the first size, found where it was found before.
    const entries = this.#entries;
    const sizeLg2 = this.#size;
    const maskHi = this.#maskHi;
    const maskLo = this.#maskLo;
    const tagLo = tag | 0;
    const tagHi = tag === tagLo ? 0 : (tag / TWO_32) | 0;
    const keyHi = iovaHi & maskHi;
    const keyLo = (iovaLo & maskLo) | sizeLg2;
    const at = this.#front[hash(tagHi, tagLo, keyHi, keyLo, sizeLg2) & this.#frontMask]!;
    // `at` is a multiple of WORDS: `|` is `+` without a check for overflow.
    if (entries[at] === keyLo && entries[at | 1] === keyHi && entries[at | 2] === tagLo && entries[at | 3] === tagHi) {
      this.hits++;
      if (at !== this.#last) this.#touch(at);
      this.outHi = entries[at | 4]! | (iovaHi & ~maskHi);
      this.outLo = entries[at | 5]! | (iovaLo & ~maskLo);
      this.perm = entries[at | 6]!;
      this.extra = entries[at | 7]!;
      this.sizeLg2 = sizeLg2;
      return true;
    }
    return this.#search(tagHi, tagLo, iovaHi, iovaLo);
  }

  /** {@link lookup} through every size present and every way. */
  #search(tagHi: number, tagLo: number, iovaHi: number, iovaLo: number): boolean {
    const entries = this.#entries;
    for (let i = 0; i < this.#nSizes; i++) {
      const sizeLg2 = this.#sizes[i]!;
      const maskHi = maskHiOf(sizeLg2);
      const maskLo = maskLoOf(sizeLg2);
      const keyHi = iovaHi & maskHi;
      const keyLo = (iovaLo & maskLo) | sizeLg2;
      const at = this.#find(tagHi, tagLo, keyHi, keyLo);
      if (at < 0) continue;
      this.#front[hash(tagHi, tagLo, keyHi, keyLo, sizeLg2) & this.#frontMask] = at;
      this.hits++;
      this.#touch(at);
      this.outHi = entries[at | 4]! | (iovaHi & ~maskHi);
      this.outLo = entries[at | 5]! | (iovaLo & ~maskLo);
      this.perm = entries[at | 6]!;
      this.extra = entries[at | 7]!;
      this.sizeLg2 = sizeLg2;
      return true;
    }
    this.misses++;
    return false;
  }

  /**
   * Adds a translation of the naturally aligned page of `2^sizeLg2` bytes (12 … 64) around `iova`; `outHi:outLo` is the
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
    if (this.mode === 'none' || (CHECKS && this.#suspended)) return;
    const tagLo = tag | 0;
    const tagHi = tag === tagLo ? 0 : (tag / TWO_32) | 0;
    const maskHi = maskHiOf(sizeLg2);
    const maskLo = maskLoOf(sizeLg2);
    const keyHi = iovaHi & maskHi;
    const keyLo = (iovaLo & maskLo) | sizeLg2;
    let at = this.#find(tagHi, tagLo, keyHi, keyLo);
    if (at < 0) {
      at = this.#victim(hash(tagHi, tagLo, keyHi, keyLo, sizeLg2));
      const entries = this.#entries;
      entries[at] = keyLo;
      entries[at + 1] = keyHi;
      entries[at + 2] = tagLo;
      entries[at + 3] = tagHi;
      this.#live++;
      if (this.#count[sizeLg2]!++ === 0) this.#addSize(sizeLg2);
    }
    const entries = this.#entries;
    entries[at + 4] = outHi & maskHi;
    entries[at + 5] = outLo & maskLo;
    entries[at + 6] = perm;
    entries[at + 7] = extra;
    this.#touch(at);
    if (CHECKS && this.listener !== null) this.listener.filled(tag, this.#pfnOf(at), sizeLg2);
  }

  /** Until {@link resume} nothing is found and nothing is kept; for probes that must not leave a trace. */
  suspend(): void {
    this.#suspended = true;
    this.#saved = { nSizes: this.#nSizes, last: this.#last, hits: this.hits, misses: this.misses };
    this.#nSizes = 0;
    this.#firstSize();
  }

  /** Ends {@link suspend}; the counters are as before it. */
  resume(): void {
    if (this.#saved === null) return;
    this.#suspended = false;
    this.#nSizes = this.#saved.nSizes;
    this.#last = this.#saved.last;
    this.hits = this.#saved.hits;
    this.misses = this.#saved.misses;
    this.#saved = null;
    this.#firstSize();
  }
  #saved: { readonly nSizes: number; readonly last: number; readonly hits: number; readonly misses: number } | null =
    null;

  /**
   * As {@link lookup}, without a trace: no counter, no age, no hint changes. For probes that may use the cache.
   */
  peek(tag: number, iovaHi: number, iovaLo: number): boolean {
    const tagLo = tag | 0;
    const tagHi = tag === tagLo ? 0 : (tag / TWO_32) | 0;
    for (let i = 0; i < this.#nSizes; i++) {
      const sizeLg2 = this.#sizes[i]!;
      const maskHi = maskHiOf(sizeLg2);
      const maskLo = maskLoOf(sizeLg2);
      const at = this.#find(tagHi, tagLo, iovaHi & maskHi, (iovaLo & maskLo) | sizeLg2);
      if (at < 0) continue;
      const entries = this.#entries;
      this.outHi = entries[at + 4]! | (iovaHi & ~maskHi);
      this.outLo = entries[at + 5]! | (iovaLo & ~maskLo);
      this.perm = entries[at + 6]!;
      this.extra = entries[at + 7]!;
      this.sizeLg2 = sizeLg2;
      return true;
    }
    return false;
  }

  /** Drops everything; returns how many entries went. */
  invalidateAll(): number {
    const dropped = this.#live;
    if (dropped > 0) {
      if (CHECKS && this.listener !== null) {
        for (let at = 0; at < this.#entries.length; at += WORDS) if (this.#entries[at] !== 0) this.#tell(at);
      }
      this.#entries.fill(0);
      this.#count.fill(0);
      this.#nSizes = 0;
      this.#firstSize();
      this.#live = 0;
      this.#last = -1;
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
   * Probes for each page, or sweeps over all entries, whichever is less work.
   */
  invalidateRange(tag: number, startPfn: number, lastPfn: number): number {
    if (this.#live === 0 || lastPfn < startPfn) return 0;
    let probes = 0;
    for (let i = 0; i < this.#nSizes; i++) probes += (lastPfn - startPfn) / 2 ** (this.#sizes[i]! - 12) + 2;
    if (!(probes * 2 <= this.#sets)) return this.#sweep(tag, startPfn, lastPfn);
    const tagLo = tag | 0;
    const tagHi = tag === tagLo ? 0 : (tag / TWO_32) | 0;
    let dropped = 0;
    for (let i = this.#nSizes - 1; i >= 0; i--) {
      // Dropping the last entry of a size takes it off the list and moves the list's last one, seen already, here.
      const sizeLg2 = this.#sizes[i]!;
      const pages = 2 ** (sizeLg2 - 12);
      for (let pfn = Math.floor(startPfn / pages) * pages; pfn <= lastPfn; pfn += pages) {
        const keyHi = (pfn / 0x10_0000) | 0;
        const keyLo = (pfn << 12) | sizeLg2;
        const at = this.#find(tagHi, tagLo, keyHi, keyLo);
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
    const entries = this.#entries;
    let dropped = 0;
    for (let at = 0; at < entries.length; at += WORDS) {
      if (entries[at] === 0 || !this.#overlaps(at, startPfn, lastPfn)) continue;
      if (!matches(entries[at + 3]! * TWO_32 + (entries[at + 2]! >>> 0), entries[at + 7]!)) continue;
      this.#drop(at);
      dropped++;
    }
    this.invalidated += dropped;
    return dropped;
  }

  #sweep(tag: number, startPfn: number, lastPfn: number): number {
    if (this.#live === 0) return 0;
    const entries = this.#entries;
    const tagLo = tag | 0;
    const tagHi = tag === tagLo ? 0 : (tag / TWO_32) | 0;
    let dropped = 0;
    for (let at = 0; at < entries.length; at += WORDS) {
      if (entries[at + 2] !== tagLo || entries[at] === 0 || entries[at + 3] !== tagHi) continue;
      if (!this.#overlaps(at, startPfn, lastPfn)) continue;
      this.#drop(at);
      dropped++;
    }
    this.invalidated += dropped;
    return dropped;
  }

  /** First 4 KiB page of an entry. */
  #pfnOf(at: number): number {
    return (this.#entries[at + 1]! >>> 0) * 0x10_0000 + ((this.#entries[at]! & ADDRESS) >>> 12);
  }

  #tell(at: number): void {
    const e = this.#entries;
    const tag = e[at + 3]! * TWO_32 + (e[at + 2]! >>> 0);
    this.listener!.dropped(tag, this.#pfnOf(at), e[at]! & SIZE, e[at + 4]!, e[at + 5]!, e[at + 6]!);
  }

  #overlaps(at: number, startPfn: number, lastPfn: number): boolean {
    const keyLo = this.#entries[at]!;
    const first = (this.#entries[at + 1]! >>> 0) * 0x10_0000 + ((keyLo & ADDRESS) >>> 12);
    return first <= lastPfn && first + 2 ** ((keyLo & SIZE) - 12) - 1 >= startPfn;
  }

  #drop(at: number): void {
    const sizeLg2 = this.#entries[at]! & SIZE;
    if (CHECKS && this.listener !== null) this.#tell(at);
    this.#entries[at] = 0;
    this.#live--;
    if (this.#last === at) this.#last = -1;
    if (--this.#count[sizeLg2]! === 0) this.#removeSize(sizeLg2);
  }

  #addSize(sizeLg2: number): void {
    this.#sizes[this.#nSizes++] = sizeLg2;
    this.#firstSize();
  }

  /** Takes a size off the list; the last one of the list takes its place. */
  #removeSize(sizeLg2: number): void {
    const at = this.#sizes.indexOf(sizeLg2);
    this.#sizes[at] = this.#sizes[--this.#nSizes]!;
    this.#firstSize();
  }

  #firstSize(): void {
    this.#size = this.#nSizes === 0 ? NO_SIZE : this.#sizes[0]!;
    this.#maskHi = this.#nSizes === 0 ? 0 : maskHiOf(this.#size);
    this.#maskLo = this.#nSizes === 0 ? 0 : maskLoOf(this.#size);
  }

  #touch(at: number): void {
    const tick = (this.#tick + 1) | 0;
    this.#tick = tick;
    this.#stamp[at >>> 3] = tick;
    this.#last = at;
  }

  /** Index of the entry's first word, or -1. */
  #find(tagHi: number, tagLo: number, keyHi: number, keyLo: number): number {
    const entries = this.#entries;
    const ways = this.#ways * WORDS;
    const base = (hash(tagHi, tagLo, keyHi, keyLo, keyLo & SIZE) & (this.#sets - 1)) * ways;
    for (let at = base; at < base + ways; at += WORDS) {
      if (entries[at] !== keyLo || entries[at + 1] !== keyHi) continue;
      if (entries[at + 2] === tagLo && entries[at + 3] === tagHi) return at;
    }
    return -1;
  }

  /** A free way for an entry with this hash: the least recently used one is evicted, or an unbounded table grows. */
  #victim(h: number): number {
    for (;;) {
      const ways = this.#ways * WORDS;
      const base = (h & (this.#sets - 1)) * ways;
      let oldest = base;
      for (let at = base; at < base + ways; at += WORDS) {
        if (this.#entries[at] === 0) return at;
        if (this.#age(at) > this.#age(oldest)) oldest = at;
      }
      if (this.mode === 'sized') {
        this.#drop(oldest);
        this.evictions++;
        return oldest;
      }
      this.#grow();
    }
  }

  #age(at: number): number {
    return (this.#tick - this.#stamp[at >>> 3]!) >>> 0;
  }

  /**
   * Unbounded mode: twice the sets, everything placed anew. A full set in a nearly empty table means that its entries have
   * one hash, and no number of sets would part them: then twice the ways.
   */
  #grow(): void {
    const from = this.#entries;
    const stamps = this.#stamp;
    if (this.#live * 16 < stamps.length) this.#ways *= 2;
    else this.#sets *= 2;
    this.#last = -1;
    const n = this.#sets * this.#ways;
    const to = new Int32Array(n * WORDS);
    this.#entries = to;
    this.#stamp = new Int32Array(n);
    this.#front = new Int32Array(frontSize(n));
    this.#frontMask = this.#front.length - 1;
    for (let i = 0; i < from.length; i += WORDS) {
      const keyLo = from[i]!;
      if (keyLo === 0) continue;
      const h = hash(from[i + 3]!, from[i + 2]!, from[i + 1]!, keyLo, keyLo & SIZE);
      let at = (h & (this.#sets - 1)) * this.#ways * WORDS;
      // Entries of one set go to one of two sets, or to one with more ways, so a way is always free.
      while (to[at] !== 0) at += WORDS;
      for (let w = 0; w < WORDS; w++) to[at + w] = from[i + w]!;
      this.#stamp[at >>> 3] = stamps[i >>> 3]!;
    }
  }
}

/** Slots of the front for `n` entries: a power of two, four an entry. */
const frontSize = (n: number): number => 1 << (34 - Math.clz32(n - 1));

/** Mask of the page's address in the high word of an IOVA, for pages of `2^sizeLg2` bytes. */
const maskHiOf = (sizeLg2: number): number => (sizeLg2 <= 32 ? -1 : sizeLg2 >= 64 ? 0 : -1 << (sizeLg2 - 32));
/** The same for the low word. */
const maskLoOf = (sizeLg2: number): number => (sizeLg2 >= 32 ? 0 : -1 << sizeLg2);

/**
 * Which set: neighbouring pages get neighbouring sets (the low bits of the page number go straight in), tags and high bits
 * are mixed. Shift counts are taken modulo 32, so `>>> sizeLg2` serves the high word of large pages as well.
 */
const hash = (tagHi: number, tagLo: number, keyHi: number, keyLo: number, sizeLg2: number): number => {
  const h =
    ((sizeLg2 < 32 ? keyLo : keyHi) >>> sizeLg2) ^
    Math.imul(keyHi + sizeLg2, 0x9e37_79b1) ^
    Math.imul(tagLo ^ Math.imul(tagHi, 0xc2b2_ae35), 0x85eb_ca6b);
  return h ^ (h >>> 15);
};
