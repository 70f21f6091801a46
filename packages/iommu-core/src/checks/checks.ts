/** The checks ("sanitizers"): what no silicon has. One object a system; it watches allocator, driver, bus and device. */
import type { IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { Bus } from '../bus.ts';
import type { VirtualClock } from '../clock.ts';
import type { IommuDriver, IommuHardware } from '../driver.ts';
import type { CheckOptions, CheckReport } from './types.ts';

/** What is watched before there is a device. */
export interface CheckedMachine {
  readonly memory: PhysicalMemory;
  readonly pages: IommuPages;
  readonly clock: VirtualClock;
  /** CPU writes are invisible to the device until they are flushed. */
  readonly incoherent: boolean;
}

/**
 * Finds what a driver does wrong although every test passes: see {@link CheckKind}. Made by `createMachine` when a system
 * asks for checks.
 */
export class Checks {
  /** Everything found so far. */
  readonly reports: CheckReport[] = [];
  readonly options: CheckOptions;
  /** Memory as the device sees it: every access of the device to structures, tables and queues goes through this. */
  readonly deviceMemory: PhysicalMemory;

  constructor(machine: CheckedMachine, options: CheckOptions) {
    this.options = options;
    this.deviceMemory = machine.memory;
  }

  /** Begins to watch: the bus, every domain of the driver, the device's invalidations. */
  watch(_hardware: IommuHardware, _driver: IommuDriver, _bus: Bus): void {
    // Filled in below, check by check.
  }
}
