/**
 * `@iommu-ts/amd/harness`: what suites, players, the command line and benchmarks need of this package.
 * @packageDocumentation
 */
import { maskLo, maskOf } from '@iommu-ts/bits';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { EVENT } from './faults.ts';
import { AMD_V1 } from './formats.ts';
import { inspect } from './inspect.ts';
import { createRecordedHardware, requesterOf } from './recorded.ts';
import { Control, REGISTERS } from './registers.ts';
import { PTE } from './structures.ts';
import { createAmdIommu } from './system.ts';

/** Control bits that let the unit read or write memory. */
const RUNNING = maskLo(Control.IommuEn) | maskLo(Control.CmdBufEn) | maskLo(Control.EventLogEn);

const pageFault = [EVENT.IO_PAGE_FAULT];

/** The AMD IOMMU with host (v1) page tables. */
export const harness: DriverHarness = {
  name: 'amd',
  vectorName: 'amd-vi',
  title: 'AMD I/O Virtualization (AMD-Vi), host page tables',
  createSystem: (options) => createAmdIommu(options),
  createHardware: createRecordedHardware,
  requesterOf,
  inspect,
  formats: [
    { name: 'amdv1-va64', config: { format: AMD_V1, ias: 64, oas: 52, topLevel: 2 } },
    { name: 'amdv1-va48', config: { format: AMD_V1, ias: 48, oas: 52, topLevel: 2 } },
    { name: 'amdv1-va32', config: { format: AMD_V1, ias: 32, oas: 40, topLevel: 1 } },
  ],
  faultCodes: {
    notConfigured: pageFault,
    notPresent: pageFault,
    permission: pageFault,
    addressWidth: pageFault,
    reservedBit: pageFault,
  },
  setReservedBit(memory, entryPa) {
    memory.writeU64(entryPa, memory.readU64(entryPa) | (maskOf(PTE.Reserved) & -maskOf(PTE.Reserved)));
    return true;
  },
  isOff: (mmio) => (mmio.read32(REGISTERS.Control.offset) & RUNNING) === 0,
};
