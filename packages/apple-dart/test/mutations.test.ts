/** Bugs seeded between the driver and its unit: every one is caught by the right check with the right hint. */
import { mutationConformance } from '@iommu-ts/conformance/mutation';
import { mutations, t8103 } from './mutations.ts';

mutationConformance(t8103, mutations, {
  title: 'Seeded bugs: Apple DART',
  file: '../../../docs/mutations/apple-dart.md',
});
