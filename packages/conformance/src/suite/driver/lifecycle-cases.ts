/** Ids, errors of the API, and giving everything back. */
import { IommuError, hex } from '@iommu-ts/bits';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { PagingDomain } from '@iommu-ts/iommu-core';
import { expect } from 'vitest';
import { DEVICE, OTHER, Rig, RW } from './rig.ts';
import type { DriverCase } from './rig.ts';

/** No architecture has more domain ids. */
const MAX_IDS = 70_000;

/** The `code` of what `run` throws. */
const codeOf = (run: () => void): string => {
  try {
    run();
  } catch (error) {
    return error instanceof IommuError ? error.code : String(error);
  }
  return 'nothing thrown';
};

/** Uses up what memory there is; returns whether a device could be attached and mapped for once pages were given back. */
const exhaust = (rig: Rig, label: string): boolean => {
  const { driver, system } = rig;
  const domains: PagingDomain[] = [];
  expect(
    codeOf(() => {
      while (domains.length < MAX_IDS) domains.push(driver.createDomain());
    }),
    `${label}: after ${domains.length} domains`,
  ).toMatch(/^(ENOMEM|ENOSPC)$/);
  const [first] = domains;
  let attached = false;
  if (first !== undefined) {
    expect(
      codeOf(() => first.map(rig.iova(0), rig.pa(0), rig.granule, RW)),
      label,
    ).toMatch(/^(ENOMEM|nothing thrown)$/);
    const refused = codeOf(() => driver.attach(DEVICE, first));
    expect(refused, label).toMatch(/^(ENOMEM|nothing thrown)$/);
    // Refused means: as before.
    expect(driver.domainOf(DEVICE), label).toBe(refused === 'ENOMEM' ? null : first);
    expect(first.attachCount, label).toBe(refused === 'ENOMEM' ? 0 : 1);
    for (const domain of domains.splice(1)) domain.free();
    attached =
      codeOf(() => {
        driver.attach(DEVICE, first);
        if (first.iovaToPhys(rig.iova(0)) !== null) first.unmap(rig.iova(0), rig.granule);
        first.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      }) === 'nothing thrown';
    if (attached) rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
    driver.detach(DEVICE);
    first.free();
  }
  driver.release();
  expect(system.pages.nrIommuPages(), `${label}: pages left after release`).toBe(0);
  return attached;
};

export const lifecycleCases: readonly DriverCase[] = [
  {
    name: 'info',
    run(harness) {
      const rig = new Rig(harness);
      const { info } = rig;
      expect(info.name).toBe(harness.name);
      expect(info.format).not.toBe('');
      expect((info.pageSizes >> BigInt(info.granuleLg2)) & 1n, 'the granule is a page size').toBe(1n);
      expect(info.pageSizes & ((1n << BigInt(info.granuleLg2)) - 1n), 'no smaller page size').toBe(0n);
      expect(info.apertureFirst < info.apertureLast).toBe(true);
      expect(info.requesters).toBeGreaterThan(4);
      for (const r of rig.driver.reservedRegions()) expect(r.start <= r.last && r.doc !== '', hex(r.start)).toBe(true);
      expect(harness.formats.length).toBeGreaterThan(0);
    },
  },
  {
    name: 'errors',
    reports: () => ['misuse'],
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      const { apertureLast, oas, requesters } = rig.info;
      const taken = rig.info.rules === 'generic_pt' ? 'EADDRINUSE' : 'EEXIST';
      domain.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      expect(codeOf(() => domain.map(rig.iova(0), rig.pa(1), rig.granule, RW))).toBe(taken);
      expect(codeOf(() => domain.map(rig.iova(1), rig.pa(1), rig.granule, 0))).toBe('EINVAL');
      expect(['ENXIO', 'EINVAL']).toContain(codeOf(() => domain.map(rig.iova(1) + 8n, rig.pa(1), rig.granule, RW)));
      if (apertureLast < 0xffff_ffff_ffff_ffffn) {
        expect(['ERANGE', 'ENOMEM']).toContain(codeOf(() => domain.map(apertureLast + 1n, rig.pa(1), rig.granule, RW)));
      }
      if (oas < 64) expect(codeOf(() => domain.map(rig.iova(1), 1n << BigInt(oas), rig.granule, RW))).toBe('ERANGE');
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
      rig.refused(DEVICE, rig.iova(1));
      expect(domain.unmap(rig.iova(1), rig.granule)).toBe(0n);
      expect(codeOf(() => rig.driver.attach(requesters, domain))).toBe('ERANGE');
      expect(codeOf(() => rig.driver.attach(-1, domain))).toBe('ERANGE');
      const foreign = harness.createSystem().driver.createDomain();
      expect(codeOf(() => rig.driver.attach(OTHER, foreign))).toBe('EINVAL');
      expect(codeOf(() => domain.free())).toBe('EBUSY');
      expect(codeOf(() => rig.driver.release())).toBe('EBUSY');
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
    },
  },
  {
    name: 'id_exhaustion',
    run(harness) {
      const rig = new Rig(harness);
      const domains: PagingDomain[] = [];
      const code = codeOf(() => {
        while (domains.length < MAX_IDS) domains.push(rig.driver.createDomain());
      });
      expect(code, `after ${domains.length} domains`).toBe('ENOSPC');
      expect(new Set(domains.map((d) => d.id)).size, 'ids that differ').toBe(domains.length);
      // One back, one more.
      const gone = domains.pop()!;
      gone.free();
      const next = rig.driver.createDomain();
      expect(next.id).toBe(gone.id);
      expect(codeOf(() => rig.driver.createDomain())).toBe('ENOSPC');
      rig.driver.attach(DEVICE, next);
      next.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
      rig.driver.detach(DEVICE);
      next.free();
      for (const domain of domains) domain.free();
      rig.driver.release();
      expect(rig.system.pages.nrIommuPages()).toBe(0);
    },
  },
  {
    name: 'id_reuse',
    run(harness) {
      const rig = new Rig(harness);
      const first = rig.attached(DEVICE);
      first.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
      rig.driver.detach(DEVICE);
      first.free();
      // The id comes back at once: nothing cached under it may answer for the new domain.
      const second = rig.attached(DEVICE);
      rig.refused(DEVICE, rig.iova(0));
      second.map(rig.iova(0), rig.pa(9), rig.granule, RW);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(9));
    },
  },
  {
    name: 'domain_freed',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.driver.createDomain();
      domain.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      domain.free();
      const used = rig.system.pages.nrIommuPages();
      // Its pages are somebody else's now.
      for (const [name, run] of [
        ['map', () => domain.map(rig.iova(1), rig.pa(0), rig.granule, RW)],
        ['unmap', () => domain.unmap(rig.iova(0), rig.granule)],
        ['iovaToPhys', () => domain.iovaToPhys(rig.iova(0))],
      ] as const) {
        expect(codeOf(run), name).toBe('ENODEV');
      }
      expect(domain.mapWords(0, 0x4000_0000, 1, 0, Number(rig.granule), RW)).toBe(-34);
      expect(codeOf(() => rig.driver.attach(DEVICE, domain))).toBe('EINVAL');
      expect(rig.driver.domainOf(DEVICE)).toBeNull();
      rig.refused(DEVICE, rig.iova(0));
      expect(rig.system.pages.nrIommuPages()).toBe(used);
    },
  },
  {
    name: 'no_memory',
    run(harness) {
      // From no page on, twice as many each time: whatever there is no page for is refused, and nothing is lost.
      let attached = false;
      for (let size = 0x1000n; size <= 1n << 27n && !attached; size *= 2n) {
        const memory = new PhysicalMemory([{ base: 0n, size: 64n << 30n }]);
        const pages = new IommuPages(memory, new BuddySource(memory, [{ base: 63n << 30n, size }]));
        const label = `${hex(size)} bytes`;
        let rig: Rig | null = null;
        const made = codeOf(() => (rig = new Rig(harness, { memory, pages })));
        if (rig === null) {
          expect(made, label).toBe('ENOMEM');
          expect(pages.nrIommuPages(), `${label}: pages lost by the constructor`).toBe(0);
          continue;
        }
        attached = exhaust(rig, label);
      }
      expect(attached, 'a device was attached in the end').toBe(true);
    },
  },
  {
    name: 'released',
    run(harness) {
      const rig = new Rig(harness);
      rig.driver.release();
      rig.driver.release();
      for (const [name, run] of [
        ['createDomain', () => rig.driver.createDomain()],
        ['attach', () => rig.driver.attach(DEVICE, rig.driver.blockedDomain)],
        ['handleFaults', () => rig.driver.handleFaults()],
      ] as const) {
        expect(codeOf(run), name).toBe('ENODEV');
      }
      rig.driver.detach(DEVICE);
      expect(rig.system.pages.nrIommuPages()).toBe(0);
    },
  },
  {
    name: 'release',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE, OTHER);
      domain.map(rig.iova(0), rig.pa(0), 600n * rig.granule, RW);
      domain.map(rig.info.apertureLast + 1n - rig.granule, rig.pa(0), rig.granule, RW);
      const used = rig.tableBytes;
      expect(used).toBeGreaterThan(0);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
      rig.driver.attach(OTHER, rig.driver.identityDomain);
      rig.driver.detach(DEVICE);
      rig.driver.detach(OTHER);
      // With mappings still in it.
      domain.free();
      domain.free();
      expect(rig.tableBytes).toBeLessThan(used);
      rig.driver.release();
      expect(rig.system.pages.nrIommuPages()).toBe(0);
      expect(rig.system.pages.nrSecPageTablePages).toBe(0);
    },
  },
];
