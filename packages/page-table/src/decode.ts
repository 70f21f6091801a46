/** Reading entries back: fields by their specification names, and what a leaf allows. */
import { extract, hi32, lo32 } from '@iommu-ts/bits';
import type { PermissionTest } from './format.ts';
import { isPresent, isTable } from './release.ts';
import type { TableState } from './state.ts';

/** Fields of an entry by their specification names; empty for an entry that is not present. */
export type EntryFields = Readonly<Record<string, bigint>>;

/** What a leaf allows. */
export interface LeafProt {
  readonly read: boolean;
  readonly write: boolean;
  /** Absent where the format cannot say. */
  readonly exec?: boolean;
}

/** Fields of `entry` as it would be read at `level`. */
export const decodeEntry = (table: TableState, entry: bigint, level: number): EntryFields => {
  const hi = hi32(entry) | 0;
  const lo = lo32(entry) | 0;
  if (!isPresent(table, hi, lo)) return {};
  const layout = isTable(table, level, lo) ? table.format.tableLayout : table.format.leafLayout;
  const fields: Record<string, bigint> = {};
  for (const [name, field] of Object.entries(layout)) fields[name] = extract(entry, field);
  return fields;
};

const passes = (table: TableState, entry: bigint, test: PermissionTest | undefined): boolean =>
  test === undefined || extract(entry, table.format.leafLayout[test.field]!) === BigInt(test.value);

/** What the leaf `entry` allows. */
export const leafProt = (table: TableState, entry: bigint): LeafProt => {
  const { read, write, exec } = table.format.definition;
  const prot = { read: passes(table, entry, read), write: passes(table, entry, write) };
  return exec === undefined ? prot : { ...prot, exec: passes(table, entry, exec) };
};
