import { driverConformance } from '@iommu-ts/conformance/suite';
import { createRiscvIommu } from '../src/create.ts';
import { harness } from '../src/harness.ts';

// A PSCID has 20 bits: with fewer of them the case that uses them all up ends in time; nothing else notices.
driverConformance({
  ...harness,
  createSystem: (options) => createRiscvIommu({ ...options, driver: { pscidLast: 2000 } }),
});
