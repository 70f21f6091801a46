/**
 * Memory runs out at every place where it can: for every n the n-th allocation of an operation fails. What was there stays
 * as it was, what was mapped before the failure stays mapped (and `mapped` says how much), and nothing leaks.
 */
import { IommuError, hex } from '@iommu-ts/bits';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { DriverHarness, MmioPort, PagingDomain, SystemOptions } from '@iommu-ts/iommu-core';
import { GatherRecord } from '@iommu-ts/page-table';
import { expect } from 'vitest';
import { ArmedSource, forEachFailure } from '../failing-source.ts';
import type { FailureMode } from '../failing-source.ts';
import { DEVICE, OTHER, Rig, RW } from './rig.ts';
import type { DriverCase } from './rig.ts';

/** Virtual time enough for any flush queue. */
const LONG = 2_000_000_000;

/** Runs `run` and returns the error it throws, or null; anything but an `IommuError` goes on up. */
const caught = (run: () => void): IommuError | null => {
  try {
    run();
    return null;
  } catch (error) {
    if (error instanceof IommuError) return error;
    throw error;
  }
};

const armedMemory = (): { memory: PhysicalMemory; pages: IommuPages; source: ArmedSource } => {
  const memory = new PhysicalMemory([{ base: 0n, size: 64n << 30n }]);
  const pages = new IommuPages(memory, new BuddySource(memory, [{ base: 63n << 30n, size: 1n << 30n }]));
  return { memory, pages, source: ArmedSource.under(pages) };
};

const armedRig = (harness: DriverHarness, options: SystemOptions = {}): { rig: Rig; source: ArmedSource } => {
  const { memory, pages, source } = armedMemory();
  return { rig: new Rig(harness, { ...options, memory, pages }), source };
};

/** The device's structures are made, and stay: what comes and goes from now on belongs to domains. */
const settled = (rig: Rig): void => {
  const domain = rig.attached(DEVICE);
  rig.driver.detach(DEVICE);
  domain.free();
};

/** What a domain holds, for comparison: every leaf, and every table with its level. */
const contents = (domain: PagingDomain): { leaves: string[]; tables: Map<bigint, number> } => ({
  leaves: [...domain.table.leaves()].map((leaf) => `${hex(leaf.iova)} -> ${hex(leaf.pa)} + ${hex(leaf.size)}`),
  tables: new Map([...domain.table.tables()].map(({ pa, level }) => [pa, level])),
});

/** One map that needs tables, in a domain made for it. */
interface MapScenario {
  readonly name: string;
  readonly needs?: (rig: Rig) => boolean;
  /** Readies the domain (no allocation fails yet) and says what to map. */
  readonly prepare: (rig: Rig, domain: PagingDomain) => { iova: bigint; pa: bigint; size: bigint };
}

/** Bytes of IOVA that one table of the lowest level covers, or the nearest that can be had. */
const spanOfTable = (rig: Rig): bigint => (rig.granule / 8n) * rig.granule;

const SCENARIOS: readonly MapScenario[] = [
  {
    name: 'one granule',
    prepare: (rig) => ({ iova: rig.iova(0) + spanOfTable(rig), pa: rig.pa(7), size: rig.granule }),
  },
  {
    name: 'granules over three tables',
    // PA and IOVA differ by one granule, so that no larger page fits.
    prepare: (rig) => {
      const span = spanOfTable(rig);
      const iova = rig.window(4n * span, span)! + span - 2n * rig.granule;
      return { iova, pa: rig.ramFor(span)! + rig.granule + (iova % span), size: span + 5n * rig.granule };
    },
  },
  {
    name: 'all page sizes around a boundary',
    needs: (rig) => rig.bigPage !== null,
    prepare: (rig) => {
      const big = rig.pageSizes.findLast((size) => size <= 0x4000_0000n)!;
      const iova = rig.window(4n * big, 2n * big)! + big - 3n * rig.granule;
      return { iova, pa: rig.ramFor(4n * big)! + big - 3n * rig.granule, size: big + 7n * rig.granule };
    },
  },
  {
    name: 'a large page over an emptied table, and small ones beyond',
    needs: (rig) => rig.bigPage !== null,
    prepare: (rig, domain) => {
      const big = rig.pageSizes.find((size) => size >= spanOfTable(rig)) ?? rig.bigPage!;
      const iova = rig.window(4n * big, 4n * big)! + big;
      const pa = rig.ramFor(4n * big)! + big;
      for (const at of [0n, rig.granule]) {
        domain.map(iova + at, pa + rig.granule, rig.granule, RW);
        expect(domain.unmap(iova + at, rig.granule)).toBe(rig.granule);
      }
      return { iova, pa, size: big + 2n * rig.granule };
    },
  },
  {
    name: 'the last granule of the aperture',
    prepare: (rig) => ({ iova: rig.info.apertureLast + 1n - rig.granule, pa: rig.pa(3), size: rig.granule }),
  },
];

/** One failed (or survived) map, with all that must hold after it. Returns whether an allocation was refused. */
const failedMap = (
  rig: Rig,
  source: ArmedSource,
  scenario: MapScenario,
  n: number,
  mode: FailureMode,
  label: string,
): boolean => {
  const { pages } = rig.system;
  const fixed = pages.nrIommuPages();
  const domain = rig.attached(DEVICE);
  const perDomain = pages.nrIommuPages() - fixed - pagesOf(rig, domain);
  // A neighbour whose translation must survive everything.
  domain.map(rig.iova(0), rig.pa(0), rig.granule, RW);
  const { iova, pa, size } = scenario.prepare(rig, domain);
  rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
  const before = contents(domain);

  source.arm(n, mode);
  const error = caught(() => domain.map(iova, pa, size, RW));
  source.disarm();
  const { refused } = source;
  const after = contents(domain);
  const mapped = error === null ? size : BigInt(error.details['mapped']!);
  if (refused === 0) expect(error, label).toBeNull();
  if (mode === 'from-then-on' && refused > 0) expect(error?.code, label).toBe('ENOMEM');
  if (error !== null) {
    expect(error.code, label).toBe('ENOMEM');
    expect(domain.mapped, label).toBe(Number(mapped));
    expect(mapped < size && mapped % rig.granule === 0n, `${label}: ${hex(mapped)} of ${hex(size)} mapped`).toBe(true);
  }
  // Leaves: those of before, and the beginning of the range, as long as `mapped` says.
  expect(after.leaves, label).toEqual(expect.arrayContaining(before.leaves));
  const bytes = [...domain.table.leaves()].reduce((sum, leaf) => sum + leaf.size, 0n);
  expect(hex(bytes), `${label}: bytes mapped`).toBe(hex(rig.granule + mapped));
  // Every page that is counted is a table of the domain: no block was lost on the way.
  expect(pages.nrIommuPages() - fixed - perDomain, `${label}: pages against tables`).toBe(pagesOf(rig, domain));
  rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
  if (mapped > 0n) {
    rig.reaches(DEVICE, iova, pa);
    rig.reaches(DEVICE, iova + mapped - 16n, pa + mapped - 16n);
  }
  if (mapped < size) rig.refused(DEVICE, iova + mapped);

  // With memory again the rest goes in, and everything comes out.
  if (mapped < size) domain.map(iova + mapped, pa + mapped, size - mapped, RW);
  rig.reaches(DEVICE, iova + size - 16n, pa + size - 16n);
  let done = 0n;
  while (done < size) {
    const bytesDone = domain.unmap(iova + done, size - done);
    expect(bytesDone > 0n, `${label}: unmap stopped at ${hex(iova + done)}`).toBe(true);
    done += bytesDone;
  }
  expect(domain.unmap(rig.iova(0), rig.granule), label).toBe(rig.granule);
  rig.refused(DEVICE, iova);
  rig.refused(DEVICE, rig.iova(0));
  rig.driver.detach(DEVICE);
  domain.free();
  expect(pages.nrIommuPages(), `${label}: pages left`).toBe(fixed);
  return refused > 0;
};

/** 4 KiB pages that the tables of a domain stand in. */
const pagesOf = (rig: Rig, domain: PagingDomain): number => {
  let bytes = 0;
  for (const { pa } of domain.table.tables()) bytes += Math.max(4096, rig.system.pages.sizeOf(Number(pa >> 12n)));
  return bytes / 4096;
};

const scenariosOf = (rig: Rig): MapScenario[] => SCENARIOS.filter(({ needs }) => needs?.(rig) !== false);

export const failureCases: readonly DriverCase[] = [
  {
    name: 'failure_driver_creation',
    run(harness) {
      forEachFailure((n, mode, label) => {
        const { memory, pages, source } = armedMemory();
        let port: MmioPort | null = null;
        source.arm(n, mode);
        const error = caught(() => {
          harness.createSystem({ memory, pages, port: (mmio) => (port = mmio) });
        });
        source.disarm();
        if (source.refused === 0) return false;
        if (mode === 'from-then-on') expect(error?.code, label).toBe('ENOMEM');
        if (error === null) return true;
        expect(error.code, label).toBe('ENOMEM');
        expect(pages.nrIommuPages(), `${label}: pages lost`).toBe(0);
        // What the unit was told of belongs to somebody else now.
        expect(harness.isOff?.(port!), `${label}: the unit is off`).toBe(true);
        return true;
      });
    },
  },
  {
    name: 'failure_domain_creation',
    run(harness) {
      const { rig, source } = armedRig(harness);
      const { pages } = rig.system;
      const fixed = pages.nrIommuPages();
      const first = rig.driver.createDomain();
      const { id } = first;
      first.free();
      const failures = forEachFailure((n, mode, label) => {
        source.arm(n, mode);
        const error = caught(() => rig.driver.createDomain().free());
        source.disarm();
        expect(error?.code ?? 'none', label).toBe(source.refused > 0 ? 'ENOMEM' : 'none');
        expect(pages.nrIommuPages(), `${label}: pages`).toBe(fixed);
        const again = rig.driver.createDomain();
        expect(again.id, `${label}: the id came back`).toBe(id);
        again.free();
        return source.refused > 0;
      });
      expect(failures).toBeGreaterThan(0);
      rig.driver.release();
      expect(pages.nrIommuPages()).toBe(0);
    },
  },
  {
    name: 'failure_attach',
    run(harness) {
      forEachFailure((n, mode, label) => {
        const { rig, source } = armedRig(harness);
        // A device whose structures nobody has made yet.
        const far = rig.info.requesters - 1;
        const domain = rig.attached(DEVICE);
        domain.map(rig.iova(0), rig.pa(0), rig.granule, RW);
        for (const target of [domain, rig.driver.identityDomain, rig.driver.blockedDomain]) {
          source.arm(n, mode);
          const error = caught(() => rig.driver.attach(far, target));
          source.disarm();
          if (error !== null && error.code === 'EOPNOTSUPP') continue;
          if (source.refused === 0) expect(error, label).toBeNull();
          if (error === null) {
            rig.driver.detach(far);
            continue;
          }
          expect(error.code, label).toBe('ENOMEM');
          expect(rig.driver.domainOf(far), label).toBeNull();
          expect(domain.attachCount, label).toBe(1);
          rig.refused(far, rig.iova(0));
          rig.refused(far, rig.pa(0), 'write');
          rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
          rig.driver.attach(far, domain);
          rig.reaches(far, rig.iova(0), rig.pa(0));
          rig.driver.detach(far);
          rig.refused(far, rig.iova(0));
          rig.driver.detach(DEVICE);
          domain.free();
          rig.driver.release();
          expect(rig.system.pages.nrIommuPages(), `${label}: pages left`).toBe(0);
          return true;
        }
        return false;
      });
    },
  },
  {
    name: 'failure_map',
    run(harness) {
      const { rig, source } = armedRig(harness);
      settled(rig);
      let failures = 0;
      for (const scenario of scenariosOf(rig)) {
        failures += forEachFailure((n, mode, label) =>
          failedMap(rig, source, scenario, n, mode, `${scenario.name}, ${label}`),
        );
      }
      expect(failures, 'maps that met a failure').toBeGreaterThan(2);
      rig.driver.release();
      expect(rig.system.pages.nrIommuPages()).toBe(0);
    },
  },
  {
    name: 'failure_map_lazy',
    run(harness) {
      // Tables wait in the flush queue while others can't be had.
      const { rig, source } = armedRig(harness, { mode: 'lazy' });
      settled(rig);
      for (const scenario of scenariosOf(rig)) {
        forEachFailure((n, mode, label) => {
          const { pages } = rig.system;
          const fixed = pages.nrIommuPages();
          const domain = rig.attached(DEVICE);
          const { iova, pa, size } = scenario.prepare(rig, domain);
          domain.flush();
          source.arm(n, mode);
          const error = caught(() => domain.map(iova, pa, size, RW));
          source.disarm();
          const mapped = error === null ? size : BigInt(error.details['mapped']!);
          if (mapped > 0n) {
            rig.reaches(DEVICE, iova, pa);
            domain.unmap(iova, mapped);
          }
          rig.system.clock.advance(LONG);
          rig.refused(DEVICE, iova);
          rig.driver.detach(DEVICE);
          domain.free();
          expect(pages.nrIommuPages(), `${scenario.name}, ${label}: pages left`).toBe(fixed);
          return source.refused > 0;
        });
      }
    },
  },
  {
    name: 'failure_nothing_to_allocate',
    run(harness) {
      // Taking apart needs no memory: unmaps of every kind, flushes, detaching, freeing, releasing, faults.
      const { rig, source } = armedRig(harness);
      const { pages } = rig.system;
      const domain = rig.attached(DEVICE, OTHER);
      const lazy = rig.driver.createDomain({ mode: 'lazy' });
      const ranges = scenariosOf(rig).map((scenario) => {
        const range = scenario.prepare(rig, domain);
        domain.map(range.iova, range.pa, range.size, RW);
        rig.reaches(DEVICE, range.iova, range.pa);
        if (domain.iovaToPhys(range.iova) !== null) {
          // Whole, at once: the next scenario may want the place.
          source.arm(1, 'from-then-on');
          expect(domain.unmap(range.iova, range.size), scenario.name).toBe(range.size);
          rig.refused(DEVICE, range.iova);
          source.disarm();
          expect(source.refused, `${scenario.name}: allocations by an unmap`).toBe(0);
        }
        return range;
      });
      const last = ranges.at(-1)!;
      domain.map(last.iova, last.pa, last.size, RW);
      domain.map(rig.iova(0), rig.pa(1), 4n * rig.granule, RW);
      lazy.map(rig.iova(0), rig.pa(1), 4n * rig.granule, RW);
      rig.driver.attach(OTHER, lazy);
      rig.reaches(OTHER, rig.iova(0), rig.pa(1));
      const { allocations } = pages;

      source.arm(1, 'from-then-on');
      const gather = new GatherRecord();
      expect(domain.unmapGather(rig.iova(0), rig.granule, gather)).toBe(rig.granule);
      domain.iotlbSync(gather);
      expect(domain.unmap(rig.iova(1), rig.granule)).toBe(rig.granule);
      expect(lazy.unmap(rig.iova(0), 2n * rig.granule)).toBe(2n * rig.granule);
      lazy.flush();
      expect(lazy.unmap(rig.iova(2), rig.granule)).toBe(rig.granule);
      rig.refused(DEVICE, rig.iova(0));
      rig.refused(OTHER, rig.iova(0));
      rig.driver.handleFaults();
      rig.driver.attach(OTHER, rig.driver.blockedDomain);
      rig.driver.attach(OTHER, domain);
      rig.reaches(OTHER, rig.iova(2), rig.pa(3));
      rig.driver.detach(OTHER);
      rig.driver.detach(DEVICE);
      domain.free();
      lazy.free();
      rig.driver.release();
      source.disarm();
      expect(source.refused, 'allocations asked for').toBe(0);
      expect(pages.allocations, 'allocations made').toBe(allocations);
      expect(pages.nrIommuPages()).toBe(0);
    },
  },
];
