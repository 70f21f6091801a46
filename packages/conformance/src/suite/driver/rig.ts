/** One IOMMU under test, with the short words that the cases are written in. */
import { hex } from '@iommu-ts/bits';
import { touchesReserved } from '@iommu-ts/iommu-core';
import type {
  CheckKind,
  DmaResult,
  DriverHarness,
  DriverInfo,
  FaultEvent,
  IommuDriver,
  IommuHardware,
  IommuSystem,
  PagingDomain,
  SystemOptions,
} from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { PROT } from '@iommu-ts/page-table';
import { expect } from 'vitest';
import { Random } from '../../random.ts';

export const RW: number = PROT.READ | PROT.WRITE | PROT.CACHE;
export const RO: number = PROT.READ | PROT.CACHE;
export const WO: number = PROT.WRITE | PROT.CACHE;

/** First address of the RAM that cases use for data; tables lie in the last GiB of the 64 GiB. */
const DATA = 0x1_0000_0000n;
const RAM_END = 63n << 30n;

/** Requester ids that the cases use: low enough for every unit. */
export const DEVICE = 1;
export const OTHER = 2;
export const STRANGER = 3;

export class Rig {
  readonly harness: DriverHarness;
  readonly system: IommuSystem;
  readonly driver: IommuDriver;
  readonly hardware: IommuHardware;
  readonly memory: PhysicalMemory;
  readonly granule: bigint;
  readonly random = new Random(0x10_4417);

  constructor(harness: DriverHarness, options: SystemOptions = {}) {
    this.harness = harness;
    this.system = harness.createSystem(options);
    this.driver = this.system.driver;
    this.hardware = this.system.hardware;
    this.memory = this.system.memory;
    this.granule = 1n << BigInt(this.info.granuleLg2);
  }

  /** As of now: the counters in it move. */
  get info(): DriverInfo {
    return this.driver.info;
  }

  /** Bytes of live tables and queues; tables that share a page count with their own bytes. */
  get tableBytes(): number {
    const { pages } = this.system;
    const { pages: split, bytes } = pages.subPages;
    return (pages.nrIommuPages() - split) * pages.cpuPageSize + bytes;
  }

  /** A new paging domain with `requesters` attached to it. */
  attached(...requesters: number[]): PagingDomain {
    const domain = this.driver.createDomain();
    for (const requester of requesters) this.driver.attach(requester, domain);
    return domain;
  }

  /** Page sizes, smallest first. */
  get pageSizes(): bigint[] {
    const sizes: bigint[] = [];
    for (let lg2 = 0n; lg2 < 64n; lg2++) if ((this.info.pageSizes >> lg2) & 1n) sizes.push(1n << lg2);
    return sizes;
  }

  /** The second page size, or null when there is one only. */
  get bigPage(): bigint | null {
    return this.pageSizes[1] ?? null;
  }

  /** A window of `size` bytes in the aperture, aligned to `align`, clear of reserved regions; null when none fits. */
  window(size: bigint, align: bigint = size): bigint | null {
    const { apertureFirst, apertureLast } = this.info;
    const reserved = this.driver.reservedRegions();
    const from = apertureFirst > 0x4000_0000n ? apertureFirst : 0x4000_0000n;
    let iova = ((from + align - 1n) / align) * align;
    if (iova + size - 1n > apertureLast) iova = ((apertureFirst + align - 1n) / align) * align;
    for (; iova + size - 1n <= apertureLast; iova += align) {
      if (!touchesReserved(reserved, iova, iova + size - 1n)) return iova;
    }
    return null;
  }

  /** The address of granule `n` in the usual window of IOVAs. */
  iova(n = 0): bigint {
    const base = this.window(0x1000_0000n, 0x1000_0000n);
    if (base === null) throw new Error(`${this.harness.name}: the aperture has no 256 MiB clear of reserved regions`);
    return base + BigInt(n) * this.granule;
  }

  /** The address of granule `n` in the usual window of RAM. */
  pa(n = 0): bigint {
    return DATA + BigInt(n) * this.granule;
  }

  /** RAM for a page of `size` bytes, aligned to it; null when there is none (then only the tables can be asked). */
  ramFor(size: bigint): bigint | null {
    const pa = ((DATA + size - 1n) / size) * size;
    if (pa + size <= RAM_END) return pa;
    return size <= RAM_END ? 0n : null;
  }

  /** A DMA read of `length` bytes at `iova` must give the bytes at `pa`. */
  reads(requester: number, iova: bigint, pa: bigint, length = 16): void {
    const bytes = this.random.bytes(length);
    this.memory.writeBytes(pa, bytes);
    const result = this.system.bus.device(requester).read(iova, length);
    expect(result, `read of ${length} bytes at ${hex(iova)}`).toMatchObject({ ok: true, bytes: length, code: 0 });
    expect(result.data, `bytes read at ${hex(iova)}, from ${hex(pa)}`).toEqual(bytes);
  }

  /** A DMA write of `length` bytes at `iova` must change the bytes at `pa`. */
  writes(requester: number, iova: bigint, pa: bigint, length = 16): void {
    const bytes = this.random.bytes(length);
    const result = this.system.bus.device(requester).write(iova, bytes);
    expect(result, `write of ${length} bytes at ${hex(iova)}`).toMatchObject({ ok: true, bytes: length, code: 0 });
    expect(this.memory.readBytes(pa, length), `bytes written at ${hex(iova)}, to ${hex(pa)}`).toEqual(bytes);
  }

  /** Both directions. */
  reaches(requester: number, iova: bigint, pa: bigint, length = 16): void {
    this.reads(requester, iova, pa, length);
    this.writes(requester, iova, pa, length);
  }

  /** A DMA that must be refused, whatever the code; nothing may be transferred. */
  refused(requester: number, iova: bigint, access: 'read' | 'write' = 'read', length = 4): DmaResult {
    const device = this.system.bus.device(requester);
    const result =
      access === 'read' ? device.read(iova, length) : device.write(iova, new Uint8Array(length).fill(0xee));
    expect(result, `${access} at ${hex(iova)} by ${hex(requester)}`).toMatchObject({ ok: false, bytes: 0 });
    return result;
  }

  /**
   * A DMA that must be refused with one of `codes`, leave a record, and be decoded by the driver.
   * @param exact the record must hold the address (else 0, "none given", will do)
   */
  faults(
    requester: number,
    iova: bigint,
    access: 'read' | 'write',
    codes: readonly number[],
    exact: boolean,
  ): FaultEvent {
    this.driver.handleFaults();
    const result = this.refused(requester, iova, access);
    expect(codes, `code of the ${access} at ${hex(iova)}`).toContain(result.code);
    const events = this.driver.handleFaults();
    expect(events.length, 'records found by the fault handler').toBeGreaterThan(0);
    const event = events.at(-1)!;
    expect(codes, `code of the record "${event.text}"`).toContain(event.code);
    if (event.requester !== -1) expect(event.requester, 'requester of the record').toBe(requester);
    if (event.access !== 'unknown') expect(event.access, 'access of the record').toBe(access);
    if (exact || event.iova !== 0n) expect(hex(event.iova >> 12n), 'page of the record').toBe(hex(iova >> 12n));
    expect(event.name, 'name of the record').not.toBe('');
    expect(event.text, 'sentence of the record').not.toBe('');
    expect(this.driver.handleFaults(), 'records found a second time').toEqual([]);
    return event;
  }

  /** After a change of the table entry at `pa` behind the driver's back: a walker that does not snoop must see it too. */
  writeBack(pa: bigint): void {
    this.system.pages.flushIncoherent(Number(pa >> 12n), Number(pa & 0xfffn), 8);
  }

  /** The leaf entry of `iova` in the tables of `domain`. */
  leafEntry(domain: PagingDomain, iova: bigint): { readonly pa: bigint; readonly level: number } {
    const step = domain.table.walk(iova).steps.at(-1);
    if (step === undefined || step.kind !== 'leaf') throw new Error(`${hex(iova)} has no leaf`);
    return { pa: step.entryPa, level: step.level };
  }
}

/** Bytes compared one by one; `toEqual` would take a second for a megabyte. */
export const sameBytes = (got: Uint8Array | null | undefined, want: Uint8Array, label: string): void => {
  expect(got?.length, `${label}: length`).toBe(want.length);
  for (let i = 0; i < want.length; i++) if (got![i] !== want[i]) expect(got![i], `${label}: byte ${i}`).toBe(want[i]);
};

/** A case of the suite. `needs` tells why a unit can't have it, or null. */
export interface DriverCase {
  readonly name: string;
  readonly needs?: (rig: Rig) => string | null;
  readonly run: (harness: DriverHarness) => void;
  /** Kinds of reports that the checks have to make, where the case does on purpose what they look for. */
  readonly reports?: (harness: DriverHarness) => readonly CheckKind[];
  /** Why the case keeps its own IOTLB mode when it runs under checks; the others run on the adversarial device. */
  readonly ownIotlb?: string;
}
