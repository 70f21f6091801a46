/**
 * Runs of entries: fill, repeat, clear. The plain TypeScript forms serve sparse memory and hosts without WebAssembly
 * SIMD, and are the oracle for the other ones. An entry is empty here when all its 64 bits are zero.
 */
import type { RamRange, WasmMemory } from '@iommu-ts/iommu-pages';
import { BULK_WASM, BULK_WASM_SHARED } from './wasm/bulk.gen.ts';

/** The same loops in WebAssembly, over one memory; byte addresses as int32. */
export interface WasmBulk {
  fill(ptr: number, count: number, lo: number, hi: number, stepLo: number, stepHi: number, all: number): number;
  repeat(ptr: number, groups: number, perGroup: number, lo: number, hi: number, stepLo: number, stepHi: number): void;
  firstUsed(ptr: number, count: number): number;
  clear(ptr: number, count: number, maskLo: number, maskHi: number, valueLo: number, valueHi: number): number;
}

/** The parts of the host that are used; the library has no DOM types. */
interface Host {
  readonly WebAssembly?: {
    readonly Module: new (bytes: Uint8Array) => object;
    readonly Instance: new (module: object, imports: object) => { readonly exports: unknown };
  };
  readonly atob?: (text: string) => string;
}

/** One instance a memory, however many tables lie in it; null where it could not be made. */
const instances = new WeakMap<WasmMemory, { readonly bulk: WasmBulk | null }>();
/** The two compiled modules: plain and shared memory. */
const modules: (object | undefined)[] = [undefined, undefined];

const instantiate = (memory: WasmMemory, shared: boolean): WasmBulk | null => {
  const { WebAssembly: wasm, atob } = globalThis as Host;
  if (wasm === undefined || atob === undefined) return null;
  try {
    const which = shared ? 1 : 0;
    const compiled = (modules[which] ??= new wasm.Module(
      Uint8Array.from(atob(shared ? BULK_WASM_SHARED : BULK_WASM), (char) => char.charCodeAt(0)),
    ));
    return new wasm.Instance(compiled, { env: { memory } }).exports as WasmBulk;
  } catch {
    return null; // no SIMD, or a page whose policy forbids WebAssembly: the TypeScript loops do the same
  }
};

/** The WebAssembly loops over `range`, or null when it has no WebAssembly memory or the host no SIMD. */
export const bulkFor = (range: RamRange): WasmBulk | null => {
  const memory = range.wasm;
  if (memory === null) return null;
  let known = instances.get(memory);
  if (known === undefined) {
    known = { bulk: instantiate(memory, range.shared) };
    instances.set(memory, known);
  }
  return known.bulk;
};

/** Number of empty entries from word `at` on, at most `count`. */
export const firstUsed = (view: Int32Array, at: number, count: number): number => {
  for (let i = 0, w = at; i < count; i++, w += 2) if ((view[w]! | view[w + 1]!) !== 0) return i;
  return count;
};

/**
 * Writes `hi:lo`, `hi:lo + step`, … to `count` entries from word `at` on, as far as they are empty; with `all`, none of
 * them unless all are empty. Returns the number of empty entries found.
 */
export const fill = (
  view: Int32Array,
  at: number,
  count: number,
  lo: number,
  hi: number,
  stepLo: number,
  stepHi: number,
  all: boolean,
): number => {
  const free = firstUsed(view, at, count);
  if (all && free < count) return free;
  let l = lo | 0;
  let h = hi | 0;
  for (let i = 0, w = at; i < free; i++, w += 2) {
    // The word with the valid bit last, so that another thread never sees half an entry that is valid.
    view[w + 1] = h;
    view[w] = l;
    const next = (l + stepLo) | 0;
    h = (h + stepHi + (next >>> 0 < l >>> 0 ? 1 : 0)) | 0;
    l = next;
  }
  return free;
};

/** Writes `groups` values, each `perGroup` times; nothing is checked. */
export const repeat = (
  view: Int32Array,
  at: number,
  groups: number,
  perGroup: number,
  lo: number,
  hi: number,
  stepLo: number,
  stepHi: number,
): void => {
  let l = lo | 0;
  let h = hi | 0;
  for (let g = 0, w = at; g < groups; g++) {
    for (let i = 0; i < perGroup; i++, w += 2) {
      view[w + 1] = h;
      view[w] = l;
    }
    const next = (l + stepLo) | 0;
    h = (h + stepHi + (next >>> 0 < l >>> 0 ? 1 : 0)) | 0;
    l = next;
  }
};

/** Clears entries from word `at` on while they are not zero and equal `value` under `mask`; returns how many. */
export const clear = (
  view: Int32Array,
  at: number,
  count: number,
  maskLo: number,
  maskHi: number,
  valueLo: number,
  valueHi: number,
): number => {
  for (let i = 0, w = at; i < count; i++, w += 2) {
    const lo = view[w]!;
    const hi = view[w + 1]!;
    if ((lo | hi) === 0 || (lo & maskLo) !== valueLo || (hi & maskHi) !== valueHi) return i;
    view[w] = 0;
    view[w + 1] = 0;
  }
  return count;
};
