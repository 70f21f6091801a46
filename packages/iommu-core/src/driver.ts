import type { IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { PageTableConfig } from '@iommu-ts/page-table';
import type { Bus } from './bus.ts';
import type { Checks } from './checks/checks.ts';
import type { CheckOptions, InvalidationEvent, InvalidationHints } from './checks/types.ts';
import type { VirtualClock } from './clock.ts';
import type { Domain, DomainMode, FreeMode, PagingDomain, PlainDomain } from './domain.ts';
import type { FaultEvent } from './fault.ts';
import type { FlushQueueOptions } from './flush-queue.ts';
import type { Iotlb, IotlbOptions } from './iotlb.ts';
import type { MmioPort } from './mmio.ts';
import type { ReservedRegion } from './reserved-region.ts';
import type { Translator } from './transaction.ts';

/** Counters of the device side, since reset. */
export interface HardwareStats {
  /** Page walks started (IOTLB misses that reached tables). */
  walks: number;
  /** Memory reads of page-table entries made by those walks. */
  walkReads: number;
  /** Memory reads of device structures (contexts, STEs, DTEs, …). */
  structureReads: number;
  /** Commands or descriptors executed (DART: flush operations). */
  commands: number;
  /** Of those, invalidations of cached translations. */
  invalidations: number;
  /** Faults recorded (or lost to an overflow of the queue). */
  faults: number;
}

/** The device: what stands behind the registers. It sees nothing but its registers and physical memory. */
export interface IommuHardware extends Translator {
  readonly name: string;
  readonly memory: PhysicalMemory;
  readonly mmio: MmioPort;
  readonly iotlb: Iotlb;
  readonly stats: HardwareStats;
  /** Registers to their reset values, caches empty, nothing enabled. */
  reset(): void;
  /** An interrupt line or message; for tests and for drivers that wait. Called with a name such as `'fault'` or `'cmdq'`. */
  onInterrupt: ((source: string) => void) | null;
  /**
   * What {@link Translator.translate} would answer if only the caches in `layers` ({@link LAYER} bits) were there, and the
   * rest were read from memory. It leaves no trace: no fault is recorded, no register, cache, counter or byte of memory
   * changes (but `outHi`, `outLo`). Not for the hot path; the checks compare its answer with the device's own.
   */
  probe(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number, layers: number): number;
  /** Told of every invalidation once it has taken effect, whether it came by queue or by register. */
  onInvalidate: ((event: InvalidationEvent) => void) | null;
  /** Invalidations accepted that have not taken effect yet; 0 but for the mode `'retain'`. */
  readonly pendingInvalidations: number;
  /**
   * The architecture forbids to change a valid table entry into a different valid one without having it invalid, and
   * invalidated, in between (Arm). Default false.
   */
  readonly needsBreakBeforeMake?: boolean;
  /** Names of the operations that a driver may have forgotten. */
  readonly invalidationHints: InvalidationHints;
}

/** What a driver found when it probed, and what its domains can express. */
export interface DriverInfo {
  /** `'intel-vtd'`, `'amd'`, `'arm-smmu'`, `'apple-dart'`, `'riscv'`. */
  readonly name: string;
  /** The page-table format of its paging domains, for people: `'vtdss-48'`, `'sv48'`, … */
  readonly format: string;
  /** Smallest page. */
  readonly granuleLg2: number;
  /** Bitmap of page sizes. */
  readonly pageSizes: bigint;
  /** First and last IOVA (inclusive) of the aperture that the driver hands out. */
  readonly apertureFirst: bigint;
  readonly apertureLast: bigint;
  /** Physical address width in bits: larger addresses can't be mapped. */
  readonly oas: number;
  /** Number of requester ids (streams) it can tell apart; ids are 0 … n-1. */
  readonly requesters: number;
  /** The format keeps write-only mappings apart from read-write ones. */
  readonly writeOnly: boolean;
  /** Which family's rules for overlap and partial unmap hold. */
  readonly rules: 'generic_pt' | 'io-pgtable';
  /** Commands the driver has sent so far that invalidate translations. */
  readonly invalidationCommands: number;
}

/** Options of a driver's paging domain. */
export interface CreateDomainOptions {
  readonly mode?: DomainMode;
  readonly flushQueue?: FlushQueueOptions;
  /** When its table pages go back (default `'now'`). */
  readonly freeMode?: FreeMode;
}

/** What an operating system's IOMMU driver does, the same for all five. It talks to the hardware through MMIO and memory only. */
export interface IommuDriver {
  readonly info: DriverInfo;
  /** A new paging domain. @throws IommuError `ENOSPC` when domain ids are used up, `ENOMEM`. */
  createDomain(options?: CreateDomainOptions): PagingDomain;
  /** DMA addresses are physical addresses. */
  readonly identityDomain: PlainDomain;
  /** Every DMA faults. */
  readonly blockedDomain: PlainDomain;
  /**
   * Attaches a device, or moves it to another domain; structures are rewritten and their caches invalidated in the order the
   * architecture asks for. @throws IommuError `ERANGE` for an id the unit can't tell apart, `EINVAL` for a foreign domain.
   */
  attach(requester: number, domain: Domain): void;
  /** Takes a device out: its DMA faults from then on as "not configured". A no-op for one that is not attached. */
  detach(requester: number): void;
  /** Domain that `requester` is attached to, or null. */
  domainOf(requester: number): Domain | null;
  /** IOVAs that a mapping must not use. */
  reservedRegions(): readonly ReservedRegion[];
  /** The fault handler: reads what the hardware has recorded through MMIO and memory, acknowledges it, and decodes it. */
  handleFaults(): FaultEvent[];
  /**
   * Disables translation and gives every page back. @throws IommuError `EBUSY` while a paging domain is alive.
   */
  release(): void;
}

/** Options of {@link DriverHarness.createSystem}. */
export interface SystemOptions {
  /** Physical memory to use; the default is 64 GiB of sparse RAM at 0. */
  readonly memory?: PhysicalMemory;
  /** Allocator for tables and queues; the default is a buddy allocator over the last GiB of the RAM. */
  readonly pages?: IommuPages;
  readonly clock?: VirtualClock;
  readonly iotlb?: IotlbOptions;
  /** Mode of domains that do not say (default strict). */
  readonly mode?: DomainMode;
  /** Run with the checks: `true` for all of them. Best together with an IOTLB of mode `'retain'`. Default off, at no cost. */
  readonly checks?: boolean | CheckOptions;
  /** Stands between the driver and the registers: a tracer, or a fault injector. Default: nothing does. */
  readonly port?: (mmio: MmioPort, memory: PhysicalMemory) => MmioPort;
  /**
   * The walker does not snoop the CPU's caches (VT-d ECAP.C and SMPWC = 0, SMMU IDR0.COHACC = 0): the driver must flush what it
   * writes. Units that have no such form throw `EOPNOTSUPP`. With the checks on, bytes that were not flushed are really
   * invisible to the device. Default false.
   */
  readonly incoherentWalker?: boolean;
}

/** One IOMMU, ready to use: hardware reset and probed by its driver, a bus in front of it. */
export interface IommuSystem {
  readonly memory: PhysicalMemory;
  readonly pages: IommuPages;
  readonly clock: VirtualClock;
  readonly hardware: IommuHardware;
  readonly driver: IommuDriver;
  readonly bus: Bus;
  /** The checks and what they found; null when they are off. */
  readonly checks: Checks | null;
}

/** What the structures in memory say about one requester: for dumps. */
export interface DeviceConfig {
  /** `'paging'`, `'identity'`, `'blocked'`, or `'invalid'` (a fault at the structures; `reason` says which). */
  readonly kind: 'paging' | 'identity' | 'blocked' | 'invalid';
  readonly reason?: string;
  /** Domain id, ASID or VMID, as the structures have it. */
  readonly domainId?: number;
  /** Stages or tables to read with `PageTable.open`, usually one. */
  readonly tables?: readonly { readonly name: string; readonly config: PageTableConfig; readonly root: bigint }[];
  /** Fields for people. */
  readonly details: Readonly<Record<string, string>>;
}

/** A kind of page table that a driver can build, for suites and benchmarks over all formats. */
export interface FormatVariant {
  /** As in the golden files where there is one: `'vtdss-48'`, `'arm-s1-4k-48'`, `'dart1-16k-36-36'`, … */
  readonly name: string;
  readonly config: PageTableConfig;
}

/**
 * What a driver package hands to suites, players, the command line and benchmarks, so that those know no vendor.
 * Exported from the package's `/harness` entry.
 */
export interface DriverHarness {
  readonly name: string;
  /** Value of `iommu` in the header of recorded vectors and snapshots: `'riscv-iommu'`, `'arm-smmu-v3'`, … */
  readonly vectorName: string;
  readonly title: string;
  /** A fresh IOMMU with its driver, nothing attached. @throws IommuError `ENOMEM` when the tables do not fit. */
  createSystem(options?: SystemOptions): IommuSystem;
  /**
   * The bare device as a vector file's header describes it: identification registers from `config`.
   * @throws IommuError `EFORMAT` for a config it can't read, `EOPNOTSUPP` for one that needs what is not built yet.
   */
  createHardware(
    memory: PhysicalMemory,
    config: Readonly<Record<string, unknown>>,
    iotlb?: IotlbOptions,
  ): IommuHardware;
  /** Requester for {@link Translator.translate} of a recorded `dma` operation (DART's has `sid`). */
  requesterOf(op: Readonly<Record<string, unknown>>): number;
  /**
   * Reads a device's configuration out of a dump: register values by the names of the snapshot's manifest, and memory.
   * Never throws for what the dump holds.
   */
  inspect(memory: PhysicalMemory, register: (name: string) => bigint | undefined, requester: number): DeviceConfig;
  /** Formats its domains can be built with; the first is the default. */
  readonly formats: readonly FormatVariant[];
  /** Codes that `translate` returns for each kind of fault, empty where the architecture has none. */
  readonly faultCodes: {
    readonly notConfigured: readonly number[];
    readonly notPresent: readonly number[];
    readonly permission: readonly number[];
    readonly addressWidth: readonly number[];
    readonly reservedBit: readonly number[];
  };
  /**
   * Sets a bit that the format reserves in the leaf entry at physical address `entryPa`, for the fault suites;
   * false where the format has no reserved bit that hardware checks.
   */
  setReservedBit(memory: PhysicalMemory, entryPa: bigint, level: number): boolean;
  /**
   * Whether the unit behind the registers neither translates nor reads or writes a queue: what a driver has to leave behind
   * that gave up. Absent where creating the driver takes no memory.
   */
  isOff?(mmio: MmioPort): boolean;
}
