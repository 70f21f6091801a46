/** Table pages that the device's walker reads past the CPU's caches; Linux `iommu_pages_start_incoherent()` and its like. */
import { IommuError } from '@iommu-ts/bits';
import { DESC, NO_DESC } from './descriptors/store.ts';
import type { DescriptorStore } from './descriptors/store.ts';
import { hexPfn } from './warn.ts';
import type { Warnings } from './warn.ts';

/** What a CPU can do with its cached lines of a block; see {@link IommuPages.cacheMaintenance}. */
export interface CacheMaintenance {
  /** Writes bytes `offset … offset + length` of the block that begins at page `pfn` back to memory. */
  clean(pfn: number, offset: number, length: number): void;
}

/**
 * How a kernel makes bytes visible to a device that does not snoop.
 * - `'x86'`: it flushes cache lines itself; there is nothing to undo, and a block that is freed may still be marked.
 * - `'dma-api'`: everything else maps the block for the device (`dma_map_single`), and must unmap it before it is freed.
 */
export type Coherency = 'x86' | 'dma-api';

/** {@link DmaApi.map} failed. */
export const DMA_MAPPING_ERROR = -1;

/** The DMA API as the allocator sees it, in page frame numbers; on a real machine it must be the direct map. */
export interface DmaApi {
  /** DMA address of the block of `bytes` at page `pfn`, or {@link DMA_MAPPING_ERROR}. */
  map(pfn: number, bytes: number): number;
  /** Ends a mapping. */
  unmap?(dma: number, bytes: number): void;
}

const EINVAL = -22;
const EOPNOTSUPP = -95;

const DIRECT: DmaApi = { map: (pfn) => pfn };

/** Keeps the incoherent mark of descriptors, and the DMA mappings behind it. */
export class Incoherent {
  /** Null on a machine whose devices snoop. */
  cache: CacheMaintenance | null = null;
  readonly #x86: boolean;
  readonly #pool: DescriptorStore;
  readonly #warnings: Warnings;
  readonly #dma: DmaApi;
  #mappings = 0;
  #warnedFree = false;

  /** @throws IommuError `EINVAL` when `coherency` is neither behaviour. */
  constructor(pool: DescriptorStore, warnings: Warnings, coherency: Coherency = 'x86', dma: DmaApi = DIRECT) {
    if (coherency !== 'x86' && coherency !== 'dma-api') {
      throw new IommuError('EINVAL', `coherency ${String(coherency)} is not 'x86' or 'dma-api'`);
    }
    this.#x86 = coherency === 'x86';
    this.#pool = pool;
    this.#warnings = warnings;
    this.#dma = dma;
  }

  /** Mappings of the DMA API that are not undone yet. */
  get mappings(): number {
    return this.#mappings;
  }

  /** 0, or a negative errno; the mark is set only by success. */
  start(desc: number): number {
    const flags = this.#pool.flags(desc);
    const marked = (flags & DESC.INCOHERENT) !== 0;
    const errno = this.#begin(this.#pool.pfn(desc), 2 ** this.#pool.sizeLg2(desc), marked);
    if (errno === 0) this.#pool.setFlags(desc, flags | DESC.INCOHERENT);
    return errno;
  }

  /** Every block from `head` on; one that is marked already is warned of and left. Stops at the first that fails. */
  startAll(head: number): number {
    for (let desc = head; desc !== NO_DESC; desc = this.#pool.next(desc)) {
      const marked = (this.#pool.flags(desc) & DESC.INCOHERENT) !== 0;
      const errno = this.start(desc);
      if (errno !== 0 && !marked) return errno;
    }
    return 0;
  }

  /** Every block from `head` on; those that are not marked are left. On x86 there is nothing to do. */
  stopAll(head: number): void {
    if (this.#x86) return;
    for (let desc = head; desc !== NO_DESC; desc = this.#pool.next(desc)) this.stop(desc);
  }

  stop(desc: number): void {
    const flags = this.#pool.flags(desc);
    if (this.#x86 || (flags & DESC.INCOHERENT) === 0) return;
    this.#pool.setFlags(desc, flags & ~DESC.INCOHERENT);
    this.#end(this.#pool.pfn(desc), 2 ** this.#pool.sizeLg2(desc));
  }

  /** A block that is marked is about to be freed: on a DMA-API machine its mapping is lost. Warned of once. */
  freeing(pfn: number): void {
    if (this.#x86 || this.#warnedFree) return;
    this.#warnedFree = true;
    const text = `table page ${hexPfn(pfn)} is freed while incoherent: stopIncoherentList() or freeIncoherent() unmaps it`;
    this.#warnings.warn('freed-incoherent', 'EBUSY', text, pfn);
  }

  #begin(pfn: number, bytes: number, marked: boolean): number {
    if (marked) {
      this.#warnings.warn('already-incoherent', 'EINVAL', `table page ${hexPfn(pfn)} is incoherent already`, pfn);
      return EINVAL;
    }
    if (!this.#x86) {
      const dma = this.#dma.map(pfn, bytes);
      if (dma === DMA_MAPPING_ERROR) return EINVAL;
      if (dma !== pfn) {
        this.#dma.unmap?.(dma, bytes);
        const text = `table page ${hexPfn(pfn)} has DMA page ${hexPfn(dma)}: tables need a DMA API that maps directly`;
        this.#warnings.warn('dma-not-direct', 'EOPNOTSUPP', text, pfn);
        return EOPNOTSUPP;
      }
      this.#mappings++;
    }
    const page = Math.floor(pfn);
    if (this.cache !== null) this.cache.clean(page, (pfn - page) * 4096, bytes);
    return 0;
  }

  #end(pfn: number, bytes: number): void {
    this.#mappings--;
    this.#dma.unmap?.(pfn, bytes);
  }
}
