/** A case under checks: reports that it does not declare fail it, and so do declared ones that are not made. */
import type { CheckKind, DriverHarness, IommuSystem, SystemOptions } from '@iommu-ts/iommu-core';
import { expect, test } from 'vitest';
import { runChecked } from '../src/suite/driver/checked.ts';
import { toy } from './toy.ts';

const making = (...kinds: CheckKind[]): { harness: DriverHarness; options: SystemOptions[] } => {
  const options: SystemOptions[] = [];
  return {
    options,
    harness: {
      ...toy,
      createSystem: (given = {}) => {
        options.push(given);
        return { checks: { reports: kinds.map((kind) => ({ kind, what: '', hint: '' })) } } as unknown as IommuSystem;
      },
    },
  };
};

const run = (harness: DriverHarness): void => void harness.createSystem({ iotlb: { mode: 'sized' }, mode: 'lazy' });

test('every system has checks and the adversarial IOTLB; other options stay', () => {
  const { harness, options } = making();
  runChecked(harness, { name: 'a', run });
  runChecked(harness, { name: 'b', run, ownIotlb: 'because' });
  expect(options).toEqual([
    { checks: true, iotlb: { mode: 'retain' }, mode: 'lazy' },
    { checks: true, iotlb: { mode: 'sized' }, mode: 'lazy' },
  ]);
});

test('reports and declarations have to agree', () => {
  const reports = (): CheckKind[] => ['misuse'];
  expect(() => runChecked(making('misuse').harness, { name: 'a', run })).toThrow(/under checks/);
  expect(() => runChecked(making('leak').harness, { name: 'a', run, reports })).toThrow(/under checks/);
  expect(() => runChecked(making().harness, { name: 'a', run, reports })).toThrow(/kinds that the checks have found/);
  runChecked(making('misuse', 'misuse').harness, { name: 'a', run, reports });
});
