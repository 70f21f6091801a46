/** Dumps of running Linux guests: the tables that `inspect` finds hold exactly the mappings that the kernel had made. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { playSnapshot, readSnapshot } from '@iommu-ts/conformance';
import { describe, expect, test } from 'vitest';
import { harness } from '../src/harness.ts';

const guests = new URL('../../conformance/fixtures/guests/', import.meta.url);
const load = (name: string): ReturnType<typeof readSnapshot> => {
  const file = (path: string): Buffer => readFileSync(new URL(`${name}/${path}`, guests));
  return readSnapshot({
    name,
    manifest: file('manifest.json').toString(),
    mappings: gunzipSync(file('mappings.json.gz')).toString(),
    core: gunzipSync(file('tables.core.gz')),
  });
};

describe.each(['linux-6.12-intel-vtd-legacy', 'linux-6.12-intel-vtd-scalable'])('%s', (name) => {
  const snapshot = load(name);

  test('every device', () => {
    const results = playSnapshot(snapshot, harness);
    expect(results.filter((r) => !r.ok)).toEqual([]);
    expect(results.length).toBe(11);
    expect(results.reduce((sum, r) => sum + r.leaves, 0)).toBeGreaterThan(5000);
  });

  test('a requester that is not there', () => {
    const config = harness.inspect(snapshot.memory, (register) => snapshot.registers.get(register), 0xabcd);
    expect(config.kind).toBe('invalid');
    expect(config.reason).toMatch(/not present/);
  });
});

test('garbage registers and an empty memory are told, not thrown', () => {
  const { memory } = load('linux-6.12-intel-vtd-legacy');
  expect(harness.inspect(memory, () => undefined, 0x18).kind).toBe('invalid');
  for (const value of [0n, 0xffff_ffff_ffff_f000n, 0xffff_ffff_ffff_ffffn, 0x1_0000_0000_0400n]) {
    const config = harness.inspect(memory, (name) => (name === 'RTADDR' ? value : undefined), 0x18);
    expect(config.kind).toBe('invalid');
  }
});
