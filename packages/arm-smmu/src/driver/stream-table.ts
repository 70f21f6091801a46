/** The driver's stream table (IHI 0070, 3.3.1-3.3.2): linear, or two-level with second-level tables made on first use. */
import { addressOfPfn, encode, extract, maskOf } from '@iommu-ts/bits';
import { STRTAB_BASE, STRTAB_BASE_CFG } from '../registers.ts';
import { L1STD, STE, STE_BYTES } from '../structures.ts';
import type { SharedMemory } from './shared-memory.ts';

/** StreamID bits of a second-level table: 256 entries, 16 KiB. */
const SPLIT = 8;
/** Most StreamID bits that are given tables. */
const MAX_LINEAR = 16;
const MAX_TWO_LEVEL = 24;
const WORDS = STE_BYTES / 8;
const WORD = 0xffff_ffff_ffff_ffffn;

/** What must be told the hardware about a stream whose structures changed. */
export interface StreamInvalidation {
  /** Drops the cached STE (and, unless `leaf`, the level-1 descriptor), and waits. */
  streamChanged(sid: number, leaf: boolean): void;
}

export class StreamTable {
  readonly #shared: SharedMemory;
  readonly #twoLevel: boolean;
  readonly #pfn: number;
  /** Second-level tables by upper StreamID bits. */
  readonly #tables = new Map<number, number>();
  /** log2 of the number of streams. */
  readonly log2: number;

  /** @throws IommuError `ENOMEM`. */
  constructor(shared: SharedMemory, sidSize: number, twoLevel: boolean) {
    this.#shared = shared;
    this.#twoLevel = twoLevel && sidSize > SPLIT;
    this.log2 = Math.min(sidSize, this.#twoLevel ? MAX_TWO_LEVEL : MAX_LINEAR);
    const bytes = this.#twoLevel ? 8 << (this.log2 - SPLIT) : STE_BYTES << this.log2;
    this.#pfn = shared.allocate(bytes, 'the stream table');
  }

  /** Value of STRTAB_BASE. */
  get base(): bigint {
    return addressOfPfn(this.#pfn) | maskOf(STRTAB_BASE.RA);
  }

  /** Value of STRTAB_BASE_CFG. */
  get config(): number {
    const shape = this.#twoLevel ? { FMT: 1, SPLIT } : {};
    return Number(encode(STRTAB_BASE_CFG, { ...shape, LOG2SIZE: this.log2 }));
  }

  /**
   * Makes `ste` the entry of stream `sid`. A change of one word is made in one store; for others the entry is invalid in
   * between, so that the hardware never sees a mixture (3.21.3).
   * @throws IommuError `ENOMEM` when there is no page for the second-level table.
   */
  write(sid: number, ste: bigint, invalidation: StreamInvalidation): void {
    const { memory } = this.#shared;
    const pfn = this.#tableOf(sid, invalidation);
    const offset = (this.#twoLevel ? sid % (1 << SPLIT) : sid) * STE_BYTES;
    const at = addressOfPfn(pfn) + BigInt(offset);
    const words = Array.from({ length: WORDS }, (_, i) => (ste >> BigInt(64 * i)) & WORD);
    const changed = words.map((_, i) => i).filter((i) => memory.readU64(at + BigInt(8 * i)) !== words[i]);
    if (changed.length === 0) return;
    const store = (i: number, value: bigint): void => {
      memory.writeU64(at + BigInt(8 * i), value);
      this.#shared.written(pfn, offset + 8 * i, 8);
    };
    if (changed.length === 1) {
      store(changed[0]!, words[changed[0]!]!);
      invalidation.streamChanged(sid, true);
      return;
    }
    if (extract(memory.readU64(at), STE.V) === 1n) {
      store(0, 0n);
      invalidation.streamChanged(sid, true);
    }
    for (let i = 1; i < WORDS; i++) if (changed.includes(i)) store(i, words[i]!);
    invalidation.streamChanged(sid, true);
    if (memory.readU64(at) === words[0]) return;
    store(0, words[0]!);
    invalidation.streamChanged(sid, true);
  }

  /** Makes stream `sid` invalid; no table is made for it. */
  clear(sid: number, invalidation: StreamInvalidation): void {
    if (!this.#twoLevel || this.#tables.has(sid >>> SPLIT)) this.write(sid, 0n, invalidation);
  }

  /** Gives all tables back. The hardware must not look at them any more. */
  release(): void {
    for (const pfn of this.#tables.values()) this.#shared.free(pfn);
    this.#tables.clear();
    this.#shared.free(this.#pfn);
  }

  /** Page of the table with the entry of stream `sid`; made on first use. */
  #tableOf(sid: number, invalidation: StreamInvalidation): number {
    if (!this.#twoLevel) return this.#pfn;
    const upper = sid >>> SPLIT;
    const known = this.#tables.get(upper);
    if (known !== undefined) return known;
    const pfn = this.#shared.allocate(STE_BYTES << SPLIT, 'a second-level stream table');
    this.#tables.set(upper, pfn);
    const descriptor = addressOfPfn(pfn) | encode(L1STD, { Span: SPLIT + 1 });
    this.#shared.memory.writeU64(addressOfPfn(this.#pfn) + BigInt(8 * upper), descriptor);
    this.#shared.written(this.#pfn, 8 * upper, 8);
    invalidation.streamChanged(sid, false);
    return pfn;
  }
}
