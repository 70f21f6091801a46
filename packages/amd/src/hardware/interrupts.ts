/**
 * Interrupts: the IOMMU's one MSI, sent for the event log and for COMPLETION_WAIT.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, section 2.5 "Event Logging" and 3.4 "IOMMU MMIO Registers".
 */
import { maskLo } from '@iommu-ts/bits';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { Control, MsiCapHeader, REGISTERS, Status } from '../registers.ts';

const CONTROL = REGISTERS.Control.offset / 4;
const STATUS = REGISTERS.Status.offset / 4;
const MSI_HEADER = REGISTERS.MsiCapHeader.offset / 4;
const MSI_ADDR_LO = REGISTERS.MsiAddrLo.offset / 4;
const MSI_ADDR_HI = REGISTERS.MsiAddrHi.offset / 4;
const MSI_DATA = REGISTERS.MsiData.offset / 4;

const EVENT_INT_EN = maskLo(Control.EventIntEn);
const COM_WAIT_INT_EN = maskLo(Control.ComWaitIntEn);
const EVENT_LOG_INT = maskLo(Status.EventLogInt);
const EVENT_OVERFLOW = maskLo(Status.EventOverflow);
const COM_WAIT_INT = maskLo(Status.ComWaitInt);
const MSI_EN = maskLo(MsiCapHeader.MsiEn);

/** Sends the message when a cause and its enable have both become 1; a cause that stands already sends no second one. */
export class Interrupts {
  readonly #words: Int32Array;
  readonly #memory: PhysicalMemory;
  #pending = 0;
  /** Called with `'fault'` or `'cmdq'`. */
  onInterrupt: ((source: string) => void) | null = null;

  constructor(words: Int32Array, memory: PhysicalMemory) {
    this.#words = words;
    this.#memory = memory;
  }

  reset(): void {
    this.#pending = 0;
  }

  /** To be called after any change of Status or Control. */
  update(): void {
    const status = this.#words[STATUS]!;
    const control = this.#words[CONTROL]!;
    let now = 0;
    if ((control & EVENT_INT_EN) !== 0) now |= status & (EVENT_LOG_INT | EVENT_OVERFLOW);
    if ((control & COM_WAIT_INT_EN) !== 0) now |= status & COM_WAIT_INT;
    const risen = now & ~this.#pending;
    this.#pending = now;
    if ((risen & (EVENT_LOG_INT | EVENT_OVERFLOW)) !== 0) this.#send('fault');
    if ((risen & COM_WAIT_INT) !== 0) this.#send('cmdq');
  }

  #send(source: string): void {
    const words = this.#words;
    if ((words[MSI_HEADER]! & MSI_EN) !== 0) {
      // A message to an address that nothing answers is lost, as on a bus.
      this.#memory.store32(words[MSI_ADDR_HI]!, words[MSI_ADDR_LO]!, words[MSI_DATA]!);
    }
    if (this.onInterrupt !== null) this.onInterrupt(source);
  }
}
