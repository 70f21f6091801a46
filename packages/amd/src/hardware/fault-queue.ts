/**
 * The event log: a ring in memory that the IOMMU writes and software reads.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, section 2.5 "Event Logging".
 */
import { fieldOfWord, hiOfPfn, loOfPfn, maskHi, maskLo, pfnOfWords } from '@iommu-ts/bits';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { RingQueue } from '@iommu-ts/iommu-core';
import type { HardwareStats } from '@iommu-ts/iommu-core';
import { EVENT, EVENTS, EVENT_BYTES } from '../faults.ts';
import { EventBaseAddr, REGISTERS, Status } from '../registers.ts';
import { FLAG_GN, MASTER_ABORT, rw } from './event-flags.ts';
import type { Interrupts } from './interrupts.ts';

const BASE = REGISTERS.EventBaseAddr.offset / 4;
const HEAD = REGISTERS.EvtLogHead.offset / 4;
const TAIL = REGISTERS.EvtLogTail.offset / 4;
const STATUS = REGISTERS.Status.offset / 4;

const BASE_HI = maskHi(EventBaseAddr.EventBase);
const EVENT_LOG_RUN = maskLo(Status.EventLogRun);
const EVENT_LOG_INT = maskLo(Status.EventLogInt);
const EVENT_OVERFLOW = maskLo(Status.EventOverflow);

/** Smallest ring length; smaller encodings are reserved. */
const MIN_LEN_LG2 = 8;

export class EventLog {
  readonly #words: Int32Array;
  readonly #ring: RingQueue;
  readonly #interrupts: Interrupts;
  readonly #stats: HardwareStats;

  constructor(words: Int32Array, memory: PhysicalMemory, interrupts: Interrupts, stats: HardwareStats) {
    this.#words = words;
    this.#ring = new RingQueue(memory, EVENT_BYTES);
    this.#interrupts = interrupts;
    this.#stats = stats;
  }

  /** EventLogEn (and IommuEn) have become 1: logging starts, unless the length is a reserved encoding. */
  start(): void {
    if (this.place()) this.#words[STATUS]! |= EVENT_LOG_RUN;
  }

  stop(): void {
    this.#words[STATUS]! &= ~EVENT_LOG_RUN;
  }

  /** Takes base and length from the register; false for a reserved length. */
  place(): boolean {
    const hi = this.#words[BASE + 1]!;
    const lenLg2 = fieldOfWord(hi, EventBaseAddr.EventLen);
    if (lenLg2 < MIN_LEN_LG2) return false;
    this.#ring.place(pfnOfWords(hi & BASE_HI, this.#words[BASE]!), 2 ** lenLg2);
    return true;
  }

  /** Logs that nothing answered at byte `offset` of page `pfn`, where an entry was to be read; returns the event's code. */
  hardwareError(code: number, id: number, domain: number, pfn: number, offset: number, access: number): number {
    this.write(id, (code << 28) | MASTER_ABORT | rw(access) | domain, loOfPfn(pfn) | offset, hiOfPfn(pfn));
    return code;
  }

  /** Logs the IO_PAGE_FAULT of a request with a PASID: GN and the PASID stand in it. Returns its code. */
  pasidFault(id: number, pasid: number, iovaHi: number, iovaLo: number, access: number): number {
    const w1 = (EVENT.IO_PAGE_FAULT << 28) | FLAG_GN | rw(access) | (pasid & 0xffff);
    this.write(id | (pasid & 0xf_0000), w1, iovaLo, iovaHi);
    return EVENT.IO_PAGE_FAULT;
  }

  /** Logs an INVALID_DEVICE_REQUEST of `type`, and returns its code. */
  invalidRequest(id: number, type: number, iovaHi: number, iovaLo: number): number {
    const w1 = (EVENT.INVALID_DEVICE_REQUEST << 28) | (type << (EVENTS.INVALID_DEVICE_REQUEST.Type.lsb - 32));
    this.write(id, w1, iovaLo, iovaHi);
    return EVENT.INVALID_DEVICE_REQUEST;
  }

  /** Logs an ILLEGAL_DEV_TABLE_ENTRY, and returns its code. */
  illegalDte(id: number, flags: number, iovaHi: number, iovaLo: number, access: number): number {
    const w1 = (EVENT.ILLEGAL_DEV_TABLE_ENTRY << 28) | flags | rw(access);
    this.write(id, w1, iovaLo & ~3, iovaHi);
    return EVENT.ILLEGAL_DEV_TABLE_ENTRY;
  }

  /**
   * Logs one entry, given as four words, lowest first. Lost when logging does not run; when the ring is full the entry is
   * lost as well, EventOverflow is set and logging stops until software enables it anew.
   */
  write(w0: number, w1: number, w2: number, w3: number): void {
    this.#stats.faults++;
    const words = this.#words;
    if ((words[STATUS]! & EVENT_LOG_RUN) === 0) return;
    const ring = this.#ring;
    const last = ring.entries - 1;
    const tail = (words[TAIL]! >>> 4) & last;
    const next = (tail + 1) & last;
    if (next === ((words[HEAD]! >>> 4) & last)) {
      words[STATUS] = (words[STATUS]! | EVENT_OVERFLOW) & ~EVENT_LOG_RUN;
      this.#interrupts.update();
      return;
    }
    ring.words[0] = w0;
    ring.words[1] = w1;
    ring.words[2] = w2;
    ring.words[3] = w3;
    // A log outside memory: the write is lost on the bus, the pointer moves on.
    ring.write(tail);
    words[TAIL] = next << 4;
    words[STATUS]! |= EVENT_LOG_INT;
    this.#interrupts.update();
  }
}
