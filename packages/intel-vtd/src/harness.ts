/**
 * What suites, players, the command line and benchmarks need to know about this package.
 * @packageDocumentation
 */
import { IommuError, maskLo } from '@iommu-ts/bits';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { FAULT } from './faults.ts';
import { VTD_SS_39, VTD_SS_48, VTD_SS_57 } from './formats.ts';
import { VtdUnit } from './hardware/unit.ts';
import { inspectRequester } from './inspect.ts';
import { GSTS, OFFSET } from './registers.ts';
import { createVtdIommu } from './system.ts';

const PAGE_SIZES = 0x4020_1000n;

/** A 64-bit register value of a vector header. */
const register = (config: Readonly<Record<string, unknown>>, name: string): bigint => {
  const value = config[name];
  if (typeof value === 'string' && /^0x[0-9a-f]{1,16}$/i.test(value)) return BigInt(value);
  throw new IommuError('EFORMAT', `config.${name}: expected a register value "0x…", got ${JSON.stringify(value)}`, {
    name,
  });
};

/** The harness of Intel VT-d. */
export const harness: DriverHarness = {
  name: 'intel-vtd',
  vectorName: 'intel-vtd',
  title: 'Intel VT-d',
  createSystem: (options) => createVtdIommu(options),
  createHardware: (memory, config, iotlb) =>
    new VtdUnit(memory, {
      ver: Number(config['VER'] === undefined ? 0x10n : register(config, 'VER')),
      cap: register(config, 'CAP'),
      ecap: register(config, 'ECAP'),
      ...(iotlb === undefined ? {} : { iotlb }),
    }),
  requesterOf: (op) => Number(op['rid']),
  inspect: inspectRequester,
  formats: [
    { name: 'vtdss-48', config: { format: VTD_SS_48, ias: 48, oas: 52, pageSizes: PAGE_SIZES, topLevel: 3 } },
    { name: 'vtdss-39', config: { format: VTD_SS_39, ias: 39, oas: 52, pageSizes: PAGE_SIZES, topLevel: 2 } },
    { name: 'vtdss-57', config: { format: VTD_SS_57, ias: 57, oas: 52, pageSizes: PAGE_SIZES, topLevel: 4 } },
  ],
  faultCodes: {
    notConfigured: [FAULT.LRT_2, FAULT.LCT_2],
    notPresent: [FAULT.LGN_2, FAULT.LGN_3],
    permission: [FAULT.LGN_2, FAULT.LGN_3],
    addressWidth: [FAULT.LGN_1],
    reservedBit: [FAULT.LSS_2],
  },
  setReservedBit: (memory, entryPa) => {
    // Bit 62 of a present second-stage entry is reserved at every level (9.8).
    memory.writeU64(entryPa, memory.readU64(entryPa) | (1n << 62n));
    return true;
  },
  isOff: (mmio) => (mmio.read32(OFFSET.GSTS) & (maskLo(GSTS.TES) | maskLo(GSTS.QIES))) === 0,
};
