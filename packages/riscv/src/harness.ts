/**
 * `@iommu-ts/riscv/harness`: what suites, players, the command line and benchmarks need of this driver, in the form that all
 * drivers have.
 * @packageDocumentation
 */
import { IommuError, maskLo, maskOf } from '@iommu-ts/bits';
import type { DriverHarness, FormatVariant, IotlbOptions, MmioPort, SystemOptions } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { createRiscvIommu } from './create.ts';
import { SV39, SV48, SV57 } from './formats.ts';
import { RiscvIommuHardware } from './hardware/unit.ts';
import { inspectDevice } from './inspect.ts';
import { IOMMU_MODE, REGISTERS, cqcsr, ddtp } from './registers.ts';

const PAGE_FAULTS = [12, 13, 15];

const formats: readonly FormatVariant[] = [
  { name: 'riscv64-sv57', config: { format: SV57, ias: 57, oas: 56, svnapot: true } },
  { name: 'riscv64-sv48', config: { format: SV48, ias: 48, oas: 56, svnapot: true } },
  { name: 'riscv64-sv39', config: { format: SV39, ias: 39, oas: 56, svnapot: true } },
];

/** A number of a vector header's config. @throws IommuError `EFORMAT`. */
const configNumber = (config: Readonly<Record<string, unknown>>, key: string): bigint | undefined => {
  const raw = config[key];
  if (raw === undefined || raw === null) return undefined;
  if (
    typeof raw === 'number' ? Number.isInteger(raw) : typeof raw === 'string' && /^(0x[0-9a-f]+|[0-9]+)$/i.test(raw)
  ) {
    return BigInt(raw as number | string);
  }
  throw new IommuError('EFORMAT', `config.${key}: expected a number or a hex string, got ${JSON.stringify(raw)}`, {
    [key]: String(raw),
  });
};

const createHardware = (
  memory: PhysicalMemory,
  config: Readonly<Record<string, unknown>>,
  iotlb?: IotlbOptions,
): RiscvIommuHardware => {
  const capabilities = configNumber(config, 'capabilities');
  if (capabilities === undefined) throw new IommuError('EFORMAT', 'config.capabilities: expected the register value');
  const fctl = configNumber(config, 'fctl');
  const ddtpReset = configNumber(config, 'ddtp_reset');
  const queueLog2szMax = configNumber(config, 'queue_log2sz_max');
  const maxIommuMode = configNumber(config, 'max_iommu_mode');
  return new RiscvIommuHardware(
    memory,
    {
      capabilities,
      ...(fctl === undefined ? {} : { fctl }),
      ...(ddtpReset === undefined ? {} : { ddtpReset }),
      ...(queueLog2szMax === undefined ? {} : { queueLog2szMax: Number(queueLog2szMax) }),
      ...(maxIommuMode === undefined ? {} : { maxIommuMode: Number(maxIommuMode) }),
    },
    iotlb,
  );
};

/** Neither on nor on the way to it; the bits stand at one place in all queues' registers. */
const isQueueOff = (mmio: MmioPort, csr: number): boolean =>
  (mmio.read32(csr) & (maskLo(cqcsr.cqon) | maskLo(cqcsr.busy))) === 0;

/** The RISC-V IOMMU behind the common interface of all drivers. */
export const harness: DriverHarness = {
  name: 'riscv',
  vectorName: 'riscv-iommu',
  title: 'RISC-V IOMMU',
  createSystem: (options: SystemOptions = {}) => createRiscvIommu(options),
  createHardware,
  requesterOf: (op) => Number(op['rid']),
  inspect: inspectDevice,
  formats,
  faultCodes: {
    notConfigured: [258],
    notPresent: PAGE_FAULTS,
    permission: PAGE_FAULTS,
    addressWidth: PAGE_FAULTS,
    reservedBit: PAGE_FAULTS,
  },
  setReservedBit: (memory, entryPa) => {
    // Bit 54 is reserved for standard use in every PTE.
    memory.writeU64(entryPa, memory.readU64(entryPa) | (1n << 54n));
    return true;
  },
  isOff: (mmio) => {
    mmio.read64(REGISTERS.ddtp.offset);
    const mode = Number(BigInt(mmio.lo >>> 0) & maskOf(ddtp.iommu_mode));
    return (
      mode === IOMMU_MODE.Off && [REGISTERS.cqcsr, REGISTERS.fqcsr].every(({ offset }) => isQueueOff(mmio, offset))
    );
  },
};
