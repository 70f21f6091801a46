/**
 * The driver's invalidations: through the queue in memory where the unit has one, else through CCMD and IOTLB_REG.
 * VT-d specification revision 4.1, section 6.5. Every call returns when the hardware has completed it.
 */
import { IommuError, addressOfPfn, hex, hi32, hiOfPfn, lo32, loOfPfn, maskLo, maskWord } from '@iommu-ts/bits';
import type { MmioPort } from '@iommu-ts/iommu-core';
import { NO_PAGE } from '@iommu-ts/iommu-pages';
import type { IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { CC_GRANULARITY, CC_INV, INV_TYPE, IOTLB_GRANULARITY, IOTLB_INV, WAIT } from '../commands.ts';
import { CCMD, FSTS, IOTLB, IQERCD, OFFSET } from '../registers.ts';
import type { Capabilities } from '../registers.ts';

/** Bytes of the queue: one page, 256 descriptors (QS = 0). */
const QUEUE_BYTES = 4096;
/** Register reads before a command counts as lost. */
const POLLS = 1000;
const IQE = maskLo(FSTS.IQE);
const ICC = maskWord(CCMD.ICC, 1);
const IVT = maskWord(IOTLB.IVT, 1);
const WAIT_WORD = INV_TYPE.WAIT | maskLo(WAIT.SW);

export class Invalidations {
  private readonly mmio: MmioPort;
  private readonly memory: PhysicalMemory;
  private readonly pages: IommuPages;
  private readonly caps: Capabilities;
  private queuePfn = NO_PAGE;
  private statusPfn = NO_PAGE;
  private tail = 0;
  private sequence = 0;
  private readonly drain: number;
  private readonly drainRegister: number;
  /** Commands that invalidated translations. */
  count = 0;

  constructor(mmio: MmioPort, memory: PhysicalMemory, pages: IommuPages, caps: Capabilities) {
    this.mmio = mmio;
    this.memory = memory;
    this.pages = pages;
    this.caps = caps;
    this.drain = (caps.dwd ? maskLo(IOTLB_INV.DW) : 0) | (caps.drd ? maskLo(IOTLB_INV.DR) : 0);
    this.drainRegister = (caps.dwd ? maskWord(IOTLB.DW, 1) : 0) | (caps.drd ? maskWord(IOTLB.DR, 1) : 0);
  }

  /**
   * Allocates the queue and tells the unit where it is; the caller then sets GCMD.QIE. False when the unit has no queue.
   * @throws IommuError `ENOMEM`.
   */
  setUpQueue(): boolean {
    if (!this.caps.qi) return false;
    this.queuePfn = this.pages.allocPagesSz(QUEUE_BYTES);
    this.statusPfn = this.pages.allocPagesSz(4096);
    if (this.queuePfn === NO_PAGE || this.statusPfn === NO_PAGE) {
      this.tearDown();
      throw new IommuError('ENOMEM', 'no page for the invalidation queue');
    }
    const base = addressOfPfn(this.queuePfn);
    this.tail = 0;
    this.mmio.write64(OFFSET.IQT, 0, 0);
    this.mmio.write64(OFFSET.IQA, hi32(base), lo32(base) | 0);
    return true;
  }

  /** Gives the queue's pages back; the queue must be off. */
  tearDown(): void {
    this.pages.freePages(this.queuePfn);
    this.pages.freePages(this.statusPfn);
    this.queuePfn = this.statusPfn = NO_PAGE;
  }

  /** All context entries. */
  contextGlobal(): void {
    this.context(CC_GRANULARITY.GLOBAL, 0, 0);
  }

  /** The context entry of one device, last programmed with domain-id `did`. */
  contextDevice(did: number, sid: number): void {
    this.context(CC_GRANULARITY.DEVICE, did, sid);
  }

  /** All translations. */
  iotlbGlobal(): void {
    this.iotlb(IOTLB_GRANULARITY.GLOBAL, 0, 0, 0);
  }

  /** All translations of a domain. */
  iotlbDomain(did: number): void {
    this.iotlb(IOTLB_GRANULARITY.DOMAIN, did, 0, 0);
  }

  /**
   * The pages `startPfn … lastPfn` of a domain: one page-selective command for the smallest aligned power of two around
   * them, or the whole domain where that is more than CAP.MAMV allows or the unit has no page-selective invalidation.
   * @param leafOnly no table was removed: the unit may keep upper-level entries (IH).
   */
  iotlbPages(did: number, startPfn: number, lastPfn: number, leafOnly: boolean): void {
    let am = 0;
    let size = 1;
    while (Math.floor(startPfn / size) !== Math.floor(lastPfn / size)) {
      am++;
      size *= 2;
    }
    if (!this.caps.psi || am > this.caps.mamv) {
      this.iotlbDomain(did);
      return;
    }
    const first = Math.floor(startPfn / size) * size;
    this.iotlb(IOTLB_GRANULARITY.PAGE, did, hiOfPfn(first), loOfPfn(first) | (leafOnly ? 1 << 6 : 0) | am);
  }

  private context(granularity: number, did: number, sid: number): void {
    if (this.queuePfn !== NO_PAGE) {
      this.put(INV_TYPE.CC_INV | (granularity << CC_INV.G.lsb) | (did << CC_INV.DID.lsb), sid, 0, 0);
      this.complete();
      return;
    }
    this.mmio.write64(OFFSET.CCMD, ICC | (granularity << (CCMD.CIRG.lsb - 32)), (sid << CCMD.SID.lsb) | did);
    this.poll(OFFSET.CCMD + 4, ICC, 'context-cache invalidation');
  }

  private iotlb(granularity: number, did: number, hi: number, lo: number): void {
    this.count++;
    if (this.queuePfn !== NO_PAGE) {
      const word = INV_TYPE.IOTLB_INV | (granularity << IOTLB_INV.G.lsb) | this.drain | (did << IOTLB_INV.DID.lsb);
      this.put(word, 0, hi, lo);
      this.complete();
      return;
    }
    const iva = this.caps.ivaOffset;
    if (granularity === IOTLB_GRANULARITY.PAGE) this.mmio.write64(iva, hi, lo);
    const command = IVT | (granularity << (IOTLB.IIRG.lsb - 32)) | this.drainRegister | did;
    this.mmio.write64(iva + 8, command, 0);
    this.poll(iva + 12, IVT, 'IOTLB invalidation');
  }

  private poll(offset: number, bit: number, what: string): void {
    for (let i = 0; i < POLLS; i++) if ((this.mmio.read32(offset) & bit) === 0) return;
    throw new IommuError('ETIMEDOUT', `${what} was not completed`);
  }

  /** Writes a descriptor at the tail; nothing tells the unit yet. `w0, w1` is the first quadword, `hi:lo` the second. */
  private put(w0: number, w1: number, hi: number, lo: number): void {
    const page = hiOfPfn(this.queuePfn);
    const at = loOfPfn(this.queuePfn) | this.tail;
    this.memory.store64(page, at, w1, w0);
    this.memory.store64(page, at | 8, hi, lo);
    this.tail = (this.tail + 16) % QUEUE_BYTES;
  }

  /** Adds a wait descriptor with status write, moves the tail, and waits for the status to appear in memory. */
  private complete(): void {
    this.sequence = (this.sequence + 1) | 0;
    const statusHi = hiOfPfn(this.statusPfn);
    // Each wait has a status word of its own, by its place in the queue.
    const statusLo = loOfPfn(this.statusPfn) | (this.tail >>> 2);
    this.put(WAIT_WORD, this.sequence, statusHi, statusLo);
    this.mmio.write32(OFFSET.IQT, this.tail);
    for (let i = 0; i < POLLS; i++) {
      if (this.memory.load32(statusHi, statusLo) === this.sequence) return;
      if ((this.mmio.read32(OFFSET.FSTS) & IQE) !== 0) this.queueError();
    }
    throw new IommuError('ETIMEDOUT', 'an invalidation wait was not completed');
  }

  private queueError(): never {
    const reason = this.mmio.read32(OFFSET.IQERCD) & maskLo(IQERCD.IQEI);
    const head = this.mmio.read32(OFFSET.IQH);
    throw new IommuError('EIO', `invalidation queue error ${reason} at descriptor offset ${hex(head)}`, {
      head,
      reason,
    });
  }
}
