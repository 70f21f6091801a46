/** Ranges of emulated RAM: flat (one block, host memory only where touched) or sparse (2 MiB chunks on first touch). */

/** 4 KiB pages in one chunk of a sparse range: 2 MiB, so that no naturally aligned table up to 2 MiB is ever split. */
export const CHUNK_PFNS = 512;
const CHUNK_WORDS = CHUNK_PFNS * 1024;

/** The part of `WebAssembly.Memory` that is used; the library does not need DOM types. */
export interface WasmMemory {
  readonly buffer: ArrayBuffer;
}

interface WasmNamespace {
  Memory: new (descriptor: { initial: number; maximum: number; shared?: boolean }) => WasmMemory;
}

/** How a range is to be backed; see {@link PhysicalMemory.addRam}. */
export interface RamOptions {
  /** First address; a multiple of 4 KiB, may lie above 4 GiB. */
  readonly base: bigint;
  /** Length in bytes; a multiple of 4 KiB. */
  readonly size: bigint;
  /** NUMA node (default 0). */
  readonly node?: number;
  /** `'flat'`: one block, fastest, reserves address space. `'sparse'` (default): 2 MiB chunks made on first write. */
  readonly kind?: 'flat' | 'sparse';
  /** Back it by shared memory, so that workers can see it (default false). */
  readonly shared?: boolean;
}

const EMPTY = new Int32Array(0);
const EMPTY_BYTES = new Uint8Array(0);

/**
 * Most chunks that a range keeps in a plain list (512 GiB of address space). A list with a far element set first would be
 * turned into a hash table by the host, at several times the cost of a look-up; larger ranges use a map knowingly.
 */
const MAX_LISTED_CHUNKS = 1 << 18;

/** One range of RAM. All ranges have one hidden class, whatever their kind. */
export class RamRange {
  readonly basePfn: number;
  readonly endPfn: number;
  readonly node: number;
  readonly flat: boolean;
  readonly shared: boolean;
  /** Flat: all words of the range, word 0 at `basePfn`. Sparse: empty. */
  readonly words: Int32Array;
  /** Flat: all bytes of the range. Sparse: empty. */
  readonly bytes: Uint8Array;
  /** Flat, where the host has WebAssembly: the memory that `words` lies in, for the SIMD fill. */
  readonly wasm: WasmMemory | null;
  readonly #firstChunk: number;
  readonly #chunks: (Int32Array | undefined)[] = [];
  readonly #far: Map<number, Int32Array> | null;

  constructor(basePfn: number, endPfn: number, options: { node: number; flat: boolean; shared: boolean }) {
    this.basePfn = basePfn;
    this.endPfn = endPfn;
    this.node = options.node;
    this.flat = options.flat;
    this.shared = options.shared;
    let wasm: WasmMemory | null = null;
    let buffer: ArrayBufferLike | null = null;
    if (options.flat) {
      const size = (endPfn - basePfn) * 4096;
      wasm = wasmMemory(size, options.shared);
      buffer = wasm !== null ? wasm.buffer : options.shared ? new SharedArrayBuffer(size) : new ArrayBuffer(size);
    }
    this.wasm = wasm;
    this.words = buffer === null ? EMPTY : new Int32Array(buffer as ArrayBuffer, 0, (endPfn - basePfn) * 1024);
    this.bytes = buffer === null ? EMPTY_BYTES : new Uint8Array(buffer as ArrayBuffer, 0, (endPfn - basePfn) * 4096);
    this.#firstChunk = chunkOf(basePfn);
    const count = chunkOf(endPfn - 1) - this.#firstChunk + 1;
    this.#far = !options.flat && count > MAX_LISTED_CHUNKS ? new Map() : null;
    if (!options.flat && this.#far === null) for (let i = 0; i < count; i++) this.#chunks.push(undefined);
  }

  /** Chunk that holds page `pfn` of a sparse range; made when `make`, else `undefined` where nothing was written. */
  chunk(pfn: number, make: boolean): Int32Array | undefined {
    const index = chunkOf(pfn) - this.#firstChunk;
    const far = this.#far;
    const chunk = far === null ? this.#chunks[index] : far.get(index);
    if (chunk !== undefined || !make) return chunk;
    const bytes = CHUNK_WORDS * 4;
    const made = new Int32Array((this.shared ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes)) as ArrayBuffer);
    if (far === null) this.#chunks[index] = made;
    else far.set(index, made);
    return made;
  }
}

/** Number of the 2 MiB chunk that holds page `pfn`; in integers where the page number allows it. */
const chunkOf = (pfn: number): number => (pfn <= 0x7fff_ffff ? pfn >>> 9 : Math.floor(pfn / CHUNK_PFNS));

/** A WebAssembly memory of `size` bytes, or null where the host has none (or no address space for it). */
const wasmMemory = (size: number, shared: boolean): WasmMemory | null => {
  const wasm = (globalThis as { WebAssembly?: WasmNamespace }).WebAssembly;
  const pages = Math.ceil(size / 65536);
  if (wasm === undefined || pages > 65536) return null;
  try {
    return new wasm.Memory(shared ? { initial: pages, maximum: pages, shared } : { initial: pages, maximum: pages });
  } catch {
    return null; // a plain buffer serves as well, only without the SIMD fill
  }
};
