/** The driver's end of the fault queue: reads records from memory between `fqh` and `fqt`, and acknowledges them. */
import { join64 } from '@iommu-ts/bits';
import { RingQueue } from '@iommu-ts/iommu-core';
import type { FaultEvent, MmioPort } from '@iommu-ts/iommu-core';
import type { IommuPages } from '@iommu-ts/iommu-pages';
import { FAULT_RECORD_BYTES, decodeFault } from '../faults.ts';
import { REGISTERS } from '../registers.ts';
import { controlQueue, placeQueue } from './command-queue.ts';

const FQH = REGISTERS.fqh.offset;
const FQT = REGISTERS.fqt.offset;
const FQCSR = REGISTERS.fqcsr.offset;
const IPSR = REGISTERS.ipsr.offset;
const FQEN = 1;
const FIE = 2;
const FQMF_FQOF = 0x300;
const FIP = 2;

export class FaultHandler {
  readonly #mmio: MmioPort;
  readonly #pages: IommuPages;
  readonly #ring: RingQueue;
  readonly #pfn: number;
  readonly #mask: number;
  #head = 0;
  /** Times the queue was found overflown or unwritable. */
  overflows = 0;

  constructor(mmio: MmioPort, pages: IommuPages, log2sz: number) {
    this.#mmio = mmio;
    this.#pages = pages;
    const place = placeQueue(mmio, pages, REGISTERS.fqb.offset, FAULT_RECORD_BYTES, log2sz);
    this.#pfn = place.pfn;
    this.#mask = 2 ** place.log2sz - 1;
    this.#ring = new RingQueue(pages.memory, FAULT_RECORD_BYTES);
    this.#ring.place(place.pfn, this.#mask + 1);
    mmio.write32(FQH, 0);
    controlQueue(mmio, FQCSR, FQEN | FIE | FQMF_FQOF);
  }

  close(): void {
    controlQueue(this.#mmio, FQCSR, 0);
    this.#pages.freePages(this.#pfn);
  }

  handle(): FaultEvent[] {
    const mmio = this.#mmio;
    // Acknowledge first: a record that arrives while the queue is emptied raises the interrupt again.
    mmio.write32(IPSR, FIP);
    const events: FaultEvent[] = [];
    const tail = mmio.read32(FQT) & this.#mask;
    while (this.#head !== tail) {
      this.#ring.read(this.#head);
      const w = this.#ring.words;
      events.push(
        decodeFault([join64(w[1]!, w[0]!), join64(w[3]!, w[2]!), join64(w[5]!, w[4]!), join64(w[7]!, w[6]!)]),
      );
      this.#head = (this.#head + 1) & this.#mask;
    }
    mmio.write32(FQH, this.#head);
    const csr = mmio.read32(FQCSR);
    if ((csr & FQMF_FQOF) !== 0) {
      this.overflows++;
      mmio.write32(FQCSR, FQEN | FIE | (csr & FQMF_FQOF));
      mmio.write32(IPSR, FIP);
    }
    return events;
  }
}
