/** Plays one input against the driver it belongs to. */
import path from 'node:path';
import { parseVectors, playGolden, playSnapshot, playVectors, readGolden, readSnapshot } from '@iommu-ts/conformance';
import type { KnownDeviation, Mismatch, ScenarioResult } from '@iommu-ts/conformance';
import type { DriverHarness, IotlbMode } from '@iommu-ts/iommu-core';
import type { GoldenClaim } from '../goldens.ts';
import { findIn, inputError, readBytes, readText } from '../input.ts';
import type { VerifyInput } from './inputs.ts';

/** One case: a scenario, a golden file, or a snapshot's device. */
interface CaseResult {
  readonly name: string;
  readonly ok: boolean;
  /** Operations after the first mark: not played. */
  readonly skipped: number;
  /** What was wrong, in words. */
  readonly why?: string;
  /** Where a known deviation stands in for the recorded answer. */
  readonly deviation?: string;
}

export interface FileResult {
  readonly file: string;
  readonly kind: VerifyInput['kind'];
  /** The driver that the file belongs to; null when there is none yet. */
  readonly driver: string | null;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly cases: readonly CaseResult[];
}

export interface PlayContext {
  readonly harnesses: readonly DriverHarness[];
  readonly claims: Readonly<Record<string, GoldenClaim>>;
  readonly deviations: readonly KnownDeviation[];
}

/** Recordings of drivers must come out the same whatever is cached. */
const RECORDING_MODES: readonly IotlbMode[] = ['none', 'sized', 'unbounded'];

const summed = (
  file: string,
  kind: VerifyInput['kind'],
  driver: string | null,
  cases: readonly CaseResult[],
): FileResult => ({
  file,
  kind,
  driver,
  passed: cases.filter((c) => c.ok).length,
  failed: cases.filter((c) => !c.ok).length,
  skipped: cases.reduce((sum, c) => sum + c.skipped, 0),
  cases,
});

/** Plays `input`; null when it belongs to a driver that was not asked for. @throws IommuError `EFORMAT` for a damaged file. */
export const playInput = (
  input: VerifyInput,
  context: PlayContext,
  all: readonly DriverHarness[],
): FileResult | null => {
  try {
    switch (input.kind) {
      case 'golden':
        return golden(input.file, input.json, context, all);
      case 'vectors':
        return vectors(input.file, input.text, context, all);
      case 'snapshot':
        return snapshot(input.folder, context, all);
    }
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (code === 'EFORMAT') throw error;
    // The player or the driver gave up: that is a failure of ours, not of the file.
    const failed: CaseResult = { name: 'the file', ok: false, skipped: 0, why: `threw: ${message}` };
    return summed(input.file, input.kind, null, [failed]);
  }
};

const golden = (
  file: string,
  json: unknown,
  { harnesses, claims }: PlayContext,
  all: readonly DriverHarness[],
): FileResult | null => {
  const header = readGolden(json, file);
  const owner = all.find((h) => claims[h.name]?.(header) != null);
  if (owner !== undefined && !harnesses.includes(owner)) return null;
  const result = playGolden(json, (h) => (owner === undefined ? null : claims[owner.name]!(h)), file);
  const { name } = result;
  if (result.ok) return summed(file, 'golden', owner?.name ?? null, [{ name, ok: true, skipped: 0 }]);
  const first = result.mismatches[0];
  const why =
    first === undefined
      ? (result.reason ?? 'failed')
      : `${first.where}: expected ${first.expected}, found ${first.got}`;
  return summed(file, 'golden', owner?.name ?? null, [{ name, ok: false, skipped: 0, why }]);
};

const mismatchText = (m: Mismatch): string => `line ${m.line}: ${m.op}: expected ${m.expected}, found ${m.got}`;

const scenarioCase = (s: ScenarioResult, mode: string): CaseResult => ({
  name: s.name,
  ok: s.ok,
  skipped: s.skippedOps,
  ...(s.ok ? {} : { why: `${s.mismatch === undefined ? (s.reason ?? 'failed') : mismatchText(s.mismatch)}${mode}` }),
  ...(s.deviation === undefined ? {} : { deviation: `${s.deviation.clause}: ${s.deviation.why}` }),
});

const vectors = (
  file: string,
  text: string,
  { harnesses, deviations }: PlayContext,
  all: readonly DriverHarness[],
): FileResult | null => {
  const parsed = parseVectors(text, file);
  const owner = all.find((h) => h.vectorName === parsed.iommu);
  if (owner === undefined) {
    const why = `no driver plays "${parsed.iommu}" yet`;
    return summed(
      file,
      'vectors',
      null,
      parsed.scenarios.map((s) => ({ name: s.name, ok: false, skipped: 0, why })),
    );
  }
  if (!harnesses.includes(owner)) return null;
  const options = { file, knownDeviations: deviations };
  if (!parsed.recording) {
    const report = playVectors(parsed, owner, options);
    return summed(
      file,
      'vectors',
      owner.name,
      report.scenarios.map((s) => scenarioCase(s, '')),
    );
  }
  const reports = RECORDING_MODES.map((mode) => playVectors(parsed, owner, { ...options, iotlb: { mode } }));
  const cases = reports[0]!.scenarios.map((_, i): CaseResult => {
    const bad = reports.findIndex((r) => !r.scenarios[i]!.ok);
    const at = Math.max(0, bad);
    return scenarioCase(reports[at]!.scenarios[i]!, ` (IOTLB ${RECORDING_MODES[at]})`);
  });
  return summed(file, 'vectors', owner.name, cases);
};

const snapshot = (folder: string, { harnesses }: PlayContext, all: readonly DriverHarness[]): FileResult | null => {
  const part = (...names: string[]): string => {
    const found = findIn(folder, ...names);
    if (found === null) throw inputError(`${folder}: expected ${names[0]} or ${names[0]}.gz in the snapshot folder`);
    return found;
  };
  const read = readSnapshot({
    name: folder,
    manifest: readText(part('manifest.json')),
    mappings: readText(part('mappings.json')),
    core: readBytes(part('tables.core')),
  });
  const owner = all.find((h) => h.vectorName === read.iommu);
  if (owner === undefined) {
    const why = `no driver reads a snapshot of "${read.iommu}" yet`;
    return summed(
      folder,
      'snapshot',
      null,
      read.devices.map((d) => ({ name: d.name, ok: false, skipped: 0, why })),
    );
  }
  if (!harnesses.includes(owner)) return null;
  const cases = playSnapshot(read, owner).map((d): CaseResult => ({
    name: d.device,
    ok: d.ok,
    skipped: 0,
    ...(d.ok ? {} : { why: d.difference ?? 'failed' }),
  }));
  return summed(folder, 'snapshot', owner.name, cases);
};

/** A file's one line. */
export const fileLine = (result: FileResult): string => {
  const { file, passed, failed, skipped } = result;
  const counts = [`${passed} passed`, `${failed} failed`, ...(skipped > 0 ? [`${skipped} operations skipped`] : [])];
  const known = result.cases.filter((c) => c.deviation !== undefined).length;
  if (known > 0) counts.push(`${known} known to deviate`);
  const first = result.cases.find((c) => !c.ok);
  const why = first === undefined ? '' : `; first: ${first.name}: ${first.why}`;
  return `${failed === 0 ? 'ok  ' : 'FAIL'} ${path.normalize(file)} (${result.driver ?? 'no driver'}): ${counts.join(', ')}${why}`;
};
