import { BuddySource, IommuPages, PhysicalMemory, Rcu } from '@iommu-ts/iommu-pages';
import type { Coherency } from '@iommu-ts/iommu-pages';
import { Bus } from './bus.ts';
import { Checks } from './checks/checks.ts';
import { VirtualClock } from './clock.ts';
import type { IommuDriver, IommuHardware, IommuSystem, SystemOptions } from './driver.ts';
import type { MmioPort } from './mmio.ts';

/** Memory, table allocator and clock, with the checks if there are any: what a system is built from. */
export interface Machine {
  readonly memory: PhysicalMemory;
  readonly pages: IommuPages;
  readonly clock: VirtualClock;
  readonly checks: Checks | null;
  /** Memory as the device sees it: for the constructor of the hardware. */
  readonly deviceMemory: PhysicalMemory;
  /** The registers as the driver sees them: for the constructor of the driver. */
  port(mmio: MmioPort): MmioPort;
  /** Puts a bus in front of the device and, with the checks on, has them watch. */
  system<H extends IommuHardware, D extends IommuDriver>(
    hardware: H,
    driver: D,
  ): IommuSystem & { readonly hardware: H; readonly driver: D };
}

const GIB = 1n << 30n;

/**
 * Fills in what `options` leaves out: 64 GiB of sparse RAM at 0, tables and queues from its last GiB (or, in a memory that
 * was given, from the last GiB of its last RAM range), a clock at 0.
 * @param coherency how the default allocator shows its pages to a walker that does not snoop
 */
export const createMachine = (options: SystemOptions = {}, coherency: Coherency = 'x86'): Machine => {
  const memory = options.memory ?? new PhysicalMemory([{ base: 0n, size: 64n * GIB }]);
  const clock = options.clock ?? new VirtualClock();
  const pages = options.pages ?? defaultPages(memory, coherency, clock);
  const incoherent = options.incoherentWalker === true;
  const checks =
    options.checks === undefined || options.checks === false
      ? null
      : new Checks({ memory, pages, clock, incoherent }, options.checks === true ? {} : options.checks);
  return {
    memory,
    pages,
    clock,
    checks,
    deviceMemory: checks === null ? memory : checks.deviceMemory,
    port: (mmio) => (options.port === undefined ? mmio : options.port(mmio, memory)),
    system: (hardware, driver) => {
      const bus = new Bus(memory, hardware);
      if (checks !== null) checks.watch(hardware, driver, bus);
      return { memory, pages, clock, hardware, driver, bus, checks };
    },
  };
};

const defaultPages = (memory: PhysicalMemory, coherency: Coherency, clock: VirtualClock): IommuPages => {
  const last = memory.ranges.at(-1);
  const end = last === undefined ? 0n : BigInt(last.endPfn) << 12n;
  const base = last === undefined ? 0n : BigInt(Math.max(last.basePfn, last.endPfn - Number(GIB >> 12n))) << 12n;
  return new IommuPages(memory, new BuddySource(memory, [{ base, size: end - base }]), {
    coherency,
    rcu: new Rcu({ clock }),
  });
};
