/** A whole system with one remapping unit: memory, device, driver, bus. */
import { maskOf } from '@iommu-ts/bits';
import { createMachine } from '@iommu-ts/iommu-core';
import type { IommuSystem, SystemOptions } from '@iommu-ts/iommu-core';
import { VtdDriver } from './driver/driver.ts';
import { VtdUnit } from './hardware/unit.ts';
import { ECAP } from './registers.ts';

/** Capability registers of a kind of unit. */
export interface VtdPreset {
  readonly ver: number;
  readonly cap: bigint;
  readonly ecap: bigint;
  readonly hostAddressWidth: number;
}

/** Kinds of unit, by name. All: queued invalidation, pass-through, coherent walks, 65536 domains, 8 fault records. */
export const VTD_PRESETS = {
  /** 48-bit addresses, 4-level tables, pages of 4 KiB, 2 MiB and 1 GiB. */
  server: { ver: 0x10, cap: 0x00d2_078c_222f_0606n, ecap: 0xf43n, hostAddressWidth: 48 },
  /** 39-bit addresses, 3-level tables, pages of 4 KiB and 2 MiB. */
  client: { ver: 0x10, cap: 0x00d2_0784_2226_0206n, ecap: 0xf43n, hostAddressWidth: 39 },
  /** 57-bit addresses, 5-level tables; 52 bits of physical address. */
  'server-57': { ver: 0x50, cap: 0x00d2_078c_2238_0e06n, ecap: 0xf43n, hostAddressWidth: 52 },
  /** As a hypervisor offers it: caching mode, so that the driver also invalidates after it has mapped. */
  virtual: { ver: 0x10, cap: 0x00d2_008c_222f_0686n, ecap: 0xf43n, hostAddressWidth: 48 },
} as const satisfies Readonly<Record<string, VtdPreset>>;

/** Name of a preset. */
export type VtdPresetName = keyof typeof VTD_PRESETS;

/** Options of {@link createVtdIommu}. */
export interface VtdSystemOptions extends SystemOptions {
  /** Kind of unit (default `server`), or its capability registers. */
  readonly preset?: VtdPresetName | VtdPreset;
}

/** What {@link createVtdIommu} makes: an `IommuSystem` whose parts are of this package. */
export interface VtdSystem extends IommuSystem {
  readonly hardware: VtdUnit;
  readonly driver: VtdDriver;
}

/** ECAP bits of a unit that snoops the CPU's caches when it reads structures and page tables (C), and in scalable mode. */
const COHERENT = maskOf(ECAP.C) | maskOf(ECAP.SMPWCS);

/**
 * A remapping unit with its driver, ready to use: translation is on, no device is attached.
 * @throws IommuError `EOPNOTSUPP`, `EINVAL` for capability registers the unit can't have, `ENOMEM`.
 */
export const createVtdIommu = (options: VtdSystemOptions = {}): VtdSystem => {
  const machine = createMachine(options);
  const { memory, pages, clock } = machine;
  const { preset = 'server' } = options;
  const kind: VtdPreset = typeof preset === 'string' ? VTD_PRESETS[preset] : preset;
  const unit = options.incoherentWalker === true ? { ...kind, ecap: kind.ecap & ~COHERENT } : kind;
  const hardware = new VtdUnit(machine.deviceMemory, {
    ...unit,
    ...(options.iotlb === undefined ? {} : { iotlb: options.iotlb }),
  });
  const driver = new VtdDriver({
    mmio: machine.port(hardware.mmio),
    memory,
    pages,
    clock,
    hostAddressWidth: unit.hostAddressWidth,
    ...(options.mode === undefined ? {} : { mode: options.mode }),
  });
  return machine.system(hardware, driver);
};
