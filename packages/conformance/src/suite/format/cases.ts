/** Cases named after generic_pt's kunit tests: what each page size does alone, at boundaries, and against another. */
import { hex } from '@iommu-ts/bits';
import { PROT } from '@iommu-ts/page-table';
import { expect } from 'vitest';
import type { FormatRig } from './rig.ts';
import { leafText } from './rig.ts';

export interface FormatSuiteCase {
  readonly name: string;
  /** Why the case does not fit this format, or null when it does. */
  readonly lacks?: (rig: FormatRig) => string | null;
  readonly run: (rig: FormatRig) => void;
}

/** Page sizes that fit `count` times into the IOVA space and once under the output address width. */
const usable = (rig: FormatRig, count: bigint): bigint[] =>
  rig.sizes.filter((size) => size * count <= rig.span && size <= 1n << BigInt(rig.config.oas));

/** An output address for `size` that is not equal to its IOVA where the width allows it. */
const paFor = (rig: FormatRig, size: bigint): bigint => (rig.topPa(size) / size > 3n ? 3n * size : rig.topPa(size));

/** The greedy choice, written a second time: the largest size that divides both addresses and fits. */
const greedy = (rig: FormatRig, iova: bigint, pa: bigint, length: bigint): string[] => {
  const leaves: string[] = [];
  for (let at = 0n; at < length;) {
    const fits = rig.sizes.filter(
      (size) => (iova + at) % size === 0n && (pa + at) % size === 0n && at + size <= length,
    );
    const size = fits[fits.length - 1]!;
    leaves.push(leafText(iova + at, pa + at, size));
    at += size;
  }
  return leaves;
};

const twoSizes = (rig: FormatRig): string | null => (usable(rig, 2n).length < 2 ? 'one page size only' : null);

export const formatCases: readonly FormatSuiteCase[] = [
  {
    name: 'map_simple',
    run: (rig) => {
      for (const size of usable(rig, 4n)) {
        const iova = rig.origin + 2n * size;
        const pa = paFor(rig, size);
        expect(rig.map(iova, pa, size), `map ${hex(size)}`).toBe(0);
        expect(rig.table.mapped).toBe(Number(size));
        rig.expectMapped(iova, pa, size);
        rig.expectUnmapped(iova - 1n, iova + size);
        expect(rig.leaves()).toEqual([leafText(iova, pa, size)]);
        // Over itself: refused, nothing changed.
        expect(rig.map(iova, pa, size)).toBe(rig.generic ? -98 : -17);
        expect(rig.table.mapped).toBe(0);
        expect(rig.unmap(iova, size)).toBe(size);
        rig.expectUnmapped(iova, iova + size - 1n);
        expect(rig.unmap(iova, size)).toBe(0n);
      }
    },
  },
  {
    name: 'prot',
    run: (rig) => {
      const { granule, origin } = rig;
      for (const prot of [0, PROT.CACHE, PROT.NOEXEC | PROT.MMIO | PROT.PRIV]) {
        expect(rig.map(origin, 0n, granule, prot), `prot ${prot}`).toBe(-22);
      }
      for (let prot = 1; prot < 64; prot++) {
        if ((prot & 3) === 0 || (rig.config.forceWriteable === true && (prot & 2) === 0)) continue;
        const iova = origin + BigInt(prot) * granule;
        expect(rig.map(iova, granule, granule, prot), `prot ${prot}`).toBe(0);
        const [leaf] = [...rig.table.leaves()];
        // No format may take away what was asked for, nor let a reader write.
        if ((prot & 1) !== 0) expect(leaf!.prot.read, `prot ${prot} read`).toBe(true);
        expect(leaf!.prot.write, `prot ${prot} write`).toBe((prot & 2) !== 0);
        expect(rig.unmap(iova, granule)).toBe(granule);
      }
    },
  },
  {
    name: 'map_table_to_oa',
    lacks: twoSizes,
    run: (rig) => {
      const sizes = usable(rig, 4n);
      for (const [i, size] of sizes.entries()) {
        if (i === 0 || size > 1n << 31n) continue;
        const iova = rig.origin + size;
        const small = sizes[0]!;
        // An empty table in the place of a larger leaf is replaced by it.
        expect(rig.map(iova, small, small)).toBe(0);
        expect(rig.unmap(iova, small)).toBe(small);
        expect(rig.map(iova, size, size), `leaf ${hex(size)} over an empty table`).toBe(0);
        expect(rig.leaves()).toEqual([leafText(iova, size, size)]);
        expect(rig.unmap(iova, size)).toBe(size);
        // A table that holds a leaf: generic_pt refuses, io-pgtable drops what it holds.
        const last = iova + size - small;
        expect(rig.map(last, small, small)).toBe(0);
        const result = rig.map(iova, size, size);
        if (rig.generic) {
          expect(result).toBe(-98);
          expect(rig.leaves()).toEqual([leafText(last, small, small)]);
          expect(rig.unmap(last, small)).toBe(small);
        } else {
          expect(result).toBe(0);
          expect(rig.leaves()).toEqual([leafText(iova, size, size)]);
          expect(rig.unmap(iova, size)).toBe(size);
        }
      }
    },
  },
  {
    name: 'unmap_split',
    lacks: twoSizes,
    run: (rig) => {
      for (const size of usable(rig, 4n).slice(1)) {
        const iova = rig.origin + size;
        expect(rig.map(iova, size, size)).toBe(0);
        // From within: nothing goes.
        expect(rig.unmap(iova + size / 2n, size / 2n), 'second half').toBe(0n);
        rig.expectMapped(iova, size, size);
        // The beginning only: generic_pt takes the whole leaf, io-pgtable refuses.
        expect(rig.unmap(iova, rig.granule), 'first granule').toBe(rig.generic ? size : 0n);
        if (rig.generic) rig.expectUnmapped(iova, iova + size - 1n);
        else expect(rig.unmap(iova, size)).toBe(size);
      }
    },
  },
  {
    name: 'unmap_hole',
    run: (rig) => {
      const { granule } = rig;
      const iova = rig.origin + 8n * granule;
      expect(rig.map(iova, granule, granule)).toBe(0);
      expect(rig.map(iova + 2n * granule, granule, granule)).toBe(0);
      expect(rig.unmap(iova, 3n * granule), 'up to the hole').toBe(granule);
      rig.expectMapped(iova + 2n * granule, granule, granule);
    },
  },
  {
    name: 'pgsize_boundary',
    run: (rig) => {
      const sizes = usable(rig, 8n);
      for (const size of sizes) {
        if (size > 1n << 31n) continue;
        const below = rig.granule * 3n;
        if (size <= below) continue;
        // From just below a boundary to just above the next, with addresses that agree, and that do not.
        // Where they do not, all leaves are granules: only for sizes of which that is not too many.
        for (const skew of size <= 512n * rig.granule ? [0n, rig.granule] : [0n]) {
          const iova = rig.origin + 2n * size - below;
          const pa = size - below + skew;
          const length = size + 2n * below;
          if (pa + length > 1n << BigInt(rig.config.oas)) continue;
          expect(rig.map(iova, pa, length), `around ${hex(size)}, skew ${hex(skew)}`).toBe(0);
          expect(rig.table.mapped).toBe(Number(length));
          expect(rig.leaves()).toEqual(greedy(rig, iova, pa, length));
          expect(rig.unmap(iova, length)).toBe(length);
          expect(rig.leaves()).toEqual([]);
        }
      }
    },
  },
  {
    name: 'mixed',
    run: (rig) => {
      // Every size once, largest first, side by side; then all away in one call.
      const sizes = usable(rig, 8n)
        .filter((size) => size <= 1n << 34n)
        .toReversed();
      const start = rig.origin + 2n * sizes[0]!;
      let iova = start;
      for (const size of sizes) {
        const pa = size <= rig.topPa(size) ? size : 0n;
        expect(rig.map(iova, pa, size), hex(size)).toBe(0);
        rig.expectMapped(iova, pa, size);
        iova += size;
      }
      expect([...rig.table.leaves()].map((leaf) => leaf.size)).toEqual(sizes);
      const total = iova - start;
      let done = rig.unmap(start, total);
      // The core of io-pgtable picks sizes by alignment alone, which are those that were mapped.
      while (done < total) {
        const more = rig.unmap(start + done, total - done);
        expect(more, `stopped at ${hex(start + done)}`).not.toBe(0n);
        done += more;
      }
      expect(rig.leaves()).toEqual([]);
    },
  },
  {
    name: 'table_radix',
    run: (rig) => {
      // At each level the entry used is the one the IOVA's bits name, counted here from the bits themselves.
      const { granule, config } = rig;
      const granuleLg2 = BigInt(config.format.granuleLg2);
      const bits = granuleLg2 - 3n;
      for (let level = 0n; level <= BigInt(config.format.maxTopLevel); level++) {
        const offset = (1n << (granuleLg2 + level * bits)) * 5n;
        if (offset + granule > rig.span) continue;
        const iova = rig.origin + offset;
        expect(rig.map(iova, granule, granule)).toBe(0);
        const { steps } = rig.table.walk(iova);
        for (const step of steps) {
          const wide = step === steps[0] && step.level > 0 ? iova - rig.origin : iova;
          const index = wide >> (granuleLg2 + BigInt(step.level) * bits);
          const top = step === steps[0] && config.format.maxRoots === 1;
          expect(step.index, `level ${step.level}`).toBe(Number(top ? index : index & ((1n << bits) - 1n)));
          expect(step.entryPa).toBe(step.tablePa + BigInt(step.index) * 8n);
        }
        expect(steps.map((step) => step.kind)).toEqual([...steps.slice(1).map(() => 'table'), 'leaf']);
        expect(rig.unmap(iova, granule)).toBe(granule);
      }
    },
  },
  {
    name: 'max_va',
    run: (rig) => {
      const { granule } = rig;
      const last = rig.origin + rig.span - granule;
      expect(rig.map(last, granule, granule), 'the last granule').toBe(0);
      rig.expectMapped(last, granule, granule);
      // One beyond (where 64 bits have a beyond): out of range, for DART out of its TTBRs.
      const beyond = BigInt.asUintN(64, last + granule);
      if (rig.config.format.maxRoots > 1 || (!rig.generic && rig.config.format.rules === 2)) {
        const reach = BigInt(rig.table.granuleLg2 + (rig.table.topLevel + 1) * rig.table.bits);
        expect(rig.map((1n << reach) * BigInt(rig.table.rootCount), granule, granule)).toBe(-12);
      } else if (rig.span < 1n << 64n) expect(rig.map(beyond, granule, granule)).toBe(-34);
      expect(rig.unmap(last, granule)).toBe(granule);
    },
  },
  {
    name: 'sign_extend',
    lacks: (rig) => (rig.config.format.signExtend ? null : 'IOVAs are not sign-extended'),
    run: (rig) => {
      const { granule, span } = rig;
      const first = (1n << 64n) - span;
      for (const iova of [first, (1n << 64n) - granule]) {
        expect(rig.map(iova, granule, granule), hex(iova)).toBe(0);
        rig.expectMapped(iova, granule, granule);
        expect(rig.leaves()).toEqual([leafText(iova, granule, granule)]);
        expect(rig.unmap(iova, granule)).toBe(granule);
      }
      // Not canonical, and a range over the gap.
      expect(rig.map(span, granule, granule)).toBe(-34);
      expect(rig.map(first - granule, granule, granule)).toBe(-34);
      expect(rig.map(span - granule, 0n, 2n * granule)).toBe(-34);
    },
  },
  {
    name: 'entry_oa',
    run: (rig) => {
      // Every bit of the output address, alone, at every size.
      for (const size of usable(rig, 2n)) {
        const iova = rig.origin + size;
        for (let bit = size.toString(2).length - 1; bit < rig.config.oas; bit++) {
          const pa = 1n << BigInt(bit);
          expect(rig.map(iova, pa, size), `pa ${hex(pa)}`).toBe(0);
          rig.expectMapped(iova, pa, size);
          expect(rig.unmap(iova, size)).toBe(size);
        }
        expect(rig.map(iova, 1n << BigInt(rig.config.oas), size), 'beyond the width').toBe(-34);
      }
    },
  },
  {
    name: 'increase_level',
    lacks: (rig) => (rig.config.format.dynamicTop ? null : 'the top does not grow'),
    run: (rig) => {
      const { granule, table } = rig;
      expect(rig.map(0n, granule, granule)).toBe(0);
      let level = table.topLevel;
      let changes = 0;
      for (let bits = 12n + 9n * BigInt(level + 1); bits < BigInt(rig.config.ias); bits += 9n) {
        const before = table.root;
        expect(rig.map(1n << bits, 2n * granule, granule)).toBe(0);
        expect(table.topLevel).toBe(++level);
        expect(table.topChanges).toBe(++changes);
        expect(table.root).not.toBe(before);
        // The old top hangs below entry 0 of the new one, and all that was mapped still is.
        expect(table.walk(0n).steps[1]!.tablePa).toBe(before);
        rig.expectMapped(0n, granule, granule);
        rig.expectMapped(1n << bits, 2n * granule, granule);
      }
      expect(changes).toBeGreaterThan(0);
    },
  },
  {
    name: 'no_memory',
    run: (rig) => {
      // Take all pages away: a map that needs a table says so, and what it did not map is not mapped.
      const { pages, granule } = rig;
      const held: number[] = [];
      for (let size = 1 << 30; size >= 4096; size /= 2) {
        for (;;) {
          const pfn = pages.allocPagesSz(size);
          if (pfn < 0) break;
          held.push(pfn);
          if (held.length > 70_000) throw new Error('memory does not end');
        }
      }
      expect(rig.map(rig.origin, granule, granule)).toBe(-12);
      expect(rig.table.mapped).toBe(0);
      rig.expectUnmapped(rig.origin);
      for (const pfn of held) pages.freePages(pfn);
      expect(rig.map(rig.origin, granule, granule)).toBe(0);
      rig.expectMapped(rig.origin, granule, granule);
    },
  },
];
