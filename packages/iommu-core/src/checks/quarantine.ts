/** Where freed table pages wait, poisoned, before they may be used again. */
import type { PageSource, PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { CheckEvent } from './types.ts';

/**
 * What freed pages are filled with: conspicuous, and no format or structure takes it for valid (bits 0 to 2 and 31 of the
 * low word are clear).
 */
export const POISON = { hi: 0x0bad_f4ee, lo: 0x0bad_f4e8 } as const;

/** A block between its free and its next use. */
export interface FreedBlock {
  readonly pfn: number;
  readonly bytes: number;
  readonly allocatedBy: CheckEvent | undefined;
  readonly freedBy: CheckEvent;
  /** It was a page table of a domain, and no structure or queue. */
  readonly isTable: boolean;
}

/** Where a freed block came from, for a sentence. */
export const allocatedText = ({ allocatedBy }: FreedBlock): string =>
  allocatedBy === undefined ? '' : ` (it was allocated by operation ${allocatedBy.operation}, ${allocatedBy.what})`;

/** What the quarantine tells its owner. */
interface QuarantineHooks {
  allocated(pfn: number, bytes: number): void;
  /** A block goes back: who does it, and who had allocated it. */
  freeing(pfn: number, bytes: number): Omit<FreedBlock, 'pfn' | 'bytes'>;
  /** Poison was overwritten at byte `offset` of the block. */
  overwritten(block: FreedBlock, offset: number): void;
}

/**
 * A page source that holds freed blocks back, first in, first out. When the source below has nothing left, the oldest go.
 *
 * A source that gives when it is asked a second time has refused on purpose (a fault injector): then the refusal stands.
 */
export class Quarantine implements PageSource {
  readonly #source: PageSource;
  readonly #memory: PhysicalMemory;
  readonly #limit: number;
  readonly #hooks: QuarantineHooks;
  #queue: FreedBlock[] = [];
  #head = 0;
  #held = 0;
  /** The blocks held, by each of their 4 KiB pages. */
  readonly pages = new Map<number, FreedBlock>();

  /** @param limit 4 KiB pages that are held at most; 0: nothing is held. */
  constructor(source: PageSource, memory: PhysicalMemory, limit: number, hooks: QuarantineHooks) {
    this.#source = source;
    this.#memory = memory;
    this.#limit = limit;
    this.#hooks = hooks;
  }

  /** 4 KiB pages held now. */
  get held(): number {
    return this.#held;
  }

  alloc(node: number, size: number): number {
    let pfn = this.#source.alloc(node, size);
    if (pfn < 0 && this.#held > 0) {
      pfn = this.#source.alloc(node, size);
      if (pfn >= 0) {
        this.#source.free(pfn, size);
        return -1;
      }
      while (pfn < 0 && this.#held > 0) {
        this.#release();
        pfn = this.#source.alloc(node, size);
      }
    }
    if (pfn >= 0) this.#hooks.allocated(pfn, size);
    return pfn;
  }

  free(pfn: number, size: number): void {
    const story = this.#hooks.freeing(pfn, size);
    if (this.#limit === 0) {
      this.#source.free(pfn, size);
      return;
    }
    const block: FreedBlock = { pfn, bytes: size, ...story };
    for (let i = 0; i < size / 4096; i++) {
      this.pages.set(pfn + i, block);
      if (!this.#memory.locate(pfn + i, true)) continue;
      const { view, index } = this.#memory;
      for (let w = 0; w < 1024; w += 2) {
        view[index + w] = POISON.lo;
        view[index + w + 1] = POISON.hi;
      }
    }
    this.#queue.push(block);
    this.#held += size / 4096;
    while (this.#held > this.#limit) this.#release();
  }

  nodeOf(pfn: number): number {
    return this.#source.nodeOf(pfn);
  }

  /** Looks at all that is held for bytes written after the free. */
  inspect(): void {
    for (let i = this.#head; i < this.#queue.length; i++) this.#inspect(this.#queue[i]!);
  }

  #inspect(block: FreedBlock): void {
    for (let i = 0; i < block.bytes / 4096; i++) {
      if (!this.#memory.locate(block.pfn + i, false)) continue;
      const { view, index } = this.#memory;
      for (let w = 0; w < 1024; w += 2) {
        if (view[index + w] === POISON.lo && view[index + w + 1] === POISON.hi) continue;
        this.#hooks.overwritten(block, i * 4096 + w * 4);
        return;
      }
    }
  }

  #release(): void {
    const block = this.#queue[this.#head++]!;
    if (this.#head > 1024 && this.#head * 2 > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
    this.#held -= block.bytes / 4096;
    for (let i = 0; i < block.bytes / 4096; i++) this.pages.delete(block.pfn + i);
    try {
      this.#inspect(block);
    } finally {
      this.#source.free(block.pfn, block.bytes);
    }
  }
}
