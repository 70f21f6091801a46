/**
 * What Linux's `drivers/iommu/apple-dart.c` does with a DART: probe the PARAMS registers, reset every stream, give a stream
 * the tables of its domain, flush, and read the error registers when the interrupt comes. It allocates page tables and
 * nothing else: DART has no queues and no device tables.
 */
import { IommuError, addressOfPfn, extract, hex } from '@iommu-ts/bits';
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
import { decodeError } from '../faults.ts';
import { PARAMS1, PARAMS2, PARAMS3, PARAMS4, T8110_REGISTERS } from '../registers.ts';
import { DartDomainOps } from './domain.ts';
import { TlbFlusher } from './flush.ts';
import { formatName, tableConfig } from './table-config.ts';
import { variantOf } from './variant.ts';
import type { DartVariant } from './variant.ts';

/** Options of {@link AppleDartDriver}. */
export interface AppleDartDriverOptions {
  readonly mmio: MmioPort;
  readonly pages: IommuPages;
  readonly clock: VirtualClock;
  /** Device-tree `compatible` (default `'apple,t8103-dart'`). */
  readonly compatible?: string;
  /** Mode of domains that do not say (default strict). */
  readonly mode?: DomainMode;
  /** How many paging domains may live at once (default 1024). A limit of this driver: DART knows no domain ids. */
  readonly maxDomains?: number;
}

/** IOVA of the PCIe MSI doorbell on Apple SoCs (Linux: `CONFIG_PCIE_APPLE_MSI_DOORBELL_ADDR`). */
const MSI_DOORBELL = 0xffff_f000n;

/** The driver of one DART. */
export class AppleDartDriver implements IommuDriver {
  readonly info: DriverInfo;
  readonly identityDomain: PlainDomain = { type: 'identity' };
  readonly blockedDomain: PlainDomain = { type: 'blocked' };
  /** Number of streams of the part. */
  readonly streams: number;
  /** Whether the part can bypass translation: without, there is no identity domain. */
  readonly supportsBypass: boolean;
  readonly #mmio: MmioPort;
  readonly #pages: IommuPages;
  readonly #clock: VirtualClock;
  readonly #mode: DomainMode;
  readonly #variant: DartVariant;
  readonly #flusher: TlbFlusher;
  readonly #ids: IdAllocator;
  readonly #domains: (Domain | null)[];
  readonly #table: PageTableConfig;
  readonly #pageShift: number;
  readonly #ias: number;
  readonly #oas: number;
  /** Scratch for flushing one stream. */
  readonly #one = new Int32Array(8);
  readonly #live = new Set<PagingDomain>();
  #released = false;

  /**
   * Probes and resets the hardware.
   * @throws IommuError `ENODEV` unknown `compatible`, `EBUSY` the DART is locked, `EOPNOTSUPP` geometry not supported.
   */
  constructor(options: AppleDartDriverOptions) {
    const variant = variantOf(options.compatible ?? 'apple,t8103-dart');
    const { mmio } = options;
    this.#mmio = mmio;
    this.#pages = options.pages;
    this.#clock = options.clock;
    this.#mode = options.mode ?? 'strict';
    this.#variant = variant;
    this.#ids = new IdAllocator('domain', 0, (options.maxDomains ?? 1024) - 1);
    const params = (name: 'PARAMS1' | 'PARAMS2' | 'PARAMS3' | 'PARAMS4'): bigint =>
      BigInt(mmio.read32(T8110_REGISTERS[name].offset) >>> 0);
    this.#pageShift = Number(extract(params('PARAMS1'), PARAMS1.PAGE_SHIFT));
    this.supportsBypass = extract(params('PARAMS2'), PARAMS2.BYPASS_SUPPORT) === 1n;
    if (variant.generation === 't8110') {
      const widths = params('PARAMS3');
      this.#ias = Number(extract(widths, PARAMS3.VA_WIDTH));
      this.#oas = Number(extract(widths, PARAMS3.PA_WIDTH));
      this.streams = Number(extract(params('PARAMS4'), PARAMS4.NUM_SIDS));
    } else {
      // Nothing tells: the driver uses 32 bits of IOVA whatever the TTBRs could cover.
      this.#ias = 32;
      this.#oas = variant.oas;
      this.streams = variant.streams;
    }
    if (this.streams > 256) {
      throw new IommuError('EOPNOTSUPP', `DART has ${this.streams} streams: at most 256 are supported`);
    }
    this.#table = tableConfig(variant.pte, this.#pageShift, this.#ias, this.#oas);
    this.#domains = Array.from({ length: this.streams }, () => null);
    const flusher = new TlbFlusher(mmio, variant.generation);
    this.#flusher = flusher;
    this.info = {
      name: 'apple-dart',
      format: formatName(variant.pte, this.#pageShift, this.#ias, this.#oas),
      granuleLg2: this.#pageShift,
      pageSizes: 1n << BigInt(this.#pageShift),
      apertureFirst: 0n,
      apertureLast: (1n << BigInt(this.#ias)) - 1n,
      oas: this.#oas,
      requesters: this.streams,
      writeOnly: true,
      rules: 'io-pgtable',
      get invalidationCommands() {
        return flusher.commands;
      },
    };
    this.#reset();
  }

  /**
   * A new paging domain with tables of the part's only page size.
   * @throws IommuError `ENOSPC` when `maxDomains` are alive, `ENOMEM` without a page for the top tables, `ERANGE` when the
   *   allocator's pages lie beyond the part's physical address width.
   */
  createDomain(options: CreateDomainOptions = {}): PagingDomain {
    this.#checkAlive();
    const id = this.#ids.alloc();
    let domain: PagingDomain | null = null;
    try {
      domain = new PagingDomain({
        pages: this.#pages,
        clock: this.#clock,
        table: this.#table,
        ops: new DartDomainOps(this.#flusher, (gone) => this.#freed(gone)),
        mode: options.mode ?? this.#mode,
        ...(options.flushQueue === undefined ? {} : { flushQueue: options.flushQueue }),
        ...(options.freeMode === undefined ? {} : { freeMode: options.freeMode }),
        id,
        apertureLast: (1n << BigInt(this.#ias)) - 1n,
      });
    } finally {
      if (domain === null) this.#ids.free(id);
    }
    this.#live.add(domain);
    const wide = topTables(domain).find((root) => root >> BigInt(this.#oas) !== 0n);
    if (wide !== undefined) {
      domain.free();
      throw new IommuError('ERANGE', `top table at ${hex(wide)}: the part has ${this.#oas} address bits`, {
        root: wide,
      });
    }
    return domain;
  }

  attach(requester: number, domain: Domain): void {
    this.#checkAlive();
    this.#check(requester);
    const known =
      domain.type === 'paging'
        ? this.#live.has(domain)
        : domain === this.identityDomain || domain === this.blockedDomain;
    if (!known) {
      throw new IommuError('EINVAL', `the domain for stream ${requester} is not of this driver, or was freed`, {
        requester,
      });
    }
    if (domain.type === 'identity' && !this.supportsBypass) {
      throw new IommuError(
        'EOPNOTSUPP',
        `stream ${requester}: this DART cannot bypass, so there is no identity domain`,
        {
          requester,
        },
      );
    }
    this.#forget(requester);
    if (domain.type === 'paging') {
      (domain.ops as DartDomainOps).add(requester);
      domain.attached();
      this.#setupTranslation(requester, domain);
    } else {
      // No flush: with TRANSLATE_ENABLE clear nothing looks at what is cached, and attaching to a paging domain flushes.
      this.#writeTcr(requester, domain.type === 'identity' ? this.#variant.tcrBypass : 0);
    }
    this.#domains[requester] = domain;
  }

  detach(requester: number): void {
    this.#check(requester);
    if (this.#domains[requester] === null) return;
    this.#forget(requester);
    this.#writeTcr(requester, 0);
    for (let i = 0; i < this.#variant.ttbrCount; i++) this.#writeTtbr(requester, i, 0);
  }

  domainOf(requester: number): Domain | null {
    this.#check(requester);
    return this.#domains[requester]!;
  }

  /** The page of the PCIe MSI doorbell. */
  reservedRegions(): readonly ReservedRegion[] {
    const page = 1n << BigInt(this.#pageShift);
    const start = MSI_DOORBELL & ~(page - 1n);
    return [{ start, last: start + page - 1n, type: 'msi', doc: 'PCIe MSI doorbell' }];
  }

  /** The error interrupt handler. DART holds one error at a time, so at most one is returned. */
  handleFaults(): FaultEvent[] {
    this.#checkAlive();
    const mmio = this.#mmio;
    const variant = this.#variant;
    const error = mmio.read32(variant.error);
    const lo = mmio.read32(variant.errorAddrLo);
    const hi = mmio.read32(variant.errorAddrHi);
    const fault = decodeError(variant.generation, error, hi, lo);
    if (fault === null) return [];
    mmio.write32(variant.error, error);
    if (variant.generation === 't8110') {
      for (let i = 0; i < this.#words; i++) mmio.write32(T8110_REGISTERS.ERROR_STREAMS.offset + 4 * i, -1);
    }
    return [fault];
  }

  release(): void {
    if (this.#released) return;
    if (this.#live.size > 0) {
      throw new IommuError('EBUSY', `${this.#live.size} paging domain(s) are alive`, { domains: this.#live.size });
    }
    this.#released = true;
    this.#domains.fill(null);
    this.#reset();
  }

  /** 32-bit words of a register array with a bit a stream. */
  get #words(): number {
    return Math.ceil(this.streams / 32);
  }

  /** Every stream off, no tables, errors cleared, caches empty. */
  #reset(): void {
    const { lock, lockBit, error, enableStreams, generation, ttbrCount } = this.#variant;
    const config = this.#mmio.read32(lock);
    if ((config & lockBit) !== 0) {
      throw new IommuError('EBUSY', `DART is locked until reset: ${hex(config >>> 0)}`, { config: config >>> 0 });
    }
    for (let sid = 0; sid < this.streams; sid++) this.#writeTcr(sid, 0);
    for (let i = 0; i < ttbrCount; i++) for (let sid = 0; sid < this.streams; sid++) this.#writeTtbr(sid, i, 0);
    // All streams are let through: their TCR decides what they may do.
    for (let i = 0; i < this.#words; i++) this.#mmio.write32(enableStreams + 4 * i, -1);
    this.#mmio.write32(error, this.#mmio.read32(error));
    if (generation === 't8110') this.#mmio.write32(T8110_REGISTERS.ERROR_MASK.offset, 0);
    const all = new Int32Array(8);
    for (let sid = 0; sid < this.streams; sid++) all[sid >>> 5]! |= 1 << (sid & 31);
    this.#flusher.flush(all);
  }

  #setupTranslation(sid: number, domain: PagingDomain): void {
    const { ttbrCount, ttbrValid, ttbrShift, ttbrFieldShift, tcrTranslate, tcrFourLevel } = this.#variant;
    const roots = topTables(domain);
    for (let i = 0; i < ttbrCount; i++) {
      const root = roots[i];
      this.#writeTtbr(
        sid,
        i,
        root === undefined ? 0 : ttbrValid | (Number(root >> BigInt(ttbrShift)) << ttbrFieldShift),
      );
    }
    this.#writeTcr(sid, domain.table.topLevel === 2 ? tcrTranslate | tcrFourLevel : tcrTranslate);
    this.#flushOne(sid);
  }

  #flushOne(sid: number): void {
    this.#one.fill(0);
    this.#one[sid >>> 5] = 1 << (sid & 31);
    this.#flusher.flush(this.#one);
  }

  #writeTcr(sid: number, value: number): void {
    this.#mmio.write32(this.#variant.tcr + 4 * sid, value);
  }

  #writeTtbr(sid: number, i: number, value: number): void {
    this.#mmio.write32(this.#variant.ttbr + 4 * (this.#variant.ttbrCount * sid + i), value);
  }

  #forget(requester: number): void {
    const old = this.#domains[requester]!;
    this.#domains[requester] = null;
    if (old?.type !== 'paging') return;
    (old.ops as DartDomainOps).remove(requester);
    old.detached();
  }

  #freed(domain: PagingDomain): void {
    this.#ids.free(domain.id);
    this.#live.delete(domain);
  }

  #checkAlive(): void {
    if (this.#released) throw new IommuError('ENODEV', 'the driver has released its DART');
  }

  #check(requester: number): void {
    if (Number.isInteger(requester) && requester >= 0 && requester < this.streams) return;
    throw new IommuError('ERANGE', `stream ${requester}: this DART has streams 0 to ${this.streams - 1}`, {
      requester: `${requester}`,
    });
  }
}

/** Addresses of a domain's top tables, one for each TTBR it uses. */
const topTables = (domain: PagingDomain): readonly bigint[] => domain.table.rootPfns.map((pfn) => addressOfPfn(pfn));
