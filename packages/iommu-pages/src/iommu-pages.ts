import { IommuError, addressOfPfn, hex, pfnOf } from '@iommu-ts/bits';
import { Accounting } from './accounting.ts';
import { createDescriptors } from './descriptors/create.ts';
import { DESC, NO_DESC } from './descriptors/store.ts';
import type { DescriptorStore, DescriptorUsage } from './descriptors/store.ts';
import { GFP, NO_PAGE, NUMA_NO_NODE } from './gfp.ts';
import { Incoherent } from './incoherent.ts';
import type { CacheMaintenance } from './incoherent.ts';
import type { IommuPagesOptions } from './options.ts';
import type { PageSource } from './page-source.ts';
import type { IommuPagesList } from './pages-list.ts';
import type { PhysicalMemory } from './physical-memory.ts';
import { GONE, Preserved } from './preserve.ts';
import type { Handover, PreservedBlock } from './preserve.ts';
import { RcuFree } from './rcu-free.ts';
import { Rcu } from './rcu.ts';
import { SubPageStore, isPart } from './sub-page.ts';
import type { PartBacking } from './part-map.ts';
import type { Poison, SubPageUsage } from './sub-page.ts';
import { Warnings } from './warn.ts';
import type { PagesWarning } from './warn.ts';

/** Largest single allocation in bytes. */
const MAX_SIZE = 2 ** 30;

/**
 * The allocator of I/O page-table pages, with the semantics of Linux's `drivers/iommu/iommu-pages.c` after the series
 * "iommu: Further abstract iommu-pages": size in bytes, rounded up to a power of two and to a page, aligned to its size,
 * zeroed, one `ioptdesc` an allocation, counted per node and control group; free lists are threaded through the descriptors.
 *
 * A block is named by the page frame number of its first byte, in 4 KiB pages whatever the size of a CPU page is; its size
 * is known to the descriptor. With {@link IommuPagesOptions.subPage} a block may be part of a page: the number then has an
 * exact fraction of k/64 (`addressOfPfn`, `hiOfPfn` and `loOfPfn` take it, `blockPfnOf` makes it).
 */
export class IommuPages {
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
  /** Descriptors of all blocks, and of those that are whole pages: one and the same without `subPage`. */
  readonly #pool: DescriptorStore;
  readonly #whole: DescriptorStore;
  readonly #warnings: Warnings;
  readonly #incoherent: Incoherent;
  readonly #preserved: Preserved;
  readonly #pageLg2: number = 12;
  /** Parts of CPU pages, of at most so many bytes (0: none). */
  readonly #parts: SubPageStore | null;
  readonly #partLimit: number = 0;
  /** Readers of the tables, and the grace periods of {@link putPagesListRcu}. */
  readonly rcu: Rcu;
  readonly #rcuFree: RcuFree;
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
    this.#preserved = new Preserved(options.handover, source, cpuPageSize);
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
    this.#pool = this.#parts ?? whole;
    this.#partLimit = subPage ? cpuPageSize / 2 : 0;
    this.rcu = options.rcu ?? new Rcu();
    this.#rcuFree = new RcuFree(this, this.rcu);
    this.#warnings = new Warnings(options.warn, options.onWarn);
    this.#incoherent = new Incoherent(this.#pool, this.#warnings, options.coherency, options.dma);
  }

  /** What the descriptors take of emulated memory; not counted as table pages. */
  get descriptorUsage(): DescriptorUsage {
    return this.#pool.usage();
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
   * @param gfp {@link GFP} flags (default {@link gfp}). With `HIGHMEM` the request is refused with a warning.
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
    const desc = this.#descOf(pfn);
    const flags = this.#pool.flags(desc);
    if ((flags & DESC.ON_LIST) !== 0) throw onListError(pfn);
    this.#freeDesc(desc, flags);
  }

  /** Size in bytes of the live block that begins at page `pfn`, 0 when there is none. */
  sizeOf(pfn: number): number {
    const desc = this.#pool.find(pfn);
    return desc === NO_DESC ? 0 : 2 ** this.#pool.sizeLg2(desc);
  }

  // ---- Lists -------------------------------------------------------------------------------------------------------

  /**
   * Linux `iommu_put_pages_list()`: frees every block of `list`, first to last. As in Linux the list must be
   * re-initialised before it is used again ({@link IommuPagesList.init}).
   * @throws IommuError `EINVAL` when it was not: its blocks are not its own any more.
   */
  putPagesList(list: IommuPagesList): void {
    this.#checkList(list, 'putPagesList');
    const first = list.head;
    for (let desc = first; desc !== NO_DESC;) {
      const next = this.#pool.next(desc);
      this.#freeDesc(desc, this.#pool.flags(desc) & ~DESC.ON_LIST);
      list.head = desc = next; // a warning that is thrown leaves the rest on the list
    }
    list.head = first;
    list.done = 'putPagesList';
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
    this.#checkList(list, 'putPagesListRcu');
    return this.#rcuFree.put(list);
  }

  /** Blocks that wait for a grace period, or for being freed after one. */
  get rcuPending(): number {
    return this.#rcuFree.length;
  }

  /**
   * Linux `iommu_pages_list_add()`: adds a live block at the tail; nothing is allocated.
   * @throws IommuError `EINVAL` when `pfn` is no live block or `list` was put or spliced away, `EBUSY` when it is on a list.
   */
  listAdd(list: IommuPagesList, pfn: number): void {
    this.#checkList(list, 'listAdd');
    const desc = this.#descOf(pfn);
    const flags = this.#pool.flags(desc);
    if ((flags & DESC.ON_LIST) !== 0) throw alreadyOnListError(pfn);
    this.#pool.setFlags(desc, flags | DESC.ON_LIST);
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
    this.#checkList(from, 'listSplice');
    this.#checkList(to, 'listSplice');
    if (from === to) throw new IommuError('EINVAL', `list ${from.name} can not be spliced into itself`);
    if (from.tail !== NO_DESC) {
      this.#pool.setNext(from.tail, to.head);
      if (to.tail === NO_DESC) to.tail = from.tail;
      to.head = from.head;
    }
    to.length += from.length;
    from.done = 'listSplice';
    from.into = to;
  }

  /**
   * Takes every block off `list` again without freeing it, and re-initialises the list. (A list of tables in use is made
   * for {@link preserveList} and {@link startIncoherentList}; Linux just forgets it.)
   */
  listRelease(list: IommuPagesList): void {
    this.#checkList(list, 'listRelease');
    for (let desc = list.head; desc !== NO_DESC;) {
      const next = this.#pool.next(desc);
      this.#pool.setFlags(desc, this.#pool.flags(desc) & ~DESC.ON_LIST);
      desc = next;
    }
    list.init();
  }

  /** Blocks of `list`, first to last, as page frame numbers. For tests and tools. */
  listPages(list: IommuPagesList): number[] {
    const pages: number[] = [];
    for (let desc = list.head; desc !== NO_DESC; desc = this.#pool.next(desc)) pages.push(this.#pool.pfn(desc));
    return pages;
  }

  // ---- Incoherent walkers ------------------------------------------------------------------------------------------

  /**
   * The data cache between the CPU and a device whose walker does not snoop it; null (default) on a coherent machine.
   * {@link flushIncoherent} and its like end here.
   */
  get cacheMaintenance(): CacheMaintenance | null {
    return this.#incoherent.cache;
  }
  set cacheMaintenance(cache: CacheMaintenance | null) {
    this.#incoherent.cache = cache;
  }

  /**
   * Linux `iommu_pages_start_incoherent()`: from now on the block is written back by {@link flushIncoherent}; all of it is,
   * now.
   * @returns 0; -22 (`EINVAL`) when it is incoherent already (with a warning) or can not be mapped, -95 (`EOPNOTSUPP`)
   * when its DMA address is not its physical one (with a warning).
   */
  startIncoherent(pfn: number): number {
    return this.#incoherent.start(this.#descOf(pfn));
  }

  /**
   * Linux `iommu_pages_start_incoherent_list()`: {@link startIncoherent} for each block; one that is incoherent already is
   * warned of and passed over. When it fails the caller must call {@link stopIncoherentList}.
   */
  startIncoherentList(list: IommuPagesList): number {
    this.#checkList(list, 'startIncoherentList');
    return this.#incoherent.startAll(list.head);
  }

  /** Linux `iommu_pages_flush_incoherent()`: writes back bytes `offset … offset + length` of the block at `pfn`. */
  flushIncoherent(pfn: number, offset: number, length: number): void {
    const cache = this.#incoherent.cache;
    if (cache === null) return;
    const page = Math.floor(pfn);
    cache.clean(page, offset + (pfn - page) * 4096, length);
  }

  /** Linux `iommu_pages_stop_incoherent_list()`: before the list is put. Nothing to do on x86. */
  stopIncoherentList(list: IommuPagesList): void {
    this.#checkList(list, 'stopIncoherentList');
    this.#incoherent.stopAll(list.head);
  }

  /** Linux `iommu_pages_free_incoherent()`: frees a block that may be incoherent; as {@link freePages} on x86. */
  freeIncoherent(pfn: number): void {
    if (pfn === NO_PAGE) return;
    const desc = this.#descOf(pfn);
    // A block that can not be freed stays as it is.
    if ((this.#pool.flags(desc) & DESC.ON_LIST) === 0) this.#incoherent.stop(desc);
    this.freePages(pfn);
  }

  /** True between {@link startIncoherent} and the end of it. */
  isIncoherent(pfn: number): boolean {
    return (this.#pool.flags(this.#descOf(pfn)) & DESC.INCOHERENT) !== 0;
  }

  /** DMA mappings that {@link startIncoherent} made and nothing undid. */
  get dmaMappings(): number {
    return this.#incoherent.mappings;
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
    const flags = this.#pool.flags(desc);
    if ((flags & DESC.PRESERVED) !== 0) {
      throw new IommuError('EBUSY', `table page ${hexPfn(pfn)} is preserved already`, { pfn });
    }
    this.#pool.setFlags(desc, flags | DESC.PRESERVED);
    this.#preserved.marked.add(pfn);
  }

  /** Proposed Linux `iommu_unpreserve_page()`. @throws IommuError `EINVAL` when the block is not preserved. */
  unpreserve(pfn: number): void {
    const desc = this.#wholeDescOf(pfn);
    const flags = this.#pool.flags(desc);
    if ((flags & DESC.PRESERVED) === 0) {
      throw new IommuError('EINVAL', `table page ${hexPfn(pfn)} is not preserved`, { pfn });
    }
    this.#pool.setFlags(desc, flags & ~DESC.PRESERVED);
    this.#preserved.marked.delete(pfn);
  }

  /** Proposed Linux `iommu_preserve_pages()`: every block of `list`, or, when one can not be, none. */
  preserveList(list: IommuPagesList): void {
    this.#checkList(list, 'preserveList');
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
    this.#checkList(list, 'unpreserveList');
    for (const pfn of this.listPages(list)) if (this.isPreserved(pfn)) this.unpreserve(pfn);
  }

  /** True between {@link preserve} and {@link unpreserve}. */
  isPreserved(pfn: number): boolean {
    return (this.#pool.flags(this.#wholeDescOf(pfn)) & DESC.PRESERVED) !== 0;
  }

  /**
   * The kernel ends: everything is forgotten but the contents of memory and the set of preserved blocks, which the
   * allocator of the next kernel takes as its option `handover`. Nothing can be allocated or freed here any more.
   */
  kexec(): Handover {
    if (this.#source === GONE) throw new IommuError('EINVAL', 'kexec() was called before on this allocator');
    const blocks: PreservedBlock[] = [];
    for (const pfn of [...this.#preserved.marked].toSorted((a, b) => a - b)) {
      const desc = this.#descOf(pfn);
      blocks.push({ pfn, bytes: 2 ** this.#pool.sizeLg2(desc), memcg: this.#pool.memcg(desc) });
    }
    this.#source = GONE;
    return { version: 1, blocks };
  }

  /** Blocks that the last kernel preserved and that nobody has asked for yet. */
  get unrestored(): readonly PreservedBlock[] {
    return this.#preserved.waiting;
  }

  /**
   * Proposed Linux `iommu_restore_page()`: adopts a block that the last kernel preserved, with its contents. It is counted on
   * its node and for the group that it was charged to, coherent (`startIncoherent` is to be called again), and not preserved
   * for the next kexec.
   * @param pa physical address of the block, as it stands in a table or register.
   * @returns its page frame number.
   * @throws IommuError `EINVAL` when it was not preserved, was restored before, or is not the beginning of a block.
   */
  restore(pa: bigint): number {
    if ((pa & 0xfffn) !== 0n) throw new IommuError('EINVAL', `address ${hex(pa)} is not that of a page`, { pa });
    if (this.#source === GONE) GONE.nodeOf(0);
    const { pfn, bytes, memcg } = this.#preserved.take(pfnOf(pa));
    const node = this.#source.nodeOf(pfn);
    if (this.#pool.add(pfn, Math.log2(bytes), node, memcg) === NO_DESC) {
      throw new IommuError('ENOMEM', `no memory for the descriptor of page ${hex(pfn)}`, { pfn });
    }
    this.counters.charge(node, memcg, bytes / this.cpuPageSize);
    return pfn;
  }

  /** Gives what was not restored to the source; from then on it is as any free memory. @returns 4 KiB pages given. */
  finishRestore(): number {
    return this.#preserved.finish(this.#source);
  }

  // ---- Context and counters ----------------------------------------------------------------------------------------

  /**
   * The memory control group of the running task, charged for allocations with `GFP.ACCOUNT` from now on (0: none). Blocks
   * stay charged to the group they were made for.
   * @returns the group before.
   */
  setMemcg(memcg: number): number {
    if (!Number.isInteger(memcg) || memcg < 0 || memcg > 0xffff) {
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
      this.#pool.remove(this.#pool.find(pfn));
      return this.#failed();
    }
    this.#allocations++;
    return pfn;
  }

  #descOf(pfn: number): number {
    const desc = this.#pool.find(pfn);
    if (desc === NO_DESC) throw this.#noBlock(pfn);
    return desc;
  }

  #wholeDescOf(pfn: number): number {
    const desc = this.#descOf(pfn);
    if (!isPart(desc)) return desc;
    const address = addressOfPfn(pfn);
    const text = `the table at ${hex(address)} is part of a page: only whole pages are preserved`;
    throw new IommuError('EOPNOTSUPP', text, { address });
  }

  #noBlock(pfn: number): IommuError {
    const head = this.#pool.headOf(pfn);
    const inside = head < 0 ? '' : `: it lies inside the one at page ${hexPfn(head)}`;
    const text = `page ${hexPfn(pfn)} is not the first page of a live allocation${inside}`;
    return new IommuError('EINVAL', text, head < 0 ? { pfn: hexPfn(pfn) } : { pfn: hexPfn(pfn), head: hexPfn(head) });
  }

  #freeDesc(desc: number, flags: number): void {
    if (flags !== 0) this.#freeingMarked(this.#pool.pfn(desc), flags);
    if (isPart(desc)) this.#pool.remove(desc);
    else this.#giveBlock(desc);
  }

  /** Gives a block of whole pages back and takes it off the counters. */
  #giveBlock(desc: number): void {
    const pool = this.#whole;
    const pfn = pool.pfn(desc);
    const bytes = 1 << pool.sizeLg2(desc);
    this.counters.charge(pool.node(desc), pool.memcg(desc), -bytes / this.cpuPageSize);
    this.#pool.remove(desc);
    this.#source.free(pfn, bytes);
  }

  #freeingMarked(pfn: number, flags: number): void {
    if ((flags & DESC.INCOHERENT) !== 0) this.#incoherent.freeing(pfn);
    if ((flags & DESC.PRESERVED) !== 0) {
      const text = `table page ${hexPfn(pfn)} is freed while preserved: unpreserve() it first`;
      this.#warnings.warn('freed-preserved', 'EBUSY', text, pfn);
      this.#preserved.marked.delete(pfn);
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

  #checkList(list: IommuPagesList, call: string): void {
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

/** A page frame number in hex; a part of a page has its bytes from the page's first behind it. */
const hexPfn = (pfn: number): string => {
  const page = Math.floor(pfn);
  return page === pfn ? hex(pfn) : `${hex(page)}+${hex(Math.round((pfn - page) * 4096))}`;
};
