import { IommuError, hex } from '@iommu-ts/bits';
import { Accounting } from './accounting.ts';
import { NO_PAGE, NUMA_NO_NODE } from './gfp.ts';
import { DESC, IoptdescPool, NO_DESC } from './ioptdesc.ts';
import type { PageSource } from './page-source.ts';
import { IommuPagesList } from './pages-list.ts';
import type { PhysicalMemory } from './physical-memory.ts';

/** Largest single allocation in bytes. */
const MAX_SIZE = 2 ** 30;

/** What a CPU can do with its cached lines of a block; see {@link IommuPages.cacheMaintenance}. */
export interface CacheMaintenance {
  /** Writes bytes `offset … offset + length` of the block that begins at page `pfn` back to memory. */
  clean(pfn: number, offset: number, length: number): void;
}

/** Options of {@link IommuPages}. */
export interface IommuPagesOptions {
  /** Node used for {@link NUMA_NO_NODE} (default 0). */
  readonly localNode?: number;
}

/**
 * The allocator of I/O page-table pages, with the semantics of Linux's `drivers/iommu/iommu-pages.c` after the series
 * "iommu: Further abstract iommu-pages": size in bytes, rounded up to a power of two and to a page, aligned to its size,
 * zeroed, one `ioptdesc` an allocation, counted per node; free lists are threaded through the descriptors.
 *
 * A block is named by the page frame number of its first byte; its size is known to the descriptor.
 */
export class IommuPages {
  readonly memory: PhysicalMemory;
  #source: PageSource;
  readonly #pool = new IoptdescPool();
  readonly #localNode: number;
  readonly #counters = new Accounting();
  #allocations = 0;

  constructor(memory: PhysicalMemory, source: PageSource, options: IommuPagesOptions = {}) {
    this.memory = memory;
    this.#source = source;
    this.#localNode = options.localNode ?? 0;
  }

  /** Where pages come from. */
  get source(): PageSource {
    return this.#source;
  }

  /** Puts a layer between the allocator and its source: a quarantine, a source that fails on purpose, a log. */
  wrapSource(wrap: (source: PageSource) => PageSource): void {
    this.#source = wrap(this.#source);
  }

  /**
   * The data cache between the CPU and a device whose walker does not snoop it; null (default) on a coherent machine.
   * {@link flushIncoherent} and its like end here.
   */
  cacheMaintenance: CacheMaintenance | null = null;

  /** Linux `iommu_pages_flush_incoherent()`: writes back bytes `offset … offset + length` of the block at `pfn`. */
  flushIncoherent(pfn: number, offset: number, length: number): void {
    if (this.cacheMaintenance !== null) this.cacheMaintenance.clean(pfn, offset, length);
  }

  /**
   * Linux `iommu_alloc_pages_node_sz()`: a zeroed block of at least `size` bytes on (or near) node `nid`.
   * @returns page frame number of the block, or {@link NO_PAGE} when memory is used up.
   * @throws IommuError `EINVAL` when `size` is not a whole number of bytes from 1 to 2^30.
   */
  allocPagesNodeSz(nid: number, size: number): number {
    if (!(size >= 1 && size <= MAX_SIZE) || (size | 0) !== size) {
      throw new IommuError('EINVAL', `table size ${size} bytes is not from 1 to 0x40000000`, { size: `${size}` });
    }
    const sizeLg2 = size <= 4096 ? 12 : 32 - Math.clz32(size - 1);
    const bytes = 2 ** sizeLg2;
    const pfn = this.#source.alloc(nid === NUMA_NO_NODE ? this.#localNode : nid, bytes);
    if (pfn < 0) return NO_PAGE;
    this.memory.zeroPages(pfn, bytes);
    const node = this.#source.nodeOf(pfn);
    this.#pool.add(pfn, sizeLg2, node, 0);
    this.#counters.charge(node, 0, bytes / 4096);
    this.#allocations++;
    return pfn;
  }

  /** Linux `iommu_alloc_pages_sz()`: as {@link allocPagesNodeSz} on no particular node. */
  allocPagesSz(size: number): number {
    return this.allocPagesNodeSz(NUMA_NO_NODE, size);
  }

  /**
   * Linux `iommu_free_pages()`: gives one block back; {@link NO_PAGE} is a no-op.
   * @throws IommuError `EINVAL` when `pfn` is not the first page of a live block, `EBUSY` when it is on a list.
   */
  freePages(pfn: number): void {
    if (pfn === NO_PAGE) return;
    const desc = this.#descOf(pfn);
    if ((this.#pool.flags(desc) & DESC.ON_LIST) !== 0) {
      throw new IommuError('EBUSY', `table page ${hex(pfn)} is on a free list: put the list instead`, { pfn });
    }
    this.#freeDesc(desc);
  }

  /**
   * Linux `iommu_put_pages_list()`: frees every block of `list`, first to last. As in Linux the list must be
   * re-initialised before it is used again ({@link IommuPagesList.init}).
   * @throws IommuError `EINVAL` when it was not: its blocks are not its own any more.
   */
  putPagesList(list: IommuPagesList): void {
    this.#checkList(list);
    for (let desc = list.head; desc !== NO_DESC;) {
      const next = this.#pool.next(desc);
      this.#pool.setFlags(desc, this.#pool.flags(desc) & ~DESC.ON_LIST);
      this.#freeDesc(desc);
      desc = next;
    }
    list.stale = true;
  }

  /**
   * Linux `iommu_pages_list_add()`: adds a live block at the tail; nothing is allocated.
   * @throws IommuError `EINVAL` when `pfn` is no live block or `list` was put or spliced away, `EBUSY` when it is on a list.
   */
  listAdd(list: IommuPagesList, pfn: number): void {
    this.#checkList(list);
    const desc = this.#descOf(pfn);
    if ((this.#pool.flags(desc) & DESC.ON_LIST) !== 0)
      throw new IommuError('EBUSY', `table page ${hex(pfn)} is on a list already`, { pfn });
    this.#pool.setFlags(desc, this.#pool.flags(desc) | DESC.ON_LIST);
    this.#pool.setNext(desc, NO_DESC);
    if (list.tail === NO_DESC) list.head = desc;
    else this.#pool.setNext(list.tail, desc);
    list.tail = desc;
    list.length++;
  }

  /**
   * Linux `iommu_pages_list_splice()`: all of `from` before the first of `to`; `from` must be re-initialised after.
   * @throws IommuError `EINVAL` when either was put or spliced away, or when they are one list.
   */
  listSplice(from: IommuPagesList, to: IommuPagesList): void {
    this.#checkList(from);
    this.#checkList(to);
    if (from === to) throw new IommuError('EINVAL', 'a list can not be spliced into itself');
    if (from.tail !== NO_DESC) {
      this.#pool.setNext(from.tail, to.head);
      if (to.tail === NO_DESC) to.tail = from.tail;
      to.head = from.head;
      to.length += from.length;
    }
    from.stale = true;
  }

  /** Blocks of `list`, first to last, as page frame numbers. For tests and tools. */
  listPages(list: IommuPagesList): number[] {
    const pages: number[] = [];
    for (let desc = list.head; desc !== NO_DESC; desc = this.#pool.next(desc)) pages.push(this.#pool.pfn(desc));
    return pages;
  }

  /** Size in bytes of the live block that begins at page `pfn`, 0 when there is none. */
  sizeOf(pfn: number): number {
    const desc = this.#pool.find(pfn);
    return desc === NO_DESC ? 0 : 2 ** this.#pool.sizeLg2(desc);
  }

  /** `nr_iommu_pages` of one node (default: all), in 4 KiB pages. */
  nrIommuPages(node?: number): number {
    return this.#counters.pages(node);
  }

  /** `nr_sec_page_table_pages`, in 4 KiB pages. */
  get nrSecPageTablePages(): number {
    return this.#counters.pages();
  }

  /** Highest value of {@link nrSecPageTablePages} so far. */
  get peakPages(): number {
    return this.#counters.peak;
  }

  /** Allocations made so far. */
  get allocations(): number {
    return this.#allocations;
  }

  #descOf(pfn: number): number {
    const desc = this.#pool.find(pfn);
    if (desc === NO_DESC) {
      throw new IommuError('EINVAL', `page ${hex(pfn)} is not the first page of a live allocation`, { pfn });
    }
    return desc;
  }

  #freeDesc(desc: number): void {
    const pfn = this.#pool.pfn(desc);
    const bytes = 2 ** this.#pool.sizeLg2(desc);
    this.#counters.charge(this.#pool.node(desc), 0, -bytes / 4096);
    this.#pool.remove(desc);
    this.#source.free(pfn, bytes);
  }

  #checkList(list: IommuPagesList): void {
    if (list.stale)
      throw new IommuError('EINVAL', 'the list was put or spliced away: init() it before it is used again');
  }
}
