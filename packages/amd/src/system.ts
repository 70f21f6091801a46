/** One call that makes a whole AMD IOMMU: memory, hardware, driver, bus. */
import { IommuError } from '@iommu-ts/bits';
import { createMachine } from '@iommu-ts/iommu-core';
import type { IommuSystem, SystemOptions } from '@iommu-ts/iommu-core';
import { AmdDriver } from './driver/driver.ts';
import type { AmdDriverOptions } from './driver/driver.ts';
import { AMD_PRESETS, AmdIommu } from './hardware/unit.ts';
import type { AmdPreset } from './hardware/unit.ts';

/** Options of {@link createAmdIommu}. */
export interface CreateAmdIommuOptions extends SystemOptions, Pick<AmdDriverOptions, 'lastDeviceId' | 'lastDomainId'> {
  /** A name in {@link AMD_PRESETS}, or feature registers of your own; default `'default'`. */
  readonly preset?: keyof typeof AMD_PRESETS | AmdPreset;
}

/** A system whose parts are of this package's classes. */
export interface AmdSystem extends IommuSystem {
  readonly hardware: AmdIommu;
  readonly driver: AmdDriver;
}

/**
 * An AMD IOMMU ready to use: hardware reset and enabled by its driver, a bus in front of it, 64 GiB of sparse RAM when no
 * memory is given.
 * @throws IommuError `EOPNOTSUPP` for a preset with unsupported features and for `incoherentWalker` (every unit snoops, as
 *   Control.Coherent asks for), `ENOMEM` when the tables do not fit.
 */
export const createAmdIommu = (options: CreateAmdIommuOptions = {}): AmdSystem => {
  if (options.incoherentWalker === true) {
    throw new IommuError('EOPNOTSUPP', 'incoherentWalker: the walks of an AMD IOMMU snoop (Control.Coherent)');
  }
  const machine = createMachine(options);
  const { memory, pages, clock } = machine;
  const { preset = 'default', iotlb, mode, lastDeviceId, lastDomainId } = options;
  const hardware = new AmdIommu(machine.deviceMemory, {
    ...(typeof preset === 'string' ? AMD_PRESETS[preset] : preset),
    ...(iotlb === undefined ? {} : { iotlb }),
  });
  const driver = new AmdDriver({
    memory,
    pages,
    clock,
    mmio: machine.port(hardware.mmio),
    ...(mode === undefined ? {} : { mode }),
    ...(lastDeviceId === undefined ? {} : { lastDeviceId }),
    ...(lastDomainId === undefined ? {} : { lastDomainId }),
  });
  return machine.system(hardware, driver);
};
