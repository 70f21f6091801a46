/**
 * The AMD IOMMU's driver: probe, tables and queues, attach and detach, fault handler. It knows registers and memory only.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, section 2.2.2 "Device Table" and chapter 3.
 */
import { IommuError, addressOfPfn, encode, extract, hex, hi32, join64, lo32 } from '@iommu-ts/bits';
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
import { NO_PAGE } from '@iommu-ts/iommu-pages';
import type { IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { PageTable } from '@iommu-ts/page-table';
import type { PageTableConfig } from '@iommu-ts/page-table';
import { AMD_V1 } from '../formats.ts';
import { ComBaseAddr, Control, DevTabBaseAddr, EventBaseAddr, ExtFeature, REGISTERS } from '../registers.ts';
import { DTE, DTE_BYTES, HT_RANGE, INTERRUPT_RANGE, widthOfMode } from '../structures.ts';
import { AmdDomainOps } from './domain.ts';
import { EVENT_ENTRIES_LG2, readEvents } from './event-reader.ts';
import { COMMAND_ENTRIES_LG2, CommandQueue } from './queue.ts';

/** Width of a physical address in a page table entry. */
const OAS = 52;
/** A domain's first top table is of this mode: 39 bits; it grows when a mapping needs more. */
const START_MODE = 3;
const QUEUE_BYTES = 2 ** COMMAND_ENTRIES_LG2 * 16;
const LAST_DOMAIN_ID = 0xffff;

/** Lower half of a device table entry, bits 63:0. */
const DTE_LOW = { V: DTE.V, TV: DTE.TV, Mode: DTE.Mode, IR: DTE.IR, IW: DTE.IW } as const;

/** Control without the queues' enables. InvTimeOut 4 is one second. */
const CONTROL_BASE = encode(Control, { Coherent: 1, InvTimeOut: 4 });

/** Options of {@link AmdDriver}. */
export interface AmdDriverOptions {
  readonly memory: PhysicalMemory;
  readonly pages: IommuPages;
  readonly clock: VirtualClock;
  readonly mmio: MmioPort;
  /** Highest DeviceID that the device table has an entry for (default 0xffff: a table of 2 MiB). */
  readonly lastDeviceId?: number;
  /** Highest domain id to use (default 0xffff). */
  readonly lastDomainId?: number;
  /** Mode of domains that do not say (default strict). */
  readonly mode?: DomainMode;
}

/**
 * Driver for one AMD IOMMU with host (v1) page tables.
 *
 * A device that is not attached has an entry with V=1 and TV=0: its requests fault. Every table, ring and entry comes from
 * the allocator that was handed in and goes back there on {@link release}.
 */
export class AmdDriver implements IommuDriver {
  readonly info: DriverInfo;
  readonly identityDomain: PlainDomain = { type: 'identity' };
  readonly blockedDomain: PlainDomain = { type: 'blocked' };

  readonly #memory: PhysicalMemory;
  readonly #pages: IommuPages;
  readonly #clock: VirtualClock;
  readonly #mmio: MmioPort;
  readonly #mode: DomainMode;
  readonly #lastDeviceId: number;
  readonly #invalidateAllSupported: boolean;
  readonly #table: PageTableConfig;
  readonly #ids: IdAllocator;
  readonly #ops: AmdDomainOps;
  readonly #queue: CommandQueue;
  readonly #allocations: number[] = [];
  readonly #deviceTablePfn: number;
  readonly #eventLogPfn: number;
  readonly #devices = new Map<number, Domain>();
  readonly #domains = new Set<PagingDomain>();
  #released = false;

  /**
   * Probes and enables the unit.
   * @throws IommuError `ENOMEM` when tables or rings can't be allocated, `ERANGE` for a lastDeviceId or lastDomainId beyond
   *   16 bits, `ETIMEDOUT` when the unit does not answer commands.
   */
  constructor(options: AmdDriverOptions) {
    this.#memory = options.memory;
    this.#pages = options.pages;
    this.#clock = options.clock;
    this.#mmio = options.mmio;
    this.#mode = options.mode ?? 'strict';
    this.#lastDeviceId = checkId(options.lastDeviceId ?? 0xffff, 0, 'lastDeviceId');
    this.#ids = new IdAllocator('domain id', 1, checkId(options.lastDomainId ?? LAST_DOMAIN_ID, 1, 'lastDomainId'));

    const efr = this.#read64(REGISTERS.ExtFeature.offset);
    this.#invalidateAllSupported = extract(efr, ExtFeature.IASup) === 1n;
    const ias = widthOfMode(4 + Number(extract(efr, ExtFeature.HATS)));
    this.#table = { format: AMD_V1, ias, oas: OAS, topLevel: START_MODE - 1 };

    const tableBytes = (this.#lastDeviceId + 1) * DTE_BYTES;
    this.#deviceTablePfn = this.#allocate(tableBytes);
    const commandPfn = this.#allocate(QUEUE_BYTES);
    const semaphorePfn = this.#allocate(8);
    this.#eventLogPfn = this.#allocate(QUEUE_BYTES);
    this.#queue = new CommandQueue(this.#mmio, this.#memory, commandPfn, semaphorePfn);
    this.#ops = new AmdDomainOps(
      this.#queue,
      this.#ids,
      (domain) => this.#retarget(domain),
      (domain) => this.#domains.delete(domain),
    );
    this.info = this.#describe(ias);
    this.#fillDeviceTable();
    this.#enable(commandPfn);
  }

  createDomain(options: CreateDomainOptions = {}): PagingDomain {
    this.#alive();
    const id = this.#ids.alloc();
    try {
      const domain = new PagingDomain({
        pages: this.#pages,
        clock: this.#clock,
        table: this.#table,
        ops: this.#ops,
        mode: options.mode ?? this.#mode,
        ...(options.flushQueue === undefined ? {} : { flushQueue: options.flushQueue }),
        ...(options.freeMode === undefined ? {} : { freeMode: options.freeMode }),
        id,
      });
      this.#domains.add(domain);
      return domain;
    } catch (error) {
      this.#ids.free(id);
      throw error;
    }
  }

  attach(requester: number, domain: Domain): void {
    this.#alive();
    checkId(requester, 0, 'requester', this.#lastDeviceId);
    const known =
      domain.type === 'paging'
        ? this.#domains.has(domain)
        : domain === this.identityDomain || domain === this.blockedDomain;
    if (!known) {
      throw new IommuError('EINVAL', `device ${hex(requester)}: the domain is not one of this driver's`, { requester });
    }
    const before = this.#devices.get(requester);
    if (before === domain) return;
    this.#write(requester, domain);
    this.#queue.invalidateDevice(requester);
    this.#queue.wait();
    if (before?.type === 'paging') before.detached();
    if (domain.type === 'paging') domain.attached();
    this.#devices.set(requester, domain);
  }

  detach(requester: number): void {
    const before = this.#devices.get(requester);
    if (before === undefined) return;
    this.#write(requester, null);
    this.#queue.invalidateDevice(requester);
    this.#queue.wait();
    this.#devices.delete(requester);
    if (before.type === 'paging') before.detached();
  }

  domainOf(requester: number): Domain | null {
    return this.#devices.get(requester) ?? null;
  }

  reservedRegions(): readonly ReservedRegion[] {
    return RESERVED_REGIONS;
  }

  handleFaults(): FaultEvent[] {
    this.#alive();
    return readEvents(this.#mmio, this.#memory, this.#eventLogPfn);
  }

  release(): void {
    if (this.#released) return;
    if (this.#domains.size > 0) {
      throw new IommuError('EBUSY', `${this.#domains.size} paging domain(s) alive`, { domains: this.#domains.size });
    }
    this.#released = true;
    // First the queues, then translation, then what they stood in.
    this.#write64(REGISTERS.Control.offset, CONTROL_BASE | encode(Control, { IommuEn: 1 }));
    this.#write64(REGISTERS.Control.offset, 0n);
    for (const { offset } of [REGISTERS.DevTabBaseAddr, REGISTERS.ComBaseAddr, REGISTERS.EventBaseAddr]) {
      this.#write64(offset, 0n);
    }
    this.#devices.clear();
    for (const pfn of this.#allocations.splice(0)) this.#pages.freePages(pfn);
  }

  #describe(ias: number): DriverInfo {
    const queue = this.#queue;
    const probe = this.#probeTable();
    const { pageSizes } = probe;
    probe.destroy();
    return {
      name: 'amd',
      format: `amdv1-va${ias}`,
      granuleLg2: 12,
      pageSizes,
      apertureFirst: 0n,
      apertureLast: (1n << BigInt(ias)) - 1n,
      oas: OAS,
      requesters: this.#lastDeviceId + 1,
      writeOnly: true,
      rules: 'generic_pt',
      get invalidationCommands() {
        return queue.invalidations;
      },
    };
  }

  /** A table to ask for its page sizes. Without a page for it, what the constructor has taken so far goes back. */
  #probeTable(): PageTable {
    try {
      return new PageTable(this.#pages, this.#table);
    } catch (error) {
      for (const taken of this.#allocations.splice(0)) this.#pages.freePages(taken);
      throw error;
    }
  }

  /** Every entry: valid, no translation information. A device that nobody attached must not reach memory. */
  #fillDeviceTable(): void {
    const low = lo32(encode(DTE_LOW, { V: 1 }));
    for (let id = 0; id <= this.#lastDeviceId; id++) {
      this.#memory.locate(this.#deviceTablePfn + (id >>> 7), true);
      this.#memory.view[this.#memory.index + ((id & 127) << 3)] = low;
    }
  }

  /** Registers in the order of a boot: table, command buffer, translation, a clean start, then the event log. */
  #enable(commandPfn: number): void {
    this.#write64(REGISTERS.Control.offset, CONTROL_BASE);
    const pages = Math.ceil(((this.#lastDeviceId + 1) * DTE_BYTES) / 4096);
    this.#write64(
      REGISTERS.DevTabBaseAddr.offset,
      addressOfPfn(this.#deviceTablePfn) | encode(DevTabBaseAddr, { Size: pages - 1 }),
    );
    this.#write64(
      REGISTERS.ComBaseAddr.offset,
      addressOfPfn(commandPfn) | encode(ComBaseAddr, { ComLen: COMMAND_ENTRIES_LG2 }),
    );
    this.#write64(REGISTERS.CmdBufHead.offset, 0n);
    this.#write64(REGISTERS.CmdBufTail.offset, 0n);
    const running = CONTROL_BASE | encode(Control, { CmdBufEn: 1, IommuEn: 1 });
    this.#write64(REGISTERS.Control.offset, running);
    this.#flushEverything();

    this.#write64(
      REGISTERS.EventBaseAddr.offset,
      addressOfPfn(this.#eventLogPfn) | encode(EventBaseAddr, { EventLen: EVENT_ENTRIES_LG2 }),
    );
    this.#write64(REGISTERS.EvtLogHead.offset, 0n);
    this.#write64(REGISTERS.EvtLogTail.offset, 0n);
    // What an earlier owner left in Status is not ours.
    this.#write64(REGISTERS.Status.offset, this.#read64(REGISTERS.Status.offset));
    this.#write64(REGISTERS.Control.offset, running | encode(Control, { EventLogEn: 1, EventIntEn: 1 }));
  }

  #flushEverything(): void {
    if (this.#invalidateAllSupported) {
      this.#queue.invalidateAll();
    } else {
      for (let id = 0; id <= this.#lastDeviceId; id++) this.#queue.invalidateDevice(id);
      for (let id = 0; id <= this.#ids.last; id++) this.#queue.invalidateDomain(id);
    }
    this.#queue.wait();
  }

  #retarget(domain: PagingDomain): void {
    for (const [requester, of] of this.#devices) {
      if (of !== domain) continue;
      this.#write(requester, domain);
      this.#queue.invalidateDevice(requester);
    }
    this.#queue.wait();
  }

  /**
   * Writes bits 127:0 of a device table entry (one 16-byte store on a real CPU, so that the hardware never sees a mixture);
   * null: not attached.
   */
  #write(requester: number, domain: Domain | null): void {
    let low = encode(DTE_LOW, { V: 1 });
    let high = 0n;
    if (domain?.type === 'paging') {
      const { table } = domain;
      low = encode(DTE_LOW, { V: 1, TV: 1, Mode: table.topLevel + 1, IR: 1, IW: 1 }) | table.root;
      high = BigInt(domain.id);
    } else if (domain !== null) {
      const allowed = domain.type === 'identity';
      low = encode(DTE_LOW, { V: 1, TV: 1, IR: allowed, IW: allowed });
    }
    const at = addressOfPfn(this.#deviceTablePfn) + BigInt(requester * DTE_BYTES);
    this.#memory.writeU64(at + 8n, high);
    this.#memory.writeU64(at, low);
  }

  #allocate(bytes: number): number {
    const pfn = this.#pages.allocPagesSz(bytes);
    if (pfn === NO_PAGE) {
      for (const taken of this.#allocations.splice(0)) this.#pages.freePages(taken);
      throw new IommuError('ENOMEM', `no ${bytes} bytes for a table or a ring`, { bytes: `${bytes}` });
    }
    this.#allocations.push(pfn);
    return pfn;
  }

  #read64(offset: number): bigint {
    this.#mmio.read64(offset);
    return join64(this.#mmio.hi, this.#mmio.lo);
  }

  #write64(offset: number, value: bigint): void {
    this.#mmio.write64(offset, hi32(value) | 0, lo32(value) | 0);
  }

  #alive(): void {
    if (this.#released) throw new IommuError('ENODEV', 'the driver has been released');
  }
}

const RESERVED_REGIONS: readonly ReservedRegion[] = [
  {
    start: INTERRUPT_RANGE.first,
    last: INTERRUPT_RANGE.last,
    type: 'msi',
    doc: 'writes are interrupts and do not meet the page tables',
  },
  { start: HT_RANGE.first, last: HT_RANGE.last, type: 'reserved', doc: 'special addresses of HyperTransport' },
];

const checkId = (id: number, first: number, name: string, last = 0xffff): number => {
  if (!Number.isInteger(id) || id < first || id > last) {
    throw new IommuError('ERANGE', `${name} ${id} is outside ${hex(first)} … ${hex(last)}`, { [name]: `${id}` });
  }
  return id;
};
