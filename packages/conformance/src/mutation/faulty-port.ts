/**
 * Stands between a driver and its registers and does what a wrong driver would have done: leaves commands out, sends them
 * with a wrong field, or does not wait. The driver's code stays as it is.
 */
import type { MmioPort } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';

/** A command queue in memory, as far as a fault has to know it. */
export interface RingLayout {
  /** Offset of the base register, and what a value written to it says. */
  readonly base: number;
  readonly place: (hi: number, lo: number) => { readonly pfn: number; readonly entries: number };
  /** Offset of the tail (producer) register, and the entry that a value points to. */
  readonly tail: number;
  readonly indexOf: (value: number) => number;
  /** Whether a command invalidates (and does not wait for completion or the like). */
  readonly invalidates: (words: Int32Array) => boolean;
  /** A command of 16 bytes that does nothing. */
  readonly nop: readonly [number, number, number, number];
  /** Whether commands of this kind complete by a store to memory: then makes that store. */
  readonly complete?: (words: Int32Array, memory: PhysicalMemory) => void;
}

/** What is wrong at the registers. Everything is optional; what is left out passes through. */
export interface PortFault {
  /** Edits a command before the device sees it; `'drop'` leaves it out. */
  readonly command?: (words: Int32Array) => 'drop' | void;
  /** The value that is written instead; null: nothing is. `nth` counts the writes to this register since armed, from 1. */
  readonly write32?: (offset: number, value: number, nth: number) => number | null;
  /** False: the 64-bit write is left out. */
  readonly write64?: (offset: number, hi: number, lo: number) => boolean;
  /**
   * The driver does not wait: the device is told of commands, but every completion is answered here, at once.
   * What a read of `offset` then gives; `lastTail` is the last value of the tail register, `undefined` asks the device.
   */
  readonly impatient?: (offset: number, lastTail: number) => number | undefined;
}

/** How a driver talks to its unit, as far as faults have to know it. */
export interface PortLayout {
  /** Null for a driver whose commands are register writes. */
  readonly ring: RingLayout | null;
  /** Without a ring: offset of the register that takes invalidation commands. */
  readonly commandRegister?: number;
}

/** The port with a fault in it, once armed. */
export class FaultyPort implements MmioPort {
  readonly #inner: MmioPort;
  readonly #memory: PhysicalMemory;
  readonly #ring: RingLayout | null;
  readonly #commandRegister: number;
  readonly #fault: PortFault;
  readonly #words = new Int32Array(4);
  readonly #writes = new Map<number, number>();
  #pfn = 0;
  #entries = 0;
  #seen = 0;
  #lastTail = 0;
  /** Until set, everything passes through: a system is set up without faults. */
  armed = false;
  /** Times that the fault did something. */
  struck = 0;
  #silent = false;
  /** Page of the command queue. */
  get ringPfn(): number {
    return this.#pfn;
  }

  constructor(inner: MmioPort, memory: PhysicalMemory, layout: PortLayout, fault: PortFault) {
    this.#inner = inner;
    this.#memory = memory;
    this.#ring = layout.ring;
    this.#commandRegister = layout.commandRegister ?? -1;
    this.#fault = fault;
  }

  /** Runs `run`, in which no invalidation gets through to the device. */
  silently(run: () => void): void {
    this.#silent = true;
    try {
      run();
    } finally {
      this.#silent = false;
    }
  }

  get hi(): number {
    return this.#inner.hi;
  }
  get lo(): number {
    return this.#inner.lo;
  }

  read32(offset: number): number {
    if (this.armed && this.#fault.impatient !== undefined) {
      const value = this.#fault.impatient(offset, this.#lastTail);
      if (value !== undefined) {
        this.struck++;
        return value;
      }
    }
    return this.#inner.read32(offset);
  }

  read64(offset: number): void {
    this.#inner.read64(offset);
  }

  write32(offset: number, value: number): void {
    if (this.#silent && offset === this.#commandRegister) return;
    let written = value;
    if (this.armed && this.#fault.write32 !== undefined) {
      const nth = (this.#writes.get(offset) ?? 0) + 1;
      this.#writes.set(offset, nth);
      const instead = this.#fault.write32(offset, value, nth);
      if (instead !== value) this.struck++;
      if (instead === null) return;
      written = instead;
    }
    if (this.#ring !== null && offset === this.#ring.tail) this.#tail(value);
    this.#inner.write32(offset, written);
  }

  write64(offset: number, hi: number, lo: number): void {
    const ring = this.#ring;
    if (ring !== null && offset === ring.base) {
      const { pfn, entries } = ring.place(hi, lo);
      this.#pfn = pfn;
      this.#entries = entries;
    }
    if (ring !== null && offset === ring.tail) this.#seen = ring.indexOf(lo);
    if (this.armed && this.#fault.write64 !== undefined && !this.#fault.write64(offset, hi, lo)) {
      this.struck++;
      return;
    }
    this.#inner.write64(offset, hi, lo);
  }

  /** The driver has moved the tail: the commands before it are edited where they lie. */
  #tail(value: number): void {
    const ring = this.#ring!;
    const to = ring.indexOf(value);
    this.#lastTail = value;
    for (; this.#seen !== to; this.#seen = (this.#seen + 1) % this.#entries) {
      if (this.armed || this.#silent) this.#edit(this.#seen);
    }
  }

  #edit(index: number): void {
    const { command, impatient } = this.#fault;
    const memory = this.#memory;
    const byte = index * 16;
    if (!memory.locate(this.#pfn + (byte >>> 12), true)) return;
    const { view } = memory;
    const at = memory.index + ((byte & 0xfff) >>> 2);
    const words = this.#words;
    for (let i = 0; i < 4; i++) words[i] = view[at + i]!;
    const { nop, invalidates } = this.#ring!;
    if (this.#silent && invalidates(words)) {
      for (let i = 0; i < 4; i++) view[at + i] = nop[i]!;
      return;
    }
    if (this.armed && command !== undefined) {
      if (command(words) === 'drop') words.set(nop);
      for (let i = 0; i < 4; i++) {
        if (view[at + i] !== words[i]) this.struck++;
        view[at + i] = words[i]!;
      }
    }
    if (impatient !== undefined && this.#ring!.complete !== undefined) {
      this.struck++;
      this.#ring!.complete(words, memory);
    }
  }
}
