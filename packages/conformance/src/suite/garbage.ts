const CALLS = 100_000;

/**
 * Bytes that one call leaves on the JavaScript heap, once the code is warm: the least of several measurements (a collection
 * in between makes one of them useless, a compilation makes one too large). A boxed number is 12 to 16 bytes.
 *
 * @param run makes `n` calls.
 */
export const bytesPerCall = (run: (n: number) => void): number => {
  run(CALLS);
  let least = Infinity;
  for (let i = 0; i < 8; i++) {
    const before = process.memoryUsage().heapUsed;
    run(CALLS);
    const grown = process.memoryUsage().heapUsed - before;
    if (grown >= 0) least = Math.min(least, grown / CALLS);
  }
  return least;
};
