/**
 * The caches of the IOMMU (IOATC): specification section "Caching in-memory data structures". Translations are kept by
 * (GSCID, PSCID, IOVA) in the IOTLB; device and process contexts in a small direct-mapped table. With an IOTLB of mode
 * `'none'` nothing at all is cached.
 */
import { Iotlb } from '@iommu-ts/iommu-core';
import type { IotlbOptions } from '@iommu-ts/iommu-core';
import { DeviceContext } from './context.ts';

const SLOTS = 64;

/** Bits of an IOTLB tag above PSCID (bits 19:0): the stages in use, whether MSI pages are looked for, GSCID. */
const TAG_S1 = 2 ** 20;
const TAG_GSCID = 2 ** 21;
const TAG_S2 = 2 ** 37;
const TAG_MSI = 2 ** 38;

/** `extra` of an entry that is smaller than the leaf it came from. */
export const EXTRA_FRAGMENT_S1 = 1;
export const EXTRA_FRAGMENT_S2 = 2;

/**
 * Tag of the translations of a context. Contexts that agree in it share entries, as PSCID and GSCID are meant to.
 * MSI recognition belongs to the device, not to the GSCID, so it is part of the tag.
 */
export const tagOf = (s1: boolean, s2: boolean, msi: boolean, gscid: number, pscid: number): number =>
  (s1 ? TAG_S1 + pscid : 0) + (s2 ? TAG_S2 + gscid * TAG_GSCID : 0) + (msi ? TAG_MSI : 0);

const hasS1 = (tag: number): boolean => Math.floor(tag / TAG_S1) % 2 === 1;
const gscidOf = (tag: number): number => Math.floor(tag / TAG_GSCID) % 0x1_0000;
const hasS2 = (tag: number): boolean => Math.floor(tag / TAG_S2) % 2 === 1;

export class TranslationCache {
  readonly iotlb: Iotlb;
  readonly enabled: boolean;
  readonly #slots: DeviceContext[] = [];
  /** Slots of an older generation are empty. */
  #generation = 1;
  /** A fragment of a larger leaf may be in the IOTLB: address-wise invalidations then take the whole address space. */
  #fragments = 0;

  constructor(options: IotlbOptions = {}) {
    this.iotlb = new Iotlb(options);
    this.enabled = this.iotlb.mode !== 'none';
    for (let i = 0; i < SLOTS; i++) this.#slots.push(new DeviceContext());
  }

  /** The slot where the context of (`did`, `pid`) is, or is to be put. */
  slot(did: number, pid: number): DeviceContext {
    return this.#slots[(did ^ (did >>> 6) ^ ((pid + 1) * 5)) & (SLOTS - 1)]!;
  }

  /** True when `slot` holds the context of (`did`, `pid`), valid still. */
  holds(slot: DeviceContext, did: number, pid: number): boolean {
    return slot.did === did && slot.pid === pid && slot.generation === this.#generation;
  }

  /** Marks `slot` as filled for (`did`, `pid`). */
  keep(slot: DeviceContext, did: number, pid: number): void {
    slot.did = did;
    slot.pid = pid;
    slot.generation = this.enabled ? this.#generation : 0;
  }

  noteFragment(bits: number): void {
    this.#fragments |= bits;
  }

  /** IODIR.INVAL_DDT without DV. */
  invalidateDirectory(): void {
    this.#generation++;
  }

  /** IODIR with DV: the device's context and all its process contexts. */
  invalidateDevice(did: number): void {
    for (const slot of this.#slots) if (slot.did === did) slot.generation = 0;
  }

  /** Everything, as after a reset. */
  invalidateAll(): void {
    this.#generation++;
    this.#dropAll();
  }

  /**
   * IOTINVAL.VMA. `gscid` < 0 means GV = 0 (host address spaces), `pscid` < 0 means PSCV = 0; pages `first` … `last` of IOVA.
   * Entries of global mappings go as well, which the specification allows.
   */
  invalidateVma(gscid: number, pscid: number, first: number, last: number): void {
    const iotlb = this.iotlb;
    if (iotlb.size === 0) return;
    if ((this.#fragments & EXTRA_FRAGMENT_S1) !== 0) {
      first = 0;
      last = Infinity;
    }
    if (pscid >= 0) {
      const tag = tagOf(true, gscid >= 0, false, gscid < 0 ? 0 : gscid, pscid);
      if (last === Infinity) {
        iotlb.invalidateTag(tag);
        iotlb.invalidateTag(tag + TAG_MSI);
      } else {
        iotlb.invalidateRange(tag, first, last);
        iotlb.invalidateRange(tag + TAG_MSI, first, last);
      }
      return;
    }
    iotlb.invalidateWhere((tag) => (gscid < 0 ? !hasS2(tag) : hasS2(tag) && gscidOf(tag) === gscid), first, last);
  }

  /** IOTINVAL.GVMA. `gscid` < 0 means GV = 0 (all virtual machines); pages `first` … `last` of GPA. */
  invalidateGvma(gscid: number, first: number, last: number): void {
    const iotlb = this.iotlb;
    if (iotlb.size === 0) return;
    if (gscid < 0) {
      iotlb.invalidateWhere(hasS2);
      return;
    }
    if ((this.#fragments & EXTRA_FRAGMENT_S2) !== 0) {
      first = 0;
      last = Infinity;
    }
    const mine = (tag: number): boolean => hasS2(tag) && gscidOf(tag) === gscid;
    // Entries of two stages are kept by IOVA: which GPA they went through is not known, so all of them go.
    iotlb.invalidateWhere((tag) => mine(tag) && hasS1(tag));
    iotlb.invalidateWhere((tag) => mine(tag) && !hasS1(tag), first, last);
  }

  #dropAll(): void {
    this.iotlb.invalidateAll();
    this.#fragments = 0;
  }
}
