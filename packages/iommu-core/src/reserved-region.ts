/** Kind of a reserved IOVA region, after Linux's `enum iommu_resv_type`. */
export type ReservedRegionType = 'direct' | 'reserved' | 'msi' | 'sw-msi';

/** IOVAs that must not be handed out: the hardware treats them specially (MSI windows), or they are mapped 1:1. */
export interface ReservedRegion {
  readonly start: bigint;
  /** Last address, inclusive. */
  readonly last: bigint;
  readonly type: ReservedRegionType;
  readonly doc: string;
}

/** True when `[start, last]` touches one of `regions`. */
export const touchesReserved = (regions: readonly ReservedRegion[], start: bigint, last: bigint): boolean =>
  regions.some((r) => start <= r.last && r.start <= last);
