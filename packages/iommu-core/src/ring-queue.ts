import { loOfPfn, hiOfPfn } from '@iommu-ts/bits';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';

/**
 * A ring of fixed-size entries in emulated memory, as every IOMMU but DART has them (command, event, page-request queues).
 * This is only the arithmetic and the bytes: the owner keeps the index registers. Indices count entries and wrap at `entries`.
 */
export class RingQueue {
  readonly memory: PhysicalMemory;
  /** Page frame number of the ring's first byte. */
  pfn = 0;
  /** Number of entries, a power of two. */
  entries = 0;
  readonly entryBytes: number;
  /** Words of the entry that {@link read} loaded last, or that {@link write} will store. */
  readonly words: Int32Array;

  constructor(memory: PhysicalMemory, entryBytes: number) {
    this.memory = memory;
    this.entryBytes = entryBytes;
    this.words = new Int32Array(entryBytes / 4);
  }

  /** Places the ring. */
  place(pfn: number, entries: number): void {
    this.pfn = pfn;
    this.entries = entries;
  }

  /** Loads entry `index` into {@link words}; false on a bus error. */
  read(index: number): boolean {
    const byte = index * this.entryBytes;
    const pfn = this.pfn + Math.floor(byte / 4096);
    if (!this.memory.locate(pfn, false)) return false;
    const at = this.memory.index + ((byte & 0xfff) >>> 2);
    const view = this.memory.view;
    for (let i = 0; i < this.words.length; i++) this.words[i] = view[at + i]!;
    return true;
  }

  /** Stores {@link words} as entry `index`; false on a bus error. */
  write(index: number): boolean {
    const byte = index * this.entryBytes;
    const pfn = this.pfn + Math.floor(byte / 4096);
    if (!this.memory.locate(pfn, true)) return false;
    const at = this.memory.index + ((byte & 0xfff) >>> 2);
    const view = this.memory.view;
    for (let i = 0; i < this.words.length; i++) view[at + i] = this.words[i]!;
    return true;
  }

  /** High and low word of the address of entry `index`, for fault records. */
  addressHi(index: number): number {
    return hiOfPfn(this.pfn + Math.floor((index * this.entryBytes) / 4096));
  }
  /** Low word of the address of entry `index`, as int32. */
  addressLo(index: number): number {
    const byte = index * this.entryBytes;
    return loOfPfn(this.pfn + Math.floor(byte / 4096)) | (byte & 0xfff);
  }
}
