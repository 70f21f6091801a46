/** Units whose walks do not snoop the CPU's caches (ECAP.C = 0): what the driver writes back, and that it is enough. */
import { driverConformance } from '@iommu-ts/conformance/suite';
import { GatherRecord, PROT } from '@iommu-ts/page-table';
import { describe, expect, test } from 'vitest';
import { harness } from '../src/harness.ts';
import { VTD_PRESETS, createVtdIommu } from '../src/index.ts';

const RW = PROT.READ | PROT.WRITE;
const IOVA = 0x1234_5000n;

/** Every write-back of a system, as [address, bytes]. */
const flushes = (incoherentWalker: boolean) => {
  const seen: [bigint, number][] = [];
  const system = createVtdIommu({ incoherentWalker });
  system.pages.cacheMaintenance = {
    clean: (pfn, offset, bytes) => seen.push([(BigInt(pfn) << 12n) + BigInt(offset), bytes]),
  };
  return { ...system, seen };
};

test('ECAP says C = 0 and SMPWCS = 0, and the rest as before', () => {
  const ecap = (incoherentWalker: boolean): bigint =>
    createVtdIommu({
      incoherentWalker,
      preset: { ...VTD_PRESETS.server, ecap: 0x1_0000_0000_0f43n },
    }).hardware.registers.get64(0x10);
  expect(ecap(false)).toBe(0x1_0000_0000_0f43n);
  expect(ecap(true)).toBe(0xf42n);
});

test('a map writes back each entry that it wrote, and each new table whole', () => {
  const { driver, memory, hardware, seen } = flushes(true);
  const domain = driver.createDomain();
  seen.length = 0;
  domain.map(IOVA, 0x5000n, 0x1000n, RW);
  const steps = domain.table.walk(IOVA).steps.map(({ entryPa }) => entryPa);
  expect(steps).toHaveLength(4);
  for (const entry of steps) {
    expect(
      seen.some(([at, bytes]) => at <= entry && entry + 8n <= at + BigInt(bytes)),
      `entry ${entry}`,
    ).toBe(true);
  }
  for (const entry of steps.slice(1)) expect(seen).toContainEqual([entry & ~0xfffn, 4096]);
  seen.length = 0;
  driver.attach(0x118, domain);
  const root = hardware.registers.get64(0x20);
  const context = memory.readU64(root + 16n) & ~0xfffn;
  // The new context table's zeros, the root entry, the context entry.
  expect(seen).toEqual([
    [context, 4096],
    [root + 16n, 16],
    [context + 16n * 0x18n, 16],
  ]);
  seen.length = 0;
  domain.unmap(IOVA, 0x1000n);
  expect(seen).toEqual([[steps[3]!, 8]]);
  seen.length = 0;
  driver.detach(0x118);
  expect(seen).toEqual([[context + 16n * 0x18n, 16]]);
});

test('a unit that snoops is spared all of it', () => {
  const { driver, seen } = flushes(false);
  const domain = driver.createDomain();
  domain.map(IOVA, 0x5000n, 0x40_0000n, RW);
  driver.attach(0x118, domain);
  const gather = new GatherRecord();
  domain.unmapGather(IOVA, 0x40_0000n, gather);
  domain.iotlbSync(gather);
  driver.detach(0x118);
  domain.free();
  driver.release();
  expect(seen).toEqual([]);
});

test('structures are marked incoherent while they live', () => {
  const { driver, pages, hardware, memory } = flushes(true);
  driver.attach(0x18, driver.identityDomain);
  const root = hardware.registers.get64(0x20);
  const context = memory.readU64(root) & ~0xfffn;
  for (const at of [root, context]) expect(pages.isIncoherent(Number(at >> 12n))).toBe(true);
  driver.release();
  expect(pages.nrIommuPages()).toBe(0);
});

describe('with the bytes that were not written back really invisible', () => {
  test('maps, unmaps, attachments: every DMA goes where the tables say', () => {
    const { driver, bus, checks, memory } = createVtdIommu({
      incoherentWalker: true,
      iotlb: { mode: 'retain' },
      checks: { kinds: ['incoherent', 'stale-translation', 'use-after-free', 'freed-before-flush'] },
    });
    const domains = [driver.createDomain(), driver.createDomain({ mode: 'lazy' })];
    const device = bus.device(0x118);
    for (const [n, domain] of domains.entries()) {
      driver.attach(0x118, domain);
      for (let round = 0n; round < 20n; round++) {
        const iova = (round << 21n) + BigInt(n) * 0x1000n;
        domain.map(iova, 0x100_0000n + (round << 12n), 0x3000n, RW);
        memory.writeU64(0x100_1000n + (round << 12n), 0xabcn + round);
        const { ok, data } = device.read(iova + 0x1000n, 8);
        expect([ok, data[0]]).toEqual([true, Number((0xabcn + round) & 0xffn)]);
        if (round % 3n === 0n) expect(domain.unmap(iova, 0x3000n)).toBe(0x3000n);
      }
      domain.flush();
    }
    expect(checks!.reports).toEqual([]);
    expect(checks!.flushTable().length).toBeGreaterThan(0);
  });
});

describe('the driver suite', () => {
  // CAP.ND 2: 256 domains.
  const preset = { ...VTD_PRESETS.server, cap: (VTD_PRESETS.server.cap & ~7n) | 2n };
  driverConformance({
    ...harness,
    createSystem: (options) => createVtdIommu({ incoherentWalker: true, ...options, preset }),
  });
});
