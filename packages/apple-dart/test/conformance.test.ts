/** The suite that every driver passes, on the t8103 and on the parts that differ most from it. */
import { driverConformance } from '@iommu-ts/conformance/suite';
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

/** The same on the adversarial device, unless a case asks for one that keeps nothing. */
const adversarial = (plain: DriverHarness): DriverHarness => ({
  ...plain,
  createSystem: (options = {}) =>
    plain.createSystem({ ...options, iotlb: options.iotlb?.mode === 'none' ? options.iotlb : { mode: 'retain' } }),
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
describe('a device that keeps all it may and hurries nothing', () => driverConformance(adversarial(harness)));
describe('the same with t8110 registers, four levels', () =>
  driverConformance(adversarial(withPreset('t6020', t8110Codes))));
