/**
 * The caches of the IOMMU (IOATC): specification section "Caching in-memory data structures". Translations are kept by
 * (GSCID, PSCID, IOVA) in the IOTLB; device and process contexts in a small direct-mapped table. With an IOTLB of mode
 * `'none'` nothing at all is cached.
 */
import { Iotlb } from '@iommu-ts/iommu-core';
import type { IotlbOptions } from '@iommu-ts/iommu-core';
import { DeviceContext } from './context.ts';

const SLOTS = 64;

/** Bits of a space's key above PSCID (bits 19:0): the stages in use, whether MSI pages are looked for, GSCID. */
const KEY_S1 = 2 ** 20;
const KEY_MSI = 2 ** 21;
const KEY_GSCID = 2 ** 22;
const KEY_S2 = 2 ** 38;

/** Address spaces told apart before all is dropped and counted anew. */
const MAX_SPACES = 1 << 16;

/** `extra` of an entry that is smaller than the leaf it came from. */
export const EXTRA_FRAGMENT_S1 = 1;
export const EXTRA_FRAGMENT_S2 = 2;

const keyOf = (s1: boolean, s2: boolean, msi: boolean, gscid: number, pscid: number): number =>
  (s1 ? KEY_S1 + pscid : 0) + (s2 ? KEY_S2 + gscid * KEY_GSCID : 0) + (msi ? KEY_MSI : 0);

const hasS1 = (key: number): boolean => Math.floor(key / KEY_S1) % 2 === 1;
const gscidOf = (key: number): number => Math.floor(key / KEY_GSCID) % 0x1_0000;
const hasS2 = (key: number): boolean => key >= KEY_S2;

export class TranslationCache {
  readonly iotlb: Iotlb;
  readonly enabled: boolean;
  readonly #slots: DeviceContext[] = [];
  /** Slots of an older generation are empty. */
  #generation = 1;
  /** Address spaces by key, and their keys by number. The number is the IOTLB's tag: a small integer is never boxed. */
  readonly #spaces = new Map<number, number>();
  readonly #keys: number[] = [];
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

  /**
   * Tag of the translations of a context. Contexts that agree in all of this share entries, as PSCID and GSCID are meant to.
   * MSI recognition belongs to the device, not to the GSCID, so it counts too.
   */
  tagOf(s1: boolean, s2: boolean, msi: boolean, gscid: number, pscid: number): number {
    const key = keyOf(s1, s2, msi, gscid, pscid);
    const known = this.#spaces.get(key);
    if (known !== undefined) return known;
    if (this.#keys.length >= MAX_SPACES) this.invalidateAll();
    const tag = this.#keys.length;
    this.#spaces.set(key, tag);
    this.#keys.push(key);
    return tag;
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
    this.iotlb.invalidateAll();
    this.#spaces.clear();
    this.#keys.length = 0;
    this.#fragments = 0;
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
      const key = keyOf(true, gscid >= 0, false, gscid < 0 ? 0 : gscid, pscid);
      this.#invalidateSpace(key, first, last);
      // Only a device with a second stage has an MSI page table.
      if (gscid >= 0) this.#invalidateSpace(key + KEY_MSI, first, last);
      return;
    }
    const keys = this.#keys;
    iotlb.invalidateWhere((tag) => this.#ofGuest(keys[tag]!, gscid), first, last);
  }

  /** IOTINVAL.GVMA. `gscid` < 0 means GV = 0 (all virtual machines); pages `first` … `last` of GPA. */
  invalidateGvma(gscid: number, first: number, last: number): void {
    const iotlb = this.iotlb;
    if (iotlb.size === 0) return;
    const keys = this.#keys;
    if (gscid < 0) {
      iotlb.invalidateWhere((tag) => hasS2(keys[tag]!));
      return;
    }
    if ((this.#fragments & EXTRA_FRAGMENT_S2) !== 0) {
      first = 0;
      last = Infinity;
    }
    // Entries of two stages are kept by IOVA: which GPA they went through is not known, so all of them go.
    iotlb.invalidateWhere((tag) => this.#ofGuest(keys[tag]!, gscid) && hasS1(keys[tag]!));
    iotlb.invalidateWhere((tag) => this.#ofGuest(keys[tag]!, gscid) && !hasS1(keys[tag]!), first, last);
  }

  /** Is the space of this guest, or, with `gscid` < 0, of the host? */
  #ofGuest(key: number, gscid: number): boolean {
    return gscid < 0 ? !hasS2(key) : hasS2(key) && gscidOf(key) === gscid;
  }

  #invalidateSpace(key: number, first: number, last: number): void {
    const tag = this.#spaces.get(key);
    if (tag === undefined) return;
    if (last === Infinity) this.iotlb.invalidateTag(tag);
    else this.iotlb.invalidateRange(tag, first, last);
  }
}
