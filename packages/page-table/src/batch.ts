/**
 * Many operations in one call: addresses in and out as `BigUint64Array`, read as words, so that no bigint is made. For
 * replaying traces and for measuring; each operation follows the same rules as the single one.
 */
import type { GatherRecord } from './gather.ts';
import type { PageTable } from './page-table.ts';

/** What {@link iovaToPhysBatch} writes where nothing is mapped: no output address has all bits set. */
export const NOT_MAPPED = 0xffff_ffff_ffff_ffffn;

const words = (values: BigUint64Array): Int32Array =>
  new Int32Array(values.buffer, values.byteOffset, values.length * 2);

/**
 * Looks up `iovas[i]` into `out[i]` ({@link NOT_MAPPED} where nothing is mapped).
 * @returns how many are mapped.
 */
export const iovaToPhysBatch = (table: PageTable, iovas: BigUint64Array, out: BigUint64Array): number => {
  const from = words(iovas);
  const to = words(out);
  const end = Math.min(from.length, to.length);
  let found = 0;
  for (let i = 0; i < end; i += 2) {
    if (table.iovaToPhys(from[i + 1]!, from[i]!)) {
      to[i] = table.outLo;
      to[i + 1] = table.outHi;
      found++;
    } else {
      to[i] = -1;
      to[i + 1] = -1;
    }
  }
  return found;
};

/**
 * Maps `length` bytes from each `iovas[i]` to `pas[i]`, in order, up to the first that fails.
 * @returns how many were mapped; `table.mapped` and `results[i]` (when given) tell about the one that failed.
 */
export const mapBatch = (
  table: PageTable,
  iovas: BigUint64Array,
  pas: BigUint64Array,
  length: number,
  prot: number,
  gather: GatherRecord | null = null,
  results: Int32Array | null = null,
): number => {
  const from = words(iovas);
  const to = words(pas);
  const count = Math.min(iovas.length, pas.length);
  for (let i = 0; i < count; i++) {
    const result = table.map(from[2 * i + 1]!, from[2 * i]!, to[2 * i + 1]!, to[2 * i]!, length, prot, gather);
    if (results !== null) results[i] = result;
    if (result !== 0) return i;
  }
  return count;
};

/** Unmaps `length` bytes from each `iovas[i]`, in order. @returns the bytes unmapped, all together. */
export const unmapBatch = (table: PageTable, iovas: BigUint64Array, length: number, gather: GatherRecord): number => {
  const from = words(iovas);
  let bytes = 0;
  for (let i = 0; i < from.length; i += 2) bytes += table.unmap(from[i + 1]!, from[i]!, length, gather);
  return bytes;
};
