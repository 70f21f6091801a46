/** A walker that does not snoop (IDR0.COHACC = 0): what the driver writes, it writes back, and every byte the SMMU needs of it. */
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { SystemOptions } from '@iommu-ts/iommu-core';
import { PROT } from '@iommu-ts/page-table';
import { describe, expect, test } from 'vitest';
import { createArmSmmuIommu } from '../src/index.ts';
import type { ArmSmmuSystemOptions } from '../src/index.ts';

const RW = PROT.READ | PROT.WRITE;
const PAGE = 0x1000n;

const VARIANTS: readonly (readonly [string, ArmSmmuSystemOptions])[] = [
  ['stage 1', {}],
  ['stage 1, linear stream table, no RIL', { preset: 'stage1' }],
  ['stage 2', { stage: 2 }],
  ['stage 1, 64 KiB', { granuleLg2: 16 }],
];

/** The life of a driver: domains of two kinds, tables that come and go, devices that move, faults, refusals of the queue. */
const live = (options: ArmSmmuSystemOptions): ReturnType<typeof createArmSmmuIommu> => {
  const system = createArmSmmuIommu({ incoherentWalker: true, ...options });
  const { driver, bus } = system;
  const granule = 1n << BigInt(driver.info.granuleLg2);
  const device = bus.device(3);
  for (let round = 0n; round < 3n; round++) {
    const domain = driver.createDomain();
    driver.attach(3, domain);
    driver.attach(0x102, domain);
    domain.map(0x4000_0000n, 0x1_0000_0000n, 64n * granule, RW);
    for (let i = 0n; i < 64n; i++) expect(device.read(0x4000_0000n + granule * i, 4).ok).toBe(true);
    domain.unmap(0x4000_0000n + 3n * granule, 5n * granule);
    expect(device.read(0x4000_0000n + 4n * granule, 4).ok).toBe(false);
    expect(driver.handleFaults().length).toBe(1);
    domain.map(0x4000_0000n + 4n * granule, 0x2_0000_0000n, granule, RW);
    expect(device.read(0x4000_0000n + 4n * granule, 4)).toMatchObject({ ok: true });
    driver.attach(3, driver.identityDomain);
    expect(device.read(0x1000n, 4).ok).toBe(true);
    driver.attach(3, driver.blockedDomain);
    expect(device.read(0x1000n, 4).ok).toBe(false);
    driver.detach(3);
    driver.detach(0x102);
    domain.free();
  }
  return system;
};

describe.each(VARIANTS)('%s', (_, options) => {
  test('IDR0.COHACC tells, tables and queues are marked not to be snooped', () => {
    for (const incoherentWalker of [false, true]) {
      const { hardware } = createArmSmmuIommu({ ...options, incoherentWalker });
      const coherent = incoherentWalker ? 0 : 1;
      expect((hardware.mmio.read32(0) >>> 4) & 1).toBe(coherent);
      // CR1: TABLE_SH 11:10, TABLE_OC 9:8, TABLE_IC 7:6, QUEUE_SH 5:4, QUEUE_OC 3:2, QUEUE_IC 1:0.
      expect(hardware.mmio.read32(0x28)).toBe(incoherentWalker ? 0x820 : 0xd75);
    }
  });

  test.each(['sized', 'retain'] as const)(
    'IOTLB %s: bytes that are not written back do not exist, and none is missed',
    (mode) => {
      const { checks, driver, pages } = live({ ...options, iotlb: { mode }, checks: true });
      driver.release();
      expect(checks!.reports).toEqual([]);
      expect(pages.warnings).toEqual([]);
      expect(pages.dmaMappings).toBe(0);
      expect(pages.nrIommuPages()).toBe(0);
    },
  );

  test('what is written back is what was written: no more than a cache line around it', () => {
    const cleaned: [pfn: number, offset: number, bytes: number][] = [];
    const system = createArmSmmuIommu({ ...options, incoherentWalker: true });
    const domain = system.driver.createDomain();
    const granule = 1n << BigInt(system.driver.info.granuleLg2);
    domain.map(0n, 0n, granule, RW);
    system.pages.cacheMaintenance = { clean: (pfn, offset, bytes) => cleaned.push([pfn, offset, bytes]) };
    domain.map(granule, 0n, granule, RW);
    expect(cleaned.map(([, offset, bytes]) => [offset, bytes])).toEqual([[8, 8]]);
    cleaned.length = 0;
    domain.unmap(granule, granule);
    // The entry, a command of 16 bytes, and CMD_SYNC.
    expect(cleaned.map(([, , bytes]) => bytes)).toEqual([8, 16, 16]);
  });
});

test('an entry that is not written back is not there for the SMMU, and the checks say so', () => {
  const { bus, checks, driver, pages } = createArmSmmuIommu({ incoherentWalker: true, checks: true });
  const domain = driver.createDomain();
  driver.attach(3, domain);
  domain.map(0n, 0x1_0000_0000n, PAGE, RW);
  expect(bus.device(3).read(0n, 4).ok).toBe(true);
  // From here on commands of 16 bytes alone are written back.
  const flush = pages.flushIncoherent.bind(pages);
  pages.flushIncoherent = (pfn, offset, length) => (length === 16 ? flush(pfn, offset, length) : undefined);
  domain.map(PAGE * 64n, 0x2_0000_0000n, PAGE, RW);
  expect(bus.device(3).read(PAGE * 64n, 4).ok).toBe(false);
  expect(checks!.reports.map((report) => report.kind)).toEqual(['incoherent']);
});

test('on a coherent machine nothing is written back, and nothing is marked', () => {
  const { driver, pages } = createArmSmmuIommu();
  let cleaned = 0;
  pages.cacheMaintenance = { clean: () => cleaned++ };
  const domain = driver.createDomain();
  driver.attach(1, domain);
  domain.map(0n, 0n, 64n * PAGE, RW);
  domain.unmap(0n, 64n * PAGE);
  expect(cleaned).toBe(0);
  expect(pages.dmaMappings).toBe(0);
});

test('a DMA API that does not map directly is refused, and nothing is left behind', () => {
  for (const [map, code] of [
    [(pfn: number): number => pfn + 1, 'EOPNOTSUPP'],
    [(): number => -1, 'EINVAL'],
  ] as const) {
    const memory = new PhysicalMemory([{ base: 0n, size: 64n << 20n }]);
    const source = new BuddySource(memory, [{ base: 0n, size: 64n << 20n }]);
    const pages = new IommuPages(memory, source, { coherency: 'dma-api', dma: { map } });
    const options: SystemOptions = { memory, pages, incoherentWalker: true };
    expect(() => createArmSmmuIommu(options)).toThrow(expect.objectContaining({ code }));
    expect(pages.nrIommuPages()).toBe(0);
  }
});
