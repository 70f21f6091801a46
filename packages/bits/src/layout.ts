/**
 * Field layouts, declared as a specification prints them: `NAME: bits(msb, lsb)`, highest first.
 * One table feeds register access, decoders, the command line and the documentation.
 */

/** One field of a register or structure: bits `msb` down to `lsb`, both inclusive, counted from bit 0 of the whole value. */
export interface Field {
  readonly msb: number;
  readonly lsb: number;
  readonly doc: string;
}

/** Fields by their specification name. A structure wider than 64 bits counts its bits on: word 1 begins at bit 64. */
export type Layout = Readonly<Record<string, Field>>;

/** Values by field name, as {@link decode} gives and {@link encode} takes them. */
export type FieldValues<L extends Layout> = { readonly [K in keyof L]: bigint };

/** A field from bit `msb` down to bit `lsb`. */
export const bits = (msb: number, lsb: number, doc = ''): Field => ({ msb, lsb, doc });

/** A field of one bit. */
export const bit = (n: number, doc = ''): Field => ({ msb: n, lsb: n, doc });

/** The part of `field`'s mask that lies in 32-bit word `word` of its value, in place, as int32. */
export const maskWord = (field: Field, word: number): number => {
  const from = Math.max(field.lsb, word * 32) - word * 32;
  const to = Math.min(field.msb, word * 32 + 31) - word * 32;
  if (from > 31 || to < 0 || from > to) return 0;
  return ((0xffff_ffff >>> (31 - to + from)) << from) | 0;
};

/** Mask of bits 31..0 of `field`, in place, as int32 (stored as a small integer by the engine). */
export const maskLo = (field: Field): number => maskWord(field, 0);

/** Mask of bits 63..32 of `field`, in place, as int32. */
export const maskHi = (field: Field): number => maskWord(field, 1);

/** Width of `field` in bits. */
export const widthOf = (field: Field): number => field.msb - field.lsb + 1;

/** Mask of `field` in place, as `bigint`. */
export const maskOf = (field: Field): bigint => ((1n << BigInt(widthOf(field))) - 1n) << BigInt(field.lsb);

/** Value of `field` in `value`. */
export const extract = (value: bigint, field: Field): bigint =>
  (value >> BigInt(field.lsb)) & ((1n << BigInt(widthOf(field))) - 1n);

/** `value` with `field` replaced by `part`; bits of `part` that do not fit are dropped. */
export const insert = (value: bigint, field: Field, part: bigint): bigint =>
  (value & ~maskOf(field)) | ((part << BigInt(field.lsb)) & maskOf(field));

/** Value of a field that lies in one word, from that word (bits 31..0 of the value, or of word `lsb >> 5`). */
export const fieldOfWord = (word: number, field: Field): number =>
  (word >>> (field.lsb & 31)) & (widthOf(field) === 32 ? -1 : (1 << widthOf(field)) - 1);

/** Every field of `layout` in `value`. */
export const decode = <L extends Layout>(layout: L, value: bigint): FieldValues<L> =>
  Object.fromEntries(
    Object.entries(layout).map(([name, field]) => [name, extract(value, field)]),
  ) as unknown as FieldValues<L>;

/** The value whose fields are `fields`; what is not named is zero. Bits that do not fit are dropped. */
export const encode = <L extends Layout>(
  layout: L,
  fields: Partial<Record<keyof L, bigint | number | boolean>>,
): bigint => {
  let value = 0n;
  for (const [name, part] of Object.entries(fields)) {
    const field = layout[name];
    if (field !== undefined && part !== undefined)
      value = insert(value, field, BigInt(part as bigint | number | boolean));
  }
  return value;
};

/** Rows of a documentation table: bits, name, meaning. */
export const describeLayout = (layout: Layout): { bits: string; name: string; doc: string }[] =>
  Object.entries(layout).map(([name, field]) => ({
    bits: field.msb === field.lsb ? `${field.msb}` : `${field.msb}:${field.lsb}`,
    name,
    doc: field.doc,
  }));

/** Pairs of fields of `layout` that share a bit: empty for a sound layout that has no unions. */
export const overlaps = (layout: Layout): [string, string][] => {
  const entries = Object.entries(layout);
  const pairs: [string, string][] = [];
  for (let i = 0; i < entries.length; i++) {
    for (let j = i + 1; j < entries.length; j++) {
      const [a, fa] = entries[i]!;
      const [b, fb] = entries[j]!;
      if (fa.msb >= fb.lsb && fb.msb >= fa.lsb) pairs.push([a, b]);
    }
  }
  return pairs;
};
