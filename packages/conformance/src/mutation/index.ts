/**
 * `@iommu-ts/conformance/mutation`: the corpus of driver bugs. A driver's part of it is data in that driver's tests; what
 * is here knows no vendor.
 * @packageDocumentation
 */
export {
  changeOps,
  commonMutations,
  keepContextAtDetach,
  lateFlushMutations,
  leafHintMutations,
  rangeMutations,
  strideOf,
  tableMutations,
} from './common.ts';
export { incoherentMutations } from './incoherent.ts';
export { FaultyPort } from './faulty-port.ts';
export type { PortFault, PortLayout, RingLayout } from './faulty-port.ts';
export { MutationRig } from './rig.ts';
export * as scenarios from './scenarios.ts';
export { mutationConformance, seed } from './suite.ts';
export type { MutationOutcome } from './suite.ts';
export type { Mutation, MutationTarget, Scenario } from './types.ts';
