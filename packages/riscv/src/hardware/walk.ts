/**
 * Page walks: Sv39/48/57 and Sv39x4/48x4/57x4 of the Privileged specification (sections "Virtual Address Translation
 * Process", "Two-Stage Address Translation", Svnapot, Svpbmt), as the IOMMU specification section "Process to translate an
 * IOVA" uses them. Entries are read from memory as words; nothing is allocated.
 */
import { CHECKS, hiOfPfn, loOfPfn, maskHi, maskLo, pfnOfWords } from '@iommu-ts/bits';
import { ACCESS } from '@iommu-ts/iommu-core';
import type { HardwareStats, WalkCache } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { CAUSE } from '../faults.ts';
import { PTE } from '../structures.ts';
import type { DeviceContext } from './context.ts';
import type { Features } from './features.ts';

const V = maskLo(PTE.V);
const R = maskLo(PTE.R);
const W = maskLo(PTE.W);
const X = maskLo(PTE.X);
const U = maskLo(PTE.U);
const G = maskLo(PTE.G);
const A = maskLo(PTE.A);
const D = maskLo(PTE.D);
const PPN_LO = maskLo(PTE.PPN);
const PPN_HI = maskHi(PTE.PPN);
const RESERVED_HI = maskHi(PTE.reserved);
const RSW_HI = maskHi(PTE.RSW60T59B);
const PBMT_HI = maskHi(PTE.PBMT);
const N_HI = maskHi(PTE.N);

/** Permissions of a translation, as kept in the IOTLB. */
export const PERM = { READ: 1, WRITE: 2, EXEC: 4, USER: 8, SUPERVISOR: 16 } as const;

/** Bits of a pointer that are looked at: V alone may be set; A, D, U, PBMT and N are reserved there (G and RSW are not). */
const POINTER_LO = V | R | W | X | U | A | D;

const SADE = 1 << 8;
const GADE = 1 << 7;

/** A walk that meets entries changed under it starts over; more often than this it gives up (other threads only). */
const MAX_RESTARTS = 16;
const RESTART = -1;

/** Access-fault, page-fault and guest-page-fault cause of an access. */
export const accessFault = (access: number): number =>
  (access & ACCESS.EXEC) !== 0
    ? CAUSE.INSTRUCTION_ACCESS_FAULT
    : (access & ACCESS.WRITE) !== 0
      ? CAUSE.WRITE_ACCESS_FAULT
      : CAUSE.READ_ACCESS_FAULT;
const pageFault = (access: number): number =>
  (access & ACCESS.EXEC) !== 0
    ? CAUSE.INSTRUCTION_PAGE_FAULT
    : (access & ACCESS.WRITE) !== 0
      ? CAUSE.WRITE_PAGE_FAULT
      : CAUSE.READ_PAGE_FAULT;
const guestPageFault = (access: number): number =>
  (access & ACCESS.EXEC) !== 0
    ? CAUSE.INSTRUCTION_GUEST_PAGE_FAULT
    : (access & ACCESS.WRITE) !== 0
      ? CAUSE.WRITE_GUEST_PAGE_FAULT
      : CAUSE.READ_GUEST_PAGE_FAULT;

export class PageWalker {
  readonly #memory: PhysicalMemory;
  readonly #stats: HardwareStats;
  readonly #pasEndPfn: number;
  /** Reserved bits of leaves, and of pointers, in the high word. */
  readonly #reservedHi: number;
  readonly #pointerHi: number;
  readonly #svpbmt: boolean;

  /** Non-leaf entries of each stage that are used instead of memory, where there are any. */
  firstCache: WalkCache | null = null;
  secondCache: WalkCache | null = null;
  /** A probe: nothing is added to the caches, no A or D bit is set (but taken as set). */
  quiet = false;

  /** After success of a stage: the translated address of this very byte, size of the leaf, permissions, PBMT. */
  outHi = 0;
  outLo = 0;
  sizeLg2 = 0;
  perm = 0;
  pbmt = 0;
  /** The first stage's leaf is global; known where {@link firstCache} is. */
  global = false;
  /** After a guest-page fault: `iotval2`. */
  val2Hi = 0;
  val2Lo = 0;

  constructor(memory: PhysicalMemory, features: Features, stats: HardwareStats) {
    this.#memory = memory;
    this.#stats = stats;
    this.#pasEndPfn = features.pasEndPfn;
    this.#svpbmt = features.svpbmt;
    this.#reservedHi = RESERVED_HI | (features.svrsw60t59b ? 0 : RSW_HI) | (features.svpbmt ? 0 : PBMT_HI);
    this.#pointerHi = this.#reservedHi | PBMT_HI | N_HI;
  }

  /**
   * First stage: IOVA `hi:lo` to a GPA (or, with a Bare second stage, to the physical address).
   * @param supervisor the transaction asks for supervisor privilege
   * @returns 0, or the cause of the fault.
   */
  first(ctx: DeviceContext, hi: number, lo: number, access: number, supervisor: boolean): number {
    const mode = ctx.s1Mode;
    // The IOVA is the sign-extension of its low 39, 48 or 57 bits.
    const shift = mode === 8 ? 25 : mode === 9 ? 16 : 7;
    if ((hi << shift) >> shift !== (hi | 0)) return pageFault(access);
    for (let i = 0; i < MAX_RESTARTS; i++) {
      const cause = this.#firstOnce(ctx, hi, lo, access, supervisor);
      if (cause !== RESTART) return cause;
    }
    return accessFault(access);
  }

  #firstOnce(ctx: DeviceContext, hi: number, lo: number, access: number, supervisor: boolean): number {
    const memory = this.#memory;
    const nested = ctx.s2Mode !== 0;
    let tableHi = ctx.s1Hi;
    let tableLo = ctx.s1Lo;
    let level = ctx.s1Mode - 6;
    const cache = CHECKS ? this.firstCache : null;
    let flagsSoFar = 0;
    if (cache !== null && ctx.tag >= 0 && cache.find(ctx.tag, hi, lo, 0, level - 1, spanLg2)) {
      level = cache.level;
      tableHi = cache.hi;
      tableLo = cache.lo;
      flagsSoFar = cache.extra;
    }
    this.#stats.walks++;
    for (;;) {
      const index = indexAt(hi, lo, level);
      let tablePfn = (tableHi >>> 0) * 0x10_0000 + (tableLo >>> 12);
      if (nested) {
        const cause = this.second(ctx, tableHi, tableLo | (index << 3), access, 1);
        if (cause !== 0) return cause;
        tablePfn = (this.outHi >>> 0) * 0x10_0000 + (this.outLo >>> 12);
      }
      if (tablePfn >= this.#pasEndPfn || !memory.locate(tablePfn, false)) return accessFault(access);
      this.#stats.walkReads++;
      const at = memory.index + index * 2;
      const pteLo = memory.view[at]!;
      const pteHi = memory.view[at + 1]!;
      if ((pteLo & POINTER_LO) === V && (pteHi & this.#pointerHi) === 0 && level > 0) {
        tableHi = hiOfPte(pteHi, pteLo);
        tableLo = loOfPte(pteLo);
        level--;
        if (cache !== null) {
          flagsSoFar |= pteLo;
          if (!this.quiet) cache.fill(ctx.tag, level, hi, lo, spanLg2(level), tableHi, tableLo, flagsSoFar);
        }
        continue;
      }
      if (!this.#isLeaf(pteLo, pteHi, level)) return pageFault(access);
      // The leaf: permission first, then accessed and dirty.
      if (!permits(pteLo, access)) return pageFault(access);
      if ((pteLo & U) === 0 ? !supervisor : supervisor && (!ctx.sum || (access & ACCESS.EXEC) !== 0)) {
        return pageFault(access);
      }
      const missing = (A | ((access & ACCESS.WRITE) !== 0 ? D : 0)) & ~pteLo;
      let flags = pteLo;
      if (missing !== 0) {
        if ((ctx.tc & SADE) === 0) return pageFault(access);
        if (nested) {
          // The update is an implicit write, which the second stage has to allow.
          const cause = this.second(ctx, tableHi, tableLo | (index << 3), access, 2);
          if (cause !== 0) return cause;
          tablePfn = (this.outHi >>> 0) * 0x10_0000 + (this.outLo >>> 12);
        }
        if (!this.#update(tablePfn, index, pteLo, missing)) return RESTART;
        flags |= missing;
      }
      this.#leaf(pteHi, pteLo, level, hi, lo);
      this.perm = permOf(flags) | ((flags & U) !== 0 ? PERM.USER : PERM.SUPERVISOR);
      if (cache !== null) this.global = ((flagsSoFar | flags) & G) !== 0;
      return 0;
    }
  }

  /**
   * Second stage: GPA `hi:lo` to the physical address.
   * @param access of the transaction: it decides the cause
   * @param implicit 0: the transaction itself; 1: a read, 2: a write that the walk of the first stage makes
   * @returns 0, or the cause of the fault with {@link val2Hi}/{@link val2Lo} set.
   */
  second(ctx: DeviceContext, hi: number, lo: number, access: number, implicit: number): number {
    const need = implicit === 0 ? access : implicit === 1 ? ACCESS.READ : ACCESS.READ | ACCESS.WRITE;
    this.val2Hi = hi;
    this.val2Lo = (lo & ~3) | (implicit === 0 ? 0 : implicit === 1 ? 1 : 3);
    const mode = ctx.s2Mode;
    // 41, 50 or 59 bits; nothing above.
    if (hi >>> (mode === 8 ? 9 : mode === 9 ? 18 : 27) !== 0) return guestPageFault(access);
    for (let i = 0; i < MAX_RESTARTS; i++) {
      const cause = this.#secondOnce(ctx, hi, lo, access, need, implicit !== 0);
      if (cause !== RESTART) return cause;
    }
    return accessFault(access);
  }

  #secondOnce(ctx: DeviceContext, hi: number, lo: number, access: number, need: number, implicit: boolean): number {
    const memory = this.#memory;
    let level = ctx.s2Mode - 6;
    // The root table is four pages: two index bits more.
    const wide = level === 2 ? ((lo >>> 30) | (hi << 2)) & 0x7ff : (hi >>> (level === 3 ? 7 : 16)) & 0x7ff;
    let table = ctx.s2Pfn + (wide >>> 9);
    let index = wide & 0x1ff;
    const cache = CHECKS ? this.secondCache : null;
    if (cache !== null && cache.find(ctx.gscid, hi, lo, 0, level - 1, spanLg2)) {
      level = cache.level;
      table = pfnOfWords(cache.hi, cache.lo);
      index = indexAt(hi, lo, level);
    }
    this.#stats.walks++;
    for (;;) {
      if (table >= this.#pasEndPfn || !memory.locate(table, false)) return accessFault(access);
      this.#stats.walkReads++;
      const at = memory.index + index * 2;
      const pteLo = memory.view[at]!;
      const pteHi = memory.view[at + 1]!;
      if ((pteLo & POINTER_LO) === V && (pteHi & this.#pointerHi) === 0 && level > 0) {
        table = (pteHi & PPN_HI) * 0x40_0000 + (pteLo >>> 10);
        level--;
        index = indexAt(hi, lo, level);
        if (cache !== null && !this.quiet) {
          cache.fill(ctx.gscid, level, hi, lo, spanLg2(level), hiOfPfn(table), loOfPfn(table), 0);
        }
        continue;
      }
      if (!this.#isLeaf(pteLo, pteHi, level)) return guestPageFault(access);
      // Every access of the second stage is a user access.
      if (!permits(pteLo, need) || (pteLo & U) === 0) return guestPageFault(access);
      let missing = (A | ((need & ACCESS.WRITE) !== 0 ? D : 0)) & ~pteLo;
      if (implicit && (pteLo & W) !== 0 && (ctx.tc & GADE) !== 0 && (missing !== 0 || (ctx.tc & SADE) !== 0)) {
        // The first stage may come to update its entry there: D is set ahead of that, as the Privileged specification allows.
        missing |= D & ~pteLo;
      }
      let flags = pteLo;
      if (missing !== 0) {
        if ((ctx.tc & GADE) === 0) return guestPageFault(access);
        if (!this.#update(table, index, pteLo, missing)) return RESTART;
        flags |= missing;
      }
      this.#leaf(pteHi, pteLo, level, hi, lo);
      this.perm = permOf(flags) | PERM.USER | PERM.SUPERVISOR;
      return 0;
    }
  }

  /** A valid leaf of `level`: no reserved bit, aligned to its size. What is neither that nor a pointer is a page fault. */
  #isLeaf(lo: number, hi: number, level: number): boolean {
    if ((lo & V) === 0 || (lo & (R | X)) === 0 || (lo & (R | W)) === W) return false;
    if ((hi & this.#reservedHi) !== 0) return false;
    if (this.#svpbmt && (hi & PBMT_HI) === PBMT_HI) return false;
    if ((hi & N_HI) !== 0) {
      // Svnapot: 64 KiB at the last level is the one size.
      return level === 0 && ((lo >>> 10) & 0xf) === 8;
    }
    // A superpage is aligned to its size.
    switch (level) {
      case 0:
        return true;
      case 1:
        return (lo & (0x1ff << 10)) === 0;
      case 2:
        return (lo & (0x3ffff << 10)) === 0;
      case 3:
        return (lo & PPN_LO) === 0 && (hi & 0x1f) === 0;
      default:
        return (lo & PPN_LO) === 0 && (hi & 0x3fff) === 0;
    }
  }

  /** The address within a leaf of `level`: its high bits from the entry, its low bits from the address. */
  #leaf(pteHi: number, pteLo: number, level: number, hi: number, lo: number): void {
    const paHi = hiOfPte(pteHi, pteLo);
    const paLo = loOfPte(pteLo);
    this.pbmt = (pteHi >>> 29) & 3;
    switch (level) {
      case 0:
        this.outHi = paHi;
        if ((pteHi & N_HI) !== 0) {
          this.outLo = (paLo & ~0xffff) | (lo & 0xffff);
          this.sizeLg2 = 16;
        } else {
          this.outLo = paLo | (lo & 0xfff);
          this.sizeLg2 = 12;
        }
        return;
      case 1:
        this.outHi = paHi;
        this.outLo = paLo | (lo & 0x1f_ffff);
        this.sizeLg2 = 21;
        return;
      case 2:
        this.outHi = paHi;
        this.outLo = paLo | (lo & 0x3fff_ffff);
        this.sizeLg2 = 30;
        return;
      case 3:
        this.outHi = paHi | (hi & 0x7f);
        this.outLo = lo | 0;
        this.sizeLg2 = 39;
        return;
      default:
        this.outHi = paHi | (hi & 0xffff);
        this.outLo = lo | 0;
        this.sizeLg2 = 48;
    }
  }

  /** Sets A and D with one atomic compare-exchange; false when the entry has changed since it was read. */
  #update(tablePfn: number, index: number, old: number, bits: number): boolean {
    if (this.quiet) return true;
    if (!this.#memory.locate(tablePfn, true)) return false;
    const at = this.#memory.index + index * 2;
    return Atomics.compareExchange(this.#memory.view, at, old, old | bits) === old;
  }
}

/** IOVA or GPA bits that a table of `level` covers. */
const spanLg2 = (level: number): number => 21 + 9 * level;

/** Nine bits of the address that index the table of `level`. */
const indexAt = (hi: number, lo: number, level: number): number => {
  switch (level) {
    case 0:
      return (lo >>> 12) & 0x1ff;
    case 1:
      return (lo >>> 21) & 0x1ff;
    case 2:
      return ((lo >>> 30) | (hi << 2)) & 0x1ff;
    case 3:
      return (hi >>> 7) & 0x1ff;
    default:
      return (hi >>> 16) & 0x1ff;
  }
};

/** The address that the PPN field of an entry gives, as words. */
const hiOfPte = (hi: number, lo: number): number => ((hi & PPN_HI) << 2) | (lo >>> 30);
const loOfPte = (lo: number): number => (lo & ~0x3ff) << 2;

const permits = (pte: number, access: number): boolean =>
  (access & ACCESS.EXEC) !== 0
    ? (pte & X) !== 0
    : ((access & ACCESS.READ) === 0 || (pte & R) !== 0) && ((access & ACCESS.WRITE) === 0 || (pte & W) !== 0);

/** A page that is not dirty yet is kept without write permission, so that the first write walks again. */
const permOf = (pte: number): number =>
  ((pte & R) !== 0 ? PERM.READ : 0) |
  ((pte & (W | D)) === (W | D) ? PERM.WRITE : 0) |
  ((pte & X) !== 0 ? PERM.EXEC : 0);
