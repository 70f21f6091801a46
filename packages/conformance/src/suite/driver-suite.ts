/**
 * The conformance suite of drivers: what every IOMMU must do for an operating system, whatever its registers look like.
 * Cases are named after generic_pt's kunit tests where there is one. Driver, hardware, tables and bus all take part.
 */
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { runChecked } from './driver/checked.ts';
import { dmaCases } from './driver/dma-cases.ts';
import { failureCases } from './driver/failure-cases.ts';
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
  ...failureCases,
  ...propertyCases,
];

export interface DriverConformanceOptions {
  /**
   * Cases that the driver does not pass yet, with the reason. They are run: one that passes, or that does not apply to the
   * unit, or that does not exist fails, so that stale entries can't hide.
   */
  readonly skip?: Readonly<Record<string, string>>;
  /** Cases that another run of the suite makes and this one need not, with the reason. */
  readonly omit?: Readonly<Record<string, string>>;
  /** All checks are on, the device is the adversarial one, and nothing may be reported but what a case declares. */
  readonly checks?: boolean;
}

/** {@link DriverConformanceOptions.omit} for further variants of a unit: long cases that say little about how variants differ. */
export const LONG_CASES: Readonly<Record<string, string>> = {
  random_map: 'long; one variant runs it',
  property_model: 'long; one variant runs it',
  fault_flood: 'long; one variant runs it',
  no_memory: 'long; one variant runs it',
  id_exhaustion: 'long; one variant runs it',
};

/** Skips that name none of `cases`. */
export const staleSkips = (
  cases: readonly { readonly name: string }[],
  skip: Readonly<Record<string, string>>,
): string[] => Object.keys(skip).filter((name) => !cases.some((c) => c.name === name));

/** The cases that apply to the unit: the others make no test. */
const applicableDriverCases = (harness: DriverHarness): DriverCase[] => {
  const rig = new Rig(harness);
  return driverCases.filter(({ needs }) => (needs?.(rig) ?? null) === null);
};

/** Runs a skipped case, which has to fail; returns whether it passed. */
export const passes = (run: () => void): boolean => {
  try {
    run();
    return true;
  } catch {
    return false;
  }
};

/** Declares the suite's tests for one driver; call it at the top of a test file. */
export const driverConformance = (harness: DriverHarness, options: DriverConformanceOptions = {}): void => {
  const skip = options.skip ?? {};
  const checks = options.checks === true;
  describe(`${harness.name}: driver conformance${checks ? ', all checks on' : ''}`, () => {
    const all = applicableDriverCases(harness);
    const omit = options.omit ?? {};
    const cases = all.filter(({ name }) => omit[name] === undefined);
    test('every skip names a case of this unit', () =>
      expect([...staleSkips(cases, skip), ...staleSkips(all, omit)]).toEqual([]));
    for (const one of cases) {
      const { name } = one;
      const run = (): void => (checks ? runChecked(harness, one) : one.run(harness));
      const reason = skip[name];
      test(name, (context) => {
        if (reason === undefined) return run();
        expect(passes(run), `${name} passes: its skip ("${reason}") is stale`).toBe(false);
        context.skip(reason);
      });
    }
  });
};
