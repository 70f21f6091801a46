/**
 * The third common case: a run of granules that lies in one table of level 0, as scatter-gather lists make them. Found by
 * the cache or one descent, filled or cleared in one go; where it meets something, the full rules take over from there.
 */
import { findTable } from './find.ts';
import { RULES_GENERIC_PT } from './format.ts';
import type { GatherRecord } from './gather.ts';
import { fillRun, linear, mapGeneric } from './map.ts';
import type { TableState } from './state.ts';
import { addBytes } from './state.ts';
import { clearRun, unmapGeneric, unmapIo } from './unmap.ts';

/** Not a run of granules in one table: the long way, from the beginning. */
export const NOT_A_RUN = 1;

/** True when `length` bytes from `lo` on lie in one table of level 0 (all below 2^31). */
const inOneTable = (table: TableState, lo: number, length: number): boolean =>
  length > 0 &&
  length <= 0x4000_0000 &&
  ((lo | length) & table.granuleMask) === 0 &&
  (lo & table.spanMask) + length <= table.spanMask + 1;

/** Brings the lowest table for the IOVA into the cache. */
const enter = (table: TableState, hi: number, lo: number, create: boolean): boolean =>
  (table.cacheAt >= 0 && hi === table.cacheHi && (lo ^ table.cacheLo) >>> table.leafSpanLg2 === 0) ||
  (table.topLevel > 0 && table.inRange(hi, lo) && findTable(table, hi, lo, 0, create) === 0);

/** Maps a run of granules; returns as `map`, or {@link NOT_A_RUN}. */
export const mapRun = (
  table: TableState,
  iovaHi: number,
  iovaLo: number,
  paHi: number,
  paLo: number,
  length: number,
  prot: number,
  gather: GatherRecord | null,
): number => {
  if (
    !inOneTable(table, iovaLo, length) ||
    (paLo & table.granuleMask) !== 0 ||
    // A larger page somewhere in the run?
    (length >= table.secondBytes && ((iovaLo ^ paLo) & (table.secondBytes - 1)) === 0) ||
    table.granuleAllowed === 0 ||
    (prot & 3) === 0 ||
    ((paHi & table.oasMaskHi) | (paLo & table.oasMaskLo)) !== 0 ||
    (table.forceWriteable !== 0 && (prot & 2) === 0) ||
    !linear(table, paHi, paLo, length) ||
    !enter(table, iovaHi, iovaLo, true)
  ) {
    return NOT_A_RUN;
  }
  const index = (iovaLo >>> table.granuleLg2) & table.indexMask;
  const count = length >>> table.granuleLg2;
  const protAt = (prot & 63) << 2;
  const generic = table.rules === RULES_GENERIC_PT;
  const done = fillRun(
    table,
    table.cacheView,
    table.cacheAt + (index << 1),
    count,
    table.granuleLg2,
    paHi,
    paLo,
    table.attributes[protAt + 1]!,
    table.attributes[protAt]!,
    !generic,
  );
  if (done < count && !generic) return NOT_A_RUN;
  if (table.flush !== null && done > 0) table.flush(table.cachePfn, index * 8, done * 8);
  if (done === count) {
    table.mapped = length;
    return 0;
  }
  const bytes = done << table.granuleLg2;
  const lo = (iovaLo + bytes) | 0; // no carry: the run lies in one table
  addBytes(table, paHi, paLo, bytes);
  const result = mapGeneric(table, iovaHi, lo, table.hi, table.lo, length - bytes, prot, gather);
  table.mapped += bytes;
  return result;
};

/** Unmaps a run of granules; returns the bytes, or -{@link NOT_A_RUN}. A table that the run covers wholly is not its case. */
export const unmapRun = (
  table: TableState,
  iovaHi: number,
  iovaLo: number,
  length: number,
  gather: GatherRecord,
): number => {
  if (
    !inOneTable(table, iovaLo, length) ||
    length > table.spanMask ||
    table.granuleAllowed === 0 ||
    table.noGaps !== 0 ||
    !enter(table, iovaHi, iovaLo, false)
  ) {
    return -NOT_A_RUN;
  }
  const index = (iovaLo >>> table.granuleLg2) & table.indexMask;
  const count = length >>> table.granuleLg2;
  const done = clearRun(table, table.cacheView, table.cacheAt + (index << 1), count, 0);
  // Nothing done: the leaf may be a larger one that begins before. Else what comes next begins here.
  if (done === 0) return -NOT_A_RUN;
  if (table.flush !== null) table.flush(table.cachePfn, index * 8, done * 8);
  const bytes = done << table.granuleLg2;
  const first = (iovaHi >>> 0) * 0x10_0000 + (iovaLo >>> 12);
  gather.add(first, first + (bytes >>> 12) - 1);
  gather.leaf(0, table.granuleLg2);
  if (done === count) return length;
  const lo = (iovaLo + bytes) | 0;
  const rest = length - bytes;
  return bytes + (table.rules === RULES_GENERIC_PT ? unmapGeneric : unmapIo)(table, iovaHi, lo, rest, gather);
};
