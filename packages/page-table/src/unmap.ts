/**
 * Unmapping. `generic_pt`: a range; it ends at the first hole, refuses to begin inside a leaf, takes a leaf whole when
 * the range ends inside it, and takes out tables that it covers wholly. `io-pgtable`: pages of one size; a table under a
 * block-sized page goes with all that is in it, tables are never freed by unmapping smaller pages.
 */
import { blockPfnOfWords } from '@iommu-ts/bits';
import { clear } from './bulk.ts';
import { EINVAL } from './errno.ts';
import { currentPfn, findTable, indexAt } from './find.ts';
import { CONTIG_AMD, CONTIG_NAPOT } from './format.ts';
import type { GatherRecord } from './gather.ts';
import { gatherTree, isPresent, isTable, releaseNow, spliceScratch } from './release.ts';
import { POW2, bestSizeLg2, countOfSize, modLg2, trailingZeros } from './sizes.ts';
import { addBytes } from './state.ts';
import type { TableState } from './state.ts';

const pfnOfWords = (hi: number, lo: number): number => (hi >>> 0) * 0x10_0000 + (lo >>> 12);

/** Lg2 of the number of entries that make the leaf `hi:lo` at `level`. */
export const contigLg2 = (table: TableState, level: number, hi: number, lo: number): number => {
  if (table.contig === CONTIG_AMD) {
    if ((lo & 0xe00) !== 0xe00) return 0;
    // OA bits (size-2):12 are ones, bit size-1 is zero: the lowest zero from bit 12 on tells the size.
    const inverseLo = ~lo & -4096;
    const size = trailingZeros(~hi, inverseLo) + 1;
    const items = size - table.granuleLg2 - level * table.bits;
    return items > 0 && items < table.bits ? items : 0;
  }
  if (table.contig === CONTIG_NAPOT && hi < 0 && level === 0) {
    // Only 64 KiB is defined: PPN[3:0] = 1000b.
    return (lo & 0x3c00) === 0x2000 ? 4 : 0;
  }
  return 0;
};

/** Clears leaves of one entry each from word `w` on, `count` at most, as long as no hole, table or larger leaf comes. */
export const clearRun = (table: TableState, view: Int32Array, w: number, count: number, level: number): number => {
  const maskLo = level === 0 ? table.pageMaskLo : table.blockMaskLo;
  const valueLo = level === 0 ? table.pageValueLo : table.blockValueLo;
  const bulk = table.bulk;
  return bulk !== null && count >= 4 && view === table.homeWords
    ? bulk.clear(w << 2, count, maskLo, table.leafMaskHi, valueLo, 0)
    : clear(view, w, count, maskLo, table.leafMaskHi, valueLo, 0);
};

/** Unmaps `cur … last` in the table `tHi:tLo` at `level`. Returns 0, or an errno where it must stop. */
const unmapTable = (table: TableState, gather: GatherRecord, level: number, tHi: number, tLo: number): number => {
  if (!table.locate(tHi, tLo)) return EINVAL;
  const view = table.view;
  const at = table.at;
  const itemLg2 = table.granuleLg2 + level * table.bits;
  const startIndex = indexAt(table, level, table.curHi, table.curLo);
  const endIndex = lastIndex(table, level) + 1;
  let index = startIndex;
  let leaves = 0;
  let result = 0;
  do {
    const w = at + (index << 1);
    const lo = view[w]!;
    const hi = view[w + 1]!;
    if (!isPresent(table, hi, lo)) {
      result = EINVAL;
      break;
    }
    if (isTable(table, level, lo)) {
      const covered = coversItem(table, itemLg2, index < endIndex - 1);
      table.tableOf(hi, lo);
      const lowerHi = table.hi;
      const lowerLo = table.lo;
      result = unmapTable(table, gather, level - 1, lowerHi, lowerLo);
      if (result !== 0) break;
      if (covered) {
        table.pages!.listAdd(table.scratch, blockPfnOfWords(lowerHi, lowerLo));
        view[w] = 0;
        view[w + 1] = 0;
        gather.tableLevels |= 1 << level;
      }
      // The recursion left the present IOVA at the end of the item, or the operation ends in it.
      index++;
      continue;
    }
    const itemsLg2 = contigLg2(table, level, hi, lo);
    if (index === startIndex && modLg2(table.curHi, table.curLo, itemLg2 + itemsLg2) !== 0) {
      result = EINVAL;
      break;
    }
    gather.leaf(level, itemLg2 + itemsLg2);
    const before = index;
    if (itemsLg2 === 0) {
      const n = clearRun(table, view, w, endIndex - index, level);
      if (n === 0) view[w] = view[w + 1] = 0; // a leaf that the run's pattern does not know
      index += n === 0 ? 1 : n;
    } else {
      const items = 1 << itemsLg2;
      for (let i = 0; i < items; i++) view[w + 2 * i] = view[w + 2 * i + 1] = 0;
      index += items;
    }
    leaves += index - before;
    addBytes(table, table.curHi, table.curLo, (index - before) * POW2[itemLg2]!);
    table.curHi = table.hi;
    table.curLo = table.lo;
  } while (index < endIndex);
  table.unmapped += leaves * POW2[itemLg2]!;
  if (table.flush !== null && index > startIndex) {
    table.flush(blockPfnOfWords(tHi, tLo), startIndex * 8, (index - startIndex) * 8);
  }
  return result;
};

/** Index of the last IOVA of the operation in the table at `level` that holds the present one. */
const lastIndex = (table: TableState, level: number): number => {
  if (level === table.topLevel) return indexAt(table, level, table.lastHi, table.lastLo);
  const span = table.granuleLg2 + (level + 1) * table.bits;
  const same =
    span < 32
      ? table.curHi === table.lastHi && table.curLo >>> span === table.lastLo >>> span
      : span >= 64 || table.curHi >>> (span - 32) === table.lastHi >>> (span - 32);
  return same ? indexAt(table, level, table.lastHi, table.lastLo) : table.indexMask;
};

/** True when the operation covers the whole item of 2^`itemLg2` bytes at the present IOVA. */
const coversItem = (table: TableState, itemLg2: number, notLast: boolean): boolean => {
  if (modLg2(table.curHi, table.curLo, itemLg2) !== 0) return false;
  if (notLast) return true;
  const maskHi = itemLg2 <= 32 ? 0 : itemLg2 >= 64 ? -1 : (1 << (itemLg2 - 32)) - 1;
  const maskLo = itemLg2 >= 32 ? -1 : (1 << itemLg2) - 1;
  return (table.lastHi & maskHi) === maskHi && (table.lastLo & maskLo) === maskLo;
};

/** Range unmap by the rules of `generic_pt`; returns the bytes unmapped. */
export const unmapGeneric = (
  table: TableState,
  iovaHi: number,
  iovaLo: number,
  length: number,
  gather: GatherRecord,
): number => {
  table.unmapped = 0;
  if (!(length > 0) || (iovaLo & table.granuleMask) !== 0 || length % table.granuleBytes !== 0) return 0;
  addBytes(table, iovaHi, iovaLo, length - table.granuleBytes);
  table.lastHi = table.hi;
  table.lastLo = table.lo | table.granuleMask;
  if (table.lastHi >>> 0 < iovaHi >>> 0 || (table.lastHi === iovaHi && table.lastLo >>> 0 < iovaLo >>> 0)) return 0;
  if (!table.inRange(iovaHi, iovaLo) || !table.inRange(table.lastHi, table.lastLo)) return 0;
  if (table.highOk !== 0 && (iovaHi ^ table.lastHi) < 0) return 0;
  table.curHi = iovaHi;
  table.curLo = iovaLo;
  unmapTable(table, gather, table.topLevel, table.rootHi, table.rootLo);
  const unmapped = table.unmapped;
  if (unmapped > 0 || !table.scratch.empty) {
    const first = pfnOfWords(iovaHi, iovaLo);
    const last = first + (unmapped > 0 ? unmapped / 4096 : 1) - 1;
    if (table.noGaps !== 0 && gather.disjoint(first, last) && table.sync !== null) releaseNow(table, gather);
    gather.add(first, last);
    if (!table.scratch.empty) spliceScratch(table, gather);
  }
  return unmapped;
};

/** One call of `unmap_pages`: at most to the end of one table; returns the pages unmapped. */
const unmapCall = (
  table: TableState,
  hi: number,
  lo: number,
  sizeLg2: number,
  count: number,
  gather: GatherRecord,
): number => {
  const level = ((sizeLg2 - table.granuleLg2) / table.bits) | 0;
  if (!table.inRange(hi, lo) || findTable(table, hi, lo, level, false) !== 0) return 0;
  const view = table.view;
  const index = indexAt(table, level, hi, lo);
  const w0 = table.at + (index << 1);
  const tableBase = table.at;
  const pfn = currentPfn(table);
  const room = table.indexMask + 1 - (index & table.indexMask);
  const n = count < room ? count : room;
  let done = 0;
  let leaves = 0;
  while (done < n) {
    const run = clearRun(table, view, w0 + (done << 1), n - done, level);
    done += run;
    leaves += run;
    if (done === n) break;
    const w = w0 + (done << 1);
    const entryLo = view[w]!;
    const entryHi = view[w + 1]!;
    if ((entryLo | entryHi) === 0) break;
    view[w] = 0;
    view[w + 1] = 0;
    if (isTable(table, level, entryLo)) {
      table.tableOf(entryHi, entryLo);
      gatherTree(table, gather, level - 1, table.hi, table.lo);
      gather.tableLevels |= 1 << level;
    } else leaves++;
    done++;
  }
  if (done > 0) {
    if (leaves > 0) gather.leaf(level, sizeLg2);
    const first = pfnOfWords(hi, lo);
    gather.add(first, first + done * POW2[sizeLg2 - 12]! - 1);
    if (table.flush !== null) table.flush(pfn, (w0 - tableBase) * 4, done * 8);
  }
  return done;
};

/** `count` pages of one size by the rules of `io-pgtable`; returns the bytes unmapped. */
export const unmapPagesIo = (
  table: TableState,
  iovaHi: number,
  iovaLo: number,
  sizeLg2: number,
  count: number,
  gather: GatherRecord,
): number => {
  const allowed = sizeLg2 < 32 ? table.sizesLo & (1 << sizeLg2) : table.sizesHi & (1 << (sizeLg2 - 32));
  if (allowed === 0 || modLg2(iovaHi, iovaLo, sizeLg2) !== 0) return 0;
  let hi = iovaHi;
  let lo = iovaLo;
  let bytes = 0;
  for (let left = count; left > 0;) {
    const pages = unmapCall(table, hi, lo, sizeLg2, left, gather);
    if (pages === 0) break;
    left -= pages;
    bytes += pages * POW2[sizeLg2]!;
    addBytes(table, hi, lo, pages * POW2[sizeLg2]!);
    hi = table.hi;
    lo = table.lo;
  }
  return bytes;
};

/** Range unmap by the rules of `io-pgtable`: sizes picked as the kernel's core does; returns the bytes unmapped. */
export const unmapIo = (
  table: TableState,
  iovaHi: number,
  iovaLo: number,
  length: number,
  gather: GatherRecord,
): number => {
  if (!(length > 0) || (iovaLo & table.granuleMask) !== 0 || length % table.granuleBytes !== 0) return 0;
  let hi = iovaHi;
  let lo = iovaLo;
  let done = 0;
  while (done < length) {
    const sizeLg2 = bestSizeLg2(table, hi, lo, hi, lo, length - done);
    if (sizeLg2 === 0) break;
    const count = countOfSize(table, hi, lo, hi, lo, length - done, sizeLg2);
    const bytes = unmapPagesIo(table, hi, lo, sizeLg2, count, gather);
    if (bytes === 0) break;
    done += bytes;
    addBytes(table, hi, lo, bytes);
    hi = table.hi;
    lo = table.lo;
  }
  return done;
};
