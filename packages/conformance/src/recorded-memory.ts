import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { RamOptions } from '@iommu-ts/iommu-pages';
import { FieldReader, formatError, isObject, parseU64 } from './json-lines.ts';

/** A stretch of RAM of a recorded machine. */
export interface RamStretch {
  readonly base: bigint;
  readonly size: bigint;
}

/**
 * Memory without an end: every 64-bit address answers, zero until written. Recordings of drivers reach doorbells and other
 * places outside the RAM that their header names, and most vectors do not care where memory ends.
 */
export const endlessMemory = (): PhysicalMemory =>
  new PhysicalMemory([
    { base: 0n, size: 1n << 44n },
    { base: 1n << 44n, size: (1n << 63n) - (1n << 44n) },
    { base: 1n << 63n, size: 1n << 63n },
  ]);

/** Memory that ends where `stretches` say: an access outside is a bus error. */
export const boundedMemory = (stretches: readonly RamStretch[]): PhysicalMemory =>
  new PhysicalMemory(stretches.map(({ base, size }): RamOptions => ({ base, size, kind: 'sparse' })));

/**
 * `ram` of a header: a list of `[base, size]` pairs, a list of `{base, size}`, or one `{base, size}`; undefined when the
 * header has none. @throws IommuError `EFORMAT`.
 */
export const readRam = (value: unknown, file: string, where: string): RamStretch[] | undefined => {
  if (value === undefined) return undefined;
  const list = isObject(value) ? [value] : value;
  if (!Array.isArray(list)) throw formatError(file, where, '"ram" to be a list of [base, size]', value);
  return list.map((item: unknown): RamStretch => {
    if (isObject(item)) {
      const fields = new FieldReader(file, where, item);
      return { base: fields.u64('base'), size: fields.u64('size') };
    }
    const [base, size] = Array.isArray(item) ? [parseU64(item[0]), parseU64(item[1])] : [];
    if (base === undefined || size === undefined) throw formatError(file, where, 'a [base, size] pair in "ram"', item);
    return { base, size };
  });
};
