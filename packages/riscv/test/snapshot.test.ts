/** A dump of a running Linux guest: the tables that `inspect` finds hold exactly the mappings that the kernel had made. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { playSnapshot, readSnapshot } from '@iommu-ts/conformance';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { harness } from '../src/harness.ts';

const name = 'linux-7.2-riscv-iommu';
const file = (path: string): Buffer =>
  readFileSync(new URL(`../../conformance/fixtures/guests/${name}/${path}`, import.meta.url));

describe(name, () => {
  const snapshot = readSnapshot({
    name,
    manifest: file('manifest.json').toString(),
    mappings: gunzipSync(file('mappings.json.gz')).toString(),
    core: gunzipSync(file('tables.core.gz')),
  });
  const register = (key: string): bigint | undefined => snapshot.registers.get(key);

  test('every device', () => {
    const results = playSnapshot(snapshot, harness);
    expect(results.filter((r) => !r.ok)).toEqual([]);
    expect(results.length).toBe(snapshot.devices.length);
    expect(results.filter((r) => r.kind === 'paging').length).toBe(10);
    // 1178 leaves in 8 domains; two of them have two devices each.
    expect(results.reduce((sum, r) => sum + r.leaves, 0)).toBeGreaterThan(1178);
  });

  test('a requester that is not there', () => {
    const config = harness.inspect(snapshot.memory, register, 0xabcd);
    expect(config.kind).toBe('invalid');
    expect(config.reason).toMatch(/cause 258/);
  });

  test('translation off, bare and reserved modes', () => {
    for (const [mode, kind] of [
      [0n, 'blocked'],
      [1n, 'identity'],
      [9n, 'invalid'],
    ] as const) {
      const ddtp = (register('ddtp')! & ~0xfn) | mode;
      const config = harness.inspect(snapshot.memory, (key) => (key === 'ddtp' ? ddtp : register(key)), 0x10);
      expect(config.kind).toBe(kind);
    }
  });
});

test('garbage registers and an empty memory are told, not thrown', () => {
  const memory = new PhysicalMemory([{ base: 0x8000_0000n, size: 0x10_0000n }]);
  expect(harness.inspect(memory, () => undefined, 0x18).kind).toBe('invalid');
  for (const value of [2n, 0x2000_0004n, 0x3f_ffff_ffff_fc03n, 0xffff_ffff_ffff_ffffn]) {
    const config = harness.inspect(memory, (key) => (key === 'ddtp' ? value : 0x38_0000_0e10n), 0x18);
    expect(config.kind).toBe('invalid');
    expect(config.reason).not.toBe('');
  }
  // What this package cannot read is said as well.
  const bigEndian = harness.inspect(memory, (key) => (key === 'ddtp' ? 0x2000_0004n : 0x38_0800_0e10n), 0x18);
  expect(bigEndian.reason).toMatch(/big-endian/);
});
