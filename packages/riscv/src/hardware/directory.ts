/**
 * Device and process directories: specification sections "Process to locate the Device-context", "Device-context
 * configuration checks", "Process to locate the Process-context" and "Process-context configuration checks".
 */
import { CHECKS, maskHi, maskLo, pfnOfWords } from '@iommu-ts/bits';
import type { HardwareStats } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { CAUSE } from '../faults.ts';
import { DC_ta, DC_tc, DDTE, PC_ta } from '../structures.ts';
import type { DeviceContext } from './context.ts';
import type { Features } from './features.ts';
import type { RetainedStructures } from './retained.ts';
import { accessFault } from './walk.ts';
import type { PageWalker } from './walk.ts';

/** Bits that no field of a layout names, low and high word. */
const reservedLo = (layout: Readonly<Record<string, { msb: number; lsb: number; doc: string }>>): number =>
  ~Object.values(layout).reduce((set, field) => set | maskLo(field), 0);
const reservedHi = (layout: Readonly<Record<string, { msb: number; lsb: number; doc: string }>>): number =>
  ~Object.values(layout).reduce((set, field) => set | maskHi(field), 0);

const ENTRY_RESERVED_LO = reservedLo(DDTE);
const ENTRY_RESERVED_HI = reservedHi(DDTE);
const TC_RESERVED_LO = reservedLo(DC_tc);
const TA_RESERVED_LO = reservedLo({ PSCID: DC_ta.PSCID });
const PC_TA_RESERVED_LO = reservedLo(PC_ta);
/** Bits 59:44 of iosatp, pdtp and msiptp. */
const POINTER_RESERVED_HI = 0x0fff_f000;

const V = maskLo(DC_tc.V);
const EN_ATS = maskLo(DC_tc.EN_ATS);
const EN_PRI = maskLo(DC_tc.EN_PRI);
const T2GPA = maskLo(DC_tc.T2GPA);
const PDTV = maskLo(DC_tc.PDTV);
const PRPR = maskLo(DC_tc.PRPR);
const GADE = maskLo(DC_tc.GADE);
const SADE = maskLo(DC_tc.SADE);
const DPE = maskLo(DC_tc.DPE);
const SBE = maskLo(DC_tc.SBE);
const SXL = maskLo(DC_tc.SXL);
const ENS = maskLo(PC_ta.ENS);
const SUM = maskLo(PC_ta.SUM);

export class Directory {
  readonly #memory: PhysicalMemory;
  readonly #features: Features;
  readonly #walker: PageWalker;
  readonly #stats: HardwareStats;
  /** Levels of the device directory (1 … 3), its root page, and how many device_ids it tells apart. */
  #levels = 0;
  #rootPfn = 0;
  #devices = 0;
  /** Entries that are used instead of memory, where there are any; {@link quiet}: but none is added. */
  retained: RetainedStructures | null = null;
  quiet = false;
  /** After {@link locate}: the device context was found, so its DTF counts. */
  dtf = false;

  constructor(memory: PhysicalMemory, features: Features, walker: PageWalker, stats: HardwareStats) {
    this.#memory = memory;
    this.#features = features;
    this.#walker = walker;
    this.#stats = stats;
  }

  /** `ddtp` has changed: a directory of `levels` (0: none) with its root at page `rootPfn`. */
  place(levels: number, rootPfn: number): void {
    this.#levels = levels;
    this.#rootPfn = rootPfn;
    this.#devices = 1 << Math.min(24, (this.#features.msiFlat ? 6 : 7) + 9 * (levels - 1));
  }

  /**
   * Finds the context of an untranslated request and writes it to `ctx`.
   * @param pid process_id, or -1 when the transaction has none
   * @returns 0, or the cause; for guest-page faults the walker holds `iotval2`.
   */
  locate(ctx: DeviceContext, did: number, pid: number, access: number): number {
    this.dtf = false;
    const cause = this.#device(ctx, did);
    if (cause !== 0) return cause;
    this.dtf = (ctx.tc & (1 << 4)) !== 0;
    const pdtv = (ctx.tc & PDTV) !== 0;
    ctx.sum = false;
    ctx.ens = true;
    if (pid >= 0 && !pdtv) return CAUSE.TTYPE_DISALLOWED;
    if (pdtv) {
      const mode = ctx.s1Mode;
      // A process_id that is wider than the directory; a Bare directory has no width to check.
      if (pid >= 0 && mode !== 0 && pid >= (mode === 1 ? 0x100 : mode === 2 ? 0x2_0000 : 0x10_0000)) {
        return CAUSE.TTYPE_DISALLOWED;
      }
      ctx.s1Mode = 0;
      const process = pid < 0 && (ctx.tc & DPE) !== 0 ? 0 : pid;
      if (process >= 0 && mode !== 0) {
        const failed = this.#process(ctx, did, mode, process, access);
        if (failed !== 0) return failed;
      }
    }
    return 0;
  }

  #device(ctx: DeviceContext, did: number): number {
    const memory = this.#memory;
    const extended = this.#features.msiFlat;
    const bits0 = extended ? 6 : 7;
    // Wider than the directory: cause 260, and no DTF is known then.
    if (did >= this.#devices || did < 0) return CAUSE.TTYPE_DISALLOWED;
    const retained = CHECKS ? this.retained : null;
    let table = this.#rootPfn;
    let level = this.#levels - 1;
    if (retained !== null) {
      const kept = retained.device(did);
      if (kept !== undefined) return this.#decode(ctx, kept, 0, extended);
      for (let i = 0; i < level; i++) {
        const known = retained.deviceTable(i, did >>> (bits0 + 9 * i));
        if (known < 0) continue;
        table = known;
        level = i;
      }
    }
    for (let i = level; i > 0; i--) {
      const index = (did >>> (bits0 + 9 * (i - 1))) & 0x1ff;
      if (table >= this.#features.pasEndPfn || !memory.locate(table, false)) return CAUSE.DDT_LOAD_ACCESS_FAULT;
      this.#stats.structureReads++;
      const at = memory.index + index * 2;
      const lo = memory.view[at]!;
      const hi = memory.view[at + 1]!;
      if ((lo & V) === 0) return CAUSE.DDT_NOT_VALID;
      if ((lo & ENTRY_RESERVED_LO) !== 0 || (hi & ENTRY_RESERVED_HI) !== 0) return CAUSE.DDT_MISCONFIGURED;
      table = (hi & 0x3f_ffff) * 0x40_0000 + (lo >>> 10);
      if (retained !== null && !this.quiet) {
        retained.keepDeviceTable(i - 1, did >>> (bits0 + 9 * (i - 1)), table);
      }
    }
    if (table >= this.#features.pasEndPfn || !memory.locate(table, false)) return CAUSE.DDT_LOAD_ACCESS_FAULT;
    this.#stats.structureReads++;
    const words = extended ? 16 : 8;
    const at = memory.index + (did & ((1 << bits0) - 1)) * words;
    const cause = this.#decode(ctx, memory.view, at, extended);
    if (cause === 0 && retained !== null && !this.quiet) retained.keepDevice(did, memory.view, at, words);
    return cause;
  }

  /** Checks a device context in the order of no particular rule: all checks have one cause. */
  #decode(ctx: DeviceContext, view: Int32Array, at: number, extended: boolean): number {
    const f = this.#features;
    const tc = view[at]!;
    if ((tc & V) === 0) return CAUSE.DDT_NOT_VALID;
    const [gatpLo, gatpHi] = [view[at + 2]!, view[at + 3]!];
    const [taLo, taHi] = [view[at + 4]!, view[at + 5]!];
    const [fscLo, fscHi] = [view[at + 6]!, view[at + 7]!];
    const s2Mode = gatpHi >>> 28;
    const fscMode = fscHi >>> 28;
    const pdtv = (tc & PDTV) !== 0;
    const bad =
      (tc & TC_RESERVED_LO) !== 0 ||
      view[at + 1] !== 0 ||
      (!f.ats && (tc & (EN_ATS | EN_PRI | PRPR)) !== 0) ||
      ((tc & EN_ATS) === 0 && (tc & (T2GPA | EN_PRI)) !== 0) ||
      ((tc & EN_PRI) === 0 && (tc & PRPR) !== 0) ||
      ((tc & T2GPA) !== 0 && (!f.t2gpa || s2Mode === 0)) ||
      (!pdtv && (tc & DPE) !== 0) ||
      (!f.amoHwad && (tc & (SADE | GADE)) !== 0) ||
      // Neither fctl.BE nor fctl.GXL can be set here, so SBE and SXL must be 0.
      (tc & (SBE | SXL)) !== 0 ||
      ((f.iohgatpModes >>> s2Mode) & 1) === 0 ||
      (s2Mode !== 0 && (gatpLo & 3) !== 0) ||
      (taLo & TA_RESERVED_LO) !== 0 ||
      taHi !== 0 ||
      (fscHi & POINTER_RESERVED_HI) !== 0 ||
      (((pdtv ? f.pdtpModes : f.iosatpModes) >>> fscMode) & 1) === 0;
    if (bad) return CAUSE.DDT_MISCONFIGURED;
    ctx.msi = false;
    if (extended) {
      const msiHi = view[at + 9]!;
      const msiMode = msiHi >>> 28;
      if (
        msiMode > 1 ||
        (msiMode === 1 && s2Mode === 0) ||
        (msiHi & POINTER_RESERVED_HI) !== 0 ||
        (view[at + 10]! & f.msiPageReservedLo) !== 0 ||
        (view[at + 11]! & f.msiPageReservedHi) !== 0 ||
        (view[at + 12]! & f.msiPageReservedLo) !== 0 ||
        (view[at + 13]! & f.msiPageReservedHi) !== 0 ||
        view[at + 14] !== 0 ||
        view[at + 15] !== 0
      ) {
        return CAUSE.DDT_MISCONFIGURED;
      }
      ctx.msi = msiMode === 1;
      ctx.msiPfn = (msiHi & 0xfff) * 0x1_0000_0000 + (view[at + 8]! >>> 0);
      ctx.msiMaskLo = view[at + 10]!;
      ctx.msiMaskHi = view[at + 11]!;
      ctx.msiPatternLo = view[at + 12]!;
      ctx.msiPatternHi = view[at + 13]!;
    }
    ctx.tc = tc;
    ctx.s2Mode = s2Mode;
    ctx.s2Pfn = (gatpHi & 0xfff) * 0x1_0000_0000 + (gatpLo >>> 0);
    ctx.gscid = (gatpHi >>> 12) & 0xffff;
    ctx.pscid = taLo >>> 12;
    ctx.s1Mode = fscMode;
    ctx.s1Hi = (fscHi << 12) | (fscLo >>> 20);
    ctx.s1Lo = fscLo << 12;
    return 0;
  }

  /** The process context of `pid`: the directory's root stands in the first-stage fields of `ctx`, which it then replaces. */
  #process(ctx: DeviceContext, did: number, mode: number, pid: number, access: number): number {
    const memory = this.#memory;
    const retained = CHECKS ? this.retained : null;
    let tableHi = ctx.s1Hi;
    let tableLo = ctx.s1Lo;
    let level = mode - 1;
    if (retained !== null) {
      const kept = retained.process(did, pid);
      if (kept !== undefined) return this.#decodeProcess(ctx, kept, 0);
      for (let i = 1; i <= level; i++) {
        const entry = retained.processTable(did, i, pid >>> (i === 1 ? 8 : 17));
        if (entry === undefined) continue;
        tableHi = hiOfEntry(entry[0]!, entry[1]!);
        tableLo = loOfEntry(entry[0]!);
        level = i - 1;
      }
    }
    for (let i = level; ; i--) {
      // PDI[0] is 8 bits of 16-byte entries, PDI[1] 9 and PDI[2] 3 bits of 8-byte entries.
      const word = i === 0 ? (pid & 0xff) * 4 : ((pid >>> (i === 1 ? 8 : 17)) & 0x1ff) * 2;
      let pfn = pfnOfWords(tableHi, tableLo);
      if (ctx.s2Mode !== 0) {
        const cause = this.#walker.second(ctx, tableHi, tableLo | (word << 2), access, 1);
        // A page table of the second stage that nothing answers for counts as the directory's.
        if (cause === accessFault(access)) return CAUSE.PDT_LOAD_ACCESS_FAULT;
        if (cause !== 0) return cause;
        pfn = pfnOfWords(this.#walker.outHi, this.#walker.outLo);
      }
      if (pfn >= this.#features.pasEndPfn || !memory.locate(pfn, false)) return CAUSE.PDT_LOAD_ACCESS_FAULT;
      this.#stats.structureReads++;
      const at = memory.index + word;
      if (i === 0) {
        const cause = this.#decodeProcess(ctx, memory.view, at);
        if (cause === 0 && retained !== null && !this.quiet) retained.keepProcess(did, pid, memory.view, at);
        return cause;
      }
      const lo = memory.view[at]!;
      const hi = memory.view[at + 1]!;
      if ((lo & V) === 0) return CAUSE.PDT_NOT_VALID;
      if ((lo & ENTRY_RESERVED_LO) !== 0 || (hi & ENTRY_RESERVED_HI) !== 0) return CAUSE.PDT_MISCONFIGURED;
      if (retained !== null && !this.quiet) {
        retained.keepProcessTable(did, i, pid >>> (i === 1 ? 8 : 17), lo, hi);
      }
      tableHi = hiOfEntry(lo, hi);
      tableLo = loOfEntry(lo);
    }
  }

  #decodeProcess(ctx: DeviceContext, view: Int32Array, at: number): number {
    const lo = view[at]!;
    if ((lo & V) === 0) return CAUSE.PDT_NOT_VALID;
    const fscLo = view[at + 2]!;
    const fscHi = view[at + 3]!;
    const fscMode = fscHi >>> 28;
    if (
      (lo & PC_TA_RESERVED_LO) !== 0 ||
      view[at + 1] !== 0 ||
      (fscHi & POINTER_RESERVED_HI) !== 0 ||
      ((this.#features.iosatpModes >>> fscMode) & 1) === 0
    ) {
      return CAUSE.PDT_MISCONFIGURED;
    }
    ctx.s1Mode = fscMode;
    ctx.s1Hi = (fscHi << 12) | (fscLo >>> 20);
    ctx.s1Lo = fscLo << 12;
    ctx.pscid = lo >>> 12;
    ctx.sum = (lo & SUM) !== 0;
    ctx.ens = (lo & ENS) !== 0;
    return 0;
  }
}

/** Address of the table that a non-leaf directory entry points to. */
const hiOfEntry = (lo: number, hi: number): number => ((hi & 0x3f_ffff) << 2) | (lo >>> 30);
const loOfEntry = (lo: number): number => (lo & ~0x3ff) << 2;
