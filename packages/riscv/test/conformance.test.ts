/** The suite that every driver passes, on device directories of each depth and both formats of device context. */
import { LONG_CASES, driverConformance } from '@iommu-ts/conformance/suite';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { describe } from 'vitest';
import { createRiscvIommu } from '../src/create.ts';
import type { CreateRiscvIommuOptions } from '../src/create.ts';
import { harness } from '../src/harness.ts';

// A PSCID has 20 bits: with fewer of them the case that uses them all up ends in time; nothing else notices.
const variant = (given: CreateRiscvIommuOptions = {}, pscidLast = 200): DriverHarness => ({
  ...harness,
  createSystem: (options) => createRiscvIommu({ ...options, ...given, driver: { ...given.driver, pscidLast } }),
});

driverConformance(variant({}, 2000));
describe('base-format contexts, 48 bits', () =>
  driverConformance(variant({ preset: 'linux-minimal', driver: { addressBits: 48 } })));
describe('2LVL, 39 bits', () =>
  driverConformance(variant({ hardware: { maxIommuMode: 3 }, driver: { addressBits: 39 } })));
describe('1LVL', () => driverConformance(variant({ hardware: { maxIommuMode: 2 } })));
describe('1LVL, base-format contexts', () =>
  driverConformance(variant({ preset: 'linux-minimal', hardware: { maxIommuMode: 2 } })));
describe('a device that keeps all it may and hurries nothing', () => {
  driverConformance(variant(), { checks: true });
  describe('base-format contexts, 48 bits', () =>
    driverConformance(variant({ preset: 'linux-minimal', driver: { addressBits: 48 } }), {
      checks: true,
      omit: LONG_CASES,
    }));
});
