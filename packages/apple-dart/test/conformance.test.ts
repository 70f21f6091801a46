import { driverConformance } from '@iommu-ts/conformance/suite';
import { harness } from '../src/harness.ts';

driverConformance(harness, {
  skip: {
    release: 'expects pages that the driver itself holds: DART has no queues and no device tables; see driver.test.ts',
  },
});
