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
driverConformance(harness);
// Stage 1 without range invalidation, as the recorded Linux saw it, 16 KiB granule.
driverConformance(variant({ preset: 'stage1', granuleLg2: 14 }), {
  skip: { id_exhaustion: 'as many ASIDs as above, each with 16 KiB tables' },
});
// Stage 2 with VMIDs.
driverConformance(variant({ preset: 'stage2' }), {
  skip: { id_exhaustion: 'as many VMIDs as above there are ASIDs' },
});
