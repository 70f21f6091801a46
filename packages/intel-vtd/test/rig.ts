/** A bare unit for tests that program it by hand: plain numbers, no constants of the package. */
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { IotlbOptions } from '@iommu-ts/iommu-core';
import { VtdUnit } from '../src/hardware/unit.ts';

export const R = 1;
export const W = 2;
const NO_PASID = -1;

/** 39 and 48 bits, 2 MiB and 1 GiB pages, 1 fault record at 0x220, pages and MAMV 18, 65536 domains. */
export const CAP = 0x00d2_008c_222f_0606n;
/** QI, pass-through, coherent, IOTLB registers at 0xf0. */
export const ECAP = 0xf43n;

export const ROOT = 0x10_0000n;
export const CONTEXTS = 0x10_1000n;
const TABLES = 0x20_0000n;
export const QUEUE = 0x30_0000n;

export interface BareOptions {
  readonly cap?: bigint;
  readonly ecap?: bigint;
  readonly hostAddressWidth?: number;
  readonly iotlb?: IotlbOptions;
  readonly memory?: PhysicalMemory;
}

/** A unit with 64 MiB of memory. */
export class Bare {
  readonly memory: PhysicalMemory;
  readonly unit: VtdUnit;
  readonly interrupts: string[] = [];
  #tail = 0n;
  #nextTable = TABLES;

  constructor(options: BareOptions = {}) {
    this.memory = options.memory ?? new PhysicalMemory([{ base: 0n, size: 64n << 20n }]);
    this.unit = new VtdUnit(this.memory, {
      cap: options.cap ?? CAP,
      ecap: options.ecap ?? ECAP,
      iotlb: options.iotlb ?? { mode: 'sized' },
      ...(options.hostAddressWidth === undefined ? {} : { hostAddressWidth: options.hostAddressWidth }),
    });
    this.unit.onInterrupt = (source) => this.interrupts.push(source);
  }

  rd(offset: number): number {
    return this.unit.mmio.read32(offset) >>> 0;
  }
  wr(offset: number, value: number): void {
    this.unit.mmio.write32(offset, value | 0);
  }
  rd64(offset: number): bigint {
    this.unit.mmio.read64(offset);
    return (BigInt(this.unit.mmio.hi >>> 0) << 32n) | BigInt(this.unit.mmio.lo >>> 0);
  }
  wr64(offset: number, value: bigint): void {
    this.unit.mmio.write64(offset, Number(value >> 32n) | 0, Number(value & 0xffff_ffffn) | 0);
  }

  /** Physical address that `iova` goes to, or the fault reason as a negative number. */
  go(requester: number, iova: bigint, access = R, pasid = NO_PASID): bigint {
    const { unit } = this;
    const status = unit.translate(requester, pasid, Number(iova >> 32n), Number(iova & 0xffff_ffffn), access);
    if (status !== 0) return -BigInt(status);
    return (BigInt(unit.outHi >>> 0) << 32n) | BigInt(unit.outLo >>> 0);
  }

  /** A fresh zeroed table page. */
  table(): bigint {
    const at = this.#nextTable;
    this.#nextTable += 0x1000n;
    return at;
  }

  put(address: bigint, ...words: bigint[]): void {
    for (const [i, word] of words.entries()) this.memory.writeU64(address + BigInt(8 * i), word);
  }

  /** Legacy root and context entry of `requester`: context tables by bus from CONTEXTS on. */
  context(requester: number, low: bigint, high: bigint): void {
    const bus = BigInt(requester >> 8);
    const table = CONTEXTS + 0x1000n * bus;
    this.put(ROOT + 16n * bus, table | 1n, 0n);
    this.put(table + 16n * BigInt(requester & 0xff), low, high);
  }

  /** A new page table with `levels` levels for `requester` in domain `did`; returns its root. */
  attach(requester: number, did: number, levels = 4): bigint {
    const root = this.table();
    this.context(requester, root | 1n, (BigInt(did) << 8n) | BigInt(levels - 2));
    return root;
  }

  /** Sets the entry at `level` for `iova`, making tables with `pointer` bits on the way; returns the entry's address. */
  entry(root: bigint, levels: number, iova: bigint, level: number, value: bigint, pointer = 3n): bigint {
    let table = root;
    for (let at = levels; ; at--) {
      const address = table + 8n * ((iova >> BigInt(12 + 9 * (at - 1))) & 511n);
      if (at === level) {
        this.put(address, value);
        return address;
      }
      const next = this.memory.readU64(address);
      if (next === 0n) {
        table = this.table();
        this.put(address, table | pointer);
      } else table = next & 0xf_ffff_ffff_f000n;
    }
  }

  /** Root table latched, translation on. */
  enable(mode = 0n): void {
    this.wr64(0x20, ROOT | (mode << 10n));
    this.wr(0x18, 0x4000_0000);
    this.wr(0x18, 0x8000_0000);
  }

  /** Queue of one page at QUEUE, on; keeps translation as it is. */
  enableQueue(size = 0n): void {
    this.wr64(0x88, 0n);
    this.wr64(0x90, QUEUE | size);
    this.wr(0x18, 0x0400_0000 | (this.rd(0x1c) & 0x8000_0000));
    this.#tail = 0n;
  }

  /** Puts one 128-bit descriptor and moves the tail. */
  submit(low: bigint, high = 0n): void {
    this.put(QUEUE + this.#tail, low, high);
    this.#tail = (this.#tail + 16n) % 4096n;
    this.wr64(0x88, this.#tail);
  }

  /** Takes the first fault record: reason, requester, page, access, and clears it. Null when nothing is pending. */
  fault(index = 0): { reason: number; requester: number; page: bigint; read: boolean } | null {
    const at = this.unit.capabilities.frcdOffset + 16 * index;
    const high = this.rd64(at + 8);
    if (high >> 63n === 0n) return null;
    const page = this.rd64(at);
    this.wr(at + 12, 0x8000_0000);
    return {
      reason: Number((high >> 32n) & 0xffn),
      requester: Number(high & 0xffffn),
      page,
      read: ((high >> 62n) & 1n) === 1n,
    };
  }
}
