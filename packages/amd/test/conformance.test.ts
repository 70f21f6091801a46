/** The suite that every driver passes: six table levels, and four (where an address can be too wide). */
import { driverConformance } from '@iommu-ts/conformance/suite';
import { describe } from 'vitest';
import { harness } from '../src/harness.ts';
import { createAmdIommu } from '../src/index.ts';

// Domain ids are limited, so that using them up does not take seconds.
driverConformance({ ...harness, createSystem: (options) => createAmdIommu({ ...options, lastDomainId: 4095 }) });

driverConformance({
  ...harness,
  createSystem: (options) => createAmdIommu({ ...options, preset: 'small', lastDomainId: 99 }),
});

describe('a device that keeps everything and hurries nothing', () =>
  driverConformance({
    ...harness,
    createSystem: (options) => createAmdIommu({ iotlb: { mode: 'retain' }, ...options, lastDomainId: 4095 }),
  }));
