/**
 * The adversarial SMMU (IOTLB mode `'retain'`): caches that keep whatever the architecture lets them keep, for as long as it
 * does, and commands that take effect as late as it allows.
 *
 * - STEs, CDs and the descriptors that lead to them are kept one by one, once they were found valid, until a CMD_CFGI_… that
 *   is defined to drop them (IHI 0070, 4.3): not by SMMUEN, not by a new STRTAB_BASE. CMD_CFGI_STE takes the CDs with it that
 *   were found through the STE. Invalid structures are never kept.
 * - Table descriptors above the leaf are kept by regime, VMID and ASID until a CMD_TLBI_… without Leaf. In nested
 *   translation each stage has its own: stage 1 remembers its tables by IPA, stage 2 keeps its tables and its leaves; beside
 *   them stand the combined entries, which no stage 2 command but CMD_TLBI_S12_VMALL reaches (4.4.3).
 * - A global translation (nG = 0) answers under every ASID of its regime and VMID (3.17).
 * - Contiguous descriptors make one entry of the whole set (DDI 0487, D8.7).
 * - An invalidation is over only when a CMD_SYNC behind it is (4.7.3): until then what it names stays.
 */
import { LAYER, WalkCache } from '@iommu-ts/iommu-core';
import type { HardwareStats, InvalidationEvent, Iotlb } from '@iommu-ts/iommu-core';
import { GLOBAL, dropLeaves, reachesTables, tell } from './invalidation.ts';
import type { Scope } from './invalidation.ts';
import type { TableBase } from './stream-config.ts';
import type { TagTable } from './tags.ts';

/** Structures that are kept. */
export const STRUCTURE = { L1STD: 0, STE: 1, L1CD: 2, CD: 3 } as const;

/** One structure, and the streams and substreams that are found through it. */
interface Kept {
  readonly kind: number;
  readonly sidFirst: number;
  readonly sidLast: number;
  readonly ssidFirst: number;
  readonly ssidLast: number;
  readonly words: Int32Array;
}

export class Retained {
  readonly iotlb: Iotlb;
  readonly walk = new WalkCache();
  readonly #tags: TagTable;
  readonly #stats: HardwareStats;
  readonly #structures = new Map<string, Kept>();
  #pending: Scope[] = [];
  /** Caches that answer now, {@link LAYER} bits; less than all only during a probe. */
  layers: number = LAYER.ALL;
  /** Nothing is kept. */
  probing = false;

  constructor(iotlb: Iotlb, tags: TagTable, stats: HardwareStats) {
    this.iotlb = iotlb;
    this.#tags = tags;
    this.#stats = stats;
  }

  /** Structures kept; for tests. */
  get structures(): number {
    return this.#structures.size;
  }

  /** Invalidations read out of the queue that no CMD_SYNC has completed. */
  get pending(): number {
    return this.#pending.length;
  }

  /** Fills `target` with structure `a`, `b` of a kind (see {@link keep}); false when it is not kept. */
  structure(kind: number, a: number, b: number, target: Int32Array): boolean {
    if ((this.layers & LAYER.CONTEXT) === 0) return false;
    const kept = this.#structures.get(`${kind}:${a}:${b}`);
    if (kept === undefined) return false;
    target.set(kept.words);
    return true;
  }

  /**
   * Keeps a valid structure.
   * @param a, b its name: upper StreamID bits and 0, StreamID and 0, StreamID and upper SubstreamID bits, or both ids
   * @param splitLg2 log2 of the streams (L1STD) or substreams (L1CD) behind it, 0 for others
   */
  keep(kind: number, a: number, b: number, splitLg2: number, words: Int32Array): void {
    if (this.probing) return;
    const span = 2 ** splitLg2;
    const sids = kind === STRUCTURE.L1STD ? span : 1;
    const ssids = kind === STRUCTURE.L1CD ? span : 1;
    const sidFirst = a * sids;
    const ssidFirst = b * ssids;
    this.#structures.set(`${kind}:${a}:${b}`, {
      kind,
      sidFirst,
      sidLast: sidFirst + sids - 1,
      ssidFirst,
      ssidLast: ssidFirst + ssids - 1,
      words: words.slice(),
    });
  }

  /** A global translation that came in under another ASID; the IOTLB has it then. */
  findGlobal(tag: number, hi: number, lo: number): boolean {
    const tags = this.#tags;
    for (let other = 0; other < tags.size; other++) {
      if (other === tag || tags.worldOf(other) !== tags.worldOf(tag) || tags.vmidOf(other) !== tags.vmidOf(tag))
        continue;
      if (this.iotlb.peek(other, hi, lo) && (this.iotlb.extra & GLOBAL) !== 0) return true;
    }
    return false;
  }

  /** Lowest table known for an address under `tag`, below the start table; {@link WalkCache} has it then. */
  findTable(tag: number, base: TableBase, hi: number, lo: number): boolean {
    if ((this.layers & LAYER.TABLE) === 0) return false;
    return this.walk.find(tag, hi, lo, 0, 2 - base.startLevel, (level) => spanLg2(base, level));
  }

  /** Remembers the table of architectural level `level`; `limits`: what the descriptors down to it took away. */
  keepTable(
    tag: number,
    base: TableBase,
    level: number,
    hi: number,
    lo: number,
    tableHi: number,
    tableLo: number,
    limits: number,
  ): void {
    if (this.probing) return;
    this.walk.fill(tag, 3 - level, hi, lo, spanLg2(base, 3 - level), tableHi, tableLo, limits);
  }

  /** A legal invalidation was read out of the queue. */
  accept(scope: Scope): void {
    this.#pending.push(scope);
  }

  /** CMD_SYNC: what was accepted takes effect, and `listener` is told. */
  complete(listener: ((event: InvalidationEvent) => void) | null): void {
    const scopes = this.#pending;
    this.#pending = [];
    for (const scope of scopes) {
      if (scope.worlds === 0) this.#dropStructures(scope);
      else {
        dropLeaves(this.iotlb, this.#tags, scope);
        if (!scope.leaf) this.walk.invalidate(reachesTables(scope, this.#tags), scope.first, scope.last);
      }
      if ((scope.layers & LAYER.LEAF) !== 0) this.#stats.invalidations++;
      if (listener !== null) tell(scope, listener);
    }
  }

  /** Nothing is kept, nothing is pending: after a reset. */
  clear(): void {
    this.#structures.clear();
    this.walk.invalidate();
    this.#pending = [];
  }

  #dropStructures(scope: Scope): void {
    for (const [key, kept] of this.#structures) {
      if (kept.sidFirst > scope.sidLast || kept.sidLast < scope.sidFirst) continue;
      if (kept.kind === STRUCTURE.L1STD || kept.kind === STRUCTURE.STE) {
        if (scope.cdOnly || (kept.kind === STRUCTURE.L1STD && scope.leaf)) continue;
      } else if (scope.cdOnly) {
        if (scope.ssid >= 0 && (kept.ssidFirst > scope.ssid || kept.ssidLast < scope.ssid)) continue;
        if (kept.kind === STRUCTURE.L1CD && scope.leaf) continue;
      }
      this.#structures.delete(key);
    }
  }
}

/** IOVA bits that a table covers; levels count from 0, the lowest. */
const spanLg2 = (base: TableBase, level: number): number => base.granuleLg2 + (level + 1) * (base.granuleLg2 - 3);

/**
 * log2 of the size of the entry that a contiguous leaf of `2^shift` bytes makes (DDI 0487, D8.7.1): 16 leaves with 4 KiB
 * granules, 128 pages or 32 blocks with 16 KiB granules, 32 of either with 64 KiB granules; only itself where a level has no
 * sets, or where the set would reach beyond the input.
 */
export const contiguousLg2 = (base: TableBase, level: number, shift: number): number => {
  if (base.granuleLg2 !== 12 && level < 2) return shift;
  const sizeLg2 = shift + (base.granuleLg2 === 12 ? 4 : base.granuleLg2 === 14 && level === 3 ? 7 : 5);
  return sizeLg2 <= base.inputBits ? sizeLg2 : shift;
};
