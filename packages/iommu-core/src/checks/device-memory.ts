/** Memory as the device sees it: every access of walkers, structure readers and queues goes through here. */
import { checkU64, pfnOfWords } from '@iommu-ts/bits';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { CacheMaintenance, MmioRange, RamOptions, RamRange } from '@iommu-ts/iommu-pages';

/** Pages that are copied together when a probe writes: the largest table that a walker reads through one `locate`. */
const RUN = 16;
const LINE = 64;
const PAGE_WORDS = 1024;

/** What the device sees of a block whose CPU cache lines have not all been written back. */
interface Image {
  readonly pfn: number;
  readonly words: Int32Array;
}

/**
 * A view of a {@link PhysicalMemory}, the same in all that it answers, which
 * - tells of accesses to pages in {@link freed};
 * - while probing keeps writes to itself, and forgets them afterwards;
 * - on an incoherent machine shows what has been written back, not what the CPU has written.
 *
 * It holds no RAM of its own.
 */
export class DeviceMemory extends PhysicalMemory implements CacheMaintenance {
  readonly #real: PhysicalMemory;
  readonly #images = new Map<number, Image>();
  readonly #overlay = new Map<number, Int32Array>();
  readonly #bytes = new Uint8Array(8);
  readonly #values = new Int32Array(this.#bytes.buffer);
  #probing = false;
  /** A probe that looks through the CPU's cache. */
  #coherent = false;
  /** A page of an image that the device was given to write, and what it held before. */
  #lent: { readonly image: Image; readonly at: number; readonly before: Int32Array } | null = null;

  /** Pages whose use is told by {@link onFreed}. */
  freed: ReadonlyMap<number, unknown> = new Map();
  /** Called when the device comes to one of them. */
  onFreed: ((pfn: number, write: boolean) => void) | null = null;
  /** During a probe: the first freed page that it came to, -1 for none, and the pages that it read. */
  probeFreed = -1;
  readonly probePages = new Set<number>();
  /** Lines written back so far, and those of them that needed it not. */
  linesCleaned = 0;
  linesEqual = 0;

  /** @param real the memory that is seen through this */
  constructor(real: PhysicalMemory) {
    super();
    this.#real = real;
  }

  override get ranges(): readonly RamRange[] {
    return this.#real.ranges;
  }
  override get mmioRanges(): readonly MmioRange[] {
    return this.#real.mmioRanges;
  }
  override addRam(options: RamOptions): void {
    this.#real.addRam(options);
  }
  override addMmio(range: MmioRange): void {
    this.#real.addMmio(range);
  }
  override rangeOf(pfn: number): RamRange | null {
    return this.#real.rangeOf(pfn);
  }
  override zeroPages(pfn: number, size: number): void {
    this.#real.zeroPages(pfn, size);
  }

  /** Until {@link endProbe} writes stay here; with `coherent`, images are looked through. */
  beginProbe(coherent = false): void {
    this.settle();
    this.#probing = true;
    this.#coherent = coherent;
    this.probeFreed = -1;
    this.probePages.clear();
  }

  /** Ends {@link beginProbe}: what was written since is forgotten. */
  endProbe(): void {
    this.#probing = false;
    this.#coherent = false;
    this.#overlay.clear();
  }

  override locate(pfn: number, forWrite: boolean): boolean {
    if (this.#lent !== null) this.settle();
    if (this.freed.has(pfn)) {
      if (!this.#probing) this.onFreed?.(pfn, forWrite);
      else if (this.probeFreed < 0) this.probeFreed = pfn;
    }
    if (this.#probing) return this.#locateProbing(pfn, forWrite);
    const image = this.#images.get(pfn);
    if (image !== undefined) {
      this.view = image.words;
      this.index = (pfn - image.pfn) * PAGE_WORDS;
      if (forWrite) {
        const before = image.words.slice(this.index, this.index + PAGE_WORDS);
        this.#lent = { image, at: this.index, before };
      }
      return true;
    }
    return this.#locateReal(pfn, forWrite);
  }

  #locateReal(pfn: number, forWrite: boolean): boolean {
    const real = this.#real;
    if (!real.locate(pfn, forWrite)) return false;
    this.view = real.view;
    this.index = real.index;
    return true;
  }

  #locateProbing(pfn: number, forWrite: boolean): boolean {
    this.probePages.add(pfn);
    const inRun = pfn % RUN;
    const run = this.#overlay.get(pfn - inRun);
    if (run !== undefined) {
      if (this.rangeOf(pfn) === null) return false;
      this.view = run;
      this.index = inRun * PAGE_WORDS;
      return true;
    }
    if (forWrite) {
      if (this.rangeOf(pfn) === null) return false;
      const copy = new Int32Array(RUN * PAGE_WORDS);
      for (let i = 0; i < RUN; i++) {
        if (!this.#locateUnwritten(pfn - inRun + i)) continue;
        copy.set(this.view.subarray(this.index, this.index + PAGE_WORDS), i * PAGE_WORDS);
      }
      this.#overlay.set(pfn - inRun, copy);
      this.view = copy;
      this.index = inRun * PAGE_WORDS;
      return true;
    }
    return this.#locateUnwritten(pfn);
  }

  /** The page as the device (or, on a coherent probe, the CPU) has it, for reading. */
  #locateUnwritten(pfn: number): boolean {
    const image = this.#coherent ? undefined : this.#images.get(pfn);
    if (image === undefined) return this.#locateReal(pfn, false);
    this.view = image.words;
    this.index = (pfn - image.pfn) * PAGE_WORDS;
    return true;
  }

  /** What the device wrote to an image goes to memory as well: it writes past the CPU's caches. */
  settle(): void {
    const lent = this.#lent;
    if (lent === null) return;
    this.#lent = null;
    const { image, at, before } = lent;
    if (!this.#real.locate(image.pfn + at / PAGE_WORDS, true)) return;
    const { view, index } = this.#real;
    for (let i = 0; i < PAGE_WORDS; i++) if (image.words[at + i] !== before[i]) view[index + i] = image.words[at + i]!;
  }

  /** From now on the device sees of the block at `pfn` what is written back; until then `pattern`, or what is there now. */
  imageBegin(pfn: number, bytes: number, pattern: { readonly hi: number; readonly lo: number } | null): void {
    const words = new Int32Array(bytes / 4);
    const image: Image = { pfn, words };
    for (let i = 0; i < bytes / 4096; i++) {
      if (pattern === null && this.#real.locate(pfn + i, false)) {
        const { view, index } = this.#real;
        words.set(view.subarray(index, index + PAGE_WORDS), i * PAGE_WORDS);
      }
      this.#images.set(pfn + i, image);
    }
    if (pattern !== null) for (let i = 0; i < words.length; i++) words[i] = (i & 1) === 0 ? pattern.lo : pattern.hi;
  }

  /** The block is seen as the CPU writes it again. */
  imageEnd(pfn: number, bytes: number): void {
    this.settle();
    for (let i = 0; i < bytes / 4096; i++) this.#images.delete(pfn + i);
  }

  /** True when the device sees page `pfn` through an image. */
  hasImage(pfn: number): boolean {
    return this.#images.has(pfn);
  }

  /** Bytes `offset … offset + length` of the block at `pfn` are written back, in whole cache lines. */
  clean(pfn: number, offset: number, length: number): void {
    this.settle();
    const end = Math.ceil((offset + length) / LINE) * LINE;
    for (let at = Math.floor(offset / LINE) * LINE; at < end; at += LINE) {
      const page = pfn + Math.floor(at / 4096);
      const image = this.#images.get(page);
      if (image === undefined || !this.#real.locate(page, false)) continue;
      const { view, index } = this.#real;
      const from = index + (at % 4096) / 4;
      const to = (page - image.pfn) * PAGE_WORDS + (at % 4096) / 4;
      let equal = true;
      for (let i = 0; i < LINE / 4; i++) {
        if (image.words[to + i] === view[from + i]) continue;
        equal = false;
        image.words[to + i] = view[from + i]!;
      }
      this.linesCleaned++;
      if (equal) this.linesEqual++;
    }
  }

  /** Byte offsets in page `pfn` of the 64-bit words that the CPU has written and the device does not see. */
  unseen(pfn: number): number[] {
    this.settle();
    const image = this.#images.get(pfn);
    const offsets: number[] = [];
    if (image === undefined || !this.#real.locate(pfn, false)) return offsets;
    const { view, index } = this.#real;
    const at = (pfn - image.pfn) * PAGE_WORDS;
    for (let i = 0; i < PAGE_WORDS; i += 2) {
      if (image.words[at + i] !== view[index + i] || image.words[at + i + 1] !== view[index + i + 1]) {
        offsets.push(i * 4);
      }
    }
    return offsets;
  }

  override load32(hi: number, lo: number): number {
    if ((lo & 3) === 0 && this.locate(pfnOfWords(hi, lo), false)) {
      this.busError = false;
      return this.view[this.index + ((lo & 0xfff) >>> 2)]!;
    }
    if (!this.#loadBytes(hi, lo, 4)) this.#taken(this.#real.load32(hi, lo));
    return this.lo;
  }

  override load16(hi: number, lo: number): number {
    if (!this.#loadBytes(hi, lo, 2)) this.#taken(this.#real.load16(hi, lo));
    return this.lo;
  }

  override load8(hi: number, lo: number): number {
    if (!this.#loadBytes(hi, lo, 1)) this.#taken(this.#real.load8(hi, lo));
    return this.lo;
  }

  override load64(hi: number, lo: number): boolean {
    if (this.#loadBytes(hi, lo, 8)) return true;
    const found = this.#real.load64(hi, lo);
    this.hi = this.#real.hi;
    this.lo = this.#real.lo;
    this.busError = this.#real.busError;
    return found;
  }

  /** The value that the real memory gave, for what is not RAM. */
  #taken(value: number): void {
    this.lo = value;
    this.hi = 0;
    this.busError = this.#real.busError;
  }

  #loadBytes(hi: number, lo: number, size: number): boolean {
    this.#values.fill(0);
    if (!this.copyOut(hi, lo, this.#bytes, 0, size)) return false;
    this.lo = this.#values[0]!;
    this.hi = this.#values[1]!;
    this.busError = false;
    return true;
  }

  override store32(hi: number, lo: number, value: number): boolean {
    return this.#storeBytes(hi, lo, 4, 0, value) ?? this.#real.store32(hi, lo, value);
  }
  override store16(hi: number, lo: number, value: number): boolean {
    return this.#storeBytes(hi, lo, 2, 0, value) ?? this.#real.store16(hi, lo, value);
  }
  override store8(hi: number, lo: number, value: number): boolean {
    return this.#storeBytes(hi, lo, 1, 0, value) ?? this.#real.store8(hi, lo, value);
  }
  override store64(hi: number, lo: number, valueHi: number, valueLo: number): boolean {
    return this.#storeBytes(hi, lo, 8, valueHi, valueLo) ?? this.#real.store64(hi, lo, valueHi, valueLo);
  }

  /** True when it was RAM; undefined when the real memory has to answer. A probe writes to no register. */
  #storeBytes(hi: number, lo: number, size: number, valueHi: number, valueLo: number): boolean | undefined {
    const first = pfnOfWords(hi, lo);
    const last = first + (((lo & 0xfff) + size - 1) >>> 12);
    // Nothing is written unless every byte can be.
    if (this.rangeOf(first) !== null && (last === first || this.rangeOf(last) !== null)) {
      this.#values[0] = valueLo;
      this.#values[1] = valueHi;
      return this.copyIn(hi, lo, this.#bytes, 0, size);
    }
    if (!this.#probing) return undefined;
    const address = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
    return this.mmioRanges.some((m) => address >= m.base && address + BigInt(size) <= m.base + m.size);
  }

  override copyOut(hi: number, lo: number, target: Uint8Array, offset: number, length: number): boolean {
    return this.#copyPages(hi, lo, target, offset, length, false);
  }
  override copyIn(hi: number, lo: number, source: Uint8Array, offset: number, length: number): boolean {
    return this.#copyPages(hi, lo, source, offset, length, true);
  }

  #copyPages(hi: number, lo: number, bytes: Uint8Array, offset: number, length: number, write: boolean): boolean {
    let pfn = pfnOfWords(hi, lo);
    let inPage = lo & 0xfff;
    let done = 0;
    do {
      if (!this.locate(pfn, write)) return false;
      const step = Math.min(length - done, 4096 - inPage);
      const ram = new Uint8Array(this.view.buffer, this.view.byteOffset + this.index * 4 + inPage, step);
      const part = bytes.subarray(offset + done, offset + done + step);
      if (write) ram.set(part);
      else part.set(ram);
      done += step;
      pfn++;
      inPage = 0;
    } while (done < length);
    return true;
  }

  override readBytes(address: bigint, length: number): Uint8Array {
    checkU64(address, 'address');
    const out = new Uint8Array(length);
    return this.copyOut(hiOf(address), loOf(address), out, 0, length) ? out : this.#real.readBytes(address, length);
  }

  override writeBytes(address: bigint, bytes: Uint8Array): void {
    checkU64(address, 'address');
    // What is not RAM throws there.
    if (!this.copyIn(hiOf(address), loOf(address), bytes, 0, bytes.length)) this.#real.writeBytes(address, bytes);
  }

  override read(address: bigint, size: 1 | 2 | 4 | 8): bigint {
    checkU64(address, 'address');
    if (!this.#loadBytes(hiOf(address), loOf(address), size)) return this.#real.read(address, size);
    return (BigInt(this.hi >>> 0) << 32n) | BigInt(this.lo >>> 0);
  }

  override write(address: bigint, size: 1 | 2 | 4 | 8, value: bigint): void {
    checkU64(address, 'address');
    checkU64(value, 'value');
    const stored = this.#storeBytes(hiOf(address), loOf(address), size, hiOf(value), loOf(value));
    if (stored === undefined) this.#real.write(address, size, value);
  }
}

const hiOf = (value: bigint): number => Number(value >> 32n);
const loOf = (value: bigint): number => Number(value & 0xffff_ffffn);
