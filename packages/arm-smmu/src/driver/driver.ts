/**
 * What an operating system does with an SMMUv3 (after Linux's arm-smmu-v3): probe, tables and queues, stage 1 domains (CD
 * and ASID) or stage 2 domains (VMID), attach, faults. It reaches the device through MMIO and memory only.
 */
import { IommuError, addressOfPfn, encode, extract, hex, hi32, lo32, maskOf } from '@iommu-ts/bits';
import type { FieldValues } from '@iommu-ts/bits';
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
import type { HwInfo, PageTableConfig, PageTableFormat } from '@iommu-ts/page-table';
import { CMD } from '../commands.ts';
import { ARM_S1_16K, ARM_S1_4K, ARM_S1_64K, ARM_S2_16K, ARM_S2_4K, ARM_S2_64K } from '../formats.ts';
import { CR0, CR1, CR2, IDR0, IDR1, IDR3, IDR5, IRQ_CTRL, QUEUE_BASE, REG } from '../registers.ts';
import { ADDRESS_SIZES, CD, CD_BYTES, STE, STE_CONFIG } from '../structures.ts';
import { CommandSender } from './command-queue.ts';
import { SmmuDomainOps } from './domain.ts';
import type { DomainOwner } from './domain.ts';
import { FaultHandler } from './fault-handler.ts';
import { SharedMemory } from './shared-memory.ts';
import { StreamTable } from './stream-table.ts';
import type { StreamInvalidation } from './stream-table.ts';

/** Options of {@link ArmSmmuDriver}. */
export interface ArmSmmuDriverOptions {
  readonly mmio: MmioPort;
  readonly memory: PhysicalMemory;
  readonly pages: IommuPages;
  readonly clock: VirtualClock;
  /** Mode of domains that do not say (default strict). */
  readonly mode?: DomainMode;
  /** Stage that paging domains translate with; default 1 where there is one. */
  readonly stage?: 1 | 2;
  /** log2 of the translation granule: 12, 14 or 16; default the smallest offered. */
  readonly granuleLg2?: 12 | 14 | 16;
}

/** Queues of one page each, as long as the hardware allows. */
const CMDQ_LOG2 = 8;
const EVTQ_LOG2 = 7;
/** Reads of an acknowledge register until the hardware counts as dead. */
const POLLS = 10_000;
/** Incoming shareability is used (STE.SHCFG). */
const SHCFG_INCOMING = 1;
/** Linux's window for software-mapped MSIs on Arm. */
const SW_MSI: ReservedRegion = {
  start: 0x800_0000n,
  last: 0x80f_ffffn,
  type: 'sw-msi',
  doc: 'MSI doorbells are mapped here',
};

const FORMATS: Readonly<Record<1 | 2, Readonly<Record<number, PageTableFormat>>>> = {
  1: { 12: ARM_S1_4K, 14: ARM_S1_16K, 16: ARM_S1_64K },
  2: { 12: ARM_S2_4K, 14: ARM_S2_16K, 16: ARM_S2_64K },
};

/** The page-table configuration of paging domains, and whether the SMMU can be driven at all. */
const chooseTable = (
  idr0: FieldValues<typeof IDR0>,
  idr5: FieldValues<typeof IDR5>,
  options: ArmSmmuDriverOptions,
): { stage: 1 | 2; table: PageTableConfig; name: string } => {
  if ((idr0.TTF & 2n) === 0n) throw new IommuError('ENODEV', 'the SMMU does not walk AArch64 tables (IDR0.TTF)');
  const stage = options.stage ?? (idr0.S1P === 1n ? 1 : 2);
  if ((stage === 1 ? idr0.S1P : idr0.S2P) === 0n) throw new IommuError('ENODEV', `the SMMU has no stage ${stage}`);
  const offered = [
    [12, idr5.GRAN4K],
    [14, idr5.GRAN16K],
    [16, idr5.GRAN64K],
  ] as const;
  const granuleLg2 = options.granuleLg2 ?? offered.find(([, there]) => there === 1n)?.[0] ?? 0;
  if (!offered.some(([lg2, there]) => lg2 === granuleLg2 && there === 1n)) {
    throw new IommuError('ENODEV', `the SMMU has no granule of 2^${granuleLg2} bytes (IDR5)`);
  }
  const large = granuleLg2 === 16;
  const oas = Math.min(ADDRESS_SIZES[Number(idr5.OAS)]!, large ? 52 : 48);
  const ias = stage === 2 ? oas : large && idr5.VAX === 1n ? 52 : 48;
  const format = FORMATS[stage][granuleLg2]!;
  const { pages } = options;
  const incoherent = {
    incoherent: true,
    flush: (pfn: number, offset: number, bytes: number) => pages.flushIncoherent(pfn, offset, bytes),
  };
  return {
    stage,
    table: { format, ias, oas, ...(idr0.COHACC === 0n ? incoherent : {}) },
    name: `${format.name}-${ias}`,
  };
};

/** SMMUv3 driver. Everything it holds is taken in the constructor and per domain, and given back by {@link release}. */
export class ArmSmmuDriver implements IommuDriver, DomainOwner, StreamInvalidation {
  readonly identityDomain: PlainDomain = { type: 'identity' };
  readonly blockedDomain: PlainDomain = { type: 'blocked' };
  readonly commands: CommandSender;
  readonly ril: boolean;
  readonly stage: 1 | 2;
  readonly info: DriverInfo;
  readonly #mmio: MmioPort;
  readonly #shared: SharedMemory;
  readonly #pages: IommuPages;
  readonly #clock: VirtualClock;
  readonly #mode: DomainMode;
  readonly #table: PageTableConfig;
  readonly #streams: StreamTable;
  readonly #faults: FaultHandler;
  readonly #ids: IdAllocator;
  readonly #domainOf = new Map<number, Domain>();
  readonly #alive = new Set<PagingDomain>();
  #cr0 = 0;
  #released = false;

  /**
   * Resets the SMMU and enables translation: nothing is attached, every transaction faults.
   * @throws IommuError `ENODEV` when it lacks what is asked for, `ENOMEM`, `ETIMEDOUT` when it does not answer.
   */
  constructor(options: ArmSmmuDriverOptions) {
    this.#mmio = options.mmio;
    this.#pages = options.pages;
    this.#clock = options.clock;
    this.#mode = options.mode ?? 'strict';
    const idr0 = this.#fields(IDR0, REG.IDR0);
    const idr1 = this.#fields(IDR1, REG.IDR1);
    const { stage, table, name } = chooseTable(idr0, this.#fields(IDR5, REG.IDR5), options);
    this.#shared = new SharedMemory(options.memory, options.pages, table.incoherent === true);
    this.stage = stage;
    this.#table = table;
    this.ril = this.#fields(IDR3, REG.IDR3).RIL === 1n;
    const wide = stage === 1 ? idr0.ASID16 : idr0.VMID16;
    // 0 stays free: it tags what is not ours (stage 1 without VMID, the SMMU before us).
    this.#ids = new IdAllocator(stage === 1 ? 'ASID' : 'VMID', 1, wide === 1n ? 0xffff : 0xff);
    this.#streams = new StreamTable(this.#shared, Number(idr1.SIDSIZE), idr0.ST_LEVEL === 1n);
    let commandsPfn = NO_PAGE;
    try {
      this.commands = new CommandSender(this.#mmio, this.#shared, Math.min(Number(idr1.CMDQS), CMDQ_LOG2));
      commandsPfn = this.commands.pfn;
      this.#faults = new FaultHandler(this.#mmio, this.#shared, Math.min(Number(idr1.EVENTQS), EVTQ_LOG2));
    } catch (error) {
      this.#shared.free(commandsPfn);
      this.#streams.release();
      throw error;
    }
    const { commands } = this;
    this.info = {
      name: 'arm-smmu',
      format: name,
      granuleLg2: table.format.granuleLg2,
      pageSizes: table.format.sizes
        .filter((size) => size.lg2 < table.ias && table.oas >= (size.minOas ?? 0))
        .reduce((sizes, size) => sizes | (1n << BigInt(size.lg2)), 0n),
      apertureFirst: 0n,
      apertureLast: (1n << BigInt(table.ias)) - 1n,
      oas: table.oas,
      requesters: 2 ** this.#streams.log2,
      writeOnly: stage === 2,
      rules: 'io-pgtable',
      get invalidationCommands() {
        return commands.invalidations;
      },
    };
    this.#enable(idr0.Hyp === 1n, table.incoherent === true);
  }

  /** Times the event queue overflowed. */
  get overflows(): number {
    return this.#faults.overflows;
  }

  createDomain(options: CreateDomainOptions = {}): PagingDomain {
    this.#checkAlive();
    const id = this.#ids.alloc();
    let cdPfn = -1;
    try {
      if (this.stage === 1) cdPfn = this.#shared.allocate(CD_BYTES, 'a context descriptor');
      const domain = new PagingDomain({
        pages: this.#pages,
        clock: this.#clock,
        table: this.#table,
        ops: new SmmuDomainOps(this, this.stage, this.#table.format.granuleLg2, id, cdPfn),
        mode: options.mode ?? this.#mode,
        id,
        ...(options.flushQueue === undefined ? {} : { flushQueue: options.flushQueue }),
        ...(options.freeMode === undefined ? {} : { freeMode: options.freeMode }),
      });
      if (this.stage === 1) this.#writeCd(cdPfn, domain);
      this.#alive.add(domain);
      return domain;
    } catch (error) {
      this.#shared.free(cdPfn);
      this.#ids.free(id);
      throw error;
    }
  }

  attach(requester: number, domain: Domain): void {
    this.#checkAlive();
    this.#checkRequester(requester);
    const before = this.#domainOf.get(requester) ?? null;
    if (before === domain) return;
    this.#streams.write(requester, this.#steFor(domain), this);
    if (domain.type === 'paging') domain.attached();
    this.#domainOf.set(requester, domain);
    if (before !== null && before.type === 'paging') before.detached();
  }

  detach(requester: number): void {
    this.#checkRequester(requester);
    const before = this.#domainOf.get(requester);
    if (before === undefined) return;
    this.#streams.clear(requester, this);
    this.#domainOf.delete(requester);
    if (before.type === 'paging') before.detached();
  }

  domainOf(requester: number): Domain | null {
    return this.#domainOf.get(requester) ?? null;
  }

  reservedRegions(): readonly ReservedRegion[] {
    return [SW_MSI];
  }

  handleFaults(): FaultEvent[] {
    this.#checkAlive();
    return this.#faults.handle();
  }

  release(): void {
    if (this.#released) return;
    if (this.#alive.size > 0) {
      throw new IommuError('EBUSY', `${this.#alive.size} paging domain(s) are alive`, { domains: this.#alive.size });
    }
    this.#released = true;
    this.#setIrqCtrl(0);
    this.#setCr0(0);
    this.#domainOf.clear();
    this.#streams.release();
    this.#shared.free(this.commands.pfn);
    this.#shared.free(this.#faults.pfn);
  }

  /** {@link DomainOwner}: a domain has been freed, its translations have been invalidated. */
  released(domain: PagingDomain, ops: SmmuDomainOps): void {
    this.#alive.delete(domain);
    this.#shared.free(ops.cdPfn);
    this.#ids.free(domain.id);
  }

  /** {@link StreamInvalidation}: CMD_CFGI_STE drops the STE and the CDs found through it. */
  streamChanged(sid: number, leaf: boolean): void {
    this.commands.issue(CMD.CFGI_STE, sid, leaf ? 1 : 0, 0);
    this.commands.sync();
  }

  #fields<L extends typeof IDR0 | typeof IDR1 | typeof IDR3 | typeof IDR5>(layout: L, offset: number): FieldValues<L> {
    const value = BigInt(this.#mmio.read32(offset) >>> 0);
    return Object.fromEntries(
      Object.entries(layout).map(([name, field]) => [name, extract(value, field)]),
    ) as unknown as FieldValues<L>;
  }

  #checkAlive(): void {
    if (this.#released) throw new IommuError('ENODEV', 'the driver has released its SMMU');
  }

  #checkRequester(requester: number): void {
    if (Number.isInteger(requester) && requester >= 0 && requester < 2 ** this.#streams.log2) return;
    throw new IommuError('ERANGE', `StreamID ${requester} is outside 0 … ${hex(2 ** this.#streams.log2 - 1)}`, {
      requester: `${requester}`,
    });
  }

  /** The order of Linux's arm_smmu_device_reset(): everything off, tables and queues placed, then on one by one. */
  #enable(hyp: boolean, incoherent: boolean): void {
    const mmio = this.#mmio;
    this.#setCr0(0);
    const [sh, c] = incoherent ? [2, 0] : [3, 1];
    const cr1 = { TABLE_SH: sh, TABLE_OC: c, TABLE_IC: c, QUEUE_SH: sh, QUEUE_OC: c, QUEUE_IC: c };
    mmio.write32(REG.CR1, Number(encode(CR1, cr1)));
    mmio.write32(REG.CR2, Number(encode(CR2, { PTM: 1, RECINVSID: 1 })));
    this.#write64(REG.STRTAB_BASE, this.#streams.base);
    mmio.write32(REG.STRTAB_BASE_CFG, this.#streams.config);
    this.#write64(REG.CMDQ_BASE, queueBase(this.commands));
    mmio.write32(REG.CMDQ_PROD, 0);
    mmio.write32(REG.CMDQ_CONS, 0);
    this.#setCr0(Number(encode(CR0, { CMDQEN: 1 })));
    // CMD_CFGI_ALL, then all translations: caches may hold anything after reset.
    this.commands.issue(CMD.CFGI_STE_RANGE, 0, 31, 0);
    this.commands.sync();
    if (hyp) this.commands.invalidate(CMD.TLBI_EL2_ALL, 0, 0, 0);
    this.commands.invalidate(CMD.TLBI_NSNH_ALL, 0, 0, 0);
    this.commands.sync();
    this.#write64(REG.EVENTQ_BASE, queueBase(this.#faults));
    mmio.write32(REG.EVENTQ_PROD, 0);
    mmio.write32(REG.EVENTQ_CONS, 0);
    this.#setCr0(this.#cr0 | Number(encode(CR0, { EVENTQEN: 1 })));
    // Wires, not MSIs: no address in the IRQ_CFG0 registers.
    this.#setIrqCtrl(0);
    this.#write64(REG.GERROR_IRQ_CFG0, 0n);
    this.#write64(REG.EVENTQ_IRQ_CFG0, 0n);
    this.#setIrqCtrl(Number(encode(IRQ_CTRL, { EVENTQ_IRQEN: 1, GERROR_IRQEN: 1 })));
    this.#setCr0(this.#cr0 | Number(encode(CR0, { SMMUEN: 1 })));
  }

  #setCr0(value: number): void {
    this.#writeAcknowledged(REG.CR0, REG.CR0ACK, value);
    this.#cr0 = value;
  }

  #setIrqCtrl(value: number): void {
    this.#writeAcknowledged(REG.IRQ_CTRL, REG.IRQ_CTRLACK, value);
  }

  #writeAcknowledged(register: number, acknowledge: number, value: number): void {
    this.#mmio.write32(register, value);
    for (let i = 0; i < POLLS; i++) if (this.#mmio.read32(acknowledge) === value) return;
    throw new IommuError('ETIMEDOUT', `register ${hex(register)} does not take the value ${hex(value)}`, { value });
  }

  #write64(offset: number, value: bigint): void {
    this.#mmio.write64(offset, hi32(value), lo32(value));
  }

  /** The context descriptor of a stage 1 domain (5.4), before any STE points to it. */
  #writeCd(pfn: number, domain: PagingDomain): void {
    const hw = domain.table.hwInfo();
    const tcr = hw['tcr'] as HwInfo & Readonly<Record<'tsz' | 'tg' | 'irgn' | 'orgn' | 'sh' | 'ips', number>>;
    const mair = hw['mair'] as bigint;
    const cd = encode(CD, {
      T0SZ: tcr.tsz,
      TG0: tcr.tg,
      IR0: tcr.irgn,
      OR0: tcr.orgn,
      SH0: tcr.sh,
      EPD1: 1,
      V: 1,
      IPS: tcr.ips,
      AA64: 1,
      R: 1,
      A: 1,
      ASET: 1,
      ASID: domain.id,
      TTB0: (hw['ttbr'] as bigint) >> 4n,
      MAIR0: mair & 0xffff_ffffn,
      MAIR1: mair >> 32n,
    });
    for (let i = 0n; i < 8n; i++) {
      this.#shared.memory.writeU64(addressOfPfn(pfn) + 8n * i, (cd >> (64n * i)) & 0xffff_ffff_ffff_ffffn);
    }
    this.#shared.written(pfn, 0, CD_BYTES);
  }

  /** The STE that gives a stream to `domain` (5.2). @throws IommuError `EINVAL` for a domain of another driver. */
  #steFor(domain: Domain): bigint {
    if (domain === this.blockedDomain) return encode(STE, { V: 1, Config: STE_CONFIG.ABORT });
    if (domain === this.identityDomain) {
      return encode(STE, { V: 1, Config: STE_CONFIG.BYPASS, SHCFG: SHCFG_INCOMING });
    }
    if (domain.type !== 'paging' || !this.#alive.has(domain)) {
      throw new IommuError('EINVAL', 'the domain was not made by this driver, or has been freed');
    }
    const ops = domain.ops as SmmuDomainOps;
    const walks = this.#table.incoherent === true ? { sh: 2, c: 0 } : { sh: 3, c: 1 };
    if (ops.stage === 1) {
      return encode(STE, {
        V: 1,
        Config: STE_CONFIG.S1,
        S1ContextPtr: addressOfPfn(ops.cdPfn) >> 6n,
        S1DSS: 2,
        S1CIR: walks.c,
        S1COR: walks.c,
        S1CSH: walks.sh,
        S1STALLD: 0,
      });
    }
    const hw = domain.table.hwInfo();
    const vtcr = hw['vtcr'] as HwInfo & Readonly<Record<'tsz' | 'sl' | 'irgn' | 'orgn' | 'sh' | 'tg' | 'ps', number>>;
    return encode(STE, {
      V: 1,
      Config: STE_CONFIG.S2,
      SHCFG: SHCFG_INCOMING,
      S2VMID: domain.id,
      S2T0SZ: vtcr.tsz,
      S2SL0: vtcr.sl,
      S2IR0: vtcr.irgn,
      S2OR0: vtcr.orgn,
      S2SH0: vtcr.sh,
      S2TG: vtcr.tg,
      S2PS: vtcr.ps,
      S2AA64: 1,
      S2PTW: 1,
      S2R: 1,
      S2TTB: (hw['vttbr'] as bigint) >> 4n,
    });
  }
}

/** Value of a queue's base register. */
const queueBase = (queue: { readonly pfn: number; readonly log2: number }): bigint =>
  addressOfPfn(queue.pfn) | maskOf(QUEUE_BASE.RA) | BigInt(queue.log2);
