/** Caches and the pages behind them: what is cached really is, goes when it must, and nothing is freed before. */
import type { PageSource } from '@iommu-ts/iommu-pages';
import { GatherRecord } from '@iommu-ts/page-table';
import type { DriverHarness, IotlbMode } from '@iommu-ts/iommu-core';
import { expect } from 'vitest';
import { DEVICE, OTHER, Rig, RO, RW } from './rig.ts';
import type { DriverCase } from './rig.ts';

/*
 * Runs of pages that a case takes apart again have PA and IOVA one granule apart: with a common alignment a format with
 * every power-of-two size (AMD v1) would map them as one entry, which unmaps as a whole.
 */

/** Enough virtual time for any flush queue's timer. */
const LONG = 2_000_000_000;
const MODES: readonly IotlbMode[] = ['none', 'sized', 'unbounded'];

/** A page source that reports every block that comes back. */
class WatchedSource implements PageSource {
  readonly #inner: PageSource;
  onFree: (pfn: number) => void = () => {};
  constructor(inner: PageSource) {
    this.#inner = inner;
  }
  alloc(node: number, size: number): number {
    return this.#inner.alloc(node, size);
  }
  free(pfn: number, size: number): void {
    this.onFree(pfn);
    this.#inner.free(pfn, size);
  }
  nodeOf(pfn: number): number {
    return this.#inner.nodeOf(pfn);
  }
}

const watched = (harness: DriverHarness): { rig: Rig; source: WatchedSource } => {
  const rig = new Rig(harness);
  let source: WatchedSource | null = null;
  // Above all other layers: told at the moment when the driver lets go of a block.
  rig.system.pages.wrapSource((inner) => (source = new WatchedSource(inner)));
  return { rig, source: source! };
};

/** IOVA, PA and size of a run that fills several tables with small pages only (the offsets differ by one granule). */
const tablesFull = (rig: Rig): { iova: bigint; pa: bigint; size: bigint } => {
  const block = rig.pageSizes.find((s) => s >= 512n * rig.granule) ?? 2048n * rig.granule;
  const iova = rig.window(2n * block, block)!;
  return { iova, pa: rig.ramFor(4n * block)! + rig.granule, size: 2n * block };
};

/** The entry at `pa` is emptied behind everybody's back while `run` runs. */
const without = (rig: Rig, pa: bigint, run: () => void): void => {
  const entry = rig.memory.readU64(pa);
  rig.memory.writeU64(pa, 0n);
  rig.writeBack(pa);
  try {
    run();
  } finally {
    rig.memory.writeU64(pa, entry);
    rig.writeBack(pa);
  }
};

export const invalidationCases: readonly DriverCase[] = [
  {
    name: 'iotlb_caches',
    // An entry is emptied behind the back of everybody, so that the cached one is stale.
    reports: () => ['stale-translation'],
    ownIotlb: 'it shows that each mode keeps what it should keep',
    run(harness) {
      for (const mode of ['sized', 'unbounded'] as const) {
        const rig = new Rig(harness, { iotlb: { mode } });
        const domain = rig.attached(DEVICE);
        domain.map(rig.iova(0), rig.pa(0), rig.granule, RW);
        rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
        // The entry is gone from memory, no command was sent: the cached copy must still answer, without a walk.
        const { walks } = rig.hardware.stats;
        const hits = rig.hardware.iotlb.hits;
        without(rig, rig.leafEntry(domain, rig.iova(0)).pa, () => rig.reaches(DEVICE, rig.iova(0), rig.pa(0)));
        expect(rig.hardware.stats.walks).toBe(walks);
        expect(rig.hardware.iotlb.hits).toBeGreaterThan(hits);
        domain.unmap(rig.iova(0), rig.granule);
        rig.refused(DEVICE, rig.iova(0));
      }
      const rig = new Rig(harness, { iotlb: { mode: 'none' } });
      const domain = rig.attached(DEVICE);
      domain.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
      const entry = rig.leafEntry(domain, rig.iova(0)).pa;
      without(rig, entry, () => {
        rig.refused(DEVICE, rig.iova(0));
      });
    },
  },
  {
    name: 'iotlb_sync',
    run(harness) {
      for (const mode of MODES) {
        const rig = new Rig(harness, { iotlb: { mode } });
        const domain = rig.attached(DEVICE);
        const { invalidations } = rig.hardware.stats;
        const commands = rig.info.invalidationCommands;
        domain.map(rig.iova(0), rig.pa(1), 8n * rig.granule, RW);
        for (let i = 0; i < 8; i++) rig.reaches(DEVICE, rig.iova(i), rig.pa(i + 1));
        expect(domain.unmap(rig.iova(2), 3n * rig.granule)).toBe(3n * rig.granule);
        for (let i = 2; i < 5; i++) rig.refused(DEVICE, rig.iova(i));
        for (const i of [0, 1, 5, 6, 7]) rig.reaches(DEVICE, rig.iova(i), rig.pa(i + 1));
        expect(rig.hardware.stats.invalidations).toBeGreaterThan(invalidations);
        expect(rig.info.invalidationCommands).toBeGreaterThan(commands);
        // Mapped anew, elsewhere and with less permission.
        domain.map(rig.iova(3), rig.pa(40), rig.granule, RO);
        rig.reads(DEVICE, rig.iova(3), rig.pa(40));
        rig.refused(DEVICE, rig.iova(3), 'write');
      }
    },
  },
  {
    name: 'iotlb_large_pages',
    needs: (rig) => (rig.bigPage === null ? 'the format has one page size' : null),
    run(harness) {
      for (const mode of MODES) {
        const rig = new Rig(harness, { iotlb: { mode } });
        const domain = rig.attached(DEVICE);
        for (const size of rig.pageSizes.filter((s) => s <= 0x4000_0000n)) {
          const iova = rig.window(size, size)!;
          const pa = rig.ramFor(size)!;
          domain.map(iova, pa, size, RW);
          rig.reaches(DEVICE, iova, pa);
          rig.reaches(DEVICE, iova + size - 16n, pa + size - 16n);
          expect(domain.unmap(iova, size)).toBe(size);
          rig.refused(DEVICE, iova);
          rig.refused(DEVICE, iova + size - 16n);
        }
      }
    },
  },
  {
    name: 'iotlb_gather',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      domain.map(rig.iova(0), rig.pa(1), 40n * rig.granule, RW);
      for (const i of [0, 1, 20, 39]) rig.reaches(DEVICE, rig.iova(i), rig.pa(i + 1));
      // Several unmaps, one sync.
      const gather = new GatherRecord();
      for (const i of [0, 1, 20, 39]) {
        expect(domain.unmapGather(rig.iova(i), rig.granule, gather)).toBe(rig.granule);
      }
      const { invalidations } = rig.hardware.stats;
      domain.iotlbSync(gather);
      expect(rig.hardware.stats.invalidations).toBeGreaterThan(invalidations);
      expect(gather.empty).toBe(true);
      for (const i of [0, 1, 20, 39]) rig.refused(DEVICE, rig.iova(i));
      for (const i of [2, 19, 38]) rig.reaches(DEVICE, rig.iova(i), rig.pa(i + 1));
    },
  },
  {
    name: 'free_after_sync',
    run(harness) {
      const { rig, source } = watched(harness);
      const domain = rig.attached(DEVICE);
      const { iova, pa, size } = tablesFull(rig);
      const before = rig.tableBytes;
      let executed = 0;
      source.onFree = () => {
        // At this moment the hardware must have carried out the invalidation of this unmap.
        expect(rig.hardware.stats.invalidations, 'invalidations before a table is freed').toBeGreaterThan(executed);
      };
      for (let round = 0; round < 3; round++) {
        domain.map(iova, pa, size, RW);
        rig.reaches(DEVICE, iova, pa);
        rig.reaches(DEVICE, iova + size - 16n, pa + size - 16n);
        const full = rig.tableBytes;
        expect(full).toBeGreaterThan(before);
        executed = rig.hardware.stats.invalidations;
        expect(domain.unmap(iova, size)).toBe(size);
        if (rig.info.rules === 'generic_pt') expect(rig.tableBytes).toBeLessThan(full);
        rig.refused(DEVICE, iova);
        rig.refused(DEVICE, iova + size - 16n);
      }
      rig.driver.detach(DEVICE);
      executed = rig.hardware.stats.invalidations;
      const left = rig.tableBytes;
      domain.free();
      expect(rig.tableBytes).toBeLessThan(left);
    },
  },
  {
    name: 'lazy_mode',
    run(harness) {
      const rig = new Rig(harness, { mode: 'lazy' });
      const domain = rig.attached(DEVICE, OTHER);
      expect(domain.mode).toBe('lazy');
      domain.map(rig.iova(0), rig.pa(1), 4n * rig.granule, RW);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(1));
      const { invalidations } = rig.hardware.stats;
      let released = 0;
      expect(domain.unmap(rig.iova(0), rig.granule, () => released++)).toBe(rig.granule);
      // The window that lazy mode leaves open: the cached entry still answers.
      expect(rig.hardware.stats.invalidations).toBe(invalidations);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(1));
      expect(released).toBe(0);
      rig.system.clock.advance(LONG);
      expect(released).toBe(1);
      expect(rig.hardware.stats.invalidations).toBeGreaterThan(invalidations);
      rig.refused(DEVICE, rig.iova(0));
      rig.reaches(DEVICE, rig.iova(1), rig.pa(2));
      rig.refused(OTHER, rig.iova(0));
      // At once, when asked to.
      domain.unmap(rig.iova(1), rig.granule, () => released++);
      domain.flush();
      expect(released).toBe(2);
      rig.refused(DEVICE, rig.iova(1));
    },
  },
  {
    name: 'lazy_queue_full',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.driver.createDomain({ mode: 'lazy', flushQueue: { entries: 8, periodNs: LONG } });
      rig.driver.attach(DEVICE, domain);
      domain.map(rig.iova(0), rig.pa(1), 8n * rig.granule, RW);
      for (let i = 0; i < 8; i++) rig.reaches(DEVICE, rig.iova(i), rig.pa(i + 1));
      let released = 0;
      for (let i = 0; i < 7; i++) domain.unmap(rig.iova(i), rig.granule, () => released++);
      expect(released).toBe(0);
      domain.unmap(rig.iova(7), rig.granule, () => released++);
      expect(released).toBe(8);
      for (let i = 0; i < 8; i++) rig.refused(DEVICE, rig.iova(i));
    },
  },
  {
    name: 'lazy_free_after_flush',
    run(harness) {
      const { rig, source } = watched(harness);
      const domain = rig.driver.createDomain({ mode: 'lazy', flushQueue: { entries: 1000, periodNs: LONG } });
      rig.driver.attach(DEVICE, domain);
      const { iova, pa, size } = tablesFull(rig);
      domain.map(iova, pa, size, RW);
      rig.reaches(DEVICE, iova, pa);
      const executed = rig.hardware.stats.invalidations;
      source.onFree = () => {
        expect(rig.hardware.stats.invalidations, 'invalidations before a table is freed').toBeGreaterThan(executed);
      };
      const full = rig.tableBytes;
      expect(domain.unmap(iova, size)).toBe(size);
      expect(rig.tableBytes, 'tables freed before the flush').toBe(full);
      rig.system.clock.advance(LONG);
      if (rig.info.rules === 'generic_pt') expect(rig.tableBytes).toBeLessThan(full);
      rig.refused(DEVICE, iova);
    },
  },
];
