/** Recordings of Linux's own driver on a t8103, played against the bare device. */
import { readFileSync, readdirSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { playVectors } from '@iommu-ts/conformance';
import { describe, expect, it } from 'vitest';
import { harness } from '../src/harness.ts';

const folder = new URL('../../conformance/fixtures/vectors/linux-drivers/', import.meta.url);
const files = readdirSync(folder).filter((name) => name.startsWith('apple-dart-') && name.endsWith('.gz'));

it('there is a recording', () => expect(files.length).toBeGreaterThan(0));

describe.each(files)('%s', (file) => {
  const text = gunzipSync(readFileSync(new URL(file, folder))).toString();
  it.each(['none', 'sized', 'unbounded'] as const)('IOTLB %s', (mode) => {
    const report = playVectors(text, harness, { file, iotlb: { mode } });
    expect(report.scenarios.filter((s) => !s.ok)).toEqual([]);
    expect(report.passed).toBeGreaterThan(0);
    expect(report.scenarios.reduce((sum, s) => sum + s.compared, 0)).toBeGreaterThan(3000);
  });
});
