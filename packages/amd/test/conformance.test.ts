/** The suite that every driver passes: six table levels, and four (where an address can be too wide). */
import { LONG_CASES, driverConformance } from '@iommu-ts/conformance/suite';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { describe } from 'vitest';
import { harness } from '../src/harness.ts';
import { createAmdIommu } from '../src/index.ts';
import type { CreateAmdIommuOptions } from '../src/index.ts';

// Domain ids are limited, so that using them up does not take seconds.
const variant = (options: CreateAmdIommuOptions): DriverHarness => ({
  ...harness,
  createSystem: (given) => createAmdIommu({ ...given, ...options }),
});

driverConformance(variant({ lastDomainId: 4095 }));
describe('four levels', () => driverConformance(variant({ preset: 'small', lastDomainId: 99 })));

describe('a device that keeps everything and hurries nothing', () => {
  driverConformance(variant({ lastDomainId: 299 }), { checks: true });
  describe('four levels', () =>
    driverConformance(variant({ preset: 'small', lastDomainId: 99 }), { checks: true, omit: LONG_CASES }));
});
