import { IommuPagesList } from '@iommu-ts/iommu-pages';

const NOTHING = 2 ** 52;

/**
 * What an unmap (or a map that replaced tables) touched: the engine fills it, the driver invalidates by it and then
 * gives {@link freelist} back. Plain numbers; Linux `struct iommu_iotlb_gather`.
 */
export class GatherRecord {
  /** First IOVA touched, in 4 KiB pages; the whole 64-bit address counts, so sign-extended IOVAs lie near 2^52. */
  startPfn = NOTHING;
  /** Last IOVA touched, in 4 KiB pages, inclusive; `startPfn > lastPfn` means nothing. */
  lastPfn = -1;
  /** Size of the smallest leaf removed, as a power of two; 0: none. */
  pgsizeLg2 = 0;
  /** Bit n: a leaf of level n was removed. */
  leafLevels = 0;
  /** Bit n: a table entry at level n was removed (the table below it is on the free list). */
  tableLevels = 0;
  /** Tables to free once the hardware can no longer reach them. */
  readonly freelist = new IommuPagesList('gather.freelist');

  /** True when nothing was touched. */
  get empty(): boolean {
    return this.startPfn > this.lastPfn;
  }

  /** Forgets all; the free list must have been put (or be empty). */
  reset(): void {
    this.startPfn = NOTHING;
    this.lastPfn = -1;
    this.pgsizeLg2 = 0;
    this.leafLevels = 0;
    this.tableLevels = 0;
    this.freelist.init();
  }

  /** Widens the range by the pages `startPfn … lastPfn`. */
  add(startPfn: number, lastPfn: number): void {
    if (startPfn < this.startPfn) this.startPfn = startPfn;
    if (lastPfn > this.lastPfn) this.lastPfn = lastPfn;
  }

  /** Notes a leaf of 2^`sizeLg2` bytes at `level`. */
  leaf(level: number, sizeLg2: number): void {
    this.leafLevels |= 1 << level;
    if (this.pgsizeLg2 === 0 || sizeLg2 < this.pgsizeLg2) this.pgsizeLg2 = sizeLg2;
  }

  /** True when pages `startPfn … lastPfn` neither overlap nor touch what is gathered (Linux `iommu_iotlb_gather_is_disjoint`). */
  disjoint(startPfn: number, lastPfn: number): boolean {
    return !this.empty && (startPfn > this.lastPfn + 1 || lastPfn + 1 < this.startPfn);
  }
}
