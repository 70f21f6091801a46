/**
 * The driver's end of the command queue: commands are written to the ring, the tail is moved, and completion is read from
 * `cqh` (an IOFENCE.C is complete once the head is past it).
 */
import { IommuError, addressOfPfn, hex, hi32, lo32 } from '@iommu-ts/bits';
import { RingQueue } from '@iommu-ts/iommu-core';
import type { MmioPort } from '@iommu-ts/iommu-core';
import type { IommuPages } from '@iommu-ts/iommu-pages';
import { NO_PAGE } from '@iommu-ts/iommu-pages';
import { COMMAND_BYTES, FUNC3, OPCODE } from '../commands.ts';
import { REGISTERS } from '../registers.ts';

/** Reads of a register before the driver gives up on the hardware. */
export const POLL_LIMIT = 1000;

const CQH = REGISTERS.cqh.offset;
const CQT = REGISTERS.cqt.offset;
const CQCSR = REGISTERS.cqcsr.offset;

const INVAL_VMA = OPCODE.IOTINVAL | (FUNC3.IOTINVAL.VMA << 7);
const INVAL_DDT = OPCODE.IODIR | (FUNC3.IODIR.INVAL_DDT << 7);
const FENCE = OPCODE.IOFENCE | (FUNC3.IOFENCE.C << 7);
const AV = 1 << 10;
const PR = 1 << 12;
const PW = 1 << 13;
const PSCV = 1;
const DV = 2;
const ERRORS = 0x700;

/** A queue in memory and its base register, placed as large as both sides allow. */
interface QueuePlace {
  readonly pfn: number;
  readonly log2sz: number;
}

/**
 * Allocates a queue of up to `2^log2sz` entries and programs its base register. The LOG2SZ-1 field is WARL: what the hardware
 * takes of "as large as can be" is its limit.
 * @throws IommuError `ENOMEM`, `ENODEV` when the register does not take what it offered.
 */
export const placeQueue = (
  mmio: MmioPort,
  pages: IommuPages,
  base: number,
  entryBytes: number,
  log2sz: number,
): QueuePlace => {
  mmio.write64(base, 0, 0x1f);
  mmio.read64(base);
  const size = Math.min(log2sz, (mmio.lo & 0x1f) + 1);
  const pfn = pages.allocPagesSz(Math.max(4096, entryBytes * 2 ** size));
  if (pfn === NO_PAGE) throw new IommuError('ENOMEM', `no memory for a queue of ${2 ** size} entries`);
  const value = (addressOfPfn(pfn) >> 2n) | BigInt(size - 1);
  mmio.write64(base, hi32(value), lo32(value));
  mmio.read64(base);
  if ((mmio.lo | 0) !== (lo32(value) | 0) || (mmio.hi | 0) !== (hi32(value) | 0)) {
    pages.freePages(pfn);
    throw new IommuError('ENODEV', `queue base register ${hex(base)} did not take ${hex(value)}`, { base, value });
  }
  return { pfn, log2sz: size };
};

/**
 * Writes a control-and-status register and waits for its busy bit (17) to clear.
 * @throws IommuError `ETIMEDOUT` when the queue does not turn on (or off).
 */
export const controlQueue = (mmio: MmioPort, csr: number, value: number): void => {
  mmio.write32(csr, value);
  for (let i = 0; i < POLL_LIMIT; i++) {
    const now = mmio.read32(csr);
    if ((now & (1 << 17)) !== 0) continue;
    if (((now >>> 16) & 1) === (value & 1)) return;
  }
  throw new IommuError('ETIMEDOUT', `queue register ${hex(csr)} does not follow ${hex(value)}`, { csr, value });
};

export class CommandSender {
  readonly #mmio: MmioPort;
  readonly #pages: IommuPages;
  readonly #ring: RingQueue;
  readonly #pfn: number;
  readonly #mask: number;
  #tail = 0;
  /** Head as last read: commands before it are done. */
  #head = 0;
  /** Commands that invalidate translations, so far. */
  invalidations = 0;

  constructor(mmio: MmioPort, pages: IommuPages, log2sz: number) {
    this.#mmio = mmio;
    this.#pages = pages;
    const place = placeQueue(mmio, pages, REGISTERS.cqb.offset, COMMAND_BYTES, log2sz);
    this.#pfn = place.pfn;
    this.#mask = 2 ** place.log2sz - 1;
    this.#ring = new RingQueue(pages.memory, COMMAND_BYTES);
    this.#ring.place(place.pfn, this.#mask + 1);
    mmio.write32(CQT, 0);
    controlQueue(mmio, CQCSR, 1);
    // The interrupt of the command queue stays off: the driver polls.
  }

  /** Turns the queue off and gives its memory back. */
  close(): void {
    controlQueue(this.#mmio, CQCSR, 0);
    this.#pages.freePages(this.#pfn);
  }

  /** IODIR.INVAL_DDT of one device, or, with `did` < 0, of all. */
  invalidateDdt(did: number): void {
    this.#push(INVAL_DDT, did < 0 ? 0 : DV | (did << 8), 0, 0);
  }

  /** IOTINVAL.VMA of all host address spaces. */
  invalidateAll(): void {
    this.invalidations++;
    this.#push(INVAL_VMA, 0, 0, 0);
  }

  /** IOTINVAL.VMA of one PSCID. */
  invalidateSpace(pscid: number): void {
    this.invalidations++;
    this.#push(INVAL_VMA | (pscid << 12), PSCV, 0, 0);
  }

  /** IOTINVAL.VMA of the leaf that holds page `pfn` of the IOVA space, in one PSCID. */
  invalidatePage(pscid: number, pfn: number): void {
    this.invalidations++;
    // ADDR[63:12] stands in bits 61:10 of the second doubleword.
    const high = Math.floor(pfn / 0x40_0000);
    this.#push(INVAL_VMA | AV | (pscid << 12), PSCV, (pfn - high * 0x40_0000) << 10, high);
  }

  /** IOFENCE.C, and waits until the hardware has executed it and everything before it. @throws IommuError `ETIMEDOUT`. */
  sync(): void {
    this.#push(FENCE | PR | PW, 0, 0, 0);
    this.#kick();
    this.#wait(this.#tail);
  }

  #push(w0: number, w1: number, w2: number, w3: number): void {
    const next = (this.#tail + 1) & this.#mask;
    if (next === this.#head) {
      // Full as far as is known: let the hardware work it off.
      this.#kick();
      this.#wait(this.#tail);
    }
    const words = this.#ring.words;
    words[0] = w0;
    words[1] = w1;
    words[2] = w2;
    words[3] = w3;
    this.#ring.write(this.#tail);
    this.#tail = next;
  }

  #kick(): void {
    this.#mmio.write32(CQT, this.#tail);
  }

  #wait(until: number): void {
    for (let i = 0; i < POLL_LIMIT; i++) {
      this.#head = this.#mmio.read32(CQH);
      if (this.#head === until) return;
    }
    const csr = this.#mmio.read32(CQCSR) >>> 0;
    throw new IommuError(
      'ETIMEDOUT',
      (csr & ERRORS) === 0
        ? `the command queue stands at ${this.#head}, before ${until}`
        : `the command queue stopped at entry ${this.#head} with cqcsr ${hex(csr)}`,
      { cqh: this.#head, cqt: until, cqcsr: csr },
    );
  }
}
