/** The WebAssembly loops against the TypeScript ones, which are the oracle, and the checked-in module against its source. */
import { readFileSync } from 'node:fs';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bulkFor, clear, fill, firstUsed, repeat } from '../src/bulk.ts';

const build = async (): Promise<string> => {
  const script = new URL('../scripts/build-wasm.mjs', import.meta.url).href;
  const module = (await import(script)) as { build: () => Promise<string> };
  return module.build();
};

it('bulk.gen.ts is what bulk.wat gives', async () => {
  expect(readFileSync(new URL('../src/wasm/bulk.gen.ts', import.meta.url), 'utf8')).toBe(await build());
});

const WORDS = 2 * 256;

describe.each([
  ['plain', false],
  ['shared', true],
])('%s memory', (_name, shared) => {
  const memory = new PhysicalMemory([{ base: 0n, size: 65536n, kind: 'flat', shared }]);
  const range = memory.ranges[0]!;
  const wasm = bulkFor(range);
  const view = range.words;

  /** Both views with the same random contents: mostly zero, or mostly entries. */
  const both = (seed: readonly number[]): [Int32Array, Int32Array] => {
    const oracle = new Int32Array(WORDS);
    for (const [i, value] of seed.entries()) oracle[i % WORDS] = value;
    view.fill(0, 0, 2 * WORDS);
    view.set(oracle, 0);
    return [oracle, view];
  };
  const same = (oracle: Int32Array): void => {
    expect(Array.from(view.subarray(0, WORDS))).toEqual(Array.from(oracle));
    // Nothing may be written beyond the table.
    expect(view.subarray(WORDS, 2 * WORDS).every((word) => word === 0)).toBe(true);
  };

  const at = fc.integer({ min: 0, max: 255 });
  const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
  const sparse = fc.array(fc.tuple(fc.integer({ min: 0, max: WORDS - 1 }), word), { maxLength: 3 }).map((puts) => {
    const words = Array.from({ length: WORDS }, () => 0);
    for (const [i, value] of puts) words[i] = value;
    return words;
  });
  const dense = fc
    .record({ base: word, holes: fc.array(fc.tuple(fc.integer({ min: 0, max: WORDS - 1 }), word), { maxLength: 3 }) })
    .map(({ base, holes }) => {
      const words = Array.from({ length: WORDS }, (_, i) => (i % 2 === 0 ? base | 1 : i));
      for (const [i, value] of holes) words[i] = value & 0xe00;
      return words;
    });

  it('exists on this host', () => expect(wasm).not.toBeNull());

  it('fill', () => {
    fc.assert(
      fc.property(sparse, at, fc.nat(256), word, word, word, fc.boolean(), (seed, from, length, lo, hi, step, all) => {
        const [oracle] = both(seed);
        const count = Math.min(length, 256 - from);
        const want = fill(oracle, from * 2, count, lo, hi, step, step >> 31, all);
        expect(wasm!.fill(from * 8, count, lo, hi, step, step >> 31, all ? 1 : 0)).toBe(want);
        same(oracle);
      }),
      { numRuns: 400 },
    );
  });

  it('firstUsed', () => {
    fc.assert(
      fc.property(sparse, at, fc.nat(256), (seed, from, length) => {
        const [oracle] = both(seed);
        const count = Math.min(length, 256 - from);
        expect(wasm!.firstUsed(from * 8, count)).toBe(firstUsed(oracle, from * 2, count));
      }),
      { numRuns: 400 },
    );
  });

  it('repeat', () => {
    fc.assert(
      fc.property(
        at,
        fc.nat(256),
        fc.integer({ min: 0, max: 8 }),
        word,
        word,
        word,
        (from, length, perLg2, lo, hi, step) => {
          const [oracle] = both([]);
          const per = 1 << perLg2;
          const groups = Math.floor(Math.min(length, 256 - from) / per);
          repeat(oracle, from * 2, groups, per, lo, hi, step, 3);
          wasm!.repeat(from * 8, groups, per, lo, hi, step, 3);
          same(oracle);
        },
      ),
      { numRuns: 400 },
    );
  });

  it('clear', () => {
    const pattern = fc.constantFrom([0, 0], [1, 1], [0xe01, 1], [0x80, 0x80], [3, 1]);
    fc.assert(
      fc.property(
        fc.oneof(sparse, dense),
        at,
        fc.nat(256),
        pattern,
        word,
        (seed, from, length, [mask, value], maskHi) => {
          const [oracle] = both(seed);
          const count = Math.min(length, 256 - from);
          const high = maskHi & 0x8000_0000;
          const want = clear(oracle, from * 2, count, mask!, high, value!, 0);
          expect(wasm!.clear(from * 8, count, mask!, high, value!, 0)).toBe(want);
          same(oracle);
        },
      ),
      { numRuns: 600 },
    );
  });
});
