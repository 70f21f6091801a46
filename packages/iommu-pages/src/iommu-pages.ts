import { IommuError, addressOfPfn, checkU64, hex, pfnOf } from '@iommu-ts/bits';
import { DESC, NO_DESC } from './descriptors/store.ts';
import { NO_PAGE } from './gfp.ts';
import type { CacheMaintenance } from './incoherent.ts';
import type { IommuPagesOptions } from './options.ts';
import type { PageSource } from './page-source.ts';
import type { IommuPagesList } from './pages-list.ts';
import type { PhysicalMemory } from './physical-memory.ts';
import { GONE } from './preserve.ts';
import type { Handover, PreservedBlock } from './preserve.ts';
import { RcuFree } from './rcu-free.ts';
import { Rcu } from './rcu.ts';
import { isPart } from './sub-page.ts';
import { TablePages } from './table-pages.ts';
import { hexPfn } from './warn.ts';

/**
 * The allocator of I/O page-table pages, with the semantics of Linux's `drivers/iommu/iommu-pages.c` after the series
 * "iommu: Further abstract iommu-pages": size in bytes, rounded up to a power of two and to a page, aligned to its size,
 * zeroed, one `ioptdesc` an allocation, counted per node and control group; free lists are threaded through the descriptors.
 *
 * A block is named by the page frame number of its first byte, in 4 KiB pages whatever the size of a CPU page is; its size
 * is known to the descriptor. With {@link IommuPagesOptions.subPage} a block may be part of a page: the number then has an
 * exact fraction of k/64 (`addressOfPfn`, `hiOfPfn` and `loOfPfn` take it, `blockPfnOf` makes it).
 */
export class IommuPages extends TablePages {
  /** Readers of the tables, and the grace periods of {@link putPagesListRcu}. */
  readonly rcu: Rcu;
  readonly #rcuFree: RcuFree;

  /** @throws IommuError what a handover, a CPU page size or a layout that does not fit throws. */
  constructor(memory: PhysicalMemory, source: PageSource, options: IommuPagesOptions = {}) {
    super(memory, source, options);
    this.rcu = options.rcu ?? new Rcu();
    this.#rcuFree = new RcuFree(this, this.rcu);
  }

  /**
   * As {@link putPagesList}, but after a grace period: no block is used again before every reader that has begun by now has
   * ended (`rcu.readLock()` … `rcu.readUnlock()`; a dump of a page table is one). Until then the blocks stay live and
   * counted, and can not be freed otherwise. Nothing is allocated, so it may be called in atomic context. The list must
   * be re-initialised before it is used again.
   * @returns what `rcu.poll()` takes to tell whether the grace period is over.
   * @throws IommuError `EINVAL` as {@link putPagesList}.
   */
  putPagesListRcu(list: IommuPagesList): number {
    this.checkList(list, 'putPagesListRcu');
    if (this.source === GONE) GONE.nodeOf(0);
    return this.#rcuFree.put(list);
  }

  /** Blocks that wait for a grace period, or for being freed after one. */
  get rcuPending(): number {
    return this.#rcuFree.length;
  }

  // ---- Incoherent walkers ------------------------------------------------------------------------------------------

  /**
   * The data cache between the CPU and a device whose walker does not snoop it; null (default) on a coherent machine.
   * {@link flushIncoherent} and its like end here.
   */
  get cacheMaintenance(): CacheMaintenance | null {
    return this.incoherent.cache;
  }
  set cacheMaintenance(cache: CacheMaintenance | null) {
    this.incoherent.cache = cache;
  }

  /**
   * Linux `iommu_pages_start_incoherent()`: from now on the block is written back by {@link flushIncoherent}; all of it is,
   * now.
   * @returns 0; -22 (`EINVAL`) when it is incoherent already (with a warning) or can not be mapped, -95 (`EOPNOTSUPP`)
   * when its DMA address is not its physical one (with a warning).
   */
  startIncoherent(pfn: number): number {
    return this.incoherent.start(this.descOf(pfn));
  }

  /**
   * Linux `iommu_pages_start_incoherent_list()`: {@link startIncoherent} for each block; one that is incoherent already is
   * warned of and passed over. When it fails the caller must call {@link stopIncoherentList}.
   */
  startIncoherentList(list: IommuPagesList): number {
    this.checkList(list, 'startIncoherentList');
    return this.incoherent.startAll(list.head);
  }

  /** Linux `iommu_pages_flush_incoherent()`: writes back bytes `offset … offset + length` of the block at `pfn`. */
  flushIncoherent(pfn: number, offset: number, length: number): void {
    const cache = this.incoherent.cache;
    if (cache === null) return;
    const page = Math.floor(pfn);
    cache.clean(page, offset + (pfn - page) * 4096, length);
  }

  /** Linux `iommu_pages_stop_incoherent_list()`: before the list is put. Nothing to do on x86. */
  stopIncoherentList(list: IommuPagesList): void {
    this.checkList(list, 'stopIncoherentList');
    this.incoherent.stopAll(list.head);
  }

  /** Linux `iommu_pages_free_incoherent()`: frees a block that may be incoherent; as {@link freePages} on x86. */
  freeIncoherent(pfn: number): void {
    if (pfn === NO_PAGE) return;
    const desc = this.descOf(pfn);
    // A block that can not be freed stays as it is.
    if ((this.pool.flags(desc) & DESC.ON_LIST) === 0) this.incoherent.stop(desc);
    this.freePages(pfn);
  }

  /** True between {@link startIncoherent} and the end of it. */
  isIncoherent(pfn: number): boolean {
    return (this.pool.flags(this.descOf(pfn)) & DESC.INCOHERENT) !== 0;
  }

  /** DMA mappings that {@link startIncoherent} made and nothing undid. */
  get dmaMappings(): number {
    return this.incoherent.mappings;
  }

  // ---- Preserved across a kexec ------------------------------------------------------------------------------------

  /**
   * Proposed Linux `iommu_preserve_page()`: the next kernel is to get this block as it is. It stays live here, and may be
   * written, until {@link kexec}.
   * @throws IommuError `EBUSY` when it is preserved already, `EINVAL` when it is no live block, `EOPNOTSUPP` when it is part
   * of a page: a kernel hands over whole pages.
   */
  preserve(pfn: number): void {
    const desc = this.#wholeDescOf(pfn);
    const flags = this.pool.flags(desc);
    if ((flags & DESC.PRESERVED) !== 0) {
      throw new IommuError('EBUSY', `table page ${hexPfn(pfn)} is preserved already`, { pfn });
    }
    this.pool.setFlags(desc, flags | DESC.PRESERVED);
    this.preserved.marked.add(pfn);
  }

  /** Proposed Linux `iommu_unpreserve_page()`. @throws IommuError `EINVAL` when the block is not preserved. */
  unpreserve(pfn: number): void {
    const desc = this.#wholeDescOf(pfn);
    const flags = this.pool.flags(desc);
    if ((flags & DESC.PRESERVED) === 0) {
      throw new IommuError('EINVAL', `table page ${hexPfn(pfn)} is not preserved`, { pfn });
    }
    this.pool.setFlags(desc, flags & ~DESC.PRESERVED);
    this.preserved.marked.delete(pfn);
  }

  /** Proposed Linux `iommu_preserve_pages()`: every block of `list`, or, when one can not be, none. */
  preserveList(list: IommuPagesList): void {
    this.checkList(list, 'preserveList');
    const pages = this.listPages(list);
    let done = 0;
    try {
      for (; done < pages.length; done++) this.preserve(pages[done]!);
    } catch (error) {
      for (const pfn of pages.slice(0, done)) this.unpreserve(pfn);
      throw error;
    }
  }

  /** Proposed Linux `iommu_unpreserve_pages()`: every block of `list` that is preserved. */
  unpreserveList(list: IommuPagesList): void {
    this.checkList(list, 'unpreserveList');
    for (const pfn of this.listPages(list)) if (this.isPreserved(pfn)) this.unpreserve(pfn);
  }

  /** True between {@link preserve} and {@link unpreserve}. */
  isPreserved(pfn: number): boolean {
    return (this.pool.flags(this.#wholeDescOf(pfn)) & DESC.PRESERVED) !== 0;
  }

  /**
   * The kernel ends: everything is forgotten but the contents of memory and the set of preserved blocks, which the
   * allocator of the next kernel takes as its option `handover`. Nothing can be allocated or freed here any more.
   */
  kexec(): Handover {
    if (this.source === GONE) throw new IommuError('EINVAL', 'kexec() was called before on this allocator');
    const blocks: PreservedBlock[] = [];
    for (const pfn of [...this.preserved.marked].toSorted((a, b) => a - b)) {
      const desc = this.descOf(pfn);
      blocks.push({ pfn, bytes: 2 ** this.pool.sizeLg2(desc), memcg: this.pool.memcg(desc) });
    }
    this.#rcuFree.forget();
    this.end();
    return { version: 1, blocks };
  }

  /** Blocks that the last kernel preserved and that nobody has asked for yet. */
  get unrestored(): readonly PreservedBlock[] {
    return this.preserved.waiting;
  }

  /**
   * Proposed Linux `iommu_restore_page()`: adopts a block that the last kernel preserved, with its contents. It is counted on
   * its node and for the group that it was charged to, coherent (`startIncoherent` is to be called again), and not preserved
   * for the next kexec.
   * @param pa physical address of the block, as it stands in a table or register.
   * @returns its page frame number.
   * @throws IommuError `EINVAL` when it was not preserved, was restored before, or is not the beginning of a block;
   * `ERANGE` when `pa` is not a 64-bit value; `ENOMEM` when there is no memory for its descriptor: it waits on, and may be restored later.
   */
  restore(pa: bigint): number {
    checkU64(pa, 'pa');
    if ((pa & 0xfffn) !== 0n) throw new IommuError('EINVAL', `address ${hex(pa)} is not that of a page`, { pa });
    if (this.source === GONE) GONE.nodeOf(0);
    const block = this.preserved.take(pfnOf(pa));
    const { pfn, bytes, memcg } = block;
    const node = this.source.nodeOf(pfn);
    if (this.pool.add(pfn, Math.log2(bytes), node, memcg) === NO_DESC) {
      this.preserved.putBack(block);
      throw new IommuError('ENOMEM', `no memory for the descriptor of page ${hex(pfn)}`, { pfn });
    }
    this.counters.charge(node, memcg, bytes / this.cpuPageSize);
    return pfn;
  }

  /** Gives what was not restored to the source; from then on it is as any free memory. @returns 4 KiB pages given. */
  finishRestore(): number {
    return this.preserved.finish(this.source);
  }

  #wholeDescOf(pfn: number): number {
    const desc = this.descOf(pfn);
    if (!isPart(desc)) return desc;
    const address = addressOfPfn(pfn);
    const text = `the table at ${hex(address)} is part of a page: only whole pages are preserved`;
    throw new IommuError('EOPNOTSUPP', text, { address });
  }
}
