import { IommuError, checkU64, hex, pfnOf } from '@iommu-ts/bits';
import { CHUNK_PFNS, RamRange } from './ram-range.ts';
import type { RamOptions } from './ram-range.ts';

/** What answers accesses to an MMIO range. Values are unsigned; `offset` counts from the range's base. */
export interface MmioHandler {
  read(offset: number, size: 1 | 2 | 4 | 8): bigint;
  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void;
}

/** A range of addresses that is not RAM. */
export interface MmioRange {
  readonly name: string;
  readonly base: bigint;
  readonly size: bigint;
  readonly handler: MmioHandler;
}

/** Largest flat range in 4 KiB pages: what one WebAssembly memory holds (4 GiB). */
const MAX_FLAT_PFNS = 0x10_0000;

const ZERO_CHUNK = new Int32Array(CHUNK_PFNS * 1024);
const ZERO_BYTES = new Uint8Array(ZERO_CHUNK.buffer);
/** Blocks whose byte views are kept: a power of two. */
const BYTE_VIEWS = 16;

/**
 * Emulated physical memory: RAM ranges with a NUMA node, flat or sparse, and MMIO ranges.
 *
 * Two faces:
 * - the **device path** (`load…`, `store…`, `copyIn`, `copyOut`, `locate`) takes addresses as words, allocates nothing
 *   and never throws: an access outside everything is a bus error, told by `busError` or a false result;
 * - the **friendly path** (`read…`, `write…`) takes `bigint` addresses and throws `IommuError` `EIO` instead.
 *
 * Values are little-endian. RAM reads as zero until written.
 */
export class PhysicalMemory {
  readonly #ranges: RamRange[] = [];
  readonly #mmio: MmioRange[] = [];
  #last: RamRange | null = null;

  /** After `load8/16/32/64`: true when nothing answered. */
  busError = false;
  /** High word of the last {@link load64}, as int32. */
  hi = 0;
  /** Low word of the last {@link load64}, as int32. */
  lo = 0;
  /** After a successful {@link locate}: the words that hold the page, and the index of its first word. */
  view: Int32Array = ZERO_CHUNK;
  index = 0;

  /** @throws IommuError `EALIGN`, `ERANGE`, `EADDRINUSE` as {@link addRam}. */
  constructor(ranges: readonly RamOptions[] = []) {
    for (const range of ranges) this.addRam(range);
  }

  /** RAM ranges in the order they were added; a flat range above 4 GiB stands as several. */
  get ranges(): readonly RamRange[] {
    return this.#ranges;
  }

  /** MMIO ranges in the order they were added. */
  get mmioRanges(): readonly MmioRange[] {
    return this.#mmio;
  }

  /** Adds RAM. @throws IommuError `EALIGN` not in whole 4 KiB pages, `ERANGE` empty or beyond 2^64, `EADDRINUSE` overlap. */
  addRam(options: RamOptions): void {
    const { base, size } = options;
    checkU64(base, 'base');
    checkU64(size, 'size');
    if ((base & 0xfffn) !== 0n || (size & 0xfffn) !== 0n) {
      throw new IommuError('EALIGN', `RAM ${hex(base)}+${hex(size)} is not in whole 4 KiB pages`, { base, size });
    }
    this.#checkFree(base, size);
    const basePfn = pfnOf(base);
    const endPfn = basePfn + pfnOf(size);
    const flat = options.kind === 'flat';
    const settings = { node: options.node ?? 0, flat, shared: options.shared ?? false };
    const step = flat ? MAX_FLAT_PFNS : endPfn - basePfn;
    for (let pfn = basePfn; pfn < endPfn; pfn += step) {
      this.#ranges.push(new RamRange(pfn, Math.min(pfn + step, endPfn), settings));
    }
    this.#last ??= this.#ranges[0]!;
  }

  /** Adds an MMIO range of any alignment. @throws IommuError `ERANGE`, `EADDRINUSE` as {@link addRam}. */
  addMmio(range: MmioRange): void {
    checkU64(range.base, 'base');
    checkU64(range.size, 'size');
    this.#checkFree(range.base, range.size);
    this.#mmio.push(range);
  }

  #checkFree(base: bigint, size: bigint): void {
    const end = base + size;
    if (size === 0n || end > 1n << 64n) {
      throw new IommuError('ERANGE', `range ${hex(base)}+${hex(size)} is empty or ends beyond 2^64`, { base, size });
    }
    const hit =
      this.#ranges.some((r) => base < BigInt(r.endPfn) << 12n && BigInt(r.basePfn) << 12n < end) ||
      this.#mmio.some((m) => base < m.base + m.size && m.base < end);
    if (hit) {
      throw new IommuError('EADDRINUSE', `range ${hex(base)}+${hex(size)} overlaps another range`, { base, size });
    }
  }

  /** The RAM range that holds page `pfn`, or null. */
  rangeOf(pfn: number): RamRange | null {
    const last = this.#last;
    if (last !== null && pfn >= last.basePfn && pfn < last.endPfn) return last;
    for (const range of this.#ranges) {
      if (pfn >= range.basePfn && pfn < range.endPfn) {
        this.#last = range;
        return range;
      }
    }
    return null;
  }

  /**
   * Finds the words of page `pfn`: sets {@link view} and {@link index} and returns true; false when it is not RAM.
   * A run of pages that is aligned to its size, up to 2 MiB, lies in one view. With `forWrite` a chunk of a sparse
   * range is made; without, an untouched one shows as a shared block of zeros that must not be written.
   */
  locate(pfn: number, forWrite: boolean): boolean {
    const range = this.rangeOf(pfn);
    if (range === null) return false;
    if (range.flat) {
      this.view = range.words;
      this.index = (pfn - range.basePfn) * 1024;
      return true;
    }
    this.view = range.chunk(pfn, forWrite) ?? ZERO_CHUNK;
    this.index = (pfn & (CHUNK_PFNS - 1)) * 1024;
    return true;
  }

  /** 32 bits at `hi:lo` as int32; 0 with {@link busError} set when nothing answers. Misaligned addresses are read byte by byte. */
  load32(hi: number, lo: number): number {
    if ((lo & 3) === 0 && this.locate((hi >>> 0) * 0x10_0000 + (lo >>> 12), false)) {
      this.busError = false;
      return this.view[this.index + ((lo & 0xfff) >>> 2)]!;
    }
    return (this.#slowLoad(hi, lo, 4), this.lo);
  }

  /** 16 bits at `hi:lo`, unsigned; see {@link load32}. */
  load16(hi: number, lo: number): number {
    return (this.#slowLoad(hi, lo, 2), this.lo);
  }

  /** 8 bits at `hi:lo`, unsigned; see {@link load32}. */
  load8(hi: number, lo: number): number {
    return (this.#slowLoad(hi, lo, 1), this.lo);
  }

  /** 64 bits at `hi:lo` into the fields `hi` and `lo`; false (and zero, and {@link busError}) when nothing answers. */
  load64(hi: number, lo: number): boolean {
    if ((lo & 7) === 0 && this.locate((hi >>> 0) * 0x10_0000 + (lo >>> 12), false)) {
      const at = this.index + ((lo & 0xfff) >>> 2);
      this.lo = this.view[at]!;
      this.hi = this.view[at + 1]!;
      this.busError = false;
      return true;
    }
    return this.#slowLoad(hi, lo, 8);
  }

  /** Writes 32 bits; false when nothing answers (nothing is written then). */
  store32(hi: number, lo: number, value: number): boolean {
    if ((lo & 3) === 0 && this.locate((hi >>> 0) * 0x10_0000 + (lo >>> 12), true)) {
      this.view[this.index + ((lo & 0xfff) >>> 2)] = value;
      return true;
    }
    return this.#slowStore(hi, lo, 4, 0, value);
  }

  /** Writes 16 bits; see {@link store32}. */
  store16(hi: number, lo: number, value: number): boolean {
    return this.#slowStore(hi, lo, 2, 0, value);
  }

  /** Writes 8 bits; see {@link store32}. */
  store8(hi: number, lo: number, value: number): boolean {
    return this.#slowStore(hi, lo, 1, 0, value);
  }

  /** Writes 64 bits, `valueLo` at the lower address; see {@link store32}. */
  store64(hi: number, lo: number, valueHi: number, valueLo: number): boolean {
    if ((lo & 7) === 0 && this.locate((hi >>> 0) * 0x10_0000 + (lo >>> 12), true)) {
      const at = this.index + ((lo & 0xfff) >>> 2);
      this.view[at] = valueLo;
      this.view[at + 1] = valueHi;
      return true;
    }
    return this.#slowStore(hi, lo, 8, valueHi, valueLo);
  }

  /** Copies `length` bytes at `hi:lo` to `target[offset…]`; false when part of it is not RAM (what came before is copied). */
  copyOut(hi: number, lo: number, target: Uint8Array, offset: number, length: number): boolean {
    return this.#copy(hi, lo, target, offset, length, false);
  }

  /** Copies `source[offset…offset+length]` to `hi:lo`; false when part of it is not RAM (what came before is written). */
  copyIn(hi: number, lo: number, source: Uint8Array, offset: number, length: number): boolean {
    return this.#copy(hi, lo, source, offset, length, true);
  }

  /** Sets `size` bytes (whole pages) at page `pfn` to zero. Used by the allocator; ignores what is not RAM. */
  zeroPages(pfn: number, size: number): void {
    for (let done = 0; done < size;) {
      const page = pfn + done / 4096;
      const range = this.rangeOf(page);
      if (range === null) return;
      const last = range.flat ? range.endPfn : Math.min(range.endPfn, (Math.floor(page / CHUNK_PFNS) + 1) * CHUNK_PFNS);
      const step = Math.min(size - done, (last - page) * 4096);
      if (range.flat || range.chunk(page, false) !== undefined) {
        this.locate(page, true);
        this.view.fill(0, this.index, this.index + step / 4);
      }
      done += step;
    }
  }

  /** Reads `length` bytes. @throws IommuError `EIO` when part of it is not RAM. */
  readBytes(address: bigint, length: number): Uint8Array {
    checkU64(address, 'address');
    const out = new Uint8Array(length);
    if (!this.#copy(Number(address >> 32n), Number(address & 0xffff_ffffn), out, 0, length, false)) {
      throw busError(address, length);
    }
    return out;
  }

  /** Writes bytes. @throws IommuError `EIO` when part of it is not RAM. */
  writeBytes(address: bigint, bytes: Uint8Array): void {
    checkU64(address, 'address');
    if (!this.#copy(Number(address >> 32n), Number(address & 0xffff_ffffn), bytes, 0, bytes.length, true)) {
      throw busError(address, bytes.length);
    }
  }

  /** Reads 64 bits from RAM or MMIO. @throws IommuError `EIO` when nothing answers. */
  readU64(address: bigint): bigint {
    return this.read(address, 8);
  }

  /** Writes 64 bits to RAM or MMIO. @throws IommuError `EIO` when nothing answers. */
  writeU64(address: bigint, value: bigint): void {
    this.write(address, 8, value);
  }

  /** Reads 1, 2, 4 or 8 bytes as an unsigned value from RAM or MMIO. @throws IommuError `EIO` when nothing answers. */
  read(address: bigint, size: 1 | 2 | 4 | 8): bigint {
    checkU64(address, 'address');
    if (!this.#slowLoad(Number(address >> 32n), Number(address & 0xffff_ffffn), size)) throw busError(address, size);
    return (BigInt(this.hi >>> 0) << 32n) | BigInt(this.lo >>> 0);
  }

  /** Writes 1, 2, 4 or 8 bytes to RAM or MMIO. @throws IommuError `EIO` when nothing answers. */
  write(address: bigint, size: 1 | 2 | 4 | 8, value: bigint): void {
    checkU64(address, 'address');
    checkU64(value, 'value');
    const [valueHi, valueLo] = [Number(value >> 32n), Number(value & 0xffff_ffffn)];
    if (!this.#slowStore(Number(address >> 32n), Number(address & 0xffff_ffffn), size, valueHi, valueLo)) {
      throw busError(address, size);
    }
  }

  readonly #small = new Uint8Array(8);

  /** Any size and alignment, RAM or MMIO, into `hi`/`lo`. */
  #slowLoad(hi: number, lo: number, size: 1 | 2 | 4 | 8): boolean {
    this.busError = false;
    this.hi = 0;
    this.lo = 0;
    const small = this.#small.fill(0);
    if (this.#copy(hi, lo, small, 0, size, false)) {
      this.lo = small[0]! | (small[1]! << 8) | (small[2]! << 16) | (small[3]! << 24);
      this.hi = small[4]! | (small[5]! << 8) | (small[6]! << 16) | (small[7]! << 24);
      return true;
    }
    const range = this.#mmio.length === 0 ? undefined : this.#mmioOf(hi, lo, size);
    if (range === undefined) {
      this.busError = true;
      return false;
    }
    const value = range.handler.read(Number(addressOf(hi, lo) - range.base), size);
    this.hi = Number(BigInt.asIntN(32, value >> 32n));
    this.lo = Number(BigInt.asIntN(32, value));
    return true;
  }

  #slowStore(hi: number, lo: number, size: 1 | 2 | 4 | 8, valueHi: number, valueLo: number): boolean {
    const small = this.#small;
    for (let i = 0; i < 4; i++) {
      small[i] = valueLo >>> (8 * i);
      small[i + 4] = valueHi >>> (8 * i);
    }
    // Nothing is written unless every byte can be.
    if (this.#isRam(hi, lo, size)) return this.#copy(hi, lo, small, 0, size, true);
    const range = this.#mmio.length === 0 ? undefined : this.#mmioOf(hi, lo, size);
    if (range === undefined) return false;
    const value = (BigInt(valueHi >>> 0) << 32n) | BigInt(valueLo >>> 0);
    range.handler.write(Number(addressOf(hi, lo) - range.base), size, BigInt.asUintN(8 * size, value));
    return true;
  }

  #isRam(hi: number, lo: number, size: number): boolean {
    const first = (hi >>> 0) * 0x10_0000 + (lo >>> 12);
    const last = first + (((lo & 0xfff) + size - 1) >>> 12);
    return this.rangeOf(first) !== null && (last === first || this.rangeOf(last) !== null);
  }

  #mmioOf(hi: number, lo: number, size: number): MmioRange | undefined {
    const address = addressOf(hi, lo);
    return this.#mmio.find((m) => address >= m.base && address + BigInt(size) <= m.base + m.size);
  }

  /** Bytes of the words in {@link view}; the views of the last few blocks are kept, as a new one costs an allocation. */
  #bytesOf(pfn: number): Uint8Array {
    const view = this.view;
    const slot = (pfn >>> 9) & (BYTE_VIEWS - 1);
    if (this.#viewed[slot] === view) return this.#byteViews[slot]!;
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    this.#viewed[slot] = view;
    this.#byteViews[slot] = bytes;
    return bytes;
  }
  readonly #viewed: Int32Array[] = Array.from({ length: BYTE_VIEWS }, () => ZERO_CHUNK);
  readonly #byteViews: Uint8Array[] = Array.from({ length: BYTE_VIEWS }, () => ZERO_BYTES);

  #copy(hi: number, lo: number, bytes: Uint8Array, offset: number, length: number, write: boolean): boolean {
    let pfn = (hi >>> 0) * 0x10_0000 + (lo >>> 12);
    let inPage = lo & 0xfff;
    if (length <= 4096 - inPage) {
      // Within a page, as every part of a DMA is.
      if (!this.locate(pfn, write)) return false;
      move(this.#bytesOf(pfn), this.index * 4 + inPage, bytes, offset, length, write);
      return true;
    }
    for (let done = 0; done < length;) {
      const range = this.rangeOf(pfn);
      if (range === null) return false;
      const last = range.flat ? range.endPfn : Math.min(range.endPfn, (Math.floor(pfn / CHUNK_PFNS) + 1) * CHUNK_PFNS);
      const step = Math.min(length - done, (last - pfn) * 4096 - inPage);
      this.locate(pfn, write);
      const at = this.index * 4 + inPage;
      move(this.#bytesOf(pfn), at, bytes, offset + done, step, write);
      done += step;
      const next = inPage + step;
      pfn += Math.floor(next / 4096);
      inPage = next % 4096;
    }
    return true;
  }
}

/** Copies `length` bytes between `ram[at…]` and `bytes[offset…]`. */
const move = (ram: Uint8Array, at: number, bytes: Uint8Array, offset: number, length: number, write: boolean): void => {
  if (length <= 32) {
    // Below that a loop is faster than the call, which needs a view of the part.
    if (write) for (let i = 0; i < length; i++) ram[at + i] = bytes[offset + i]!;
    else for (let i = 0; i < length; i++) bytes[offset + i] = ram[at + i]!;
  } else if (write) ram.set(length === bytes.length ? bytes : bytes.subarray(offset, offset + length), at);
  else bytes.set(ram.subarray(at, at + length), offset);
};

const addressOf = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);

const busError = (address: bigint, size: number): IommuError =>
  new IommuError('EIO', `nothing answers at physical address ${hex(address)} (${size} bytes)`, { address, size });
