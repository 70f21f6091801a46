import { IommuError } from '@iommu-ts/bits';
import { createMachine } from '@iommu-ts/iommu-core';
import type { IommuSystem, SystemOptions } from '@iommu-ts/iommu-core';
import { RiscvIommuDriver } from './driver/driver.ts';
import type { RiscvIommuDriverOptions } from './driver/driver.ts';
import type { RiscvIommuHardwareOptions } from './hardware/features.ts';
import { RiscvIommuHardware } from './hardware/unit.ts';

/**
 * - `'full'`: everything that is built (default)
 * - `'linux-minimal'`: Sv39/48/57 first stage only, base-format device contexts, queues of at most 2^13 entries
 */
export type RiscvIommuPreset = 'full' | 'linux-minimal';

const PRESETS: Readonly<Record<RiscvIommuPreset, RiscvIommuHardwareOptions>> = {
  full: {},
  'linux-minimal': { capabilities: 0x38_0000_0e10n, queueLog2szMax: 12 },
};

/** Options of {@link createRiscvIommu}. */
export interface CreateRiscvIommuOptions extends SystemOptions {
  readonly preset?: RiscvIommuPreset;
  /** Overrides of the preset. */
  readonly hardware?: RiscvIommuHardwareOptions;
  /** Options of the driver beside those that the system gives it. */
  readonly driver?: Omit<RiscvIommuDriverOptions, 'mmio' | 'pages' | 'clock'>;
}

/** {@link IommuSystem} with the classes of this package. */
export interface RiscvIommuSystem extends IommuSystem {
  readonly hardware: RiscvIommuHardware;
  readonly driver: RiscvIommuDriver;
}

/**
 * A machine with one RISC-V IOMMU: memory, page allocator, clock, the hardware, its driver (probed and running) and the bus
 * for devices. What is not given is made: 64 GiB of sparse RAM.
 * @throws IommuError as the constructors of hardware and driver do; `EOPNOTSUPP` for `incoherentWalker`, which no register of
 *   the specification could tell a driver of.
 */
export const createRiscvIommu = (options: CreateRiscvIommuOptions = {}): RiscvIommuSystem => {
  if (options.incoherentWalker === true) {
    throw new IommuError('EOPNOTSUPP', 'incoherentWalker: the walks of a RISC-V IOMMU are coherent');
  }
  const machine = createMachine(options);
  const { pages, clock } = machine;
  const hardware = new RiscvIommuHardware(
    machine.deviceMemory,
    { ...PRESETS[options.preset ?? 'full'], ...options.hardware },
    options.iotlb,
  );
  const driver = new RiscvIommuDriver({
    ...(options.mode === undefined ? {} : { mode: options.mode }),
    ...options.driver,
    mmio: machine.port(hardware.mmio),
    pages,
    clock,
  });
  return machine.system(hardware, driver);
};
