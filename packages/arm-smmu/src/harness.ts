/**
 * `@iommu-ts/arm-smmu/harness`: what suites, players, the command line and benchmarks need of this driver, in the form that
 * all drivers have.
 * @packageDocumentation
 */
import { IommuError } from '@iommu-ts/bits';
import type { DriverHarness, FormatVariant, IotlbOptions } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { EVENT } from './faults.ts';
import { ARM_S1_16K, ARM_S1_4K, ARM_S1_64K, ARM_S2_16K, ARM_S2_4K, ARM_S2_64K } from './formats.ts';
import type { SmmuIds } from './hardware/capabilities.ts';
import { SmmuV3 } from './hardware/unit.ts';
import { inspectStream } from './inspect.ts';
import { REG } from './registers.ts';
import { createArmSmmuIommu } from './system.ts';

const NAMES = ['IDR0', 'IDR1', 'IDR2', 'IDR3', 'IDR4', 'IDR5', 'IIDR', 'AIDR', 'GBPA_reset'] as const;
const REQUIRED: readonly string[] = ['IDR0', 'IDR1', 'IDR5'];

/** Identification registers from the header of a vector file. @throws IommuError `EFORMAT`. */
const idsOf = (config: Readonly<Record<string, unknown>>): SmmuIds => {
  const ids: Record<string, number> = {};
  for (const name of NAMES) {
    const raw = config[name];
    if (raw === undefined && !REQUIRED.includes(name)) continue;
    const value = typeof raw === 'string' && /^0x[0-9a-f]+$/i.test(raw) ? Number(raw) : raw;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > 0xffff_ffff) {
      throw new IommuError('EFORMAT', `config.${name}: expected a 32-bit hex string, got ${JSON.stringify(raw)}`);
    }
    ids[name] = value;
  }
  return ids as unknown as SmmuIds;
};

const formats: readonly FormatVariant[] = [
  { name: 'arm-s1-4k-48', config: { format: ARM_S1_4K, ias: 48, oas: 48 } },
  { name: 'arm-s1-4k-39', config: { format: ARM_S1_4K, ias: 39, oas: 48 } },
  { name: 'arm-s1-16k-47', config: { format: ARM_S1_16K, ias: 47, oas: 48 } },
  // A start table of two entries.
  { name: 'arm-s1-16k-48', config: { format: ARM_S1_16K, ias: 48, oas: 48 } },
  { name: 'arm-s1-64k-48', config: { format: ARM_S1_64K, ias: 48, oas: 48 } },
  { name: 'arm-s1-64k-52', config: { format: ARM_S1_64K, ias: 52, oas: 52 } },
  { name: 'arm-s2-4k-48', config: { format: ARM_S2_4K, ias: 48, oas: 48 } },
  { name: 'arm-s2-4k-40', config: { format: ARM_S2_4K, ias: 40, oas: 40 } },
  { name: 'arm-s2-16k-48', config: { format: ARM_S2_16K, ias: 48, oas: 48 } },
  { name: 'arm-s2-64k-48', config: { format: ARM_S2_64K, ias: 48, oas: 48 } },
];

/** The Arm SMMUv3 behind the common interface of all drivers. */
export const harness: DriverHarness = {
  name: 'arm-smmu',
  vectorName: 'arm-smmu-v3',
  title: 'Arm SMMUv3',
  createSystem: (options) => createArmSmmuIommu(options),
  createHardware: (memory: PhysicalMemory, config: Readonly<Record<string, unknown>>, iotlb?: IotlbOptions): SmmuV3 =>
    new SmmuV3(memory, { ids: idsOf(config), ...(iotlb === undefined ? {} : { iotlb }) }),
  requesterOf: (op) => Number(op['rid']),
  inspect: inspectStream,
  formats,
  faultCodes: {
    notConfigured: [EVENT.C_BAD_STE, EVENT.C_BAD_STREAMID],
    notPresent: [EVENT.F_TRANSLATION],
    permission: [EVENT.F_PERMISSION],
    // Stage 1: outside the range of TTB0. Stage 2: outside S2T0SZ, or outside the SMMU's own IPA size.
    addressWidth: [EVENT.F_TRANSLATION, EVENT.F_ADDR_SIZE],
    reservedBit: [EVENT.F_TRANSLATION],
  },
  setReservedBit: (memory, entryPa) => {
    // A level 3 descriptor of type 0b01 is reserved; at other levels that is a block.
    const entry = memory.readU64(entryPa);
    if ((entry & 3n) !== 3n) return false;
    memory.writeU64(entryPa, entry & ~2n);
    return true;
  },
  isOff: (mmio) => mmio.read32(REG.CR0ACK) === 0,
};
