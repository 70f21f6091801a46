/**
 * The conformance suite of drivers: what every IOMMU must do for an operating system, whatever its registers look like.
 * Cases are named after generic_pt's kunit tests where there is one. Driver, hardware, tables and bus all take part.
 */
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { dmaCases } from './driver/dma-cases.ts';
import { faultCases } from './driver/fault-cases.ts';
import { invalidationCases } from './driver/invalidation-cases.ts';
import { lifecycleCases } from './driver/lifecycle-cases.ts';
import { mappingCases } from './driver/mapping-cases.ts';
import { propertyCases } from './driver/property-cases.ts';
import { Rig } from './driver/rig.ts';
import type { DriverCase } from './driver/rig.ts';

/** All cases, in the order they run. */
export const driverCases: readonly DriverCase[] = [
  ...mappingCases,
  ...dmaCases,
  ...faultCases,
  ...invalidationCases,
  ...lifecycleCases,
  ...propertyCases,
];

export interface DriverConformanceOptions {
  /** Cases to leave out, with the reason. A name that no case has fails, so that stale entries can't hide. */
  readonly skip?: Readonly<Record<string, string>>;
}

/** Skips that name no case. */
export const staleSkips = (
  cases: readonly { readonly name: string }[],
  skip: Readonly<Record<string, string>>,
): string[] => Object.keys(skip).filter((name) => !cases.some((c) => c.name === name));

/** Declares the suite's tests for one driver; call it at the top of a test file. */
export const driverConformance = (harness: DriverHarness, options: DriverConformanceOptions = {}): void => {
  const skip = options.skip ?? {};
  describe(`${harness.name}: driver conformance`, () => {
    test('every skip names a case', () => {
      expect(staleSkips(driverCases, skip)).toEqual([]);
    });
    for (const { name, needs, run } of driverCases) {
      const reason = skip[name];
      if (reason !== undefined) {
        test.skip(`${name} [${reason}]`, () => run(harness));
        continue;
      }
      test(name, (context) => {
        const lacks = needs?.(new Rig(harness)) ?? null;
        if (lacks !== null) context.skip(lacks);
        run(harness);
      });
    }
  });
};
