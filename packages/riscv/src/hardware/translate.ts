/**
 * The process to translate an IOVA: specification section of that name, for untranslated requests. IOTLB first; then
 * device context, first stage, MSI page table, second stage; a fault becomes a record.
 */
import { CHECKS, pfnOfWords } from '@iommu-ts/bits';
import { ACCESS, LAYER } from '@iommu-ts/iommu-core';
import type { HardwareStats } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { CAUSE, CAUSES, TTYP } from '../faults.ts';
import { EXTRA_FRAGMENT_S1, EXTRA_FRAGMENT_S2 } from './cache.ts';
import type { TranslationCache } from './cache.ts';
import { DeviceContext } from './context.ts';
import { Directory } from './directory.ts';
import type { FaultQueue } from './fault-queue.ts';
import type { Features } from './features.ts';
import { MsiTranslator, NOT_MSI } from './msi.ts';
import { OWN_LEAF } from './retained.ts';
import type { Retained } from './retained.ts';
import { PERM, PageWalker } from './walk.ts';

const OFF = 0;
const BARE = 1;
const DTF = 1 << 4;
/** The one NAPOT size. */
const NAPOT_LG2 = 16;
const KEPT_WITH_DTF = new Set(
  Object.keys(CAUSES)
    .filter((c) => CAUSES[Number(c)]!.withDtf)
    .map(Number),
);

export class TranslationEngine {
  readonly directory: Directory;
  readonly #cache: TranslationCache;
  readonly #walker: PageWalker;
  readonly #msi: MsiTranslator;
  readonly #faults: FaultQueue;
  /** Used where nothing is cached. */
  readonly #scratch = new DeviceContext();
  readonly #probed = new DeviceContext();
  /** `ddtp.iommu_mode`. */
  mode = OFF;

  outHi = 0;
  outLo = 0;
  /** Page-based memory type of the last translation that walked. */
  pbmt = 0;

  constructor(
    memory: PhysicalMemory,
    features: Features,
    cache: TranslationCache,
    faults: FaultQueue,
    stats: HardwareStats,
  ) {
    this.#cache = cache;
    this.#faults = faults;
    this.#walker = new PageWalker(memory, features, stats);
    this.#msi = new MsiTranslator(memory, features, stats);
    this.directory = new Directory(memory, features, this.#walker, stats);
    this.#useCaches(LAYER.ALL);
  }

  /** Mode `'retain'`: which of the caches beside the IOTLB are looked at. */
  #useCaches(layers: number): void {
    const { retained } = this.#cache;
    if (retained === null) return;
    this.directory.retained = (layers & LAYER.CONTEXT) !== 0 ? retained.structures : null;
    this.#walker.firstCache = (layers & LAYER.TABLE) !== 0 ? retained.first : null;
    this.#walker.secondCache = (layers & LAYER.TABLE) !== 0 ? retained.second : null;
    // A translated MSI address is final, as what the IOTLB holds.
    this.#msi.retained = (layers & LAYER.LEAF) !== 0 ? retained.structures : null;
  }

  /**
   * One untranslated request.
   * @param did device_id
   * @param pid process_id, or -1
   * @param access {@link ACCESS} bits; PRIV counts only together with a process_id
   * @returns 0, or the cause, which has been recorded (unless `DC.tc.DTF` is 1 or the queue could not take it).
   */
  translate(did: number, pid: number, hi: number, lo: number, access: number): number {
    if (this.mode <= BARE) return this.#withoutDirectory(did, pid, hi, lo, access);
    const cache = this.#cache;
    const supervisor = pid >= 0 && (access & ACCESS.PRIV) !== 0;
    const ctx = cache.enabled ? cache.slot(did, pid) : this.#scratch;
    if (!cache.enabled || !cache.holds(ctx, did, pid)) {
      ctx.generation = 0;
      const cause = this.directory.locate(ctx, did, pid, access);
      if (cause !== 0) return this.#fault(cause, this.directory.dtf, did, pid, hi, lo, access, supervisor);
      if (cache.enabled) ctx.tag = cache.tagOf(ctx.s1Mode !== 0, ctx.s2Mode !== 0, ctx.msi, ctx.gscid, ctx.pscid);
      cache.keep(ctx, did, pid);
    }
    if (supervisor && !ctx.ens) {
      return this.#fault(CAUSE.TTYPE_DISALLOWED, (ctx.tc & DTF) !== 0, did, pid, hi, lo, access, supervisor);
    }
    const iotlb = cache.iotlb;
    if (cache.enabled && iotlb.lookup(ctx.tag, hi, lo) && allows(iotlb.perm, access, supervisor, ctx.sum)) {
      this.outHi = iotlb.outHi;
      this.outLo = iotlb.outLo;
      return 0;
    }
    const cause = this.#walk(ctx, hi, lo, access, supervisor, cache.enabled);
    if (cause !== 0) return this.#fault(cause, (ctx.tc & DTF) !== 0, did, pid, hi, lo, access, supervisor);
    return 0;
  }

  /**
   * {@link translate} with the caches in `layers` alone, and without a trace but {@link outHi} and {@link outLo}: nothing is
   * recorded, cached, or written to memory. The caller keeps the counters.
   */
  probe(did: number, pid: number, hi: number, lo: number, access: number, layers: number): number {
    this.#setQuiet(true);
    this.#useCaches(layers);
    const cause = this.#probe(did, pid, hi, lo, access, layers);
    this.#useCaches(LAYER.ALL);
    this.#setQuiet(false);
    return cause;
  }

  #setQuiet(quiet: boolean): void {
    this.directory.quiet = quiet;
    this.#walker.quiet = quiet;
    this.#msi.quiet = quiet;
  }

  #probe(did: number, pid: number, hi: number, lo: number, access: number, layers: number): number {
    if (this.mode <= BARE) {
      this.outHi = hi | 0;
      this.outLo = lo | 0;
      return this.mode === OFF ? CAUSE.ALL_INBOUND_DISALLOWED : 0;
    }
    const cache = this.#cache;
    const supervisor = pid >= 0 && (access & ACCESS.PRIV) !== 0;
    let ctx = cache.slot(did, pid);
    if ((layers & LAYER.CONTEXT) === 0 || !cache.enabled || !cache.holds(ctx, did, pid)) {
      ctx = this.#probed;
      const { dtf } = this.directory;
      const cause = this.directory.locate(ctx, did, pid, access);
      this.directory.dtf = dtf;
      if (cause !== 0) return cause;
      ctx.tag = cache.knownTag(ctx.s1Mode !== 0, ctx.s2Mode !== 0, ctx.msi, ctx.gscid, ctx.pscid);
    }
    if (supervisor && !ctx.ens) return CAUSE.TTYPE_DISALLOWED;
    const iotlb = cache.iotlb;
    if ((layers & LAYER.LEAF) !== 0 && ctx.tag >= 0 && iotlb.peek(ctx.tag, hi, lo)) {
      if (allows(iotlb.perm, access, supervisor, ctx.sum)) {
        this.outHi = iotlb.outHi;
        this.outLo = iotlb.outLo;
        return 0;
      }
    }
    return this.#walk(ctx, hi, lo, access, supervisor, false);
  }

  /** `ddtp.iommu_mode` Off or Bare. */
  #withoutDirectory(did: number, pid: number, hi: number, lo: number, access: number): number {
    const supervisor = pid >= 0 && (access & ACCESS.PRIV) !== 0;
    if (this.mode === OFF) {
      return this.#fault(CAUSE.ALL_INBOUND_DISALLOWED, false, did, pid, hi, lo, access, supervisor);
    }
    this.outHi = hi | 0;
    this.outLo = lo | 0;
    return 0;
  }

  #walk(ctx: DeviceContext, hi: number, lo: number, access: number, supervisor: boolean, keep: boolean): number {
    const walker = this.#walker;
    let outHi = hi | 0;
    let outLo = lo | 0;
    let sizeLg2 = 63;
    let s1Lg2 = 63;
    let perm = PERM.READ | PERM.WRITE | PERM.EXEC | PERM.USER | PERM.SUPERVISOR;
    let pbmt = 0;
    let gpaPfn = 0;
    if (ctx.s1Mode !== 0) {
      const cause = walker.first(ctx, hi, lo, access, supervisor);
      if (cause !== 0) return cause;
      outHi = walker.outHi;
      outLo = walker.outLo;
      s1Lg2 = sizeLg2 = walker.sizeLg2;
      perm = walker.perm;
      pbmt = walker.pbmt;
    }
    if (ctx.s2Mode !== 0) {
      if (ctx.msi) {
        const msi = this.#msi.translate(ctx, outHi, outLo, access);
        if (msi === 0) {
          this.outHi = this.#msi.outHi;
          this.outLo = this.#msi.outLo;
          this.pbmt = 0;
        }
        if (msi !== NOT_MSI) return msi;
        // MSI pages may lie anywhere within a larger leaf.
        sizeLg2 = 12;
      }
      gpaPfn = pfnOfWords(outHi, outLo);
      const cause = walker.second(ctx, outHi, outLo, access, 0);
      if (cause !== 0) return cause;
      outHi = walker.outHi;
      outLo = walker.outLo;
      if (walker.sizeLg2 < sizeLg2) sizeLg2 = walker.sizeLg2;
      perm &= walker.perm;
      if (pbmt === 0) pbmt = walker.pbmt;
      if (keep && walker.sizeLg2 > sizeLg2) this.#cache.noteFragment(EXTRA_FRAGMENT_S2);
      if (keep && s1Lg2 !== 63 && s1Lg2 > sizeLg2) this.#cache.noteFragment(EXTRA_FRAGMENT_S1);
    }
    // The translated address is handed on as it is: whether anything answers there is for the bus to find out.
    this.outHi = outHi;
    this.outLo = outLo;
    this.pbmt = pbmt;
    // Both stages Bare: nothing to cache.
    if (keep && sizeLg2 !== 63) {
      const cache = this.#cache;
      if (!CHECKS || cache.retained === null) cache.iotlb.fill(ctx.tag, hi, lo, sizeLg2, outHi, outLo, perm, 0);
      else this.#retain(cache.retained, ctx, hi, lo, sizeLg2, perm, s1Lg2, gpaPfn);
    }
    return 0;
  }

  /**
   * Mode `'retain'`: keeps the translation just made together with the leaves it came from. A NAPOT leaf is kept page by
   * page, as the Privileged specification allows (Svnapot): software has to invalidate every page of it.
   */
  #retain(
    retained: Retained,
    ctx: DeviceContext,
    hi: number,
    lo: number,
    sizeLg2: number,
    perm: number,
    s1Lg2: number,
    gpaPfn: number,
  ): void {
    const walker = this.#walker;
    const global = ctx.s1Mode !== 0 && walker.global;
    let extra = OWN_LEAF;
    if (global || ctx.s2Mode !== 0) {
      const iova = ctx.s1Mode === 0 ? NOWHERE : rangeOf(pfnOfWords(hi, lo), s1Lg2);
      const gpa = ctx.s2Mode === 0 ? NOWHERE : rangeOf(gpaPfn, walker.sizeLg2);
      extra = retained.extraOf({ global, firstIova: iova[0], lastIova: iova[1], firstGpa: gpa[0], lastGpa: gpa[1] });
    }
    const { outHi, outLo } = this;
    this.#cache.iotlb.fill(ctx.tag, hi, lo, sizeLg2 === NAPOT_LG2 ? 12 : sizeLg2, outHi, outLo, perm, extra);
  }

  #fault(
    cause: number,
    dtf: boolean,
    did: number,
    pid: number,
    hi: number,
    lo: number,
    access: number,
    supervisor: boolean,
  ): number {
    if (dtf && !KEPT_WITH_DTF.has(cause)) return cause;
    const ttyp = (access & ACCESS.EXEC) !== 0 ? TTYP.EXEC : (access & ACCESS.WRITE) !== 0 ? TTYP.WRITE : TTYP.READ;
    const word0 = cause | (pid >= 0 ? pid << 12 : 0);
    const word1 = (pid >= 0 ? 1 : 0) | (supervisor ? 2 : 0) | (ttyp << 2) | (did << 8);
    const guest = cause >= CAUSE.INSTRUCTION_GUEST_PAGE_FAULT && cause <= CAUSE.WRITE_GUEST_PAGE_FAULT;
    const walker = this.#walker;
    this.#faults.record(word0, word1, hi | 0, lo | 0, guest ? walker.val2Hi : 0, guest ? walker.val2Lo : 0);
    return cause;
  }
}

/** First and last 4 KiB page of the leaf of `2^sizeLg2` bytes around page `pfn`; of a NAPOT leaf, that page alone. */
const rangeOf = (pfn: number, sizeLg2: number): readonly [number, number] => {
  const pages = sizeLg2 === NAPOT_LG2 ? 1 : 2 ** (sizeLg2 - 12);
  const first = pfn - (pfn % pages);
  return [first, first + pages - 1];
};
const NOWHERE: readonly [number, number] = [Infinity, -1];

/** Whether a cached translation allows the access; if not, a walk finds out what to report. */
const allows = (perm: number, access: number, supervisor: boolean, sum: boolean): boolean => {
  const exec = (access & ACCESS.EXEC) !== 0;
  const need = exec ? PERM.EXEC : access & (PERM.READ | PERM.WRITE);
  if ((perm & need) !== need) return false;
  if (!supervisor) return (perm & PERM.USER) !== 0;
  return (perm & PERM.SUPERVISOR) !== 0 || (sum && !exec);
};
