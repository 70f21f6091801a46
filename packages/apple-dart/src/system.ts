/** A DART with its driver, memory and bus, ready to use. */
import { IommuError } from '@iommu-ts/bits';
import { createMachine } from '@iommu-ts/iommu-core';
import type { IommuSystem, SystemOptions } from '@iommu-ts/iommu-core';
import { AppleDartDriver } from './driver/driver.ts';
import { AppleDart } from './hardware/unit.ts';
import { resolvePart } from './parts.ts';
import type { DartPartOptions } from './parts.ts';

/** Options of {@link createAppleDart}: the part, and what surrounds it. */
export interface CreateAppleDartOptions extends SystemOptions, DartPartOptions {
  /** Reads of the command register that show BUSY before a flush happens (default 0). */
  readonly busyReads?: number;
}

/** {@link createAppleDart}'s result, with this package's own types. */
export interface AppleDartSystem extends IommuSystem {
  readonly hardware: AppleDart;
  readonly driver: AppleDartDriver;
}

/**
 * Makes a DART (default: the t8103 of an M1), resets it, and has its driver probe it.
 *
 * Table pages come from the last GiB of the memory unless `pages` is given; they must lie within the part's physical
 * address width (36 or 42 bits).
 * @throws IommuError `EINVAL` unknown preset, `EOPNOTSUPP` a part that is not modelled, and `incoherentWalker`: Linux takes
 *   every DART's walks for coherent.
 */
export const createAppleDart = (options: CreateAppleDartOptions = {}): AppleDartSystem => {
  const part = resolvePart(options);
  if (options.incoherentWalker === true) {
    throw new IommuError('EOPNOTSUPP', 'incoherentWalker: the walks of a DART are coherent');
  }
  const machine = createMachine(options);
  const { pages, clock } = machine;
  const hardware = new AppleDart(machine.deviceMemory, {
    part,
    ...(options.iotlb === undefined ? {} : { iotlb: options.iotlb }),
    busyReads: options.busyReads ?? 0,
  });
  const driver = new AppleDartDriver({
    mmio: machine.port(hardware.mmio),
    pages,
    clock,
    compatible: part.compatible,
    mode: options.mode ?? 'strict',
  });
  return machine.system(hardware, driver);
};
