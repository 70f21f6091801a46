/**
 * The yardstick: one page-table format (Sv48, RISC-V privileged architecture, section "Sv48: Page-Based 48-bit
 * Virtual-Memory System"), written by hand on one flat `Int32Array`, with every constant inlined and no option: as fast as
 * TypeScript allows. The engine, which serves every format from one source, is measured against it.
 *
 * This file was written once and is not tuned, slowed or otherwise touched afterwards: a change here moves every ratio of
 * every report. If it must change, the commit says so.
 *
 * What it does is what the engine's operations do, so that the ratio means something: canonical and range checks, leaves at
 * every level on the walk, tables made on the way down, refusal of what is mapped already, results through fields.
 * What it leaves out: other formats, options, page sizes above 4 KiB on map, the table allocator's descriptors and counters.
 *
 * Words of an entry: low 32 bits at even index, high at odd. V=bit 0, R=1, W=2, X=3, G=5, A=6, D=7, PPN=53:10.
 */
export class Calibration {
  /** All tables; word 0 is physical address 0. The root is page 1, so that no table lies at 0. */
  readonly words: Int32Array;
  readonly #pages: number;
  #next = 2;
  /** After a {@link walk} that returned true: the physical address, int32 words. */
  outHi = 0;
  outLo = 0;

  /** @param words a zeroed array of whole 4 KiB pages, at most 4 GiB. */
  constructor(words: Int32Array) {
    this.words = words;
    this.#pages = words.length >>> 10;
  }

  /** Pages handed out for tables, the root among them. */
  get tables(): number {
    return this.#next - 1;
  }

  /** Translates `hi:lo`; false where nothing is mapped (or the address is not canonical, or a table lies outside). */
  walk(hi: number, lo: number): boolean {
    const words = this.words;
    const pages = this.#pages;
    const sign = hi >> 15;
    if (sign !== 0 && sign !== -1) return false;

    let at = 1024 | ((hi >> 6) & 0x3fe);
    let entry = words[at]!;
    let high = words[at + 1]!;
    if ((entry & 0xf) !== 1) return this.#leaf(entry, high, hi, lo, 39);
    let ppn = (high << 22) | (entry >>> 10);
    if (ppn >>> 0 >= pages || high >>> 10 !== 0) return false;

    at = (ppn << 10) | ((hi << 3) & 0x3f8) | ((lo >>> 29) & 6);
    entry = words[at]!;
    high = words[at + 1]!;
    if ((entry & 0xf) !== 1) return this.#leaf(entry, high, hi, lo, 30);
    ppn = (high << 22) | (entry >>> 10);
    if (ppn >>> 0 >= pages || high >>> 10 !== 0) return false;

    at = (ppn << 10) | ((lo >>> 20) & 0x3fe);
    entry = words[at]!;
    high = words[at + 1]!;
    if ((entry & 0xf) !== 1) return this.#leaf(entry, high, hi, lo, 21);
    ppn = (high << 22) | (entry >>> 10);
    if (ppn >>> 0 >= pages || high >>> 10 !== 0) return false;

    at = (ppn << 10) | ((lo >>> 11) & 0x3fe);
    entry = words[at]!;
    if ((entry & 1) === 0 || (entry & 0xe) === 0) return false;
    high = words[at + 1]!;
    this.outHi = ((high & 0x3f_ffff) << 2) | (entry >>> 30);
    this.outLo = ((entry & 0x3fff_fc00) << 2) | (lo & 0xfff);
    return true;
  }

  /** A leaf above the lowest level (or a hole); `sizeLg2` is 21, 30 or 39. */
  #leaf(entry: number, high: number, hi: number, lo: number, sizeLg2: number): boolean {
    if ((entry & 1) === 0) return false;
    const outHi = ((high & 0x3f_ffff) << 2) | (entry >>> 30);
    const outLo = (entry & 0x3fff_fc00) << 2;
    if (sizeLg2 > 32) {
      this.outHi = (outHi & ~0x7f) | (hi & 0x7f);
      this.outLo = lo | 0;
    } else {
      const mask = sizeLg2 === 21 ? 0x1f_ffff : 0x3fff_ffff;
      this.outHi = outHi;
      this.outLo = (outLo & ~mask) | (lo & mask);
    }
    return true;
  }

  /**
   * Maps one 4 KiB page. `prot`: 1 read, 2 write.
   * @returns 0; -6 misaligned, -12 no page for a table, -22 neither read nor write, -34 out of range, -98 mapped already.
   */
  mapPage(iovaHi: number, iovaLo: number, paHi: number, paLo: number, prot: number): number {
    if (((iovaLo | paLo) & 0xfff) !== 0) return -6;
    if ((prot & 3) === 0) return -22;
    const sign = iovaHi >> 15;
    if ((sign !== 0 && sign !== -1) || paHi >>> 24 !== 0) return -34;
    const table = this.#descend(iovaHi, iovaLo);
    if (table < 0) return table;
    const words = this.words;
    const at = table | ((iovaLo >>> 11) & 0x3fe);
    if (words[at] !== 0) return -98;
    words[at] = (paHi << 30) | (paLo >>> 2) | ((prot & 3) << 1) | 0xc1;
    words[at + 1] = paHi >>> 2;
    return 0;
  }

  /** Maps `count` 4 KiB pages to consecutive physical pages; returns as {@link mapPage}, and stops at the first refusal. */
  mapRange(iovaHi: number, iovaLo: number, paHi: number, paLo: number, count: number, prot: number): number {
    if (((iovaLo | paLo) & 0xfff) !== 0) return -6;
    if ((prot & 3) === 0) return -22;
    const sign = iovaHi >> 15;
    if ((sign !== 0 && sign !== -1) || paHi >>> 24 !== 0) return -34;
    let high = paHi >>> 2;
    let low = (paHi << 30) | (paLo >>> 2) | ((prot & 3) << 1) | 0xc1;
    let hi = iovaHi | 0;
    let lo = iovaLo | 0;
    for (let left = count; left > 0;) {
      const table = this.#descend(hi, lo);
      if (table < 0) return table;
      const index = (lo >>> 12) & 0x1ff;
      // Entries to the end of this table, and to the next carry of the low word: usually the first.
      let run = Math.min(left, 512 - index);
      const toCarry = 0x40_0000 - (low >>> 10);
      if (run > toCarry) run = toCarry;
      if (this.fill(table | (index << 1), run, high, low) !== run) return -98;
      left -= run;
      low = (low + run * 0x400) | 0;
      if (run === toCarry) high = (high + 1) | 0;
      lo = (lo + run * 0x1000) | 0;
      if ((lo & 0xffff_f000) === 0) hi = (hi + 1) | 0;
    }
    return 0;
  }

  /**
   * The bulk fill: `count` entries from word `at`, low word rising by one page each (it must not carry), provided that they
   * were empty. Four entries at a time are checked and then written. Returns how many were empty and are now filled.
   */
  fill(at: number, count: number, high: number, low: number): number {
    const words = this.words;
    const start = at | 0;
    const end = (start + 2 * count) | 0;
    const end4 = (end - 6) | 0;
    const hi = high | 0;
    let lo = low | 0;
    let i = start;
    for (; i < end4; i = (i + 8) | 0) {
      if ((words[i]! | words[i + 2]! | words[i + 4]! | words[i + 6]!) !== 0) break;
      words[i] = lo;
      words[i + 1] = hi;
      words[i + 2] = (lo + 0x400) | 0;
      words[i + 3] = hi;
      words[i + 4] = (lo + 0x800) | 0;
      words[i + 5] = hi;
      words[i + 6] = (lo + 0xc00) | 0;
      words[i + 7] = hi;
      lo = (lo + 0x1000) | 0;
    }
    for (; i < end; i = (i + 2) | 0) {
      if (words[i] !== 0) break;
      words[i] = lo;
      words[i + 1] = hi;
      lo = (lo + 0x400) | 0;
    }
    return (i - start) >> 1;
  }

  /** Clears one 4 KiB page; false when it was not mapped. Tables stay. */
  unmapPage(hi: number, lo: number): boolean {
    const words = this.words;
    const sign = hi >> 15;
    if (sign !== 0 && sign !== -1) return false;
    let entry = words[1024 | ((hi >> 6) & 0x3fe)]!;
    if ((entry & 0xf) !== 1) return false;
    entry = words[(entry & 0xffff_fc00) | ((hi << 3) & 0x3f8) | ((lo >>> 29) & 6)]!;
    if ((entry & 0xf) !== 1) return false;
    entry = words[(entry & 0xffff_fc00) | ((lo >>> 20) & 0x3fe)]!;
    if ((entry & 0xf) !== 1) return false;
    const at = (entry & 0xffff_fc00) | ((lo >>> 11) & 0x3fe);
    if ((words[at]! & 1) === 0) return false;
    words[at] = 0;
    words[at + 1] = 0;
    return true;
  }

  /** Word index of the lowest table for `hi:lo`, made where it is absent; -98 below a larger leaf, -12 out of pages. */
  #descend(hi: number, lo: number): number {
    const words = this.words;
    let at = 1024 | ((hi >> 6) & 0x3fe);
    let entry = words[at]!;
    if ((entry & 0xf) !== 1 && (entry = this.#grow(at, entry)) < 0) return entry;
    // Own tables lie below 4 GiB: PPN fits the low word, and PPN * 1024 words is the entry without its flags.
    at = (entry & 0xffff_fc00) | ((hi << 3) & 0x3f8) | ((lo >>> 29) & 6);
    entry = words[at]!;
    if ((entry & 0xf) !== 1 && (entry = this.#grow(at, entry)) < 0) return entry;
    at = (entry & 0xffff_fc00) | ((lo >>> 20) & 0x3fe);
    entry = words[at]!;
    if ((entry & 0xf) !== 1 && (entry = this.#grow(at, entry)) < 0) return entry;
    return entry & 0xffff_fc00;
  }

  /** A new table below the entry at `at`; returns the entry, or -98 when a leaf stands there, or -12. */
  #grow(at: number, entry: number): number {
    if (entry !== 0) return -98;
    if (this.#next >= this.#pages) return -12;
    const page = this.#next++;
    this.words.fill(0, page << 10, (page + 1) << 10);
    const made = (page << 10) | 1;
    this.words[at] = made;
    this.words[at + 1] = 0;
    return made;
  }
}

/** The other yardstick: as many bytes as `count` entries of 8 bytes have, written by the host's own `TypedArray.fill`. */
export const typedArrayFill = (words: Int32Array, at: number, count: number, value: number): void => {
  words.fill(value, at, at + 2 * count);
};
