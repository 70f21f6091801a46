/**
 * The second commonest case beside one granule: one leaf of a higher level (2 MiB, 1 GiB, 32 MiB, …) where nothing is in
 * the way. Whatever is out of the ordinary is left to the full rules, which then see the tables as they were or with more
 * of the path to the leaf made, which they would have made themselves.
 */
import { currentPfn, findTable, indexAt } from './find.ts';
import type { GatherRecord } from './gather.ts';
import type { TableState } from './state.ts';

/** Level at which `length` bytes (below 2^31) are one leaf, 0 when there is none. */
const blockLevel = (table: TableState, length: number): number => {
  const bytes = length | 0;
  return bytes === length && bytes > 0 && (bytes & (bytes - 1)) === 0 ? table.levelOfLg2[31 - Math.clz32(bytes)]! : 0;
};

/** Remembers the table that `findTable` found for blocks of `level`, unless it is the top, which may be wider. */
const remember = (table: TableState, hi: number, lo: number, level: number, length: number): void => {
  if (level === table.topLevel) return;
  const span = table.granuleLg2 + (level + 1) * table.bits;
  const maskLo = span < 32 ? -1 << span : 0;
  const maskHi = span < 32 ? -1 : -1 << (span - 32);
  // An IOVA with the same upper bits must be in range as this one is.
  if (((table.coverMaskLo & ~maskLo) | (table.coverMaskHi & ~maskHi)) !== 0) return;
  table.blockSpanLo = maskLo;
  table.blockSpanHi = maskHi;
  table.blockHi = hi & maskHi;
  table.blockLo = lo & maskLo;
  table.blockLg2 = 31 - Math.clz32(length);
  table.blockView = table.view;
  table.blockPfn = currentPfn(table);
  table.blockAt = table.at;
  table.blockBytes = length | 0; // a small integer, however the caller's number is held
};

/** Maps one block; false when it must go the long way. */
export const mapOneBlock = (
  table: TableState,
  iovaHi: number,
  iovaLo: number,
  paHi: number,
  paLo: number,
  length: number,
  prot: number,
): boolean => {
  if (
    table.blockAt >= 0 &&
    length === table.blockBytes &&
    (((iovaHi & table.blockSpanHi) ^ table.blockHi) | ((iovaLo & table.blockSpanLo) ^ table.blockLo)) === 0 &&
    (prot & 3) !== 0 &&
    ((iovaLo | paLo) & (length - 1)) === 0 &&
    ((paHi & table.oasMaskHi) | (paLo & table.oasMaskLo)) === 0 &&
    (table.forceWriteable === 0 || (prot & 2) !== 0)
  ) {
    const view = table.blockView;
    const blockLg2 = table.blockLg2;
    const index = ((iovaLo >>> blockLg2) | (iovaHi << -blockLg2)) & table.indexMask;
    const w = table.blockAt + (index << 1);
    if ((view[w]! | view[w + 1]!) !== 0) return false;
    const shift = table.oaShift;
    const attributes = table.attributes;
    const protAt = ((prot & 63) << 2) + 2;
    view[w + 1] = ((paHi >>> shift) & table.oaMaskHi) | attributes[protAt + 1]!;
    view[w] =
      (((paLo >>> shift) | ((paHi << (31 - shift)) << 1)) & table.oaMaskLo) |
      ((paHi >>> 4) & table.foldWriteLo) |
      attributes[protAt]!;
    if (table.flush !== null) table.flush(table.blockPfn, index * 8, 8);
    table.mapped = length;
    return true;
  }
  const level = blockLevel(table, length);
  if (
    level === 0 ||
    level > table.topLevel ||
    (prot & 3) === 0 ||
    ((iovaLo | paLo) & (length - 1)) !== 0 ||
    ((paHi & table.oasMaskHi) | (paLo & table.oasMaskLo)) !== 0 ||
    (table.forceWriteable !== 0 && (prot & 2) === 0) ||
    !table.inRange(iovaHi, iovaLo) ||
    findTable(table, iovaHi, iovaLo, level, true) !== 0
  ) {
    return false;
  }
  remember(table, iovaHi, iovaLo, level, length);
  const view = table.view;
  const index = indexAt(table, level, iovaHi, iovaLo);
  const w = table.at + (index << 1);
  if ((view[w]! | view[w + 1]!) !== 0) return false;
  table.encodeOa(paHi, paLo);
  const attributes = table.attributes;
  const protAt = ((prot & 63) << 2) + 2;
  view[w + 1] = table.hi | attributes[protAt + 1]!;
  view[w] = table.lo | attributes[protAt]!;
  if (table.flush !== null) table.flush(currentPfn(table), index * 8, 8);
  table.mapped = length;
  return true;
};

/** Clears the leaf at word `w` and notes it; false when there is no leaf of one entry. */
const clearBlock = (
  table: TableState,
  view: Int32Array,
  w: number,
  index: number,
  pfn: number,
  iovaHi: number,
  iovaLo: number,
  length: number,
  gather: GatherRecord,
): boolean => {
  const lo = view[w]!;
  const hi = view[w + 1]!;
  // By the bits that all such leaves have; a table, a hole or part of a larger leaf differs.
  if ((lo | hi) === 0 || (lo & table.blockMaskLo) !== table.blockValueLo || (hi & table.leafMaskHi) !== 0) return false;
  view[w] = 0;
  view[w + 1] = 0;
  if (table.flush !== null) table.flush(pfn, index * 8, 8);
  const first = (iovaHi >>> 0) * 0x10_0000 + (iovaLo >>> 12);
  const last = first + (length >>> 12) - 1;
  if (first < gather.startPfn) gather.startPfn = first;
  if (last > gather.lastPfn) gather.lastPfn = last;
  const lg2 = 31 - Math.clz32(length);
  gather.leafLevels |= 1 << (((lg2 - table.granuleLg2) / table.bits) | 0);
  if (gather.pgsizeLg2 === 0 || lg2 < gather.pgsizeLg2) gather.pgsizeLg2 = lg2;
  return true;
};

/** Unmaps one block; false when it must go the long way. */
export const unmapOneBlock = (
  table: TableState,
  iovaHi: number,
  iovaLo: number,
  length: number,
  gather: GatherRecord,
): boolean => {
  if (
    table.blockAt >= 0 &&
    length === table.blockBytes &&
    (((iovaHi & table.blockSpanHi) ^ table.blockHi) | ((iovaLo & table.blockSpanLo) ^ table.blockLo)) === 0 &&
    (iovaLo & (length - 1)) === 0 &&
    table.noGaps === 0
  ) {
    const blockLg2 = table.blockLg2;
    const index = ((iovaLo >>> blockLg2) | (iovaHi << -blockLg2)) & table.indexMask;
    return clearBlock(
      table,
      table.blockView,
      table.blockAt + (index << 1),
      index,
      table.blockPfn,
      iovaHi,
      iovaLo,
      length,
      gather,
    );
  }
  const level = blockLevel(table, length);
  if (
    level === 0 ||
    level > table.topLevel ||
    table.noGaps !== 0 ||
    (iovaLo & (length - 1)) !== 0 ||
    !table.inRange(iovaHi, iovaLo) ||
    findTable(table, iovaHi, iovaLo, level, false) !== 0
  ) {
    return false;
  }
  remember(table, iovaHi, iovaLo, level, length);
  const index = indexAt(table, level, iovaHi, iovaLo);
  const w = table.at + (index << 1);
  return clearBlock(table, table.view, w, index, currentPfn(table), iovaHi, iovaLo, length, gather);
};
