/**
 * 64-bit values as two 32-bit words.
 *
 * `bigint` costs 25-300 ns where words cost 1 (measured, see ARCHITECTURE.md), so it lives at the public edge only.
 * Inside, a value is (hi, lo), and an address is a page frame number: an exact `number` of 4 KiB pages (< 2^52).
 * The scratch pair below is the bridge; it is safe because nothing re-enters between the store and the load.
 */
import { IommuError, hex } from './error.ts';

const scratch = new BigUint64Array(1);
const words = new Uint32Array(scratch.buffer);
scratch[0] = 1n;
if (words[0] !== 1) throw new Error('iommu-ts needs a little-endian host');

const TWO_32 = 0x1_0000_0000;

/** Low 32 bits, unsigned. `value` must be a u64 already: the store wraps silently. */
export const lo32 = (value: bigint): number => {
  scratch[0] = value;
  return words[0]!;
};

/** High 32 bits, unsigned. `value` must be a u64 already: the store wraps silently. */
export const hi32 = (value: bigint): number => {
  scratch[0] = value;
  return words[1]!;
};

/** `hi:lo` as a `bigint`; either word may be given signed or unsigned. */
export const join64 = (hi: number, lo: number): bigint => {
  words[0] = lo;
  words[1] = hi;
  return scratch[0]!;
};

/** Page frame number (4 KiB pages) of a u64 address; exact, `0 <= pfn < 2^52`. */
export const pfnOf = (address: bigint): number => {
  scratch[0] = address;
  return words[1]! * 0x10_0000 + (words[0]! >>> 12);
};

/**
 * Name of the block at a u64 address: its page frame number in 4 KiB pages, with an exact fraction of k/64 when it is a part
 * of a page (a table smaller than 4 KiB; see `IommuPages`). Address bits 5:0 are dropped. Exact below 2^59.
 */
export const blockPfnOf = (address: bigint): number => {
  scratch[0] = address;
  return blockPfnOfWords(words[1]!, words[0]!);
};

/** Address of byte `offset` (default 0) in page `pfn`, which may have a fraction. */
export const addressOfPfn = (pfn: number, offset = 0): bigint => {
  const hi = Math.floor(pfn / 0x10_0000);
  words[1] = hi;
  words[0] = (pfn - hi * 0x10_0000) * 0x1000 + offset;
  return scratch[0]!;
};

/** Page frame number of the address `hi:lo` (words signed or unsigned). */
export const pfnOfWords = (hi: number, lo: number): number => (hi >>> 0) * 0x10_0000 + (lo >>> 12);

/** {@link blockPfnOf} of the address `hi:lo` (words signed or unsigned). */
export const blockPfnOfWords = (hi: number, lo: number): number => {
  const pfn = (hi >>> 0) * 0x10_0000 + (lo >>> 12);
  const part = lo & 0xfc0;
  // Whole pages stay whole numbers for the compiler, too.
  return part === 0 ? pfn : pfn + part / 4096;
};

/** High word of the address of page `pfn`, which may have a fraction. */
export const hiOfPfn = (pfn: number): number => Math.floor(pfn / 0x10_0000);

/** Low word of the address of page `pfn`, which may have a fraction, as int32. */
export const loOfPfn = (pfn: number): number => ((pfn % 0x10_0000) * 4096) | 0;

/** A byte count or address below 2^53 as a `number`. @throws IommuError `ERANGE` when it is not exact. */
export const toNumber = (value: bigint, name: string): number => {
  if (value < 0n || value > 0x1f_ffff_ffff_ffffn) {
    throw new IommuError('ERANGE', `${name} ${hex(value)} is outside 0 … 2^53-1`, { [name]: value });
  }
  return Number(value);
};

/** Checks that `value` is a `bigint` of 64 bits. @throws TypeError for another type, IommuError `ERANGE` for a value outside. */
export const checkU64 = (value: bigint, name: string): void => {
  if (typeof value !== 'bigint') throw new TypeError(`"${name}" expected bigint, got type=${typeof value}`);
  if (value < 0n || value > 0xffff_ffff_ffff_ffffn) {
    throw new IommuError('ERANGE', `${name} ${hex(value)} is not a 64-bit value`, { [name]: value });
  }
};

/** `hi:lo` as an exact `number`; only for values known to be below 2^53. */
export const numberOfWords = (hi: number, lo: number): number => (hi >>> 0) * TWO_32 + (lo >>> 0);
