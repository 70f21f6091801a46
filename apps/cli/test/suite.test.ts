/** The driver suite must be able to fail: drivers and units that are broken on purpose, and the cases that see it. */
import { driverCases } from '@iommu-ts/conformance/suite';
import { Bus, TRANSLATE_OK } from '@iommu-ts/iommu-core';
import type { DriverHarness, IommuSystem } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { harnesses } from '../src/harnesses.ts';

const broken = (harness: DriverHarness, harm: (system: IommuSystem) => IommuSystem): DriverHarness => ({
  ...harness,
  createSystem: (options) => harm(harness.createSystem(options)),
});

const fails = (name: string, harness: DriverHarness): void => {
  const found = driverCases.find((c) => c.name === name);
  expect(found, name).toBeDefined();
  expect(() => found!.run(harness), name).toThrow();
};

/** Invalidations that do nothing. */
const forgetful = (system: IommuSystem): IommuSystem => {
  for (const method of ['invalidateAll', 'invalidateTag', 'invalidateRange', 'invalidateWhere'] as const) {
    (system.hardware.iotlb as unknown as Record<string, () => number>)[method] = () => 0;
  }
  return system;
};

/** A unit that lets everything through that it should refuse. */
const generous = (system: IommuSystem): IommuSystem => {
  const { hardware, memory } = system;
  return {
    ...system,
    bus: new Bus(memory, {
      get outHi() {
        return hardware.outHi;
      },
      get outLo() {
        return hardware.outLo;
      },
      translate: (...args) => (hardware.translate(...args), TRANSLATE_OK),
    }),
  };
};

/** A fault handler that finds nothing. */
const deaf = (system: IommuSystem): IommuSystem => {
  system.driver.handleFaults = () => [];
  return system;
};

describe.each(harnesses.map((h) => [h.name, h] as const))('%s', (_name, harness) => {
  test.each(['iotlb_sync', 'iotlb_gather', 'dma_two_domains', 'id_reuse', 'lazy_mode'])(
    'lost invalidations: %s',
    (name) => {
      fails(name, broken(harness, forgetful));
    },
  );
  test.each(['map_simple', 'dma_permissions', 'domain_blocked', 'domain_detached', 'random_map', 'property_model'])(
    'no refusals: %s',
    (name) => fails(name, broken(harness, generous)),
  );
  test.each(['fault_not_present', 'fault_permission', 'fault_flood'])('lost records: %s', (name) => {
    fails(name, broken(harness, deaf));
  });
});
