/**
 * The IOMMU on its registers: RISC-V IOMMU Architecture Specification 1.0.
 */
import { maskHi, maskLo, pfnOfWords } from '@iommu-ts/bits';
import { LAYER, RegisterFile } from '@iommu-ts/iommu-core';
import type {
  HardwareStats,
  InvalidationEvent,
  InvalidationHints,
  IommuHardware,
  Iotlb,
  IotlbOptions,
  RegisterMap,
  RegisterSpec,
} from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { REGISTERS, REGISTER_BLOCK_BYTES, ddtp } from '../registers.ts';
import { TranslationCache } from './cache.ts';
import { runTranslationRequest } from './debug.ts';
import { FaultQueue } from './fault-queue.ts';
import { Features } from './features.ts';
import type { RiscvIommuHardwareOptions } from './features.ts';
import { Interrupts, PIP } from './interrupts.ts';
import { CommandQueue } from './queues.ts';
import type { AtsMessage } from './queues.ts';
import { TranslationEngine } from './translate.ts';
import { CAUSE } from '../faults.ts';

const FCTL = REGISTERS.fctl.offset;
const DDTP = REGISTERS.ddtp.offset;
const CQB = REGISTERS.cqb.offset;
const CQT = REGISTERS.cqt.offset;
const FQB = REGISTERS.fqb.offset;
const FQH = REGISTERS.fqh.offset;
const PQB = REGISTERS.pqb.offset;
const PQH = REGISTERS.pqh.offset;
const PQT = REGISTERS.pqt.offset;
const CQCSR = REGISTERS.cqcsr.offset;
const FQCSR = REGISTERS.fqcsr.offset;
const PQCSR = REGISTERS.pqcsr.offset;
const IPSR = REGISTERS.ipsr.offset;
const TR_REQ_CTL = REGISTERS.tr_req_ctl.offset;
const MSI_FIRST = REGISTERS.msi_addr.offset;
const MSI_END = MSI_FIRST + 256;

const ACTIVE = 1 << 16;
const PPN_LO = maskLo(ddtp.PPN);
const PPN_HI = maskHi(ddtp.PPN);

/** Registers that this instance has: those of absent capabilities read as zero and ignore writes. */
const registerMap = (features: Features): RegisterMap => {
  const map: Record<string, RegisterSpec> = { ...REGISTERS };
  const drop = (...names: string[]): void => {
    for (const name of names) delete map[name];
  };
  if (!features.ats) drop('pqb', 'pqh', 'pqt', 'pqcsr');
  if (!features.hpm) drop('iocountovf', 'iocountinh', 'iohpmcycles', 'iohpmctr', 'iohpmevt');
  if (!features.dbg) drop('tr_req_iova', 'tr_req_ctl', 'tr_response');
  if (features.igs === 1) drop('msi_addr', 'msi_data', 'msi_vec_ctl');
  return map;
};

/**
 * The emulated device.
 *
 * Commands, debug requests and mode changes complete before the register write returns, so no `busy` bit is ever seen set.
 * Writes that the specification calls UNSPECIFIED (a queue base while the queue is on, `ddtp` from one directory depth to
 * another, `fctl` while the IOMMU is not Off) are ignored. Where the IOTLB caches, so do device and process contexts, until
 * IODIR commands, a write of `ddtp` or a reset drop them. With an IOTLB of mode `'retain'` it is the adversarial device: see
 * `retained.ts` for what it keeps and `queues.ts` for when it executes commands.
 */
export class RiscvIommuHardware implements IommuHardware {
  readonly name = 'riscv';
  readonly memory: PhysicalMemory;
  readonly mmio: RegisterFile;
  readonly iotlb: Iotlb;
  readonly stats: HardwareStats = {
    walks: 0,
    walkReads: 0,
    structureReads: 0,
    commands: 0,
    invalidations: 0,
    faults: 0,
  };
  readonly features: Features;
  readonly #cache: TranslationCache;
  readonly #interrupts: Interrupts;
  readonly #faults: FaultQueue;
  readonly #commands: CommandQueue;
  readonly #engine: TranslationEngine;
  #pqMask = 0;

  /** @throws IommuError `EINVAL`, `EOPNOTSUPP` for `capabilities` or `fctl` that can't be, or are not built yet. */
  constructor(memory: PhysicalMemory, options: RiscvIommuHardwareOptions = {}, iotlb: IotlbOptions = {}) {
    this.memory = memory;
    this.features = new Features(options);
    this.mmio = new RegisterFile(registerMap(this.features), REGISTER_BLOCK_BYTES, {
      onWrite: (offset, size, hi, lo) => this.#onWrite(offset, size, hi, lo),
      afterWrite: (offset) => this.#afterWrite(offset),
      ...(iotlb.mode === 'retain' ? { beforeRead: () => this.#commands.run() } : {}),
    });
    this.mmio.define(REGISTERS.capabilities.offset, 8, this.features.capabilities);
    this.mmio.define(FCTL, 4, BigInt(this.features.fctlReset));
    this.mmio.define(DDTP, 8, this.features.ddtpReset);
    this.#cache = new TranslationCache(iotlb);
    this.iotlb = this.#cache.iotlb;
    this.#interrupts = new Interrupts(memory, this.mmio, this.features);
    this.#faults = new FaultQueue(memory, this.mmio, this.#interrupts, this.stats);
    this.#commands = new CommandQueue(memory, this.mmio, this.features, this.#interrupts, this.#cache, this.stats);
    this.#engine = new TranslationEngine(memory, this.features, this.#cache, this.#faults, this.stats);
    this.#interrupts.onMessageFault = (hi, lo) => this.#faults.record(CAUSE.MSI_WRITE_ACCESS_FAULT, 0, hi, lo, 0, 0);
    this.reset();
  }

  /** Fields, not getters: the bus meets five classes of hardware, and a getter would be a slow call there. */
  outHi = 0;
  outLo = 0;

  /** Told of IOTINVAL and IODIR commands once executed, and of a reset. */
  get onInvalidate(): ((event: InvalidationEvent) => void) | null {
    return this.#commands.onInvalidate;
  }
  set onInvalidate(listener: ((event: InvalidationEvent) => void) | null) {
    this.#commands.onInvalidate = listener;
  }

  get pendingInvalidations(): number {
    return this.#commands.pending;
  }

  readonly invalidationHints: InvalidationHints = {
    leaf: 'IOTINVAL.VMA',
    table: 'IOTINVAL.VMA with AV=0, or with NL=1',
    context: 'IODIR.INVAL_DDT',
    completion: 'IOFENCE.C',
  };

  probe(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number, layers: number): number {
    const { walks, walkReads, structureReads } = this.stats;
    const engine = this.#engine;
    const status = engine.probe(requester, pasid, iovaHi, iovaLo, access, layers);
    this.outHi = engine.outHi;
    this.outLo = engine.outLo;
    this.stats.walks = walks;
    this.stats.walkReads = walkReads;
    this.stats.structureReads = structureReads;
    return status;
  }

  /** Called with `'cmdq'`, `'fault'`, `'priq'` or `'pmu'` when a bit of `ipsr` goes from 0 to 1. */
  get onInterrupt(): ((source: string) => void) | null {
    return this.#interrupts.onInterrupt;
  }
  set onInterrupt(listener: ((source: string) => void) | null) {
    this.#interrupts.onInterrupt = listener;
  }

  /** Called with the PCIe messages that ATS commands ask for. */
  get onAtsMessage(): ((message: AtsMessage) => void) | null {
    return this.#commands.onAtsMessage;
  }
  set onAtsMessage(listener: ((message: AtsMessage) => void) | null) {
    this.#commands.onAtsMessage = listener;
  }

  reset(): void {
    this.mmio.reset();
    this.#interrupts.reset();
    this.#cache.invalidateAll();
    this.#commands.place(0, 1);
    this.#faults.place(0, 1);
    this.#pqMask = 1;
    this.#directoryChanged();
    for (const key of Object.keys(this.stats) as (keyof HardwareStats)[]) this.stats[key] = 0;
    this.onInvalidate?.({
      name: 'reset',
      layers: LAYER.ALL,
      domain: -1,
      requester: -1,
      startPfn: 0,
      lastPfn: Infinity,
    });
  }

  translate(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number): number {
    const status = this.#engine.translate(requester, pasid, iovaHi, iovaLo, access);
    this.outHi = this.#engine.outHi;
    this.outLo = this.#engine.outLo;
    return status;
  }

  /** Registers whose writes do more than store; true when all is done here. */
  #onWrite(offset: number, size: 4 | 8, hi: number, lo: number): boolean {
    switch (offset & ~7) {
      case DDTP:
        this.#writeDdtp(offset, size, hi, lo);
        return true;
      case CQB:
        if ((this.mmio.words[CQCSR >> 2]! & ACTIVE) === 0) {
          this.#writeBase(CQB, offset, size, hi, lo);
          this.#commands.place(this.#basePfn(CQB), this.#baseMask(CQB));
        }
        return true;
      case FQB:
        if ((this.mmio.words[FQCSR >> 2]! & ACTIVE) === 0) {
          this.#writeBase(FQB, offset, size, hi, lo);
          this.#faults.place(this.#basePfn(FQB), this.#baseMask(FQB));
        }
        return true;
      case PQB:
        if ((this.mmio.words[PQCSR >> 2]! & ACTIVE) === 0) {
          this.#writeBase(PQB, offset, size, hi, lo);
          this.#pqMask = this.#baseMask(PQB);
          this.mmio.words[PQH >> 2] = this.mmio.words[PQH >> 2]! & this.#pqMask;
        }
        return true;
    }
    switch (offset) {
      case FCTL:
        if (this.#engine.mode === 0) {
          const { fctlWritable } = this.features;
          const words = this.mmio.words;
          words[FCTL >> 2] = (words[FCTL >> 2]! & ~fctlWritable) | (lo & fctlWritable);
        }
        return true;
      case CQT:
        this.#commands.writeTail(lo);
        return true;
      case FQH:
        this.#faults.writeHead(lo);
        return true;
      case PQH:
        this.mmio.words[PQH >> 2] = lo & this.#pqMask;
        return true;
      case CQCSR:
        this.#commands.writeCsr(lo);
        return true;
      case FQCSR:
        this.#faults.writeCsr(lo);
        return true;
      case PQCSR:
        this.#writePqcsr(lo);
        return true;
      case IPSR:
        this.#interrupts.acknowledge(lo);
        this.#commands.updateInterrupt();
        this.#faults.updateInterrupt();
        this.#updatePageRequestInterrupt();
        return true;
      default:
        return false;
    }
  }

  #afterWrite(offset: number): void {
    if (offset === TR_REQ_CTL) {
      if ((this.mmio.words[TR_REQ_CTL >> 2]! & 1) !== 0) runTranslationRequest(this.mmio, this.#engine);
    } else if (offset >= MSI_FIRST && offset < MSI_END && (offset & 0xf) === 0xc) {
      this.#interrupts.maskChanged((offset - MSI_FIRST) >> 4);
    }
  }

  #writeDdtp(offset: number, size: 4 | 8, hi: number, lo: number): void {
    const words = this.mmio.words;
    const at = DDTP >> 2;
    if (size === 4 && offset === DDTP + 4) {
      words[at + 1] = lo & PPN_HI;
    } else {
      const mode = lo & 0xf;
      const old = words[at]! & 0xf;
      // WARL: a mode that does not exist here leaves the register as it was. From one directory depth to another the
      // specification wants Off or Bare in between.
      if (mode > this.features.maxIommuMode || (mode > 1 && old > 1 && mode !== old)) return;
      words[at] = (lo & PPN_LO) | mode;
      if (size === 8) words[at + 1] = hi & PPN_HI;
    }
    this.#directoryChanged();
  }

  #directoryChanged(): void {
    const words = this.mmio.words;
    const at = DDTP >> 2;
    const mode = words[at]! & 0xf;
    this.#engine.mode = mode;
    this.#engine.directory.place(Math.max(mode - 1, 0), ppnOf(words[at + 1]!, words[at]!));
    this.#cache.rootChanged();
  }

  #writeBase(base: number, offset: number, size: 4 | 8, hi: number, lo: number): void {
    const words = this.mmio.words;
    const at = base >> 2;
    if (size === 4 && offset === base + 4) {
      words[at + 1] = lo & PPN_HI;
      return;
    }
    words[at] = (lo & PPN_LO) | Math.min(lo & 0x1f, this.features.queueLog2szMax);
    if (size === 8) words[at + 1] = hi & PPN_HI;
  }

  #basePfn(base: number): number {
    return ppnOf(this.mmio.words[(base >> 2) + 1]!, this.mmio.words[base >> 2]!);
  }

  /** Index bits of a queue: 2^LOG2SZ - 1. */
  #baseMask(base: number): number {
    return (2 ** ((this.mmio.words[base >> 2]! & 0x1f) + 1) - 1) | 0;
  }

  /** The page-request queue: registers only; nothing on this bus sends page requests. */
  #writePqcsr(value: number): void {
    const words = this.mmio.words;
    const old = words[PQCSR >> 2]!;
    let csr = (old & 0x300 & ~value) | (value & 3);
    if ((value & 1) !== 0) {
      csr |= ACTIVE;
      if ((old & 1) === 0) {
        csr &= ~0x300;
        words[PQT >> 2] = 0;
      }
    }
    words[PQCSR >> 2] = csr;
    this.#updatePageRequestInterrupt();
  }

  #updatePageRequestInterrupt(): void {
    const csr = this.mmio.words[PQCSR >> 2]!;
    if (this.features.ats && (csr & 2) !== 0 && (csr & 0x300) !== 0) this.#interrupts.raise(PIP);
  }
}

const ppnOf = (hi: number, lo: number): number => pfnOfWords((hi << 2) | (lo >>> 30), (lo & ~0x3ff) << 2);
