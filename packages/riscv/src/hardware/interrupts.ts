/**
 * Interrupts: specification sections "Interrupt pending status register (ipsr)", "icvec" and "msi_cfg_tbl".
 * A pending bit that goes from 0 to 1 sends its message, or drives its wire.
 */
import { maskLo } from '@iommu-ts/bits';
import type { RegisterFile } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { REGISTERS, ipsr } from '../registers.ts';
import type { Features } from './features.ts';

const IPSR = REGISTERS.ipsr.offset >> 2;
const FCTL = REGISTERS.fctl.offset >> 2;
const ICVEC = REGISTERS.icvec.offset >> 2;
const MSI = REGISTERS.msi_addr.offset >> 2;
const WSI = 2;

/** Bits of `ipsr`. */
export const CIP = maskLo(ipsr.cip);
export const FIP = maskLo(ipsr.fip);
const PMIP = maskLo(ipsr.pmip);
export const PIP = maskLo(ipsr.pip);

const SOURCES: Readonly<Record<number, string>> = { [CIP]: 'cmdq', [FIP]: 'fault', [PMIP]: 'pmu', [PIP]: 'priq' };

export class Interrupts {
  readonly #memory: PhysicalMemory;
  readonly #registers: RegisterFile;
  readonly #hasTable: boolean;
  /** Vectors whose message waits for the mask bit to clear. */
  #pendingVectors = 0;
  onInterrupt: ((source: string) => void) | null = null;
  /** A message that no memory took: cause 273 at the address `hi:lo`. Set by the unit. */
  onMessageFault: ((hi: number, lo: number) => void) | null = null;

  constructor(memory: PhysicalMemory, registers: RegisterFile, features: Features) {
    this.#memory = memory;
    this.#registers = registers;
    this.#hasTable = features.igs !== 1;
  }

  reset(): void {
    this.#pendingVectors = 0;
  }

  /** Sets pending bit `bit`; a bit that is set already stays, and no second message is sent. */
  raise(bit: number): void {
    const words = this.#registers.words;
    if ((words[IPSR]! & bit) !== 0) return;
    words[IPSR] = words[IPSR]! | bit;
    if ((words[FCTL]! & WSI) === 0) this.#message(this.#vectorOf(bit));
    if (this.onInterrupt !== null) this.onInterrupt(SOURCES[bit]!);
  }

  /** Software wrote ones to `ipsr`. */
  acknowledge(value: number): void {
    this.#registers.words[IPSR] = this.#registers.words[IPSR]! & ~(value & 0xf);
  }

  /** `msi_vec_ctl_x` of `vector` has changed. */
  maskChanged(vector: number): void {
    if ((this.#pendingVectors & (1 << vector)) !== 0 && !this.#masked(vector)) {
      this.#pendingVectors &= ~(1 << vector);
      this.#message(vector);
    }
  }

  #vectorOf(bit: number): number {
    const icvec = this.#registers.words[ICVEC]!;
    // Fields in register order: civ, fiv, pmiv, piv, four bits each, as the bits of ipsr.
    return (icvec >>> ((31 - Math.clz32(bit)) * 4)) & 0xf;
  }

  #masked(vector: number): boolean {
    return (this.#registers.words[MSI + vector * 4 + 3]! & 1) !== 0;
  }

  #message(vector: number): void {
    if (!this.#hasTable) return;
    if (this.#masked(vector)) {
      this.#pendingVectors |= 1 << vector;
      return;
    }
    const words = this.#registers.words;
    const at = MSI + vector * 4;
    const lo = words[at]!;
    const hi = words[at + 1]!;
    if (!this.#memory.store32(hi, lo, words[at + 2]!) && this.onMessageFault !== null) this.onMessageFault(hi, lo);
  }
}
