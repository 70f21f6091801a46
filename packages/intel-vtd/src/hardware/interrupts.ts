/**
 * Event interrupts of a remapping unit: fault events and invalidation completion events.
 * VT-d specification revision 4.1, section 7.3 "Software Interaction: fault events" and 6.5.2.10 "Invalidation completion".
 *
 * An event is a control register (IM masks, IP pends) with message data and address. While masked, an event pends; it is
 * sent when software unmasks it, unless software has serviced the condition before.
 */
import { maskLo } from '@iommu-ts/bits';
import type { RegisterFile } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { EVENT_CTL } from '../registers.ts';

const IM = maskLo(EVENT_CTL.IM);
const IP = maskLo(EVENT_CTL.IP);

/** One event: the control register at `offset`, data, address and upper address in the three registers after it. */
export class EventInterrupt {
  private readonly words: Int32Array;
  private readonly memory: PhysicalMemory;
  private readonly at: number;
  private readonly notify: () => void;

  /** @param notify called when the message has been sent. */
  constructor(registers: RegisterFile, memory: PhysicalMemory, offset: number, notify: () => void) {
    this.words = registers.words;
    this.memory = memory;
    this.at = offset / 4;
    this.notify = notify;
  }

  /** The interrupt condition has come up. */
  raise(): void {
    this.words[this.at] = this.words[this.at]! | IP;
    this.deliver();
  }

  /** Software has written the control register: a pending message goes out when it is no longer masked. */
  deliver(): void {
    const control = this.words[this.at]!;
    if ((control & IP) === 0 || (control & IM) !== 0) return;
    this.words[this.at] = control & ~IP;
    // A message is a DWORD write; where nothing answers (a bare unit in a test) it is lost.
    this.memory.store32(this.words[this.at + 3]!, this.words[this.at + 2]!, this.words[this.at + 1]!);
    this.notify();
  }

  /** Software has serviced every condition: a message that still pends is dropped. */
  serviced(): void {
    this.words[this.at] = this.words[this.at]! & ~IP;
  }
}
