/**
 * What the adversarial unit keeps beside the IOTLB and the context slots: everything that it is allowed to keep, until a
 * command that is defined to drop it. VT-d specification revision 4.1, section 6.1 "Caching mode", 6.2 "Address translation
 * caches", 6.5 "Invalidation of translation caches".
 *
 * - Paging-structure caches (6.2.5): tables above the leaf, of both stages, tagged as the translations are.
 * - Context entries by source-id (6.2.2), and PASID entries by source-id and PASID (6.2.3), apart from each other, for
 *   their commands are. The context slots are only what has been read last.
 * - With CAP.CM: second-stage entries that were not present, under the domain-id, and legacy-mode contexts that were not
 *   present, under domain-id 0 (6.1). Not-present entries of scalable mode and erroneous entries, which caching mode would
 *   allow as well, are not kept.
 */
import { hiOfPfn, loOfPfn, pfnOfWords } from '@iommu-ts/bits';
import { LAYER, WalkCache } from '@iommu-ts/iommu-core';

/** IOVA bits that a table of `level` (1 lowest) covers; 0 for a page. */
const spanOf = (level: number): number => 12 + 9 * level;
/** Words of a PASID entry, and one more for the FPD bit of the directory entry above it. */
const PASID_WORDS = 17;
/** Words of a context entry, legacy mode and scalable mode. */
const LEGACY_WORDS = 4;
const SCALABLE_WORDS = 8;

const pasidKey = (sid: number, pasid: number): number => sid * 0x10_0000 + pasid;

export class Retained {
  private tables: WalkCache | null = new WalkCache();
  private absentPages: WalkCache | null;
  private legacyContexts = new Map<number, Int32Array>();
  private contexts = new Map<number, Int32Array>();
  private pasids = new Map<number, Int32Array>();
  private absentContexts: Map<number, number> | null;
  /** A probe looks on: nothing is kept. */
  private frozen = false;

  /** After {@link find}: the table, its level, and what its owner kept with it. */
  level = 0;
  pfn = 0;
  extra = 0;

  constructor(cachingMode: boolean) {
    this.absentPages = cachingMode ? new WalkCache() : null;
    this.absentContexts = cachingMode ? new Map() : null;
  }

  /** The same entries, of the layers asked for, to look at. */
  viewed(layers: number): Retained {
    const view = new Retained(false);
    view.frozen = true;
    view.tables = (layers & LAYER.TABLE) !== 0 ? this.tables : null;
    view.absentPages = (layers & LAYER.LEAF) !== 0 ? this.absentPages : null;
    if ((layers & LAYER.CONTEXT) !== 0) {
      view.legacyContexts = this.legacyContexts;
      view.contexts = this.contexts;
      view.pasids = this.pasids;
      view.absentContexts = this.absentContexts;
    }
    return view;
  }

  /** Finds the lowest table known for an address under `tag`, below the top of `levels`. */
  find(tag: number, hi: number, lo: number, levels: number): boolean {
    const tables = this.tables;
    if (tables === null || !tables.find(tag, hi, lo, 1, levels - 1, spanOf)) return false;
    this.level = tables.level;
    this.pfn = pfnOfWords(tables.hi, tables.lo);
    this.extra = tables.extra;
    return true;
  }

  /** Keeps where the table of `level` lies. */
  keepTable(tag: number, level: number, hi: number, lo: number, pfn: number, extra: number): void {
    if (this.frozen || this.tables === null) return;
    this.tables.fill(tag, level, hi, lo, spanOf(level), hiOfPfn(pfn), loOfPfn(pfn), extra);
  }

  /** Whether an entry on the way to the address is kept as not present. */
  isAbsent(tag: number, hi: number, lo: number, levels: number): boolean {
    return this.absentPages !== null && this.absentPages.find(tag, hi, lo, 0, levels - 1, spanOf);
  }

  /** Keeps that the entry in the table of `level` is not present. */
  keepAbsent(tag: number, level: number, hi: number, lo: number): void {
    if (this.frozen || this.absentPages === null) return;
    this.absentPages.fill(tag, level - 1, hi, lo, spanOf(level - 1), 0, 0, 0);
  }

  /** Fault reason of a context that is kept as not present, 256 more with FPD; 0: not kept. */
  absentContext(sid: number): number {
    return this.absentContexts?.get(sid) ?? 0;
  }

  keepAbsentContext(sid: number, reason: number, faultDisabled: boolean): void {
    if (!this.frozen) this.absentContexts?.set(sid, reason | (faultDisabled ? 256 : 0));
  }

  /** Words of the context entry of `sid`, of legacy or of scalable mode. */
  context(sid: number, legacy: boolean): Int32Array | undefined {
    return (legacy ? this.legacyContexts : this.contexts).get(sid);
  }

  keepContext(sid: number, legacy: boolean, view: Int32Array, at: number): void {
    if (this.frozen) return;
    if (legacy) this.legacyContexts.set(sid, view.slice(at, at + LEGACY_WORDS));
    else this.contexts.set(sid, view.slice(at, at + SCALABLE_WORDS));
  }

  /** Words of a PASID entry; the one behind them is FPD of the directory entry. */
  pasid(sid: number, pasid: number): Int32Array | undefined {
    return this.pasids.get(pasidKey(sid, pasid));
  }

  keepPasid(sid: number, pasid: number, view: Int32Array, at: number, directoryFpd: number): void {
    if (this.frozen) return;
    const words = new Int32Array(PASID_WORDS);
    words.set(view.subarray(at, at + PASID_WORDS - 1));
    words[PASID_WORDS - 1] = directoryFpd;
    this.pasids.set(pasidKey(sid, pasid), words);
  }

  /**
   * IOTLB invalidation (6.5.2.3, 6.5.2.4): tables and not-present pages under `tag`, in the range.
   * @param leafOnly the invalidation hint: tables above the leaf stay
   */
  dropPages(tag: number, startPfn: number, lastPfn: number, leafOnly: boolean): void {
    const matches = (cached: number): boolean => cached === tag;
    if (!leafOnly) this.tables?.invalidate(matches, startPfn, lastPfn);
    this.absentPages?.invalidate(matches, startPfn, lastPfn);
  }

  /** IOTLB invalidation: tables and not-present pages of a domain, of both stages; -1: of all domains. */
  dropDomain(did: number): void {
    const matches = (cached: number): boolean => did < 0 || cached % 0x1_0000 === did;
    this.tables?.invalidate(matches);
    this.absentPages?.invalidate(matches);
  }

  /** Context-cache invalidation (6.5.2.1) of the source-ids that `matches`; `did` is -1 for any domain-id. */
  dropContexts(matches: (sid: number) => boolean, did: number): void {
    for (const [sid, words] of this.legacyContexts) {
      if (matches(sid) && (did < 0 || ((words[2]! >>> 8) & 0xffff) === did)) this.legacyContexts.delete(sid);
    }
    // No domain-id stands in a context of scalable mode.
    if (did < 0) for (const sid of this.contexts.keys()) if (matches(sid)) this.contexts.delete(sid);
    if (this.absentContexts === null || did > 0) return;
    for (const sid of this.absentContexts.keys()) if (matches(sid)) this.absentContexts.delete(sid);
  }

  /** PASID-cache invalidation (6.5.2.2); -1 for any domain-id, any PASID. */
  dropPasids(did: number, pasid: number): void {
    for (const [key, words] of this.pasids) {
      if (did >= 0 && (words[2]! & 0xffff) !== did) continue;
      if (pasid >= 0 && key % 0x10_0000 !== pasid) continue;
      this.pasids.delete(key);
    }
  }

  clear(): void {
    this.dropDomain(-1);
    this.legacyContexts.clear();
    this.contexts.clear();
    this.pasids.clear();
    this.absentContexts?.clear();
  }
}
