/**
 * The table walks of an SMMUv3: VMSAv8-64 stage 1 (TTB0 and TTB1), stage 2, and both nested (IHI 0070, 3.4; Arm DDI 0487,
 * D8). Bytes are read with masks of the descriptor formats; faults are noted with the fields their record needs.
 * Table descriptors are read at every walk, but for the adversarial device: there a walk begins where {@link Retained} lets it.
 */
import { CHECKS } from '@iommu-ts/bits';
import { LAYER } from '@iommu-ts/iommu-core';
import type { HardwareStats } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { CLASS, EVENT } from '../faults.ts';
import type { Capabilities } from './capabilities.ts';
import { DEVICE, extraOf } from './invalidation.ts';
import { contiguousLg2 } from './retained.ts';
import type { Retained } from './retained.ts';
import { exceeds } from './stream-config.ts';
import type { StreamConfig, TableBase } from './stream-config.ts';

/** Permissions of a translation, as a bit set: unprivileged in bits 2:0, privileged in bits 5:3. */
const PERM = { UR: 1, UW: 2, UX: 4, PR: 8, PW: 16, PX: 32 } as const;
const UNPRIVILEGED = PERM.UR | PERM.UW | PERM.UX;
const PRIVILEGED_SHIFT = 3;

/** Access bits of ACCESS (READ 1, WRITE 2, EXEC 4) are the unprivileged permission bits. */
export const permOf = (access: number, privileged: boolean): number =>
  privileged ? (access & UNPRIVILEGED) << PRIVILEGED_SHIFT : access & UNPRIVILEGED;

// Descriptors (DDI 0487, D8.3), as (hi, lo).
const VALID = 1 << 0;
const TABLE_OR_PAGE = 1 << 1;
const AP_UNPRIVILEGED = 1 << 6; // AP[1]
const AP_READ_ONLY = 1 << 7; // AP[2]
const S2AP_READ = 1 << 6;
const S2AP_WRITE = 1 << 7;
const AF = 1 << 10;
const NG = 1 << 11;
const CONTIGUOUS_HI = 1 << 20; // bit 52
const XN_HI = 1 << 22; // UXN or XN, bit 54
const PXN_HI = 1 << 21; // bit 53
const APTABLE_NO_UNPRIVILEGED_HI = 1 << 29; // APTable[0], bit 61
const APTABLE_READ_ONLY_HI = 1 << 30; // APTable[1], bit 62
const XNTABLE_HI = 1 << 28; // bit 60
const PXNTABLE_HI = 1 << 27; // bit 59
const MEMATTR_DEVICE = 0b1100 << 2; // MemAttr[3:2] = 0: Device
const OA_HI = 0xffff; // address bits 47:32
const FOLD_LO = 0xf000; // address bits 51:48 with a 64 KiB granule

/** Index into a table: `bits` bits of `hi:lo` from bit `shift` up (bits <= 17). */
const indexOf = (hi: number, lo: number, shift: number, bits: number): number =>
  (shift < 32 ? (lo >>> shift) | ((hi << (31 - shift)) << 1) : hi >>> (shift - 32)) & ((1 << bits) - 1);

/** One walker for each device. Results and fault fields are overwritten by every walk. */
export class TableWalker {
  readonly #memory: PhysicalMemory;
  readonly #stats: HardwareStats;
  readonly #xnx: boolean;
  /** Caches of the adversarial device; null otherwise. */
  readonly #retained: Retained | null;

  /** After success: the translated address, the size of the translation, its permissions, and whether it is global. */
  outHi = 0;
  outLo = 0;
  sizeLg2 = 0;
  perm = 0;
  global = false;
  /** The leaf that the translation is (a part of): log2 of its size, and its level. Of stage 1, where there is one. */
  leafLg2 = 0;
  level = 0;

  /** After a fault: fields of its record. */
  s2 = false;
  class: number = CLASS.IN;
  ipaHi = 0;
  ipaLo = 0;
  fetchHi = 0;
  fetchLo = 0;
  /** A stage 1 walk was refused its read by stage 2 (TTRnW). */
  walkRead = false;

  // Result of the last stage 2 walk.
  #s2Hi = 0;
  #s2Lo = 0;
  #s2Lg2 = 0;
  #s2Perm = 0;
  #s2Level = 0;
  #s2Device = false;

  constructor(
    memory: PhysicalMemory,
    capabilities: Capabilities,
    stats: HardwareStats,
    retained: Retained | null = null,
  ) {
    this.#memory = memory;
    this.#stats = stats;
    this.#xnx = capabilities.xnx;
    this.#retained = retained;
  }

  /** A cached translation forbids the access: notes what the record of that needs. */
  refuse(s2: boolean, hi: number, lo: number): void {
    this.walkRead = false;
    this.s2 = false;
    this.class = CLASS.IN;
    if (s2) this.#noteStage2(CLASS.IN, hi, lo);
  }

  /**
   * Stage 1, and stage 2 behind it when `nested`: translates VA `hi:lo` for an access that needs the permissions `need`.
   * @returns 0, or an event number
   */
  stage1(config: StreamConfig, nested: boolean, hi: number, lo: number, need: number): number {
    this.#stats.walks++;
    this.s2 = false;
    this.class = CLASS.IN;
    this.walkRead = false;
    const upper = (hi & 0x0080_0000) !== 0;
    const base = upper ? config.ttb1 : config.ttb0;
    if (base.disabled) return EVENT.F_TRANSLATION;
    if (!inRange(base, upper, hi, lo)) return EVENT.F_TRANSLATION;
    if (base.e0pd && (need & UNPRIVILEGED) !== 0) return EVENT.F_TRANSLATION;
    const stride = base.granuleLg2 - 3;
    let level = base.startLevel;
    let shift = base.granuleLg2 + (3 - level) * stride;
    let bits = base.startBits;
    let tableHi = base.baseHi;
    let tableLo = base.baseLo;
    // What the table descriptors took away (APTable, XNTable), as the bits of the high word.
    let limits = 0;
    const retained = CHECKS ? this.#retained : null;
    if (retained !== null && retained.findTable(config.tag, base, hi, lo)) {
      level = 3 - retained.walk.level;
      shift = base.granuleLg2 + (3 - level) * stride;
      bits = stride;
      tableHi = retained.walk.hi;
      tableLo = retained.walk.lo;
      limits = retained.walk.extra;
    }
    for (;;) {
      let atHi = tableHi;
      let atLo = tableLo | (indexOf(hi, lo, shift, bits) << 3);
      if (nested) {
        const event = this.#walkThroughStage2(config, atHi, atLo);
        if (event !== 0) return event;
        atHi = this.#s2Hi;
        atLo = this.#s2Lo;
        this.s2 = false;
        this.class = CLASS.IN;
      }
      this.#stats.walkReads++;
      if (!this.#memory.load64(atHi, atLo)) return this.#walkAbort(false, CLASS.TT, atHi, atLo);
      const dHi = this.#memory.hi;
      const dLo = this.#memory.lo;
      if ((dLo & VALID) === 0) return EVENT.F_TRANSLATION;
      const outHi = (dHi & OA_HI) | (base.fold52 ? (dLo & FOLD_LO) << 4 : 0);
      if (level < 3 && (dLo & TABLE_OR_PAGE) !== 0) {
        if (exceeds(outHi, base.outBits)) return EVENT.F_ADDR_SIZE;
        limits |= dHi;
        tableHi = outHi;
        tableLo = dLo & -(1 << base.granuleLg2);
        level++;
        shift -= stride;
        bits = stride;
        if (retained !== null) retained.keepTable(config.tag, base, level, hi, lo, tableHi, tableLo, limits);
        continue;
      }
      // A leaf: a page at level 3, a block where blocks are allowed.
      if (level === 3 ? (dLo & TABLE_OR_PAGE) === 0 : ((base.blocks >> level) & 1) === 0) return EVENT.F_TRANSLATION;
      if (exceeds(outHi, base.outBits)) return EVENT.F_ADDR_SIZE;
      if ((dLo & AF) === 0 && !config.affd) return EVENT.F_ACCESS;
      this.perm = stage1Permissions(config, dHi, dLo, base.hierarchyDisabled ? 0 : limits, base.e0pd);
      if ((this.perm & need) !== need) return EVENT.F_PERMISSION;
      this.global = (dLo & NG) === 0;
      this.#compose(outHi, dLo, hi, lo, shift);
      this.level = level;
      if (retained !== null && (dHi & CONTIGUOUS_HI) !== 0) this.sizeLg2 = contiguousLg2(base, level, shift);
      this.leafLg2 = this.sizeLg2;
      break;
    }
    return nested ? this.#inputThroughStage2(config, need) : 0;
  }

  /** Stage 2 alone: translates IPA `hi:lo`. @returns 0, or an event number */
  stage2(config: StreamConfig, hi: number, lo: number, need: number): number {
    this.#stats.walks++;
    this.walkRead = false;
    this.global = false;
    const event = this.#stage2(config, hi, lo, CLASS.IN, need);
    if (event !== 0) return event;
    this.outHi = this.#s2Hi;
    this.outLo = this.#s2Lo;
    this.sizeLg2 = this.#s2Lg2;
    this.leafLg2 = this.#s2Lg2;
    this.level = this.#s2Level;
    this.perm = this.#s2Perm;
    return 0;
  }

  /** Stage 2 for the fetch of a CD: the address to read is in {@link outHi}, {@link outLo}. @returns 0, or an event number */
  contextDescriptor(config: StreamConfig, hi: number, lo: number): number {
    this.walkRead = false;
    const event = this.#behindStage1(config, hi, lo, CLASS.CD, PERM.PR);
    this.outHi = this.#s2Hi;
    this.outLo = this.#s2Lo;
    return event;
  }

  /** A stage 1 descriptor lies at an IPA: stage 2 says where (and whether the walk may read there). */
  #walkThroughStage2(config: StreamConfig, hi: number, lo: number): number {
    const event = this.#behindStage1(config, hi, lo, CLASS.TT, PERM.PR);
    if (event !== 0) {
      this.walkRead = event === EVENT.F_PERMISSION;
      return event;
    }
    if (config.s2ptw && this.#s2Device) {
      this.#noteStage2(CLASS.TT, hi, lo);
      this.walkRead = true;
      return EVENT.F_PERMISSION;
    }
    return 0;
  }

  /** The output of stage 1 is an IPA: stage 2 behind it, and the smaller of both sizes. */
  #inputThroughStage2(config: StreamConfig, need: number): number {
    const event = this.#behindStage1(config, this.outHi, this.outLo, CLASS.IN, need);
    if (event !== 0) return event;
    this.outHi = this.#s2Hi;
    this.outLo = this.#s2Lo;
    this.sizeLg2 = Math.min(this.sizeLg2, this.#s2Lg2);
    this.perm &= this.#s2Perm;
    return 0;
  }

  /** Stage 2 of nested translation: the adversarial device keeps its leaves as well, beside the combined entries. */
  #behindStage1(config: StreamConfig, hi: number, lo: number, cls: number, need: number): number {
    const retained = CHECKS ? this.#retained : null;
    if (retained === null) return this.#stage2(config, hi, lo, cls, need);
    const { iotlb } = retained;
    if ((retained.layers & LAYER.LEAF) !== 0 && iotlb.peek(config.s2Tag, hi, lo)) {
      this.#noteStage2(cls, hi, lo);
      this.#s2Hi = iotlb.outHi;
      this.#s2Lo = iotlb.outLo;
      this.#s2Lg2 = iotlb.sizeLg2;
      this.#s2Perm = iotlb.perm;
      this.#s2Device = (iotlb.extra & DEVICE) !== 0;
      return (iotlb.perm & need) === need ? 0 : EVENT.F_PERMISSION;
    }
    const event = this.#stage2(config, hi, lo, cls, need);
    if (event !== 0 || retained.probing) return event;
    const extra = extraOf(false, this.#s2Device, this.#s2Lg2, this.#s2Level);
    iotlb.fill(config.s2Tag, hi, lo, this.#s2Lg2, this.#s2Hi, this.#s2Lo, this.#s2Perm, extra);
    return 0;
  }

  #stage2(config: StreamConfig, hi: number, lo: number, cls: number, need: number): number {
    const base = config.s2;
    this.#noteStage2(cls, hi, lo);
    if (exceedsWide(hi, lo, base.inputBits)) return EVENT.F_TRANSLATION;
    const stride = base.granuleLg2 - 3;
    let level = base.startLevel;
    let shift = base.granuleLg2 + (3 - level) * stride;
    let bits = base.startBits;
    let tableHi = base.baseHi;
    let tableLo = base.baseLo;
    const retained = CHECKS ? this.#retained : null;
    if (retained !== null && retained.findTable(config.s2Tag, base, hi, lo)) {
      level = 3 - retained.walk.level;
      shift = base.granuleLg2 + (3 - level) * stride;
      bits = stride;
      tableHi = retained.walk.hi;
      tableLo = retained.walk.lo;
    }
    for (;;) {
      const atLo = tableLo | (indexOf(hi, lo, shift, bits) << 3);
      this.#stats.walkReads++;
      if (!this.#memory.load64(tableHi, atLo)) return this.#walkAbort(true, cls, tableHi, atLo);
      const dHi = this.#memory.hi;
      const dLo = this.#memory.lo;
      if ((dLo & VALID) === 0) return EVENT.F_TRANSLATION;
      const outHi = (dHi & OA_HI) | (base.fold52 ? (dLo & FOLD_LO) << 4 : 0);
      if (level < 3 && (dLo & TABLE_OR_PAGE) !== 0) {
        if (exceeds(outHi, base.outBits)) return EVENT.F_ADDR_SIZE;
        tableHi = outHi;
        tableLo = dLo & -(1 << base.granuleLg2);
        level++;
        shift -= stride;
        bits = stride;
        if (retained !== null) retained.keepTable(config.s2Tag, base, level, hi, lo, tableHi, tableLo, 0);
        continue;
      }
      if (level === 3 ? (dLo & TABLE_OR_PAGE) === 0 : ((base.blocks >> level) & 1) === 0) return EVENT.F_TRANSLATION;
      if (exceeds(outHi, base.outBits)) return EVENT.F_ADDR_SIZE;
      if ((dLo & AF) === 0 && !config.s2affd) return EVENT.F_ACCESS;
      this.#s2Perm = stage2Permissions(dHi, dLo, this.#xnx);
      if ((this.#s2Perm & need) !== need) return EVENT.F_PERMISSION;
      this.#s2Device = (dLo & MEMATTR_DEVICE) === 0;
      this.#s2Level = level;
      this.#s2Lg2 = retained !== null && (dHi & CONTIGUOUS_HI) !== 0 ? contiguousLg2(base, level, shift) : shift;
      if (shift < 32) {
        const mask = (1 << shift) - 1;
        this.#s2Hi = outHi;
        this.#s2Lo = (dLo & ~mask) | (lo & mask);
      } else {
        const mask = (1 << (shift - 32)) - 1;
        this.#s2Hi = (outHi & ~mask) | (hi & mask);
        this.#s2Lo = lo;
      }
      return 0;
    }
  }

  #compose(outHi: number, dLo: number, hi: number, lo: number, shift: number): void {
    this.sizeLg2 = shift;
    if (shift < 32) {
      const mask = (1 << shift) - 1;
      this.outHi = outHi;
      this.outLo = (dLo & ~mask) | (lo & mask);
    } else {
      const mask = (1 << (shift - 32)) - 1;
      this.outHi = (outHi & ~mask) | (hi & mask);
      this.outLo = lo;
    }
  }

  #noteStage2(cls: number, hi: number, lo: number): void {
    this.s2 = true;
    this.class = cls;
    this.ipaHi = hi;
    this.ipaLo = lo;
  }

  #walkAbort(s2: boolean, cls: number, hi: number, lo: number): number {
    this.s2 = s2;
    this.class = cls;
    this.fetchHi = hi;
    this.fetchLo = lo;
    return EVENT.F_WALK_EABT;
  }
}

/** Is any bit of `hi:lo` at or above bit `bits` set? */
const exceedsWide = (hi: number, lo: number, bits: number): boolean =>
  bits >= 32 ? exceeds(hi, bits) : hi !== 0 || lo >>> bits !== 0;

/** VA range check of stage 1 (3.4.1): bits above the region are all 0 (TTB0) or all 1 (TTB1), up to bit 55 with TBI. */
const inRange = (base: TableBase, upper: boolean, hi: number, lo: number): boolean => {
  // Flipped for the upper half, so that all bits above must be zero in both.
  const h = (upper ? ~hi : hi) & (base.topByteIgnored ? 0x00ff_ffff : -1);
  const l = upper ? ~lo : lo;
  return !exceedsWide(h, l, base.inputBits);
};

/** Data and instruction permissions of a stage 1 leaf (DDI 0487, D8.4). `limits`: bits of the table descriptors above it. */
const stage1Permissions = (config: StreamConfig, hi: number, lo: number, limits: number, e0pd: boolean): number => {
  const readOnly = (lo & AP_READ_ONLY) !== 0 || (limits & APTABLE_READ_ONLY_HI) !== 0;
  const xn = ((hi & XN_HI) | (limits & XNTABLE_HI)) !== 0;
  if (config.singlePrivilege) {
    const data = readOnly ? PERM.UR : PERM.UR | PERM.UW;
    const all = data | (xn || (config.wxn && !readOnly) ? 0 : PERM.UX);
    return all | (all << PRIVILEGED_SHIFT);
  }
  const unprivileged = (lo & AP_UNPRIVILEGED) !== 0 && (limits & APTABLE_NO_UNPRIVILEGED_HI) === 0;
  const pxn = ((hi & PXN_HI) | (limits & PXNTABLE_HI)) !== 0;
  let perm: number = readOnly ? PERM.PR : PERM.PR | PERM.PW;
  if (unprivileged) perm |= readOnly ? PERM.UR : PERM.UR | PERM.UW;
  // Memory that unprivileged accesses may write is never privileged-executable (also what UWXN asks for).
  if (!pxn && (perm & PERM.UW) === 0 && !(config.wxn && !readOnly)) perm |= PERM.PX;
  if (!xn && !(config.wxn && (perm & PERM.UW) !== 0)) perm |= PERM.UX;
  return e0pd ? perm & ~UNPRIVILEGED : perm;
};

/** Permissions of a stage 2 leaf: S2AP and XN[1:0]. */
const stage2Permissions = (hi: number, lo: number, xnx: boolean): number => {
  let perm = 0;
  if ((lo & S2AP_READ) !== 0) {
    const xn = (hi & XN_HI) !== 0;
    // XN[1:0] with XNX: 0 all, 1 unprivileged only, 2 none, 3 privileged only.
    const privilegedXn = xnx && (hi & PXN_HI) !== 0 ? !xn : xn;
    perm = PERM.UR | PERM.PR | (xn ? 0 : PERM.UX) | (privilegedXn ? 0 : PERM.PX);
  }
  return (lo & S2AP_WRITE) !== 0 ? perm | PERM.UW | PERM.PW : perm;
};
