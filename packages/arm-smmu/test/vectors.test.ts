/** Recordings: what Linux's own driver did and what DMA had to do, and what QEMU answered. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { parseKnownDeviations, parseVectors, playVectors } from '@iommu-ts/conformance';
import { describe, expect, test } from 'vitest';
import { harness } from '../src/harness.ts';

const folder = new URL('../../conformance/fixtures/vectors/', import.meta.url);
const deviations = new URL('../known-deviations.json', import.meta.url);
const knownDeviations = parseKnownDeviations(readFileSync(deviations).toString(), 'known-deviations.json');

const FILES = [
  'linux-drivers/arm-smmu-v3-linux-7.2.jsonl.gz',
  'qemu/arm-smmu-v3-s1-1.jsonl.gz',
  'qemu/arm-smmu-v3-s2-1.jsonl.gz',
  'qemu/arm-smmu-v3-nested-1.jsonl.gz',
  'qemu/arm-smmu-v3-cfg-1.jsonl.gz',
];

describe.each(FILES)('%s', (file) => {
  const vectors = parseVectors(gunzipSync(readFileSync(new URL(file, folder))).toString(), file);
  test.each(['none', 'sized', 'unbounded', 'retain'] as const)('IOTLB %s', (mode) => {
    const report = playVectors(vectors, harness, { file, iotlb: { mode }, knownDeviations });
    const failed = report.scenarios.filter((s) => !s.ok);
    expect(
      failed.map((s) => s.name),
      JSON.stringify(failed[0]?.mismatch ?? failed[0]?.reason),
    ).toEqual([]);
    expect(report.scenarios.reduce((sum, s) => sum + s.compared, 0)).toBeGreaterThan(500);
  });
});

test('every known deviation is one', () => {
  for (const deviation of knownDeviations) {
    const file = deviation.file.replace('*', '1');
    const text = gunzipSync(readFileSync(new URL(`qemu/${file}`, folder))).toString();
    const options = { file, scenario: deviation.scenario, iotlb: { mode: 'none' } } as const;
    expect(playVectors(text, harness, options).scenarios.map((s) => s.ok)).toEqual([false]);
    const [excused] = playVectors(text, harness, { ...options, knownDeviations: [deviation] }).scenarios;
    expect(excused).toMatchObject({ ok: true, deviation });
  }
});
