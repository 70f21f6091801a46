/** The descent that map and unmap share: from the top to the table at a level, making tables on the way if asked. */
import { EADDRINUSE, EEXIST, ENOENT, ENOMEM } from './errno.ts';
import { RULES_GENERIC_PT } from './format.ts';
import type { TableState } from './state.ts';

/** Index of `hi:lo` in a table at `level`. */
export const indexAt = (table: TableState, level: number, hi: number, lo: number): number => {
  const shift = table.granuleLg2 + level * table.bits;
  const index = shift < 32 ? (lo >>> shift) | (hi << (32 - shift)) : (hi >>> (shift - 32)) | 0;
  return index & (level === table.topLevel ? table.topMask : table.indexMask);
};

/** Goes to the top table for the IOVA: sets `view`, `at` and its address. False when it is not RAM. */
export const findTop = (table: TableState, hi: number, lo: number): boolean => {
  let rootHi = table.rootHi;
  let rootLo = table.rootLo;
  if (table.rootCount !== 1) {
    const shift = table.granuleLg2 + (table.topLevel + 1) * table.bits;
    const index =
      (shift < 32 ? (lo >>> shift) | (hi << (32 - shift)) : (hi >>> (shift - 32)) | 0) & (table.rootCount - 1);
    const pfn = table.rootPfns[index]!;
    rootHi = Math.floor(pfn / 0x10_0000) | 0;
    rootLo = ((pfn - Math.floor(pfn / 0x10_0000) * 0x10_0000) << 12) | 0;
  }
  table.tableHi32 = rootHi;
  table.tableLo32 = rootLo;
  return table.locate(rootHi, rootLo);
};

/** Writes the entry at word `w` that points to the table `hi:lo`, and flushes it. */
const install = (table: TableState, view: Int32Array, w: number, level: number, hi: number, lo: number): void => {
  table.encodeOa(hi, lo);
  view[w + 1] = table.hi | table.tableHi;
  view[w] = table.lo | table.tableLo | (level * table.tableStep);
};

/** Page frame number of the table that `view` and `at` show. */
export const currentPfn = (table: TableState): number => (table.tableHi32 >>> 0) * 0x10_0000 + (table.tableLo32 >>> 12);

/**
 * Finds the table of level `target` for the IOVA `hi:lo`: sets `view`, `at`, `tableHi32:tableLo32`, and for level 0 the
 * cache. Returns 0, `ENOMEM`, the rules' error for a leaf in the way, or (not `create`) `ENOENT` for whatever is missing.
 */
export const findTable = (table: TableState, hi: number, lo: number, target: number, create: boolean): number => {
  if (!findTop(table, hi, lo)) return ENOENT;
  for (let level = table.topLevel; level > target; level--) {
    const view = table.view;
    const w = table.at + (indexAt(table, level, hi, lo) << 1);
    const entryLo = view[w]!;
    const entryHi = view[w + 1]!;
    if (((entryLo & table.presentLo) | (entryHi & table.presentHi)) === 0) {
      if (!create) return ENOENT;
      const pfn = table.allocTable(table.granuleBytes);
      if (pfn < 0) return ENOMEM;
      const high = Math.floor(pfn / 0x10_0000);
      const newHi = high | 0;
      const newLo = ((pfn - high * 0x10_0000) << 12) | 0;
      install(table, view, w, level, newHi, newLo);
      if (table.flush !== null) table.flush(currentPfn(table), (w - table.at) * 4, 8);
      table.tableHi32 = newHi;
      table.tableLo32 = newLo;
    } else if ((entryLo & table.typeMask) !== table.tableType + level * table.tableStep) {
      if (!create) return ENOENT;
      return table.rules === RULES_GENERIC_PT ? EADDRINUSE : EEXIST;
    } else {
      table.tableOf(entryHi, entryLo);
      table.tableHi32 = table.hi;
      table.tableLo32 = table.lo;
    }
    if (!table.locate(table.tableHi32, table.tableLo32)) return ENOENT;
  }
  // Only where one table answers for all IOVAs that agree above the leaf span, which a wider top table does not.
  if (target === 0 && table.topLevel > 0) {
    table.cacheView = table.view;
    table.cacheAt = table.at;
    table.cacheMask = table.indexMask;
    table.cacheHi = hi;
    table.cacheLo = lo;
    table.cachePfn = currentPfn(table);
  }
  return 0;
};

/** Puts a new, higher top on: entry 0 of the new table points to the old one. The caller counts and reports it. */
export const linkTop = (table: TableState, newPfn: number, oldHi: number, oldLo: number, level: number): void => {
  const high = Math.floor(newPfn / 0x10_0000);
  table.locate(high | 0, ((newPfn - high * 0x10_0000) << 12) | 0);
  install(table, table.view, table.at, level, oldHi, oldLo);
  if (table.flush !== null) table.flush(newPfn, 0, 8);
};
