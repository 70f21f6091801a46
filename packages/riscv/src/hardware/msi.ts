/**
 * MSI page tables: specification section "Process to translate addresses of MSIs", with the MSI PTE of the Advanced
 * Interrupt Architecture. Basic translate mode; MRIF mode needs the data of the write, which the translation does not see,
 * so it ends in "MRIF access fault".
 */
import { CHECKS, maskHi, maskLo } from '@iommu-ts/bits';
import { ACCESS } from '@iommu-ts/iommu-core';
import type { HardwareStats } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { CAUSE } from '../faults.ts';
import { MSIPTE, MSIPTE_MRIF, MSIPTE_MRIF_1 } from '../structures.ts';
import type { DeviceContext } from './context.ts';
import type { Features } from './features.ts';
import type { RetainedStructures } from './retained.ts';

const V = maskLo(MSIPTE.V);
const C_HI = maskHi(MSIPTE.C);
const BASIC_LO = maskLo(MSIPTE.V) | maskLo(MSIPTE.M) | maskLo(MSIPTE.PPN);
const BASIC_HI = maskHi(MSIPTE.PPN);
const MRIF_LO = maskLo(MSIPTE_MRIF.V) | maskLo(MSIPTE_MRIF.M) | maskLo(MSIPTE_MRIF.MRIF_ADDR_55_9);
const MRIF_HI = maskHi(MSIPTE_MRIF.MRIF_ADDR_55_9);
const MRIF1_LO = maskLo(MSIPTE_MRIF_1.NPPN) | maskLo(MSIPTE_MRIF_1.N90);
const MRIF1_HI = maskHi(MSIPTE_MRIF_1.NPPN) | maskHi(MSIPTE_MRIF_1.N10);

/** {@link MsiTranslator.translate}: the address is no virtual interrupt file. */
export const NOT_MSI = -1;

export class MsiTranslator {
  readonly #memory: PhysicalMemory;
  readonly #features: Features;
  readonly #stats: HardwareStats;
  /** MSI PTEs that are used instead of memory, where there are any; {@link quiet}: but none is added. */
  retained: RetainedStructures | null = null;
  quiet = false;
  /** After success: the translated address. */
  outHi = 0;
  outLo = 0;

  constructor(memory: PhysicalMemory, features: Features, stats: HardwareStats) {
    this.#memory = memory;
    this.#features = features;
    this.#stats = stats;
  }

  /** @returns 0, a cause, or {@link NOT_MSI}. */
  translate(ctx: DeviceContext, hi: number, lo: number, access: number): number {
    // The guest page number as words: its bits that the mask leaves out have to equal the pattern's.
    const pageLo = (hi << 20) | (lo >>> 12);
    const pageHi = hi >>> 12;
    if (((pageLo ^ ctx.msiPatternLo) & ~ctx.msiMaskLo) !== 0) return NOT_MSI;
    if (((pageHi ^ ctx.msiPatternHi) & ~ctx.msiMaskHi & 0xf_ffff) !== 0) return NOT_MSI;
    if ((access & ACCESS.EXEC) !== 0) return CAUSE.INSTRUCTION_ACCESS_FAULT;
    const retained = CHECKS ? this.retained : null;
    if (retained !== null) {
      const kept = retained.msi(ctx.gscid, pageHi * 0x1_0000_0000 + (pageLo >>> 0));
      if (kept !== undefined) return this.#decode(kept, 0, lo);
    }
    const number = extractBits(pageLo, ctx.msiMaskLo, pageHi, ctx.msiMaskHi);
    // Page and offset of entry `number`; the table's address is combined by OR.
    const pfn = ctx.msiPfn + Math.floor(number / 256);
    const memory = this.#memory;
    this.#stats.structureReads++;
    if (pfn >= this.#features.pasEndPfn || !memory.locate(pfn, false)) return CAUSE.MSI_PTE_LOAD_ACCESS_FAULT;
    const at = memory.index + (number % 256) * 4;
    const cause = this.#decode(memory.view, at, lo);
    if (cause === 0 && retained !== null && !this.quiet) {
      retained.keepMsi(ctx.gscid, pageHi * 0x1_0000_0000 + (pageLo >>> 0), memory.view.slice(at, at + 4));
    }
    return cause;
  }

  #decode(view: Int32Array, at: number, lo: number): number {
    const [w0, w1, w2, w3] = [view[at]!, view[at + 1]!, view[at + 2]!, view[at + 3]!];
    if ((w0 & V) === 0) return CAUSE.MSI_PTE_NOT_VALID;
    // No custom interpretation is defined here.
    if ((w1 & C_HI) !== 0) return CAUSE.MSI_PTE_MISCONFIGURED;
    switch ((w0 >>> 1) & 3) {
      case 3:
        if ((w0 & ~BASIC_LO) !== 0 || (w1 & ~BASIC_HI) !== 0 || w2 !== 0 || w3 !== 0) {
          return CAUSE.MSI_PTE_MISCONFIGURED;
        }
        this.outHi = ((w1 & BASIC_HI) << 2) | (w0 >>> 30);
        this.outLo = ((w0 & ~0x3ff) << 2) | (lo & 0xfff);
        return 0;
      case 1:
        if (
          !this.#features.msiMrif ||
          (w0 & ~MRIF_LO) !== 0 ||
          (w1 & ~MRIF_HI) !== 0 ||
          (w2 & ~MRIF1_LO) !== 0 ||
          (w3 & ~MRIF1_HI) !== 0
        ) {
          return CAUSE.MSI_PTE_MISCONFIGURED;
        }
        return CAUSE.MRIF_ACCESS_FAULT;
      default:
        return CAUSE.MSI_PTE_MISCONFIGURED;
    }
  }
}

/** The bits of `page` where `mask` is one, packed at the low end. */
const extractBits = (pageLo: number, maskLow: number, pageHi: number, maskHigh: number): number => {
  let out = 0;
  let weight = 1;
  for (let n = 0; n < 52; n++) {
    const mask = n < 32 ? maskLow >>> n : maskHigh >>> (n - 32);
    if ((mask & 1) === 0) continue;
    if (((n < 32 ? pageLo >>> n : pageHi >>> (n - 32)) & 1) !== 0) out += weight;
    weight *= 2;
  }
  return out;
};
