/** Deterministic random numbers for suites and replay (mulberry32): the same seed gives the same run everywhere. */
export class Random {
  readonly seed: number;
  #state: number;

  constructor(seed: number) {
    this.seed = seed >>> 0;
    this.#state = this.seed;
  }

  /** 32 random bits, unsigned. */
  next(): number {
    this.#state = (this.#state + 0x6d2b_79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** A whole number from 0 to `bound` - 1; `bound` at most 2^53. */
  below(bound: number): number {
    const value = (this.next() & 0x1f_ffff) * 0x1_0000_0000 + this.next();
    return value % bound;
  }

  /** True with probability 1 in `n`. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  /** One of `items`. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  /** `length` random bytes. */
  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = this.next() >>> 24;
    return bytes;
  }
}
