/** Field layouts: every answer is worked out here from the bit numbers, by shifting bigints. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  bit,
  bits,
  decode,
  describeLayout,
  encode,
  extract,
  fieldOfWord,
  insert,
  maskHi,
  maskLo,
  maskOf,
  maskWord,
  overlaps,
  widthOf,
} from '../src/index.ts';

fc.configureGlobal({ seed: 20_261_123 });

/** Ones from `msb` down to `lsb`, bit by bit. */
const ones = (msb: number, lsb: number): bigint => {
  let value = 0n;
  for (let i = lsb; i <= msb; i++) value += 2n ** BigInt(i);
  return value;
};
const int32 = (value: bigint): number => Number(BigInt.asIntN(32, value));

/** Any field of a value of up to 128 bits. */
const anyField = fc.tuple(fc.nat(127), fc.nat(127)).map(([a, b]) => bits(Math.max(a, b), Math.min(a, b)));

describe('fields', () => {
  test('bit and bits', () => {
    expect(bits(27, 24, 'page size')).toEqual({ msb: 27, lsb: 24, doc: 'page size' });
    expect(bit(31)).toEqual({ msb: 31, lsb: 31, doc: '' });
    expect(widthOf(bits(63, 0))).toBe(64);
    expect(widthOf(bit(5))).toBe(1);
  });

  test('masks of every field, word by word', () => {
    fc.assert(
      fc.property(anyField, (field) => {
        const mask = ones(field.msb, field.lsb);
        expect(maskOf(field)).toBe(mask);
        for (let word = 0; word < 4; word++) expect(maskWord(field, word)).toBe(int32(mask >> BigInt(32 * word)));
        expect(maskLo(field)).toBe(int32(mask));
        expect(maskHi(field)).toBe(int32(mask >> 32n));
      }),
    );
  });

  test('masks at the edges', () => {
    expect(maskLo(bits(31, 0))).toBe(-1);
    expect(maskHi(bits(63, 32))).toBe(-1);
    expect(maskLo(bit(31))).toBe(-0x8000_0000);
    expect(maskLo(bits(51, 12))).toBe(-4096);
    expect(maskHi(bits(51, 12))).toBe(0xf_ffff);
    expect(maskLo(bits(63, 52))).toBe(0);
    expect(maskHi(bits(11, 0))).toBe(0);
  });
});

describe('values', () => {
  test('extract gives what insert put, and insert leaves the rest alone', () => {
    fc.assert(
      fc.property(anyField, fc.bigInt(0n, 2n ** 128n - 1n), fc.bigInt(0n, 2n ** 128n - 1n), (field, value, part) => {
        const width = BigInt(field.msb - field.lsb + 1);
        const put = insert(value, field, part);
        expect(extract(put, field)).toBe(part % 2n ** width);
        const others = ~ones(field.msb, field.lsb);
        expect(put & others).toBe(value & others);
        expect(insert(value, field, extract(value, field))).toBe(value);
      }),
    );
  });

  test('a field of one word', () => {
    fc.assert(
      fc.property(fc.nat(31), fc.nat(31), fc.integer(), fc.nat(2), (a, b, word, which) => {
        const [msb, lsb] = [Math.max(a, b), Math.min(a, b)];
        const field = bits(msb + 32 * which, lsb + 32 * which);
        const want = Number((BigInt.asUintN(32, BigInt(word)) >> BigInt(lsb)) % 2n ** BigInt(msb - lsb + 1));
        expect(fieldOfWord(word, field) >>> 0).toBe(want);
      }),
    );
    expect(fieldOfWord(-1, bits(31, 0))).toBe(-1);
    expect(fieldOfWord(0x8100_0002 | 0, bits(27, 24))).toBe(1);
  });
});

describe('layouts', () => {
  const LAYOUT = {
    FLAG: bit(31, 'an error is recorded'),
    STREAM: bits(27, 24, 'of the access'),
    CODE: bits(11, 0, 'why'),
  } as const;

  test('decode and encode', () => {
    expect(decode(LAYOUT, 0x8f00_0804n)).toEqual({ FLAG: 1n, STREAM: 15n, CODE: 0x804n });
    expect(encode(LAYOUT, { FLAG: true, STREAM: 3, CODE: 0x10n })).toBe(0x8300_0010n);
    expect(encode(LAYOUT, {})).toBe(0n);
    // Too wide a value is cut, and does not spill into its neighbour.
    expect(encode(LAYOUT, { STREAM: 0x1f })).toBe(0x0f00_0000n);
    expect(encode(LAYOUT, { FLAG: false, CODE: undefined as unknown as number })).toBe(0n);
  });

  test('a structure wider than 64 bits', () => {
    const DTE = { GLX: bits(57, 56), DomainID: bits(79, 64), I: bit(96), IntTabLen: bits(132, 129) } as const;
    const value = encode(DTE, { GLX: 2, DomainID: 0xbeef, I: 1, IntTabLen: 9 });
    expect(value).toBe((2n << 56n) | (0xbeefn << 64n) | (1n << 96n) | (9n << 129n));
    expect(decode(DTE, value)).toEqual({ GLX: 2n, DomainID: 0xbeefn, I: 1n, IntTabLen: 9n });
  });

  test('rows for a table', () => {
    expect(describeLayout(LAYOUT)).toEqual([
      { bits: '31', name: 'FLAG', doc: 'an error is recorded' },
      { bits: '27:24', name: 'STREAM', doc: 'of the access' },
      { bits: '11:0', name: 'CODE', doc: 'why' },
    ]);
  });

  test('overlaps', () => {
    expect(overlaps(LAYOUT)).toEqual([]);
    expect(overlaps({ A: bits(7, 4), B: bits(4, 0), C: bit(8) })).toEqual([['A', 'B']]);
    expect(overlaps({ ALL: bits(63, 0), A: bit(0), B: bit(63) })).toEqual([
      ['ALL', 'A'],
      ['ALL', 'B'],
    ]);
  });
});
