/**
 * The operating system's side: probes a remapping unit, sets up root and context tables and the invalidation queue, attaches
 * devices, handles faults. Legacy mode, second-stage translation.
 * VT-d specification revision 4.1, sections 3.4 "DMA remapping", 6.5 "Invalidation", 7.3 "Software steps", 9 structures.
 *
 * It knows the unit only by its registers and by memory.
 */
import { IommuError, hex, hi32, join64, lo32, maskLo } from '@iommu-ts/bits';
import { IdAllocator, PagingDomain } from '@iommu-ts/iommu-core';
import type {
  CreateDomainOptions,
  Domain,
  DomainMode,
  DriverInfo,
  FaultEvent,
  IommuDriver,
  MmioPort,
  PlainDomain,
  ReservedRegion,
  VirtualClock,
} from '@iommu-ts/iommu-core';
import type { IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { PageTableConfig } from '@iommu-ts/page-table';
import { decodeFaultRecord } from '../faults.ts';
import { secondStageConfig } from '../second-stage.ts';
import { EVENT_CTL, FSTS, GCMD, OFFSET, parseCapabilities } from '../registers.ts';
import type { Capabilities } from '../registers.ts';
import { TT } from '../structures.ts';
import { ContextTables } from './context-tables.ts';
import { CachingModeDomainOps, DomainOps } from './domain.ts';
import { Invalidations } from './invalidation.ts';

/** Options of {@link VtdDriver}. */
export interface VtdDriverOptions {
  readonly mmio: MmioPort;
  readonly memory: PhysicalMemory;
  readonly pages: IommuPages;
  readonly clock: VirtualClock;
  /** Mode of domains that do not say (default strict). */
  readonly mode?: DomainMode;
  /** Host address width in bits, from the platform's tables (DMAR); default: the guest address width of CAP. */
  readonly hostAddressWidth?: number;
}

const REQUESTERS = 0x1_0000;
/** Domain-id of pass-through entries. 0 is kept free: caching mode reserves it (6.1). */
const IDENTITY_DID = 1;
const FIRST_DID = 2;
const POLLS = 1000;
const TE = maskLo(GCMD.TE);
const SRTP = maskLo(GCMD.SRTP);
const WBF = maskLo(GCMD.WBF);
const QIE = maskLo(GCMD.QIE);
/** GSTS bits that a GCMD write must repeat to keep them; the others are one-shots. */
const KEEP = TE | QIE | maskLo(GCMD.EAFL) | maskLo(GCMD.IRE) | maskLo(GCMD.CFI);
const F = 0x8000_0000 | 0;
const CLEAR_STATUS = maskLo(FSTS.PFO) | maskLo(FSTS.IQE) | maskLo(FSTS.ICE) | maskLo(FSTS.ITE);

/** 0xFEEx_xxxx holds interrupt requests and is never translated (3.14). */
const RESERVED_REGIONS: readonly ReservedRegion[] = [
  { start: 0xfee0_0000n, last: 0xfeef_ffffn, type: 'msi', doc: 'interrupt address range' },
];

/** A driver for one remapping unit. */
export class VtdDriver implements IommuDriver {
  readonly info: DriverInfo;
  readonly identityDomain: PlainDomain = { type: 'identity' };
  readonly blockedDomain: PlainDomain = { type: 'blocked' };
  /** What the unit said of itself. */
  readonly capabilities: Capabilities;

  private readonly mmio: MmioPort;
  private readonly pages: IommuPages;
  private readonly clock: VirtualClock;
  private readonly mode: DomainMode;
  private readonly table: PageTableConfig;
  /** Context-entry code of the widest page table the unit has. */
  private readonly aw: number;
  private readonly ids: IdAllocator;
  private readonly invalidations: Invalidations;
  private readonly ops: DomainOps;
  private readonly live = new Set<PagingDomain>();
  private readonly attachments = new Map<number, Domain>();
  private readonly contexts: ContextTables;
  private released = false;

  /**
   * Probes the unit and enables it with every device blocked.
   * @throws IommuError `ENODEV` for a unit without usable page tables, `ENOMEM`, `ETIMEDOUT` when a command has no effect.
   */
  constructor(options: VtdDriverOptions) {
    this.mmio = options.mmio;
    this.pages = options.pages;
    this.clock = options.clock;
    this.mode = options.mode ?? 'strict';
    const caps = parseCapabilities(this.read64(OFFSET.CAP), this.read64(OFFSET.ECAP));
    this.capabilities = caps;
    this.aw = [3, 2, 1].find((aw) => ((caps.sagaw >>> aw) & 1) !== 0) ?? 0;
    if (this.aw === 0) {
      throw new IommuError('ENODEV', `no page-table width that is known in CAP ${hex(caps.cap)}`, { cap: caps.cap });
    }
    const { pages } = this;
    this.table = {
      ...secondStageConfig(caps, this.aw, options.hostAddressWidth),
      ...(caps.coherent ? {} : { flush: (pfn, offset, bytes) => pages.flushIncoherent(pfn, offset, bytes) }),
    };
    this.ids = new IdAllocator('domain id', FIRST_DID, 2 ** caps.didBits - 1);
    this.invalidations = new Invalidations(this.mmio, options.memory, pages, caps);
    const Ops = caps.cachingMode ? CachingModeDomainOps : DomainOps;
    this.ops = new Ops(this.invalidations, (domain) => {
      this.live.delete(domain);
      this.ids.free(domain.id);
    });
    this.info = this.describe();
    this.contexts = new ContextTables(options.memory, pages, caps.coherent, () => this.flushWriteBuffer());
    try {
      this.enable();
    } catch (error) {
      this.shutDown();
      throw error;
    }
  }

  private describe(): DriverInfo {
    const { invalidations, table } = this;
    const width = table.ias;
    return {
      name: 'intel-vtd',
      format: `vtdss-${12 + 9 * (this.aw + 2)}`,
      granuleLg2: 12,
      pageSizes: table.pageSizes ?? 0x1000n,
      apertureFirst: 0n,
      apertureLast: (1n << BigInt(width)) - 1n,
      oas: table.oas,
      requesters: REQUESTERS,
      writeOnly: true,
      rules: 'generic_pt',
      get invalidationCommands() {
        return invalidations.count;
      },
    };
  }

  /** Order of a real driver: faults cleared, queue on, root table set, caches invalidated, fault event unmasked, TE. */
  private enable(): void {
    if ((this.mmio.read32(OFFSET.GSTS) & TE) !== 0) this.command(TE, false);
    this.clearFaults();
    if ((this.mmio.read32(OFFSET.GSTS) & QIE) !== 0) this.command(QIE, false);
    if (this.invalidations.setUpQueue()) this.command(QIE, true);
    const { root } = this.contexts;
    this.mmio.write64(OFFSET.RTADDR, hi32(root), lo32(root));
    this.command(SRTP, true);
    this.invalidations.contextGlobal();
    this.invalidations.iotlbGlobal();
    this.mmio.write32(OFFSET.FEDATA, 0x21);
    this.mmio.write32(OFFSET.FEADDR, 0xfee0_0000);
    this.mmio.write32(OFFSET.FEUADDR, 0);
    this.mmio.write32(OFFSET.FECTL, 0);
    this.command(TE, true);
  }

  createDomain(options: CreateDomainOptions = {}): PagingDomain {
    this.checkAlive();
    const id = this.ids.alloc();
    try {
      const domain = new PagingDomain({
        pages: this.pages,
        clock: this.clock,
        table: this.table,
        ops: this.ops,
        mode: options.mode ?? this.mode,
        ...(options.flushQueue === undefined ? {} : { flushQueue: options.flushQueue }),
        ...(options.freeMode === undefined ? {} : { freeMode: options.freeMode }),
        id,
      });
      this.live.add(domain);
      return domain;
    } catch (error) {
      this.ids.free(id);
      throw error;
    }
  }

  attach(requester: number, domain: Domain): void {
    this.checkAlive();
    this.checkRequester(requester);
    if (
      domain.type === 'paging'
        ? !this.live.has(domain)
        : domain !== this.identityDomain && domain !== this.blockedDomain
    ) {
      throw new IommuError('EINVAL', 'the domain is not one of this driver, or it was freed');
    }
    if (domain.type === 'identity' && !this.capabilities.passThrough) {
      throw new IommuError('EOPNOTSUPP', 'the unit has no pass-through (ECAP.PT)', { ecap: this.capabilities.ecap });
    }
    if (this.attachments.get(requester) === domain) return;
    if (domain.type !== 'blocked') this.contexts.prepare(requester);
    this.takeOut(requester);
    this.attachments.set(requester, domain);
    if (domain.type === 'paging') {
      domain.attached();
      this.install(requester, TT.UNTRANSLATED, domain.table.rootPfn, domain.id);
    } else if (domain.type === 'identity') {
      this.install(requester, TT.PASS_THROUGH, 0, IDENTITY_DID);
    }
  }

  detach(requester: number): void {
    this.takeOut(requester);
    this.attachments.delete(requester);
  }

  domainOf(requester: number): Domain | null {
    return this.attachments.get(requester) ?? null;
  }

  reservedRegions(): readonly ReservedRegion[] {
    return RESERVED_REGIONS;
  }

  handleFaults(): FaultEvent[] {
    this.checkAlive();
    const events: FaultEvent[] = [];
    const { frcdOffset, frcdCount } = this.capabilities;
    let status = this.mmio.read32(OFFSET.FSTS);
    let index = (status >>> FSTS.FRI.lsb) & 0xff;
    // Each record is read once; the bound holds for a unit that keeps on faulting while it is read.
    for (let i = 0; i < frcdCount && (status & maskLo(FSTS.PPF)) !== 0; i++) {
      const at = frcdOffset + 16 * (index % frcdCount);
      const high = this.read64(at + 8);
      if (high >> 63n === 0n) break;
      events.push(decodeFaultRecord(this.read64(at), high));
      this.mmio.write32(at + 12, F);
      index++;
      status = this.mmio.read32(OFFSET.FSTS);
    }
    this.mmio.write32(OFFSET.FSTS, maskLo(FSTS.PFO));
    return events;
  }

  release(): void {
    if (this.released) return;
    if (this.live.size > 0) {
      throw new IommuError('EBUSY', `${this.live.size} paging domain(s) are still alive`, { domains: this.live.size });
    }
    for (const requester of this.attachments.keys()) this.takeOut(requester);
    this.attachments.clear();
    this.shutDown();
    this.released = true;
  }

  /** Translation and queue off, everything given back. */
  private shutDown(): void {
    this.command(TE, false);
    this.mmio.write32(OFFSET.FECTL, maskLo(EVENT_CTL.IM));
    this.clearFaults();
    this.command(QIE, false);
    this.invalidations.tearDown();
    this.contexts.free();
  }

  private clearFaults(): void {
    const { frcdOffset, frcdCount } = this.capabilities;
    for (let i = 0; i < frcdCount; i++) this.mmio.write32(frcdOffset + 16 * i + 12, F);
    this.mmio.write32(OFFSET.FSTS, CLEAR_STATUS);
  }

  private checkAlive(): void {
    if (this.released) throw new IommuError('ENODEV', 'the driver has released its unit');
  }

  private checkRequester(requester: number): void {
    if (!(Number.isInteger(requester) && requester >= 0 && requester < REQUESTERS)) {
      throw new IommuError('ERANGE', `source-id ${requester} is not from 0 to 0xffff`, { requester: `${requester}` });
    }
  }

  /** Writes a context entry. In caching mode the not-present entry may be cached: it goes (6.1). */
  private install(requester: number, tt: number, rootPfn: number, did: number): void {
    this.contexts.install(requester, tt, rootPfn, did, this.aw);
    if (this.capabilities.cachingMode) {
      this.invalidations.contextDevice(0, requester);
      this.invalidations.iotlbDomain(did);
    } else this.flushWriteBuffer();
  }

  /** Clears the device's context entry, and invalidates it and what it led to: first the context cache, then the IOTLB. */
  private takeOut(requester: number): void {
    const old = this.attachments.get(requester);
    if (old === undefined || old.type === 'blocked') return;
    const did = old.type === 'paging' ? old.id : IDENTITY_DID;
    this.contexts.clear(requester);
    this.invalidations.contextDevice(did, requester);
    this.invalidations.iotlbDomain(did);
    if (old.type === 'paging') old.detached();
  }

  /** CAP.RWBF: writes to tables reach memory only after a flush. */
  private flushWriteBuffer(): void {
    if (!this.capabilities.rwbf) return;
    const keep = this.mmio.read32(OFFSET.GSTS) & KEEP;
    this.mmio.write32(OFFSET.GCMD, keep | WBF);
    this.waitStatus(WBF, 0, 'write buffer flush');
  }

  /** Sets or clears one bit of GCMD and waits until GSTS shows it. */
  private command(bit: number, on: boolean): void {
    const keep = this.mmio.read32(OFFSET.GSTS) & KEEP & ~bit;
    this.mmio.write32(OFFSET.GCMD, on ? keep | bit : keep);
    this.waitStatus(bit, on ? bit : 0, `GCMD bit ${hex(bit >>> 0)}`);
  }

  private waitStatus(bit: number, value: number, what: string): void {
    for (let i = 0; i < POLLS; i++) if ((this.mmio.read32(OFFSET.GSTS) & bit) === value) return;
    throw new IommuError('ETIMEDOUT', `${what} has no effect`);
  }

  private read64(offset: number): bigint {
    this.mmio.read64(offset);
    return join64(this.mmio.hi, this.mmio.lo);
  }
}
