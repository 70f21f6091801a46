/** `iommu replay --sanitize`: sound drivers are not reported, and a driver that forgets an invalidation is. */
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { harnesses } from '../src/harnesses.ts';
import { folder, iommu, put } from './helpers.ts';

const SMALL = [
  '{"op":"attach","domain":"D0","rid":"0x0003"}',
  '{"op":"map","domain":"D0","iova":"0x40000000","pa":"0x100000","size":"0x8000","iommuProt":3}',
  '{"op":"unmap","domain":"D0","iova":"0x40000000","size":"0x8000"}',
  '{"op":"map","domain":"D0","iova":"0x40000000","pa":"0x200000","size":"0x8000","iommuProt":3}',
].join('\n');

/** A driver that never invalidates after an unmap. */
const forgetful = (harness: DriverHarness): DriverHarness => ({
  ...harness,
  createSystem: (options) => {
    const system = harness.createSystem(options);
    const create = system.driver.createDomain.bind(system.driver);
    system.driver.createDomain = (how) => {
      const domain = create(how);
      domain.ops.iotlbSync = () => {};
      return domain;
    };
    return system;
  },
});

describe('iommu replay --sanitize', () => {
  test.each(['strict', 'lazy'])('all five drivers in %s mode: nothing to report', async (mode) => {
    const dir = folder();
    put(dir, 'small.jsonl', SMALL);
    const args = ['replay', 'small.jsonl', '--check', 'all', '--mode', mode, '--no-timing', '--sanitize'];
    const { status, out, err } = await iommu(args, dir);
    expect({ status, err }).toEqual({ status: 0, err: '' });
    for (const { name } of harnesses)
      expect(out).toMatch(new RegExp(`${name}: \\d+ operations under the checks, 0 report`));
    expect(out).toContain('│ IOTINVAL.VMA');
    expect(out).toMatch(/│ attach\(\) +│ +1 │/);
    expect(out).not.toContain('mistake');
  });

  test('a driver that does not invalidate: the reports are printed, and the exit status is 1', async () => {
    const dir = folder();
    put(dir, 'small.jsonl', SMALL);
    const riscv = forgetful(harnesses.find((h) => h.name === 'riscv')!);
    const args = ['replay', 'small.jsonl', '--check', 'all', '--no-timing', '--sanitize'];
    const { status, out } = await iommu(args, dir, { harnesses: [riscv] });
    expect(status).toBe(1);
    expect(out).toMatch(/stale-translation: the (?:write|read) of device 0x3 at iova 0x4000\d+ went to 0x10/);
    expect(out).toMatch(/ {2}needed: IOTINVAL\.VMA/);
    expect(out).toContain('unmapped by operation 4, ');
    expect(out).toMatch(/the checks found \d+ mistake/);

    const json = await iommu([...args, '--json'], dir, { harnesses: [riscv] });
    const report = JSON.parse(json.out) as { drivers: { sanitizer: { total: number; told: { kind: string }[] } }[] };
    expect(json.status).toBe(1);
    expect(report.drivers[0]!.sanitizer.total).toBeGreaterThan(0);
    expect(report.drivers[0]!.sanitizer.told[0]).toMatchObject({ kind: 'stale-translation', addresses: {} });
  });
});
