import { IommuError } from '@iommu-ts/bits';
import type { DriverHarness, IotlbOptions } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { RiscvIommuHardware } from './hardware/unit.ts';

const value = (config: Readonly<Record<string, unknown>>, key: string): bigint | undefined => {
  const raw = config[key];
  if (raw === undefined || raw === null) return undefined;
  try {
    if (typeof raw === 'number' || typeof raw === 'string' || typeof raw === 'bigint') return BigInt(raw);
  } catch {
    // reported below
  }
  throw new IommuError('EFORMAT', `config.${key}: expected a number or a hex string, got ${String(raw)}`, {});
};

export const harness = {
  name: 'riscv',
  vectorName: 'riscv-iommu',
  createHardware(memory: PhysicalMemory, config: Readonly<Record<string, unknown>>, iotlb?: IotlbOptions) {
    const capabilities = value(config, 'capabilities');
    const fctl = value(config, 'fctl');
    const ddtpReset = value(config, 'ddtp_reset');
    const max = value(config, 'queue_log2sz_max');
    return new RiscvIommuHardware(
      memory,
      {
        ...(capabilities === undefined ? {} : { capabilities }),
        ...(fctl === undefined ? {} : { fctl }),
        ...(ddtpReset === undefined ? {} : { ddtpReset }),
        ...(max === undefined ? {} : { queueLog2szMax: Number(max) }),
      },
      iotlb,
    );
  },
  requesterOf: (op: Readonly<Record<string, unknown>>): number => Number(op['rid']),
} as unknown as DriverHarness;
