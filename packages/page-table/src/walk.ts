/** Looking up: the fast `iovaToPhys`, and the friendly walk that keeps a record of each step. */
import { checkU64, hi32, join64, lo32 } from '@iommu-ts/bits';
import { decodeEntry } from './decode.ts';
import type { EntryFields } from './decode.ts';
import { findTop, indexAt } from './find.ts';
import { isPresent, isTable } from './release.ts';
import type { TableState } from './state.ts';
import { contigLg2 } from './unmap.ts';

/** One entry read on the way from the top to the leaf. */
export interface WalkStep {
  /** 0 = lowest; `specLevel` is the specification's own number. */
  readonly level: number;
  readonly specLevel: number;
  readonly tablePa: bigint;
  readonly index: number;
  readonly entryPa: bigint;
  readonly entry: bigint;
  /** `outside`: the table does not lie in RAM, nothing could be read. */
  readonly kind: 'table' | 'leaf' | 'empty' | 'outside';
  readonly fields: EntryFields;
}

/** A walk from the top table. */
export interface WalkRecord {
  readonly iova: bigint;
  /** False when the IOVA is outside what the table covers: then there are no steps. */
  readonly inRange: boolean;
  readonly steps: readonly WalkStep[];
  /** The output address, or null when nothing is mapped. */
  readonly pa: bigint | null;
  /** Bytes of the leaf, 0n when nothing is mapped. */
  readonly size: bigint;
}

/**
 * Output address of the leaf `hi:lo` at `level` for the IOVA: sets `outHi:outLo`, `leafSizeLg2`, `leafLevel` and the entry.
 */
export const takeLeaf = (
  table: TableState,
  level: number,
  entryHi: number,
  entryLo: number,
  iovaHi: number,
  iovaLo: number,
): void => {
  let sizeLg2 = table.granuleLg2 + level * table.bits;
  if (table.contig !== 0) sizeLg2 += contigLg2(table, level, entryHi, entryLo);
  table.tableOf(entryHi, entryLo);
  if (sizeLg2 < 32) {
    const mask = (1 << sizeLg2) - 1;
    table.outHi = table.hi;
    table.outLo = (table.lo & ~mask) | (iovaLo & mask);
  } else {
    const mask = sizeLg2 === 32 ? 0 : (1 << (sizeLg2 - 32)) - 1;
    table.outHi = (table.hi & ~mask) | (iovaHi & mask);
    table.outLo = iovaLo;
  }
  table.leafSizeLg2 = sizeLg2;
  table.leafLevel = level;
  table.leafHi = entryHi;
  table.leafLo = entryLo;
};

/** The same over tables of any place: sparse memory, several start tables, dumps. */
const lookUpAnywhere = (table: TableState, iovaHi: number, iovaLo: number): boolean => {
  if (!findTop(table, iovaHi, iovaLo)) return false;
  for (let level = table.topLevel; ; level--) {
    const view = table.view;
    const w = table.at + (indexAt(table, level, iovaHi, iovaLo) << 1);
    const lo = view[w]!;
    const hi = view[w + 1]!;
    if (((lo & table.presentLo) | (hi & table.presentHi)) === 0) return false;
    if (level === 0 || (lo & table.typeMask) !== table.tableType + level * table.tableStep) {
      takeLeaf(table, level, hi, lo, iovaHi, iovaLo);
      return true;
    }
    table.tableOf(hi, lo);
    if (!table.locate(table.hi, table.lo)) return false;
  }
};

/**
 * Looks the IOVA up; the result is in `outHi:outLo`. All tables of a table in flat RAM normally lie in one range, so the
 * walk stays in one array with everything it needs in locals. Entries are first tested for what nearly all of them are, a
 * table in that range as the engine writes it; whatever fails the test is looked at again from the top, exactly.
 */
export const lookUp = (table: TableState, iovaHi: number, iovaLo: number): boolean => {
  if (!table.inRange(iovaHi, iovaLo)) return false;
  let at = table.rootWord;
  if (at < 0) return lookUpAnywhere(table, iovaHi, iovaLo);
  const words = table.homeWords;
  const oaMaskLo = table.oaMaskLo;
  const oaShift = table.oaShift;
  const leafShift = table.granuleLg2;
  let mask = table.topMask;
  let shift = table.topShift;
  if (shift !== leafShift) {
    const bits = table.bits;
    const indexMask = table.indexMask;
    const tableStep = table.tableStep;
    const walkMask = table.walkMaskLo;
    const walkHi = table.walkHi;
    const homeLo = table.homeLo;
    let type = table.topType;
    // Shift counts are taken modulo 32, so one count serves both words; `| 0` spares the test for overflow. Indexes of
    // high levels lie in the high word alone: two loops are quicker than one that asks each time. An entry beyond the
    // range reads as undefined, which is no table.
    for (; shift >= 32; shift = (shift - bits) | 0) {
      const w = (at + (((iovaHi >>> shift) & mask) << 1)) | 0;
      const lo = words[w]!;
      if ((lo & walkMask) !== type || words[(w + 1) | 0] !== walkHi) return lookUpAnywhere(table, iovaHi, iovaLo);
      at = (((lo & oaMaskLo) << oaShift) - homeLo) >>> 2;
      mask = indexMask;
      type = (type - tableStep) | 0;
    }
    for (; shift > leafShift; shift = (shift - bits) | 0) {
      const w = (at + ((((iovaLo >>> shift) | (iovaHi << -shift)) & mask) << 1)) | 0;
      const lo = words[w]!;
      if ((lo & walkMask) !== type || words[(w + 1) | 0] !== walkHi) return lookUpAnywhere(table, iovaHi, iovaLo);
      at = (((lo & oaMaskLo) << oaShift) - homeLo) >>> 2;
      mask = indexMask;
      type = (type - tableStep) | 0;
    }
    if (at >= table.homeLength) return lookUpAnywhere(table, iovaHi, iovaLo);
  }
  const w = (at + (((iovaLo >>> shift) & mask) << 1)) | 0;
  const lo = words[w]!;
  const hi = words[(w + 1) | 0]!;
  if (((lo & table.presentLo) | (hi & table.presentHi)) === 0) return false;
  if (((lo & table.contigLo) | (hi & table.leafMaskHi)) !== 0) {
    takeLeaf(table, 0, hi, lo, iovaHi, iovaLo);
    return true;
  }
  const oa = lo & oaMaskLo;
  const inPage = table.granuleMask;
  table.outHi = ((hi & table.oaMaskHi) << oaShift) | ((oa >>> (31 - oaShift)) >>> 1) | ((lo & table.foldLo) << 4);
  table.outLo = (oa << oaShift) | (iovaLo & inPage);
  table.leafSizeLg2 = shift;
  table.leafLevel = 0;
  table.leafHi = hi;
  table.leafLo = lo;
  return true;
};

/** Word of the level-1 table for the IOVA of a DART table with several start tables or three levels, or -1. */
const dartTable = (table: TableState, iovaHi: number, iovaLo: number): number => {
  const top = table.topShift;
  if (table.rootCount !== 1) {
    const rootShift = table.topShift + table.bits;
    if (table.topLevel !== 1 || rootShift >= 32) return -1;
    return table.rootWords[((iovaLo >>> rootShift) | (iovaHi << -rootShift)) & (table.rootCount - 1)]!;
  }
  const words = table.homeWords;
  const index = top >= 32 ? iovaHi >>> top : (iovaLo >>> top) | (iovaHi << -top);
  const w = (table.rootWord + ((index & table.topMask) << 1)) | 0;
  const lo = words[w]!;
  if ((lo & table.walkMaskLo) !== table.topType || words[(w + 1) | 0] !== table.walkHi) return -1;
  return (((lo & table.oaMaskLo) << table.oaShift) - table.homeLo) >>> 2;
};

/**
 * The look-up for DART, whose tables are alike at all levels and have leaves at the lowest only: two or three loads,
 * without a loop. As in {@link lookUp}, whatever is not as the engine writes it is looked at again from the top.
 */
export const lookUpDart = (table: TableState, iovaHi: number, iovaLo: number): boolean => {
  if (((iovaHi & table.coverMaskHi) | (iovaLo & table.coverMaskLo)) !== 0) return false;
  let at = table.dartWord;
  if (at < 0) {
    at = dartTable(table, iovaHi, iovaLo);
    if (at < 0) return lookUpAnywhere(table, iovaHi, iovaLo);
  }
  const words = table.homeWords;
  const oaShift = table.oaShift;
  const indexMask = table.indexMask;
  const shift = table.leafSpanLg2; // of level 1, below 32
  let w = (at + ((((iovaLo >>> shift) | (iovaHi << -shift)) & indexMask) << 1)) | 0;
  let lo = words[w]!;
  if ((lo & table.walkMaskLo) !== table.topType || words[(w + 1) | 0] !== table.walkHi) {
    return lookUpAnywhere(table, iovaHi, iovaLo);
  }
  at = (((lo & table.oaMaskLo) << oaShift) - table.homeLo) >>> 2;
  const leafShift = table.granuleLg2;
  w = (at + (((iovaLo >>> leafShift) & indexMask) << 1)) | 0;
  lo = words[w]!;
  if ((lo & table.presentLo) === 0) {
    // Beyond the range `lo` reads as undefined, which is not present either.
    return at >= table.homeLength && lookUpAnywhere(table, iovaHi, iovaLo);
  }
  const hi = words[(w + 1) | 0]!;
  const oa = lo & table.oaMaskLo;
  table.outHi = ((hi & table.oaMaskHi) << oaShift) | ((oa >>> (31 - oaShift)) >>> 1);
  table.outLo = (oa << oaShift) | (iovaLo & table.granuleMask);
  table.leafSizeLg2 = leafShift;
  table.leafLevel = 0;
  table.leafHi = hi;
  table.leafLo = lo;
  return true;
};

/** The walk with a record of each step. Never throws for what the tables hold: depth is bounded by the levels. */
export const walkRecord = (table: TableState, iova: bigint): WalkRecord => {
  checkU64(iova, 'iova');
  const hi = hi32(iova) | 0;
  const lo = lo32(iova) | 0;
  const steps: WalkStep[] = [];
  if (!table.inRange(hi, lo)) return { iova, inRange: false, steps, pa: null, size: 0n };
  let readable = findTop(table, hi, lo);
  let tHi = table.tableHi32;
  let tLo = table.tableLo32;
  for (let level = table.topLevel; ; level--) {
    const index = indexAt(table, level, hi, lo);
    const tablePa = join64(tHi, tLo);
    const base = {
      level,
      specLevel: table.format.specLevel(level),
      tablePa,
      index,
      entryPa: tablePa + BigInt(index * 8),
    };
    if (!readable) {
      steps.push({ ...base, entry: 0n, kind: 'outside', fields: {} });
      return { iova, inRange: true, steps, pa: null, size: 0n };
    }
    const w = table.at + (index << 1);
    const entryLo = table.view[w]!;
    const entryHi = table.view[w + 1]!;
    const entry = join64(entryHi, entryLo);
    const present = isPresent(table, entryHi, entryLo);
    const kind = !present ? 'empty' : isTable(table, level, entryLo) ? 'table' : 'leaf';
    steps.push({ ...base, entry, kind, fields: decodeEntry(table, entry, level) });
    if (kind === 'empty') return { iova, inRange: true, steps, pa: null, size: 0n };
    if (kind === 'leaf') {
      takeLeaf(table, level, entryHi, entryLo, hi, lo);
      const size = 1n << BigInt(table.leafSizeLg2);
      return { iova, inRange: true, steps, pa: join64(table.outHi, table.outLo), size };
    }
    table.tableOf(entryHi, entryLo);
    tHi = table.hi;
    tLo = table.lo;
    readable = table.locate(tHi, tLo);
  }
};
