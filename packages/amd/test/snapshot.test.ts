/** The dump of a running Linux guest: every device's tables, found through the registers and the device table. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { playSnapshot, readSnapshot } from '@iommu-ts/conformance';
import { describe, expect, test } from 'vitest';
import { harness } from '../src/harness.ts';

const NAME = 'linux-6.12-amd-vi';
const folder = new URL(`../../conformance/fixtures/guests/${NAME}/`, import.meta.url);
const read = (name: string): Buffer => readFileSync(new URL(name, folder));
const snapshot = readSnapshot({
  name: NAME,
  manifest: read('manifest.json').toString(),
  mappings: gunzipSync(read('mappings.json.gz')).toString(),
  core: gunzipSync(read('tables.core.gz')),
});
const inspect = (rid: number) => harness.inspect(snapshot.memory, (name) => snapshot.registers.get(name), rid);

describe(NAME, () => {
  test('all devices map what the kernel asked for', () => {
    const results = playSnapshot(snapshot, harness);
    expect(results.filter((r) => !r.ok)).toEqual([]);
    expect(results.map((r) => r.leaves)).toEqual([0, 302, 1, 48, 6, 176, 12, 24, 24, 24]);
  });

  test('domain ids and roots as the capturing walk saw them', () => {
    const net = inspect(0x10);
    expect(net).toMatchObject({ kind: 'paging', domainId: 2 });
    expect(net.tables?.[0]).toMatchObject({ root: 0x2c4f000n, config: { topLevel: 2 } });
    expect(inspect(0xfa).domainId).toBe(8);
  });

  test('a device that is in no domain is blocked, one beyond the table invalid', () => {
    expect(inspect(0x40)).toMatchObject({ kind: 'blocked' });
    expect(inspect(0x100)).toMatchObject({ kind: 'invalid' });
    expect(inspect(0x1_0000)).toMatchObject({ kind: 'invalid' });
    expect(inspect(-1)).toMatchObject({ kind: 'invalid' });
  });

  test('a dump with other registers never throws', () => {
    const { memory } = snapshot;
    expect(harness.inspect(memory, () => undefined, 0x10).kind).toBe('invalid');
    expect(harness.inspect(memory, () => 0xffff_ffff_ffff_ffffn, 0x10).kind).toBe('invalid');
    expect(harness.inspect(memory, (name) => (name === 'Control' ? 0n : 0x2d5_6001n), 0x10).kind).toBe('identity');
  });
});
