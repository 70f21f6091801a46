/** Runs a case with all checks on, over the adversarial device: nothing may be found but what the case says it does. */
import type { CheckKind, DriverHarness, IommuSystem } from '@iommu-ts/iommu-core';
import { expect } from 'vitest';
import type { DriverCase } from './rig.ts';

/** The harness with checks and the IOTLB mode `'retain'` in every system, and the systems that it made. */
const underChecks = (harness: DriverHarness, own: boolean): { harness: DriverHarness; systems: IommuSystem[] } => {
  const systems: IommuSystem[] = [];
  return {
    systems,
    harness: {
      ...harness,
      createSystem: (options = {}) => {
        const iotlb = own && options.iotlb !== undefined ? options.iotlb : { mode: 'retain' as const };
        const system = harness.createSystem({ ...options, checks: true, iotlb });
        systems.push(system);
        return system;
      },
    },
  };
};

/** Runs `one` under checks; fails for a report of a kind that the case does not declare, and for a declared one that is missing. */
export const runChecked = (given: DriverHarness, one: DriverCase): void => {
  const { harness, systems } = underChecks(given, one.ownIotlb !== undefined);
  one.run(harness);
  const declared = one.reports?.(harness) ?? [];
  const found = new Set<CheckKind>();
  for (const { checks } of systems) {
    for (const report of checks!.reports) {
      found.add(report.kind);
      if (!declared.includes(report.kind)) expect(report, `${one.name} under checks`).toBeNull();
    }
  }
  expect(
    [...found].toSorted(),
    `${one.name}: kinds that the checks have found, and those that the case declares`,
  ).toEqual([...declared].toSorted());
};
