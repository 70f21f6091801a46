/** Going over a whole table: its leaves, and the tables it is made of. */
import { join64, loOfPfn } from '@iommu-ts/bits';
import { leafProt } from './decode.ts';
import type { LeafProt } from './decode.ts';
import { isPresent, isTable } from './release.ts';
import type { TableState } from './state.ts';
import { contigLg2 } from './unmap.ts';
import { takeLeaf } from './walk.ts';

/** One mapping as the table holds it; a contiguous run of entries is one leaf. */
export interface Leaf {
  readonly iova: bigint;
  readonly pa: bigint;
  readonly size: bigint;
  /** 0 = lowest. */
  readonly level: number;
  readonly entry: bigint;
  readonly prot: LeafProt;
}

/** One table of the tree. */
export interface TableInfo {
  readonly pa: bigint;
  /** 0 = lowest. */
  readonly level: number;
  readonly bytes: number;
}

/** IOVA of the first byte that index 0 of the top table stands for: sign-extended or upper-half IOVAs are made whole. */
const wholeIova = (table: TableState, iova: bigint): bigint => {
  const { ias } = table;
  if (table.lowOk === 0) return iova | BigInt.asUintN(64, -1n << BigInt(ias));
  if (table.highOk !== 0 && (iova >> BigInt(ias - 1)) & 1n) return iova | BigInt.asUintN(64, -1n << BigInt(ias));
  return iova;
};

/** Every table once, each before those below it, with the IOVA (not yet made whole) of its first entry. */
function* visit(
  table: TableState,
  level: number,
  hi: number,
  lo: number,
  iova: bigint,
): Generator<{ level: number; hi: number; lo: number; iova: bigint; entries: number }> {
  const entries = (level === table.topLevel ? table.topMask : table.indexMask) + 1;
  yield { level, hi, lo, iova, entries };
  if (level === 0) return;
  const itemLg2 = BigInt(table.granuleLg2 + level * table.bits);
  for (let i = 0; i < entries; i++) {
    if (!table.locate(hi, lo)) return;
    const w = table.at + (i << 1);
    const entryLo = table.view[w]!;
    const entryHi = table.view[w + 1]!;
    if (!isPresent(table, entryHi, entryLo) || !isTable(table, level, entryLo)) continue;
    table.tableOf(entryHi, entryLo);
    yield* visit(table, level - 1, table.hi, table.lo, iova + (BigInt(i) << itemLg2));
  }
}

const visitAll = function* (table: TableState): ReturnType<typeof visit> {
  const span = BigInt(table.granuleLg2 + (table.topLevel + 1) * table.bits);
  for (let i = 0; i < table.rootCount; i++) {
    const pfn = table.rootPfns[i]!;
    const hi = Math.floor(pfn / 0x10_0000) | 0;
    yield* visit(table, table.topLevel, hi, loOfPfn(pfn), BigInt(i) << span);
  }
};

/** Leaves of the table `hi:lo` at `level` and of those below it, ascending. Lazy: a dump may hold a table that holds itself. */
function* leavesIn(table: TableState, level: number, hi: number, lo: number, iova: bigint): Generator<Leaf> {
  const entries = (level === table.topLevel ? table.topMask : table.indexMask) + 1;
  const itemLg2 = table.granuleLg2 + level * table.bits;
  for (let i = 0; i < entries;) {
    if (!table.locate(hi, lo)) return;
    const w = table.at + (i << 1);
    const entryLo = table.view[w]!;
    const entryHi = table.view[w + 1]!;
    if (!isPresent(table, entryHi, entryLo)) {
      i++;
      continue;
    }
    const here = iova + (BigInt(i) << BigInt(itemLg2));
    if (isTable(table, level, entryLo)) {
      table.tableOf(entryHi, entryLo);
      yield* leavesIn(table, level - 1, table.hi, table.lo, here);
      i++;
    } else {
      const items = 1 << contigLg2(table, level, entryHi, entryLo);
      takeLeaf(table, level, entryHi, entryLo, 0, 0);
      const entry = join64(entryHi, entryLo);
      yield {
        iova: wholeIova(table, here),
        pa: join64(table.outHi, table.outLo),
        size: 1n << BigInt(table.leafSizeLg2),
        level,
        entry,
        prot: leafProt(table, entry),
      };
      i += items - (i & (items - 1));
    }
  }
}

/** All leaves in ascending order of IOVA. */
export function* leavesOf(table: TableState): Generator<Leaf> {
  const span = BigInt(table.granuleLg2 + (table.topLevel + 1) * table.bits);
  for (let i = 0; i < table.rootCount; i++) {
    const pfn = table.rootPfns[i]!;
    const hi = Math.floor(pfn / 0x10_0000) | 0;
    yield* leavesIn(table, table.topLevel, hi, loOfPfn(pfn), BigInt(i) << span);
  }
}

/** Tables, each before those below it. */
export function* tablesOf(table: TableState): Generator<TableInfo> {
  for (const { level, hi, lo, entries } of visitAll(table)) yield { pa: join64(hi, lo), level, bytes: entries * 8 };
}
