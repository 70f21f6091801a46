import { IommuError, addressOfPfn, hex } from '@iommu-ts/bits';
import { Accounting } from './accounting.ts';
import { NO_PAGE, NUMA_NO_NODE } from './gfp.ts';
import type { BuddyRange } from './buddy.ts';
import { createDescriptors } from './descriptors/create.ts';
import { DESC, NO_DESC } from './descriptors/store.ts';
import type { DescriptorLayout, DescriptorStore, DescriptorUsage } from './descriptors/store.ts';
import type { PageSource } from './page-source.ts';
import { IommuPagesList } from './pages-list.ts';
import type { PhysicalMemory } from './physical-memory.ts';
import { SubPages, fillPart } from './sub-page.ts';

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
  /** Size of a CPU page in bytes (default 4096): what sizes round up to, and what the counters count. */
  readonly cpuPageSize?: 4096 | 16384 | 65536;
  /**
   * Sizes of half a CPU page and less, down to 64 bytes, share CPU pages. Default false, as Linux is today: they are rounded
   * up to one, so that a 4 KiB table under a kernel with 64 KiB pages takes 64 KiB.
   */
  readonly subPage?: boolean;
  /**
   * Where the descriptors are kept. `'host'` (default): in arrays of the host. `'overlay'`: in emulated memory as Linux does
   * today, 64 bytes for every page frame of the source's ranges. `'memdesc'`: in emulated memory as is planned, 8 bytes a
   * page frame and a separate descriptor an allocation.
   */
  readonly layout?: DescriptorLayout;
  /** Memory for the descriptors (default: the end of each range of the source, which then does not hand it out). */
  readonly descriptorRange?: BuddyRange;
}

/** A pattern of eight bytes, as int32 words. */
export interface Poison {
  readonly hi: number;
  readonly lo: number;
}

/**
 * The allocator of I/O page-table pages, with the semantics of Linux's `drivers/iommu/iommu-pages.c` after the series
 * "iommu: Further abstract iommu-pages": size in bytes, rounded up to a power of two and to a page, aligned to its size,
 * zeroed, one `ioptdesc` an allocation, counted per node; free lists are threaded through the descriptors.
 *
 * A block is named by the page frame number of its first byte, in 4 KiB pages whatever the size of a CPU page is; its size
 * is known to the descriptor. With {@link IommuPagesOptions.subPage} a block may be part of a page: the number then has an
 * exact fraction of k/64 (`addressOfPfn`, `hiOfPfn` and `loOfPfn` take it, `blockPfnOf` makes it).
 */
export class IommuPages {
  readonly memory: PhysicalMemory;
  #source: PageSource;
  readonly #pool: DescriptorStore;
  readonly #localNode: number;
  readonly #counters: Accounting;
  readonly #pageLg2: number;
  readonly #pageBytes: number;
  /** Parts of CPU pages, of at most so many bytes (0: none). */
  readonly #parts: SubPages | null;
  readonly #partLimit: number;
  #allocations = 0;

  constructor(memory: PhysicalMemory, source: PageSource, options: IommuPagesOptions = {}) {
    this.memory = memory;
    this.#source = source;
    this.#localNode = options.localNode ?? 0;
    const { cpuPageSize = 4096 } = options;
    if (cpuPageSize !== 4096 && cpuPageSize !== 16384 && cpuPageSize !== 65536) {
      throw new IommuError('EINVAL', `CPU page size ${hex(cpuPageSize)} is none of 0x1000, 0x4000, 0x10000`);
    }
    this.#pageBytes = cpuPageSize;
    this.#pageLg2 = 31 - Math.clz32(cpuPageSize);
    this.#counters = new Accounting(cpuPageSize);
    this.#partLimit = options.subPage === true ? cpuPageSize / 2 : 0;
    this.#parts =
      options.subPage === true
        ? new SubPages(
            {
              takePage: (node) => this.#takeBlock(node, this.#pageLg2),
              givePage: (pfn) => this.#freeDesc(this.#pool.find(pfn)),
              nodeOf: (pfn) => this.#source.nodeOf(pfn),
              group: 0,
            },
            this.#pageLg2,
          )
        : null;
    const { layout = 'host', descriptorRange } = options;
    this.#pool = createDescriptors(memory, source, {
      layout,
      framePages: cpuPageSize / 4096,
      ...(descriptorRange === undefined ? {} : { range: descriptorRange }),
    });
  }

  /** What the descriptors take of emulated memory; not counted as table pages. */
  get descriptorUsage(): DescriptorUsage {
    return this.#pool.usage();
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

  /** What freed parts of pages are filled with; null (default): they keep their bytes. Whole pages are their source's. */
  partPoison: Poison | null = null;

  /** Parts of pages now: CPU pages that are split, live parts in them, and their bytes. All 0 without `subPage`. */
  get subPages(): { readonly pages: number; readonly parts: number; readonly bytes: number } {
    const parts = this.#parts;
    return parts === null
      ? { pages: 0, parts: 0, bytes: 0 }
      : { pages: parts.pages, parts: parts.parts, bytes: parts.bytes };
  }

  /** Size of a CPU page in bytes. */
  get cpuPageSize(): number {
    return this.#pageBytes;
  }

  /** Linux `iommu_pages_flush_incoherent()`: writes back bytes `offset … offset + length` of the block at `pfn`. */
  flushIncoherent(pfn: number, offset: number, length: number): void {
    if (this.cacheMaintenance === null) return;
    const page = Math.floor(pfn);
    this.cacheMaintenance.clean(page, offset + (pfn - page) * 4096, length);
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
    const node = nid === NUMA_NO_NODE ? this.#localNode : nid;
    if (size <= this.#partLimit) return this.#allocPart(node, size);
    const sizeLg2 = size <= this.#pageBytes ? this.#pageLg2 : 32 - Math.clz32(size - 1);
    const pfn = this.#takeBlock(node, sizeLg2);
    if (pfn < 0) return NO_PAGE;
    this.memory.zeroPages(pfn, 2 ** sizeLg2);
    this.#allocations++;
    return pfn;
  }

  /** A block of whole pages, counted and with a descriptor, or -1. */
  #takeBlock(wanted: number, sizeLg2: number): number {
    const bytes = 2 ** sizeLg2;
    const pfn = this.#source.alloc(wanted, bytes);
    if (pfn < 0) return NO_PAGE;
    const node = this.#source.nodeOf(pfn);
    if (this.#pool.add(pfn, sizeLg2, node, 0) === NO_DESC) {
      this.#source.free(pfn, bytes);
      return NO_PAGE;
    }
    this.#counters.charge(node, 0, bytes / this.#pageBytes);
    return pfn;
  }

  #allocPart(node: number, size: number): number {
    const parts = this.#parts!;
    const part = parts.alloc(node, size);
    if (part === NO_DESC) return NO_PAGE;
    const pfn = parts.pfn(part);
    fillPart(this.memory, pfn, parts.size(part), 0, 0);
    this.#allocations++;
    return pfn;
  }

  #freePart(part: number): void {
    const parts = this.#parts!;
    if (this.partPoison !== null) {
      fillPart(this.memory, parts.pfn(part), parts.size(part), this.partPoison.hi, this.partPoison.lo);
    }
    parts.free(part);
  }

  /** The live part at `pfn` where that lies in a page that is split; {@link NO_DESC} elsewhere. */
  #partAt(pfn: number): number {
    const parts = this.#parts!;
    const part = parts.find(pfn);
    if (part !== NO_DESC || !parts.owns(pfn)) return part;
    const address = addressOfPfn(pfn);
    throw new IommuError('EINVAL', `${hex(address)} is not the first byte of a live allocation: ${parts.misuse(pfn)}`, {
      address,
    });
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
    if (this.#parts !== null) {
      const part = this.#partAt(pfn);
      if (part !== NO_DESC) {
        if (this.#parts.onList(part)) throw onListError(pfn);
        this.#freePart(part);
        return;
      }
    }
    const desc = this.#descOf(pfn);
    if ((this.#pool.flags(desc) & DESC.ON_LIST) !== 0) {
      throw onListError(pfn);
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
    for (let part = list.partHead; part !== NO_DESC;) {
      const next = this.#parts!.next(part);
      this.#freePart(part);
      part = next;
    }
    list.stale = true;
  }

  /**
   * Linux `iommu_pages_list_add()`: adds a live block at the tail; nothing is allocated.
   * @throws IommuError `EINVAL` when `pfn` is no live block or `list` was put or spliced away, `EBUSY` when it is on a list.
   */
  listAdd(list: IommuPagesList, pfn: number): void {
    this.#checkList(list);
    if (this.#parts !== null) {
      const part = this.#partAt(pfn);
      if (part !== NO_DESC) {
        if (this.#parts.onList(part))
          throw new IommuError('EBUSY', `table page ${hex(pfn)} is on a list already`, { pfn });
        this.#parts.listAdd(list, part);
        return;
      }
    }
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
    }
    if (from.partTail !== NO_DESC) this.#parts!.listSplice(from, to);
    to.length += from.length;
    from.stale = true;
  }

  /** Blocks of `list`, first to last, as page frame numbers. For tests and tools. */
  listPages(list: IommuPagesList): number[] {
    const pages: number[] = [];
    for (let desc = list.head; desc !== NO_DESC; desc = this.#pool.next(desc)) pages.push(this.#pool.pfn(desc));
    for (let part = list.partHead; part !== NO_DESC; part = this.#parts!.next(part)) pages.push(this.#parts!.pfn(part));
    return pages;
  }

  /** Size in bytes of the live block that begins at page `pfn`, 0 when there is none. */
  sizeOf(pfn: number): number {
    if (this.#parts !== null && this.#parts.owns(pfn)) {
      const part = this.#parts.find(pfn);
      return part === NO_DESC ? 0 : this.#parts.size(part);
    }
    const desc = this.#pool.find(pfn);
    return desc === NO_DESC ? 0 : 2 ** this.#pool.sizeLg2(desc);
  }

  /** `nr_iommu_pages` of one node (default: all), in CPU pages. */
  nrIommuPages(node?: number): number {
    return this.#counters.pages(node);
  }

  /** `nr_sec_page_table_pages`, in CPU pages. */
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
    if (desc === NO_DESC) throw this.#noBlock(pfn);
    return desc;
  }

  #noBlock(pfn: number): IommuError {
    const head = this.#pool.headOf(pfn);
    const inside = head < 0 ? '' : `: it lies inside the one at page ${hex(head)}`;
    const details = head < 0 ? { pfn } : { pfn, head };
    return new IommuError('EINVAL', `page ${hex(pfn)} is not the first page of a live allocation${inside}`, details);
  }

  #freeDesc(desc: number): void {
    const pfn = this.#pool.pfn(desc);
    const bytes = 2 ** this.#pool.sizeLg2(desc);
    this.#counters.charge(this.#pool.node(desc), 0, -bytes / this.#pageBytes);
    this.#pool.remove(desc);
    this.#source.free(pfn, bytes);
  }

  #checkList(list: IommuPagesList): void {
    if (list.stale)
      throw new IommuError('EINVAL', 'the list was put or spliced away: init() it before it is used again');
  }
}

const onListError = (pfn: number): IommuError =>
  new IommuError('EBUSY', `table page ${hex(pfn)} is on a free list: put the list instead`, { pfn });
