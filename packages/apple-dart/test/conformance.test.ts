/** The suite that every driver passes, on the t8103 and on the parts that differ most from it. */
import { LONG_CASES, driverConformance } from '@iommu-ts/conformance/suite';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { describe } from 'vitest';
import { harness } from '../src/harness.ts';
import type { DartPreset } from '../src/parts.ts';
import { createAppleDart } from '../src/system.ts';

const withPreset = (preset: DartPreset, faultCodes: DriverHarness['faultCodes']): DriverHarness => ({
  ...harness,
  faultCodes,
  createSystem: (options) => createAppleDart({ ...options, preset }),
});

driverConformance(harness);

describe('four TTBRs of 4 KiB pages', () => driverConformance(withPreset('t8103-4k', harness.faultCodes)));

/** Codes of the t8110's error register. */
const t8110Codes: DriverHarness['faultCodes'] = {
  notConfigured: [1],
  notPresent: [2, 4, 8],
  permission: [16, 32],
  addressWidth: [1],
  reservedBit: [],
};

describe('version 2 entries, 42 address bits', () => driverConformance(withPreset('t6000', harness.faultCodes)));
describe('t8110 registers, three levels', () => driverConformance(withPreset('t8110', t8110Codes)));
describe('t8110 registers, four levels', () => driverConformance(withPreset('t6020', t8110Codes)));
describe('a device that keeps all it may and hurries nothing', () => {
  driverConformance(harness, { checks: true });
  describe('four TTBRs of 4 KiB pages', () =>
    driverConformance(withPreset('t8103-4k', harness.faultCodes), { checks: true, omit: LONG_CASES }));
  describe('t8110 registers, four levels', () =>
    driverConformance(withPreset('t6020', t8110Codes), { checks: true, omit: LONG_CASES }));
});
