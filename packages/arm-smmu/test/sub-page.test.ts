/** The suite that every driver passes, with tables that share CPU pages: start tables of a few entries are parts of one. */
import { driverConformance, withPages } from '@iommu-ts/conformance/suite';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { PROT } from '@iommu-ts/page-table';
import { describe, expect, test } from 'vitest';
import { harness } from '../src/harness.ts';
import { PRESETS, createArmSmmuIommu } from '../src/index.ts';
import type { ArmSmmuSystemOptions } from '../src/index.ts';

const variant = (options: ArmSmmuSystemOptions): DriverHarness => ({
  ...harness,
  createSystem: (given) => createArmSmmuIommu({ ...given, ...options }),
});
const omit = { id_exhaustion: 'thousands of domains; says nothing about tables' };

// A start table of two entries: 16 bytes, of which hardware asks 64.
const sixteen = withPages(variant({ ids: PRESETS.stage1, granuleLg2: 14 }), { subPage: true });
// 1024 entries with 52 bits of address; the lower tables fill a page.
const wide = withPages(variant({ ids: PRESETS.wide, stage: 2, granuleLg2: 16 }), { cpuPageSize: 65536, subPage: true });

describe('stage 1, 16 KiB granule', () => driverConformance(sixteen, { omit }));
describe('stage 2, 64 KiB granule, 52 bits', () => driverConformance(wide, { omit }));

test('start tables and context descriptors of many domains share pages', () => {
  const system = sixteen.createSystem();
  const before = system.pages.nrIommuPages();
  const domains = Array.from({ length: 32 }, () => system.driver.createDomain());
  // 64 bytes of each.
  expect(system.pages.nrIommuPages()).toBe(before + 1);
  expect(domains.every(({ table }) => table.geometry().topBytes === 16)).toBe(true);
  for (const [i, domain] of domains.entries()) {
    system.driver.attach(i, domain);
    domain.map(0x4000n, 0x1_0000_0000n + BigInt(i) * 0x4000n, 0x4000n, PROT.READ | PROT.WRITE);
    system.memory.writeU64(0x1_0000_0000n + BigInt(i) * 0x4000n, BigInt(i));
  }
  for (const i of domains.keys()) {
    const { ok, data } = system.bus.device(i).read(0x4000n, 8);
    expect([ok, data?.[0]]).toEqual([true, i]);
  }
  for (const [i, domain] of domains.entries()) {
    system.driver.detach(i);
    domain.free();
  }
  system.driver.release();
  expect([system.pages.nrIommuPages(), system.pages.subPages.parts]).toEqual([0, 0]);
});
