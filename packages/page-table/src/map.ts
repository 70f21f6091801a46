/**
 * Mapping. Two families of rules, after Linux 7.2: `generic_pt` maps a range and picks sizes as it goes, keeps what was
 * mapped when it meets a leaf, and replaces empty tables only; `io-pgtable` maps pages of one size, checks all entries of
 * a table before it writes one, and (Arm) drops live tables under a block.
 */
import { blockPfnOfWords, loOfPfn } from '@iommu-ts/bits';
import { fill, firstUsed, repeat } from './bulk.ts';
import { EADDRINUSE, EEXIST, EINVAL, ENOENT, ENOMEM, ENXIO, ERANGE } from './errno.ts';
import { currentPfn, findTable, indexAt, linkTop } from './find.ts';
import { CONTIG_AMD, RULES_IO_PGTABLE_ARM, RULES_IO_PGTABLE_DART } from './format.ts';
import type { GatherRecord } from './gather.ts';
import { collectBelow, gatherTree, hasLeaf, isPresent, isTable, releaseNow, spliceScratch } from './release.ts';
import { POW2, bestSizeLg2, countOfSize, modLg2 } from './sizes.ts';
import { addBytes } from './state.ts';
import type { TableState } from './state.ts';

const pfnOfWords = (hi: number, lo: number): number => (hi >>> 0) * 0x10_0000 + (lo >>> 12);

/** True when `hi:lo` has no bit at `bits` or above. */
const below = (hi: number, lo: number, bits: number): boolean =>
  bits >= 64 || (bits >= 32 ? hi >>> (bits - 32) === 0 : hi === 0 && lo >>> bits === 0);

/** Adds tops until the last address fits and a leaf of `leafLevel` has a place; Linux `increase_top()`. */
const growTop = (table: TableState, lastHi: number, lastLo: number, leafLevel: number): number => {
  const { granuleLg2, bits, ias } = table;
  const made: number[] = []; // at most five, and only when a table grows: not on the hot path
  let level = table.topLevel;
  let result = 0;
  for (;;) {
    const cover = Math.min(ias, granuleLg2 + bits * (level + 1));
    if (below(lastHi, lastLo, cover) && leafLevel <= level) break;
    level++;
    if (level > table.format.maxTopLevel || granuleLg2 + bits * level >= ias) {
      result = ERANGE;
      break;
    }
    const pfn = table.allocTable(table.tableBytes);
    if (pfn < 0) {
      result = ENOMEM;
      break;
    }
    const oldHi = made.length === 0 ? table.rootHi : Math.floor(made[made.length - 1]! / 0x10_0000) | 0;
    const oldLo = made.length === 0 ? table.rootLo : loOfPfn(made[made.length - 1]!);
    linkTop(table, pfn, oldHi, oldLo, level);
    made.push(pfn);
  }
  if (result !== 0) {
    for (const pfn of made) table.pages!.freePages(pfn);
    return result;
  }
  if (made.length > 0) {
    table.rootPfns[0] = made[made.length - 1]!;
    table.setTop(level);
    table.topChanges++;
    if (table.topChanged !== null) table.topChanged();
  }
  return 0;
};

/**
 * Makes room for a leaf of `items` entries from word `w` on, at the IOVA given: empty tables are taken out and gathered,
 * a leaf or a table with a leaf is `EADDRINUSE`. Linux `clear_contig()`.
 */
const makeRoom = (
  table: TableState,
  gather: GatherRecord,
  view: Int32Array,
  w0: number,
  items: number,
  level: number,
  hi: number,
  lo: number,
): number => {
  const itemLg2 = table.granuleLg2 + level * table.bits;
  const tablePfn = currentPfn(table);
  const at = table.at;
  for (let i = 0, w = w0; i < items; i++, w += 2) {
    const entryLo = view[w]!;
    const entryHi = view[w + 1]!;
    if (!isPresent(table, entryHi, entryLo)) continue;
    if (!isTable(table, level, entryLo)) return EADDRINUSE;
    table.tableOf(entryHi, entryLo);
    const lowerHi = table.hi;
    const lowerLo = table.lo;
    if (hasLeaf(table, level - 1, lowerHi, lowerLo)) return EADDRINUSE;
    collectBelow(table, level - 1, lowerHi, lowerLo);
    view[w] = 0;
    view[w + 1] = 0;
    if (table.flush !== null) table.flush(tablePfn, (w - at) * 4, 8);
    table.pages!.listAdd(table.scratch, blockPfnOfWords(lowerHi, lowerLo));
    addBytes(table, hi, lo, i * POW2[itemLg2]!);
    const first = pfnOfWords(table.hi, table.lo);
    const last = first + POW2[itemLg2 - 12]! - 1;
    if (table.noGaps !== 0 && gather.disjoint(first, last)) releaseNow(table, gather);
    gather.add(first, last);
    gather.tableLevels |= 1 << level;
    spliceScratch(table, gather);
  }
  return 0;
};

/** Writes `count` leaves of 2^`sizeLg2` bytes from word `w` on without a check; output addresses may wrap in the entry. */
const writeLeaves = (
  table: TableState,
  view: Int32Array,
  w0: number,
  count: number,
  sizeLg2: number,
  itemsLg2: number,
  paHi: number,
  paLo: number,
  attrHi: number,
  attrLo: number,
): void => {
  const stepLg2 = sizeLg2 - table.oaShift;
  const stepLo = stepLg2 < 32 ? 1 << stepLg2 : 0;
  const stepHi = stepLg2 < 32 ? 0 : 1 << (stepLg2 - 32);
  const items = 1 << itemsLg2;
  let hi = paHi;
  let lo = paLo;
  let w = w0;
  for (let left = count; left > 0;) {
    // Entries count on linearly up to where the address field ends (or folds); from there it begins anew.
    const room = (POW2[table.oaLimitLg2]! - modLg2(hi, lo, table.oaLimitLg2)) / POW2[sizeLg2]!;
    const n = room < left ? Math.max(1, Math.floor(room)) : left;
    table.encodeOa(hi, lo);
    const bulk = table.bulk;
    if (n << itemsLg2 >= 4 && bulk !== null && view === table.homeWords) {
      bulk.repeat(w << 2, n, items, table.lo | attrLo, table.hi | attrHi, stepLo, stepHi);
    } else repeat(view, w, n, items, table.lo | attrLo, table.hi | attrHi, stepLo, stepHi);
    left -= n;
    if (left > 0) {
      w += (n << itemsLg2) * 2;
      addBytes(table, hi, lo, n * POW2[sizeLg2]!);
      hi = table.hi;
      lo = table.lo;
    }
  }
};

/** Number of empty entries from word `w` on, at most `count`. */
const emptyRun = (table: TableState, view: Int32Array, w: number, count: number): number => {
  const bulk = table.bulk;
  return bulk !== null && count >= 4 && view === table.homeWords
    ? bulk.firstUsed(w << 2, count)
    : firstUsed(view, w, count);
};

/**
 * The one run of leaves that most maps are: fills as many of `count` entries as are empty (with `all`: all or none) and
 * returns how many were empty. Output addresses must not wrap.
 */
export const fillRun = (
  table: TableState,
  view: Int32Array,
  w: number,
  count: number,
  sizeLg2: number,
  paHi: number,
  paLo: number,
  attrHi: number,
  attrLo: number,
  all: boolean,
): number => {
  const stepLg2 = sizeLg2 - table.oaShift;
  const stepLo = stepLg2 < 32 ? 1 << stepLg2 : 0;
  const stepHi = stepLg2 < 32 ? 0 : 1 << (stepLg2 - 32);
  table.encodeOa(paHi, paLo);
  const lo = table.lo | attrLo;
  const hi = table.hi | attrHi;
  const bulk = table.bulk;
  return bulk !== null && count >= 4 && view === table.homeWords
    ? bulk.fill(w << 2, count, lo, hi, stepLo, stepHi, all ? 1 : 0)
    : fill(view, w, count, lo, hi, stepLo, stepHi, all);
};

/** True when `count` output addresses from `hi:lo` on fit the entry without a wrap. */
export const linear = (table: TableState, hi: number, lo: number, bytes: number): boolean =>
  modLg2(hi, lo, table.oaLimitLg2) + bytes <= POW2[table.oaLimitLg2]!;

/** Range map by the rules of `generic_pt`. */
export const mapGeneric = (
  table: TableState,
  iovaHi: number,
  iovaLo: number,
  oaHi: number,
  oaLo: number,
  length: number,
  prot: number,
  callerGather: GatherRecord | null,
): number => {
  table.mapped = 0;
  if ((prot & 3) === 0) return EINVAL;
  if (((oaHi & table.oasMaskHi) | (oaLo & table.oasMaskLo)) !== 0) return ERANGE;
  if (table.forceWriteable !== 0 && (prot & 2) === 0) return EINVAL;
  if (!(length > 0)) return EINVAL;
  // The last byte, computed from the last granule so that lengths beyond 2^53 stay exact.
  addBytes(table, iovaHi, iovaLo, length - table.granuleBytes);
  const lastHi = table.hi;
  const lastLo = table.lo | table.granuleMask;
  // Beyond the end of 64 bits.
  if (lastHi >>> 0 < iovaHi >>> 0 || (lastHi === iovaHi && lastLo >>> 0 < iovaLo >>> 0)) return EINVAL;
  if (((iovaLo | oaLo) & table.granuleMask) !== 0 || length % table.granuleBytes !== 0) return ENXIO;
  let sizeLg2 = bestSizeLg2(table, iovaHi, iovaLo, oaHi, oaLo, length);
  if (sizeLg2 === 0) return ENXIO;
  let level = ((sizeLg2 - table.granuleLg2) / table.bits) | 0;
  const oneHalf = (iovaHi ^ lastHi) >= 0 || table.highOk === 0;
  const inside = oneHalf && table.inRange(iovaHi, iovaLo) && table.inRange(lastHi, lastLo);
  if (table.dynamicTop !== 0) {
    if (!inside || level > table.topLevel) {
      const grown = growTop(table, lastHi, lastLo, level);
      if (grown !== 0) return grown;
    }
  } else if (!inside) return ERANGE;

  const gather = callerGather ?? table.ownGather;
  const attributes = table.attributes;
  const protAt = (prot & 63) << 2;
  let hi = iovaHi;
  let lo = iovaLo;
  let paHi = oaHi;
  let paLo = oaLo;
  let left = length;
  let result = 0;
  for (;;) {
    const count = countOfSize(table, hi, lo, paHi, paLo, left, sizeLg2);
    level = ((sizeLg2 - table.granuleLg2) / table.bits) | 0;
    const itemsLg2 = sizeLg2 - table.granuleLg2 - level * table.bits;
    result = findTable(table, hi, lo, level, true);
    if (result !== 0) break;
    const view = table.view;
    const index = indexAt(table, level, hi, lo);
    const w = table.at + (index << 1);
    const room = ((level === table.topLevel ? table.topMask : table.indexMask) + 1 - index) >> itemsLg2;
    const n = count < room ? count : room;
    let attrLo = attributes[protAt + (level === 0 ? 0 : 2)]!;
    let attrHi = attributes[protAt + (level === 0 ? 1 : 3)]!;
    let done: number;
    if (itemsLg2 === 0 && linear(table, paHi, paLo, n * POW2[sizeLg2]!)) {
      done = fillRun(table, view, w, n, sizeLg2, paHi, paLo, attrHi, attrLo, false);
    } else {
      done = emptyRun(table, view, w, n << itemsLg2) >> itemsLg2;
      if (itemsLg2 !== 0) {
        // The size, coded in address bits that are zero by alignment.
        if (table.contig === CONTIG_AMD) {
          const ones = sizeLg2 - 1; // OA bits (size-2):12
          attrLo |= 0xe00 | ((ones >= 32 ? -1 : (1 << ones) - 1) & -4096);
          if (ones > 32) attrHi |= (1 << (ones - 32)) - 1;
        } else {
          attrHi |= 0x8000_0000 | 0; // N, and PPN[3:0] = 1000b for 64 KiB
          attrLo |= 1 << 13;
        }
      }
      if (done > 0) writeLeaves(table, view, w, done, sizeLg2, itemsLg2, paHi, paLo, attrHi, attrLo);
    }
    if (done > 0) {
      if (table.flush !== null) table.flush(currentPfn(table), index * 8, (done << itemsLg2) * 8);
      const bytes = done * POW2[sizeLg2]!;
      table.mapped += bytes;
      left -= bytes;
      if (left <= 0) break;
      addBytes(table, hi, lo, bytes);
      hi = table.hi;
      lo = table.lo;
      addBytes(table, paHi, paLo, bytes);
      paHi = table.hi;
      paLo = table.lo;
    }
    if (done < n) {
      // What stands there is a leaf, a table, or (never written by us) an entry that is not present but not zero.
      const items = 1 << itemsLg2;
      const wUsed = w + ((done << itemsLg2) << 1);
      result = makeRoom(table, gather, view, wUsed, items, level, hi, lo);
      if (result !== 0) break;
      for (let i = 0; i < items; i++) view[wUsed + 2 * i] = view[wUsed + 2 * i + 1] = 0;
    }
    sizeLg2 = bestSizeLg2(table, hi, lo, paHi, paLo, left);
  }
  if (!gather.freelist.empty) releaseNow(table, gather);
  return result === ENOENT ? EINVAL : result;
};

/** One call of `map_pages`: at most to the end of one table. Adds to `mapped`. */
const mapCall = (
  table: TableState,
  hi: number,
  lo: number,
  paHi: number,
  paLo: number,
  sizeLg2: number,
  count: number,
  prot: number,
  callerGather: GatherRecord | null,
): number => {
  const allowed = sizeLg2 < 32 ? table.sizesLo & (1 << sizeLg2) : table.sizesHi & (1 << (sizeLg2 - 32));
  if (allowed === 0) return EINVAL;
  const inside = table.inRange(hi, lo);
  if (table.rules === RULES_IO_PGTABLE_ARM && !inside) return ERANGE;
  if (((paHi & table.oasMaskHi) | (paLo & table.oasMaskLo)) !== 0) return ERANGE;
  if ((prot & 3) === 0) return EINVAL;
  if (table.rules === RULES_IO_PGTABLE_DART && !inside) return ENOMEM;
  if (modLg2(hi, lo, sizeLg2) !== 0 || modLg2(paHi, paLo, sizeLg2) !== 0) return EINVAL;
  const level = ((sizeLg2 - table.granuleLg2) / table.bits) | 0;
  const found = findTable(table, hi, lo, level, true);
  if (found !== 0) return found === ENOENT ? EINVAL : found;
  const view = table.view;
  const index = indexAt(table, level, hi, lo);
  const w = table.at + (index << 1);
  const room = table.indexMask + 1 - (index & table.indexMask);
  const n = count < room ? count : room;
  const protAt = ((prot & 63) << 2) + (level === 0 ? 0 : 2);
  const attrLo = table.attributes[protAt]!;
  const attrHi = table.attributes[protAt + 1]!;
  const bytes = n * POW2[sizeLg2]!;
  const pfn = currentPfn(table);
  if (!(
    linear(table, paHi, paLo, bytes) && fillRun(table, view, w, n, sizeLg2, paHi, paLo, attrHi, attrLo, true) === n
  )) {
    // Something stands there: leaves refuse the whole call, tables (Arm) are dropped one by one on the way.
    const at = table.at;
    for (let i = 0, entry = w; i < n; i++, entry += 2) {
      const entryLo = view[entry]!;
      const entryHi = view[entry + 1]!;
      if (!isPresent(table, entryHi, entryLo)) continue;
      if (!isTable(table, level, entryLo)) return EEXIST;
      const gather = callerGather ?? table.ownGather;
      view[entry] = 0;
      view[entry + 1] = 0;
      if (table.flush !== null) table.flush(pfn, (entry - at) * 4, 8);
      addBytes(table, hi, lo, i * POW2[sizeLg2]!);
      const first = pfnOfWords(table.hi, table.lo);
      gather.add(first, first + POW2[sizeLg2 - 12]! - 1);
      gather.tableLevels |= 1 << level;
      table.tableOf(entryHi, entryLo);
      gatherTree(table, gather, level - 1, table.hi, table.lo);
      releaseNow(table, gather);
    }
    writeLeaves(table, view, w, n, sizeLg2, 0, paHi, paLo, attrHi, attrLo);
  }
  if (table.flush !== null) table.flush(pfn, index * 8, n * 8);
  table.mapped += bytes;
  return 0;
};

/** `count` pages of one size by the rules of `io-pgtable`, table by table as the kernel's core calls it. */
export const mapPagesIo = (
  table: TableState,
  iovaHi: number,
  iovaLo: number,
  oaHi: number,
  oaLo: number,
  sizeLg2: number,
  count: number,
  prot: number,
  gather: GatherRecord | null,
): number => {
  let hi = iovaHi;
  let lo = iovaLo;
  let paHi = oaHi;
  let paLo = oaLo;
  if (!(count > 0)) return EINVAL;
  for (let left = count; ;) {
    const before = table.mapped;
    const result = mapCall(table, hi, lo, paHi, paLo, sizeLg2, left, prot, gather);
    if (result !== 0) return result;
    const bytes = table.mapped - before;
    left -= bytes / POW2[sizeLg2]!;
    if (left <= 0) return 0;
    addBytes(table, hi, lo, bytes);
    hi = table.hi;
    lo = table.lo;
    addBytes(table, paHi, paLo, bytes);
    paHi = table.hi;
    paLo = table.lo;
  }
};

/** Range map by the rules of `io-pgtable`: sizes picked as the kernel's core does, first error ends it. */
export const mapIo = (
  table: TableState,
  iovaHi: number,
  iovaLo: number,
  oaHi: number,
  oaLo: number,
  length: number,
  prot: number,
  gather: GatherRecord | null,
): number => {
  table.mapped = 0;
  // The core's own checks: a length, and all aligned to the smallest page size.
  if (!(length > 0) || ((iovaLo | oaLo) & table.granuleMask) !== 0 || length % table.granuleBytes !== 0) return EINVAL;
  let hi = iovaHi;
  let lo = iovaLo;
  let paHi = oaHi;
  let paLo = oaLo;
  for (let left = length; ;) {
    const sizeLg2 = bestSizeLg2(table, hi, lo, paHi, paLo, left);
    if (sizeLg2 === 0) return EINVAL;
    const count = countOfSize(table, hi, lo, paHi, paLo, left, sizeLg2);
    const before = table.mapped;
    const result = mapPagesIo(table, hi, lo, paHi, paLo, sizeLg2, count, prot, gather);
    if (result !== 0) return result;
    const bytes = table.mapped - before;
    left -= bytes;
    if (left <= 0) return 0;
    addBytes(table, hi, lo, bytes);
    hi = table.hi;
    lo = table.lo;
    addBytes(table, paHi, paLo, bytes);
    paHi = table.hi;
    paLo = table.lo;
  }
};
