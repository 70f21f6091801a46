/** Choice of page sizes: Linux `pt_compute_best_pgsize()` and `iommu_pgsize()`, which agree. */
import type { TableState } from './state.ts';

const TWO_32 = 0x1_0000_0000;

/** Powers of two: `2 ** n` with a variable exponent costs a call of 20-40 ns, a load 1. */
export const POW2 = /* @__PURE__ */ Float64Array.from({ length: 65 }, (_, n) => 2 ** n);

/** Number of trailing zero bits of `hi:lo`, 64 for zero. */
export const trailingZeros = (hi: number, lo: number): number =>
  lo !== 0 ? 31 - Math.clz32(lo & -lo) : hi !== 0 ? 63 - Math.clz32(hi & -hi) : 64;

/** Position of the highest bit of a positive whole number below 2^64. */
const floorLg2 = (value: number): number => (value < TWO_32 ? 31 - Math.clz32(value) : 63 - Math.clz32(value / TWO_32));

/** Largest size (a power of two) that divides both addresses and is at most `left` bytes; 0 when there is none. */
export const bestSizeLg2 = (
  table: TableState,
  iovaHi: number,
  iovaLo: number,
  oaHi: number,
  oaLo: number,
  left: number,
): number => {
  let max = trailingZeros(iovaHi | oaHi, iovaLo | oaLo);
  const fits = floorLg2(left);
  if (fits < max) max = fits;
  if (max >= 32) {
    const upper = table.sizesHi & (max >= 63 ? -1 : (2 << (max - 32)) - 1);
    if (upper !== 0) return 63 - Math.clz32(upper);
    max = 31;
  }
  const lower = table.sizesLo & (max === 31 ? -1 : (2 << max) - 1);
  return lower !== 0 ? 31 - Math.clz32(lower) : 0;
};

/** `hi:lo` modulo 2^`lg2` (at most 52) as a number. */
export const modLg2 = (hi: number, lo: number, lg2: number): number =>
  lg2 < 32 ? lo & ((1 << lg2) - 1) : ((hi & ((1 << (lg2 - 32)) - 1)) >>> 0) * TWO_32 + (lo >>> 0);

/** Number of pages of 2^`sizeLg2` bytes that follow until a larger size becomes the best, or `left` ends. */
export const countOfSize = (
  table: TableState,
  iovaHi: number,
  iovaLo: number,
  oaHi: number,
  oaLo: number,
  left: number,
  sizeLg2: number,
): number => {
  let run = left;
  let next = 0;
  if (sizeLg2 < 31) {
    const lower = table.sizesLo & (-2 << sizeLg2);
    if (lower !== 0) next = trailingZeros(0, lower);
  }
  if (next === 0) {
    const upper = sizeLg2 < 32 ? table.sizesHi : table.sizesHi & (-2 << (sizeLg2 - 32));
    if (upper !== 0) next = 32 + trailingZeros(0, upper);
  }
  if (next !== 0 && modLg2(iovaHi ^ oaHi, iovaLo ^ oaLo, next) === 0) {
    const size = POW2[next]!;
    const offset = size - modLg2(iovaHi, iovaLo, next);
    if (offset + size <= left) run = offset;
  }
  return Math.floor(run / POW2[sizeLg2]!);
};
