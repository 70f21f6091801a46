/** Recordings: what Linux's own driver did to a unit and what DMA had to do, and what QEMU answered. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { parseVectors, playVectors } from '@iommu-ts/conformance';
import { describe, expect, test } from 'vitest';
import { harness } from '../src/harness.ts';

const folder = new URL('../../conformance/fixtures/vectors/', import.meta.url);
const load = (file: string): ReturnType<typeof parseVectors> =>
  parseVectors(gunzipSync(readFileSync(new URL(file, folder))).toString(), file);

const FILES = [
  'linux-drivers/intel-vtd-legacy-linux-7.2.jsonl.gz',
  'qemu/intel-vtd-legacy-1.jsonl.gz',
  'qemu/intel-vtd-scalable-fs-1.jsonl.gz',
  'qemu/intel-vtd-scalable-ss-1.jsonl.gz',
];

describe.each(FILES)('%s', (file) => {
  const vectors = load(file);
  test.each(['none', 'sized', 'unbounded'] as const)('IOTLB %s', (mode) => {
    const report = playVectors(vectors, harness, { file, iotlb: { mode } });
    const failed = report.scenarios.filter((s) => !s.ok).map((s) => [s.name, s.mismatch ?? s.reason]);
    expect(failed).toEqual([]);
    expect(report.passed).toBe(vectors.scenarios.length);
    expect(report.scenarios.reduce((sum, s) => sum + s.compared, 0)).toBeGreaterThan(300);
  });
});
