/**
 * The DART device: registers on one side, translation of a stream's accesses on the other. Sources and their limits: see
 * `registers.ts`. It sees its registers and physical memory, nothing else.
 *
 * What the register map leaves open and this model decides:
 * - a stream that is disabled, whose TCR neither translates nor bypasses (or says both), and an address beyond the TTBRs or
 *   the IOVA width, are refused as NO_TTBR;
 * - streams are disabled and REMAP is the identity after reset; ERROR names the stream after remapping;
 * - TCR, TTBR and enables take effect at once; cached translations are dropped by flush commands only. (With an IOTLB of mode
 *   `'retain'` a TTBR may be used until a flush: see `retained.ts`.)
 */
import { CHECKS, encode, hex, maskLo, pfnOfWords } from '@iommu-ts/bits';
import { ACCESS, Iotlb, LAYER, NO_PASID, RegisterFile, TRANSLATE_OK } from '@iommu-ts/iommu-core';
import type {
  HardwareStats,
  InvalidationEvent,
  InvalidationHints,
  IommuHardware,
  IotlbOptions,
  MmioPort,
} from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { REASON } from '../faults.ts';
import { checkPart, paramsOf } from '../parts.ts';
import type { DartPart } from '../parts.ts';
import {
  PROTECT,
  REGISTER_BLOCK_BYTES,
  T8020_CONFIG,
  T8020_REGISTERS,
  T8020_TCR,
  T8110_REGISTERS,
  T8110_TCR,
} from '../registers.ts';
import { ErrorRegisters } from './error-registers.ts';
import { Retained } from './retained.ts';
import { DISABLED, MODE, StreamTable } from './streams.ts';
import { TlbCommand } from './tlb-command.ts';
import { PageWalker, WHOLE_PAGE, insideSubPages } from './translate.ts';

/** Options of {@link AppleDart}. */
export interface AppleDartOptions {
  readonly part: DartPart;
  /** PARAMS1 … PARAMS4 as a recording gives them, instead of those that follow from the part. */
  readonly params?: readonly number[];
  readonly iotlb?: IotlbOptions;
  /** Reads of the command register that show BUSY before a flush happens (default 0: at once). */
  readonly busyReads?: number;
  /** Come out of reset locked, as firmware leaves some DARTs (default false). */
  readonly locked?: boolean;
}

/**
 * One DART. There is no table of devices, so nothing but translations is cached: {@link iotlb}, tagged by stream. With an
 * IOTLB of mode `'retain'` it is the adversarial device: see `retained.ts` for what it keeps, `tlb-command.ts` for when it
 * executes flushes.
 * @throws IommuError `EOPNOTSUPP` for a part that is not modelled.
 */
export class AppleDart implements IommuHardware {
  readonly name = 'apple-dart';
  readonly memory: PhysicalMemory;
  readonly part: DartPart;
  readonly registers: RegisterFile;
  readonly iotlb: Iotlb;
  readonly stats: HardwareStats = {
    walks: 0,
    walkReads: 0,
    structureReads: 0,
    commands: 0,
    invalidations: 0,
    faults: 0,
  };
  /** Told of flush commands once done, stream by stream, and of a reset. */
  get onInvalidate(): ((event: InvalidationEvent) => void) | null {
    return this.#command.onInvalidate;
  }
  set onInvalidate(listener: ((event: InvalidationEvent) => void) | null) {
    this.#command.onInvalidate = listener;
  }

  get pendingInvalidations(): number {
    return this.#command.pending;
  }

  readonly invalidationHints: InvalidationHints = {
    leaf: 'a TLB flush of the stream',
    table: 'a TLB flush of the stream',
    context: 'a TLB flush of the stream',
    completion: 'a read of the command register until BUSY is 0',
  };

  onInterrupt: ((source: string) => void) | null = null;
  outHi = 0;
  outLo = 0;
  readonly #t8110: boolean;
  readonly #streams: StreamTable;
  readonly #errors: ErrorRegisters;
  readonly #command: TlbCommand;
  readonly #walker: PageWalker;
  readonly #retained: Retained | null;
  /** A {@link probe} runs: nothing is recorded, counted or kept. Of what is kept, {@link #layers} may be used. */
  #quiet = false;
  #layers: number = LAYER.ALL;
  readonly #locked: boolean;
  readonly #count: number;
  readonly #pageMask: number;
  readonly #subShift: number;
  /** Bits of an IOVA's high word that no address has, with two and with three levels. */
  readonly #wideTwo: number;
  readonly #wideThree: number;

  constructor(memory: PhysicalMemory, options: AppleDartOptions) {
    const { part } = options;
    checkPart(part);
    this.memory = memory;
    this.part = part;
    this.#t8110 = part.generation === 't8110';
    this.#locked = options.locked ?? false;
    this.#count = part.streams;
    this.#pageMask = 2 ** part.pageShift - 1;
    this.#subShift = part.pageShift - 12;
    this.#wideTwo = highWordAbove(this.#t8110 ? Math.min(part.vaWidth, 36) : part.vaWidth);
    this.#wideThree = highWordAbove(part.vaWidth);
    this.registers = new RegisterFile(this.#t8110 ? T8110_REGISTERS : T8020_REGISTERS, REGISTER_BLOCK_BYTES, {
      beforeRead: (offset) => this.#beforeRead(offset),
      onWrite: (offset, _size, _hi, value) =>
        this.#t8110 ? this.#t8110Write(offset, value) : this.#t8020Write(offset, value),
      afterWrite: (offset) => this.#afterWrite(offset),
    });
    this.iotlb = new Iotlb(options.iotlb);
    this.#retained = this.iotlb.mode === 'retain' ? new Retained(this.#t8110 ? 1 : 4) : null;
    this.#streams = new StreamTable(this.registers, part);
    this.#errors = new ErrorRegisters(this.registers, part.generation);
    this.#errors.onRise = () => this.onInterrupt?.('error');
    this.#command = new TlbCommand(this.registers, this.iotlb, this.stats, {
      generation: part.generation,
      streams: part.streams,
      busyReads: options.busyReads ?? 0,
      retained: this.#retained,
    });
    this.#walker = new PageWalker(memory, part);
    this.#walker.tables = this.#retained === null ? null : this.#retained.tables;
    this.#defineRegisters(options.params ?? paramsOf(part));
    this.reset();
  }

  /** Its registers, as the CPU reaches them. */
  get mmio(): MmioPort {
    return this.registers;
  }

  /** Level of the interrupt line. */
  get interruptLine(): boolean {
    return this.#errors.line;
  }

  reset(): void {
    this.registers.reset();
    if (this.#locked) {
      const words = this.registers.words;
      if (this.#t8110) {
        words[T8110_REGISTERS.PROTECT.offset >>> 2] = TTBR_TCR;
        words[T8110_REGISTERS.PROTECT_LOCK.offset >>> 2] = TTBR_TCR;
      } else words[T8020_REGISTERS.CONFIG.offset >>> 2] = maskLo(T8020_CONFIG.LOCK);
    }
    this.#command.reset();
    this.iotlb.invalidateAll();
    this.#retained?.clear();
    this.#streams.refreshAll();
    this.#errors.update();
    for (const key of Object.keys(this.stats) as (keyof HardwareStats)[]) this.stats[key] = 0;
    this.#walker.reads = 0;
    this.#command.tell('reset', -1);
  }

  /**
   * Translates one access of `length` bytes (default 1) of stream `requester`; the length matters for sub-page protection.
   * DART knows no PASID, and stream numbers that it has no wires for: both are refused with -1 and not recorded.
   */
  translate(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number, length = 1): number {
    if (pasid !== NO_PASID || requester >>> 0 >= this.#count) {
      this.stats.faults++;
      return -1;
    }
    const streams = this.#streams;
    const sid = streams.target[requester]!;
    if (sid === DISABLED) return this.#fault(REASON.NO_TTBR, requester, iovaHi, iovaLo, access);
    const mode = streams.mode[sid]!;
    if (mode < MODE.TWO_LEVELS) {
      if (mode === MODE.REFUSED) return this.#fault(REASON.NO_TTBR, sid, iovaHi, iovaLo, access);
      this.outHi = iovaHi | 0;
      this.outLo = iovaLo | 0;
      return TRANSLATE_OK;
    }
    const need = neededBy(access);
    const iotlb = this.iotlb;
    if (iotlb.lookup(sid, iovaHi, iovaLo) && (iotlb.perm & need) === need) {
      const sub = iotlb.extra;
      if (sub === WHOLE_PAGE || insideSubPages(sub, iovaLo & this.#pageMask, length, this.#subShift)) {
        this.outHi = iotlb.outHi;
        this.outLo = iotlb.outLo;
        return TRANSLATE_OK;
      }
    }
    return this.#walk(sid, mode, iovaHi, iovaLo, access, need, length);
  }

  /** As {@link translate}, with the caches in `layers` alone and without a trace; TTBRs that are kept count as structures. */
  probe(
    requester: number,
    pasid: number,
    iovaHi: number,
    iovaLo: number,
    access: number,
    layers: number,
    length = 1,
  ): number {
    const walker = this.#walker;
    const { walks, walkReads, faults } = this.stats;
    const { reads } = walker;
    this.#quiet = true;
    this.#layers = layers;
    walker.quiet = true;
    if ((layers & LAYER.TABLE) === 0) walker.tables = null;
    const status = this.#probe(requester, pasid, iovaHi, iovaLo, access, layers, length);
    walker.tables = this.#retained === null ? null : this.#retained.tables;
    walker.quiet = false;
    this.#layers = LAYER.ALL;
    this.#quiet = false;
    walker.reads = reads;
    this.stats.walks = walks;
    this.stats.walkReads = walkReads;
    this.stats.faults = faults;
    return status;
  }

  #probe(
    requester: number,
    pasid: number,
    iovaHi: number,
    iovaLo: number,
    access: number,
    layers: number,
    length: number,
  ): number {
    const iotlb = this.iotlb;
    const sid = pasid !== NO_PASID || requester >>> 0 >= this.#count ? DISABLED : this.#streams.target[requester]!;
    // Only a stream that walks has anything cached that is looked at.
    if (sid === DISABLED || this.#streams.mode[sid]! < MODE.TWO_LEVELS) {
      return this.translate(requester, pasid, iovaHi, iovaLo, access, length);
    }
    const need = neededBy(access);
    if ((layers & LAYER.LEAF) !== 0 && iotlb.peek(sid, iovaHi, iovaLo) && (iotlb.perm & need) === need) {
      if (insideSubPages(iotlb.extra, iovaLo & this.#pageMask, length, this.#subShift)) {
        this.outHi = iotlb.outHi;
        this.outLo = iotlb.outLo;
        return TRANSLATE_OK;
      }
    }
    return this.#walk(sid, this.#streams.mode[sid]!, iovaHi, iovaLo, access, need, length);
  }

  #walk(
    sid: number,
    mode: number,
    iovaHi: number,
    iovaLo: number,
    access: number,
    need: number,
    length: number,
  ): number {
    const root = this.#rootOf(sid, mode, iovaHi, iovaLo);
    if (root < 0) return this.#fault(REASON.NO_TTBR, sid, iovaHi, iovaLo, access);
    const retained = CHECKS ? this.#retained : null;
    if (retained !== null && (this.#layers & LAYER.LEAF) !== 0) {
      const absent = retained.absent(sid, this.#pagePfn(iovaHi, iovaLo));
      if (absent >= 0) return this.#fault(absent, sid, iovaHi, iovaLo, access);
    }
    const walker = this.#walker;
    const before = walker.reads;
    const reason = walker.walk(root, mode, iovaHi, iovaLo, sid);
    this.stats.walks++;
    this.stats.walkReads += walker.reads - before;
    if (reason !== REASON.OK) {
      if (retained !== null && !this.#quiet && reason !== REASON.TABLE_BUS_ERROR) {
        retained.keepAbsent(sid, this.#pagePfn(iovaHi, iovaLo), reason);
      }
      return this.#fault(reason, sid, iovaHi, iovaLo, access);
    }
    const missing = need & ~walker.perm;
    if (missing !== 0) {
      const why = (missing & ACCESS.WRITE) !== 0 ? REASON.WRITE : REASON.READ;
      return this.#fault(why, sid, iovaHi, iovaLo, access);
    }
    const offset = iovaLo & this.#pageMask;
    if (!insideSubPages(walker.sub, offset, length, this.#subShift)) {
      const why = (need & ACCESS.WRITE) !== 0 ? REASON.SUBPAGE_WRITE : REASON.SUBPAGE_READ;
      return this.#fault(why, sid, iovaHi, iovaLo, access);
    }
    if (!this.#quiet) this.#keep(sid, iovaHi, iovaLo);
    this.outHi = walker.outHi;
    this.outLo = walker.outLo | offset;
    return TRANSLATE_OK;
  }

  /** Keeps what the walker has found. */
  #keep(sid: number, iovaHi: number, iovaLo: number): void {
    const walker = this.#walker;
    this.iotlb.fill(sid, iovaHi, iovaLo, this.part.pageShift, walker.outHi, walker.outLo, walker.perm, walker.sub);
  }

  /** First 4 KiB page of the IOVA's page. */
  #pagePfn(iovaHi: number, iovaLo: number): number {
    return pfnOfWords(iovaHi, iovaLo & ~this.#pageMask);
  }

  /** Page of the top table for an address, -1 when there is none. */
  #rootOf(sid: number, mode: number, iovaHi: number, iovaLo: number): number {
    if ((iovaHi & (mode === MODE.THREE_LEVELS ? this.#wideThree : this.#wideTwo)) !== 0) return -1;
    const quarter = this.#subShift === 0 ? iovaLo >>> 30 : (iovaHi >>> 4) & 3;
    const ttbr = this.#t8110 ? sid : 4 * sid + quarter;
    if (CHECKS && this.#retained !== null && (this.#layers & LAYER.CONTEXT) !== 0)
      return this.#keptRoot(this.#retained, ttbr);
    return this.#streams.rootPfn[ttbr]!;
  }

  #keptRoot(retained: Retained, ttbr: number): number {
    const kept = retained.root(ttbr);
    if (kept >= 0) return kept;
    const root = this.#streams.rootPfn[ttbr]!;
    if (root >= 0 && !this.#quiet) retained.keepRoot(ttbr, root);
    return root;
  }

  #fault(reason: number, sid: number, iovaHi: number, iovaLo: number, access: number): number {
    if (this.#quiet) return this.#errors.codeOf(reason);
    this.stats.faults++;
    return this.#errors.record(reason, sid, iovaHi, iovaLo, access);
  }

  /** Identification registers; bits that a smaller part does not have are not writable. */
  #defineRegisters(params: readonly number[]): void {
    const { registers, part } = this;
    const count = this.#t8110 ? 4 : 2;
    for (let i = 0; i < count; i++) registers.define(4 * i, 4, BigInt((params[i] ?? 0) >>> 0));
    const map = this.#t8110 ? T8110_REGISTERS : T8020_REGISTERS;
    const layout = this.#t8110 ? T8110_TCR : T8020_TCR;
    let tcr: bigint = map.TCR.writable;
    if (!part.bypass) tcr &= ~encode(layout, { BYPASS_DART: 1 });
    if (this.#t8110 && part.vaWidth <= 36) tcr &= ~encode(T8110_TCR, { FOUR_LEVEL: 1 });
    const ttbrs = this.#t8110 ? 1 : 4;
    for (let sid = 0; sid < map.TCR.count; sid++) {
      registers.setWritable(map.TCR.offset + 4 * sid, 4, sid < part.streams ? tcr : 0n);
      if (sid < part.streams) continue;
      for (let i = 0; i < ttbrs; i++) registers.setWritable(map.TTBR.offset + 4 * (sid * ttbrs + i), 4, 0n);
    }
    if (!this.#t8110) {
      for (let i = 0; i < 4; i++)
        registers.define(T8020_REGISTERS.REMAP.offset + 4 * i, 4, 0x0302_0100n + 0x0404_0404n * BigInt(i));
    }
  }

  #beforeRead(offset: number): void {
    if (
      this.#retained !== null ||
      offset === (this.#t8110 ? T8110_REGISTERS.TLB_CMD.offset : T8020_REGISTERS.STREAM_COMMAND.offset)
    )
      this.#command.beforeRead();
  }

  #t8020Write(offset: number, value: number): boolean {
    if (offset === T8020_REGISTERS.STREAM_COMMAND.offset) {
      this.#command.write(value);
      return true;
    }
    const config = this.registers.words[T8020_REGISTERS.CONFIG.offset >>> 2]!;
    if ((config & maskLo(T8020_CONFIG.LOCK)) === 0) return false;
    return (
      offset === T8020_REGISTERS.CONFIG.offset ||
      inArray(T8020_REGISTERS.REMAP, offset) ||
      inArray(T8020_REGISTERS.TCR, offset) ||
      inArray(T8020_REGISTERS.TTBR, offset)
    );
  }

  #t8110Write(offset: number, value: number): boolean {
    const { words } = this.registers;
    const protect = T8110_REGISTERS.PROTECT.offset >>> 2;
    const lock = T8110_REGISTERS.PROTECT_LOCK.offset >>> 2;
    switch (offset) {
      case T8110_REGISTERS.TLB_CMD.offset:
        this.#command.write(value);
        return true;
      case T8110_REGISTERS.PROTECT.offset:
        words[protect]! |= value & PROTECT_BITS;
        return true;
      case T8110_REGISTERS.UNPROTECT.offset:
        words[protect]! &= ~(value & ~words[lock]!);
        return true;
      case T8110_REGISTERS.PROTECT_LOCK.offset:
        words[lock]! |= value & PROTECT_BITS;
        return true;
      default:
    }
    if (inArray(T8110_REGISTERS.ENABLE_STREAMS, offset) || inArray(T8110_REGISTERS.DISABLE_STREAMS, offset)) {
      const word = (offset >>> 2) & 7;
      const at = (T8110_REGISTERS.ENABLE_STREAMS.offset >>> 2) + word;
      if (inArray(T8110_REGISTERS.ENABLE_STREAMS, offset)) words[at]! |= value & this.#existing(word);
      else words[at]! &= ~value;
      this.#streams.refreshTargets();
      return true;
    }
    if ((words[protect]! & TTBR_TCR) === 0) return false;
    return inArray(T8110_REGISTERS.TCR, offset) || inArray(T8110_REGISTERS.TTBR, offset);
  }

  /** Streams 32·word … 32·word+31 that the part has, as a mask. */
  #existing(word: number): number {
    const n = this.part.streams - 32 * word;
    return n >= 32 ? -1 : n <= 0 ? 0 : (1 << n) - 1;
  }

  #afterWrite(offset: number): void {
    const map = this.#t8110 ? T8110_REGISTERS : T8020_REGISTERS;
    if (inArray(map.TCR, offset)) {
      const sid = (offset - map.TCR.offset) >>> 2;
      if (sid < this.part.streams) this.#streams.refreshTcr(sid);
    } else if (inArray(map.TTBR, offset)) {
      const i = (offset - map.TTBR.offset) >>> 2;
      if (i < this.#streams.rootPfn.length) this.#streams.refreshTtbr(i);
    } else if (offset === map.ERROR.offset || (this.#t8110 && offset === T8110_REGISTERS.ERROR_MASK.offset)) {
      this.#errors.update();
    } else if (
      !this.#t8110 &&
      (offset === T8020_REGISTERS.STREAMS_ENABLE.offset || inArray(T8020_REGISTERS.REMAP, offset))
    ) {
      this.#streams.refreshTargets();
    }
  }

  toString(): string {
    return `${this.part.compatible} (${this.part.streams} streams, ${hex(2 ** this.part.pageShift)}-byte pages)`;
  }
}

const PROTECT_BITS = 0x1f;
const TTBR_TCR = /* @__PURE__ */ maskLo(PROTECT.TTBR_TCR);

/** {@link ACCESS} READ and WRITE, as the leaf has to grant them. */
const neededBy = (access: number): number =>
  (access & ACCESS.WRITE) | ((access & (ACCESS.READ | ACCESS.EXEC)) !== 0 ? ACCESS.READ : 0);

/** Bits of an IOVA's high word at and above `width` (32 … 63), which must be zero. */
const highWordAbove = (width: number): number => -1 << (width - 32);

/** True when `offset` lies in a register array of 4-byte registers. */
const inArray = (spec: { readonly offset: number; readonly count: number }, offset: number): boolean =>
  offset >= spec.offset && offset < spec.offset + 4 * spec.count;
