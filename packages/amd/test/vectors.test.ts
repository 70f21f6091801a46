/** Recordings: Linux's own driver, and QEMU with the specification's values where it differs. */
import { readFileSync, readdirSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { parseVectors, playVectors } from '@iommu-ts/conformance';
import { describe, expect, it, test } from 'vitest';
import { harness } from '../src/harness.ts';

const FIXTURES = new URL('../../conformance/fixtures/vectors/', import.meta.url);
const files = ['linux-drivers', 'qemu'].flatMap((folder) =>
  readdirSync(new URL(`${folder}/`, FIXTURES))
    .filter((name) => name.startsWith('amd-vi-'))
    .map((name) => `${folder}/${name}`),
);

it('there are a recording and a QEMU file', () => expect(files.length).toBeGreaterThanOrEqual(2));

describe.each(files)('%s', (name) => {
  const file = parseVectors(gunzipSync(readFileSync(new URL(name, FIXTURES))).toString(), name);
  test.each(['none', 'sized', 'unbounded'] as const)('with IOTLB %s', (mode) => {
    const report = playVectors(file, harness, { iotlb: { mode } });
    expect(report.scenarios.filter((s) => !s.ok)).toEqual([]);
    expect(report.passed).toBe(file.scenarios.length);
    const compared = report.scenarios.reduce((sum, s) => sum + s.compared, 0);
    expect(compared).toBeGreaterThan(file.recording ? 2900 : 900);
  });
});
