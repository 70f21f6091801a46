/**
 * A bare IOMMU programmed by hand, with every offset and bit typed from the specification: the oracle of the hardware tests
 * shares no table with the code under test.
 */
import { ACCESS, Bus } from '@iommu-ts/iommu-core';
import type { IotlbOptions } from '@iommu-ts/iommu-core';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { expect } from 'vitest';
import { RiscvIommuHardware } from '../src/hardware/unit.ts';
import type { RiscvIommuHardwareOptions } from '../src/hardware/features.ts';

/** Version 1.0, Sv39/48/57 and x4, MSI_FLAT, AMO_HWAD, DBG, PAS 56, PD8/17/20, MSI interrupts. */
export const CAPABILITIES = 0x1f8_814e_0e10n;

export const V = 1n;
export const R = 2n;
export const W = 4n;
export const X = 8n;
export const U = 16n;
export const G = 32n;
export const A = 64n;
export const D = 128n;
/** A leaf that allows everything. */
export const RWXUAD = V | R | W | X | U | A | D;

export const CQ = 0x10_0000n;
export const FQ = 0x11_0000n;
export const DDT = 0x12_0000n;

/** `pa` in the PPN field of an entry (bits 53:10). */
export const ppn = (pa: bigint): bigint => (pa >> 12n) << 10n;

export interface DeviceContextFields {
  readonly tc?: bigint;
  readonly iohgatp?: bigint;
  readonly ta?: bigint;
  readonly fsc?: bigint;
  readonly msiptp?: bigint;
  readonly mask?: bigint;
  readonly pattern?: bigint;
  readonly reserved?: bigint;
}

export class BareMetal {
  readonly memory: PhysicalMemory;
  readonly hardware: RiscvIommuHardware;
  readonly bus: Bus;
  #next = 0x20_0000n;
  #fqHead = 0;
  #cqTail = 0;
  extended: boolean;

  constructor(options: RiscvIommuHardwareOptions = {}, iotlb: IotlbOptions = {}) {
    // A hole at 512 MiB, so that there is an address that nothing answers.
    this.memory = new PhysicalMemory([
      { base: 0n, size: 0x2000_0000n },
      { base: 0x1_0000_0000n, size: 0x1_0000_0000n },
    ]);
    this.hardware = new RiscvIommuHardware(this.memory, { capabilities: CAPABILITIES, ...options }, iotlb);
    this.bus = new Bus(this.memory, this.hardware);
    this.extended = ((options.capabilities ?? CAPABILITIES) >> 22n) % 2n === 1n;
  }

  /** Queues of 64 commands and 32 records, both on, and the directory of `levels` at {@link DDT}. */
  enable(levels: 1 | 2 | 3 = 1): this {
    this.write64(24, ppn(CQ) | 5n);
    this.write32(72, 1);
    this.write64(40, ppn(FQ) | 4n);
    this.write32(76, 1);
    this.write64(16, ppn(DDT) | BigInt(levels + 1));
    return this;
  }

  read32(offset: number): number {
    return this.hardware.mmio.read32(offset) >>> 0;
  }
  read64(offset: number): bigint {
    this.hardware.mmio.read64(offset);
    return (BigInt(this.hardware.mmio.hi >>> 0) << 32n) | BigInt(this.hardware.mmio.lo >>> 0);
  }
  write32(offset: number, value: number): void {
    this.hardware.mmio.write32(offset, value);
  }
  write64(offset: number, value: bigint): void {
    this.hardware.mmio.write64(offset, Number(value >> 32n), Number(value & 0xffff_ffffn));
  }

  /** A zeroed block of `size` bytes, aligned to it. */
  page(size = 0x1000n): bigint {
    this.#next = (this.#next + size - 1n) & ~(size - 1n);
    const pa = this.#next;
    this.#next += size;
    return pa;
  }

  /** Writes the device context of `did` in a one-level directory. */
  dc(did: number, fields: DeviceContextFields): bigint {
    const at = DDT + BigInt(did) * (this.extended ? 64n : 32n);
    const words = [fields.tc ?? V, fields.iohgatp ?? 0n, fields.ta ?? 0n, fields.fsc ?? 0n];
    if (this.extended) {
      words.push(fields.msiptp ?? 0n, fields.mask ?? 0n, fields.pattern ?? 0n, fields.reserved ?? 0n);
    }
    for (const [i, word] of words.entries()) this.memory.writeU64(at + BigInt(i) * 8n, word);
    return at;
  }

  /**
   * Maps the page of `level` around `va` under `root` (a table of `levels` levels) with the entry `leaf`; returns the
   * address of the entry. Missing tables are made.
   */
  map(root: bigint, levels: number, va: bigint, leaf: bigint, level = 0, x4 = false): bigint {
    let table = root;
    for (let i = levels - 1; ; i--) {
      const bits = i === levels - 1 && x4 ? 0x7ffn : 0x1ffn;
      const entry = table + ((va >> BigInt(12 + 9 * i)) & bits) * 8n;
      if (i === level) {
        this.memory.writeU64(entry, leaf);
        return entry;
      }
      let next = this.memory.readU64(entry);
      if ((next & V) === 0n) {
        next = ppn(this.page()) | V;
        this.memory.writeU64(entry, next);
      }
      table = ((next >> 10n) & 0xfff_ffff_ffffn) << 12n;
    }
  }

  translate(did: number, iova: bigint, access: number = ACCESS.READ, pid = -1): number {
    const { hardware } = this;
    return hardware.translate(
      did,
      pid,
      Number(BigInt.asIntN(32, iova >> 32n)),
      Number(BigInt.asIntN(32, iova)),
      access,
    );
  }
  get out(): bigint {
    return (BigInt(this.hardware.outHi >>> 0) << 32n) | BigInt(this.hardware.outLo >>> 0);
  }

  /** The access succeeds and lands at `pa`. */
  reaches(did: number, iova: bigint, pa: bigint, access: number = ACCESS.READ, pid = -1): void {
    expect(this.translate(did, iova, access, pid), `0x${iova.toString(16)}`).toBe(0);
    expect(this.out.toString(16)).toBe(pa.toString(16));
  }

  /** The access is refused with `cause`, and exactly one record about it is queued; its doublewords. */
  faults(did: number, iova: bigint, cause: number, access: number = ACCESS.READ, pid = -1): bigint[] {
    const before = this.read32(52);
    expect(this.translate(did, iova, access, pid), `cause at 0x${iova.toString(16)}`).toBe(cause);
    expect(this.read32(52), 'fqt').toBe((before + 1) & 31);
    const record = [0n, 8n, 16n, 24n].map((o) => this.memory.readU64(FQ + BigInt(before) * 32n + o));
    this.#fqHead = (before + 1) & 31;
    this.write32(48, this.#fqHead);
    const ttyp = (access & ACCESS.EXEC) !== 0 ? 1n : (access & ACCESS.WRITE) !== 0 ? 3n : 2n;
    const priv = pid >= 0 && (access & ACCESS.PRIV) !== 0 ? 1n : 0n;
    expect(record[0]!.toString(16)).toBe(
      (
        (BigInt(did) << 40n) |
        (ttyp << 34n) |
        (priv << 33n) |
        ((pid >= 0 ? 1n : 0n) << 32n) |
        (BigInt(pid >= 0 ? pid : 0) << 12n) |
        BigInt(cause)
      ).toString(16),
    );
    expect(record[1]).toBe(0n);
    expect(record[2]!.toString(16)).toBe(BigInt.asUintN(64, iova).toString(16));
    return record;
  }

  /** Queues one command and has it executed. */
  command(low: bigint, high = 0n): void {
    this.memory.writeU64(CQ + BigInt(this.#cqTail) * 16n, low);
    this.memory.writeU64(CQ + BigInt(this.#cqTail) * 16n + 8n, high);
    this.#cqTail = (this.#cqTail + 1) & 63;
    this.write32(36, this.#cqTail);
  }
  /** Takes back the last command (after an error). */
  retract(): void {
    this.#cqTail = (this.#cqTail - 1) & 63;
    this.write32(36, this.#cqTail);
  }
}
