/**
 * Primary fault logging: the ring of fault recording registers, fault status, and the fault event.
 * VT-d specification revision 4.1, section 7.2.1 "Primary Fault Logging" and 7.3.
 */
import { fieldOfWord, maskLo, maskWord } from '@iommu-ts/bits';
import { ACCESS, NO_PASID } from '@iommu-ts/iommu-core';
import type { RegisterFile } from '@iommu-ts/iommu-core';
import { FRCD, FSTS, OFFSET } from '../registers.ts';
import type { Capabilities } from '../registers.ts';
import type { EventInterrupt } from './interrupts.ts';

const AT_FSTS = OFFSET.FSTS / 4;
const PFO = maskLo(FSTS.PFO);
const PPF = maskLo(FSTS.PPF);
const FRI = maskLo(FSTS.FRI);
/** Conditions that raise the fault event. While one of them stands, no further message is sent. */
const CONDITIONS = PFO | PPF | maskLo(FSTS.IQE) | maskLo(FSTS.ICE) | maskLo(FSTS.ITE);

const F = maskWord(FRCD.F, 3);
const T1 = maskWord(FRCD.T1, 3);
const PP = maskWord(FRCD.PP, 2);
const EXE = maskWord(FRCD.EXE, 2);
const PRIV = maskWord(FRCD.PRIV, 2);
const PV = maskWord(FRCD.PV, 3);
const PV_SHIFT = FRCD.PV.lsb - 96;

export class FaultLog {
  private readonly words: Int32Array;
  private readonly first: number;
  private readonly count: number;
  private readonly event: EventInterrupt;
  /** Index of the register that takes the next fault; hardware's own, no register shows it. */
  private next = 0;

  constructor(registers: RegisterFile, caps: Capabilities, event: EventInterrupt) {
    this.words = registers.words;
    this.first = caps.frcdOffset / 4;
    this.count = caps.frcdCount;
    this.event = event;
  }

  /** The index starts over while translation is disabled. */
  restart(): void {
    this.next = 0;
  }

  /** True for an offset inside the recording registers. */
  owns(offset: number): boolean {
    const at = offset / 4 - this.first;
    return at >= 0 && at < this.count * 4;
  }

  /**
   * Records a fault, unless an earlier overflow has not been cleared. A full ring sets PFO and loses the fault.
   * @param pasid PASID or `NO_PASID`
   */
  record(reason: number, requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number): void {
    const words = this.words;
    const status = words[AT_FSTS]!;
    if ((status & PFO) !== 0) return;
    const at = this.first + this.next * 4;
    if ((words[at + 3]! & F) !== 0) {
      this.set(PFO);
      return;
    }
    const hasPasid = pasid !== NO_PASID;
    words[at] = iovaLo & ~0xfff;
    words[at + 1] = iovaHi;
    words[at + 2] =
      (requester & 0xffff) |
      (hasPasid ? PP | ((access & ACCESS.EXEC) !== 0 ? EXE : 0) | ((access & ACCESS.PRIV) !== 0 ? PRIV : 0) : 0);
    words[at + 3] =
      F | ((access & ACCESS.WRITE) !== 0 ? 0 : T1) | (hasPasid ? (pasid << PV_SHIFT) & PV : 0) | (reason & 0xff);
    if ((status & PPF) === 0) words[AT_FSTS] = (status & ~FRI) | (this.next << FSTS.FRI.lsb);
    this.next = this.next + 1 === this.count ? 0 : this.next + 1;
    this.set(PPF);
  }

  /** Sets a status bit of FSTS and raises the event when no other condition stood before. */
  set(bit: number): void {
    const before = this.words[AT_FSTS]!;
    this.words[AT_FSTS] = before | bit;
    if ((before & CONDITIONS) === 0) this.event.raise();
  }

  /** Software has cleared an F field or status bits: PPF is the OR of all F fields; nothing left means nothing pends. */
  refresh(): void {
    const words = this.words;
    let pending = false;
    for (let i = 0; i < this.count; i++) if ((words[this.first + i * 4 + 3]! & F) !== 0) pending = true;
    if (!pending) words[AT_FSTS] = words[AT_FSTS]! & ~(PPF | FRI);
    if ((words[AT_FSTS]! & CONDITIONS) === 0) this.event.serviced();
  }

  /** True while IQE stops the invalidation queue. */
  get queueStopped(): boolean {
    return fieldOfWord(this.words[AT_FSTS]!, FSTS.IQE) !== 0;
  }
}
