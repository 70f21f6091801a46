/** The checks ("sanitizers"): what no silicon has. One object a system; it watches allocator, driver, bus and device. */
import { addressOfPfn, hex, pfnOf } from '@iommu-ts/bits';
import type { IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { Bus } from '../bus.ts';
import type { VirtualClock } from '../clock.ts';
import type { IommuDriver, IommuHardware } from '../driver.ts';
import { BreakBeforeMake } from './break-before-make.ts';
import { DeviceMemory } from './device-memory.ts';
import { DomainWatch } from './domain-watch.ts';
import { watchDriver } from './driver-watch.ts';
import { Incoherence } from './incoherence.ts';
import type { FlushRow } from './incoherence.ts';
import { Invalidations } from './invalidations.ts';
import type { InvalidationRow, SyncRow } from './invalidations.ts';
import { watchPages } from './pages-watch.ts';
import { POISON, Quarantine } from './quarantine.ts';
import { allocatedText } from './quarantine.ts';
import type { FreedBlock } from './quarantine.ts';
import { ReportLog, at } from './report-log.ts';
import { CheckState } from './state.ts';
import { TablePages } from './table-pages.ts';
import { CheckedTranslator } from './translations.ts';
import { CHECK_KINDS } from './types.ts';
import type { CheckKind, CheckOptions, CheckReport, InvalidationEvent } from './types.ts';

/** What is watched before there is a device. */
export interface CheckedMachine {
  readonly memory: PhysicalMemory;
  readonly pages: IommuPages;
  readonly clock: VirtualClock;
  /** CPU writes are invisible to the device until they are flushed. */
  readonly incoherent: boolean;
}

/** What the checks have counted; see {@link Checks.summary}. */
export interface CheckSummary {
  readonly operations: number;
  /** Reports by kind, also those that were not kept. */
  readonly reports: Readonly<Record<CheckKind, number>>;
  readonly total: number;
  /** Of those, not kept. */
  readonly suppressed: number;
  /** Translations that still answered for what was unmapped in lazy mode and not flushed yet, as they may. */
  readonly lazyUses: number;
}

const QUARANTINE_PAGES = 4096;

/**
 * Finds what a driver does wrong although every test passes: see {@link CheckKind}. Made by `createMachine` when a system
 * asks for checks. All of it works from outside, by wrapping methods of the objects that it watches: without checks nothing
 * is there.
 */
export class Checks {
  /** As given. */
  readonly options: CheckOptions;
  /** Memory as the device sees it: every access of the device to structures, tables and queues goes through this. */
  readonly deviceMemory: DeviceMemory;
  readonly #log: ReportLog;
  readonly #state: CheckState;
  readonly #tables: TablePages;
  readonly #invalidations: Invalidations;
  readonly #breakBeforeMake: BreakBeforeMake;
  /** Null where the walker snoops. */
  readonly #incoherence: Incoherence | null;
  #quarantine: Quarantine | null = null;
  #translator: CheckedTranslator | null = null;
  /** `nr_iommu_pages` before the driver began. */
  readonly #pagesBefore: number;

  constructor(machine: CheckedMachine, options: CheckOptions) {
    this.options = options;
    this.#log = new ReportLog(machine.clock, options);
    this.deviceMemory = new DeviceMemory(machine.memory);
    this.#state = new CheckState(this.#log, machine.pages, this.deviceMemory);
    this.#tables = new TablePages(this.#state);
    this.#invalidations = new Invalidations(this.#state, this.#tables);
    this.#breakBeforeMake = new BreakBeforeMake(this.#state, this.#tables);
    this.#incoherence = machine.incoherent ? new Incoherence(this.#state, this.#tables) : null;
    const incoherence = this.#incoherence;
    if (incoherence !== null) {
      machine.pages.cacheMaintenance = incoherence;
      this.#tables.onPart = (part) => incoherence.allocated(part);
    }
    this.#quarantinePages(machine);
    this.#pagesBefore = machine.pages.nrIommuPages();
    watchPages(machine.pages, this.#tables, this.#log);
  }

  /** Everything found so far, up to `maxReports`. */
  get reports(): readonly CheckReport[] {
    return this.#log.reports;
  }

  /** Translations that still answered for what was unmapped in lazy mode and not flushed yet: allowed, and the price of it. */
  get lazyUses(): number {
    return this.#translator?.lazyUses ?? 0;
  }

  /**
   * Runs `body`, which does on purpose what `kind` is about (a test of misuse, a workload that cuts mappings): findings of
   * that kind are counted, not kept.
   * @returns how many there were.
   */
  onPurpose(kind: CheckKind, body: () => void): number {
    const outer = this.#log.onPurpose.get(kind);
    this.#log.onPurpose.set(kind, 0);
    try {
      body();
      return this.#log.onPurpose.get(kind)!;
    } finally {
      if (outer === undefined) this.#log.onPurpose.delete(kind);
      else this.#log.onPurpose.set(kind, outer);
    }
  }

  /** Begins to watch: the bus, every domain of the driver, the device's invalidations. */
  watch(hardware: IommuHardware, driver: IommuDriver, bus: Bus): void {
    this.#state.hardware = hardware;
    this.#state.driver = driver;
    this.#tables.started = true;
    const { log } = this.#state;
    const broken =
      hardware.needsBreakBeforeMake === true && log.wants('break-before-make') ? this.#breakBeforeMake : null;
    listen(hardware, (event) => {
      this.#tables.invalidated(event);
      this.#invalidations.invalidated(event);
      broken?.invalidated(event);
    });
    const incoherence = log.wants('incoherent') ? this.#incoherence : null;
    const translator = new CheckedTranslator(this.#state, bus.translator, this.#quarantine!.pages, incoherence);
    this.#translator = translator;
    (bus as { translator: Bus['translator'] }).translator = translator;
    if (log.wants('over-invalidation')) {
      this.#invalidations.translating = translator;
      hardware.iotlb.listener = this.#invalidations;
    }
    const domains = new DomainWatch(this.#state, this.#tables, this.#invalidations, broken);
    watchDriver(this.#state, this.#tables, domains, this.#invalidations, driver, this.#pagesBefore);
  }

  #quarantinePages(machine: CheckedMachine): void {
    machine.pages.partPoison = POISON;
    const limit = this.#log.wants('use-after-free') ? (this.options.quarantinePages ?? QUARANTINE_PAGES) : 0;
    machine.pages.wrapSource((source) => {
      this.#quarantine = new Quarantine(source, machine.memory, limit, {
        allocated: (pfn, bytes) => {
          const block = this.#tables.allocated(pfn, bytes);
          this.#incoherence?.allocated(block);
        },
        freeing: (pfn, bytes) => {
          this.#incoherence?.freeing(pfn, bytes);
          const block = this.#tables.freeing(pfn);
          const freedBy = block?.leaving ?? this.#log.event;
          return { freedBy, allocatedBy: block?.allocatedBy, isTable: (block?.table ?? null) !== null };
        },
        overwritten: (block, offset) => this.#overwritten(block, offset),
      });
      return this.#quarantine;
    });
    this.deviceMemory.freed = this.#quarantine!.pages;
    this.deviceMemory.onFreed = (pfn, write) => this.#usedFreed(pfn, write);
  }

  #usedFreed(pfn: number, write: boolean): void {
    const translator = this.#translator;
    // Whether an entry in memory or one in a cache leads to it is known after the translation.
    if (translator !== null && translator.requester >= 0) {
      translator.touched.push({ pfn, write });
      return;
    }
    const block = this.#quarantine!.pages.get(pfn)!;
    this.#log.report(hex(pfn), {
      kind: 'use-after-free',
      what: `the device ${write ? 'writes to' : 'reads'} page ${at(pfn)}, which has been freed${allocatedText(block)}`,
      hint: 'take the page out of the registers and structures that name it before it is freed',
      addresses: { page: addressOfPfn(pfn) },
      freedBy: block.freedBy,
    });
  }

  #overwritten(block: FreedBlock, offset: number): void {
    this.#log.report(`poison ${block.pfn}`, {
      kind: 'use-after-free',
      what:
        `byte ${hex(offset)} of the block at ${at(block.pfn)} was written after the block was freed, by the CPU or by a ` +
        `DMA${allocatedText(block)}`,
      hint: 'write to the page before it is freed, or allocate another one',
      addresses: { page: addressOfPfn(block.pfn), written: addressOfPfn(block.pfn, offset) },
      freedBy: block.freedBy,
    });
  }

  /**
   * The owner of `bytes` at physical address `pa` gives them back to the system: no mapping may be left. Linux:
   * `IOMMU_DEBUG_PAGEALLOC`.
   */
  dataFreed(pa: bigint, bytes: number): void {
    const first = pfnOf(pa);
    const last = pfnOf(pa + BigInt(Math.max(bytes, 1)) - 1n);
    for (const model of this.#state.models.values()) {
      const mapping = model.mappings.ofPhysical(first, last);
      if (mapping === undefined) continue;
      const pfn = Math.max(first, mapping.paPfn);
      const iova = addressOfPfn(mapping.startPfn + (pfn - mapping.paPfn));
      this.#log.report(`data ${model.domain.id} ${pfn}`, {
        kind: 'misuse',
        what: `data page ${at(pfn)} is freed while it is mapped at iova ${hex(iova)} in domain ${model.domain.id}`,
        hint: `unmap iova ${hex(iova)} of domain ${model.domain.id} before the page is freed`,
        addresses: { iova, page: addressOfPfn(pfn) },
        mappedBy: mapping.mappedBy,
      });
    }
  }

  /** The end: domains that were never freed are leaks, and freed pages are looked at once more. Returns all reports. */
  finish(): readonly CheckReport[] {
    this.#quarantine!.inspect();
    for (const model of this.#state.models.values()) {
      const { live } = model.mappings;
      const [first] = live;
      const mapped =
        first === undefined ? '' : `, with ${live.length} run(s) of pages mapped, the first at ${at(first.startPfn)}`;
      this.#log.report(`domain ${model.domain.id}`, {
        kind: 'leak',
        what: `domain ${model.domain.id}, made by operation ${model.createdBy.operation}, was never freed${mapped}`,
        hint: 'free() the domain',
        addresses: first === undefined ? {} : { iova: addressOfPfn(first.startPfn), pa: addressOfPfn(first.paPfn) },
        ...(first === undefined ? {} : { mappedBy: first.mappedBy }),
      });
    }
    return this.reports;
  }

  /** What was counted. */
  summary(): CheckSummary {
    const reports = Object.fromEntries(CHECK_KINDS.map((kind) => [kind, this.#log.count(kind)])) as Record<
      CheckKind,
      number
    >;
    return {
      operations: this.#log.operation,
      reports,
      total: Object.values(reports).reduce((a, b) => a + b, 0),
      suppressed: this.#log.suppressed,
      lazyUses: this.lazyUses,
    };
  }

  /** Commands that invalidate, by name: sent, entries dropped, and those of them that were still true. */
  invalidationTable(): readonly InvalidationRow[] {
    return this.#invalidations.commandRows;
  }

  /** On an incoherent machine: flushes by operation, and how many of their cache lines the device had already. */
  flushTable(): readonly FlushRow[] {
    return this.#incoherence?.rows ?? [];
  }

  /** Operations that invalidate: what they sent, and how many of them had to send anything. */
  operationTable(): readonly SyncRow[] {
    return this.#invalidations.operationRows;
  }
}

/** Puts `own` before whatever listens to the device's invalidations, now or later. */
const listen = (hardware: IommuHardware, own: (event: InvalidationEvent) => void): void => {
  let other = hardware.onInvalidate;
  const both = (event: InvalidationEvent): void => {
    own(event);
    other?.(event);
  };
  hardware.onInvalidate = both;
  Object.defineProperty(hardware, 'onInvalidate', {
    get: () => both,
    set: (listener: IommuHardware['onInvalidate']) => {
      other = listener;
    },
    configurable: true,
  });
};
