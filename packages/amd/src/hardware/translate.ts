/**
 * Translation: device table, host page table, permissions, and the caches of both.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, sections 2.1 "Behavior of the IOMMU", 2.2.2 "Device
 * Table" and 2.2.3 "I/O Page Tables for Host Translations".
 *
 * What stays cached: device table entries by DeviceID, translations by DomainID (48882 2.4: what each command drops). With an
 * IOTLB of mode `'retain'` none of them goes but by a command, and page directory entries are cached as well, under the
 * DomainID; the walk has one stage, so that is all there is.
 */
import { CHECKS, fieldOfWord, maskHi, maskLo, maskWord, pfnOfWords } from '@iommu-ts/bits';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { ACCESS, Iotlb, LAYER, NO_PASID, TRANSLATE_OK, WalkCache } from '@iommu-ts/iommu-core';
import type { HardwareStats } from '@iommu-ts/iommu-core';
import { EVENT, INVALID_REQUEST } from '../faults.ts';
import { Control, DevTabBaseAddr, ExclusionBase, ExtFeature, REGISTERS } from '../registers.ts';
import { DTE, INT_CTL, INTERRUPT_RANGE, PDE, PTE } from '../structures.ts';
import { BEYOND_HI, BEYOND_LO, firstZero, indexOf, sizeLg2Of, spanOf } from './address.ts';
import { FLAG_PE, FLAG_PR, FLAG_RZ, rw } from './event-flags.ts';
import { EventLog } from './fault-queue.ts';
import { Interrupts } from './interrupts.ts';
import { dteReserved } from './reserved.ts';

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

/** What a device table entry says, once read. */
const KIND_UNTRANSLATED = 0;
const KIND_PAGING = 1;
const KIND_NO_TABLE = 2;
const KIND_NOT_CONFIGURED = 3;

/** Cached device table entries, direct-mapped. */
const DTE_SLOTS = 1024;
/** Of an entry, the words that are read. */
const DTE_WORDS = 6;
const NOBODY = -1;

interface TranslationOptions {
  readonly efr: bigint;
  /** Keep device table entries until invalidated (or until the table's registers change). */
  readonly cacheDtes: boolean;
  /** Record IO_PAGE_FAULT.PE with a refused permission. */
  readonly recordPe: boolean;
  /** A unit that only answers probes: whose caches it may look into. */
  readonly probes?: TranslationUnit;
}

export class TranslationUnit {
  readonly #words: Int32Array;
  readonly #memory: PhysicalMemory;
  readonly #iotlb: Iotlb;
  readonly #events: EventLog;
  readonly #stats: HardwareStats;
  readonly #options: TranslationOptions;
  readonly #cacheDtes: boolean;
  /** Nothing is dropped but by a command. */
  readonly #retains: boolean;
  /** Of a unit that answers probes: the unit that it answers for, and the {@link LAYER}s of its caches that count. */
  readonly #probed: TranslationUnit | null;
  #layers = 0;
  /** The unit that answers this one's probes, once there was one. */
  #prober: TranslationUnit | null = null;
  /** Page directory entries: tables by DomainID, level and IOVA. */
  #walkCache: WalkCache | null;
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
  /** Where nothing is evicted: the words of every entry cached, by DeviceID. */
  #kept: Map<number, Int32Array> | null;
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
    this.#options = options;
    this.#cacheDtes = options.cacheDtes;
    this.#retains = CHECKS && iotlb.mode === 'retain';
    this.#probed = options.probes ?? null;
    this.#walkCache = this.#retains ? new WalkCache() : null;
    this.#kept = this.#retains && options.cacheDtes ? new Map() : null;
    this.#permissionFlags = options.recordPe ? FLAG_PR | FLAG_PE : FLAG_PR;
    this.#maxMode = 4 + Number((options.efr >> BigInt(ExtFeature.HATS.lsb)) & 3n);
    this.#dteReserved = dteReserved(options.efr);
  }

  /**
   * Takes over what Control, the device table registers and the exclusion range say. Drops cached entries, which the
   * specification does not promise (software must invalidate them): not when nothing is dropped but by a command.
   */
  configure(): void {
    const words = this.#words;
    this.#enabled = (words[REG_CONTROL]! & IOMMU_EN) !== 0;
    this.#segmentsLg2 = Math.min(3, fieldOfWord(words[REG_CONTROL + 1]!, Control.DevTblSegEn));
    const base = words[REG_EXCLUSION_BASE]!;
    this.#exclusion = (base & EX_EN) !== 0;
    this.#exclusionAllow = (base & EX_ALLOW) !== 0;
    this.#exclusionFirst = pfnOfWords(words[REG_EXCLUSION_BASE + 1]!, base);
    this.#exclusionLast = pfnOfWords(words[REG_EXCLUSION_LIMIT + 1]!, words[REG_EXCLUSION_LIMIT]!);
    if (this.#retains) return;
    this.#id.fill(NOBODY);
    this.#silenced.clear();
  }

  /** INVALIDATE_DEVTAB_ENTRY: translations cached under the entry's domain stay. */
  invalidateDevice(id: number): void {
    const slot = id & (DTE_SLOTS - 1);
    if (this.#id[slot] === id) this.#id[slot] = NOBODY;
    this.#kept?.delete(id);
    this.#silenced.delete(id);
  }

  /**
   * INVALIDATE_IOMMU_PAGES: with `sized` the ones in the address from bit 12 up to the first zero encode the size.
   * @param directories page directory entries too (PDE)
   */
  invalidatePages(domain: number, addressHi: number, addressLo: number, sized: boolean, directories: boolean): void {
    const lg2 = sized ? sizeLg2Of(addressHi, addressLo) : 12;
    if (lg2 === 64) {
      this.invalidateDomain(domain, directories);
      return;
    }
    const pages = 2 ** (lg2 - 12);
    const start = Math.floor(pfnOfWords(addressHi, addressLo) / pages) * pages;
    this.#iotlb.invalidateRange(domain, start, start + pages - 1);
    if (CHECKS && directories && this.#walkCache !== null)
      dropDirectories(this.#walkCache, domain, start, start + pages - 1);
  }

  invalidateDomain(domain: number, directories: boolean): void {
    this.#iotlb.invalidateTag(domain);
    if (CHECKS && directories && this.#walkCache !== null) dropDirectories(this.#walkCache, domain, 0, Infinity);
  }

  invalidateAll(): void {
    this.#iotlb.invalidateAll();
    this.#walkCache?.invalidate();
    this.#kept?.clear();
    this.#id.fill(NOBODY);
    this.#silenced.clear();
  }

  /** See `IommuHardware.probe`: a second unit, with registers and memory in common and caches of one entry, translates. */
  probe(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number, layers: number): number {
    const prober = (this.#prober ??= this.#makeProber());
    prober.#layers = layers;
    prober.#iotlb.invalidateAll();
    prober.#walkCache = (layers & LAYER.TABLE) !== 0 ? this.#walkCache : null;
    prober.#kept = (layers & LAYER.CONTEXT) !== 0 ? this.#kept : null;
    prober.configure();
    const status = prober.translate(requester, pasid, iovaHi, iovaLo, access);
    this.outHi = prober.outHi;
    this.outLo = prober.outLo;
    return status;
  }

  /** Its event log does not run (Status is 0), so that faults are lost on it. */
  #makeProber(): TranslationUnit {
    const words = new Int32Array(this.#words.length);
    const stats = { walks: 0, walkReads: 0, structureReads: 0, commands: 0, invalidations: 0, faults: 0 };
    const events = new EventLog(words, this.#memory, new Interrupts(words, this.#memory), stats);
    return new TranslationUnit(this.#words, this.#memory, new Iotlb({ sets: 1, ways: 1 }), events, stats, {
      ...this.#options,
      cacheDtes: false,
      probes: this,
    });
  }

  /** See `Translator.translate`. */
  translate(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number): number {
    if (!this.#enabled) return this.#pass(iovaHi, iovaLo);
    // DeviceIDs have 16 bits: a wider one cannot stand on the bus.
    if (requester >>> 16 !== 0) return -1;
    const slot = requester & (DTE_SLOTS - 1);
    if (this.#id[slot] !== requester) {
      const status = this.#findDte(requester, slot, iovaHi, iovaLo, access);
      if (status !== TRANSLATE_OK) return status;
    }
    const kind = this.#kind[slot]!;
    if (kind === KIND_UNTRANSLATED) return this.#pass(iovaHi, iovaLo);
    if (iovaHi === 0 && iovaLo >>> 20 === INTERRUPT_MEGABYTE) return this.#interrupt(requester, slot, iovaLo, access);
    if (this.#exclusion && this.#excluded(slot, iovaHi, iovaLo)) return this.#pass(iovaHi, iovaLo);
    if (pasid !== NO_PASID) {
      // The entry has no guest translation. (None has: it would be illegal.)
      if (this.#suppressed(requester, slot)) return EVENT.IO_PAGE_FAULT;
      return this.#events.pasidFault(requester, pasid, iovaHi, iovaLo, access);
    }

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

  /** Has the device table entry of `id` in `slot`; a probe takes what it may from the caches that it looks into. */
  #findDte(id: number, slot: number, iovaHi: number, iovaLo: number, access: number): number {
    const probed = this.#probed;
    if (probed === null) return this.#loadDte(id, slot, iovaHi, iovaLo, access);
    if ((this.#layers & LAYER.CONTEXT) !== 0 && probed.#id[slot] === id) {
      this.#kind[slot] = probed.#kind[slot]!;
      this.#mode[slot] = probed.#mode[slot]!;
      this.#perm[slot] = probed.#perm[slot]!;
      this.#domain[slot] = probed.#domain[slot]!;
      this.#flags[slot] = probed.#flags[slot]!;
      this.#intCtl[slot] = probed.#intCtl[slot]!;
      this.#rootPfn[slot] = probed.#rootPfn[slot]!;
      this.#beyondHi[slot] = probed.#beyondHi[slot]!;
      this.#beyondLo[slot] = probed.#beyondLo[slot]!;
    } else {
      const status = this.#loadDte(id, slot, iovaHi, iovaLo, access);
      if (status !== TRANSLATE_OK) return status;
    }
    const from = probed.#iotlb;
    const domain = this.#domain[slot]!;
    if ((this.#layers & LAYER.LEAF) !== 0 && from.peek(domain, iovaHi, iovaLo)) {
      this.#iotlb.fill(domain, iovaHi, iovaLo, from.sizeLg2, from.outHi, from.outLo, from.perm, from.extra);
    }
    return TRANSLATE_OK;
  }

  /** Reads the device table entry of `id` into `slot`. */
  #loadDte(id: number, slot: number, iovaHi: number, iovaLo: number, access: number): number {
    const kept = this.#kept === null ? undefined : this.#kept.get(id);
    let view: Int32Array;
    let at = 0;
    this.#id[slot] = NOBODY;
    if (kept !== undefined) view = kept;
    else {
      const words = this.#words;
      const segmentBits = 16 - this.#segmentsLg2;
      const segment = id >>> segmentBits;
      const index = id & ((1 << segmentBits) - 1);
      const reg = segment === 0 ? REG_DEV_TAB : REG_DEV_TAB_SEG + 2 * (segment - 1);
      const lo = words[reg]!;
      const hi = words[reg + 1]!;
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
        return this.#events.hardwareError(EVENT.DEV_TAB_HARDWARE_ERROR, id, 0, pfn, (index & 127) << 5, access);
      }
      view = memory.view;
      at = memory.index + ((index & 127) << 3);
    }
    const w0 = view[at]!;
    const w1 = view[at + 1]!;
    const w2 = view[at + 2]!;
    const w3 = view[at + 3]!;
    if ((w0 & DTE_V) === 0) {
      this.#kind[slot] = KIND_UNTRANSLATED;
      this.#cacheDte(id, slot, view, at);
      return TRANSLATE_OK;
    }
    const reserved = this.#dteReserved;
    if (((w0 & reserved[0]!) | (w1 & reserved[1]!) | (w2 & reserved[2]!) | (w3 & reserved[3]!)) !== 0) {
      return this.#events.illegalDte(id, FLAG_RZ, iovaHi, iovaLo, access);
    }
    const translates = (w0 & DTE_TV) !== 0;
    const mode = (w0 & DTE_MODE) >>> DTE_MODE_SHIFT;
    if (translates && mode > this.#maxMode) return this.#events.illegalDte(id, 0, iovaHi, iovaLo, access);
    // Guest translation is a later version's: an entry that asks for it must not be taken for a host-only one.
    if (translates && (w1 & DTE_GV) !== 0) return this.#events.illegalDte(id, FLAG_RZ, iovaHi, iovaLo, access);
    this.#kind[slot] = !translates ? KIND_NOT_CONFIGURED : mode === 0 ? KIND_NO_TABLE : KIND_PAGING;
    this.#mode[slot] = mode;
    this.#perm[slot] = (w1 >>> DTE_PERM_SHIFT) & 3;
    this.#domain[slot] = translates ? w2 & DTE_DOMAIN : 0;
    this.#rootPfn[slot] = pfnOfWords(w1 & ROOT_HI, w0);
    this.#flags[slot] = w3;
    this.#intCtl[slot] = (view[at + 4]! & DTE_IV) === 0 ? -1 : (view[at + 5]! & DTE_INT_CTL) >>> DTE_INT_CTL_SHIFT;
    this.#beyondHi[slot] = BEYOND_HI[mode]!;
    this.#beyondLo[slot] = BEYOND_LO[mode]!;
    this.#cacheDte(id, slot, view, at);
    return TRANSLATE_OK;
  }

  /** The entry at `view[at]` of `id`, taken apart in `slot`, may answer for it from now on. */
  #cacheDte(id: number, slot: number, view: Int32Array, at: number): void {
    if (!this.#cacheDtes) return;
    this.#id[slot] = id;
    if (this.#kept !== null && view !== this.#kept.get(id)) this.#kept.set(id, view.slice(at, at + DTE_WORDS));
  }

  /** The walk: from the root down, permissions ANDed, then the leaf's size and address. */
  #walk(id: number, slot: number, iovaHi: number, iovaLo: number, access: number, need: number): number {
    const memory = this.#memory;
    const stats = this.#stats;
    let level = this.#mode[slot]!;
    let pfn = this.#rootPfn[slot]!;
    let perm = 3;
    stats.walks++;
    const cache = CHECKS ? this.#walkCache : null;
    if (cache !== null && cache.find(this.#domain[slot]!, iovaHi, iovaLo, 1, level - 1, spanOf)) {
      level = cache.level;
      pfn = pfnOfWords(cache.hi, cache.lo);
      perm = cache.extra;
    }
    // Every step goes to a lower level, so there are six at most.
    for (;;) {
      const index = indexOf(iovaHi, iovaLo, level);
      stats.walkReads++;
      if (!memory.locate(pfn, false)) {
        const domain = this.#domain[slot]!;
        return this.#events.hardwareError(EVENT.PAGE_TAB_HARDWARE_ERROR, id, domain, pfn, index << 3, access);
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
      if (cache !== null && this.#probed === null) {
        cache.fill(this.#domain[slot]!, level, iovaHi, iovaLo, spanOf(level), hi & ADDRESS_HI, lo & ADDRESS_LO, perm);
      }
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
      return this.#events.invalidRequest(id, INVALID_REQUEST.READ_IN_INTERRUPT_RANGE, 0, iovaLo);
    }
    const intCtl = this.#intCtl[slot]!;
    if (intCtl < 0 || intCtl === INT_CTL.FORWARD) return this.#pass(0, iovaLo);
    return this.#events.invalidRequest(id, INVALID_REQUEST.INTERRUPT_REFUSED, 0, iovaLo);
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

/** A function of its own, so that the closure costs nothing where there is no such cache. */
const dropDirectories = (cache: WalkCache, domain: number, startPfn: number, lastPfn: number): number =>
  cache.invalidate((tag) => tag === domain, startPfn, lastPfn);
