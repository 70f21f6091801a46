/**
 * What each stream does, worked out from TCR, REMAP and the stream enables whenever one of them is written, so that a
 * translation looks it up instead of decoding registers.
 */
import { fieldOfWord, maskLo } from '@iommu-ts/bits';
import type { RegisterFile } from '@iommu-ts/iommu-core';
import type { DartPart } from '../parts.ts';
import { T8020_REGISTERS, T8020_TCR, T8020_TTBR, T8110_REGISTERS, T8110_TCR, T8110_TTBR } from '../registers.ts';

/** What a stream's TCR says. Two and three are the levels of tables that it walks. */
export const MODE = { REFUSED: 0, BYPASS: 1, TWO_LEVELS: 2, THREE_LEVELS: 3 } as const;

/** {@link StreamTable.target} of a stream that is not enabled. */
export const DISABLED = -1;

/** Streams of one DART. */
export class StreamTable {
  readonly #words: Int32Array;
  readonly #part: DartPart;
  readonly #t8110: boolean;
  readonly #tcr: number;
  /** By stream: {@link MODE} of its own TCR. */
  readonly mode: Uint8Array;
  /** By stream: the stream whose TCR and TTBRs serve it (itself, unless remapped), or {@link DISABLED}. */
  readonly target: Int16Array;
  /** By TTBR (`4·sid + i` on t8020, `sid` on t8110): page of the top table, -1 when not valid. */
  readonly rootPfn: Int32Array;

  constructor(registers: RegisterFile, part: DartPart) {
    this.#words = registers.words;
    this.#part = part;
    this.#t8110 = part.generation === 't8110';
    this.#tcr = (this.#t8110 ? T8110_REGISTERS : T8020_REGISTERS).TCR.offset >>> 2;
    this.mode = new Uint8Array(part.streams);
    this.target = new Int16Array(part.streams).fill(DISABLED);
    this.rootPfn = new Int32Array(this.#t8110 ? part.streams : 64).fill(-1);
  }

  /** Works everything out anew. */
  refreshAll(): void {
    for (let sid = 0; sid < this.#part.streams; sid++) this.refreshTcr(sid);
    for (let i = 0; i < this.rootPfn.length; i++) this.refreshTtbr(i);
    this.refreshTargets();
  }

  /** TCR[sid] was written. */
  refreshTcr(sid: number): void {
    const tcr = this.#words[this.#tcr + sid]!;
    const layout = this.#t8110 ? T8110_TCR : T8020_TCR;
    const translate = fieldOfWord(tcr, layout.TRANSLATE_ENABLE) === 1;
    const bypass = fieldOfWord(tcr, layout.BYPASS_DART) === 1 && this.#part.bypass;
    // Both at once is invalid (m1n1 calls it so): nothing gets through.
    if (translate === bypass) this.mode[sid] = MODE.REFUSED;
    else if (bypass) this.mode[sid] = MODE.BYPASS;
    else {
      const four = this.#t8110 && fieldOfWord(tcr, T8110_TCR.FOUR_LEVEL) === 1;
      this.mode[sid] = four ? MODE.THREE_LEVELS : MODE.TWO_LEVELS;
    }
    if (this.#t8110) this.#refreshTarget(sid);
  }

  /** TTBR number `i` was written. */
  refreshTtbr(i: number): void {
    if (this.#t8110) {
      const ttbr = this.#words[(T8110_REGISTERS.TTBR.offset >>> 2) + i]!;
      this.rootPfn[i] = (ttbr & maskLo(T8110_TTBR.VALID)) === 0 ? -1 : fieldOfWord(ttbr, T8110_TTBR.ADDR) * 4;
      return;
    }
    const ttbr = this.#words[(T8020_REGISTERS.TTBR.offset >>> 2) + i]!;
    const pfn = fieldOfWord(ttbr, T8020_TTBR.ADDR);
    // A table is aligned to its size: address bits below a page are not looked at.
    const aligned = this.#part.pageShift === 14 ? pfn - (pfn & 3) : pfn;
    this.rootPfn[i] = (ttbr & maskLo(T8020_TTBR.VALID)) === 0 ? -1 : aligned;
  }

  /** REMAP or the stream enables were written. */
  refreshTargets(): void {
    for (let sid = 0; sid < this.#part.streams; sid++) this.#refreshTarget(sid);
  }

  #refreshTarget(sid: number): void {
    let target = sid;
    if (this.#t8110) {
      const tcr = this.#words[this.#tcr + sid]!;
      if (fieldOfWord(tcr, T8110_TCR.REMAP_EN) === 1) target = fieldOfWord(tcr, T8110_TCR.REMAP);
    } else {
      target = (this.#words[(T8020_REGISTERS.REMAP.offset >>> 2) + (sid >>> 2)]! >>> (8 * (sid & 3))) & 0xff;
    }
    const enables = this.#t8110 ? T8110_REGISTERS.ENABLE_STREAMS : T8020_REGISTERS.STREAMS_ENABLE;
    const enabled = ((this.#words[(enables.offset >>> 2) + (sid >>> 5)]! >>> (sid & 31)) & 1) === 1;
    this.target[sid] = enabled && target < this.#part.streams ? target : DISABLED;
  }
}
