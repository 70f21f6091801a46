import { describe, expect, test } from 'vitest';
import { IdAllocator } from '../src/ids.ts';

describe('IdAllocator', () => {
  test('gives the lowest free id and says when all are in use', () => {
    const ids = new IdAllocator('domain id', 1, 3);
    expect([ids.alloc(), ids.alloc(), ids.alloc()]).toEqual([1, 2, 3]);
    expect(() => ids.alloc()).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
    ids.free(2);
    expect(ids.inUse).toBe(2);
    expect(ids.alloc()).toBe(2);
    expect(() => ids.alloc()).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
  });

  test('refuses an id that is not in use', () => {
    const ids = new IdAllocator('ASID', 0, 10);
    expect(() => ids.free(4)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    ids.free(ids.alloc());
    expect(() => ids.free(0)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });
});
