/** Bugs seeded between the driver and its unit: every one is caught by the right check with the right hint. */
import { mutationConformance } from '@iommu-ts/conformance/mutation';
import { harness } from '../src/harness.ts';
import { mutations, ring } from './mutations.ts';

mutationConformance({ harness, ring }, mutations, {
  title: 'Seeded bugs: RISC-V IOMMU',
  file: '../../../docs/mutations/riscv.md',
});
