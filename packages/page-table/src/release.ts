/** Tables that go: collecting them in the order in which each family of rules frees them, and giving them back. */
import { blockPfnOfWords } from '@iommu-ts/bits';
import type { GatherRecord } from './gather.ts';
import type { TableState } from './state.ts';

/** What an entry at `level` is. */
export const isPresent = (table: TableState, hi: number, lo: number): boolean =>
  ((lo & table.presentLo) | (hi & table.presentHi)) !== 0;
export const isTable = (table: TableState, level: number, lo: number): boolean =>
  level > 0 && (lo & table.typeMask) === table.tableType + level * table.tableStep;

/** True when the table `hi:lo` at `level`, or one below it, has a leaf. */
export const hasLeaf = (table: TableState, level: number, hi: number, lo: number): boolean => {
  if (!table.locate(hi, lo)) return false;
  const { view, at } = table;
  for (let i = 0, w = at; i <= table.indexMask; i++, w += 2) {
    const entryLo = view[w]!;
    const entryHi = view[w + 1]!;
    if (!isPresent(table, entryHi, entryLo)) continue;
    if (!isTable(table, level, entryLo)) return true;
    table.tableOf(entryHi, entryLo);
    if (hasLeaf(table, level - 1, table.hi, table.lo)) return true;
  }
  return false;
};

/** Adds the tables below the table `hi:lo` at `level` to the scratch list, each before its own children. */
export const collectBelow = (table: TableState, level: number, hi: number, lo: number): void => {
  if (level === 0 || !table.locate(hi, lo)) return;
  const { view, at } = table;
  for (let i = 0, w = at; i <= table.indexMask; i++, w += 2) {
    const entryLo = view[w]!;
    const entryHi = view[w + 1]!;
    if (!isPresent(table, entryHi, entryLo) || !isTable(table, level, entryLo)) continue;
    table.tableOf(entryHi, entryLo);
    const lowerHi = table.hi;
    const lowerLo = table.lo;
    table.pages!.listAdd(table.scratch, blockPfnOfWords(lowerHi, lowerLo));
    collectBelow(table, level - 1, lowerHi, lowerLo);
  }
};

/** Adds the table `hi:lo` at `level` and all below it to the gather's list, children before parents, ascending. */
export const gatherTree = (table: TableState, gather: GatherRecord, level: number, hi: number, lo: number): void => {
  if (level > 0 && table.locate(hi, lo)) {
    const { view, at } = table;
    for (let i = 0, w = at; i <= table.indexMask; i++, w += 2) {
      const entryLo = view[w]!;
      const entryHi = view[w + 1]!;
      if (!isPresent(table, entryHi, entryLo) || !isTable(table, level, entryLo)) continue;
      table.tableOf(entryHi, entryLo);
      gatherTree(table, gather, level - 1, table.hi, table.lo);
    }
  }
  table.forget();
  table.pages!.listAdd(gather.freelist, blockPfnOfWords(hi, lo));
};

/** Moves the scratch list to the front of the gather's. */
export const spliceScratch = (table: TableState, gather: GatherRecord): void => {
  table.forget();
  table.pages!.listSplice(table.scratch, gather.freelist);
  table.scratch.init();
};

/**
 * What is gathered must go before the operation goes on: the caller's `sync` flushes and frees; without one the engine
 * frees its own gather, and leaves the caller's gather to the caller.
 */
export const releaseNow = (table: TableState, gather: GatherRecord): void => {
  if (table.sync !== null) table.sync(gather);
  else if (gather === table.ownGather) {
    table.pages!.putPagesList(gather.freelist);
    gather.reset();
  }
};
