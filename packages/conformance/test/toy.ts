/**
 * A toy IOMMU for the tests of the players: eight registers, and translation by a list of pages in memory at 0x1000
 * ([iova page, pa page, allowed] × 8, 24 bytes each). Too small to be any real part, large enough to be wrong.
 */
import { IommuError, hi32, lo32 } from '@iommu-ts/bits';
import { ACCESS, Iotlb } from '@iommu-ts/iommu-core';
import type {
  DriverHarness,
  HardwareStats,
  InvalidationEvent,
  InvalidationHints,
  IommuHardware,
  IotlbOptions,
} from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';

const TABLE = 0x1000n;

class ToyMmio {
  readonly registers = new Uint32Array(8);
  hi = 0;
  lo = 0;
  reads = 0;
  read32(offset: number): number {
    this.reads++;
    // Register 7 counts up with every read, as a status that a driver polls.
    if (offset === 28) return this.reads;
    return this.registers[offset >> 2]! | 0;
  }
  read64(offset: number): void {
    this.lo = this.read32(offset);
    this.hi = this.read32(offset + 4);
  }
  write32(offset: number, value: number): void {
    if (offset === 24) throw new Error('register 24 is broken');
    this.registers[offset >> 2] = value;
  }
  write64(offset: number, hi: number, lo: number): void {
    this.write32(offset, lo);
    this.write32(offset + 4, hi);
  }
}

class ToyHardware implements IommuHardware {
  readonly name = 'toy';
  readonly memory: PhysicalMemory;
  readonly mmio = new ToyMmio();
  readonly iotlb: Iotlb;
  readonly stats: HardwareStats = {
    walks: 0,
    walkReads: 0,
    structureReads: 0,
    commands: 0,
    invalidations: 0,
    faults: 0,
  };
  onInterrupt: ((source: string) => void) | null = null;
  onInvalidate: ((event: InvalidationEvent) => void) | null = null;
  readonly pendingInvalidations = 0;
  readonly invalidationHints: InvalidationHints = { leaf: '', table: '', context: '', completion: '' };
  outHi = 0;
  outLo = 0;

  constructor(memory: PhysicalMemory, iotlb?: IotlbOptions) {
    this.memory = memory;
    this.iotlb = new Iotlb(iotlb);
  }
  reset(): void {
    this.mmio.registers.fill(0);
  }
  translate(requester: number, _pasid: number, hi: number, lo: number, access: number): number {
    if (requester === 0xff) return 9;
    const page = (BigInt(hi >>> 0) << 20n) | BigInt(lo >>> 12);
    for (let i = 0n; i < 8n; i++) {
      const allowed = Number(this.memory.readU64(TABLE + 24n * i + 16n));
      if (allowed === 0 || this.memory.readU64(TABLE + 24n * i) !== page) continue;
      if ((allowed & access) === 0) return 2;
      const pa = (this.memory.readU64(TABLE + 24n * i + 8n) << 12n) | BigInt(lo & 0xfff);
      this.outHi = hi32(pa) | 0;
      this.outLo = lo32(pa) | 0;
      return 0;
    }
    this.stats.faults++;
    this.mmio.registers[5]!++;
    return 1;
  }
  probe(): number {
    throw new Error('the toy has no caches');
  }
}

const notHere = (): never => {
  throw new Error('the toy has no driver');
};

export const toy: DriverHarness = {
  name: 'toy',
  vectorName: 'toy-iommu',
  title: 'toy',
  createSystem: notHere,
  createHardware: (memory, config, iotlb) => {
    if (config['nested'] === true) throw new IommuError('EOPNOTSUPP', 'nested translation is not built yet');
    if (typeof config['id'] !== 'string') throw new IommuError('EFORMAT', 'expected "id"');
    return new ToyHardware(memory, iotlb);
  },
  requesterOf: (op) => Number(op['rid']),
  inspect: notHere,
  formats: [],
  faultCodes: { notConfigured: [9], notPresent: [1], permission: [2], addressWidth: [], reservedBit: [] },
  setReservedBit: () => false,
};

const u64le = (value: bigint): string => {
  let text = '';
  for (let i = 0n; i < 8n; i++)
    text += Number((value >> (8n * i)) & 0xffn)
      .toString(16)
      .padStart(2, '0');
  return text;
};

/** A `mem` operation that writes slot `i` of the toy's table. */
export const slot = (i: number, iovaPage: bigint, paPage: bigint, access: number = ACCESS.READ | ACCESS.WRITE) => ({
  op: 'mem',
  pa: `0x${(TABLE + 24n * BigInt(i)).toString(16)}`,
  hex: u64le(iovaPage) + u64le(paPage) + u64le(BigInt(access)),
});
