/** The suite that every driver passes, on units with tables of three, four and five levels and other ways to invalidate. */
import { LONG_CASES, driverConformance } from '@iommu-ts/conformance/suite';
import type { DriverHarness, SystemOptions } from '@iommu-ts/iommu-core';
import { describe } from 'vitest';
import { harness } from '../src/harness.ts';
import { VTD_PRESETS, createVtdIommu } from '../src/index.ts';
import type { VtdPreset } from '../src/index.ts';

const variant = (preset: VtdPreset, more: SystemOptions = {}): DriverHarness => ({
  ...harness,
  createSystem: (options) => createVtdIommu({ ...options, ...more, preset }),
});

/** With CAP.ND (2:0) less than 6, 65536 domains, the case that uses them all up is short: 2 is 256, 4 is 4096. */
const fewDomains = (name: keyof typeof VTD_PRESETS, nd = 2n): VtdPreset => {
  const preset = VTD_PRESETS[name];
  return { ...preset, cap: (preset.cap & ~7n) | nd };
};

driverConformance(variant(fewDomains('server', 4n)));
describe('client: 39 bits, no pages of 1 GiB', () => driverConformance(variant(fewDomains('client'))));
describe('57 bits', () => driverConformance(variant(fewDomains('server-57'))));
describe('caching mode', () => driverConformance(variant(fewDomains('virtual'))));
// ECAP.QI (bit 1) clear.
describe('registers in place of the queue', () =>
  driverConformance(variant({ ...fewDomains('server'), ecap: 0xf41n })));

describe('a device that keeps everything and hurries nothing', () => {
  const checks = { checks: true, omit: LONG_CASES };
  driverConformance(variant(fewDomains('server')), { checks: true });
  describe('caching mode', () => driverConformance(variant(fewDomains('virtual')), checks));
  describe('registers in place of the queue', () =>
    driverConformance(variant({ ...fewDomains('client'), ecap: 0xf41n }), checks));
  describe('a walker that does not snoop', () =>
    driverConformance(variant(fewDomains('client'), { incoherentWalker: true }), checks));
});
