/** The suite that every driver passes: six table levels, and four (where an address can be too wide). */
import { driverConformance } from '@iommu-ts/conformance/suite';
import { harness } from '../src/harness.ts';
import { createAmdIommu } from '../src/index.ts';

driverConformance(harness);

driverConformance({
  ...harness,
  name: 'amd, 48 bits',
  createSystem: (options) => createAmdIommu({ ...options, preset: 'small', lastDomainId: 99 }),
});
