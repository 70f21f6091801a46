/** The event queue (IHI 0070, 3.5, 7.2-7.4): records written in order, overflow told by OVFLG, aborts by GERROR. */
import { maskHi, maskLo, pfnOfWords } from '@iommu-ts/bits';
import type { RegisterFile } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { EVENT_BYTES } from '../faults.ts';
import { CR0, EVENTQ_PROD, GERROR, QUEUE_BASE, REG } from '../registers.ts';
import type { Capabilities } from './capabilities.ts';
import type { Interrupts } from './interrupts.ts';

const EVENTQEN = maskLo(CR0.EVENTQEN);
const OVFLG = maskLo(EVENTQ_PROD.OVFLG);
const EVENTQ_ABT_ERR = maskLo(GERROR.EVENTQ_ABT_ERR);
const LOG2SIZE = maskLo(QUEUE_BASE.LOG2SIZE);
/** QUEUE_BASE.ADDR as (hi, lo). */
const ADDR_HI = maskHi(QUEUE_BASE.ADDR);
const ADDR_LO = maskLo(QUEUE_BASE.ADDR);

/** log2 of the entries of a queue: what its base register says, capped to what is implemented (6.3.26). */
export const queueLog2 = (registers: Int32Array, base: number, limit: number): number =>
  Math.min(registers[base / 4]! & LOG2SIZE, limit);

/**
 * Finds entry `index` of a queue of `2^log2` entries: `memory.view`/`memory.index` hold its words. The queue is aligned to
 * its own size, so an entry never crosses a page. False: nothing answers.
 */
export const locateEntry = (
  memory: PhysicalMemory,
  registers: Int32Array,
  base: number,
  log2: number,
  entryBytes: number,
  index: number,
  forWrite: boolean,
): boolean => {
  const lo = (registers[base / 4]! & ADDR_LO & -(entryBytes << log2)) | (index * entryBytes);
  if (!memory.locate(pfnOfWords(registers[base / 4 + 1]! & ADDR_HI, lo), forWrite)) return false;
  memory.index += (lo & 0xfff) >>> 2;
  return true;
};

export class EventQueue {
  readonly #registers: Int32Array;
  readonly #memory: PhysicalMemory;
  readonly #interrupts: Interrupts;
  readonly #limit: number;
  /** Words of the record to be written. */
  readonly words = new Int32Array(EVENT_BYTES / 4);

  constructor(registers: RegisterFile, memory: PhysicalMemory, capabilities: Capabilities, interrupts: Interrupts) {
    this.#registers = registers.words;
    this.#memory = memory;
    this.#interrupts = interrupts;
    this.#limit = capabilities.evtqLog2;
  }

  /** Writes {@link words} as the next record; false when it was lost (queue off, full, or unreachable). */
  record(): boolean {
    const registers = this.#registers;
    if ((registers[REG.CR0 / 4]! & EVENTQEN) === 0 || this.#interrupts.active(EVENTQ_ABT_ERR)) return false;
    const log2 = queueLog2(registers, REG.EVENTQ_BASE, this.#limit);
    const entries = 1 << log2;
    const mask = 2 * entries - 1;
    const prod = registers[REG.EVENTQ_PROD / 4]!;
    const cons = registers[REG.EVENTQ_CONS / 4]!;
    if (((prod ^ cons) & mask) === entries) {
      // Full: the overflow condition is entered unless it is there already (7.4).
      if (((prod ^ cons) & OVFLG) === 0) registers[REG.EVENTQ_PROD / 4] = prod ^ OVFLG;
      return false;
    }
    const memory = this.#memory;
    if (!locateEntry(memory, registers, REG.EVENTQ_BASE, log2, EVENT_BYTES, prod & (entries - 1), true)) {
      this.#interrupts.error(EVENTQ_ABT_ERR);
      return false;
    }
    for (let i = 0; i < this.words.length; i++) memory.view[memory.index + i] = this.words[i]!;
    registers[REG.EVENTQ_PROD / 4] = (prod & OVFLG) | ((prod + 1) & mask);
    if (((prod ^ cons) & mask) === 0) this.#interrupts.eventQueue();
    return true;
  }
}
