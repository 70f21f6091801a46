import type { DriverHarness } from '@iommu-ts/iommu-core';
import { LONG_CASES, driverConformance } from '@iommu-ts/conformance/suite';
import { describe } from 'vitest';
import { harness } from '../src/harness.ts';
import { PRESETS, createArmSmmuIommu } from '../src/index.ts';
import type { ArmSmmuSystemOptions, SmmuIds } from '../src/index.ts';

/** The harness with systems of another kind. */
const variant = (options: ArmSmmuSystemOptions): DriverHarness => ({
  ...harness,
  createSystem: (given) => createArmSmmuIommu({ ...given, ...options }),
});

/** IDR0.ASID16 and IDR0.VMID16: without them ids have 8 bits, and the case that uses them all up ends in time. */
const ID16 = (1 << 12) | (1 << 18);
const shortIds = (preset: keyof typeof PRESETS): SmmuIds => ({
  ...PRESETS[preset],
  IDR0: PRESETS[preset].IDR0 & ~ID16,
});

// Stage 1, 4 KiB granule, range invalidation.
describe('stage 1', () => driverConformance(variant({ ids: shortIds('full') })));
// Without range invalidation, as the recorded Linux saw it.
describe('stage 1, 16 KiB granule, no RIL', () =>
  driverConformance(variant({ ids: shortIds('stage1'), granuleLg2: 14 })));
describe('stage 2', () => driverConformance(variant({ ids: shortIds('stage2') })));
describe('stage 2, 64 KiB granule, 52 bits', () =>
  driverConformance(variant({ ids: shortIds('wide'), stage: 2, granuleLg2: 16 })));

describe('a device that keeps everything and hurries nothing', () => {
  const checks = { checks: true, omit: LONG_CASES };
  describe('stage 1', () => driverConformance(variant({ ids: shortIds('full') }), { checks: true }));
  describe('stage 1, 16 KiB granule, no RIL, walker that does not snoop', () =>
    driverConformance(variant({ ids: shortIds('stage1'), granuleLg2: 14, incoherentWalker: true }), checks));
  describe('stage 2, 64 KiB granule, 52 bits', () =>
    driverConformance(variant({ ids: shortIds('wide'), stage: 2, granuleLg2: 16 }), checks));
});
