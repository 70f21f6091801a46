/**
 * `@iommu-ts/conformance/suite`: the suites, as functions that declare vitest tests.
 * @packageDocumentation
 */
export { LONG_CASES, driverCases, driverConformance, staleSkips } from './driver-suite.ts';
export type { DriverConformanceOptions } from './driver-suite.ts';
export type { DriverCase } from './driver/rig.ts';
export { Random } from '../random.ts';
export { ReferenceModel } from './reference-model.ts';
export type { ModelPage } from './reference-model.ts';
export { formatCases, formatConformance, staleFormatSkips } from './format-suite.ts';
export type { FormatConformanceOptions } from './format-suite.ts';
export type { FormatCase } from './format/rig.ts';
export type { FormatSuiteCase } from './format/cases.ts';
export { bytesPerCall } from './garbage.ts';
export { pagesWith, withPages } from './with-pages.ts';
