/**
 * `@iommu-ts/conformance/suite`: the suites, as functions that declare vitest tests.
 * @packageDocumentation
 */
export { driverCases, driverConformance, staleSkips } from './driver-suite.ts';
export type { DriverConformanceOptions } from './driver-suite.ts';
export type { DriverCase } from './driver/rig.ts';
export { Random } from '../random.ts';
export { ReferenceModel } from './reference-model.ts';
export type { ModelPage } from './reference-model.ts';
