/**
 * The fault queue: specification section "Fault/Event-Queue (FQ)", registers `fqb`, `fqh`, `fqt`, `fqcsr`.
 */
import { maskLo } from '@iommu-ts/bits';
import type { HardwareStats, RegisterFile } from '@iommu-ts/iommu-core';
import { RingQueue } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { FAULT_RECORD_BYTES } from '../faults.ts';
import { REGISTERS, fqcsr } from '../registers.ts';
import { FIP } from './interrupts.ts';
import type { Interrupts } from './interrupts.ts';

const FQH = REGISTERS.fqh.offset >> 2;
const FQT = REGISTERS.fqt.offset >> 2;
const FQCSR = REGISTERS.fqcsr.offset >> 2;
const FQEN = maskLo(fqcsr.fqen);
const FIE = maskLo(fqcsr.fie);
const FQMF = maskLo(fqcsr.fqmf);
const FQOF = maskLo(fqcsr.fqof);
const FQON = maskLo(fqcsr.fqon);

export class FaultQueue {
  readonly #words: Int32Array;
  readonly #ring: RingQueue;
  readonly #interrupts: Interrupts;
  readonly #stats: HardwareStats;
  /** Index bits: entries - 1. */
  #mask = 0;

  constructor(memory: PhysicalMemory, registers: RegisterFile, interrupts: Interrupts, stats: HardwareStats) {
    this.#words = registers.words;
    this.#ring = new RingQueue(memory, FAULT_RECORD_BYTES);
    this.#interrupts = interrupts;
    this.#stats = stats;
  }

  /** `fqb` has been written: `2^(log2sz)` entries at page `pfn`. */
  place(pfn: number, mask: number): void {
    this.#mask = mask;
    this.#ring.place(pfn, (mask >>> 0) + 1);
    this.#words[FQH] = this.#words[FQH]! & mask;
  }

  writeHead(value: number): void {
    this.#words[FQH] = value & this.#mask;
  }

  writeCsr(value: number): void {
    const words = this.#words;
    const old = words[FQCSR]!;
    let csr = (old & (FQMF | FQOF) & ~value) | (value & (FQEN | FIE));
    if ((value & FQEN) !== 0) {
      csr |= FQON;
      if ((old & FQEN) === 0) {
        csr &= ~(FQMF | FQOF);
        words[FQT] = 0;
      }
    }
    words[FQCSR] = csr;
    this.updateInterrupt();
  }

  /** Sets `ipsr.fip` while an error bit stands and the interrupt is enabled. */
  updateInterrupt(): void {
    const csr = this.#words[FQCSR]!;
    if ((csr & FIE) !== 0 && (csr & (FQMF | FQOF)) !== 0) this.#interrupts.raise(FIP);
  }

  /**
   * Queues one record. Dropped when the queue is off or an error bit stands; a full queue sets `fqof`, a queue that memory
   * does not answer for sets `fqmf`.
   * @param word0 bits 31:0 of the record (CAUSE, PID)
   * @param word1 bits 63:32 (PV, PRIV, TTYP, DID)
   */
  record(word0: number, word1: number, valHi: number, valLo: number, val2Hi: number, val2Lo: number): void {
    this.#stats.faults++;
    const words = this.#words;
    const csr = words[FQCSR]!;
    if ((csr & FQON) === 0 || (csr & (FQMF | FQOF)) !== 0) return;
    const tail = words[FQT]!;
    const next = (tail + 1) & this.#mask;
    if (next === words[FQH]!) {
      words[FQCSR] = csr | FQOF;
      this.updateInterrupt();
      return;
    }
    const entry = this.#ring.words;
    entry[0] = word0;
    entry[1] = word1;
    entry[2] = 0;
    entry[3] = 0;
    entry[4] = valLo;
    entry[5] = valHi;
    entry[6] = val2Lo;
    entry[7] = val2Hi;
    if (!this.#ring.write(tail >>> 0)) {
      words[FQCSR] = csr | FQMF;
      this.updateInterrupt();
      return;
    }
    words[FQT] = next;
    if ((csr & FIE) !== 0) this.#interrupts.raise(FIP);
  }
}
