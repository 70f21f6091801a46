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

/** Unmaps one block; false when it must go the long way. */
export const unmapOneBlock = (
  table: TableState,
  iovaHi: number,
  iovaLo: number,
  length: number,
  gather: GatherRecord,
): boolean => {
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
  const view = table.view;
  const index = indexAt(table, level, iovaHi, iovaLo);
  const w = table.at + (index << 1);
  const lo = view[w]!;
  const hi = view[w + 1]!;
  // A leaf of one entry, by the bits that all such leaves have; a table, a hole or part of a larger leaf differs.
  if ((lo | hi) === 0 || (lo & table.blockMaskLo) !== table.blockValueLo || (hi & table.leafMaskHi) !== 0) return false;
  view[w] = 0;
  view[w + 1] = 0;
  if (table.flush !== null) table.flush(currentPfn(table), index * 8, 8);
  const first = (iovaHi >>> 0) * 0x10_0000 + (iovaLo >>> 12);
  gather.add(first, first + (length >>> 12) - 1);
  gather.leaf(level, 31 - Math.clz32(length));
  return true;
};
