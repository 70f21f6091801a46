/**
 * Scalable mode: context entry → PASID directory → PASID entry, and the first stage that a PASID entry can name.
 * VT-d specification revision 4.1, section 3.4.3 "Scalable mode translation", 3.6 "First-stage translation", 9.2, 9.4 to 9.7.
 *
 * What a PASID entry says is kept in the context cache together with the context (by source-id), for requests without PASID.
 * Requests with PASID read their structures every time (but for a unit that keeps all it may, {@link Retained}); their
 * translations are in the IOTLB like all others. First-stage
 * translations are tagged with domain-id and PASID, second-stage ones with the domain-id. Nested translation is not built.
 */
import { CHECKS, fieldOfWord, maskHi, maskLo, maskWord } from '@iommu-ts/bits';
import { ACCESS, TRANSLATE_OK } from '@iommu-ts/iommu-core';
import type { HardwareStats, Iotlb } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { FAULT } from '../faults.ts';
import { ECAP } from '../registers.ts';
import type { Capabilities } from '../registers.ts';
import { FS_ENTRY, PASID_DIR_ENTRY, PASID_ENTRY, PGTT, SM_CONTEXT_ENTRY, SM_ROOT_ENTRY, TTM } from '../structures.ts';
import { indexOf, inInterruptRange } from './address.ts';
import { KIND } from './kinds.ts';
import { unusedBits } from './reserved.ts';
import type { Remapper } from './translate.ts';

const P = 1;
const FPD = maskLo(SM_CONTEXT_ENTRY.FPD);
const PASIDE = maskLo(SM_CONTEXT_ENTRY.PASIDE);
const DTE = maskLo(SM_CONTEXT_ENTRY.DTE);
const PRE = maskLo(SM_CONTEXT_ENTRY.PRE);
const RID_PRIV = maskWord(SM_CONTEXT_ENTRY.RID_PRIV, 2);
const RID_PASID = maskWord(SM_CONTEXT_ENTRY.RID_PASID, 2);
const ROOT_RSVD_0 = unusedBits(SM_ROOT_ENTRY, 1)[0]!;
const CONTEXT_RSVD = unusedBits(SM_CONTEXT_ENTRY, 8);
const DIRECTORY_RSVD_0 = unusedBits(PASID_DIR_ENTRY, 1)[0]!;
const PASID_RSVD = unusedBits(PASID_ENTRY, 16);
const SSADE = maskLo(PASID_ENTRY.SSADE);
const WPE = maskWord(PASID_ENTRY.WPE, 4);
const SRE = maskWord(PASID_ENTRY.SRE, 4);
const ERE = maskWord(PASID_ENTRY.ERE, 4);
const EAFE = maskWord(PASID_ENTRY.EAFE, 4);
const NXE = maskWord(PASID_ENTRY.NXE, 4);

/** Kept with a table of the first stage, beside FS_RW and FS_US: no entry above forbids execution. */
const EXECUTABLE = 1;

/** Slot flag beside those of the PASID entry: requests without PASID are privileged. */
const PRIVILEGED = 1 << 30;

const FS_P = maskLo(FS_ENTRY.P);
const FS_RW = maskLo(FS_ENTRY.RW);
const FS_US = maskLo(FS_ENTRY.US);
const FS_A = maskLo(FS_ENTRY.A);
const FS_D = maskLo(FS_ENTRY.D);
const FS_PS = maskLo(FS_ENTRY.PS);
const FS_XD = maskHi(FS_ENTRY.XD);
const FS_ADDR_HI = maskHi(FS_ENTRY.ADDR);

/** True when `hi:lo` is the sign extension of its low `bits` bits (48 or 57). */
const canonical = (hi: number, bits: number): boolean => {
  const top = hi >> (bits - 33);
  return top === 0 || top === -1;
};

export class ScalableMode {
  private readonly owner: Remapper;
  private readonly memory: PhysicalMemory;
  private readonly iotlb: Iotlb;
  private readonly stats: HardwareStats;
  private readonly caps: Capabilities;
  private readonly haw: number;
  private readonly pointerRsvdHi: number;
  private readonly contextRsvd0: number;
  private readonly contextRsvd2: number;
  private readonly ridPasid: boolean;
  private readonly executeRequests: boolean;
  private readonly didRsvd: number;
  /** The slot past the context cache: structures of the request with PASID at hand. */
  private readonly spare: number;

  constructor(
    owner: Remapper,
    memory: PhysicalMemory,
    iotlb: Iotlb,
    caps: Capabilities,
    haw: number,
    stats: HardwareStats,
  ) {
    this.owner = owner;
    this.memory = memory;
    this.iotlb = iotlb;
    this.stats = stats;
    this.caps = caps;
    this.haw = haw;
    this.pointerRsvdHi = -(2 ** (haw - 32)) | 0;
    const has = (bit: number): boolean => ((caps.ecap >> BigInt(bit)) & 1n) !== 0n;
    this.contextRsvd0 = CONTEXT_RSVD[0]! | (caps.deviceTlb ? 0 : DTE) | (caps.pasid ? 0 : PASIDE) | PRE;
    this.contextRsvd2 = CONTEXT_RSVD[2]! | (has(ECAP.RPRIVS.lsb) ? 0 : RID_PRIV);
    this.ridPasid = has(ECAP.RPS.lsb);
    this.executeRequests = has(ECAP.ERS.lsb);
    this.didRsvd = 0xffff & ~((1 << caps.didBits) - 1);
    this.spare = owner.slotSid.length - 1;
  }

  /** A request with PASID. Legacy mode blocks it. */
  translatePasid(sid: number, pasid: number, hi: number, lo: number, access: number): number {
    const owner = this.owner;
    if (owner.mode === TTM.LEGACY) return FAULT.RTA_2;
    const slot = this.spare;
    const fault = this.loadPasid(sid, pasid & 0xf_ffff, true, slot);
    if (fault !== TRANSLATE_OK) return fault;
    if (owner.probed !== null) owner.seed(slot, hi, lo);
    const flags = owner.slotFlags[slot]!;
    owner.faultDisabled = owner.slotFpd[slot] !== 0;
    if ((access & ACCESS.EXEC) !== 0 && (!this.executeRequests || (flags & ERE) === 0)) return FAULT.SPT_5;
    if ((access & ACCESS.PRIV) !== 0 && (flags & SRE) === 0) return FAULT.SPT_6;
    const status = owner.translateSlot(slot, hi, lo, access);
    owner.faultDisabled = status !== TRANSLATE_OK && owner.slotFpd[slot] !== 0;
    return status;
  }

  /** Reads what stands behind `sid` for requests without PASID into context-cache slot `slot`. */
  loadContext(sid: number, slot: number): number {
    return this.loadPasid(sid, 0, false, slot);
  }

  private loadPasid(sid: number, requested: number, withPasid: boolean, slot: number): number {
    const owner = this.owner;
    const memory = this.memory;
    const stats = this.stats;
    // A unit without scalable mode has no other mode than legacy; abort mode and 2 nobody has (7.1, RTA conditions).
    if (owner.mode !== TTM.SCALABLE || !this.caps.scalable) return FAULT.RTA_1;
    const kept = CHECKS ? owner.retained : null;
    const context = kept === null ? undefined : kept.context(sid, false);
    let view: Int32Array;
    let at = 0;
    if (context !== undefined) view = context;
    else {
      stats.structureReads++;
      if (!memory.locate(owner.rootPfn, false)) return FAULT.SRT_1;
      // Each half of a root entry is a pointer of its own, for the devices of one half of the bus.
      view = memory.view;
      at = memory.index + (sid >>> 8) * 4 + ((sid & 0x80) !== 0 ? 2 : 0);
      const rootLo = view[at]!;
      const rootHi = view[at + 1]!;
      if ((rootLo & P) === 0) return FAULT.SRT_2;
      if ((rootLo & ROOT_RSVD_0) !== 0 || (rootHi & this.pointerRsvdHi) !== 0) return FAULT.SRT_3;

      stats.structureReads++;
      if (!memory.locate((rootHi >>> 0) * 0x10_0000 + (rootLo >>> 12), false)) return FAULT.SCT_1;
      view = memory.view;
      at = memory.index + (sid & 0x7f) * 8;
    }
    let lo = view[at]!;
    let hi = view[at + 1]!;
    const rid = view[at + 2]!;
    let fpd = lo & FPD;
    owner.faultDisabled = fpd !== 0;
    if ((lo & P) === 0) return FAULT.SCT_2;
    let bad = (lo & this.contextRsvd0) | (hi & this.pointerRsvdHi) | (rid & this.contextRsvd2);
    for (let w = 3; w < 8; w++) bad |= view[at + w]! & CONTEXT_RSVD[w]!;
    if (bad !== 0) return FAULT.SCT_3;
    if (kept !== null && context === undefined) kept.keepContext(sid, false, view, at);
    if (withPasid && (lo & PASIDE) === 0) return FAULT.SCT_6;
    const pasid = withPasid ? requested : this.ridPasid ? rid & RID_PASID : 0;
    const directorySize = 128 << fieldOfWord(lo, SM_CONTEXT_ENTRY.PDTS);
    if (pasid >>> 6 >= directorySize) return FAULT.SCT_7;

    const entry = kept === null ? undefined : kept.pasid(sid, pasid);
    let directoryFpd = 0;
    if (entry !== undefined) {
      view = entry;
      at = 0;
      directoryFpd = entry[16]!;
    } else {
      stats.structureReads++;
      const directory = (hi >>> 0) * 0x10_0000 + (lo >>> 12) + (pasid >>> 15);
      if (!memory.locate(directory, false)) return FAULT.SPD_1;
      view = memory.view;
      at = memory.index + ((pasid >>> 6) & 511) * 2;
      lo = view[at]!;
      hi = view[at + 1]!;
      directoryFpd = lo & FPD;
      owner.faultDisabled = (fpd | directoryFpd) !== 0;
      if ((lo & P) === 0) return FAULT.SPD_2;
      if ((lo & DIRECTORY_RSVD_0) !== 0 || (hi & this.pointerRsvdHi) !== 0) return FAULT.SPD_3;

      stats.structureReads++;
      if (!memory.locate((hi >>> 0) * 0x10_0000 + (lo >>> 12), false)) return FAULT.SPT_1;
      view = memory.view;
      at = memory.index + (pasid & 63) * 16;
    }
    fpd |= directoryFpd | (view[at]! & FPD);
    owner.faultDisabled = fpd !== 0;
    const fault = this.loadPasidEntry(view, at, pasid, slot);
    if (fault !== TRANSLATE_OK) return fault;
    if (kept !== null && entry === undefined) kept.keepPasid(sid, pasid, view, at, directoryFpd);
    owner.slotFpd[slot] = fpd;
    if (!withPasid && (rid & RID_PRIV) !== 0) {
      if ((owner.slotFlags[slot]! & SRE) === 0) return FAULT.SPT_6;
      owner.slotFlags[slot] = owner.slotFlags[slot]! | PRIVILEGED;
    }
    return TRANSLATE_OK;
  }

  /** Takes a PASID entry apart into slot `slot`. */
  private loadPasidEntry(view: Int32Array, at: number, pasid: number, slot: number): number {
    const owner = this.owner;
    const caps = this.caps;
    const lo = view[at]!;
    const hi = view[at + 1]!;
    const third = view[at + 4]!;
    const fsHi = view[at + 5]!;
    if ((lo & P) === 0) return FAULT.SPT_2;
    const did = view[at + 2]! & 0xffff;
    let bad = (lo & SSADE) | (third & EAFE) | (did & this.didRsvd) | (caps.supervisor ? 0 : third & SRE);
    for (let w = 0; w < 16; w++) bad |= view[at + w]! & PASID_RSVD[w]!;
    if (bad !== 0) return FAULT.SPT_3;
    owner.slotDid[slot] = did;
    owner.slotFlags[slot] = third & (WPE | SRE | ERE | NXE);
    switch (fieldOfWord(lo, PASID_ENTRY.PGTT)) {
      case PGTT.FIRST_STAGE: {
        const five = fieldOfWord(third, PASID_ENTRY.FSPM);
        if (!caps.firstStage || five > 1 || (five === 1 && !caps.firstStage5Level)) return FAULT.SPT_4;
        if ((fsHi & this.pointerRsvdHi) !== 0) return FAULT.SPT_3;
        owner.slotKind[slot] = KIND.FIRST_STAGE;
        owner.slotLevels[slot] = 4 + five;
        owner.slotBits[slot] = 48 + 9 * five;
        owner.slotRoot[slot] = (fsHi >>> 0) * 0x10_0000 + (third >>> 12);
        owner.slotTag[slot] = did + (pasid + 1) * 0x1_0000;
        return TRANSLATE_OK;
      }
      case PGTT.SECOND_STAGE: {
        const aw = fieldOfWord(lo, PASID_ENTRY.AW);
        if (!caps.secondStage || !owner.supportsWidth(aw)) return FAULT.SPT_4;
        if ((hi & this.pointerRsvdHi) !== 0) return FAULT.SPT_3;
        owner.slotKind[slot] = KIND.SECOND_STAGE;
        owner.slotLevels[slot] = aw + 2;
        owner.slotBits[slot] = Math.min(caps.mgaw, 12 + 9 * (aw + 2));
        owner.slotRoot[slot] = (hi >>> 0) * 0x10_0000 + (lo >>> 12);
        owner.slotTag[slot] = did;
        return TRANSLATE_OK;
      }
      case PGTT.PASS_THROUGH:
        if (!caps.passThrough) return FAULT.SPT_4;
        owner.slotKind[slot] = KIND.PASS_THROUGH;
        return TRANSLATE_OK;
      default:
        return FAULT.SPT_4;
    }
  }

  /**
   * Translates through the first stage of slot `slot`. An IOTLB entry allows writes only once the leaf's D bit is set, so
   * the first write after a read walks again and sets it.
   */
  firstStage(slot: number, hi: number, lo: number, access: number): number {
    const owner = this.owner;
    if (!canonical(hi, owner.slotBits[slot]!)) return FAULT.SGN_1;
    const tag = owner.slotTag[slot]!;
    const supervisor = (owner.slotFlags[slot]! & PRIVILEGED) !== 0 || (access & ACCESS.PRIV) !== 0;
    const iotlb = this.iotlb;
    // `extra` keeps what the permissions were taken for: user or supervisor requests.
    if (iotlb.lookup(tag, hi, lo) && (access & 7 & ~iotlb.perm) === 0 && iotlb.extra === (supervisor ? 1 : 0)) {
      owner.outHi = iotlb.outHi;
      owner.outLo = iotlb.outLo;
      return TRANSLATE_OK;
    }
    return this.walkFirstStage(slot, hi, lo, access, supervisor);
  }

  private walkFirstStage(slot: number, hi: number, lo: number, access: number, supervisor: boolean): number {
    const owner = this.owner;
    const memory = this.memory;
    const stats = this.stats;
    const flags = owner.slotFlags[slot]!;
    const levels = owner.slotLevels[slot]!;
    // 51:HAW, and bit 63 where execute-disable is off; 62:52 are ignored.
    const rsvdHi = ((-(2 ** (this.haw - 32)) | 0) & FS_ADDR_HI) | ((flags & NXE) !== 0 ? 0 : FS_XD);
    let pfn = owner.slotRoot[slot]!;
    let allowed = FS_RW | FS_US;
    let executable = true;
    let level = levels;
    stats.walks++;
    const kept = CHECKS ? owner.retained : null;
    const tag = owner.slotTag[slot]!;
    if (kept !== null && kept.find(tag, hi, lo, levels)) {
      level = kept.level;
      pfn = kept.pfn;
      allowed &= kept.extra;
      executable = (kept.extra & EXECUTABLE) !== 0;
    }
    const startLevel = level;
    const startPfn = pfn;
    const startAllowed = allowed | (executable ? EXECUTABLE : 0);
    for (; level > 0; level--) {
      stats.walkReads++;
      if (!memory.locate(pfn, false)) return level === levels ? FAULT.SFS_4 : FAULT.SFS_1;
      const at = memory.index + indexOf(level, hi, lo) * 2;
      const entryLo = memory.view[at]!;
      const entryHi = memory.view[at + 1]!;
      if ((entryLo & FS_P) === 0) return FAULT.SFS_2;
      const large = (entryLo & FS_PS) !== 0 && level > 1;
      if ((entryHi & rsvdHi) !== 0 || (large && (level > 3 || (level === 3 && !this.caps.firstStage1G)))) {
        return FAULT.SFS_3;
      }
      allowed &= entryLo;
      if ((entryHi & FS_XD) !== 0) executable = false;
      if (level > 1 && !large) {
        pfn = (entryHi & FS_ADDR_HI) * 0x10_0000 + (entryLo >>> 12);
        continue;
      }
      let sizeLg2 = 12 + 9 * (level - 1);
      const inPage = (1 << sizeLg2) - 1;
      // Bit 12 of a large page is PAT.
      if ((entryLo & inPage & ~0x1fff) !== 0 && large) return FAULT.SFS_3;
      if (!supervisor && (allowed & FS_US) === 0) return FAULT.SGN_2;
      const writable = (allowed & FS_RW) !== 0 || (supervisor && (flags & WPE) === 0);
      if ((access & ACCESS.WRITE) !== 0 && !writable) return FAULT.SGN_6;
      if ((access & ACCESS.EXEC) !== 0 && !executable) return FAULT.SGN_3;
      const outHi = entryHi & FS_ADDR_HI;
      const outLo = (entryLo & ~inPage) | (lo & inPage);
      if (inInterruptRange(outHi, outLo)) return FAULT.SGN_8;
      if (outHi === 0 && (outLo & ~inPage) === (0xfee0_0000 & ~inPage)) sizeLg2 = 12;
      const dirty = (entryLo & FS_D) !== 0 || (access & ACCESS.WRITE) !== 0;
      if (owner.probed === null) {
        this.setAccessed(tag, startPfn, startLevel, startAllowed, hi, lo, level, (access & ACCESS.WRITE) !== 0);
      }
      owner.outHi = outHi;
      owner.outLo = outLo;
      const perm = ACCESS.READ | (writable && dirty ? ACCESS.WRITE : 0) | (executable ? ACCESS.EXEC : 0);
      this.iotlb.fill(tag, hi, lo, sizeLg2, outHi, outLo, perm, supervisor ? 1 : 0);
      return TRANSLATE_OK;
    }
    return FAULT.SFS_1;
  }

  /**
   * Sets A in every entry of the walk that just succeeded, from the table `top` of `topLevel` down to `leafLevel`, and D in
   * the leaf for a write (3.6.2). What stands above the leaf may be cached from then on; above `top` all of it was before.
   */
  private setAccessed(
    tag: number,
    top: number,
    topLevel: number,
    allowed: number,
    hi: number,
    lo: number,
    leafLevel: number,
    write: boolean,
  ): void {
    const memory = this.memory;
    const kept = CHECKS ? this.owner.retained : null;
    let pfn = top;
    let extra = allowed;
    for (let level = topLevel; level >= leafLevel; level--) {
      if (!memory.locate(pfn, true)) return;
      const at = memory.index + indexOf(level, hi, lo) * 2;
      const entry = memory.view[at]!;
      const set = level === leafLevel && write ? FS_A | FS_D : FS_A;
      if ((entry & set) !== set) memory.view[at] = entry | set;
      const entryHi = memory.view[at + 1]!;
      pfn = (entryHi & FS_ADDR_HI) * 0x10_0000 + (entry >>> 12);
      if (kept === null || level === leafLevel) continue;
      extra &= (entry & (FS_RW | FS_US)) | ((entryHi & FS_XD) === 0 ? EXECUTABLE : 0);
      kept.keepTable(tag, level - 1, hi, lo, pfn, extra);
    }
  }
}
