/**
 * Invalidations: the queue in memory and the two invalidation registers.
 * VT-d specification revision 4.1, section 6.5.1 "Register-based invalidation", 6.5.2 "Queued invalidation".
 *
 * Descriptors are executed one after the other, so a wait descriptor is complete when everything before it is, and draining
 * and fences have nothing to wait for. When they are executed is the unit's business: it calls {@link Invalidator.run}.
 */
import { addressOfPfn, fieldOfWord, hex, maskLo, maskWord, pfnOfWords } from '@iommu-ts/bits';
import type { Field } from '@iommu-ts/bits';
import { LAYER, RingQueue } from '@iommu-ts/iommu-core';
import type { HardwareStats, IommuHardware, Iotlb, RegisterFile } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import {
  CC_INV,
  DEV_TLB_INV,
  IEC_INV,
  INV_TYPE,
  IOTLB_INV,
  IQEI,
  PASID_CACHE_INV,
  PASID_IOTLB_INV,
  WAIT,
} from '../commands.ts';
import { CCMD, FSTS, GSTS, ICS, IOTLB, IQA, IVA, OFFSET } from '../registers.ts';
import type { Capabilities } from '../registers.ts';
import type { FaultLog } from './fault-queue.ts';
import type { EventInterrupt } from './interrupts.ts';
import { unusedBits } from './reserved.ts';
import type { Remapper } from './translate.ts';

const IQE = maskLo(FSTS.IQE);
const QIES = maskLo(GSTS.QIES);
const IWC = maskLo(ICS.IWC);
const DW = maskLo(IQA.DW);
const WAIT_IF = maskLo(WAIT.IF);
const WAIT_SW = maskLo(WAIT.SW);

/** The invalidation hint, at the same place in IVA and in the descriptors. */
const IH = maskLo(IVA.IH);
/** What an IOTLB invalidation without the hint drops. */
const TRANSLATIONS = LAYER.LEAF | LAYER.TABLE;

/** Types of descriptors that invalidate anything. */
const INVALIDATES: readonly boolean[] = Array.from({ length: 16 }, (_, type) =>
  ([INV_TYPE.CC_INV, INV_TYPE.IOTLB_INV, INV_TYPE.PASID_IOTLB_INV, INV_TYPE.PASID_CACHE_INV] as number[]).includes(
    type,
  ),
);

/** Reserved bits of a 128-bit descriptor by its type; null for types that do not exist. */
const RESERVED: readonly (Int32Array | null)[] = (() => {
  const table: (Int32Array | null)[] = Array.from({ length: 16 }, () => null);
  table[INV_TYPE.CC_INV] = unusedBits(CC_INV, 4);
  table[INV_TYPE.IOTLB_INV] = unusedBits(IOTLB_INV, 4);
  table[INV_TYPE.DEV_TLB_INV] = unusedBits(DEV_TLB_INV, 4);
  table[INV_TYPE.IEC_INV] = unusedBits(IEC_INV, 4);
  table[INV_TYPE.WAIT] = unusedBits(WAIT, 4);
  table[INV_TYPE.PASID_IOTLB_INV] = unusedBits(PASID_IOTLB_INV, 4);
  table[INV_TYPE.PASID_CACHE_INV] = unusedBits(PASID_CACHE_INV, 4);
  return table;
})();

/** Who is told of invalidations. */
type Listener = Pick<IommuHardware, 'onInvalidate'>;

/** Field of a descriptor or register pair held in words. */
const part = (words: Int32Array, at: number, field: Field): number => fieldOfWord(words[at + (field.lsb >> 5)]!, field);

/** Type of a descriptor, by its first word. */
const typeOf = (word: number): number => (word & 15) | ((word >>> 5) & 0x70);

export class Invalidator {
  private readonly words: Int32Array;
  private readonly caps: Capabilities;
  private readonly remapper: Remapper;
  private readonly iotlb: Iotlb;
  private readonly faults: FaultLog;
  private readonly completion: EventInterrupt;
  private readonly stats: HardwareStats;
  private readonly listener: Listener;
  private readonly memory: PhysicalMemory;
  private readonly ring128: RingQueue;
  private readonly ring256: RingQueue;
  private running = false;
  private readonly didMask: number;

  constructor(
    registers: RegisterFile,
    memory: PhysicalMemory,
    caps: Capabilities,
    remapper: Remapper,
    iotlb: Iotlb,
    faults: FaultLog,
    completion: EventInterrupt,
    stats: HardwareStats,
    listener: Listener,
  ) {
    this.words = registers.words;
    this.memory = memory;
    this.caps = caps;
    this.remapper = remapper;
    this.iotlb = iotlb;
    this.faults = faults;
    this.completion = completion;
    this.stats = stats;
    this.listener = listener;
    this.ring128 = new RingQueue(memory, 16);
    this.ring256 = new RingQueue(memory, 32);
    this.didMask = (1 << caps.didBits) - 1;
  }

  /** The queue is switched off: the head goes back to 0 (IQH). */
  disable(): void {
    this.words[OFFSET.IQH / 4] = 0;
  }

  /**
   * Executes descriptors until the queue is empty or an error stops it. At most one turn of the ring: a descriptor can't move
   * the tail, for a status write that lands on the unit's own registers finds the queue running.
   */
  run(): void {
    const words = this.words;
    if (this.running || (words[OFFSET.GSTS / 4]! & QIES) === 0) return;
    this.running = true;
    const iqa = words[OFFSET.IQA / 4]!;
    const stride = (iqa & DW) !== 0 ? 32 : 16;
    const bytes = 4096 << (iqa & 7);
    const ring = this.place(iqa);
    for (let turn = 0; turn <= ring.entries; turn++) {
      if (this.faults.queueStopped) break;
      const head = words[OFFSET.IQH / 4]!;
      const tail = words[OFFSET.IQT / 4]!;
      if (head === tail) break;
      if (tail >= bytes) {
        this.stop(IQEI.INVALID_TAIL);
        break;
      }
      if (stride === 32 && (tail & 16) !== 0) {
        this.stop(IQEI.TAIL_MISALIGNED);
        break;
      }
      // A head left over from a larger or narrower queue starts at the queue's first descriptor.
      const index = head % stride !== 0 || head >= bytes ? 0 : head / stride;
      if (!ring.read(index)) {
        this.stop(IQEI.FETCH_ERROR);
        break;
      }
      const error = this.execute(ring.words);
      if (error !== 0) {
        this.stop(error);
        break;
      }
      this.stats.commands++;
      words[OFFSET.IQH / 4] = ((index + 1) * stride) % bytes;
    }
    this.running = false;
  }

  /** The queue as the low word of IQA, and the high one, place it. */
  private place(iqa: number): RingQueue {
    const wide = (iqa & DW) !== 0;
    const ring = wide ? this.ring256 : this.ring128;
    ring.place(pfnOfWords(this.words[OFFSET.IQA / 4 + 1]!, iqa), (4096 << (iqa & 7)) / (wide ? 32 : 16));
    return ring;
  }

  private stop(reason: number): void {
    this.words[OFFSET.IQERCD / 4] = reason;
    this.faults.set(IQE);
  }

  /** Executes one descriptor; returns an IQEI code, 0 when it was sound. */
  private execute(d: Int32Array): number {
    const type = typeOf(d[0]!);
    const reserved = type < 16 ? RESERVED[type]! : null;
    if (reserved === null) return IQEI.INVALID_TYPE;
    for (let w = 0; w < 4; w++) if ((d[w]! & reserved[w]!) !== 0) return IQEI.RESERVED_FIELD;
    for (let w = 4; w < d.length; w++) if (d[w] !== 0) return IQEI.RESERVED_FIELD;
    const g = (d[0]! >>> 4) & 3;
    const did = part(d, 0, CC_INV.DID);
    switch (type) {
      case INV_TYPE.CC_INV:
        return this.contextCache('cc_inv_dsc', g, did, part(d, 0, CC_INV.SID), part(d, 0, CC_INV.FM)) === 0
          ? IQEI.RESERVED_FIELD
          : 0;
      case INV_TYPE.IOTLB_INV:
        return this.translations('iotlb_inv_dsc', g, did, d[3]!, d[2]!) === 0 ? IQEI.RESERVED_FIELD : 0;
      case INV_TYPE.DEV_TLB_INV:
        // No device on this bus has a TLB, so nothing is to be done; without ECAP.DT the type does not exist.
        return this.caps.deviceTlb ? 0 : IQEI.INVALID_TYPE;
      case INV_TYPE.IEC_INV:
        // The interrupt entry cache is empty: no unit remaps interrupts.
        return 0;
      case INV_TYPE.WAIT:
        return this.wait(d);
      case INV_TYPE.PASID_IOTLB_INV:
      case INV_TYPE.PASID_CACHE_INV:
        return this.caps.scalable ? this.pasidInvalidate(type, g, d) : IQEI.INVALID_TYPE;
      default:
        return IQEI.INVALID_TYPE;
    }
  }

  private wait(d: Int32Array): number {
    const control = d[0]!;
    // The status write is the last effect; a bus error on it leaves nothing to report.
    if ((control & WAIT_SW) !== 0) this.memory.store32(d[3]!, d[2]!, d[1]!);
    if ((control & WAIT_IF) !== 0) {
      const before = this.words[OFFSET.ICS / 4]!;
      if ((before & IWC) === 0) {
        this.words[OFFSET.ICS / 4] = before | IWC;
        this.completion.raise();
      }
    }
    return 0;
  }

  private pasidInvalidate(type: number, g: number, d: Int32Array): number {
    const did = part(d, 0, PASID_IOTLB_INV.DID) & this.didMask;
    const pasid = part(d, 0, PASID_IOTLB_INV.PASID);
    if (type === INV_TYPE.PASID_CACHE_INV) {
      if (g === 2) return IQEI.RESERVED_FIELD;
      const ofDid = g === 3 ? -1 : did;
      const ofPasid = g === 1 ? pasid : -1;
      this.remapper.invalidatePasids(ofDid, ofPasid);
      this.tell('pc_inv_dsc', LAYER.CONTEXT, ofDid, ofPasid, -1, 0, Infinity);
      return 0;
    }
    if (g < 2) return IQEI.RESERVED_FIELD;
    this.stats.invalidations++;
    const tag = did + (pasid + 1) * 0x1_0000;
    if (g === 3) this.pages('p_iotlb_inv_dsc', did, pasid, tag, d[3]!, d[2]!);
    else {
      this.iotlb.invalidateTag(tag);
      this.remapper.retained?.dropPages(tag, 0, Infinity, false);
      this.tell('p_iotlb_inv_dsc', TRANSLATIONS, did, pasid, -1, 0, Infinity);
    }
    return 0;
  }

  /** Context-cache invalidation by either interface; returns the granularity performed, 0 for an incorrect request. */
  private contextCache(name: string, g: number, did: number, sid: number, functionMask: number): number {
    const domain = did & this.didMask;
    // In scalable mode no context entry has a domain-id: all go.
    if (g === 1 || (g === 2 && this.remapper.mode !== 0)) {
      this.remapper.invalidateContexts();
      if (this.listener.onInvalidate !== null) this.tell(name, LAYER.CONTEXT, -1, -1, -1, 0, Infinity);
    } else if (g === 2) {
      this.remapper.invalidateContextsOfDomain(domain);
      if (this.listener.onInvalidate !== null) this.tell(name, LAYER.CONTEXT, domain, -1, -1, 0, Infinity);
    } else if (g === 3) {
      this.remapper.invalidateContextsOfDevice(sid, functionMask, domain);
      if (this.listener.onInvalidate !== null) this.tellOfDevices(name, domain, sid, functionMask);
    }
    return g;
  }

  /** One event for each function that the mask leaves open. */
  private tellOfDevices(name: string, did: number, sid: number, functionMask: number): void {
    const first = sid & ~[0, 4, 6, 7][functionMask]!;
    const stride = 8 >> functionMask;
    for (let n = 0; n < 1 << functionMask; n++) {
      if (this.listener.onInvalidate !== null) this.tell(name, LAYER.CONTEXT, did, -1, first + n * stride, 0, Infinity);
    }
  }

  /**
   * IOTLB invalidation by either interface. `hi:lo` holds address, hint and address mask as IVA and the descriptor have them.
   * Returns the granularity performed.
   */
  private translations(name: string, g: number, did: number, hi: number, lo: number): number {
    if (g === 0) return 0;
    if (g === 3 && this.caps.psi && (lo & 0x3f) > this.caps.mamv) return 0;
    this.stats.invalidations++;
    const domain = did & this.didMask;
    const kept = this.remapper.retained;
    if (g === 1) {
      this.iotlb.invalidateAll();
      kept?.dropDomain(-1);
      if (this.listener.onInvalidate !== null) this.tell(name, TRANSLATIONS, -1, -1, -1, 0, Infinity);
    } else if (g === 2 || !this.caps.psi) {
      if (!this.caps.scalable) this.iotlb.invalidateTag(domain);
      else this.dropBothStages(domain);
      kept?.dropDomain(domain);
      if (this.listener.onInvalidate !== null) this.tell(name, TRANSLATIONS, domain, -1, -1, 0, Infinity);
      return 2;
    } else {
      // This command names addresses of the second stage (6.5.2.4). First-stage translations of the domain need not go, and
      // all may, which is what a unit that knows only tags does.
      if (this.caps.scalable && kept === null) this.dropFirstStage(domain);
      this.pages(name, domain, -1, domain, hi, lo);
    }
    return g;
  }

  /** First-stage translations of a domain have a PASID above the domain-id in their tag. */
  private dropBothStages(did: number): void {
    this.iotlb.invalidateWhere((tag) => tag % 0x1_0000 === did);
  }

  private dropFirstStage(did: number): void {
    this.iotlb.invalidateWhere((tag) => tag >= 0x1_0000 && tag % 0x1_0000 === did);
  }

  /** The naturally aligned 2^AM pages around the address; with the hint (IH) leaf entries only. */
  private pages(name: string, did: number, pasid: number, tag: number, hi: number, lo: number): void {
    const pages = 2 ** (lo & 0x3f);
    const first = Math.floor(pfnOfWords(hi, lo) / pages) * pages;
    const last = first + pages - 1;
    const leafOnly = (lo & IH) !== 0;
    this.iotlb.invalidateRange(tag, first, last);
    this.remapper.retained?.dropPages(tag, first, last, leafOnly);
    if (this.listener.onInvalidate !== null)
      this.tell(name, leafOnly ? LAYER.LEAF : TRANSLATIONS, did, pasid, -1, first, last);
  }

  /** Has the listener, if there is one, know what has taken effect; -1 for a domain-id, PASID or source-id: any. */
  private tell(
    name: string,
    layers: number,
    domain: number,
    pasid: number,
    requester: number,
    startPfn: number,
    lastPfn: number,
  ): void {
    const { onInvalidate } = this.listener;
    if (onInvalidate === null) return;
    let told = name;
    if (domain >= 0) told += ` DID=${hex(domain)}`;
    if (pasid >= 0) told += ` PASID=${hex(pasid)}`;
    if (requester >= 0) told += ` SID=${hex(requester)}`;
    if (lastPfn !== Infinity) {
      const am = Math.log2(lastPfn - startPfn + 1);
      told += ` ADDR=${hex(addressOfPfn(startPfn))} AM=${am} IH=${layers === LAYER.LEAF ? 1 : 0}`;
    }
    onInvalidate({ name: told, layers, domain, requester, startPfn, lastPfn });
  }

  /** Invalidations that software has handed over and that have not been executed. */
  get pending(): number {
    const words = this.words;
    let pending = 0;
    if (part(words, OFFSET.CCMD / 4, CCMD.ICC) !== 0) pending++;
    if (part(words, this.caps.ivaOffset / 4 + 2, IOTLB.IVT) !== 0) pending++;
    if ((words[OFFSET.GSTS / 4]! & QIES) === 0 || this.faults.queueStopped) return pending;
    const iqa = words[OFFSET.IQA / 4]!;
    const stride = (iqa & DW) !== 0 ? 32 : 16;
    const bytes = 4096 << (iqa & 7);
    const ring = this.place(iqa);
    const tail = words[OFFSET.IQT / 4]!;
    if (tail >= bytes) return pending;
    // The head is still at a descriptor that tells of its effect.
    const head = words[OFFSET.IQH / 4]! + (this.running ? stride : 0);
    for (
      let at = head % bytes;
      at !== tail && at % stride === 0 && ring.read(at / stride);
      at = (at + stride) % bytes
    ) {
      if (INVALIDATES[typeOf(ring.words[0]!)] === true) pending++;
    }
    return pending;
  }

  /** CCMD was written. With the queue enabled the register interface is not to be used: nothing is invalidated. */
  contextCommand(): void {
    const at = OFFSET.CCMD / 4;
    const words = this.words;
    if (part(words, at, CCMD.ICC) === 0) return;
    let done = 0;
    if ((words[OFFSET.GSTS / 4]! & QIES) === 0) {
      const g = part(words, at, CCMD.CIRG);
      const sid = part(words, at, CCMD.SID);
      const mask = part(words, at, CCMD.FM);
      done = this.contextCache('CCMD', g, part(words, at, CCMD.DID), sid, mask);
      this.stats.commands++;
    }
    words[at + 1] =
      (words[at + 1]! & ~(maskWord(CCMD.ICC, 1) | maskWord(CCMD.CAIG, 1))) | (done << (CCMD.CAIG.lsb - 32));
  }

  /** IOTLB was written; the address stands in IVA. */
  iotlbCommand(): void {
    const at = this.caps.ivaOffset / 4 + 2;
    const words = this.words;
    if (part(words, at, IOTLB.IVT) === 0) return;
    let done = 0;
    if ((words[OFFSET.GSTS / 4]! & QIES) === 0) {
      const iva = words[at - 2]! & (maskLo(IVA.ADDR) | IH | maskLo(IVA.AM));
      const g = part(words, at, IOTLB.IIRG);
      done = this.translations('IOTLB_REG', g, part(words, at, IOTLB.DID), words[at - 1]!, iva);
      this.stats.commands++;
    }
    const clear = maskWord(IOTLB.IVT, 1) | maskWord(IOTLB.IAIG, 1);
    words[at + 1] = (words[at + 1]! & ~clear) | (done << (IOTLB.IAIG.lsb - 32));
  }
}
