import { IommuError, hex } from '@iommu-ts/bits';
import { Accounting } from './accounting.ts';
import { createDescriptors } from './descriptors/create.ts';
import { DESC, NO_DESC } from './descriptors/store.ts';
import type { DescriptorStore, DescriptorUsage } from './descriptors/store.ts';
import { GFP, NO_PAGE, NUMA_NO_NODE } from './gfp.ts';
import { Incoherent } from './incoherent.ts';
import type { IommuPagesOptions } from './options.ts';
import type { PageSource } from './page-source.ts';
import type { IommuPagesList } from './pages-list.ts';
import type { PartBacking } from './part-map.ts';
import type { PhysicalMemory } from './physical-memory.ts';
import { GONE, MAX_MEMCG, Preserved } from './preserve.ts';
import { SubPageStore, isPart } from './sub-page.ts';
import type { Poison, SubPageUsage } from './sub-page.ts';
import { Warnings, hexPfn } from './warn.ts';
import type { PagesWarning } from './warn.ts';

/** Largest single allocation in bytes. */
const MAX_SIZE = 2 ** 30;

/**
 * Blocks and lists: allocating, freeing, counting. What Linux does with a block beyond that is in {@link IommuPages}, which
 * is the class to make.
 */
export class TablePages {
  readonly memory: PhysicalMemory;
  /** `nr_iommu_pages` and its like, per node and per control group. */
  readonly counters: Accounting;
  /** Size of a CPU page in bytes. */
  readonly cpuPageSize: number = 4096;
  /** Node that {@link NUMA_NO_NODE} stands for (Linux: `numa_mem_id()` of the running CPU). */
  localNode = 0;
  /** {@link GFP} flags of allocations that name none. */
  gfp: number = GFP.KERNEL_ACCOUNT;
  #source: PageSource;
  /**
   * Descriptors of all blocks, and (`#whole`) of those that are whole pages: one and the same without `subPage`.
   * @internal
   */
  protected readonly pool: DescriptorStore;
  readonly #whole: DescriptorStore;
  readonly #warnings: Warnings;
  /** @internal */
  protected readonly incoherent: Incoherent;
  /** @internal */
  protected readonly preserved: Preserved;
  readonly #pageLg2: number = 12;
  /** Parts of CPU pages, of at most so many bytes (0: none). */
  readonly #parts: SubPageStore | null;
  #partLimit: number = 0;
  #partGfp = 0;
  #memcg = 0;
  #atomicDepth = 0;
  /** Flags that an allocation is looked at twice for. */
  #suspect: number = GFP.HIGHMEM;
  #allocations = 0;
  #failures = 0;

  /** @throws IommuError what a handover, a CPU page size or a layout that does not fit throws. */
  constructor(memory: PhysicalMemory, source: PageSource, options: IommuPagesOptions = {}) {
    const { cpuPageSize = 4096, subPage = false, layout = 'host', descriptorRange } = options;
    if (cpuPageSize !== 4096 && cpuPageSize !== 16384 && cpuPageSize !== 65536) {
      throw new IommuError('EINVAL', `CPU page size ${hex(cpuPageSize)} is none of 0x1000, 0x4000, 0x10000`);
    }
    this.memory = memory;
    this.#source = source;
    this.localNode = options.localNode ?? 0;
    this.gfp = options.gfp ?? GFP.KERNEL_ACCOUNT;
    this.cpuPageSize = cpuPageSize;
    this.#pageLg2 = 31 - Math.clz32(cpuPageSize);
    this.counters = new Accounting(cpuPageSize);
    this.preserved = new Preserved(options.handover, source, cpuPageSize);
    const whole = createDescriptors(memory, source, {
      layout,
      framePages: cpuPageSize / 4096,
      ...(descriptorRange === undefined ? {} : { range: descriptorRange }),
    });
    const backing: PartBacking = {
      takePage: (node, memcg) => this.#takeBlock(node, this.#pageLg2, this.#partGfp, memcg),
      givePage: (pfn) => this.#giveBlock(whole.find(pfn)),
      nodeOf: (pfn) => this.#source.nodeOf(pfn),
    };
    this.#whole = whole;
    this.#parts = subPage ? new SubPageStore(whole, memory, backing, this.#pageLg2) : null;
    this.pool = this.#parts ?? whole;
    this.#partLimit = subPage ? cpuPageSize / 2 : 0;
    this.#warnings = new Warnings(options.warn, options.onWarn);
    this.incoherent = new Incoherent(this.pool, this.#warnings, options.coherency, options.dma);
  }

  /** What the descriptors take of emulated memory; not counted as table pages. */
  get descriptorUsage(): DescriptorUsage {
    return this.pool.usage();
  }

  /** Parts of pages now: CPU pages that are split, live parts in them, and their bytes. All 0 without `subPage`. */
  get subPages(): SubPageUsage {
    return this.#parts === null ? NO_PARTS : this.#parts.parts;
  }

  /** What freed parts of pages are filled with; null (default): they keep their bytes. Whole pages are their source's. */
  get partPoison(): Poison | null {
    return this.#parts === null ? null : this.#parts.poison;
  }
  set partPoison(poison: Poison | null) {
    if (this.#parts !== null) this.#parts.poison = poison;
  }

  /** Where pages come from. */
  get source(): PageSource {
    return this.#source;
  }

  /** Puts a layer between the allocator and its source: a quarantine, a source that fails on purpose, a log. */
  wrapSource(wrap: (source: PageSource) => PageSource): void {
    this.#source = wrap(this.#source);
  }

  /** The last warnings (Linux: `WARN_ON`), oldest first; {@link warningCount} has all. */
  get warnings(): readonly PagesWarning[] {
    return this.#warnings.list;
  }
  get warningCount(): number {
    return this.#warnings.total;
  }

  // ---- Allocate and free -------------------------------------------------------------------------------------------

  /**
   * Linux `iommu_alloc_pages_node_sz()`: a zeroed block of at least `size` bytes on (or near) node `nid`.
   * @param gfp {@link GFP} flags (default `gfp`). With `HIGHMEM` the request is refused with a warning.
   * @returns page frame number of the block, or {@link NO_PAGE} when memory is used up.
   * @throws IommuError `EINVAL` when `size` is not a whole number of bytes from 1 to 2^30.
   */
  allocPagesNodeSz(nid: number, size: number, gfp: number = this.gfp): number {
    if (!(size >= 1 && size <= MAX_SIZE) || (size | 0) !== size) {
      throw new IommuError('EINVAL', `table size ${size} bytes is not from 1 to 0x40000000`, { size: `${size}` });
    }
    if ((gfp & this.#suspect) !== 0 && !this.#permitted(size, gfp)) return this.#failed();
    const wanted = nid === NUMA_NO_NODE ? this.localNode : nid;
    const memcg = (gfp & GFP.ACCOUNT) === 0 ? 0 : this.#memcg;
    if (size <= this.#partLimit) return this.#allocPart(wanted, size, gfp, memcg);
    const sizeLg2 = size <= this.cpuPageSize ? this.#pageLg2 : 32 - Math.clz32(size - 1);
    const pfn = this.#takeBlock(wanted, sizeLg2, gfp, memcg);
    if (pfn < 0) return this.#failed();
    this.memory.zeroPages(pfn, 1 << sizeLg2);
    this.#allocations++;
    return pfn;
  }

  /** Linux `iommu_alloc_pages_sz()`: as {@link allocPagesNodeSz} on no particular node. */
  allocPagesSz(size: number, gfp: number = this.gfp): number {
    return this.allocPagesNodeSz(NUMA_NO_NODE, size, gfp);
  }

  /**
   * Linux `iommu_free_pages()`: gives one block back, all of it; {@link NO_PAGE} is a no-op.
   * @throws IommuError `EINVAL` when `pfn` is not the first page of a live block, `EBUSY` when it is on a list.
   */
  freePages(pfn: number): void {
    if (pfn === NO_PAGE) return;
    const desc = this.descOf(pfn);
    const flags = this.pool.flags(desc);
    if ((flags & DESC.ON_LIST) !== 0) throw onListError(pfn);
    this.#freeDesc(desc, flags);
  }

  /** Size in bytes of the live block that begins at page `pfn`, 0 when there is none. */
  sizeOf(pfn: number): number {
    const desc = this.pool.find(pfn);
    return desc === NO_DESC ? 0 : 2 ** this.pool.sizeLg2(desc);
  }

  // ---- Lists -------------------------------------------------------------------------------------------------------

  /**
   * Linux `iommu_put_pages_list()`: frees every block of `list`, first to last. As in Linux the list must be
   * re-initialised before it is used again ({@link IommuPagesList.init}).
   * @throws IommuError `EINVAL` when it was not: its blocks are not its own any more.
   */
  putPagesList(list: IommuPagesList): void {
    this.checkList(list, 'putPagesList');
    const { head: first, length } = list;
    for (let desc = first; desc !== NO_DESC;) {
      const next = this.pool.next(desc);
      this.#freeDesc(desc, this.pool.flags(desc) & ~DESC.ON_LIST);
      list.head = desc = next; // a warning that is thrown leaves the rest on the list
      list.length--;
    }
    list.head = first;
    list.length = length;
    list.done = 'putPagesList';
  }

  /**
   * Linux `iommu_pages_list_add()`: adds a live block at the tail; nothing is allocated.
   * @throws IommuError `EINVAL` when `pfn` is no live block or `list` was put or spliced away, `EBUSY` when it is on a list.
   */
  listAdd(list: IommuPagesList, pfn: number): void {
    this.checkList(list, 'listAdd');
    const desc = this.descOf(pfn);
    const flags = this.pool.flags(desc);
    if ((flags & DESC.ON_LIST) !== 0) throw alreadyOnListError(pfn);
    this.pool.setFlags(desc, flags | DESC.ON_LIST);
    this.pool.setNext(desc, NO_DESC);
    if (list.tail === NO_DESC) list.head = desc;
    else this.pool.setNext(list.tail, desc);
    list.tail = desc;
    list.length++;
  }

  /**
   * Linux `iommu_pages_list_splice()`: all of `from` before the first of `to`; `from` must be re-initialised after.
   * @throws IommuError `EINVAL` when either was put or spliced away, or when they are one list.
   */
  listSplice(from: IommuPagesList, to: IommuPagesList): void {
    this.checkList(from, 'listSplice');
    this.checkList(to, 'listSplice');
    if (from === to) throw new IommuError('EINVAL', `list ${from.name} can not be spliced into itself`);
    if (from.tail !== NO_DESC) {
      this.pool.setNext(from.tail, to.head);
      if (to.tail === NO_DESC) to.tail = from.tail;
      to.head = from.head;
    }
    to.length += from.length;
    from.done = 'listSplice';
    from.into = to;
  }

  /**
   * Takes every block off `list` again without freeing it, and re-initialises the list. (A list of tables in use is made
   * for `preserveList` and `startIncoherentList`; Linux just forgets it.)
   */
  listRelease(list: IommuPagesList): void {
    this.checkList(list, 'listRelease');
    for (let desc = list.head; desc !== NO_DESC;) {
      const next = this.pool.next(desc);
      this.pool.setFlags(desc, this.pool.flags(desc) & ~DESC.ON_LIST);
      desc = next;
    }
    list.init();
  }

  /**
   * Blocks of `list`, first to last, as page frame numbers. For tests and tools.
   * @throws IommuError `EINVAL` when `list` was put or spliced away.
   */
  listPages(list: IommuPagesList): number[] {
    this.checkList(list, 'listPages');
    const pages: number[] = [];
    for (let desc = list.head; desc !== NO_DESC; desc = this.pool.next(desc)) pages.push(this.pool.pfn(desc));
    return pages;
  }

  // ---- Context and counters ----------------------------------------------------------------------------------------

  /**
   * The memory control group of the running task, charged for allocations with `GFP.ACCOUNT` from now on (0: none). Blocks
   * stay charged to the group they were made for.
   * @returns the group before.
   */
  setMemcg(memcg: number): number {
    if (!Number.isInteger(memcg) || memcg < 0 || memcg > MAX_MEMCG) {
      throw new IommuError('EINVAL', `memory control group ${memcg} is not from 0 to 0xffff`);
    }
    const before = this.#memcg;
    this.#memcg = memcg;
    return before;
  }

  /** Begins a stretch that must not sleep (a spinlock, an interrupt): allocating with `GFP.KERNEL` is warned of. Nests. */
  enterAtomic(): void {
    this.#atomicDepth++;
    this.#suspect |= GFP.DIRECT_RECLAIM;
  }

  /** Ends it. @throws IommuError `EINVAL` when none had begun. */
  leaveAtomic(): void {
    if (this.#atomicDepth === 0) throw new IommuError('EINVAL', 'leaveAtomic() without enterAtomic()');
    if (--this.#atomicDepth === 0) this.#suspect &= ~GFP.DIRECT_RECLAIM;
  }

  /** `nr_iommu_pages` of one node (default: all), in CPU pages. */
  nrIommuPages(node?: number): number {
    return this.counters.pages(node);
  }

  /** `nr_sec_page_table_pages`, in CPU pages. */
  get nrSecPageTablePages(): number {
    return this.counters.pages();
  }

  /** Highest value of {@link nrSecPageTablePages} so far. */
  get peakPages(): number {
    return this.counters.peak;
  }

  /** Allocations made so far, and those that got no memory or were refused. */
  get allocations(): number {
    return this.#allocations;
  }
  get failures(): number {
    return this.#failures;
  }

  // ---- Inside ------------------------------------------------------------------------------------------------------

  /** A block of whole pages, counted and with a descriptor, not zeroed; or -1. */
  #takeBlock(wanted: number, sizeLg2: number, gfp: number, memcg: number): number {
    const bytes = 1 << sizeLg2;
    const pfn = this.#source.alloc(wanted, bytes);
    if (pfn < 0) return NO_PAGE;
    const node = this.#source.nodeOf(pfn);
    if ((node !== wanted && (gfp & GFP.THISNODE) !== 0) || this.#whole.add(pfn, sizeLg2, node, memcg) === NO_DESC) {
      this.#source.free(pfn, bytes);
      return NO_PAGE;
    }
    this.counters.charge(node, memcg, bytes / this.cpuPageSize);
    return pfn;
  }

  #allocPart(node: number, size: number, gfp: number, memcg: number): number {
    this.#partGfp = gfp;
    const pfn = this.#parts!.take(node, memcg, size);
    if (pfn < 0) return this.#failed();
    if ((gfp & GFP.THISNODE) !== 0 && this.#source.nodeOf(Math.floor(pfn)) !== node) {
      this.pool.remove(this.pool.find(pfn));
      return this.#failed();
    }
    this.#allocations++;
    return pfn;
  }

  /** @internal */
  protected descOf(pfn: number): number {
    const desc = this.pool.find(pfn);
    if (desc === NO_DESC) throw this.#noBlock(pfn);
    return desc;
  }

  #noBlock(pfn: number): IommuError {
    const head = this.pool.headOf(pfn);
    const inside = head < 0 ? '' : `: it lies inside the one at page ${hexPfn(head)}`;
    const text = `page ${hexPfn(pfn)} is not the first page of a live allocation${inside}`;
    return new IommuError('EINVAL', text, head < 0 ? { pfn: hexPfn(pfn) } : { pfn: hexPfn(pfn), head: hexPfn(head) });
  }

  #freeDesc(desc: number, flags: number): void {
    if (flags !== 0) this.#freeingMarked(this.pool.pfn(desc), flags);
    if (isPart(desc)) this.#givePart(desc);
    else this.#giveBlock(desc);
  }

  /** Gives a part of a page back. Its page may live on, so that the source does not hear of it. */
  #givePart(desc: number): void {
    if (this.#source === GONE) GONE.nodeOf(0);
    this.pool.remove(desc);
  }

  /**
   * The kernel ends: nothing can be allocated or freed any more, not even within pages that are split.
   * @internal
   */
  protected end(): void {
    this.#source = GONE;
    this.#partLimit = 0;
  }

  /** Gives a block of whole pages back and takes it off the counters. */
  #giveBlock(desc: number): void {
    const pool = this.#whole;
    const pfn = pool.pfn(desc);
    const bytes = 1 << pool.sizeLg2(desc);
    this.counters.charge(pool.node(desc), pool.memcg(desc), -bytes / this.cpuPageSize);
    this.pool.remove(desc);
    this.#source.free(pfn, bytes);
  }

  #freeingMarked(pfn: number, flags: number): void {
    if ((flags & DESC.INCOHERENT) !== 0) this.incoherent.freeing(pfn);
    if ((flags & DESC.PRESERVED) !== 0) {
      const text = `table page ${hexPfn(pfn)} is freed while preserved: unpreserve() it first`;
      this.#warnings.warn('freed-preserved', 'EBUSY', text, pfn);
      this.preserved.marked.delete(pfn);
    }
  }

  /** Looks at an allocation whose flags are wrong here: false when it is to be refused. */
  #permitted(size: number, gfp: number): boolean {
    if ((gfp & GFP.HIGHMEM) !== 0) {
      const text = `a table of ${hex(size)} bytes was asked for from highmem: the CPU has no address for it`;
      this.#warnings.warn('highmem', 'EINVAL', text, -1);
      return false;
    }
    const text = `a table of ${hex(size)} bytes was asked for with GFP.KERNEL in atomic context: use GFP.ATOMIC`;
    this.#warnings.warn('atomic', 'EINVAL', text, -1);
    return true;
  }

  #failed(): number {
    this.#failures++;
    return NO_PAGE;
  }

  /** @internal */
  protected checkList(list: IommuPagesList, call: string): void {
    if (list.done === null) return;
    const what = list.into === null ? 'put' : `spliced into list ${list.into.name}`;
    throw new IommuError(
      'EINVAL',
      `${call}: list ${list.name} was ${what} by ${list.done}() and not init()ed since; its blocks are not its own any more`,
      { list: list.name, done: list.done, call },
    );
  }
}

const NO_PARTS: SubPageUsage = { pages: 0, parts: 0, bytes: 0 };

const onListError = (pfn: number): IommuError =>
  new IommuError('EBUSY', `table page ${hexPfn(pfn)} is on a free list: put the list instead`, { pfn: hexPfn(pfn) });

const alreadyOnListError = (pfn: number): IommuError =>
  new IommuError('EBUSY', `table page ${hexPfn(pfn)} is on a list already`, { pfn: hexPfn(pfn) });
