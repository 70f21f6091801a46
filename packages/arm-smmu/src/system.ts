/** A whole SMMUv3 in one call: memory, device, driver, bus. */
import { maskLo } from '@iommu-ts/bits';
import { createMachine } from '@iommu-ts/iommu-core';
import type { IommuSystem, SystemOptions } from '@iommu-ts/iommu-core';
import { ArmSmmuDriver } from './driver/driver.ts';
import type { SmmuIds } from './hardware/capabilities.ts';
import { IDR0 } from './registers.ts';
import { SmmuV3 } from './hardware/unit.ts';
import { presetIds } from './presets.ts';
import type { PresetName } from './presets.ts';

/** Options of {@link createArmSmmuIommu}. */
export interface ArmSmmuSystemOptions extends SystemOptions {
  /** Which SMMU it is (default `'full'`). */
  readonly preset?: PresetName;
  /** Identification registers of an SMMU that no preset has; go before `preset`. */
  readonly ids?: SmmuIds;
  /** Stage that paging domains translate with; default 1 where there is one. */
  readonly stage?: 1 | 2;
  /** log2 of the translation granule; default the smallest offered. */
  readonly granuleLg2?: 12 | 14 | 16;
}

/** An SMMUv3 and its driver, with concrete types. */
export interface ArmSmmuSystem extends IommuSystem {
  readonly hardware: SmmuV3;
  readonly driver: ArmSmmuDriver;
}

/**
 * An SMMUv3, reset and probed by its driver, with a bus in front of it.
 * @throws IommuError `EINVAL` for an unknown preset, `ENODEV` when the preset lacks the stage or granule, `ENOMEM`.
 */
export const createArmSmmuIommu = (options: ArmSmmuSystemOptions = {}): ArmSmmuSystem => {
  const machine = createMachine(options, 'dma-api');
  const { memory, pages, clock } = machine;
  const ids = options.ids ?? presetIds(options.preset ?? 'full');
  const hardware = new SmmuV3(machine.deviceMemory, {
    ids: options.incoherentWalker === true ? { ...ids, IDR0: ids.IDR0 & ~maskLo(IDR0.COHACC) } : ids,
    ...(options.iotlb === undefined ? {} : { iotlb: options.iotlb }),
  });
  const driver = new ArmSmmuDriver({
    mmio: machine.port(hardware.mmio),
    memory,
    pages,
    clock,
    ...(options.mode === undefined ? {} : { mode: options.mode }),
    ...(options.stage === undefined ? {} : { stage: options.stage }),
    ...(options.granuleLg2 === undefined ? {} : { granuleLg2: options.granuleLg2 }),
  });
  return machine.system(hardware, driver);
};
