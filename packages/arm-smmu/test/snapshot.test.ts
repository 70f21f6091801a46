/** Dumps of running Linux guests: the tables that `inspect` finds hold exactly the mappings that the kernel had made. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { playSnapshot, readSnapshot } from '@iommu-ts/conformance';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { harness } from '../src/harness.ts';

const read = (name: string) => {
  const file = (path: string): Buffer =>
    readFileSync(new URL(`../../conformance/fixtures/guests/${name}/${path}`, import.meta.url));
  return readSnapshot({
    name,
    manifest: file('manifest.json').toString(),
    mappings: gunzipSync(file('mappings.json.gz')).toString(),
    core: gunzipSync(file('tables.core.gz')),
  });
};

describe.each([
  { name: 'linux-6.12-arm-smmu-v3', table: 'TTB0', domains: 7 },
  { name: 'linux-7.3-arm-smmu-v3-stage2', table: 'S2TTB', domains: 12 },
])('$name', ({ name, table, domains }) => {
  const snapshot = read(name);
  const register = (key: string): bigint | undefined => snapshot.registers.get(key);

  test('every device', () => {
    const results = playSnapshot(snapshot, harness);
    expect(results.filter((r) => !r.ok)).toEqual([]);
    expect(results.length).toBe(snapshot.devices.length);
    expect(results.filter((r) => r.kind === 'paging').length).toBeGreaterThanOrEqual(domains);
    expect(results.reduce((sum, r) => sum + r.leaves, 0)).toBeGreaterThan(100);
  });

  test('tables and ids as the structures have them', () => {
    const ids = new Set<number>();
    for (const device of snapshot.devices.filter((d) => d.domain !== null)) {
      const config = harness.inspect(snapshot.memory, register, device.rid);
      expect(config.tables?.map((t) => t.name)).toEqual([table]);
      ids.add(config.domainId!);
    }
    expect(ids.size).toBe(domains);
  });

  test('a stream beyond the table, translation off', () => {
    expect(harness.inspect(snapshot.memory, register, 0x1_0000)).toMatchObject({ kind: 'invalid' });
    const off = (abort: bigint) => (key: string) =>
      key === 'CR0' ? 0n : key === 'GBPA' ? abort << 20n : register(key);
    expect(harness.inspect(snapshot.memory, off(0n), 0x10).kind).toBe('identity');
    expect(harness.inspect(snapshot.memory, off(1n), 0x10).kind).toBe('blocked');
  });
});

test('garbage registers and an empty memory are told, not thrown', () => {
  const memory = new PhysicalMemory([{ base: 0x8000_0000n, size: 0x10_0000n }]);
  expect(harness.inspect(memory, () => undefined, 0x18).kind).toBe('identity');
  for (const base of [0n, 0x8000_0000n, 0xffff_ffff_ffff_ffffn]) {
    for (const cfg of [0n, 0x10210n, 0x3_ffffn, 0xffff_ffffn]) {
      const register = (key: string): bigint => (key === 'STRTAB_BASE' ? base : key === 'STRTAB_BASE_CFG' ? cfg : 1n);
      const config = harness.inspect(memory, register, 0x18);
      expect(config.kind).toBe('invalid');
      expect(config.reason).not.toBe('');
    }
  }
});
