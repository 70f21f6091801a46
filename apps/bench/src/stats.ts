/** Nanoseconds on a monotonic clock. */
export const now = (): number => performance.now() * 1e6;

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >>> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
};

/** Deterministic 32-bit numbers (xorshift), so that runs compare. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed | 0 || 1;
  }
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }
  below(limit: number): number {
    return this.next() % limit;
  }
}

/** One variant of an interleaved comparison: does its work and returns the nanoseconds an operation took. */
export type Variant = () => number;

export interface Comparison {
  /** Median over the rounds of `a / b`, taken round by round. */
  readonly ratio: number;
  /** Median nanoseconds an operation, of each. */
  readonly a: number;
  readonly b: number;
  readonly rounds: number;
}

/** Passes of each side in a round. */
const PASSES = 3;

/**
 * Runs `a` and `b` in turns. In a round each side has three passes, by turns too, of which the fastest counts: on a busy
 * machine one in three is interrupted often enough. Which side begins changes every round, so that a drift favours neither.
 */
export const compare = (a: Variant, b: Variant, rounds: number, warmup = 3): Comparison => {
  const { as, bs } = series(a, b, rounds, warmup);
  return comparison(as, bs);
};

/** The rounds of {@link compare}, nanoseconds an operation. */
export const series = (a: Variant, b: Variant, rounds: number, warmup: number): { as: number[]; bs: number[] } => {
  for (let i = 0; i < warmup; i++) {
    a();
    b();
  }
  const as: number[] = [];
  const bs: number[] = [];
  for (let i = 0; i < rounds; i++) {
    let bestA = Infinity;
    let bestB = Infinity;
    for (let pass = 0; pass < PASSES; pass++) {
      if (i % 2 === 0) bestA = Math.min(bestA, a());
      bestB = Math.min(bestB, b());
      if (i % 2 === 1) bestA = Math.min(bestA, a());
    }
    as.push(bestA);
    bs.push(bestB);
  }
  return { as, bs };
};

/** The comparison of two series of rounds. */
export const comparison = (as: readonly number[], bs: readonly number[]): Comparison => ({
  ratio: median(as.map((a, i) => a / bs[i]!)),
  a: median(as),
  b: median(bs),
  rounds: as.length,
});
