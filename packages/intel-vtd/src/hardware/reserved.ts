/** Reserved bits of structures and descriptors: what no field of their table uses. VT-d specification, chapters 6 and 9. */
import { maskWord } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';

/** Bits of the first `words` 32-bit words that no field of `layout` uses. */
export const unusedBits = (layout: Layout, words: number): Int32Array => {
  const unused = new Int32Array(words).fill(-1);
  for (const field of Object.values(layout)) {
    for (let w = 0; w < words; w++) unused[w] = unused[w]! & ~maskWord(field, w);
  }
  return unused;
};
