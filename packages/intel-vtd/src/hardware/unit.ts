/**
 * A remapping hardware unit on its registers.
 * VT-d specification revision 4.1, chapter 11 "Register Descriptions"; 3.4 and 6 for what the commands do.
 */
import { IommuError, extract, hex, maskLo } from '@iommu-ts/bits';
import type { Field } from '@iommu-ts/bits';
import { Iotlb, LAYER, RegisterFile, TRANSLATE_OK } from '@iommu-ts/iommu-core';
import type {
  HardwareStats,
  InvalidationEvent,
  InvalidationHints,
  IommuHardware,
  IotlbOptions,
  MmioPort,
} from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { CAP, ECAP, GCMD, OFFSET, parseCapabilities, registerBytes, registerMap } from '../registers.ts';
import type { Capabilities } from '../registers.ts';
import { FaultLog } from './fault-queue.ts';
import { EventInterrupt } from './interrupts.ts';
import { Invalidator } from './queues.ts';
import { Remapper } from './translate.ts';

/** Options of {@link VtdUnit}. */
export interface VtdUnitOptions {
  /** VER register (default 0x10). */
  readonly ver?: number;
  /** CAP register. */
  readonly cap: bigint;
  /** ECAP register. */
  readonly ecap: bigint;
  /** Host address width in bits, 32 … 52; the platform's tables tell it to software. Default: the guest address width of CAP. */
  readonly hostAddressWidth?: number;
  readonly iotlb?: IotlbOptions;
}

const TE = maskLo(GCMD.TE);
const SRTP = maskLo(GCMD.SRTP);
const QIE = maskLo(GCMD.QIE);
const AT_GSTS = OFFSET.GSTS / 4;

/** What CAP and ECAP may ask for that the unit does not have. */
const NOT_BUILT: readonly (readonly ['cap' | 'ecap', Field, string])[] = [
  ['cap', CAP.AFL, 'CAP.AFL (advanced fault logging)'],
  ['cap', CAP.PLMR, 'CAP.PLMR (protected low memory)'],
  ['cap', CAP.PHMR, 'CAP.PHMR (protected high memory)'],
  ['cap', CAP.PI, 'CAP.PI (posted interrupts)'],
  ['cap', CAP.ECMDS, 'CAP.ECMDS (enhanced commands)'],
  ['ecap', ECAP.IR, 'ECAP.IR (interrupt remapping)'],
  ['ecap', ECAP.NEST, 'ECAP.NEST (nested translation)'],
  ['ecap', ECAP.PRS, 'ECAP.PRS (page requests)'],
  ['ecap', ECAP.EAFS, 'ECAP.EAFS (extended accessed flag)'],
  ['ecap', ECAP.VCS, 'ECAP.VCS (virtual commands)'],
  ['ecap', ECAP.SSADS, 'ECAP.SSADS (second-stage accessed and dirty bits)'],
  ['ecap', ECAP.PMS, 'ECAP.PMS (performance monitoring)'],
  ['ecap', ECAP.ADMS, 'ECAP.ADMS (abort DMA mode)'],
];

const refuse = (caps: Capabilities): void => {
  for (const [register, field, what] of NOT_BUILT) {
    if (extract(caps[register], field) !== 0n) {
      throw new IommuError('EOPNOTSUPP', `${what} is not built`, { cap: caps.cap, ecap: caps.ecap });
    }
  }
};

/**
 * The device side of Intel VT-d: registers, remapping structures, second-stage walk, IOTLB, queued and register-based
 * invalidation, fault recording, event messages. Software sees it through {@link mmio} and memory only.
 *
 * Registers hold garbage as well as sense: no write throws, hangs or reads outside memory.
 *
 * With an IOTLB of mode `'retain'` the unit is the worst that the architecture allows: it keeps what it may until a command
 * that is defined to drop it (`retained.ts` says what), and executes invalidations, by queue or by register, only when software
 * next reads a register, so that a driver that does not wait is caught.
 */
export class VtdUnit implements IommuHardware {
  readonly name = 'intel-vtd';
  readonly memory: PhysicalMemory;
  readonly mmio: MmioPort;
  readonly iotlb: Iotlb;
  readonly stats: HardwareStats = {
    walks: 0,
    walkReads: 0,
    structureReads: 0,
    commands: 0,
    invalidations: 0,
    faults: 0,
  };
  /** What CAP and ECAP say, as numbers. */
  readonly capabilities: Capabilities;
  /** The register block; also what to map into physical memory as MMIO. */
  readonly registers: RegisterFile;
  onInvalidate: ((event: InvalidationEvent) => void) | null = null;
  get pendingInvalidations(): number {
    return this.invalidator.pending;
  }
  readonly invalidationHints: InvalidationHints = {
    leaf: 'a page-selective iotlb_inv_dsc',
    table: 'an iotlb_inv_dsc with IH=0',
    context: 'a cc_inv_dsc',
    completion: 'inv_wait_dsc',
  };

  probe(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number, layers: number): number {
    const status = this.remapper.probe(requester, pasid, iovaHi, iovaLo, access, layers);
    this.outHi = this.remapper.outHi;
    this.outLo = this.remapper.outLo;
    return status;
  }

  onInterrupt: ((source: string) => void) | null = null;

  private readonly remapper: Remapper;
  private readonly faultLog: FaultLog;
  private readonly faultEvent: EventInterrupt;
  private readonly completionEvent: EventInterrupt;
  private readonly invalidator: Invalidator;
  /** Invalidations wait until software reads a register. */
  private readonly defers: boolean;

  /**
   * @throws IommuError `EINVAL` for registers that overlap or a width outside 32 … 52, `EOPNOTSUPP` for a capability bit of
   *   something that is not built.
   */
  constructor(memory: PhysicalMemory, options: VtdUnitOptions) {
    const caps = parseCapabilities(options.cap, options.ecap);
    refuse(caps);
    const haw = options.hostAddressWidth ?? Math.min(52, Math.max(32, caps.mgaw));
    if (!(Number.isInteger(haw) && haw >= 32 && haw <= 52)) {
      throw new IommuError('EINVAL', `host address width ${haw} is not from 32 to 52`, { haw: `${haw}` });
    }
    this.iotlb = new Iotlb(options.iotlb);
    this.defers = this.iotlb.mode === 'retain';
    const afterWrite = (offset: number): void => this.written(offset);
    const registers = new RegisterFile(
      registerMap(options.ver ?? 0x10, caps),
      registerBytes(caps),
      this.defers ? { afterWrite, beforeRead: () => this.invalidate() } : { afterWrite },
    );
    this.memory = memory;
    this.capabilities = caps;
    this.registers = registers;
    this.mmio = registers;
    this.remapper = new Remapper(memory, this.iotlb, caps, haw, this.stats);
    this.faultEvent = new EventInterrupt(registers, memory, OFFSET.FECTL, () => this.onInterrupt?.('fault'));
    this.completionEvent = new EventInterrupt(registers, memory, OFFSET.IECTL, () => this.onInterrupt?.('completion'));
    this.faultLog = new FaultLog(registers, caps, this.faultEvent);
    this.invalidator = new Invalidator(
      registers,
      memory,
      caps,
      this.remapper,
      this.iotlb,
      this.faultLog,
      this.completionEvent,
      this.stats,
      this,
    );
  }

  /** Fields, not getters: the bus meets five classes of hardware, and a getter would be a slow call there. */
  outHi = 0;
  outLo = 0;

  /** Registers to their reset values, caches empty, counters zero. */
  reset(): void {
    this.registers.reset();
    this.remapper.reset();
    this.faultLog.restart();
    this.iotlb.invalidateAll();
    const stats = this.stats;
    stats.walks = stats.walkReads = stats.structureReads = stats.commands = stats.invalidations = stats.faults = 0;
    this.tellOfAll('reset');
  }

  private tellOfAll(name: string): void {
    const all = { domain: -1, requester: -1, startPfn: 0, lastPfn: Infinity };
    this.onInvalidate?.({ name, layers: LAYER.ALL, ...all });
  }

  /** See `Translator.translate`: the result is a fault reason (FRCD.FR), or -1 for a read of 0xFEEx_xxxx. */
  translate(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number): number {
    const status = this.remapper.translate(requester, pasid, iovaHi, iovaLo, access);
    if (status > TRANSLATE_OK && !this.remapper.faultDisabled) {
      this.stats.faults++;
      this.faultLog.record(status, requester, pasid, iovaHi | 0, iovaLo | 0, access);
    }
    this.outHi = this.remapper.outHi;
    this.outLo = this.remapper.outLo;
    return status;
  }

  /** Executes what software has handed over by queue and registers. */
  private invalidate(): void {
    this.invalidator.run();
    this.invalidator.contextCommand();
    this.invalidator.iotlbCommand();
  }

  private written(offset: number): void {
    switch (offset) {
      case OFFSET.GCMD:
        this.command();
        break;
      case OFFSET.CCMD:
        if (!this.defers) this.invalidator.contextCommand();
        break;
      case OFFSET.FSTS:
        this.faultLog.refresh();
        // A cleared queue error lets the queue go on from where it stopped.
        if (!this.defers) this.invalidator.run();
        break;
      case OFFSET.FECTL:
        this.faultEvent.deliver();
        break;
      case OFFSET.IQT:
        if (!this.defers) this.invalidator.run();
        break;
      case OFFSET.ICS:
        if ((this.registers.words[OFFSET.ICS / 4]! & 1) === 0) this.completionEvent.serviced();
        break;
      case OFFSET.IECTL:
        this.completionEvent.deliver();
        break;
      default:
        if (offset === this.capabilities.ivaOffset + 8) {
          if (!this.defers) this.invalidator.iotlbCommand();
        } else if (this.faultLog.owns(offset)) this.faultLog.refresh();
    }
  }

  /** GCMD: TE and QIE follow the written value, SRTP is a one-shot, WBF is done at once; the rest the unit does not have. */
  private command(): void {
    const words = this.registers.words;
    const value = words[OFFSET.GCMD / 4]!;
    words[OFFSET.GCMD / 4] = 0;
    if ((value & SRTP) !== 0) this.setRootTable();
    const queue = words[AT_GSTS]! & QIE;
    if ((value & QIE) !== queue && this.capabilities.qi) {
      words[AT_GSTS] = words[AT_GSTS]! ^ QIE;
      if (queue !== 0) this.invalidator.disable();
      else if (!this.defers) this.invalidator.run();
    }
    if ((value & TE) !== (words[AT_GSTS]! & TE)) {
      words[AT_GSTS] = words[AT_GSTS]! ^ TE;
      this.remapper.enabled = (value & TE) !== 0;
      if (!this.remapper.enabled) this.faultLog.restart();
    }
  }

  private setRootTable(): void {
    const words = this.registers.words;
    const lo = words[OFFSET.RTADDR / 4]!;
    this.remapper.rootPfn = (words[OFFSET.RTADDR / 4 + 1]! >>> 0) * 0x10_0000 + (lo >>> 12);
    this.remapper.mode = (lo >>> 10) & 3;
    words[AT_GSTS] = words[AT_GSTS]! | SRTP;
    if (this.capabilities.esrtps) {
      this.remapper.invalidateContexts();
      this.iotlb.invalidateAll();
      this.remapper.retained?.clear();
      this.tellOfAll('SRTP');
    }
  }

  /** The capability registers, for people. */
  toString(): string {
    return `intel-vtd CAP ${hex(this.capabilities.cap)} ECAP ${hex(this.capabilities.ecap)}`;
  }
}
