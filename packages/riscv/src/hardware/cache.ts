/**
 * The caches of the IOMMU (IOATC): specification section "Caching in-memory data structures". Translations are kept by
 * (GSCID, PSCID, IOVA) in the IOTLB; device and process contexts in a small direct-mapped table. With an IOTLB of mode
 * `'none'` nothing at all is cached. In mode `'retain'` the table gives way to what `retained.ts` describes, and invalidations
 * drop what they name and nothing else.
 */
import { Iotlb } from '@iommu-ts/iommu-core';
import type { IotlbOptions } from '@iommu-ts/iommu-core';
import { DeviceContext } from './context.ts';
import { OWN_LEAF, Retained } from './retained.ts';

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

const pscidOf = (key: number): number => key % KEY_S1;
const hasS1 = (key: number): boolean => Math.floor(key / KEY_S1) % 2 === 1;
const gscidOf = (key: number): number => Math.floor(key / KEY_GSCID) % 0x1_0000;
const hasS2 = (key: number): boolean => key >= KEY_S2;

export class TranslationCache {
  readonly iotlb: Iotlb;
  readonly enabled: boolean;
  /** Mode `'retain'`: what is kept beside the IOTLB. */
  readonly retained: Retained | null;
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
    this.retained = this.iotlb.mode === 'retain' ? new Retained() : null;
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
    slot.generation = this.enabled && this.retained === null ? this.#generation : 0;
  }

  /**
   * Tag of the translations of a context. Contexts that agree in all of this share entries, as PSCID and GSCID are meant to.
   * MSI recognition belongs to the device, not to the GSCID, so it counts too.
   */
  tagOf(s1: boolean, s2: boolean, msi: boolean, gscid: number, pscid: number): number {
    const key = keyOf(s1, s2, msi, gscid, pscid);
    const known = this.#spaces.get(key);
    if (known !== undefined) return known;
    if (this.#keys.length >= MAX_SPACES && this.retained === null) this.invalidateAll();
    const tag = this.#keys.length;
    this.#spaces.set(key, tag);
    this.#keys.push(key);
    return tag;
  }

  /** {@link tagOf} of a space that has one, or -1. */
  knownTag(s1: boolean, s2: boolean, msi: boolean, gscid: number, pscid: number): number {
    return this.#spaces.get(keyOf(s1, s2, msi, gscid, pscid)) ?? -1;
  }

  noteFragment(bits: number): void {
    this.#fragments |= bits;
  }

  /** IODIR.INVAL_DDT without DV. */
  invalidateDirectory(): void {
    this.#generation++;
    this.retained?.structures.dropDirectory();
  }

  /** `ddtp` was written. An IOMMU may keep what it cached even then (section on `ddtp`), and the adversarial one does. */
  rootChanged(): void {
    this.#generation++;
  }

  /** IODIR.INVAL_DDT with DV: the device's context and all its process contexts. */
  invalidateDevice(did: number): void {
    this.retained?.structures.dropDevice(did);
    for (const slot of this.#slots) if (slot.did === did) slot.generation = 0;
  }

  /** IODIR.INVAL_PDT: one process context; the small table drops all of the device's. */
  invalidateProcess(did: number, pid: number): void {
    if (this.retained === null) this.invalidateDevice(did);
    else this.retained.structures.dropProcess(did, pid);
  }

  /** Everything, as after a reset. */
  invalidateAll(): void {
    this.#generation++;
    this.iotlb.invalidateAll();
    this.#spaces.clear();
    this.#keys.length = 0;
    this.#fragments = 0;
    this.retained?.clear();
  }

  /**
   * IOTINVAL.VMA. `gscid` < 0 means GV = 0 (host address spaces), `pscid` < 0 means PSCV = 0; pages `first` … `last` of IOVA.
   * Entries of global mappings go as well, which the specification allows (`'retain'` keeps them where PSCV = 1).
   * @param nonLeaf NL: with an address, non-leaf entries go too
   */
  invalidateVma(gscid: number, pscid: number, first: number, last: number, nonLeaf = false): void {
    if (this.retained !== null) {
      this.#exactVma(this.retained, gscid, pscid, first, last, nonLeaf);
      return;
    }
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

  #exactVma(retained: Retained, gscid: number, pscid: number, first: number, last: number, nonLeaf: boolean): void {
    const keys = this.#keys;
    const named = (tag: number): boolean => {
      const key = keys[tag]!;
      return this.#ofGuest(key, gscid) && (pscid < 0 || (hasS1(key) && pscidOf(key) === pscid));
    };
    const everywhere = last === Infinity;
    if (gscid < 0 && pscid >= 0 && !retained.anyGlobal) {
      this.#invalidateSpace(keyOf(true, false, false, 0, pscid), first, last);
    } else {
      this.iotlb.invalidateWhere((tag, extra) => extra === OWN_LEAF && named(tag), first, last);
      this.iotlb.invalidateWhere((tag, extra) => {
        const leaf = retained.origin(extra);
        if (leaf === undefined || !named(tag) || (pscid >= 0 && leaf.global)) return false;
        return everywhere || (leaf.firstIova <= last && leaf.lastIova >= first);
      });
    }
    if (everywhere || nonLeaf) retained.first.invalidate(named, first, last);
  }

  /** IOTINVAL.GVMA. `gscid` < 0 means GV = 0 (all virtual machines); pages `first` … `last` of GPA. */
  invalidateGvma(gscid: number, first: number, last: number, nonLeaf = false): void {
    if (this.retained !== null) {
      // GV = 0 ignores the address.
      if (gscid < 0) this.#exactGvma(this.retained, gscid, 0, Infinity, false);
      else this.#exactGvma(this.retained, gscid, first, last, nonLeaf);
      return;
    }
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

  #exactGvma(retained: Retained, gscid: number, first: number, last: number, nonLeaf: boolean): void {
    const keys = this.#keys;
    const everywhere = last === Infinity;
    this.iotlb.invalidateWhere((tag, extra) => {
      const key = keys[tag]!;
      if (!hasS2(key) || (gscid >= 0 && gscidOf(key) !== gscid)) return false;
      const leaf = retained.origin(extra);
      return leaf !== undefined && (everywhere || (leaf.firstGpa <= last && leaf.lastGpa >= first));
    });
    if (everywhere || nonLeaf) retained.second.invalidate((tag) => gscid < 0 || tag === gscid, first, last);
    retained.structures.dropMsi(gscid, first, last);
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
