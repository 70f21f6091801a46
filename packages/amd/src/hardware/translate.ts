/**
 * Translation: device table, host page table, permissions, and the caches of both.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, sections 2.1 "Behavior of the IOMMU", 2.2.2 "Device
 * Table" and 2.2.3 "I/O Page Tables for Host Translations".
 */
import { fieldOfWord, hiOfPfn, loOfPfn, maskHi, maskLo, maskWord, pfnOfWords } from '@iommu-ts/bits';
import type { Field, Layout } from '@iommu-ts/bits';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { ACCESS, NO_PASID, TRANSLATE_OK } from '@iommu-ts/iommu-core';
import type { HardwareStats, Iotlb } from '@iommu-ts/iommu-core';
import { EVENT, EVENTS, HARDWARE_ERROR, INVALID_REQUEST } from '../faults.ts';
import { Control, DevTabBaseAddr, ExclusionBase, ExtFeature, REGISTERS } from '../registers.ts';
import { DTE, INT_CTL, INTERRUPT_RANGE, PDE, PTE, widthOfMode } from '../structures.ts';
import type { EventLog } from './fault-queue.ts';

const REG_DEV_TAB = REGISTERS.DevTabBaseAddr.offset / 4;
const REG_DEV_TAB_SEG = REGISTERS.DevTabSegBaseAddr.offset / 4;
const REG_CONTROL = REGISTERS.Control.offset / 4;
const REG_EXCLUSION_BASE = REGISTERS.ExclusionBase.offset / 4;
const REG_EXCLUSION_LIMIT = REGISTERS.ExclusionLimit.offset / 4;

const IOMMU_EN = maskLo(Control.IommuEn);
const EX_EN = maskLo(ExclusionBase.ExEn);
const EX_ALLOW = maskLo(ExclusionBase.Allow);
const TABLE_HI = maskHi(DevTabBaseAddr.DevTabBase);
const TABLE_SIZE = maskLo(DevTabBaseAddr.Size);
const SEGMENT_SIZE = 0xff;

/** Fields of a device table entry, in place in the word that holds them. */
const DTE_V = maskLo(DTE.V);
const DTE_TV = maskLo(DTE.TV);
const DTE_MODE = maskLo(DTE.Mode);
const DTE_MODE_SHIFT = DTE.Mode.lsb;
const DTE_GV = maskHi(DTE.GV);
const DTE_PERM_SHIFT = DTE.IR.lsb - 32;
const ROOT_HI = maskHi(DTE.HostPageTableRootPtr);
const DTE_DOMAIN = maskWord(DTE.DomainID, 2);
const DTE_EX = maskWord(DTE.EX, 3);
const DTE_SA = maskWord(DTE.SA, 3);
const DTE_SE = maskWord(DTE.SE, 3);
const DTE_IV = maskWord(DTE.IV, 4);
const DTE_INT_CTL = maskWord(DTE.IntCtl, 5);
const DTE_INT_CTL_SHIFT = DTE.IntCtl.lsb & 31;

const PR = maskLo(PTE.PR);
const NEXT_LEVEL_SHIFT = PTE.NextLevel.lsb;
const PERM_SHIFT = PTE.IR.lsb - 32;
const ADDRESS_LO = maskLo(PTE.PageAddress);
const ADDRESS_HI = maskHi(PTE.PageAddress);
const PTE_RESERVED_HI = maskHi(PTE.Reserved);
const PDE_RESERVED_HI = maskHi(PDE.Reserved);
/** NextLevel of a page whose size stands in its address. */
const SIZED_PAGE = 7;

const INTERRUPT_MEGABYTE = Number(INTERRUPT_RANGE.first >> 20n);

/** READ and WRITE of {@link ACCESS} are IR and IW of an entry shifted down; a fetch reads. */
const NEED_READ = ACCESS.READ | ACCESS.EXEC;

/** In-place mask of a field in the upper word of an event. */
const eventBit = (field: Field): number => maskWord(field, 1);
const FLAG_TYPE_SHIFT = EVENTS.DEV_TAB_HARDWARE_ERROR.Type.lsb - 32;
const FLAG_RZ = eventBit(EVENTS.IO_PAGE_FAULT.RZ);
const FLAG_PE = eventBit(EVENTS.IO_PAGE_FAULT.PE);
const FLAG_RW = eventBit(EVENTS.IO_PAGE_FAULT.RW);
const FLAG_PR = eventBit(EVENTS.IO_PAGE_FAULT.PR);
const FLAG_GN = eventBit(EVENTS.IO_PAGE_FAULT.GN);
const MASTER_ABORT = HARDWARE_ERROR.MASTER_ABORT << FLAG_TYPE_SHIFT;

/** What a device table entry says, once read. */
const KIND_UNTRANSLATED = 0;
const KIND_PAGING = 1;
const KIND_NO_TABLE = 2;
const KIND_NOT_CONFIGURED = 3;

/** Input address bits that a table of each mode does not reach, upper and lower word. */
const BEYOND_HI = Int32Array.from({ length: 8 }, (_, mode) => {
  const width = widthOfMode(mode);
  return width >= 64 ? 0 : width > 32 ? -1 << (width - 32) : -1;
});
const BEYOND_LO = Int32Array.from({ length: 8 }, (_, mode) => (widthOfMode(mode) >= 32 ? 0 : -1 << widthOfMode(mode)));

/** Cached device table entries, direct-mapped. */
const DTE_SLOTS = 1024;
const NOBODY = -1;

interface TranslationOptions {
  readonly efr: bigint;
  /** Keep device table entries until invalidated (or until the table's registers change). */
  readonly cacheDtes: boolean;
  /** Record IO_PAGE_FAULT.PE with a refused permission. */
  readonly recordPe: boolean;
}

export class TranslationUnit {
  readonly #words: Int32Array;
  readonly #memory: PhysicalMemory;
  readonly #iotlb: Iotlb;
  readonly #events: EventLog;
  readonly #stats: HardwareStats;
  readonly #cacheDtes: boolean;
  readonly #permissionFlags: number;
  readonly #maxMode: number;
  /** Bits 127:0 of an entry that must be zero. */
  readonly #dteReserved: Int32Array;

  #enabled = false;
  #segmentsLg2 = 0;
  #exclusion = false;
  #exclusionAllow = false;
  #exclusionFirst = 0;
  #exclusionLast = 0;

  readonly #id = new Int32Array(DTE_SLOTS).fill(NOBODY);
  readonly #kind = new Int32Array(DTE_SLOTS);
  readonly #mode = new Int32Array(DTE_SLOTS);
  readonly #perm = new Int32Array(DTE_SLOTS);
  readonly #domain = new Int32Array(DTE_SLOTS);
  /** Word 3 of the entry (EX, SA, SE), and IntCtl where IV is set, else -1. */
  readonly #flags = new Int32Array(DTE_SLOTS);
  readonly #intCtl = new Int32Array(DTE_SLOTS);
  readonly #rootPfn = new Float64Array(DTE_SLOTS);
  /** Input address bits that the table does not reach. */
  readonly #beyondHi = new Int32Array(DTE_SLOTS);
  readonly #beyondLo = new Int32Array(DTE_SLOTS);
  /** Devices with DTE.SE whose one event has been logged. */
  readonly #silenced = new Set<number>();

  /** After {@link translate} gave TRANSLATE_OK: the physical address. */
  outHi = 0;
  outLo = 0;

  constructor(
    words: Int32Array,
    memory: PhysicalMemory,
    iotlb: Iotlb,
    events: EventLog,
    stats: HardwareStats,
    options: TranslationOptions,
  ) {
    this.#words = words;
    this.#memory = memory;
    this.#iotlb = iotlb;
    this.#events = events;
    this.#stats = stats;
    this.#cacheDtes = options.cacheDtes;
    this.#permissionFlags = options.recordPe ? FLAG_PR | FLAG_PE : FLAG_PR;
    this.#maxMode = 4 + Number((options.efr >> BigInt(ExtFeature.HATS.lsb)) & 3n);
    this.#dteReserved = dteReserved(options.efr);
  }

  /** Takes over what Control, the device table registers and the exclusion range say; drops cached entries. */
  configure(): void {
    const words = this.#words;
    this.#enabled = (words[REG_CONTROL]! & IOMMU_EN) !== 0;
    this.#segmentsLg2 = Math.min(3, fieldOfWord(words[REG_CONTROL + 1]!, Control.DevTblSegEn));
    const base = words[REG_EXCLUSION_BASE]!;
    this.#exclusion = (base & EX_EN) !== 0;
    this.#exclusionAllow = (base & EX_ALLOW) !== 0;
    this.#exclusionFirst = pfnOfWords(words[REG_EXCLUSION_BASE + 1]!, base);
    this.#exclusionLast = pfnOfWords(words[REG_EXCLUSION_LIMIT + 1]!, words[REG_EXCLUSION_LIMIT]!);
    this.#id.fill(NOBODY);
    this.#silenced.clear();
  }

  /** INVALIDATE_DEVTAB_ENTRY: translations cached under the entry's domain stay. */
  invalidateDevice(id: number): void {
    const slot = id & (DTE_SLOTS - 1);
    if (this.#id[slot] === id) this.#id[slot] = NOBODY;
    this.#silenced.delete(id);
  }

  invalidateDomain(domain: number): void {
    this.#iotlb.invalidateTag(domain);
  }

  /** INVALIDATE_IOMMU_PAGES: with `sized` the ones in the address from bit 12 up to the first zero encode the size. */
  invalidatePages(domain: number, addressHi: number, addressLo: number, sized: boolean): void {
    const pfn = pfnOfWords(addressHi, addressLo);
    if (!sized) {
      this.#iotlb.invalidateRange(domain, pfn, pfn);
      return;
    }
    const zero = firstZero(addressHi, addressLo);
    if (zero >= 63) {
      this.#iotlb.invalidateTag(domain);
      return;
    }
    const pages = 2 ** (zero + 1 - 12);
    const start = Math.floor(pfn / pages) * pages;
    this.#iotlb.invalidateRange(domain, start, start + pages - 1);
  }

  invalidateAll(): void {
    this.#iotlb.invalidateAll();
    this.#id.fill(NOBODY);
    this.#silenced.clear();
  }

  /** See `Translator.translate`. */
  translate(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number): number {
    if (!this.#enabled) return this.#pass(iovaHi, iovaLo);
    // DeviceIDs have 16 bits: a wider one cannot stand on the bus.
    if (requester >>> 16 !== 0) return -1;
    const slot = requester & (DTE_SLOTS - 1);
    if (this.#id[slot] !== requester) {
      const status = this.#loadDte(requester, slot, iovaHi, iovaLo, access);
      if (status !== TRANSLATE_OK) return status;
    }
    const kind = this.#kind[slot]!;
    if (kind === KIND_UNTRANSLATED) return this.#pass(iovaHi, iovaLo);
    if (iovaHi === 0 && iovaLo >>> 20 === INTERRUPT_MEGABYTE) return this.#interrupt(requester, slot, iovaLo, access);
    if (this.#exclusion && this.#excluded(slot, iovaHi, iovaLo)) return this.#pass(iovaHi, iovaLo);
    if (pasid !== NO_PASID) return this.#pasidFault(requester, slot, pasid, iovaHi, iovaLo, access);

    const need = ((access & NEED_READ) !== 0 ? ACCESS.READ : 0) | (access & ACCESS.WRITE);
    if (kind === KIND_PAGING) {
      if (((iovaHi & this.#beyondHi[slot]!) | (iovaLo & this.#beyondLo[slot]!)) !== 0) {
        return this.#pageFault(requester, slot, 0, iovaHi, iovaLo, access);
      }
      const iotlb = this.#iotlb;
      if (iotlb.lookup(this.#domain[slot]!, iovaHi, iovaLo) && (need & ~(iotlb.perm & this.#perm[slot]!)) === 0) {
        this.outHi = iotlb.outHi;
        this.outLo = iotlb.outLo;
        return TRANSLATE_OK;
      }
      // Not cached, or cached with less than is needed: the tables decide, and a fault is recorded by their state.
      return this.#walk(requester, slot, iovaHi, iovaLo, access, need);
    }
    if (kind === KIND_NOT_CONFIGURED) return this.#pageFault(requester, slot, 0, iovaHi, iovaLo, access);
    if ((need & ~this.#perm[slot]!) !== 0) {
      return this.#pageFault(requester, slot, this.#permissionFlags, iovaHi, iovaLo, access);
    }
    return this.#pass(iovaHi, iovaLo);
  }

  #pass(iovaHi: number, iovaLo: number): number {
    this.outHi = iovaHi | 0;
    this.outLo = iovaLo | 0;
    return TRANSLATE_OK;
  }

  /** Reads the device table entry of `id` into `slot`. */
  #loadDte(id: number, slot: number, iovaHi: number, iovaLo: number, access: number): number {
    const words = this.#words;
    const segmentBits = 16 - this.#segmentsLg2;
    const segment = id >>> segmentBits;
    const index = id & ((1 << segmentBits) - 1);
    const reg = segment === 0 ? REG_DEV_TAB : REG_DEV_TAB_SEG + 2 * (segment - 1);
    const lo = words[reg]!;
    const hi = words[reg + 1]!;
    this.#id[slot] = NOBODY;
    const pages = (lo & (this.#segmentsLg2 === 0 ? TABLE_SIZE : SEGMENT_SIZE)) + 1;
    const page = index >>> 7;
    if (page >= pages) {
      // Beyond the table no domain and no suppression is known.
      this.#domain[slot] = 0;
      this.#flags[slot] = 0;
      return this.#pageFault(id, slot, 0, iovaHi, iovaLo, access);
    }
    const pfn = pfnOfWords(hi & TABLE_HI, lo) + page;
    const memory = this.#memory;
    this.#stats.structureReads++;
    if (!memory.locate(pfn, false)) {
      const w1 = (EVENT.DEV_TAB_HARDWARE_ERROR << 28) | MASTER_ABORT | rw(access);
      this.#events.write(id, w1, loOfPfn(pfn) | ((index & 127) << 5), hiOfPfn(pfn));
      return EVENT.DEV_TAB_HARDWARE_ERROR;
    }
    const view = memory.view;
    const at = memory.index + ((index & 127) << 3);
    const w0 = view[at]!;
    const w1 = view[at + 1]!;
    const w2 = view[at + 2]!;
    const w3 = view[at + 3]!;
    if ((w0 & DTE_V) === 0) {
      this.#kind[slot] = KIND_UNTRANSLATED;
      if (this.#cacheDtes) this.#id[slot] = id;
      return TRANSLATE_OK;
    }
    const reserved = this.#dteReserved;
    if (((w0 & reserved[0]!) | (w1 & reserved[1]!) | (w2 & reserved[2]!) | (w3 & reserved[3]!)) !== 0) {
      return this.#illegalDte(id, FLAG_RZ, iovaHi, iovaLo, access);
    }
    const translates = (w0 & DTE_TV) !== 0;
    const mode = (w0 & DTE_MODE) >>> DTE_MODE_SHIFT;
    if (translates && mode > this.#maxMode) return this.#illegalDte(id, 0, iovaHi, iovaLo, access);
    // Guest translation is a later version's: an entry that asks for it must not be taken for a host-only one.
    if (translates && (w1 & DTE_GV) !== 0) return this.#illegalDte(id, FLAG_RZ, iovaHi, iovaLo, access);
    this.#kind[slot] = !translates ? KIND_NOT_CONFIGURED : mode === 0 ? KIND_NO_TABLE : KIND_PAGING;
    this.#mode[slot] = mode;
    this.#perm[slot] = (w1 >>> DTE_PERM_SHIFT) & 3;
    this.#domain[slot] = translates ? w2 & DTE_DOMAIN : 0;
    this.#rootPfn[slot] = pfnOfWords(w1 & ROOT_HI, w0);
    this.#flags[slot] = w3;
    this.#intCtl[slot] = (view[at + 4]! & DTE_IV) === 0 ? -1 : (view[at + 5]! & DTE_INT_CTL) >>> DTE_INT_CTL_SHIFT;
    this.#beyondHi[slot] = BEYOND_HI[mode]!;
    this.#beyondLo[slot] = BEYOND_LO[mode]!;
    if (this.#cacheDtes) this.#id[slot] = id;
    return TRANSLATE_OK;
  }

  /** The walk: from the root down, permissions ANDed, then the leaf's size and address. */
  #walk(id: number, slot: number, iovaHi: number, iovaLo: number, access: number, need: number): number {
    const memory = this.#memory;
    const stats = this.#stats;
    let level = this.#mode[slot]!;
    let pfn = this.#rootPfn[slot]!;
    let perm = 3;
    stats.walks++;
    // Every step goes to a lower level, so there are six at most.
    for (;;) {
      const index = indexOf(iovaHi, iovaLo, level);
      stats.walkReads++;
      if (!memory.locate(pfn, false)) {
        const w1 = (EVENT.PAGE_TAB_HARDWARE_ERROR << 28) | MASTER_ABORT | rw(access) | this.#domain[slot]!;
        this.#events.write(id, w1, loOfPfn(pfn) | (index << 3), hiOfPfn(pfn));
        return EVENT.PAGE_TAB_HARDWARE_ERROR;
      }
      const at = memory.index + (index << 1);
      const lo = memory.view[at]!;
      const hi = memory.view[at + 1]!;
      if ((lo & PR) === 0) return this.#pageFault(id, slot, 0, iovaHi, iovaLo, access);
      perm &= hi >>> PERM_SHIFT;
      const next = (lo >>> NEXT_LEVEL_SHIFT) & 7;
      if (next === 0 || next === SIZED_PAGE) {
        if ((hi & PTE_RESERVED_HI) !== 0) return this.#pageFault(id, slot, FLAG_PR | FLAG_RZ, iovaHi, iovaLo, access);
        const native = 3 + 9 * level;
        let sizeLg2 = native;
        if (next === SIZED_PAGE) {
          sizeLg2 = firstZero(hi & ADDRESS_HI, lo) + 1;
          // Larger than the level's own page and smaller than the next level's.
          if (sizeLg2 <= native || sizeLg2 >= native + 9 || sizeLg2 > 52) {
            return this.#pageFault(id, slot, FLAG_PR, iovaHi, iovaLo, access);
          }
        }
        if ((need & ~(perm & this.#perm[slot]!)) !== 0) {
          return this.#pageFault(id, slot, this.#permissionFlags, iovaHi, iovaLo, access);
        }
        const oaHi = hi & ADDRESS_HI;
        if (sizeLg2 < 32) {
          const offset = (1 << sizeLg2) - 1;
          this.outHi = oaHi;
          this.outLo = (lo & ADDRESS_LO & ~offset) | (iovaLo & offset);
        } else {
          const offset = (1 << (sizeLg2 - 32)) - 1;
          this.outHi = (oaHi & ~offset) | (iovaHi & offset);
          this.outLo = iovaLo | 0;
        }
        this.#iotlb.fill(this.#domain[slot]!, iovaHi, iovaLo, sizeLg2, this.outHi, this.outLo, perm, 0);
        return TRANSLATE_OK;
      }
      if ((hi & PDE_RESERVED_HI) !== 0) return this.#pageFault(id, slot, FLAG_PR | FLAG_RZ, iovaHi, iovaLo, access);
      if (next >= level) return this.#pageFault(id, slot, FLAG_PR, iovaHi, iovaLo, access);
      // Address bits of skipped levels must be zero: such an address is outside what the entry maps.
      for (let skipped = level - 1; skipped > next; skipped--) {
        if (indexOf(iovaHi, iovaLo, skipped) !== 0) return this.#pageFault(id, slot, 0, iovaHi, iovaLo, access);
      }
      level = next;
      pfn = pfnOfWords(hi & ADDRESS_HI, lo);
    }
  }

  #excluded(slot: number, iovaHi: number, iovaLo: number): boolean {
    const pfn = pfnOfWords(iovaHi, iovaLo);
    return (
      pfn >= this.#exclusionFirst &&
      pfn <= this.#exclusionLast &&
      (this.#exclusionAllow || (this.#flags[slot]! & DTE_EX) !== 0)
    );
  }

  /**
   * An access in 0xfeex_xxxx: a write is an interrupt and does not meet the page tables. Without an interrupt map (IV=0) it
   * is forwarded as it is. Remapping is not built: an entry that asks for it has its interrupts refused, never misdelivered.
   */
  #interrupt(id: number, slot: number, iovaLo: number, access: number): number {
    if ((access & ACCESS.WRITE) === 0) {
      return this.#invalidRequest(id, INVALID_REQUEST.READ_IN_INTERRUPT_RANGE, 0, iovaLo);
    }
    const intCtl = this.#intCtl[slot]!;
    if (intCtl < 0 || intCtl === INT_CTL.FORWARD) return this.#pass(0, iovaLo);
    return this.#invalidRequest(id, INVALID_REQUEST.INTERRUPT_REFUSED, 0, iovaLo);
  }

  #invalidRequest(id: number, type: number, iovaHi: number, iovaLo: number): number {
    const w1 = (EVENT.INVALID_DEVICE_REQUEST << 28) | (type << (EVENTS.INVALID_DEVICE_REQUEST.Type.lsb - 32));
    this.#events.write(id, w1, iovaLo, iovaHi);
    return EVENT.INVALID_DEVICE_REQUEST;
  }

  #illegalDte(id: number, flags: number, iovaHi: number, iovaLo: number, access: number): number {
    const w1 = (EVENT.ILLEGAL_DEV_TABLE_ENTRY << 28) | flags | rw(access);
    this.#events.write(id, w1, iovaLo & ~3, iovaHi);
    return EVENT.ILLEGAL_DEV_TABLE_ENTRY;
  }

  /** A request with a PASID for an entry without guest translation: GN and the PASID stand in the event. */
  #pasidFault(id: number, slot: number, pasid: number, iovaHi: number, iovaLo: number, access: number): number {
    if (this.#suppressed(id, slot)) return EVENT.IO_PAGE_FAULT;
    const w1 = (EVENT.IO_PAGE_FAULT << 28) | FLAG_GN | rw(access) | (pasid & 0xffff);
    this.#events.write(id | (pasid & 0xf_0000), w1, iovaLo, iovaHi);
    return EVENT.IO_PAGE_FAULT;
  }

  #pageFault(id: number, slot: number, flags: number, iovaHi: number, iovaLo: number, access: number): number {
    if (this.#suppressed(id, slot)) return EVENT.IO_PAGE_FAULT;
    const w1 = (EVENT.IO_PAGE_FAULT << 28) | flags | rw(access) | this.#domain[slot]!;
    this.#events.write(id, w1, iovaLo, iovaHi);
    return EVENT.IO_PAGE_FAULT;
  }

  /** DTE.SA: no event at all. DTE.SE: one, then none until the entry is invalidated. */
  #suppressed(id: number, slot: number): boolean {
    const flags = this.#flags[slot]!;
    if ((flags & (DTE_SA | DTE_SE)) === 0) return false;
    if ((flags & DTE_SA) === 0 && !this.#silenced.has(id)) {
      this.#silenced.add(id);
      return false;
    }
    this.#stats.faults++;
    return true;
  }
}

const rw = (access: number): number => ((access & ACCESS.WRITE) !== 0 ? FLAG_RW : 0);

/** Index into a table of `level` (1 … 6): nine address bits, seven at level 6. */
const indexOf = (iovaHi: number, iovaLo: number, level: number): number => {
  switch (level) {
    case 1:
      return (iovaLo >>> 12) & 0x1ff;
    case 2:
      return (iovaLo >>> 21) & 0x1ff;
    case 3:
      return ((iovaHi << 2) | (iovaLo >>> 30)) & 0x1ff;
    case 4:
      return (iovaHi >>> 7) & 0x1ff;
    case 5:
      return (iovaHi >>> 16) & 0x1ff;
    default:
      return iovaHi >>> 25;
  }
};

/** Lowest bit from 12 up that is zero in `hi:lo`; 64 when there is none. */
const firstZero = (hi: number, lo: number): number => {
  const low = ~lo & ~0xfff;
  if (low !== 0) return 31 - Math.clz32(low & -low);
  const high = ~hi;
  return high === 0 ? 64 : 63 - Math.clz32(high & -high);
};

/** Bits 127:0 of a device table entry with V=1 that must be zero, given the features. */
const dteReserved = (efr: bigint): Int32Array => {
  const sup = (field: Field): boolean => ((efr >> BigInt(field.lsb)) & 1n) === 1n;
  const known: Layout = DTE;
  const absent = new Set<Field>([DTE.GIoV]);
  if (!sup(ExtFeature.HASup) && !sup(ExtFeature.HDSup)) absent.add(DTE.HAD);
  if (!sup(ExtFeature.PPRSup)) for (const field of [DTE.PPR, DTE.GPRP]) absent.add(field);
  if (!sup(ExtFeature.GTSup)) {
    for (const field of [DTE.GV, DTE.GLX, DTE.GCR3TRPLo, DTE.GCR3TRPMid, DTE.GCR3TRPHi]) absent.add(field);
  }
  const words = new Int32Array(4);
  for (let w = 0; w < 4; w++) {
    let used = 0;
    for (const field of Object.values(known)) if (!absent.has(field)) used |= maskWord(field, w);
    words[w] = ~used;
  }
  return words;
};
