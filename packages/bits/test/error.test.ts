import { describe, expect, test } from 'vitest';
import { IommuError, codeOfErrno, hex } from '../src/index.ts';

test('hex', () => {
  expect(hex(0)).toBe('0x0');
  expect(hex(0xdead_beef)).toBe('0xdeadbeef');
  expect(hex(2n ** 64n - 1n)).toBe('0xffffffffffffffff');
  expect(hex(-16)).toBe('-0x10');
  expect(hex(-16n)).toBe('-0x10');
});

describe('IommuError', () => {
  const cause = new Error('why');
  const error = new IommuError(
    'ERANGE',
    'iova 0x1000 is outside',
    { iova: 0x1000n, count: 255, rule: 'below 2^12' },
    { cause },
  );
  test('is an Error with code, message, details and cause', () => {
    expect(error).toBeInstanceOf(Error);
    expect(error.name).toBe('IommuError');
    expect(error.code).toBe('ERANGE');
    expect(error.message).toBe('iova 0x1000 is outside');
    expect(error.cause).toBe(cause);
    expect(String(error)).toBe('IommuError: iova 0x1000 is outside');
  });
  test('details are strings, numbers in hex, so that they survive JSON', () => {
    expect(error.details).toEqual({ iova: '0x1000', count: '0xff', rule: 'below 2^12' });
    expect(JSON.parse(JSON.stringify(error.details))).toEqual(error.details);
    expect(new IommuError('EINVAL', 'x').details).toEqual({});
  });
});

test('errno to code, as Linux numbers them', () => {
  const codes: [number, string][] = [
    [-6, 'ENXIO'],
    [-12, 'ENOMEM'],
    [-16, 'EBUSY'],
    [-17, 'EEXIST'],
    [-19, 'ENODEV'],
    [-22, 'EINVAL'],
    [-28, 'ENOSPC'],
    [-34, 'ERANGE'],
    [-95, 'EOPNOTSUPP'],
    [-98, 'EADDRINUSE'],
    [-110, 'ETIMEDOUT'],
  ];
  for (const [errno, code] of codes) expect(codeOfErrno(errno), `${errno}`).toBe(code);
  expect(codeOfErrno(-9999)).toBe('EINVAL');
});
