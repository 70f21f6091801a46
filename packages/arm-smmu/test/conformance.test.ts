import type { DriverHarness } from '@iommu-ts/iommu-core';
import { driverConformance } from '@iommu-ts/conformance/suite';
import { harness } from '../src/harness.ts';
import { createArmSmmuIommu } from '../src/index.ts';
import type { ArmSmmuSystemOptions } from '../src/index.ts';

/** The harness with systems of another kind. */
const variant = (options: ArmSmmuSystemOptions): DriverHarness => ({
  ...harness,
  createSystem: (given) => createArmSmmuIommu({ ...given, ...options }),
});

// Stage 1, 4 KiB granule, range invalidation.
driverConformance(harness, {
  skip: { id_exhaustion: '65535 ASIDs; test/driver.test.ts uses up 8-bit ones' },
});
// Stage 1 without range invalidation, as the recorded Linux saw it, 16 KiB granule.
driverConformance(variant({ preset: 'stage1', granuleLg2: 14 }), {
  skip: { id_exhaustion: '65535 ASIDs; test/driver.test.ts uses up 8-bit ones' },
});
// Stage 2 with VMIDs.
driverConformance(variant({ preset: 'stage2' }), {
  skip: { id_exhaustion: '65535 VMIDs; test/driver.test.ts uses up 8-bit ASIDs' },
});
