import { driverConformance } from '@iommu-ts/conformance/suite';
import { harness } from '../src/harness.ts';

driverConformance(harness, {
  skip: {
    id_exhaustion: 'a PSCID has 20 bits: a million domains; test/driver.test.ts exhausts a smaller space',
  },
});
