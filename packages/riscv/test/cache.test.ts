/** The IOATC by itself: address spaces are told apart, and invalidations take what they name. */
import { expect, test } from 'vitest';
import { TranslationCache } from '../src/hardware/cache.ts';

const fill = (cache: TranslationCache, tag: number, page: number): void =>
  cache.iotlb.fill(tag, 0, page << 12, 12, 0, 0x10_0000, 31, 0);

test('one tag for one address space', () => {
  const cache = new TranslationCache();
  const tags = new Set<number>();
  for (const s1 of [false, true]) {
    for (const s2 of [false, true]) {
      for (const msi of [false, true]) {
        for (const gscid of [0, 1, 0xffff]) {
          for (const pscid of [0, 1, 0xf_ffff]) {
            const tag = cache.tagOf(s1, s2, msi, gscid, pscid);
            expect(cache.tagOf(s1, s2, msi, gscid, pscid)).toBe(tag);
            tags.add(tag);
          }
        }
      }
    }
  }
  // Where a stage is Bare its id does not count: 2 (MSI) × (1 + 3 + 3 + 9).
  expect(tags.size).toBe(32);
});

test('guest invalidations: by guest, by process, by address', () => {
  const cache = new TranslationCache({ mode: 'unbounded' });
  const a = cache.tagOf(true, true, false, 7, 1);
  const b = cache.tagOf(true, true, true, 7, 2);
  const plain = cache.tagOf(false, true, false, 7, 0);
  const other = cache.tagOf(true, true, false, 8, 1);
  const host = cache.tagOf(true, false, false, 0, 1);
  const all = [a, b, plain, other, host];
  const left = (): boolean[][] => all.map((tag) => [1, 2].map((page) => cache.iotlb.lookup(tag, 0, page << 12)));
  const refill = (): void => all.forEach((tag) => [1, 2].forEach((page) => fill(cache, tag, page)));
  const [both, none] = [
    [true, true],
    [false, false],
  ];
  refill();
  cache.invalidateVma(7, 2, 1, 1);
  expect(left()).toEqual([both, [false, true], both, both, both]);
  refill();
  cache.invalidateVma(7, 1, 0, Infinity);
  expect(left()).toEqual([none, both, both, both, both]);
  refill();
  cache.invalidateVma(7, -1, 2, 2);
  expect(left()).toEqual([[true, false], [true, false], [true, false], both, both]);
  refill();
  // By GPA: what went through two stages goes whole.
  cache.invalidateGvma(7, 2, 2);
  expect(left()).toEqual([none, none, [true, false], both, both]);
  refill();
  cache.invalidateGvma(-1, 0, Infinity);
  expect(left()).toEqual([none, none, none, none, both]);
  refill();
  cache.invalidateVma(-1, 1, 0, Infinity);
  expect(left()).toEqual([both, both, both, both, none]);
});

test('more address spaces than are told apart: all is dropped, none is mistaken for another', () => {
  const cache = new TranslationCache({ mode: 'unbounded' });
  const first = cache.tagOf(true, false, false, 0, 1);
  fill(cache, first, 1);
  const slot = cache.slot(5, -1);
  cache.keep(slot, 5, -1);
  expect(cache.holds(slot, 5, -1)).toBe(true);
  for (let pscid = 2; pscid < 70_000; pscid++) cache.tagOf(true, false, false, 0, pscid);
  expect(cache.iotlb.size).toBe(0);
  expect(cache.holds(slot, 5, -1)).toBe(false);
});
