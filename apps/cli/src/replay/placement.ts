/** Where a map event of another kernel goes in a driver's address space: as it is, moved, clipped, or nowhere. */
import { IovaAllocator, touchesReserved } from '@iommu-ts/iommu-core';
import type { DriverInfo, ReservedRegion } from '@iommu-ts/iommu-core';
import { X86_MSI, joinSpans } from './layout.ts';
import type { Span } from './layout.ts';

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
/** More stretches than this are joined more coarsely. */
const MAX_STRETCHES = 2048;

/** IOVAs that a trace uses, as sorted, disjoint stretches; coarse, so that they stay few. */
export const tracedIovas = (requests: readonly { readonly iova: bigint; readonly size: bigint }[]): Span[] => {
  for (let unit = 0x10_0000n; ; unit *= 64n) {
    const spans = joinSpans(
      requests.map(({ iova, size }) => ({
        start: iova - (iova % unit),
        end: ((iova + size + unit - 1n) / unit) * unit,
      })),
    );
    if (spans.length <= MAX_STRETCHES) return spans;
  }
};

const region = (start: bigint, last: bigint): ReservedRegion => ({ start, last, type: 'reserved', doc: 'the trace' });

/**
 * The IOVAs of one domain. What the trace itself uses and what is left for moved mappings are kept apart, so that a
 * mapping that had to move never takes the place that another one wants to keep.
 */
export class IovaSpace {
  readonly #traced: readonly Span[];
  readonly #kept: IovaAllocator;
  readonly #moved: IovaAllocator;

  constructor(info: DriverInfo, reserved: readonly ReservedRegion[], traced: readonly Span[]) {
    this.#traced = traced;
    const inside = traced.map(({ start, end }) => region(start, end - 1n));
    const outside: ReservedRegion[] = [];
    let from = 0n;
    for (const { start, end } of [...traced, { start: 1n << 64n, end: 1n << 64n }]) {
      if (start > from) outside.push(region(from, start - 1n));
      from = end;
    }
    const { granuleLg2, apertureFirst, apertureLast } = info;
    this.#kept = new IovaAllocator(granuleLg2, apertureFirst, apertureLast, [...reserved, ...outside]);
    this.#moved = new IovaAllocator(granuleLg2, apertureFirst, apertureLast, [...reserved, ...inside]);
  }

  #owner(iova: bigint): IovaAllocator {
    return this.#traced.some((s) => s.start <= iova && iova < s.end) ? this.#kept : this.#moved;
  }

  /** Takes exactly this range; false when part of it is in use. */
  reserve(iova: bigint, size: bigint): boolean {
    return this.#owner(iova).reserve(iova, size);
  }

  /** A free range, away from the trace's own addresses if it can be; null when there is none. */
  alloc(size: bigint): bigint | null {
    for (const [allocator, limit] of [
      [this.#moved, LIMIT_32],
      [this.#moved, undefined],
      [this.#kept, undefined],
    ] as const) {
      try {
        return allocator.alloc(size, limit);
      } catch {
        // ENOSPC: the next one
      }
    }
    return null;
  }

  /** Gives back the range that begins at `iova`. */
  free(iova: bigint): void {
    this.#owner(iova).free(iova);
  }
}

/** True for a unit that takes x86 interrupt messages out of the address space. */
export const hasX86Window = (reserved: readonly ReservedRegion[]): boolean =>
  reserved.some((r) => r.type === 'msi' && r.start === X86_MSI.start);

/**
 * Finds and reserves the place; a string is the reason why there is none.
 * @param keep take the event's own IOVA where the driver can (`--iova keep`)
 */
export const place = (
  request: MapRequest,
  info: DriverInfo,
  reserved: readonly ReservedRegion[],
  space: IovaSpace,
  keep: boolean,
): Placement | string => {
  const granule = 1n << BigInt(info.granuleLg2);
  const limit = 1n << BigInt(info.oas);
  const { iova, pa } = request;
  if (pa >= limit) return 'physical address beyond the width';
  // x86 units take these addresses for interrupt messages: no translation may lead there (VT-d 3.14).
  if (hasX86Window(reserved) && pa >= X86_MSI.start && pa + request.size <= X86_MSI.end) {
    return "physical address in the unit's interrupt window";
  }
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
  if (keep && aligned && fits && space.reserve(iova, kept)) {
    return { iova, pa, size: kept, start: iova, kept, moved: false, clipped, widened: false };
  }
  for (;;) {
    const whole = ((inPage + kept + granule - 1n) / granule) * granule;
    const at = space.alloc(whole);
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
