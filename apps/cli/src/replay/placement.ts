/** Where a map event of another kernel goes in a driver's address space: as it is, moved, clipped, or nowhere. */
import { touchesReserved } from '@iommu-ts/iommu-core';
import type { DriverInfo, IovaAllocator, ReservedRegion } from '@iommu-ts/iommu-core';

export interface Placement {
  /** First IOVA, first physical address and bytes to map: whole granules. */
  readonly iova: bigint;
  readonly pa: bigint;
  readonly size: bigint;
  /** The IOVA of the event's first byte. */
  readonly start: bigint;
  /** Bytes of the event that are mapped. */
  readonly kept: bigint;
  readonly moved: boolean;
  readonly clipped: boolean;
  /** More was mapped than asked for: whole granules. */
  readonly widened: boolean;
}

export interface MapRequest {
  readonly iova: bigint;
  readonly pa: bigint;
  readonly size: bigint;
}

/** IOVAs that devices of 32 address bits reach: tried first, as Linux does for PCI devices. */
const LIMIT_32 = 0xffff_ffffn;

const alloc = (allocator: IovaAllocator, size: bigint): bigint | null => {
  for (const limit of [LIMIT_32, undefined]) {
    try {
      return allocator.alloc(size, limit);
    } catch {
      // ENOSPC: the next limit, then none
    }
  }
  return null;
};

/**
 * Finds and reserves the place; a string is the reason why there is none.
 * @param keep take the event's own IOVA where the driver can (`--iova keep`)
 */
export const place = (
  request: MapRequest,
  info: DriverInfo,
  reserved: readonly ReservedRegion[],
  allocator: IovaAllocator,
  keep: boolean,
): Placement | string => {
  const granule = 1n << BigInt(info.granuleLg2);
  const limit = 1n << BigInt(info.oas);
  const { iova, pa } = request;
  if (pa >= limit) return 'physical address beyond the width';
  let kept = request.size;
  let clipped = false;
  if (pa + kept > limit) {
    kept = limit - pa;
    clipped = true;
  }
  const inPage = pa % granule;
  const aligned = inPage === 0n && iova % granule === 0n && kept % granule === 0n;
  const last = iova + kept - 1n;
  const fits = iova >= info.apertureFirst && last <= info.apertureLast && !touchesReserved(reserved, iova, last);
  if (keep && aligned && fits && allocator.reserve(iova, kept)) {
    return { iova, pa, size: kept, start: iova, kept, moved: false, clipped, widened: false };
  }
  for (;;) {
    const whole = ((inPage + kept + granule - 1n) / granule) * granule;
    const at = alloc(allocator, whole);
    if (at !== null) {
      const moved = at + inPage !== iova;
      const widened = whole !== kept;
      return { iova: at, pa: pa - inPage, size: whole, start: at + inPage, kept, moved, clipped, widened };
    }
    // Too large for what is left of the aperture: the first half, in whole granules of memory.
    const half = (kept / 2n / granule) * granule - inPage;
    if (half <= 0n) return 'no IOVA space';
    kept = half;
    clipped = true;
  }
};
