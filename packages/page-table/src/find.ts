/** The descent that map and unmap share: from the top to the table at a level, making tables on the way if asked. */
import { blockPfnOfWords, loOfPfn } from '@iommu-ts/bits';
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
    rootLo = loOfPfn(pfn);
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

/** Name of the table that `view` and `at` show: its page frame number, with a fraction when it is smaller than a page. */
export const currentPfn = (table: TableState): number => blockPfnOfWords(table.tableHi32, table.tableLo32);

/**
 * Word of the home range where the table of level `target` for the IOVA begins, or -1. Every table above it must be there,
 * in that range, and its entry what nearly all are, as in the quick look-up; an IOVA out of range may give any table.
 */
const descend = (table: TableState, hi: number, lo: number, target: number): number => {
  let at = table.rootWord;
  if (at < 0) return -1;
  const words = table.homeWords;
  const bits = table.bits;
  const walkMask = table.walkMaskLo;
  const walkHi = table.walkHi;
  const end = table.granuleLg2 + target * bits;
  let mask = table.topMask;
  let type = table.topType;
  for (let shift = table.topShift; shift > end; shift -= bits) {
    const index = shift >= 32 ? hi >>> shift : (lo >>> shift) | (hi << -shift);
    const w = (at + ((index & mask) << 1)) | 0;
    const entry = words[w]!;
    if ((entry & walkMask) !== type || words[(w + 1) | 0] !== walkHi) return -1;
    at = (((entry & table.oaMaskLo) << table.oaShift) - table.homeLo) >>> 2;
    mask = table.indexMask;
    type = (type - table.tableStep) | 0;
  }
  return at < table.homeLength ? at : -1;
};

/**
 * Finds the table of level `target` for the IOVA `hi:lo`: sets `view`, `at`, `tableHi32:tableLo32`, and for level 0 the
 * cache. Returns 0, `ENOMEM`, the rules' error for a leaf in the way, or (not `create`) `ENOENT` for whatever is missing.
 */
export const findTable = (table: TableState, hi: number, lo: number, target: number, create: boolean): number => {
  const quick = descend(table, hi, lo, target);
  if (quick >= 0) {
    // All of the range has one high address word.
    table.view = table.homeWords;
    table.at = quick;
    table.tableHi32 = table.homeHi;
    table.tableLo32 = (table.homeLo + (quick << 2)) | 0;
  } else if (!findTop(table, hi, lo)) return ENOENT;
  for (let level = quick >= 0 ? target : table.topLevel; level > target; level--) {
    const view = table.view;
    const w = table.at + (indexAt(table, level, hi, lo) << 1);
    const entryLo = view[w]!;
    const entryHi = view[w + 1]!;
    if (((entryLo & table.presentLo) | (entryHi & table.presentHi)) === 0) {
      if (!create) return ENOENT;
      const pfn = table.allocTable(table.tableBytes);
      if (pfn < 0) return ENOMEM;
      const newHi = Math.floor(pfn / 0x10_0000) | 0;
      const newLo = loOfPfn(pfn);
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
  table.locate(Math.floor(newPfn / 0x10_0000) | 0, loOfPfn(newPfn));
  install(table, table.view, table.at, level, oldHi, oldLo);
  if (table.flush !== null) table.flush(newPfn, 0, 8);
};
