/**
 * A bare unit on the table: registers, structures and commands written as numbers from the specification (48882), so that
 * the tests are an oracle of their own.
 */
import { NO_PASID } from '@iommu-ts/iommu-core';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { AmdIommu } from '../src/index.ts';
import type { AmdIommuOptions } from '../src/index.ts';

export const DEVICE_TABLE = 0x10_0000n;
export const COMMANDS = 0x20_0000n;
export const EVENTS = 0x30_0000n;
export const STORE = 0x40_0000n;
/** RAM ends here; what lies above answers nothing. */
export const RAM_END = 0x1_0000_0000n;

export const READ = 1;
export const WRITE = 2;
export const RW = 3n << 61n;
export const IR = 1n << 61n;
export const IW = 1n << 62n;

export const CONTROL = 0x18;
export const CMD_HEAD = 0x2000;
export const CMD_TAIL = 0x2008;
export const EVT_HEAD = 0x2010;
export const EVT_TAIL = 0x2018;
export const STATUS = 0x2020;

/** IommuEn, EventLogEn, CmdBufEn. */
export const RUNNING = 0x1005n;

/** Entries of the rings: 256, the smallest. */
export const RING = 256;

export class Bare {
  readonly memory = new PhysicalMemory([{ base: 0n, size: RAM_END }]);
  readonly unit: AmdIommu;
  #tail = 0;
  #nextTable = 0x100_0000n;

  /** @param control value of Control; the rings are of 256 entries, the device table of one page (128 devices) */
  constructor(options: AmdIommuOptions = {}, control: bigint = RUNNING) {
    this.unit = new AmdIommu(this.memory, options);
    this.write64(0x0, DEVICE_TABLE);
    this.write64(0x8, COMMANDS | (8n << 56n));
    this.write64(0x10, EVENTS | (8n << 56n));
    this.write64(CONTROL, control);
  }

  write64(offset: number, value: bigint): void {
    this.unit.mmio.write64(offset, Number(BigInt.asIntN(32, value >> 32n)), Number(BigInt.asIntN(32, value)));
  }

  read64(offset: number): bigint {
    const { mmio } = this.unit;
    mmio.read64(offset);
    return (BigInt(mmio.hi >>> 0) << 32n) | BigInt(mmio.lo >>> 0);
  }

  /** Writes the four quadwords of a device table entry. */
  dte(id: number, ...words: bigint[]): void {
    for (let i = 0; i < 4; i++) this.memory.writeU64(DEVICE_TABLE + BigInt(32 * id + 8 * i), words[i] ?? 0n);
  }

  /** A paging entry: V, TV, mode, root, domain, IR and IW. */
  paging(id: number, mode: number, root: bigint, domain = 5n, perm = RW): void {
    this.dte(id, 3n | (BigInt(mode) << 9n) | root | perm, domain);
  }

  /** A fresh table page. */
  table(): bigint {
    this.#nextTable += 0x1000n;
    return this.#nextTable;
  }

  /** Writes the entry that serves `iova` in the table of `level` (1 … 6) at `table`. */
  entry(table: bigint, level: number, iova: bigint, value: bigint): void {
    const index = (iova >> BigInt(3 + 9 * level)) & 0x1ffn;
    this.memory.writeU64(table + 8n * index, value);
  }

  /** Tables of `mode` levels down to `level`, where `leaf` stands for `iova`; returns the root. */
  tables(mode: number, iova: bigint, leaf: bigint, level = 1): bigint {
    const root = this.table();
    let at = root;
    for (let l = mode; l > level; l--) {
      const next = this.table();
      this.entry(at, l, iova, 1n | (BigInt(l - 1) << 9n) | next | RW);
      at = next;
    }
    this.entry(at, level, iova, leaf);
    return root;
  }

  /** The physical address of an access, or the code that refused it as a number. */
  access(id: number, iova: bigint, access: number, pasid = NO_PASID): bigint | number {
    const { unit } = this;
    const [hi, lo] = [Number(BigInt.asIntN(32, iova >> 32n)), Number(BigInt.asIntN(32, iova))];
    const code = unit.translate(id, pasid, hi, lo, access);
    return code === 0 ? (BigInt(unit.outHi >>> 0) << 32n) | BigInt(unit.outLo >>> 0) : code;
  }

  /** Puts a command of two quadwords and rings the tail pointer. */
  command(low: bigint, high = 0n): void {
    this.memory.writeU64(COMMANDS + BigInt(16 * this.#tail), low);
    this.memory.writeU64(COMMANDS + BigInt(16 * this.#tail + 8), high);
    this.#tail = (this.#tail + 1) % RING;
    this.write64(CMD_TAIL, BigInt(16 * this.#tail));
  }

  /** Entry `n` of the event log as two quadwords. */
  event(n: number): [bigint, bigint] {
    const at = EVENTS + BigInt(16 * n);
    return [this.memory.readU64(at), this.memory.readU64(at + 8n)];
  }

  /** The entries between head and tail; the head is moved to the tail. */
  events(): [bigint, bigint][] {
    const all: [bigint, bigint][] = [];
    const tail = Number(this.read64(EVT_TAIL)) / 16;
    for (let n = Number(this.read64(EVT_HEAD)) / 16; n !== tail; n = (n + 1) % RING) all.push(this.event(n));
    this.write64(EVT_HEAD, BigInt(16 * tail));
    return all;
  }
}
