/** Recordings: what Linux's own driver did and what DMA had to do, and what QEMU answered. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { parseKnownDeviations, parseVectors, playVectors } from '@iommu-ts/conformance';
import { describe, expect, test } from 'vitest';
import { harness } from '../src/harness.ts';

const folder = new URL('../../conformance/fixtures/vectors/', import.meta.url);
const deviations = new URL('../known-deviations.json', import.meta.url);
const knownDeviations = parseKnownDeviations(readFileSync(deviations).toString(), 'known-deviations.json');

/** Scenarios that need what is not built yet, and why. */
const FILES: readonly { readonly file: string; readonly notYet: readonly string[] }[] = [
  { file: 'linux-drivers/riscv-iommu-linux-7.2.jsonl.gz', notYet: [] },
  { file: 'qemu/riscv-iommu-s1-1.jsonl.gz', notYet: [] },
  { file: 'qemu/riscv-iommu-g-1.jsonl.gz', notYet: [] },
  { file: 'qemu/riscv-iommu-nested-1.jsonl.gz', notYet: [] },
  // Memory-resident interrupt files: the store has to be carried out by the IOMMU.
  { file: 'qemu/riscv-iommu-dir-1.jsonl.gz', notYet: ['MSI page table, MRIF mode'] },
];

describe.each(FILES)('$file', ({ file, notYet }) => {
  const vectors = parseVectors(gunzipSync(readFileSync(new URL(file, folder))).toString(), file);
  test.each(['none', 'sized', 'unbounded'] as const)('IOTLB %s', (mode) => {
    const report = playVectors(vectors, harness, { file, iotlb: { mode }, knownDeviations });
    const failed = report.scenarios.filter((s) => !s.ok);
    expect(
      failed.map((s) => s.name),
      JSON.stringify(failed[0]?.mismatch ?? failed[0]?.reason),
    ).toEqual(notYet);
    expect(report.passed).toBe(vectors.scenarios.length - notYet.length);
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
