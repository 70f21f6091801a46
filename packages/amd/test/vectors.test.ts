/** Recordings: Linux's own driver, and QEMU with the specification's values where it differs. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { parseVectors, playVectors } from '@iommu-ts/conformance';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { createRecordedHardware, requesterOf } from '../src/recorded.ts';

const harness = {
  name: 'amd',
  vectorName: 'amd-vi',
  createHardware: createRecordedHardware,
  requesterOf,
} as unknown as DriverHarness;
const FIXTURES = new URL('../../conformance/fixtures/vectors/', import.meta.url);
const read = (name: string) => parseVectors(gunzipSync(readFileSync(new URL(name, FIXTURES))).toString(), name);

describe.each(['linux-drivers/amd-vi-linux-7.2.jsonl.gz', 'qemu/amd-vi-v1-1.jsonl.gz'])('%s', (name) => {
  const file = read(name);
  test.each(['none', 'sized', 'unbounded'] as const)('with IOTLB %s', (mode) => {
    const report = playVectors(file, harness, { iotlb: { mode } });
    expect(report.scenarios.filter((s) => !s.ok)).toEqual([]);
    expect(report.passed).toBe(file.scenarios.length);
  });
});
