import { IommuError, hex } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';
import type { MmioHandler } from '@iommu-ts/iommu-pages';
import type { MmioPort } from './mmio.ts';

/** How software may touch a register; single fields can differ through `RegisterSpec.rw1c` and `RegisterSpec.writable`. */
export type RegisterAccess = 'RO' | 'RW' | 'RW1C' | 'WO';

/** One register (or an array of equal ones), as the specification's register map prints it. */
export interface RegisterSpec {
  readonly offset: number;
  /** Bytes. */
  readonly width: 4 | 8;
  readonly access: RegisterAccess;
  readonly reset?: bigint;
  readonly layout?: Layout;
  /** Bits that software can change by writing (RW); default all for `RW`, none otherwise. */
  readonly writable?: bigint;
  /** Bits that a 1 clears; default all for `RW1C`, none otherwise. */
  readonly rw1c?: bigint;
  /** For arrays: how many, and the distance in bytes. */
  readonly count?: number;
  readonly stride?: number;
  readonly doc: string;
}

/** A register block as data: each register by its name in the specification. */
export type RegisterMap = Readonly<Record<string, RegisterSpec>>;

/** What hardware does about its registers; all optional. `index` counts 32-bit words from the block's base. */
export interface RegisterHooks {
  /** Before a word is read: refresh its stored value if it is computed. */
  beforeRead?(offset: number): void;
  /**
   * After a register has changed by a software write. `offset` is the register's own offset; a 64-bit register written in
   * two halves is reported once for each.
   */
  afterWrite?(offset: number): void;
  /**
   * A write about to happen. Return true when the hardware has dealt with it (nothing is stored then).
   * `offset` and `size` are as software gave them, aligned, and inside one register.
   */
  onWrite?(offset: number, size: 4 | 8, valueHi: number, valueLo: number): boolean;
}

/**
 * A block of registers: storage, access rules, and in one place what to do about sub-word, straddling and misaligned
 * accesses, so that no device model has to.
 *
 * - 4-byte accesses to halves of 8-byte registers work; an 8-byte access to two 4-byte registers is two accesses, low first.
 * - 1- and 2-byte reads extract; 1- and 2-byte writes, and misaligned accesses, are ignored and counted in `malformed`
 *   (specifications call them undefined). Reads of nothing give 0.
 */
export class RegisterFile implements MmioPort, MmioHandler {
  readonly size: number;
  /** Storage by 32-bit word; hardware reads and writes it directly, past the access rules. */
  readonly words: Int32Array;
  readonly #writable: Int32Array;
  readonly #rw1c: Int32Array;
  readonly #known: Uint8Array;
  readonly #readable: Uint8Array;
  /** Offset of the register that holds each word, -1 for none. */
  readonly #owner: Int32Array;
  readonly #reset: Int32Array;
  readonly hooks: RegisterHooks;
  hi = 0;
  lo = 0;
  /** Accesses that the specification leaves undefined, so far. */
  malformed = 0;

  /** @throws IommuError `EINVAL` when registers overlap or lie outside `size`. */
  constructor(map: RegisterMap, size: number, hooks: RegisterHooks = {}) {
    this.size = size;
    this.hooks = hooks;
    const n = size / 4;
    this.words = new Int32Array(n);
    this.#writable = new Int32Array(n);
    this.#rw1c = new Int32Array(n);
    this.#known = new Uint8Array(n);
    this.#readable = new Uint8Array(n);
    this.#owner = new Int32Array(n).fill(-1);
    this.#reset = new Int32Array(n);
    for (const [name, spec] of Object.entries(map)) {
      const all = (1n << BigInt(spec.width * 8)) - 1n;
      const writable = spec.writable ?? (spec.access === 'RW' || spec.access === 'WO' ? all : 0n);
      const rw1c = spec.rw1c ?? (spec.access === 'RW1C' ? all : 0n);
      for (let i = 0; i < (spec.count ?? 1); i++) {
        const offset = spec.offset + i * (spec.stride ?? spec.width);
        for (let w = 0; w < spec.width / 4; w++) {
          const at = offset / 4 + w;
          if (at >= n || this.#known[at] === 1) {
            throw new IommuError('EINVAL', `register ${name} at ${hex(offset)} overlaps another or lies outside`, {
              offset,
            });
          }
          const shift = BigInt(32 * w);
          this.#known[at] = 1;
          this.#readable[at] = spec.access === 'WO' ? 0 : 1;
          this.#owner[at] = offset;
          this.#writable[at] = Number(BigInt.asIntN(32, (writable & ~rw1c) >> shift));
          this.#rw1c[at] = Number(BigInt.asIntN(32, rw1c >> shift));
          this.#reset[at] = Number(BigInt.asIntN(32, (spec.reset ?? 0n) >> shift));
        }
      }
    }
    this.reset();
  }

  /** All registers back to their reset values. */
  reset(): void {
    this.words.set(this.#reset);
  }

  /** Changes the reset value (and the current one) of a register: identification registers given at construction. */
  define(offset: number, width: 4 | 8, value: bigint): void {
    for (let w = 0; w < width / 4; w++) {
      this.#reset[offset / 4 + w] = Number(BigInt.asIntN(32, value >> BigInt(32 * w)));
      this.words[offset / 4 + w] = this.#reset[offset / 4 + w]!;
    }
  }

  /** Changes which bits of a register software can write. */
  setWritable(offset: number, width: 4 | 8, mask: bigint): void {
    for (let w = 0; w < width / 4; w++)
      this.#writable[offset / 4 + w] = Number(BigInt.asIntN(32, mask >> BigInt(32 * w)));
  }

  /** Stored value of an 8-byte register, past all hooks. For tools and slow paths. */
  get64(offset: number): bigint {
    return (BigInt(this.words[offset / 4 + 1]! >>> 0) << 32n) | BigInt(this.words[offset / 4]! >>> 0);
  }

  /** Sets the stored value of an 8-byte register, past all hooks. */
  set64(offset: number, value: bigint): void {
    this.words[offset / 4] = Number(BigInt.asIntN(32, value));
    this.words[offset / 4 + 1] = Number(BigInt.asIntN(32, value >> 32n));
  }

  /** Reads 32 bits; an int32. What no register covers reads as zero. */
  read32(offset: number): number {
    const at = offset >>> 2;
    if ((offset & 3) !== 0 || at >= this.words.length) {
      this.malformed++;
      return 0;
    }
    if (this.#readable[at] === 0) return 0;
    if (this.hooks.beforeRead !== undefined) this.hooks.beforeRead(this.#owner[at]!);
    return this.words[at]!;
  }

  read64(offset: number): void {
    if ((offset & 7) !== 0) {
      this.malformed++;
      this.hi = 0;
      this.lo = 0;
      return;
    }
    const lo = this.read32(offset);
    this.hi = this.read32(offset + 4);
    this.lo = lo;
  }

  /** Writes 32 bits as the access rules of each field say. */
  write32(offset: number, value: number): void {
    const at = offset >>> 2;
    if ((offset & 3) !== 0 || at >= this.words.length) {
      this.malformed++;
      return;
    }
    if (this.#known[at] === 0) return;
    if (this.hooks.onWrite !== undefined && this.hooks.onWrite(offset, 4, 0, value | 0)) return;
    this.#merge(at, value);
    if (this.hooks.afterWrite !== undefined) this.hooks.afterWrite(this.#owner[at]!);
  }

  /** Writes 64 bits: one access to a 64-bit register, else two of 32 bits. */
  write64(offset: number, valueHi: number, valueLo: number): void {
    const at = offset >>> 2;
    if ((offset & 7) !== 0 || at + 1 >= this.words.length) {
      this.malformed++;
      return;
    }
    if (this.#owner[at] !== this.#owner[at + 1] || this.#known[at] === 0) {
      this.write32(offset, valueLo);
      this.write32(offset + 4, valueHi);
      return;
    }
    if (this.hooks.onWrite !== undefined && this.hooks.onWrite(offset, 8, valueHi | 0, valueLo | 0)) return;
    this.#merge(at, valueLo);
    this.#merge(at + 1, valueHi);
    if (this.hooks.afterWrite !== undefined) this.hooks.afterWrite(this.#owner[at]!);
  }

  /** {@link MmioHandler} face, for a block that is mapped into physical memory. */
  read(offset: number, size: 1 | 2 | 4 | 8): bigint {
    if (size === 8) {
      this.read64(offset);
      return (BigInt(this.hi >>> 0) << 32n) | BigInt(this.lo >>> 0);
    }
    if (size === 4) return BigInt(this.read32(offset) >>> 0);
    const word = BigInt(this.read32(offset & ~3) >>> 0);
    return BigInt.asUintN(8 * size, word >> BigInt(8 * (offset & 3)));
  }

  /** {@link MmioHandler}: a write of any size. */
  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    const lo = Number(BigInt.asIntN(32, value));
    if (size === 8) this.write64(offset, Number(BigInt.asIntN(32, value >> 32n)), lo);
    else if (size === 4) this.write32(offset, lo);
    else this.malformed++;
  }

  #merge(at: number, value: number): void {
    const writable = this.#writable[at]!;
    this.words[at] = ((this.words[at]! & ~writable) | (value & writable)) & ~(value & this.#rw1c[at]!);
  }
}
