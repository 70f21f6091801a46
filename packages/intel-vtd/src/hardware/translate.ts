/**
 * DMA remapping: from a requester to its tables, from an address to a page.
 * VT-d specification revision 4.1, section 3.4 "Address translation", 3.7 "Second-stage translation", 3.14 "Requests to the
 * interrupt address range", 9.1 root entries, 9.3 context entries, 9.8 second-stage paging entries.
 *
 * Context entries are cached (by source-id, direct mapped), translations in the IOTLB (by domain-id). Only entries that
 * translate are cached, never a fault, whatever CAP.CM says. With an IOTLB of mode `none` nothing is cached at all; with mode
 * `retain` everything that the architecture lets a unit keep, see {@link Retained}. Both stages have their paging-structure
 * caches; nested translation, where they would meet, is not built.
 */
import { CHECKS, maskHi, maskLo } from '@iommu-ts/bits';
import { ACCESS, Iotlb, LAYER, NO_PASID, TRANSLATE_OK } from '@iommu-ts/iommu-core';
import type { HardwareStats } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { FAULT } from '../faults.ts';
import type { Capabilities } from '../registers.ts';
import { CONTEXT_ENTRY, ROOT_ENTRY, SS_ENTRY, TT, TTM } from '../structures.ts';
import { beyond, indexOf } from './address.ts';
import { KIND } from './kinds.ts';
import { unusedBits } from './reserved.ts';
import { Retained } from './retained.ts';
import { ScalableMode } from './scalable.ts';

const SLOTS = 1024;

const P = maskLo(ROOT_ENTRY.P);
const FPD = maskLo(CONTEXT_ENTRY.FPD);
const ROOT_RSVD = unusedBits(ROOT_ENTRY, 4);
const CONTEXT_RSVD = unusedBits(CONTEXT_ENTRY, 4);
const CONTEXT_RSVD_0 = CONTEXT_RSVD[0]!;
const CONTEXT_RSVD_2 = CONTEXT_RSVD[2]!;
const PS = maskLo(SS_ENTRY.PS);
const READ_WRITE = maskLo(SS_ENTRY.R) | maskLo(SS_ENTRY.W);
const ADDR_HI = maskHi(SS_ENTRY.ADDR);

/** Second-stage levels of context-entry field AW (2 is 48 bits, 4 levels). */
const LEVELS_OF_AW = (aw: number): number => aw + 2;

/** Reserved bits of second-stage entries as words: index 4 * level + 2 * leaf + word. */
const secondStageReserved = (caps: Capabilities, haw: number): Int32Array => {
  const table = new Int32Array(4 * 6);
  // 51:HAW of the address, and bit 62; 61:52 and 63 are ignored.
  const high = ((1n << 52n) - (1n << BigInt(haw))) | (1n << 62n);
  const snp = caps.snoopControl ? 0n : 1n << 11n;
  for (let level = 1; level <= 5; level++) {
    const pointer = high | (1n << 11n) | (level >= 4 ? 1n << 7n : 0n);
    let leaf = high | snp;
    if (level > 1) leaf |= (1n << BigInt(12 + 9 * (level - 1))) - (1n << 12n);
    if ((level === 2 && !caps.pages2M) || (level === 3 && !caps.pages1G) || level >= 4) leaf |= 1n << 7n;
    for (const [i, bits] of [pointer, leaf].entries()) {
      table[4 * level + 2 * i] = Number(BigInt.asIntN(32, bits));
      table[4 * level + 2 * i + 1] = Number(BigInt.asIntN(32, bits >> 32n));
    }
  }
  return table;
};

/** The remapping logic of a unit. Faults come back as reasons; recording them is the unit's business. */
export class Remapper {
  /** After success: the physical address. */
  outHi = 0;
  outLo = 0;
  /** After a fault: the structures say that it is not to be recorded (FPD). */
  faultDisabled = false;
  /** GSTS.TES. */
  enabled = false;
  /** The root table as SRTP latched it. */
  rootPfn = 0;
  mode: number = TTM.LEGACY;

  // Context cache, direct mapped by source-id; public for the scalable-mode half.
  readonly slotSid = new Int32Array(SLOTS + 1).fill(-1);
  readonly slotKind = new Uint8Array(SLOTS + 1);
  readonly slotLevels = new Uint8Array(SLOTS + 1);
  readonly slotBits = new Uint8Array(SLOTS + 1);
  readonly slotFpd = new Uint8Array(SLOTS + 1);
  readonly slotDid = new Int32Array(SLOTS + 1);
  readonly slotRoot = new Float64Array(SLOTS + 1);
  readonly slotTag = new Float64Array(SLOTS + 1);
  readonly slotFlags = new Int32Array(SLOTS + 1);

  /** What the adversarial unit keeps beside, null in every other. */
  retained: Retained | null;
  /** Of a remapper that answers probes: whose caches it may look into. Null: it is the real one. */
  readonly probed: Remapper | null;
  /** {@link LAYER}s that the probe at hand may look into. */
  private layers = 0;
  /** What answers the probes of this one, once there was one. */
  private prober: Remapper | null = null;

  private readonly memory: PhysicalMemory;
  private readonly iotlb: Iotlb;
  private readonly stats: HardwareStats;
  private readonly caching: boolean;
  private readonly sagaw: number;
  private readonly mgaw: number;
  private readonly haw: number;
  private readonly passThrough: boolean;
  private readonly deviceTlb: boolean;
  /** Address bits above the host address width, of a pointer's high word. */
  private readonly pointerRsvdHi: number;
  private readonly didRsvd: number;
  private readonly reserved: Int32Array;
  private readonly scalable: ScalableMode;
  private readonly caps: Capabilities;

  /** @param probed only answers probes of this one */
  constructor(
    memory: PhysicalMemory,
    iotlb: Iotlb,
    caps: Capabilities,
    haw: number,
    stats: HardwareStats,
    probed: Remapper | null = null,
  ) {
    this.retained = iotlb.mode === 'retain' ? new Retained(caps.cachingMode) : null;
    this.probed = probed;
    this.caps = caps;
    this.memory = memory;
    this.iotlb = iotlb;
    this.stats = stats;
    this.caching = iotlb.mode !== 'none';
    this.sagaw = caps.sagaw;
    this.mgaw = caps.mgaw;
    this.haw = haw;
    this.passThrough = caps.passThrough;
    this.deviceTlb = caps.deviceTlb;
    this.pointerRsvdHi = haw >= 64 ? 0 : -(2 ** (haw - 32)) | 0;
    this.didRsvd = (0xffff & ~((1 << caps.didBits) - 1)) << 8;
    this.reserved = secondStageReserved(caps, haw);
    this.scalable = new ScalableMode(this, memory, iotlb, caps, haw, stats);
  }

  reset(): void {
    this.enabled = false;
    this.rootPfn = 0;
    this.mode = TTM.LEGACY;
    this.slotSid.fill(-1);
    this.retained?.clear();
  }

  /**
   * See `IommuHardware.probe`: a second remapper, with memory and root table in common, one context slot and an IOTLB of one
   * entry, translates; what it may know beforehand it takes from this one's caches.
   */
  probe(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number, layers: number): number {
    const prober = (this.prober ??= this.makeProber());
    prober.layers = layers;
    prober.enabled = this.enabled;
    prober.rootPfn = this.rootPfn;
    prober.mode = this.mode;
    prober.slotSid[requester & (SLOTS - 1)] = -1;
    prober.iotlb.invalidateAll();
    prober.retained = this.retained === null ? null : this.retained.viewed(layers);
    const status = prober.translate(requester, pasid, iovaHi, iovaLo, access);
    this.outHi = prober.outHi;
    this.outLo = prober.outLo;
    return status;
  }

  private makeProber(): Remapper {
    const stats = { walks: 0, walkReads: 0, structureReads: 0, commands: 0, invalidations: 0, faults: 0 };
    return new Remapper(this.memory, new Iotlb({ sets: 1, ways: 1 }), this.caps, this.haw, stats, this);
  }

  /**
   * Translates one access: {@link TRANSLATE_OK} with {@link outHi}, {@link outLo}, a fault reason, or -1 for a read of the
   * interrupt address range, which no fault reason stands for.
   */
  translate(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number): number {
    const hi = iovaHi | 0;
    const lo = iovaLo | 0;
    if (!this.enabled) {
      this.outHi = hi;
      this.outLo = lo;
      return TRANSLATE_OK;
    }
    this.faultDisabled = false;
    if (pasid !== NO_PASID) return this.scalable.translatePasid(requester & 0xffff, pasid, hi, lo, access);
    if (hi === 0 && lo >>> 20 === 0xfee) {
      // An interrupt request, not DMA: only writes exist (3.14).
      this.outHi = hi;
      this.outLo = lo;
      return (access & ACCESS.WRITE) !== 0 ? TRANSLATE_OK : -1;
    }
    const sid = requester & 0xffff;
    const slot = sid & (SLOTS - 1);
    if (this.slotSid[slot] !== sid || !this.caching) {
      const fault = this.probed === null ? this.loadContext(sid, slot) : this.probeContext(sid, slot, hi, lo);
      if (fault !== TRANSLATE_OK) {
        this.slotSid[slot] = -1;
        return fault;
      }
      this.slotSid[slot] = sid;
    }
    const status = this.translateSlot(slot, hi, lo, access);
    if (status !== TRANSLATE_OK) this.faultDisabled = this.slotFpd[slot] !== 0;
    return status;
  }

  /** Translates by what context-cache slot `slot` says. */
  translateSlot(slot: number, hi: number, lo: number, access: number): number {
    const legacy = this.mode === TTM.LEGACY;
    const kind = this.slotKind[slot]!;
    if (kind === KIND.SECOND_STAGE) {
      if (beyond(hi, lo, this.slotBits[slot]!)) return legacy ? FAULT.LGN_1 : FAULT.SGN_4;
      const tag = this.slotDid[slot]!;
      if (this.iotlb.lookup(tag, hi, lo) && (access & READ_WRITE & ~this.iotlb.perm) === 0) {
        this.outHi = this.iotlb.outHi;
        this.outLo = this.iotlb.outLo;
        return TRANSLATE_OK;
      }
      // Not cached, or cached without the permission: only a walk may fault, for the tables may allow more by now.
      const status = this.secondStage(this.slotRoot[slot]!, this.slotLevels[slot]!, tag, hi, lo, access);
      return legacy ? status : scalableReason(status);
    }
    if (kind === KIND.PASS_THROUGH) {
      if (beyond(hi, lo, this.haw)) return legacy ? FAULT.LGN_1 : FAULT.SGN_4;
      this.outHi = hi;
      this.outLo = lo;
      return TRANSLATE_OK;
    }
    return this.scalable.firstStage(slot, hi, lo, access);
  }

  /** {@link loadContext} for a probe: from the real one's context cache, if that counts and has it. */
  private probeContext(sid: number, slot: number, hi: number, lo: number): number {
    const from = this.probed!;
    if ((this.layers & LAYER.CONTEXT) !== 0 && from.caching && from.slotSid[slot] === sid) {
      this.slotKind[slot] = from.slotKind[slot]!;
      this.slotLevels[slot] = from.slotLevels[slot]!;
      this.slotBits[slot] = from.slotBits[slot]!;
      this.slotFpd[slot] = from.slotFpd[slot]!;
      this.slotDid[slot] = from.slotDid[slot]!;
      this.slotRoot[slot] = from.slotRoot[slot]!;
      this.slotTag[slot] = from.slotTag[slot]!;
      this.slotFlags[slot] = from.slotFlags[slot]!;
    } else {
      const fault = this.loadContext(sid, slot);
      if (fault !== TRANSLATE_OK) return fault;
    }
    this.seed(slot, hi, lo);
    return TRANSLATE_OK;
  }

  /** For a probe, once it is known who asks: takes the translation from the real IOTLB, if that counts and has it. */
  seed(slot: number, hi: number, lo: number): void {
    const from = this.probed!.iotlb;
    const tag = this.slotTag[slot]!;
    if ((this.layers & LAYER.LEAF) === 0 || !from.peek(tag, hi, lo)) return;
    this.iotlb.fill(tag, hi, lo, from.sizeLg2, from.outHi, from.outLo, from.perm, from.extra);
  }

  /** Reads root and context entry of `sid` into context-cache slot `slot`; returns a fault reason or 0. */
  private loadContext(sid: number, slot: number): number {
    if (this.mode !== TTM.LEGACY) return this.scalable.loadContext(sid, slot);
    const memory = this.memory;
    const kept = CHECKS ? this.retained : null;
    const absent = kept === null ? 0 : kept.absentContext(sid);
    if (absent !== 0) {
      this.faultDisabled = absent > 255;
      return absent & 255;
    }
    const entry = kept === null ? undefined : kept.context(sid, true);
    let view: Int32Array;
    let at = 0;
    if (entry !== undefined) view = entry;
    else {
      this.stats.structureReads++;
      if (!memory.locate(this.rootPfn, false)) return FAULT.LRT_1;
      view = memory.view;
      at = memory.index + (sid >>> 8) * 4;
      const root0 = view[at]!;
      const root1 = view[at + 1]!;
      if ((root0 & P) === 0) {
        if (kept !== null) kept.keepAbsentContext(sid, FAULT.LRT_2, false);
        return FAULT.LRT_2;
      }
      if (
        (root0 & ROOT_RSVD[0]!) !== 0 ||
        (root1 & this.pointerRsvdHi) !== 0 ||
        view[at + 2] !== 0 ||
        view[at + 3] !== 0
      ) {
        return FAULT.LRT_3;
      }
      this.stats.structureReads++;
      if (!memory.locate((root1 >>> 0) * 0x10_0000 + (root0 >>> 12), false)) return FAULT.LCT_1;
      view = memory.view;
      at = memory.index + (sid & 0xff) * 4;
    }
    const lo = view[at]!;
    const hi = view[at + 1]!;
    const high = view[at + 2]!;
    // FPD counts even in an entry that is not present.
    this.faultDisabled = (lo & FPD) !== 0;
    if ((lo & P) === 0) {
      if (kept !== null) kept.keepAbsentContext(sid, FAULT.LCT_2, this.faultDisabled);
      return FAULT.LCT_2;
    }
    const tt = (lo >>> CONTEXT_ENTRY.TT.lsb) & 3;
    const pointerBad = tt !== TT.PASS_THROUGH && (hi & this.pointerRsvdHi) !== 0;
    if (
      (lo & CONTEXT_RSVD_0) !== 0 ||
      pointerBad ||
      (high & (CONTEXT_RSVD_2 | this.didRsvd)) !== 0 ||
      view[at + 3] !== 0
    ) {
      return FAULT.LCT_3;
    }
    const aw = high & 7;
    if (aw < 1 || aw > 3 || ((this.sagaw >>> aw) & 1) === 0) return FAULT.LCT_4;
    if (tt === 3 || (tt === TT.PASS_THROUGH && !this.passThrough) || (tt === TT.DEVICE_TLB && !this.deviceTlb)) {
      return FAULT.LCT_4;
    }
    if (kept !== null && entry === undefined) kept.keepContext(sid, true, view, at);
    const levels = LEVELS_OF_AW(aw);
    const did = (high >>> 8) & 0xffff;
    this.slotKind[slot] = tt === TT.PASS_THROUGH ? KIND.PASS_THROUGH : KIND.SECOND_STAGE;
    this.slotLevels[slot] = levels;
    this.slotBits[slot] = Math.min(this.mgaw, 12 + 9 * levels);
    this.slotFpd[slot] = lo & FPD;
    this.slotDid[slot] = did;
    this.slotTag[slot] = did;
    this.slotRoot[slot] = (hi >>> 0) * 0x10_0000 + (lo >>> 12);
    return TRANSLATE_OK;
  }

  /** True when the unit has second-stage tables of address width code `aw`. */
  supportsWidth(aw: number): boolean {
    return aw >= 1 && aw <= 3 && ((this.sagaw >>> aw) & 1) !== 0;
  }

  /**
   * Walks a second-stage table and fills the IOTLB. Permissions are those of every level together, judged at the end.
   * Returns the legacy-mode fault reason, or 0 with the address in {@link outHi}, {@link outLo}.
   */
  secondStage(root: number, levels: number, tag: number, hi: number, lo: number, access: number): number {
    const memory = this.memory;
    const stats = this.stats;
    const reserved = this.reserved;
    const denied = (access & ACCESS.WRITE) !== 0 ? FAULT.LGN_2 : FAULT.LGN_3;
    let pfn = root;
    let perm = READ_WRITE;
    let level = levels;
    stats.walks++;
    const kept = CHECKS ? this.retained : null;
    if (kept !== null) {
      if (kept.isAbsent(tag, hi, lo, levels)) return denied;
      if (kept.find(tag, hi, lo, levels)) {
        level = kept.level;
        pfn = kept.pfn;
        perm = kept.extra;
      }
    }
    for (; level > 0; level--) {
      stats.walkReads++;
      if (!memory.locate(pfn, false)) return FAULT.LSS_1;
      const at = memory.index + indexOf(level, hi, lo) * 2;
      const entryLo = memory.view[at]!;
      const entryHi = memory.view[at + 1]!;
      if ((entryLo & READ_WRITE) === 0) {
        if (kept !== null) kept.keepAbsent(tag, level, hi, lo);
        return denied;
      }
      const leaf = level === 1 || (level < 4 && (entryLo & PS) !== 0);
      const rsvd = 4 * level + (leaf ? 2 : 0);
      if ((entryLo & reserved[rsvd]!) !== 0 || (entryHi & reserved[rsvd + 1]!) !== 0) return FAULT.LSS_2;
      perm &= entryLo;
      if (!leaf) {
        pfn = (entryHi & ADDR_HI) * 0x10_0000 + (entryLo >>> 12);
        if (kept !== null) kept.keepTable(tag, level - 1, hi, lo, pfn, perm);
        continue;
      }
      const wanted = access & READ_WRITE & ~perm;
      if (wanted !== 0) return (wanted & ACCESS.WRITE) !== 0 ? FAULT.LGN_2 : FAULT.LGN_3;
      let sizeLg2 = 12 + 9 * (level - 1);
      const inPage = (1 << sizeLg2) - 1;
      const outHi = entryHi & ADDR_HI;
      const outLo = (entryLo & ~inPage) | (lo & inPage);
      if (outHi === 0) {
        // DMA must not reach the interrupt range by translation (3.14). A large page around it is cached in small pieces.
        if (outLo >>> 20 === 0xfee) return FAULT.LGN_4;
        if ((outLo & ~inPage) === (0xfee0_0000 & ~inPage)) sizeLg2 = 12;
      }
      this.outHi = outHi;
      this.outLo = outLo;
      this.iotlb.fill(tag, hi, lo, sizeLg2, outHi, outLo, perm, 0);
      return TRANSLATE_OK;
    }
    return FAULT.LSS_1;
  }

  /** Context-cache invalidation (6.5.1.1, 6.5.2.1). Global. */
  invalidateContexts(): void {
    this.slotSid.fill(-1);
    this.retained?.dropContexts(() => true, -1);
  }

  /** Domain-selective. */
  invalidateContextsOfDomain(did: number): void {
    this.dropSlots(0, 0, did);
    this.retained?.dropContexts(() => true, did);
  }

  /**
   * Device-selective; the function mask takes function bits 2, 2:1 or 2:0 out of the comparison. A unit may go by the
   * domain-id that software must give with it (CCMD.DID), and the one that keeps all that it can does; in scalable mode a
   * context entry has none.
   */
  invalidateContextsOfDevice(sid: number, functionMask: number, did: number): void {
    const mask = functionMask === 0 ? 0xffff : functionMask === 1 ? 0xfffb : functionMask === 2 ? 0xfff9 : 0xfff8;
    const wanted = this.retained === null || this.mode !== TTM.LEGACY ? -1 : did;
    this.dropSlots(sid, mask, wanted);
    this.retained?.dropContexts((cached) => (cached & mask) === (sid & mask), wanted);
  }

  /** PASID-cache invalidation (6.5.2.2); -1 for any domain-id, any PASID. */
  invalidatePasids(did: number, pasid: number): void {
    // Slots hold what the PASID entries said, but for those of legacy mode.
    if (this.retained === null || this.mode !== TTM.LEGACY) this.dropSlots(0, 0, did);
    this.retained?.dropPasids(did, pasid);
  }

  /** Drops the context slots of source-ids that are `sid` where `mask` has ones, and of domain-id `did` unless that is -1. */
  private dropSlots(sid: number, mask: number, did: number): void {
    for (let slot = 0; slot < SLOTS; slot++) {
      const cached = this.slotSid[slot]!;
      if (cached < 0 || (cached & mask) !== (sid & mask)) continue;
      if (did === -1 || this.slotDid[slot] === did) this.slotSid[slot] = -1;
    }
  }
}

/** Reasons of a second-stage walk as scalable mode numbers them. */
const scalableReason = (reason: number): number => {
  switch (reason) {
    case FAULT.LSS_1:
      return FAULT.SSS_1;
    case FAULT.LSS_2:
      return FAULT.SSS_3;
    case FAULT.LGN_4:
      return FAULT.SGN_8;
    case FAULT.LGN_2:
    case FAULT.LGN_3:
      return FAULT.SSS_2;
    default:
      return reason;
  }
};
