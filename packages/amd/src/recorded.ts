/** Hardware as the header of a recorded vector file describes it. */
import { IommuError, hex } from '@iommu-ts/bits';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { IotlbOptions } from '@iommu-ts/iommu-core';
import { AmdIommu } from './hardware/unit.ts';

type Config = Readonly<Record<string, unknown>>;

const u64 = (config: Config, name: string): bigint | undefined => {
  const value = config[name];
  if (value === undefined) return undefined;
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  if (typeof value === 'string' && /^0x[0-9a-f]{1,16}$/i.test(value)) return BigInt(value);
  throw new IommuError('EFORMAT', `"${name}" in the config expected a 64-bit hex string, got ${JSON.stringify(value)}`);
};

/** IotlbSup, bit 24 of the PCI capability header, which comes alone or as the first of the capability's five words. */
const iotlbSup = (config: Config): boolean => {
  const { capability } = config;
  const header = Array.isArray(capability)
    ? u64({ capability: capability[0] as unknown }, 'capability')
    : u64(config, 'pci_capability_header');
  return header !== undefined && ((header >> 24n) & 1n) === 1n;
};

/**
 * The unit whose feature registers `config` gives: `EFR` and `EFR2`, or `ExtendedFeature`.
 *
 * The recorded implementations leave IO_PAGE_FAULT.PE at 0, and so does this unit.
 * @throws IommuError `EFORMAT` without a feature register, `EOPNOTSUPP` for features that this version does not have.
 */
export const createRecordedHardware = (memory: PhysicalMemory, config: Config, iotlb?: IotlbOptions): AmdIommu => {
  const efr = u64(config, 'EFR') ?? u64(config, 'ExtendedFeature');
  if (efr === undefined) {
    throw new IommuError('EFORMAT', 'the config expected "EFR" or "ExtendedFeature", the Extended Feature Register');
  }
  return new AmdIommu(memory, {
    efr,
    efr2: u64(config, 'EFR2') ?? u64(config, 'ExtendedFeature2') ?? 0n,
    iotlbSup: iotlbSup(config),
    recordPe: false,
    ...(iotlb === undefined ? {} : { iotlb }),
  });
};

/** DeviceID of a recorded DMA: its requester id. @throws IommuError `EFORMAT` when it has none of 16 bits. */
export const requesterOf = (op: Config): number => {
  const rid = u64(op, 'rid');
  if (rid === undefined || rid > 0xffffn) {
    throw new IommuError(
      'EFORMAT',
      `"rid" expected a 16-bit requester id, got ${rid === undefined ? 'none' : hex(rid)}`,
    );
  }
  return Number(rid);
};
