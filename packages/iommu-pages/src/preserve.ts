/**
 * Table pages that outlive the kernel: marked by the old one, kept out of the page source and adopted again by the new one.
 * After the proposal "iommu: live update" (2026): `iommu_preserve_page`, `iommu_unpreserve_page`, `iommu_restore_page` over
 * the kernel's kexec handover (KHO).
 */
import { IommuError, hex } from '@iommu-ts/bits';
import type { PageSource } from './page-source.ts';

/** Largest number of a memory control group. */
export const MAX_MEMCG = 0xffff;

/** One block that is handed over. */
export interface PreservedBlock {
  /** First page. */
  readonly pfn: number;
  /** Size in bytes: a power of two. */
  readonly bytes: number;
  /** Memory control group that it was charged to; 0: none. */
  readonly memcg: number;
}

/** What one kernel leaves to the next: plain data that survives JSON. */
export interface Handover {
  readonly version: 1;
  readonly blocks: readonly PreservedBlock[];
}

/** The blocks that are marked for the next kernel, and those that came from the last. */
export class Preserved {
  /** First pages of live blocks that {@link IommuPages.kexec} is to hand over. */
  readonly marked = new Set<number>();
  readonly #waiting = new Map<number, PreservedBlock>();
  readonly #restored = new Set<number>();
  #finished = false;

  /**
   * Takes every block out of `source`, so that it is not handed out.
   * @throws IommuError `EFORMAT` when it is no handover, `EOPNOTSUPP` when the source can not reserve; what the source
   * throws when a block is not its own (`ERANGE`) or not free (`EBUSY`: two blocks overlap, or it was used before).
   */
  constructor(handover: Handover | undefined, source: PageSource, pageBytes: number) {
    if (handover === undefined) return;
    if (handover?.version !== 1 || !Array.isArray(handover.blocks)) {
      throw new IommuError('EFORMAT', 'the handover is not one of version 1');
    }
    for (const block of handover.blocks) checkBlock(block, pageBytes);
    if (handover.blocks.length > 0 && source.reserve === undefined) {
      throw new IommuError('EOPNOTSUPP', 'the page source can not reserve the pages that the last kernel preserved');
    }
    try {
      for (const block of handover.blocks) {
        source.reserve!(block.pfn, block.bytes);
        this.#waiting.set(block.pfn, block);
      }
    } catch (error) {
      this.finish(source); // the source stays usable with another handover, or with none
      throw error;
    }
  }

  /** Blocks that wait to be restored. */
  get waiting(): readonly PreservedBlock[] {
    return [...this.#waiting.values()];
  }

  /** Ends the wait of the block at `pfn`. @throws IommuError `EINVAL`, with the reason. */
  take(pfn: number): PreservedBlock {
    const block = this.#waiting.get(pfn);
    if (block === undefined) {
      let why = 'was not preserved by the last kernel';
      if (this.#restored.has(pfn)) why = 'is restored already';
      else if (this.#finished) why = 'is not kept: finishRestore() gave back what had not been restored';
      else {
        for (const { pfn: first, bytes } of this.#waiting.values()) {
          if (pfn > first && pfn < first + bytes / 4096) why = `lies inside the preserved block at page ${hex(first)}`;
        }
      }
      throw new IommuError('EINVAL', `page ${hex(pfn)} ${why}`, { pfn });
    }
    this.#waiting.delete(pfn);
    this.#restored.add(pfn);
    return block;
  }

  /** Undoes {@link take}: the block could not be adopted now, and may be asked for again. */
  putBack(block: PreservedBlock): void {
    this.#restored.delete(block.pfn);
    this.#waiting.set(block.pfn, block);
  }

  /** Gives what was not restored back to the source. @returns its pages of 4 KiB. */
  finish(source: PageSource): number {
    let pages = 0;
    for (const { pfn, bytes } of this.#waiting.values()) {
      source.free(pfn, bytes);
      pages += bytes / 4096;
    }
    this.#waiting.clear();
    this.#finished = true;
    return pages;
  }
}

/** @throws IommuError `EFORMAT` when it is no block that an allocator could have handed over. */
const checkBlock = (block: PreservedBlock | null, pageBytes: number): void => {
  const { pfn, bytes, memcg } = block ?? { pfn: NaN, bytes: NaN, memcg: NaN };
  const powerOfTwo = Number.isSafeInteger(bytes) && bytes >= pageBytes && Number.isInteger(Math.log2(bytes));
  const group = Number.isInteger(memcg) && memcg >= 0 && memcg <= MAX_MEMCG;
  if (Number.isSafeInteger(pfn) && pfn >= 0 && powerOfTwo && group) return;
  throw new IommuError(
    'EFORMAT',
    `the handover has a block of ${bytes} bytes at page ${pfn} for memory control group ${memcg}`,
  );
};

/** The source of an allocator whose kernel has ended. */
export const GONE: PageSource = {
  alloc: () => gone(),
  free: () => gone(),
  nodeOf: () => gone(),
};

const gone = (): never => {
  throw new IommuError(
    'EINVAL',
    'this allocator ended with its kernel, at kexec(): use the one made from the handover',
  );
};
