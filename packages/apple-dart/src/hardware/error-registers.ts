/**
 * Where faults go: DART has no fault queue. ERROR and ERROR_ADDR hold the first error; further ones are lost until software
 * clears FLAG by writing a one (Linux writes back what it read). The interrupt line is high while FLAG is set and, on t8110,
 * the error's code bit is not in ERROR_MASK.
 */
import { maskLo } from '@iommu-ts/bits';
import { ACCESS } from '@iommu-ts/iommu-core';
import type { RegisterFile } from '@iommu-ts/iommu-core';
import { codeOfError, codesOf } from '../faults.ts';
import type { Generation } from '../faults.ts';
import { T8020_ERROR, T8020_REGISTERS, T8110_ERROR, T8110_REGISTERS } from '../registers.ts';

const FLAG = maskLo(T8020_ERROR.FLAG); // bit 31 in both
const WRITE_NREAD = maskLo(T8110_ERROR.WRITE_nREAD);
const SECONDARY = maskLo(T8110_ERROR.SECONDARY);

/** Records errors in the registers and drives the interrupt line. */
export class ErrorRegisters {
  readonly #words: Int32Array;
  readonly #generation: Generation;
  readonly #codes: Int32Array;
  readonly #t8110: boolean;
  readonly #error: number;
  readonly #addrLo: number;
  readonly #addrHi: number;
  /** Called when the interrupt line rises. */
  onRise: (() => void) | null = null;
  #line = false;

  constructor(registers: RegisterFile, generation: Generation) {
    this.#words = registers.words;
    this.#generation = generation;
    this.#codes = codesOf(generation);
    this.#t8110 = generation === 't8110';
    const map = this.#t8110 ? T8110_REGISTERS : T8020_REGISTERS;
    this.#error = map.ERROR.offset >>> 2;
    this.#addrLo = map.ERROR_ADDR_LO.offset >>> 2;
    this.#addrHi = map.ERROR_ADDR_HI.offset >>> 2;
  }

  /** Level of the interrupt line. */
  get line(): boolean {
    return this.#line;
  }

  /** Code bits of a refusal. */
  codeOf(reason: number): number {
    return this.#codes[reason]!;
  }

  /** Records one refused access, unless an error is held already; returns the code bits. */
  record(reason: number, stream: number, iovaHi: number, iovaLo: number, access: number): number {
    const words = this.#words;
    const code = this.#codes[reason]!;
    if (this.#t8110) words[(T8110_REGISTERS.ERROR_STREAMS.offset >>> 2) + (stream >>> 5)]! |= 1 << (stream & 31);
    if ((words[this.#error]! & FLAG) !== 0) {
      if (this.#t8110) words[this.#error]! |= SECONDARY;
      return code;
    }
    words[this.#error] = this.#t8110
      ? FLAG | (stream << T8110_ERROR.STREAM.lsb) | ((access & ACCESS.WRITE) !== 0 ? WRITE_NREAD : 0) | code
      : FLAG | (stream << T8020_ERROR.STREAM.lsb) | code;
    words[this.#addrLo] = iovaLo;
    words[this.#addrHi] = iovaHi;
    this.update();
    return code;
  }

  /** Recomputes the interrupt line after ERROR or ERROR_MASK changed. */
  update(): void {
    const error = this.#words[this.#error]!;
    const mask = this.#t8110 ? this.#words[T8110_REGISTERS.ERROR_MASK.offset >>> 2]! : 0;
    const line = (error & FLAG) !== 0 && (codeOfError(this.#generation, error) & ~mask) !== 0;
    const rises = line && !this.#line;
    this.#line = line;
    if (rises && this.onRise !== null) this.onRise();
  }
}
