/**
 * The driver's end of the event log: entries read from memory, acknowledged, decoded; logging restarted after an overflow.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, section 2.5 "Event Logging".
 */
import { addressOfPfn, maskLo } from '@iommu-ts/bits';
import type { FaultEvent, MmioPort } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { EVENT_BYTES, decodeEvent } from '../faults.ts';
import { Control, REGISTERS, Status } from '../registers.ts';

const CONTROL = REGISTERS.Control.offset;
const HEAD = REGISTERS.EvtLogHead.offset;
const TAIL = REGISTERS.EvtLogTail.offset;
const STATUS = REGISTERS.Status.offset;
const EVENT_LOG_EN = maskLo(Control.EventLogEn);
const EVENT_OVERFLOW = maskLo(Status.EventOverflow);
const EVENT_LOG_INT = maskLo(Status.EventLogInt);

/** Entries of the event log: 8 KiB, as Linux's. */
export const EVENT_ENTRIES_LG2 = 9;
const RING_BYTES = 2 ** EVENT_ENTRIES_LG2 * EVENT_BYTES;

/** Reads, acknowledges and decodes all entries that the log at page `pfn` holds. */
export const readEvents = (mmio: MmioPort, memory: PhysicalMemory, pfn: number): FaultEvent[] => {
  const events: FaultEvent[] = [];
  const status = mmio.read32(STATUS);
  // Acknowledged before the log is read: an event that comes in between interrupts again.
  mmio.write32(STATUS, status & EVENT_LOG_INT);
  const tail = mmio.read32(TAIL) & (RING_BYTES - EVENT_BYTES);
  let head = mmio.read32(HEAD) & (RING_BYTES - EVENT_BYTES);
  const base = addressOfPfn(pfn);
  while (head !== tail) {
    const at = base + BigInt(head);
    events.push(decodeEvent(memory.readU64(at), memory.readU64(at + 8n)));
    head = (head + EVENT_BYTES) & (RING_BYTES - EVENT_BYTES);
  }
  mmio.write32(HEAD, head);
  if ((status & EVENT_OVERFLOW) !== 0) {
    // The hardware has stopped logging: off, acknowledge, on again.
    const control = mmio.read32(CONTROL);
    mmio.write32(CONTROL, control & ~EVENT_LOG_EN);
    mmio.write32(STATUS, EVENT_OVERFLOW);
    mmio.write32(CONTROL, control);
  }
  return events;
};
