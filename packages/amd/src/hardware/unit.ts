/**
 * The AMD IOMMU on its registers: enabling, doorbells, acknowledgements.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, chapters 2 and 3.
 */
import { IommuError, extract, hex, maskLo } from '@iommu-ts/bits';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { Iotlb, LAYER, RegisterFile } from '@iommu-ts/iommu-core';
import type {
  HardwareStats,
  InvalidationEvent,
  InvalidationHints,
  IommuHardware,
  IotlbOptions,
  MmioPort,
} from '@iommu-ts/iommu-core';
import { Control, EFR_ACCEPTED, ExtFeature, REGISTERS, REGISTER_BLOCK_SIZE, registerMap } from '../registers.ts';
import { EventLog } from './fault-queue.ts';
import { Interrupts } from './interrupts.ts';
import { CommandBuffer } from './queues.ts';
import { TranslationUnit } from './translate.ts';

const CONTROL = REGISTERS.Control.offset / 4;
const IOMMU_EN = maskLo(Control.IommuEn);
const EVENT_LOG_EN = maskLo(Control.EventLogEn);
const CMD_BUF_EN = maskLo(Control.CmdBufEn);
const SEGMENTS_END = REGISTERS.DevTabSegBaseAddr.offset + 8 * REGISTERS.DevTabSegBaseAddr.count;

/** Identification registers of a unit. */
export interface AmdPreset {
  /** Extended Feature Register. */
  readonly efr: bigint;
  /** Extended Feature 2 Register; only 0 is known to this version. */
  readonly efr2: bigint;
  /** IotlbSup of the PCI capability header: INVALIDATE_IOTLB_PAGES is legal. */
  readonly iotlbSup: boolean;
}

/** Ready-made identification registers. */
export const AMD_PRESETS = {
  /** Six host levels (64-bit IOVAs), INVALIDATE_IOMMU_ALL, MSI registers in MMIO; no guest translation. */
  default: { efr: (1n << 6n) | (2n << 10n) | (1n << 46n), efr2: 0n, iotlbSup: false },
  /** Four host levels (48-bit IOVAs) and little else. */
  small: { efr: 1n << 6n, efr2: 0n, iotlbSup: false },
} as const satisfies Record<string, AmdPreset>;

/** Options of {@link AmdIommu}. */
export interface AmdIommuOptions extends Partial<AmdPreset> {
  readonly iotlb?: IotlbOptions;
  /**
   * Keep device table entries until INVALIDATE_DEVTAB_ENTRY, INVALIDATE_IOMMU_ALL or a write to the table's registers
   * (default true, false with an IOTLB of mode `'none'`).
   */
  readonly cacheDtes?: boolean;
  /**
   * Set PE in the IO_PAGE_FAULT of a refused permission, as 48882 section 2.5.3 describes it (default true). The
   * recordings that this project replays were made with implementations that leave it 0.
   */
  readonly recordPe?: boolean;
}

/**
 * An emulated AMD IOMMU with host (v1) page tables. It sees nothing but its registers and physical memory.
 *
 * Faults become entries of the event log in memory. Device table entries and translations are cached and stay stale until
 * software invalidates them, as on a real part; commands are executed at once when the tail pointer is written.
 *
 * With an IOTLB of mode `'retain'` the unit is the worst that the specification allows: everything stays cached until a
 * command drops it (page directory entries as well), and commands are executed only when software next reads a register, so
 * that a driver that does not wait is caught.
 */
export class AmdIommu implements IommuHardware {
  readonly name = 'amd-vi';
  readonly memory: PhysicalMemory;
  readonly iotlb: Iotlb;
  readonly stats: HardwareStats = {
    walks: 0,
    walkReads: 0,
    structureReads: 0,
    commands: 0,
    invalidations: 0,
    faults: 0,
  };
  readonly #registers: RegisterFile;
  readonly #interrupts: Interrupts;
  readonly #events: EventLog;
  readonly #commands: CommandBuffer;
  readonly #translation: TranslationUnit;
  /** Commands wait until software reads a register. */
  readonly #defers: boolean;
  #enables = 0;

  /** @throws IommuError `EOPNOTSUPP` for features that this version does not have, `EINVAL` for a reserved HATS. */
  constructor(memory: PhysicalMemory, options: AmdIommuOptions = {}) {
    const { efr, efr2, iotlbSup } = { ...AMD_PRESETS.default, ...options };
    const unknown = efr & ~EFR_ACCEPTED;
    if (unknown !== 0n || efr2 !== 0n) {
      const which = unknown !== 0n ? `ExtFeature bits ${hex(unknown)}` : `ExtFeature2 ${hex(efr2)}`;
      throw new IommuError('EOPNOTSUPP', `${which}: not supported by this version`, { efr, efr2 });
    }
    if (extract(efr, ExtFeature.HATS) === 3n) {
      throw new IommuError('EINVAL', `ExtFeature ${hex(efr)} has the reserved value 3 in HATS`, { efr });
    }
    this.memory = memory;
    this.iotlb = new Iotlb(options.iotlb);
    this.#defers = this.iotlb.mode === 'retain';
    const afterWrite = (offset: number): void => this.#written(offset);
    this.#registers = new RegisterFile(
      registerMap({ efr, efr2 }),
      REGISTER_BLOCK_SIZE,
      this.#defers ? { afterWrite, beforeRead: () => this.#commands.process() } : { afterWrite },
    );
    const words = this.#registers.words;
    this.#interrupts = new Interrupts(words, memory);
    this.#events = new EventLog(words, memory, this.#interrupts, this.stats);
    this.#translation = new TranslationUnit(words, memory, this.iotlb, this.#events, this.stats, {
      efr,
      cacheDtes: options.cacheDtes ?? this.iotlb.mode !== 'none',
      recordPe: options.recordPe ?? true,
    });
    const features = { efr, iotlbSup, exact: this.iotlb.mode === 'retain' };
    this.#commands = new CommandBuffer(
      words,
      memory,
      this.#events,
      this.#interrupts,
      this.#translation,
      this.stats,
      features,
      this,
    );
  }

  /** Its registers, as the CPU reaches them. */
  get mmio(): MmioPort {
    return this.#registers;
  }
  /** The register block, to be mapped into physical memory or looked into by tools. */
  get registers(): RegisterFile {
    return this.#registers;
  }
  onInvalidate: ((event: InvalidationEvent) => void) | null = null;
  get pendingInvalidations(): number {
    return this.#commands.pending;
  }
  readonly invalidationHints: InvalidationHints = {
    leaf: 'INVALIDATE_IOMMU_PAGES with PDE=0',
    table: 'INVALIDATE_IOMMU_PAGES with PDE=1',
    context: 'INVALIDATE_DEVTAB_ENTRY',
    completion: 'COMPLETION_WAIT',
  };

  probe(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number, layers: number): number {
    const status = this.#translation.probe(requester, pasid, iovaHi, iovaLo, access, layers);
    this.outHi = this.#translation.outHi;
    this.outLo = this.#translation.outLo;
    return status;
  }

  get onInterrupt(): ((source: string) => void) | null {
    return this.#interrupts.onInterrupt;
  }
  set onInterrupt(handler: ((source: string) => void) | null) {
    this.#interrupts.onInterrupt = handler;
  }
  /** Fields, not getters: the bus meets five classes of hardware, and a getter would be a slow call there. */
  outHi = 0;
  outLo = 0;

  reset(): void {
    this.#registers.reset();
    this.#enables = 0;
    this.#interrupts.reset();
    this.#translation.invalidateAll();
    this.#translation.configure();
    const stats = this.stats;
    stats.walks = stats.walkReads = stats.structureReads = stats.commands = stats.invalidations = stats.faults = 0;
    this.onInvalidate?.({
      name: 'reset',
      layers: LAYER.ALL,
      domain: -1,
      requester: -1,
      startPfn: 0,
      lastPfn: Infinity,
    });
  }

  /** @returns TRANSLATE_OK, an event code, or -1 for a requester id wider than 16 bits. */
  translate(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number): number {
    const status = this.#translation.translate(requester, pasid, iovaHi, iovaLo, access);
    this.outHi = this.#translation.outHi;
    this.outLo = this.#translation.outLo;
    return status;
  }

  #written(offset: number): void {
    switch (offset) {
      case REGISTERS.CmdBufTail.offset:
        if (!this.#defers) this.#commands.process();
        return;
      case REGISTERS.Control.offset:
        this.#control();
        return;
      case REGISTERS.Status.offset:
        this.#interrupts.update();
        return;
      case REGISTERS.ComBaseAddr.offset:
        this.#commands.place();
        return;
      case REGISTERS.EventBaseAddr.offset:
        this.#events.place();
        return;
      case REGISTERS.DevTabBaseAddr.offset:
      case REGISTERS.ExclusionBase.offset:
      case REGISTERS.ExclusionLimit.offset:
        this.#translation.configure();
        return;
      default:
        if (offset >= REGISTERS.DevTabSegBaseAddr.offset && offset < SEGMENTS_END) this.#translation.configure();
    }
  }

  /** Control has been written: what became 1 starts, what became 0 stops. Neither queue runs without IommuEn. */
  #control(): void {
    const control = this.#registers.words[CONTROL]!;
    const now = (control & IOMMU_EN) === 0 ? 0 : control & (IOMMU_EN | EVENT_LOG_EN | CMD_BUF_EN);
    const risen = now & ~this.#enables;
    const fallen = this.#enables & ~now;
    this.#enables = now;
    this.#translation.configure();
    if ((fallen & EVENT_LOG_EN) !== 0) this.#events.stop();
    if ((fallen & CMD_BUF_EN) !== 0) this.#commands.stop();
    if ((risen & EVENT_LOG_EN) !== 0) this.#events.start();
    this.#interrupts.update();
    if ((risen & CMD_BUF_EN) !== 0) {
      this.#commands.start();
      if (!this.#defers) this.#commands.process();
    }
  }
}
