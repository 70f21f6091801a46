import { IommuError, checkU64, codeOfErrno, hex, hi32, join64, lo32, pfnOf } from '@iommu-ts/bits';
import type { IommuPages, IommuPagesList } from '@iommu-ts/iommu-pages';
import { GatherRecord, PageTable } from '@iommu-ts/page-table';
import type { PageTableConfig } from '@iommu-ts/page-table';
import type { VirtualClock } from './clock.ts';
import { FlushQueue } from './flush-queue.ts';
import type { FlushQueueOptions } from './flush-queue.ts';

/** How invalidations follow an unmap: `strict` at once, `lazy` through the flush queue. */
export type DomainMode = 'strict' | 'lazy';

/**
 * When table pages go back once the hardware can no longer reach them: `now`, or after an RCU grace period, so that whoever
 * reads the tables meanwhile (a dump) never sees a page that is used for something else (`IommuPages.putPagesListRcu`).
 */
export type FreeMode = 'now' | 'rcu';

/** What a domain does for the devices attached to it, after Linux's `IOMMU_DOMAIN_*`. */
export type DomainType = 'paging' | 'identity' | 'blocked';

/** The vendor's part of a paging domain: invalidations through the real queue. Both return when the hardware has completed. */
export interface PagingDomainOps {
  /** Linux `iotlb_sync`: invalidates what `gather` says was touched. The caller frees the free list afterwards. */
  iotlbSync(domain: PagingDomain, gather: GatherRecord): void;
  /** Linux `flush_iotlb_all`: invalidates the whole domain. */
  flushIotlbAll(domain: PagingDomain): void;
  /**
   * Linux `iotlb_sync_map`: after every map, for hardware that may have cached that nothing was there (DART, VT-d caching
   * mode). The pages mapped, in 4 KiB pages, both inclusive.
   */
  iotlbSyncMap?(domain: PagingDomain, startPfn: number, lastPfn: number): void;
  /** The top of the table changed (AMD): rewrite what points to it. */
  topChanged?(domain: PagingDomain): void;
  /** The domain goes away: give its ids back. No device is attached any more. */
  release(domain: PagingDomain): void;
}

/** A domain without page tables. */
export interface PlainDomain {
  readonly type: 'identity' | 'blocked';
}

/** What a device can be attached to. */
export type Domain = PagingDomain | PlainDomain;

/** What a driver gives a {@link PagingDomain}. */
export interface PagingDomainOptions {
  readonly pages: IommuPages;
  readonly clock: VirtualClock;
  readonly table: PageTableConfig;
  readonly ops: PagingDomainOps;
  readonly mode?: DomainMode;
  readonly flushQueue?: FlushQueueOptions;
  /** Default `'now'`. */
  readonly freeMode?: FreeMode;
  /** The vendor's number for the domain: domain id, ASID or VMID. */
  readonly id: number;
  /** Last IOVA that may be mapped, where the table could hold more than the driver offers (DART). */
  readonly apertureLast?: bigint;
}

/**
 * A paging domain: one page table, the invalidations that keep the hardware's caches true, and the pages that may be freed
 * only after them. Common to all five drivers; what differs is {@link PagingDomainOps}.
 *
 * `map` never invalidates, except for tables that it replaced. `unmap` clears entries, hands emptied tables to the gather's
 * free list, has the hardware invalidate, and only then frees them; in lazy mode the flush queue does both later.
 */
export class PagingDomain {
  readonly type = 'paging';
  readonly id: number;
  readonly table: PageTable;
  readonly mode: DomainMode;
  readonly freeMode: FreeMode;
  readonly pages: IommuPages;
  readonly ops: PagingDomainOps;
  readonly flushQueue: FlushQueue | null;
  readonly #gather = new GatherRecord();
  readonly #mapGather = new GatherRecord();
  readonly #syncsMap: boolean;
  /** Last page of the aperture; only looked at where one was given. */
  #limited: boolean;
  #lastPfn: number;
  #topChanges: number;
  #attached = 0;
  #freed = false;
  /** Bytes mapped by the last {@link mapWords}, also when it failed. */
  mapped = 0;

  /** @throws IommuError `ENOMEM` when there is no page for the top table. */
  constructor(options: PagingDomainOptions) {
    this.id = options.id;
    this.mode = options.mode ?? 'strict';
    this.freeMode = options.freeMode ?? 'now';
    this.pages = options.pages;
    this.ops = options.ops;
    this.#syncsMap = options.ops.iotlbSyncMap !== undefined;
    this.#limited = options.apertureLast !== undefined;
    this.#lastPfn = pfnOf(options.apertureLast ?? 0n);
    const sync = (gather: GatherRecord): void => this.sync(gather);
    this.table = new PageTable(options.pages, { ...options.table, sync });
    this.#topChanges = this.table.topChanges;
    this.flushQueue =
      this.mode === 'lazy'
        ? new FlushQueue(
            options.clock,
            options.pages,
            () => this.ops.flushIotlbAll(this),
            options.flushQueue,
            (list) => this.#put(list),
          )
        : null;
  }

  /** Devices attached; the driver counts through {@link attached} and {@link detached}. */
  get attachCount(): number {
    return this.#attached;
  }
  /** For drivers: one device more. */
  attached(): void {
    this.#attached++;
  }
  /** For drivers: one device less. */
  detached(): void {
    this.#attached--;
  }

  /**
   * Maps `size` bytes at `iova` to `pa` with IOMMU_* `prot` bits.
   * @throws IommuError with the engine's errno as code: `EADDRINUSE`/`EEXIST` over a mapping, `ERANGE` beyond the address
   *   width, `ENXIO`/`EINVAL` misaligned or without READ and WRITE, `ENOMEM`, `ENODEV` when the domain was freed.
   *   `details.mapped` says how many bytes stayed mapped.
   */
  map(iova: bigint, pa: bigint, size: bigint, prot: number): void {
    checkU64(iova, 'iova');
    checkU64(pa, 'pa');
    checkU64(size, 'size');
    this.#checkAlive();
    // The engine looks at the first address only, as Linux does; the rest would wrap around.
    const limit = 1n << BigInt(this.table.oas);
    const wraps = pa < limit && pa + size > limit;
    if (wraps) this.mapped = 0;
    const errno = wraps ? -34 : this.mapWords(hi32(iova), lo32(iova), hi32(pa), lo32(pa), exact(size), prot);
    if (errno !== 0) {
      throw new IommuError(
        codeOfErrno(errno),
        `map iova ${hex(iova)} pa ${hex(pa)} size ${hex(size)}: ${reason(errno)}`,
        {
          iova,
          pa,
          size,
          mapped: this.mapped,
          errno: `${errno}`,
        },
      );
    }
  }

  /** {@link map} on words: returns 0 or -errno, throws nothing, allocates nothing; see {@link mapped}. */
  mapWords(iovaHi: number, iovaLo: number, paHi: number, paLo: number, size: number, prot: number): number {
    const gather = this.#mapGather;
    if (this.#limited && (iovaHi >>> 0) * 0x10_0000 + (iovaLo >>> 12) + size / 4096 > this.#lastPfn + 1) {
      this.mapped = 0;
      return -34;
    }
    const errno = this.table.map(iovaHi, iovaLo, paHi, paLo, size, prot, gather);
    this.mapped = this.table.mapped;
    if (this.table.topChanges !== this.#topChanges) {
      this.#topChanges = this.table.topChanges;
      if (this.ops.topChanged !== undefined) this.ops.topChanged(this);
    }
    if (!gather.freelist.empty) this.sync(gather);
    else gather.reset();
    if (this.#syncsMap && this.mapped > 0) {
      const startPfn = (iovaHi >>> 0) * 0x10_0000 + (iovaLo >>> 12);
      this.ops.iotlbSyncMap!(this, startPfn, startPfn + this.mapped / 4096 - 1);
    }
    return errno;
  }

  /**
   * Unmaps `size` bytes at `iova`; returns the bytes unmapped, which may be less, or (generic_pt formats) more than asked.
   * @param released lazy mode: runs after the flush, when the IOVA may be used again; strict mode: runs at once.
   * @throws IommuError `ENODEV` when the domain was freed.
   */
  unmap(iova: bigint, size: bigint, released: (() => void) | null = null): bigint {
    checkU64(iova, 'iova');
    checkU64(size, 'size');
    this.#checkAlive();
    return BigInt(this.unmapWords(hi32(iova), lo32(iova), exact(size), released));
  }

  /** {@link unmap} on words. */
  unmapWords(iovaHi: number, iovaLo: number, size: number, released: (() => void) | null = null): number {
    const gather = this.#gather;
    const done = this.table.unmap(iovaHi, iovaLo, size, gather);
    if (this.flushQueue !== null && done > 0) {
      this.flushQueue.add(gather.freelist, released);
      gather.reset();
      return done;
    }
    if (done > 0 || !gather.freelist.empty) this.sync(gather);
    else gather.reset();
    if (released !== null) released();
    return done;
  }

  /** Unmaps without invalidating: the caller collects several unmaps in `gather` and calls {@link iotlbSync} once. */
  unmapGather(iova: bigint, size: bigint, gather: GatherRecord): bigint {
    checkU64(iova, 'iova');
    checkU64(size, 'size');
    this.#checkAlive();
    return BigInt(this.table.unmap(hi32(iova), lo32(iova), exact(size), gather));
  }

  /** Linux `iommu_iotlb_sync()`: invalidates what `gather` collected, frees its tables, and empties it. */
  iotlbSync(gather: GatherRecord): void {
    this.sync(gather);
  }

  /** Physical address that `iova` is mapped to, by the tables in memory; null when it is not mapped. */
  iovaToPhys(iova: bigint): bigint | null {
    checkU64(iova, 'iova');
    this.#checkAlive();
    return this.table.iovaToPhys(hi32(iova), lo32(iova)) ? join64(this.table.outHi, this.table.outLo) : null;
  }

  /** Lazy mode: flushes now what waits. */
  flush(): void {
    this.flushQueue?.flush();
  }

  /** Gives tables and ids back. @throws IommuError `EBUSY` while a device is attached. Mappings need not be unmapped first. */
  free(): void {
    if (this.#freed) return;
    if (this.#attached > 0) {
      throw new IommuError('EBUSY', `domain ${this.id} has ${this.#attached} device(s) attached`, { id: this.id });
    }
    this.flush();
    this.ops.flushIotlbAll(this);
    this.#freed = true;
    // No IOVA is in its aperture any more, which is how mapWords refuses without asking one question more.
    this.#limited = true;
    this.#lastPfn = -1;
    if (this.freeMode === 'now') this.table.destroy();
    else {
      const { freelist } = this.#gather;
      this.table.destroy(freelist);
      this.#put(freelist);
      freelist.init();
    }
    this.ops.release(this);
  }

  /** The pages that its tables stood in are somebody else's after {@link free}. */
  #checkAlive(): void {
    if (this.#freed) throw new IommuError('ENODEV', `domain ${this.id} has been freed`, { id: this.id });
  }

  private sync(gather: GatherRecord): void {
    this.ops.iotlbSync(this, gather);
    if (!gather.freelist.empty) {
      this.#put(gather.freelist);
      gather.freelist.init();
    }
    gather.reset();
  }

  /** Frees what the hardware has forgotten. */
  #put(list: IommuPagesList): void {
    if (this.freeMode === 'now') this.pages.putPagesList(list);
    else this.pages.putPagesListRcu(list);
  }
}

/**
 * `size` as the `number` that the engine takes. One that has no exact `number` is no multiple of a page either: its low bits
 * alone are refused in the same way, while the rounded value could pass for 2^64.
 */
const exact = (size: bigint): number => (BigInt(Number(size)) === size ? Number(size) : Number(size & 0xfffn));

const reason = (errno: number): string => {
  switch (errno) {
    case -6:
      return 'not aligned to any page size of the domain';
    case -12:
      return 'out of memory for a table (or beyond what the root can address)';
    case -17:
    case -98:
      return 'something is mapped there already';
    case -22:
      return 'invalid size or permission (READ or WRITE is needed)';
    case -34:
      return 'outside the address width';
    default:
      return `errno ${errno}`;
  }
};
