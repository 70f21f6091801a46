/** The bare device, programmed by literal numbers: offsets, bits and codes as IHI 0070 prints them. */
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { IotlbOptions } from '@iommu-ts/iommu-core';
import { SmmuV3 } from '../src/index.ts';
import type { SmmuIds } from '../src/index.ts';

export const STRTAB = 0x10_0000n;
export const CMDQ = 0x20_0000n;
const EVENTQ = 0x21_0000n;
export const CD = 0x22_0000n;
/** Stage 1 tables of 4 KiB granule, levels 0 to 3. */
export const TABLES = 0x30_0000n;
/** Stage 2 tables. */
export const TABLES2 = 0x40_0000n;
export const RAM = 0x4000_0000n;

export const READ = 1;
export const WRITE = 2;
export const EXEC = 4;
export const PRIV = 8;
const NO_PASID = -1;

/** Everything the model has: both stages, EL2, MSI, two-level CDs, 20-bit substreams, RIL, STT, XNX, HAD, E0PD; 48 bits. */
export const FULL: SmmuIds = { IDR0: 0x0d4c_321b, IDR1: 0x0e73_0510, IDR3: 0x3714, IDR5: 0x75 };

/** STE words: V, Config, and what a test changes. */
export const ste = (config: number, more: readonly bigint[] = []): bigint[] => {
  const words = [1n | (BigInt(config) << 1n), 0n, 0n, 0n, 0n, 0n, 0n, 0n];
  more.forEach((word, i) => (words[i]! |= word));
  return words;
};

/** STE word 2 of a stage 2: T0SZ, SL0, TG (0: 4K), PS 5, AA64, R, AFFD 0; VMID. */
export const s2 = (t0sz: number, sl0: number, tg = 0, vmid = 7): bigint =>
  (1n << 58n) |
  (1n << 51n) |
  (5n << 48n) |
  (BigInt(tg) << 46n) |
  (BigInt(sl0) << 38n) |
  (BigInt(t0sz) << 32n) |
  BigInt(vmid);

/** CD word 0: T0SZ 16, TG0 4K, EPD1, V, IPS 48 bits, AA64, R, A, ASID. */
export const cd0 = (asid = 3, more = 0n): bigint =>
  16n |
  (1n << 30n) |
  (1n << 31n) |
  (5n << 32n) |
  (1n << 41n) |
  (1n << 45n) |
  (1n << 46n) |
  (BigInt(asid) << 48n) |
  more;

export class Bare {
  readonly memory: PhysicalMemory;
  readonly unit: SmmuV3;
  readonly interrupts: string[] = [];
  #prod = 0;

  constructor(ids: SmmuIds = FULL, iotlb: IotlbOptions = {}) {
    this.memory = new PhysicalMemory([{ base: 0n, size: 4n << 30n }]);
    this.unit = new SmmuV3(this.memory, { ids, iotlb });
    this.unit.onInterrupt = (source) => this.interrupts.push(source);
  }

  w32(offset: number, value: number): void {
    this.unit.mmio.write32(offset, value);
  }
  r32(offset: number): number {
    return this.unit.mmio.read32(offset) >>> 0;
  }
  w64(offset: number, value: bigint): void {
    this.unit.mmio.write64(offset, Number(value >> 32n) | 0, Number(value & 0xffff_ffffn) | 0);
  }

  /** 64-bit words into memory. */
  put(address: bigint, words: readonly bigint[]): void {
    words.forEach((word, i) => this.memory.writeU64(address + BigInt(8 * i), word));
  }

  /** Linear stream table of 256 entries, queues of 2^cmdq and 2^evtq, events recorded, interrupts on, enabled. */
  enable({ cmdq = 6, evtq = 4, cr2 = 2, strtab = STRTAB, cfg = 8 } = {}): this {
    this.w32(0x20, 0);
    this.w32(0x2c, cr2);
    this.w64(0x80, strtab);
    this.w32(0x88, cfg);
    this.w64(0x90, CMDQ | BigInt(cmdq));
    this.w32(0x98, 0);
    this.w32(0x9c, 0);
    this.w64(0xa0, EVENTQ | BigInt(evtq));
    this.w32(0x100a8, 0);
    this.w32(0x100ac, 0);
    this.w32(0x50, 5);
    this.w32(0x20, 0xd);
    this.#prod = 0;
    return this;
  }

  stream(sid: number, words: readonly bigint[]): void {
    this.put(STRTAB + BigInt(64 * sid), words);
  }

  /** One command (and no CMD_SYNC) through a queue of 64 entries. */
  command(...words: readonly [number, number?, number?, number?]): void {
    const at = CMDQ + BigInt(16 * (this.#prod % 64));
    words
      .concat([0, 0, 0])
      .slice(0, 4)
      .forEach((word, i) => this.memory.write(at + BigInt(4 * i), 4, BigInt((word ?? 0) >>> 0)));
    this.#prod = (this.#prod + 1) % 128;
    this.w32(0x98, this.#prod);
  }

  /** Indices of the command queue after an error was acknowledged and the command taken back. */
  get prod(): number {
    return this.#prod;
  }

  /** Stage 1 for stream 1: CD at `CD`, tables at `TABLES`; the tables' first entries lead down to level 3. */
  stage1(sid = 1, asid = 3, config: number = 5, more: readonly bigint[] = []): void {
    this.stream(sid, ste(config, [CD, ...more]));
    this.put(CD, [cd0(asid), TABLES, 0n, 0n, 0n, 0n, 0n, 0n]);
    for (let level = 0n; level < 3n; level++)
      this.memory.writeU64(TABLES + 0x1000n * level, (TABLES + 0x1000n * (level + 1n)) | 3n);
  }

  /** Level 3 entry `index` of those tables: VA `index * 4096`. Default: read-write, unprivileged, AF, nG. */
  page(index: number, pa: bigint, attributes = 0xc43n): void {
    this.memory.writeU64(TABLES + 0x3000n + BigInt(8 * index), pa | attributes);
  }

  /** Stage 2 tables for 4K, start level 1 (T0SZ 25, SL0 1): entry `index` of level 3 maps IPA `index * 4096`. */
  stage2Tables(): void {
    this.memory.writeU64(TABLES2, (TABLES2 + 0x1000n) | 3n);
    this.memory.writeU64(TABLES2 + 0x1000n, (TABLES2 + 0x2000n) | 3n);
  }
  page2(index: number, pa: bigint, attributes = 0x7ffn): void {
    this.memory.writeU64(TABLES2 + 0x2000n + BigInt(8 * index), pa | attributes);
  }

  /** Code of an access at `iova`; the address, when it gets through, is in {@link pa}. */
  access(iova: bigint, access = READ, sid = 1, pasid = NO_PASID): number {
    return this.unit.translate(
      sid,
      pasid,
      Number(BigInt.asIntN(32, iova >> 32n)),
      Number(BigInt.asIntN(32, iova)),
      access,
    );
  }
  get pa(): bigint {
    return (BigInt(this.unit.outHi >>> 0) << 32n) | BigInt(this.unit.outLo >>> 0);
  }

  /** Event records not yet consumed, as four 64-bit words each; consumes them. */
  events(): bigint[][] {
    const log2 = Number(this.unit.registers.get64(0xa0) & 0x1fn);
    const mask = (2 << log2) - 1;
    const prod = this.r32(0x100a8);
    const found: bigint[][] = [];
    for (let cons = this.r32(0x100ac) & mask; cons !== (prod & mask); cons = (cons + 1) & mask) {
      const at = EVENTQ + BigInt(32 * (cons & (mask >> 1)));
      found.push([0n, 8n, 16n, 24n].map((i) => this.memory.readU64(at + i)));
    }
    this.w32(0x100ac, prod);
    return found;
  }
}
