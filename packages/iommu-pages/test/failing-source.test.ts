/** A page source that fails on purpose. */
import { describe, expect, test } from 'vitest';
import { BuddySource, FailingSource, NO_PAGE, PhysicalMemory } from '../src/index.ts';
import type { FailurePlan } from '../src/index.ts';
import { codeOf } from './code-of.ts';
import { makePages } from './make-pages.ts';

const memory = new PhysicalMemory([{ base: 0n, size: 0x10_0000n }]);
const make = (plan: FailurePlan) => {
  const source = new BuddySource(memory, [{ base: 0n, size: 0x10_0000n }]);
  const pages = makePages(memory, source);
  let failing!: FailingSource;
  pages.wrapSource((inner) => (failing = new FailingSource(inner, plan)));
  return { source, pages, failing };
};
const outcomes = (n: number, run: () => number): string =>
  Array.from({ length: n }, () => (run() === NO_PAGE ? 'x' : '.')).join('');

describe('fails', () => {
  test('the n-th, once', () => {
    const { pages, failing } = make({ nth: 3 });
    expect(outcomes(8, () => pages.allocPagesSz(0x1000))).toBe('..x.....');
    expect([failing.allocations, failing.failures, pages.failures, pages.nrIommuPages()]).toEqual([8, 1, 1, 7]);
    failing.plan({ nth: 1 });
    expect(outcomes(3, () => pages.allocPagesSz(0x1000))).toBe('x..');
  });

  test('from the n-th on', () => {
    const { pages, failing } = make({ from: 3 });
    expect(outcomes(6, () => pages.allocPagesSz(0x1000))).toBe('..xxxx');
    expect(failing.failures).toBe(4);
    failing.plan({});
    expect(outcomes(2, () => pages.allocPagesSz(0x1000))).toBe('..');
  });

  test('every k-th', () => {
    const { pages, failing } = make({ every: 3 });
    expect(outcomes(8, () => pages.allocPagesSz(0x1000))).toBe('..x..x..');
    expect(failing.failures).toBe(2);
  });

  test('beyond a budget of bytes, which freeing gives back', () => {
    const { pages } = make({ budget: 0x4000 });
    const first = pages.allocPagesSz(0x2000);
    expect(outcomes(3, () => pages.allocPagesSz(0x1000))).toBe('..x');
    pages.freePages(first);
    expect(outcomes(3, () => pages.allocPagesSz(0x1000))).toBe('..x');
    expect(make({ budget: 0 }).pages.allocPagesSz(1)).toBe(NO_PAGE);
  });

  test('never, unless told; a real shortage is not on purpose', () => {
    const { source, pages, failing } = make({});
    expect(outcomes(256, () => pages.allocPagesSz(0x1000))).toBe('.'.repeat(256));
    expect(pages.allocPagesSz(0x1000)).toBe(NO_PAGE);
    expect([failing.allocations, failing.failures, source.freePages()]).toEqual([257, 0, 0]);
  });
});

test('it is a source like the one behind it', () => {
  const ram = new PhysicalMemory([{ base: 0n, size: 0x10_0000n, node: 4 }]);
  const source = new BuddySource(ram);
  const failing = new FailingSource(source);
  expect([failing.nodeOf(3), failing.ranges]).toEqual([4, source.ranges]);
  failing.reserve!(0, 0x1000);
  expect(failing.alloc(4, 0x1000)).toBe(1);
  failing.free(1, 0x1000);
  expect(source.freePages()).toBe(255);
  const plain = new FailingSource({ alloc: () => 5, free: () => undefined, nodeOf: () => 0 });
  expect([plain.reserve, plain.ranges]).toEqual([undefined, undefined]);
});

test('refusals', () => {
  for (const plan of [{ nth: 0 }, { nth: 1.5 }, { from: 0 }, { every: 0 }, { budget: -1 }, { budget: Number.NaN }]) {
    expect(
      codeOf(() => make(plan)),
      JSON.stringify(plan),
    ).toBe('EINVAL');
  }
});
