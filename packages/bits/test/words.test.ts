/** 64-bit values as words and page frame numbers, against bigint arithmetic. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  IommuError,
  addressOfPfn,
  blockPfnOf,
  blockPfnOfWords,
  checkU64,
  hi32,
  hiOfPfn,
  join64,
  lo32,
  loOfPfn,
  numberOfWords,
  pfnOf,
  pfnOfWords,
  toNumber,
} from '../src/index.ts';

fc.configureGlobal({ seed: 20_261_123 });

const u64 = fc.oneof(
  fc.bigInt(0n, 2n ** 64n - 1n),
  fc.constantFrom(0n, 1n, 0xfffn, 0x1000n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 52n, 2n ** 63n, 2n ** 64n - 1n),
);

test('split and join', () => {
  fc.assert(
    fc.property(u64, (value) => {
      expect(lo32(value)).toBe(Number(value % 2n ** 32n));
      expect(hi32(value)).toBe(Number(value / 2n ** 32n));
      expect(join64(hi32(value), lo32(value))).toBe(value);
      // Words as int32 do as well.
      expect(join64(hi32(value) | 0, lo32(value) | 0)).toBe(value);
    }),
  );
});

test('page frame numbers are exact', () => {
  fc.assert(
    fc.property(u64, (value) => {
      const pfn = pfnOf(value);
      expect(BigInt(pfn)).toBe(value / 4096n);
      expect(Number.isSafeInteger(pfn)).toBe(true);
      expect(pfnOfWords(hi32(value), lo32(value))).toBe(pfn);
      expect(pfnOfWords(hi32(value) | 0, lo32(value) | 0)).toBe(pfn);
      expect(addressOfPfn(pfn)).toBe(value - (value % 4096n));
      expect(addressOfPfn(pfn, Number(value % 4096n))).toBe(value);
      expect(join64(hiOfPfn(pfn), loOfPfn(pfn))).toBe(addressOfPfn(pfn));
      expect(loOfPfn(pfn)).toBe(loOfPfn(pfn) | 0);
    }),
  );
});

test('numberOfWords', () => {
  expect(numberOfWords(0, -1)).toBe(0xffff_ffff);
  expect(numberOfWords(0x1f_ffff, -1)).toBe(Number.MAX_SAFE_INTEGER);
});

const codeOf = (run: () => void): unknown => {
  try {
    run();
  } catch (error) {
    return error instanceof IommuError ? error.code : (error as Error).constructor;
  }
  return 'nothing thrown';
};

describe('checks at the edge', () => {
  test('checkU64', () => {
    checkU64(0n, 'iova');
    checkU64(2n ** 64n - 1n, 'iova');
    expect(codeOf(() => checkU64(-1n, 'iova'))).toBe('ERANGE');
    expect(codeOf(() => checkU64(2n ** 64n, 'iova'))).toBe('ERANGE');
    expect(codeOf(() => checkU64(5 as unknown as bigint, 'iova'))).toBe(TypeError);
    expect(() => checkU64('0' as unknown as bigint, 'iova')).toThrow('"iova" expected bigint, got type=string');
    expect(() => checkU64(2n ** 64n, 'iova')).toThrow('0x10000000000000000');
  });
  test('toNumber', () => {
    expect(toNumber(2n ** 53n - 1n, 'size')).toBe(Number.MAX_SAFE_INTEGER);
    expect(codeOf(() => toNumber(2n ** 53n, 'size'))).toBe('ERANGE');
    expect(codeOf(() => toNumber(-1n, 'size'))).toBe('ERANGE');
  });
});

test('a block smaller than a page has a page frame number with a fraction of k/64', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 53n - 1n }), (unit) => {
      const address = unit * 64n;
      const pfn = blockPfnOf(address + 63n);
      expect(pfn).toBe(Number(unit / 64n) + Number(unit % 64n) / 64);
      expect(Number.isInteger(pfn)).toBe(address % 4096n === 0n);
      expect(blockPfnOfWords(Number(address >> 32n), Number(address & 0xffff_ffffn))).toBe(pfn);
      expect(addressOfPfn(pfn)).toBe(address);
      expect(addressOfPfn(pfn, 40)).toBe(address + 40n);
      expect(join64(hiOfPfn(pfn), loOfPfn(pfn))).toBe(address);
      expect(loOfPfn(pfn)).toBe(loOfPfn(pfn) | 0);
    }),
  );
});
