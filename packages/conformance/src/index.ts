/**
 * `@iommu-ts/conformance`: players of recorded vectors, golden tables and guest snapshots. They know no vendor: a driver's
 * harness is handed in. The suites for vitest are in `@iommu-ts/conformance/suite`.
 * @packageDocumentation
 */
export { FieldReader, formatError, hexOfBytes, parseBytes, parseJsonLines, parseU64 } from './json-lines.ts';
export type { RecordedObject } from './json-lines.ts';
export { parseKnownDeviations } from './known-deviations.ts';
export type { KnownDeviation } from './known-deviations.ts';
export { boundedMemory, endlessMemory } from './recorded-memory.ts';
export type { RamStretch } from './recorded-memory.ts';
export { VECTORS_FORMAT, parseVectors, playVectors } from './vectors.ts';
export type {
  Mismatch,
  PlayVectorsOptions,
  ScenarioResult,
  VectorFile,
  VectorReport,
  VectorScenario,
} from './vectors.ts';
export { readCore } from './elf-core.ts';
export { Random } from './random.ts';
export { SNAPSHOT_FORMAT, playSnapshot, readSnapshot } from './snapshot.ts';
export type { Snapshot, SnapshotDevice, SnapshotDeviceResult, SnapshotMapping, SnapshotParts } from './snapshot.ts';
export { GOLDEN_FORMAT, playGolden, readGolden } from './golden.ts';
export type { GoldenFile, GoldenMismatch, GoldenResult } from './golden.ts';
