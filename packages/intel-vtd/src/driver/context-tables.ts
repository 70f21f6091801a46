/**
 * The driver's root table and context tables (legacy mode).
 * VT-d specification revision 4.1, sections 9.1 "Root entry", 9.3 "Context entry", 3.9 and ECAP.C "Page-walk coherency".
 *
 * Where the unit does not snoop the CPU's caches on its way through these structures (ECAP.C = 0), what is written to them is
 * written back before the unit is told, or may look. The invalidation queue and its status words it always snoops.
 */
import { IommuError, addressOfPfn, codeOfErrno, hex, hiOfPfn, loOfPfn, maskLo } from '@iommu-ts/bits';
import { NO_PAGE } from '@iommu-ts/iommu-pages';
import type { IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { CONTEXT_ENTRY, CONTEXT_ENTRY_BYTES, ROOT_ENTRY, ROOT_ENTRY_BYTES } from '../structures.ts';

const TABLE_BYTES = 4096;

export class ContextTables {
  private readonly memory: PhysicalMemory;
  private readonly pages: IommuPages;
  private readonly coherent: boolean;
  private readonly visible: () => void;
  private rootPfn: number;
  private readonly tables = new Map<number, number>();

  /**
   * @param coherent the unit snoops (ECAP.C)
   * @param visible called when an entry has been written that nothing is invalidated for: write buffers (CAP.RWBF)
   * @throws IommuError `ENOMEM` when there is no page for the root table.
   */
  constructor(memory: PhysicalMemory, pages: IommuPages, coherent: boolean, visible: () => void) {
    this.memory = memory;
    this.pages = pages;
    this.coherent = coherent;
    this.visible = visible;
    this.rootPfn = this.allocate('the root table');
  }

  /** Address of the root table, for RTADDR. */
  get root(): bigint {
    return addressOfPfn(this.rootPfn);
  }

  /** Makes the context table of the bus of `requester`, if there is none. @throws IommuError `ENOMEM`. */
  prepare(requester: number): void {
    const bus = requester >>> 8;
    if (this.tables.has(bus)) return;
    const table = this.allocate(`the context table of bus ${hex(bus)}`);
    this.tables.set(bus, table);
    const root = loOfPfn(this.rootPfn) | (bus * ROOT_ENTRY_BYTES);
    this.memory.store64(hiOfPfn(this.rootPfn), root, hiOfPfn(table), loOfPfn(table) | maskLo(ROOT_ENTRY.P));
    this.written(this.rootPfn, bus * ROOT_ENTRY_BYTES, ROOT_ENTRY_BYTES);
    this.visible();
  }

  /** Writes the context entry of a device that {@link prepare} was called for, the quadword with P last. */
  install(requester: number, tt: number, rootPfn: number, did: number, aw: number): void {
    const [table, offset] = this.entry(requester);
    const [hi, lo] = [hiOfPfn(table), loOfPfn(table) | offset];
    this.memory.store64(hi, lo | 8, 0, (did << (CONTEXT_ENTRY.DID.lsb - 64)) | aw);
    const low = loOfPfn(rootPfn) | (tt << CONTEXT_ENTRY.TT.lsb) | maskLo(CONTEXT_ENTRY.P);
    this.memory.store64(hi, lo, hiOfPfn(rootPfn), low);
    this.written(table, offset, CONTEXT_ENTRY_BYTES);
  }

  /** Clears the context entry of a device, the quadword with P first. */
  clear(requester: number): void {
    const [table, offset] = this.entry(requester);
    const [hi, lo] = [hiOfPfn(table), loOfPfn(table) | offset];
    this.memory.store64(hi, lo, 0, 0);
    this.memory.store64(hi, lo | 8, 0, 0);
    this.written(table, offset, CONTEXT_ENTRY_BYTES);
  }

  /** Gives every table back; the unit must not translate any more. */
  free(): void {
    for (const pfn of this.tables.values()) this.release(pfn);
    this.tables.clear();
    this.release(this.rootPfn);
    this.rootPfn = NO_PAGE;
  }

  /** Page of the device's context table, and the entry's offset in it. */
  private entry(requester: number): readonly [number, number] {
    return [this.tables.get(requester >>> 8)!, (requester & 0xff) * CONTEXT_ENTRY_BYTES];
  }

  /** A table of zeros that the unit sees too. */
  private allocate(what: string): number {
    const pfn = this.pages.allocPagesSz(TABLE_BYTES);
    if (pfn === NO_PAGE) throw new IommuError('ENOMEM', `no page for ${what}`);
    const errno = this.coherent ? 0 : this.pages.startIncoherent(pfn);
    if (errno === 0) return pfn;
    this.pages.freePages(pfn);
    throw new IommuError(codeOfErrno(errno), `the unit can not be shown ${what}`, { pfn, errno: `${errno}` });
  }

  private release(pfn: number): void {
    if (this.coherent) this.pages.freePages(pfn);
    else this.pages.freeIncoherent(pfn);
  }

  private written(pfn: number, offset: number, bytes: number): void {
    if (!this.coherent) this.pages.flushIncoherent(pfn, offset, bytes);
  }
}
