/**
 * A driver for the RISC-V IOMMU in the manner of Linux's `drivers/iommu/riscv`: first-stage paging domains, device contexts
 * rewritten invalid-first, invalidations through the command queue. It reaches the hardware through MMIO and memory only.
 */
import { IommuError, addressOfPfn, extract, hex, join64 } from '@iommu-ts/bits';
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
import type { IommuPages } from '@iommu-ts/iommu-pages';
import type { PageTableConfig } from '@iommu-ts/page-table';
import { SV39, SV48, SV57 } from '../formats.ts';
import { IOMMU_MODE, REGISTERS, capabilities as CAP, fctl as FCTL } from '../registers.ts';
import { CommandSender, controlQueue } from './command-queue.ts';
import { DeviceDirectory, writeDdtp } from './device-directory.ts';
import { RiscvDomainOps } from './domain.ts';
import { FaultHandler } from './fault-handler.ts';

/** What the driver needs, and what it can be told. */
export interface RiscvIommuDriverOptions {
  readonly mmio: MmioPort;
  readonly pages: IommuPages;
  readonly clock: VirtualClock;
  /** Mode of domains that do not say (default strict). */
  readonly mode?: DomainMode;
  /** Entries of command and fault queue as log2 (defaults 13 and 12); less where the hardware takes less. */
  readonly commandQueueLog2?: number;
  readonly faultQueueLog2?: number;
  /** Widest first-stage scheme to use: 39, 48 or 57 bits (default: the widest that the hardware has). */
  readonly addressBits?: 39 | 48 | 57;
  /** Largest PSCID (default 2^20 - 1). */
  readonly pscidLast?: number;
  /** Where interrupts go as messages (default: all vectors stay masked, and the owner of the driver polls). */
  readonly msi?: { readonly address: bigint; readonly data: number };
  /** Interrupt files of the machine: device MSIs are writes there, so no mapping may use these addresses. */
  readonly imsic?: readonly { readonly start: bigint; readonly last: bigint }[];
}

const FSC_MODE = { 39: 8, 48: 9, 57: 10 } as const;
const FORMATS = { 39: SV39, 48: SV48, 57: SV57 } as const;

/** The driver: probes `capabilities`, places queues and device directory, and serves paging domains with first-stage tables. */
export class RiscvIommuDriver implements IommuDriver {
  readonly info: DriverInfo;
  readonly identityDomain: PlainDomain = { type: 'identity' };
  readonly blockedDomain: PlainDomain = { type: 'blocked' };
  /** The `capabilities` register as probed, and the levels of the device directory that the hardware took. */
  readonly capabilities: bigint;
  readonly ddtLevels: number;

  readonly #mmio: MmioPort;
  readonly #options: RiscvIommuDriverOptions;
  readonly #commands: CommandSender;
  readonly #faults: FaultHandler;
  readonly #directory: DeviceDirectory;
  readonly #pscids: IdAllocator;
  readonly #ops: RiscvDomainOps;
  readonly #table: PageTableConfig;
  readonly #fscMode: bigint;
  readonly #domains = new Set<PagingDomain>();
  readonly #attached = new Map<number, Domain>();
  readonly #reserved: readonly ReservedRegion[];
  #released = false;

  /**
   * Probes and initialises the IOMMU: off, queues, directory, caches empty.
   * @throws IommuError `ENODEV` for what is no RISC-V IOMMU 1.x, `EOPNOTSUPP` for one that this driver can't drive, `ENOMEM`.
   */
  constructor(options: RiscvIommuDriverOptions) {
    const { mmio, pages } = options;
    this.#options = options;
    this.#mmio = mmio;
    mmio.read64(REGISTERS.capabilities.offset);
    const cap = join64(mmio.hi, mmio.lo);
    this.capabilities = cap;
    const version = Number(extract(cap, CAP.version));
    if (version >> 4 !== 1) {
      throw new IommuError('ENODEV', `capabilities ${hex(cap)}: version ${version >> 4}.${version & 0xf} is not 1.x`, {
        capabilities: cap,
      });
    }
    const fctl = BigInt(mmio.read32(REGISTERS.fctl.offset) >>> 0);
    if (extract(fctl, FCTL.BE) !== 0n) {
      throw new IommuError('EOPNOTSUPP', `fctl ${hex(fctl)}: a big-endian IOMMU`, { fctl });
    }
    const bits = ([57, 48, 39] as const).find(
      (n) => extract(cap, CAP[`Sv${n}`]) !== 0n && n <= (options.addressBits ?? 57),
    );
    if (bits === undefined) {
      throw new IommuError('EOPNOTSUPP', `capabilities ${hex(cap)}: no first-stage scheme of Sv39, Sv48, Sv57`, {
        capabilities: cap,
      });
    }
    this.#fscMode = BigInt(FSC_MODE[bits]) << 60n;
    const oas = Math.min(Number(extract(cap, CAP.PAS)), 56);
    this.#table = { format: FORMATS[bits], ias: bits, oas, svnapot: true };

    this.#turnOff();
    this.#programInterrupts(extract(cap, CAP.IGS) !== 1n);
    this.#commands = new CommandSender(mmio, pages, options.commandQueueLog2 ?? 13);
    let faults: FaultHandler | null = null;
    try {
      this.#faults = faults = new FaultHandler(mmio, pages, options.faultQueueLog2 ?? 12);
      this.#directory = new DeviceDirectory(mmio, pages, extract(cap, CAP.MSI_FLAT) !== 0n);
    } catch (error) {
      faults?.close();
      this.#commands.close();
      throw error;
    }
    this.ddtLevels = this.#directory.levels;
    this.#commands.invalidateDdt(-1);
    this.#commands.invalidateAll();
    this.#commands.sync();

    this.#pscids = new IdAllocator('PSCID', 1, options.pscidLast ?? 0xf_ffff);
    this.#ops = new RiscvDomainOps(this.#commands, this.#pscids, (domain) => this.#domains.delete(domain));
    this.#reserved = (options.imsic ?? []).map(({ start, last }) => ({
      start,
      last,
      type: 'sw-msi',
      doc: 'interrupt files (IMSIC)',
    }));
    const commands = this.#commands;
    let pageSizes = 0x1_1000n;
    for (let lg2 = 21; lg2 < bits - 1; lg2 += 9) pageSizes |= 1n << BigInt(lg2);
    this.info = {
      name: 'riscv',
      format: `sv${bits}`,
      granuleLg2: 12,
      pageSizes,
      apertureFirst: 0n,
      apertureLast: (1n << BigInt(bits - 1)) - 1n,
      oas,
      requesters: this.#directory.devices,
      writeOnly: false,
      rules: 'generic_pt',
      get invalidationCommands() {
        return commands.invalidations;
      },
    };
  }

  createDomain(options: CreateDomainOptions = {}): PagingDomain {
    this.#checkAlive();
    const id = this.#pscids.alloc();
    try {
      const mode = options.mode ?? this.#options.mode;
      const domain = new PagingDomain({
        pages: this.#options.pages,
        clock: this.#options.clock,
        table: this.#table,
        ops: this.#ops,
        id,
        ...(mode === undefined ? {} : { mode }),
        ...(options.flushQueue === undefined ? {} : { flushQueue: options.flushQueue }),
        ...(options.freeMode === undefined ? {} : { freeMode: options.freeMode }),
      });
      this.#domains.add(domain);
      return domain;
    } catch (error) {
      this.#pscids.free(id);
      throw error;
    }
  }

  attach(requester: number, domain: Domain): void {
    this.#checkAlive();
    if (!(Number.isInteger(requester) && requester >= 0 && requester < this.#directory.devices)) {
      throw new IommuError('ERANGE', `device_id ${requester} is not from 0 to ${hex(this.#directory.devices - 1)}`, {
        requester: `${requester}`,
      });
    }
    if (domain instanceof PagingDomain ? !this.#domains.has(domain) : !this.#isPlain(domain)) {
      throw new IommuError('EINVAL', `the domain of device_id ${hex(requester)} is not of this driver`, { requester });
    }
    const old = this.#attached.get(requester);
    if (old === domain) return;
    this.#disable(requester, old);
    if (domain.type === 'paging') {
      this.#directory.install(requester, (addressOfPfn(domain.table.rootPfn) >> 12n) | this.#fscMode, domain.id);
      domain.attached();
    } else if (domain.type === 'identity') this.#directory.install(requester, 0n, 0);
    // A blocked device keeps its invalid context: every DMA is cause 258.
    if (domain.type !== 'blocked') {
      this.#commands.invalidateDdt(requester);
      this.#commands.sync();
    }
    this.#attached.set(requester, domain);
    if (old?.type === 'paging') old.detached();
  }

  detach(requester: number): void {
    const old = this.#attached.get(requester);
    if (old === undefined) return;
    this.#disable(requester, old);
    this.#attached.delete(requester);
    if (old.type === 'paging') old.detached();
  }

  domainOf(requester: number): Domain | null {
    return this.#attached.get(requester) ?? null;
  }

  reservedRegions(): readonly ReservedRegion[] {
    return this.#reserved;
  }

  handleFaults(): FaultEvent[] {
    this.#checkAlive();
    return this.#faults.handle();
  }

  /** Times the fault queue was found overflown: records were lost then. */
  get faultQueueOverflows(): number {
    return this.#faults.overflows;
  }

  release(): void {
    if (this.#released) return;
    if (this.#domains.size > 0) {
      throw new IommuError('EBUSY', `${this.#domains.size} paging domain(s) are alive`, {
        domains: this.#domains.size,
      });
    }
    this.#attached.clear();
    writeDdtp(this.#mmio, IOMMU_MODE.Off, 0);
    this.#faults.close();
    this.#commands.close();
    this.#directory.free();
    this.#released = true;
  }

  /**
   * Makes the device's context invalid and has the hardware forget it, with the translations of the PSCID that it named:
   * specification section "Changing device directory table entry".
   */
  #disable(requester: number, old: Domain | undefined): void {
    if (!this.#directory.invalidate(requester)) return;
    this.#commands.invalidateDdt(requester);
    if (old?.type === 'paging') this.#commands.invalidateSpace(old.id);
    this.#commands.sync();
  }

  #isPlain(domain: PlainDomain): boolean {
    return domain === this.identityDomain || domain === this.blockedDomain;
  }

  /** Whatever firmware left: translation off, queues off, interrupts acknowledged. */
  #turnOff(): void {
    const mmio = this.#mmio;
    writeDdtp(mmio, IOMMU_MODE.Off, 0);
    controlQueue(mmio, REGISTERS.cqcsr.offset, 0);
    controlQueue(mmio, REGISTERS.fqcsr.offset, 0);
    if (extract(this.capabilities, CAP.ATS) !== 0n) controlQueue(mmio, REGISTERS.pqcsr.offset, 0);
    mmio.write32(REGISTERS.ipsr.offset, 0xf);
  }

  /** All causes on vector 0; its message goes where the owner said, the other vectors stay masked. */
  #programInterrupts(hasTable: boolean): void {
    const mmio = this.#mmio;
    mmio.write64(REGISTERS.icvec.offset, 0, 0);
    if (!hasTable) return;
    const { msi_addr, msi_data, msi_vec_ctl } = REGISTERS;
    for (let vector = 0; vector < msi_addr.count; vector++) {
      mmio.write32(msi_vec_ctl.offset + vector * msi_vec_ctl.stride, 1);
    }
    const { msi } = this.#options;
    if (msi === undefined) return;
    mmio.write64(msi_addr.offset, Number(msi.address >> 32n), Number(BigInt.asIntN(32, msi.address)));
    mmio.write32(msi_data.offset, msi.data);
    mmio.write32(msi_vec_ctl.offset, 0);
  }

  #checkAlive(): void {
    if (this.#released) throw new IommuError('ENODEV', 'the driver has released its IOMMU');
  }
}
