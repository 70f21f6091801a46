/** Mapping cases, named after generic_pt's kunit tests, seen through a domain and through DMA. */
import { hex } from '@iommu-ts/bits';
import { expect } from 'vitest';
import { Random } from '../../random.ts';
import { DEVICE, Rig, RO, RW } from './rig.ts';
import type { DriverCase } from './rig.ts';

const onePageSize = (rig: Rig): string | null => (rig.bigPage === null ? 'the format has one page size' : null);

export const mappingCases: readonly DriverCase[] = [
  {
    name: 'map_simple',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      let tried = 0;
      for (const size of rig.pageSizes) {
        const iova = rig.window(size, size);
        const ram = rig.ramFor(size);
        // What is larger than the RAM lies beyond it, clear of the tables.
        const pa = ram ?? size;
        if (iova === null || pa + size > 1n << BigInt(rig.info.oas)) continue;
        tried++;
        const label = `page of ${hex(size)}`;
        domain.map(iova, pa, size, RW);
        expect(domain.iovaToPhys(iova), label).toBe(pa);
        expect(domain.iovaToPhys(iova + size - 1n), label).toBe(pa + size - 1n);
        if (ram !== null) {
          rig.reaches(DEVICE, iova, pa);
          rig.reaches(DEVICE, iova + size - 16n, pa + size - 16n);
        }
        expect(domain.unmap(iova, size), label).toBe(size);
        expect(domain.iovaToPhys(iova), label).toBeNull();
        rig.refused(DEVICE, iova);
        rig.refused(DEVICE, iova + size - 16n);
      }
      expect(tried).toBeGreaterThan(0);
    },
  },
  {
    name: 'map_table_to_oa',
    needs: onePageSize,
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      for (const size of rig.pageSizes.filter((s) => s > rig.granule && s <= 0x4000_0000n)) {
        const iova = rig.window(size, size)!;
        const pa = rig.ramFor(size)!;
        // A table of small pages, emptied page by page: it stays, empty, and the large page must take its place.
        const small = size / rig.granule > 512n ? 512n * rig.granule : size;
        domain.map(iova, pa + rig.granule, small, RW);
        rig.reaches(DEVICE, iova, pa + rig.granule);
        for (let at = 0n; at < small; at += rig.granule) domain.unmap(iova + at, rig.granule);
        domain.map(iova, pa, size, RW);
        expect(domain.iovaToPhys(iova + size - 1n), hex(size)).toBe(pa + size - 1n);
        rig.reaches(DEVICE, iova, pa);
        rig.reaches(DEVICE, iova + size - 64n, pa + size - 64n);
        expect(domain.unmap(iova, size), hex(size)).toBe(size);
        rig.refused(DEVICE, iova);
      }
    },
  },
  {
    name: 'unmap_split',
    needs: onePageSize,
    reports: () => ['misuse'],
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      const big = rig.bigPage!;
      const iova = rig.window(4n * big, 4n * big)!;
      const pa = rig.ramFor(4n * big)! + big;
      domain.map(iova, pa, big, RW);
      rig.reaches(DEVICE, iova, pa);
      // Never a split: an unmap that begins inside a large page does nothing.
      expect(domain.unmap(iova + rig.granule, rig.granule)).toBe(0n);
      rig.reaches(DEVICE, iova + rig.granule, pa + rig.granule);
      // One that ends inside takes the whole page (generic_pt) or nothing (io-pgtable).
      const done = domain.unmap(iova, rig.granule);
      if (rig.info.rules === 'generic_pt') {
        expect(done).toBe(big);
        rig.refused(DEVICE, iova);
        rig.refused(DEVICE, iova + big - 16n);
      } else {
        expect(done).toBe(0n);
        rig.reaches(DEVICE, iova, pa);
        expect(domain.unmap(iova, big)).toBe(big);
        rig.refused(DEVICE, iova);
      }
    },
  },
  {
    name: 'pgsize_boundary',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      for (const big of rig.pageSizes.filter((s) => s <= 0x4000_0000n)) {
        // Begins and ends off the boundary of the large page, with the same offset on both sides.
        const window = rig.window(8n * big, big);
        const ram = rig.ramFor(8n * big);
        if (window === null || ram === null) continue;
        const iova = window + big - rig.granule;
        const pa = ram + big - rig.granule;
        const size = 2n * big + 2n * rig.granule;
        domain.map(iova, pa, size, RW);
        for (const at of [0n, rig.granule, big, big + rig.granule, 2n * big, size - rig.granule]) {
          expect(domain.iovaToPhys(iova + at), hex(at)).toBe(pa + at);
          rig.reaches(DEVICE, iova + at, pa + at);
        }
        rig.reaches(DEVICE, iova + rig.granule - 8n, pa + rig.granule - 8n, 16);
        rig.refused(DEVICE, iova - 16n);
        rig.refused(DEVICE, iova + size);
        expect(domain.unmap(iova, size)).toBe(size);
        for (const at of [0n, rig.granule, big, size - rig.granule]) rig.refused(DEVICE, iova + at);
      }
    },
  },
  {
    name: 'mixed',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      const sizes = rig.pageSizes.filter((s) => s <= 0x4000_0000n).slice(0, 6);
      const top = sizes.at(-1)!;
      const iova = rig.window(4n * top, top)!;
      const ram = rig.ramFor(4n * top)!;
      // Ascending sizes back to back, every second read-only.
      const parts: { iova: bigint; pa: bigint; size: bigint; prot: number }[] = [];
      let at = 0n;
      for (const [i, size] of sizes.entries()) {
        at = ((at + size - 1n) / size) * size;
        parts.push({ iova: iova + at, pa: ram + at, size, prot: i % 2 === 0 ? RW : RO });
        at += size;
      }
      for (const p of parts) domain.map(p.iova, p.pa, p.size, p.prot);
      for (const p of parts) {
        rig.reads(DEVICE, p.iova, p.pa);
        rig.reads(DEVICE, p.iova + p.size - 16n, p.pa + p.size - 16n);
        if (p.prot === RW) rig.writes(DEVICE, p.iova, p.pa);
        else rig.refused(DEVICE, p.iova, 'write');
      }
      for (const p of parts.toReversed()) expect(domain.unmap(p.iova, p.size)).toBe(p.size);
      for (const p of parts) rig.refused(DEVICE, p.iova);
    },
  },
  {
    name: 'increase_level',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      const low = rig.iova(0);
      domain.map(low, rig.pa(0), rig.granule, RW);
      rig.reaches(DEVICE, low, rig.pa(0));
      // Ever higher addresses, up to the last granule of the aperture: a table that grows must stay reachable.
      const { apertureLast } = rig.info;
      const reached: { iova: bigint; pa: bigint }[] = [{ iova: low, pa: rig.pa(0) }];
      for (let lg2 = 33n; ; lg2 += 5n) {
        const last = (1n << lg2) - 1n < apertureLast ? (1n << lg2) - 1n : apertureLast;
        const iova = last + 1n - rig.granule;
        const pa = rig.pa(reached.length);
        domain.map(iova, pa, rig.granule, RW);
        reached.push({ iova, pa });
        for (const r of reached) rig.reaches(DEVICE, r.iova, r.pa);
        if (last === apertureLast) break;
      }
      for (const r of reached) expect(domain.unmap(r.iova, rig.granule), hex(r.iova)).toBe(rig.granule);
      for (const r of reached) rig.refused(DEVICE, r.iova);
    },
  },
  {
    name: 'random_map',
    run(harness) {
      for (const seed of [1, 2, 3]) randomMap(new Rig(harness), new Random(seed));
    },
  },
];

/** Blocks of random size and place, mapped and unmapped whole; all translations checked against a list of what is live. */
const randomMap = (rig: Rig, random: Random): void => {
  const domain = rig.attached(DEVICE);
  const span = 0x1000_0000n / rig.granule;
  const base = rig.iova(0);
  const live: { at: number; count: number; pa: bigint; prot: number }[] = [];
  for (let step = 0; step < 150; step++) {
    const label = `seed ${random.seed} step ${step}`;
    if (live.length > 0 && random.oneIn(3)) {
      const [gone] = live.splice(random.below(live.length), 1);
      const iova = base + BigInt(gone!.at) * rig.granule;
      const size = BigInt(gone!.count) * rig.granule;
      expect(domain.unmap(iova, size), label).toBe(size);
      rig.refused(DEVICE, iova);
      rig.refused(DEVICE, iova + size - 4n);
      continue;
    }
    const count = 1 + random.below(random.oneIn(4) ? 2048 : 16);
    let at = random.below(Number(span) - count);
    // Half of them where large pages are possible.
    if (random.oneIn(2)) at -= at % Math.min(512, 2 ** Math.floor(Math.log2(count)));
    if (live.some((m) => at < m.at + m.count && m.at < at + count)) continue;
    const iova = base + BigInt(at) * rig.granule;
    const size = BigInt(count) * rig.granule;
    const pa = rig.pa(random.oneIn(2) ? at : random.below(4096));
    const prot = random.oneIn(4) ? RO : RW;
    domain.map(iova, pa, size, prot);
    live.push({ at, count, pa, prot });
    const m = random.pick(live);
    const offset = BigInt(random.below(m.count * Number(rig.granule) - 64));
    const address = base + BigInt(m.at) * rig.granule + offset;
    expect(domain.iovaToPhys(address), label).toBe(m.pa + offset);
    rig.reads(DEVICE, address, m.pa + offset, 64);
    if (m.prot === RW) rig.writes(DEVICE, address, m.pa + offset, 64);
    else rig.refused(DEVICE, address, 'write');
  }
};
