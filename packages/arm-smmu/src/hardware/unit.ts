/**
 * An SMMUv3 behind its registers (Arm IHI 0070, non-secure programming interface): what a device's transaction meets from
 * StreamID to physical address or event record.
 */
import { CHECKS, maskLo } from '@iommu-ts/bits';
import { ACCESS, Iotlb, LAYER, RegisterFile, TRANSLATE_OK } from '@iommu-ts/iommu-core';
import type {
  HardwareStats,
  InvalidationEvent,
  InvalidationHints,
  IommuHardware,
  IotlbOptions,
  MmioPort,
} from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { CLASS, EVENT } from '../faults.ts';
import { CR0, CR1, GBPA, IRQ_CTRL, REG, REGISTERS, REGISTER_BYTES } from '../registers.ts';
import { Capabilities } from './capabilities.ts';
import type { SmmuIds } from './capabilities.ts';
import { EventQueue } from './fault-queue.ts';
import { Interrupts } from './interrupts.ts';
import { extraOf } from './invalidation.ts';
import { CommandQueue } from './queues.ts';
import type { ConfigCache } from './queues.ts';
import { Retained } from './retained.ts';
import { KIND, StreamConfig, StructureWalker, exceeds } from './stream-config.ts';
import { TagTable } from './tags.ts';
import { TableWalker, permOf } from './translate.ts';

/** {@link SmmuV3.translate}: aborted without an event (STE.Config 0xx, GBPA.ABORT, address too wide while disabled). */
export const ABORT_SILENT = -1;

const SMMUEN = maskLo(CR0.SMMUEN);
const EVENTQEN = maskLo(CR0.EVENTQEN);
const CMDQEN = maskLo(CR0.CMDQEN);
const CR1_TABLE = maskLo(CR1.TABLE_SH) | maskLo(CR1.TABLE_OC) | maskLo(CR1.TABLE_IC);
const CR1_QUEUE = maskLo(CR1.QUEUE_SH) | maskLo(CR1.QUEUE_OC) | maskLo(CR1.QUEUE_IC);
const GBPA_UPDATE = maskLo(GBPA.Update);
const GBPA_ABORT = maskLo(GBPA.ABORT);
const EVENTQ_IRQEN = maskLo(IRQ_CTRL.EVENTQ_IRQEN);
const GERROR_IRQEN = maskLo(IRQ_CTRL.GERROR_IRQEN);

// Word 3 of an event record.
const PNU = 1 << 1;
const IND = 1 << 2;
const RNW = 1 << 3;
const S2 = 1 << 7;
const TTRNW = 1 << 12;
const SSV = 1 << 11;

/** High word of a VA; with TBI the top byte is taken to be a sign extension of bit 55. */
const withoutTopByte = (config: StreamConfig, hi: number): number => {
  if ((hi & 0x0080_0000) !== 0) return config.ttb1.topByteIgnored ? hi | ~0x00ff_ffff : hi;
  return config.ttb0.topByteIgnored ? hi & 0x00ff_ffff : hi;
};

/**
 * Does a cached entry that forbids the access end in a fault, without a look at the tables? The architecture allows it, the
 * adversarial device does it; but for combined entries, of which it could not tell whose fault it is, and with E0PD, where
 * another fault comes first.
 */
const refusesHits = (config: StreamConfig): boolean => {
  if (config.kind === KIND.NESTED) return false;
  return config.kind === KIND.S2 || (!config.ttb0.e0pd && !config.ttb1.e0pd);
};

/** Slots of the configuration cache, direct-mapped. */
const CONFIG_SLOTS = 256;

/** Options of {@link SmmuV3}. */
export interface SmmuV3Options {
  /** Values of the identification registers. */
  readonly ids: SmmuIds;
  /**
   * With mode `'none'` configuration structures are not cached either: every transaction reads memory. With mode `'retain'`
   * everything is cached, see `Retained`, and commands are carried out when software next reads a register.
   */
  readonly iotlb?: IotlbOptions;
}

/**
 * The device. Decoded STEs and CDs are kept in a direct-mapped cache until a CMD_CFGI_… (or a change of SMMUEN) drops
 * them; invalid ones are never kept. Translations are kept in the IOTLB, tagged by regime, VMID and ASID, until a
 * CMD_TLBI_… drops them; intermediate table descriptors are not cached. The adversarial device, which keeps more, is
 * `Retained`.
 */
export class SmmuV3 implements IommuHardware {
  readonly name = 'arm-smmu-v3';
  readonly memory: PhysicalMemory;
  readonly capabilities: Capabilities;
  readonly registers: RegisterFile;
  readonly iotlb: Iotlb;
  readonly stats: HardwareStats = {
    walks: 0,
    walkReads: 0,
    structureReads: 0,
    commands: 0,
    invalidations: 0,
    faults: 0,
  };
  outHi = 0;
  outLo = 0;
  readonly #words: Int32Array;
  readonly #interrupts: Interrupts;
  readonly #events: EventQueue;
  readonly #commands: CommandQueue;
  readonly #structures: StructureWalker;
  readonly #walker: TableWalker;
  readonly #configs: StreamConfig[];
  readonly #cacheConfigs: boolean;
  /** Caches of the adversarial device; null otherwise. */
  readonly #retained: Retained | null;
  /** For probes. */
  readonly #scratch = new StreamConfig();
  readonly #oas: number;
  /** Event of the stage 2 walk that a CD fetch needed. */
  #cdEvent = 0;

  /** @throws IommuError `EOPNOTSUPP` when `ids` offer what this model does not have. */
  constructor(memory: PhysicalMemory, options: SmmuV3Options) {
    const capabilities = new Capabilities(options.ids);
    this.memory = memory;
    this.capabilities = capabilities;
    this.iotlb = new Iotlb(options.iotlb);
    const retains = this.iotlb.mode === 'retain';
    this.registers = new RegisterFile(REGISTERS, REGISTER_BYTES, {
      onWrite: (offset, size, hi, lo) => this.#onWrite(offset, size, hi, lo),
      afterWrite: (offset) => this.#afterWrite(offset),
      ...(retains ? { beforeRead: () => this.#commands.run() } : {}),
    });
    this.#words = this.registers.words;
    this.#defineIds(options.ids);
    this.#interrupts = new Interrupts(this.registers, memory, capabilities);
    this.#events = new EventQueue(this.registers, memory, capabilities, this.#interrupts);
    const tags = new TagTable();
    this.#retained = retains ? new Retained(this.iotlb, tags, this.stats) : null;
    this.#walker = new TableWalker(memory, capabilities, this.stats, this.#retained);
    this.#structures = new StructureWalker(
      memory,
      this.#words,
      capabilities,
      (config, hi, lo) => this.#translateCdAddress(config, hi, lo),
      tags,
      this.#retained,
    );
    this.#configs = Array.from({ length: CONFIG_SLOTS }, () => new StreamConfig());
    // Retained structures are looked up one by one, and what they mean together is worked out anew.
    this.#cacheConfigs = this.iotlb.mode !== 'none' && !retains;
    this.#oas = capabilities.oas;
    const configs: ConfigCache = {
      invalidateAll: () => this.#dropConfigs(),
      invalidateStreams: (first, last) => {
        for (const c of this.#configs) if (c.sid >= first && c.sid <= last) c.valid = false;
      },
      invalidateSubstream: (sid, ssid) => {
        for (const c of this.#configs) if (c.sid === sid && Math.max(c.pasid, 0) === ssid) c.valid = false;
      },
    };
    this.#commands = new CommandQueue(
      this.registers,
      memory,
      capabilities,
      this.#interrupts,
      this.iotlb,
      configs,
      this.stats,
      tags,
      this.#retained,
    );
  }

  /** Its registers, as the CPU reaches them. */
  get mmio(): MmioPort {
    return this.registers;
  }
  get onInvalidate(): ((event: InvalidationEvent) => void) | null {
    return this.#commands.listener;
  }
  set onInvalidate(listener: ((event: InvalidationEvent) => void) | null) {
    this.#commands.listener = listener;
  }
  get pendingInvalidations(): number {
    return this.#retained === null ? 0 : this.#commands.pending;
  }
  /** DDI 0487, D8.16: an entry must not change from one valid value into another. */
  readonly needsBreakBeforeMake = true;
  readonly invalidationHints: InvalidationHints = {
    leaf: 'CMD_TLBI_NH_VA or CMD_TLBI_S2_IPA',
    table: 'CMD_TLBI_… with Leaf=0',
    context: 'CMD_CFGI_STE or CMD_CFGI_CD',
    completion: 'CMD_SYNC',
  };

  /** What the adversarial device keeps beside the IOTLB: structures and tables; null in the other modes. */
  get retained(): { readonly structures: number; readonly tables: number } | null {
    const kept = this.#retained;
    return kept === null ? null : { structures: kept.structures, tables: kept.walk.size };
  }

  get onInterrupt(): ((source: string) => void) | null {
    return this.#interrupts.onInterrupt;
  }
  set onInterrupt(handler: ((source: string) => void) | null) {
    this.#interrupts.onInterrupt = handler;
  }

  reset(): void {
    this.registers.reset();
    this.iotlb.invalidateAll();
    this.#dropConfigs();
    this.#commands.globals = false;
    this.#commands.fragments = false;
    this.#retained?.clear();
    this.onInvalidate?.({
      name: 'reset',
      layers: LAYER.ALL,
      domain: -1,
      requester: -1,
      startPfn: 0,
      lastPfn: Infinity,
    });
    const stats = this.stats;
    stats.walks = stats.walkReads = stats.structureReads = stats.commands = stats.invalidations = stats.faults = 0;
  }

  translate(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number): number {
    const lo = iovaLo | 0;
    let hi = iovaHi | 0;
    if ((this.#words[REG.CR0 / 4]! & SMMUEN) === 0) return this.#disabled(hi, lo);
    const config = this.#configs[(requester ^ (pasid + 1)) & (CONFIG_SLOTS - 1)]!;
    if (!config.valid || config.sid !== requester || config.pasid !== pasid || !this.#cacheConfigs) {
      const event = this.#configure(config, requester, pasid, hi, lo, access);
      if (event !== 0) return event;
    }
    const kind = config.kind;
    if (kind === KIND.ABORT) return ABORT_SILENT;
    const translatesS1 = kind === KIND.S1 || kind === KIND.NESTED;
    if (!translatesS1 && exceeds(hi, this.#oas)) {
      // Stage 1 bypassed: the input is its output (3.4).
      this.#walker.s2 = false;
      this.#walker.class = CLASS.IN;
      return this.#fault(EVENT.F_ADDR_SIZE, config, hi, lo, this.#attributesOf(config, access), true);
    }
    if (kind === KIND.BYPASS) {
      this.outHi = hi;
      this.outLo = lo;
      return TRANSLATE_OK;
    }
    const inputHi = hi;
    if (translatesS1) hi = withoutTopByte(config, hi);
    const need = this.#need(config, access);
    const iotlb = this.iotlb;
    const hit = iotlb.lookup(config.tag, hi, lo);
    if (hit && (iotlb.perm & need) === need) {
      this.outHi = iotlb.outHi;
      this.outLo = iotlb.outLo;
      return TRANSLATE_OK;
    }
    // A miss, or a cached entry that does not permit the access: the walk gives the translation or the fault.
    const walker = this.#walker;
    const retained = CHECKS ? this.#retained : null;
    if (retained !== null && (hit || retained.findGlobal(config.tag, hi, lo))) {
      if ((iotlb.perm & need) === need) {
        this.outHi = iotlb.outHi;
        this.outLo = iotlb.outLo;
        return TRANSLATE_OK;
      }
      if (refusesHits(config)) {
        walker.refuse(kind === KIND.S2, hi, lo);
        return this.#fault(EVENT.F_PERMISSION, config, inputHi, lo, this.#attributesOf(config, access), false);
      }
    }
    const event =
      kind === KIND.S2
        ? walker.stage2(config, hi, lo, need)
        : walker.stage1(config, kind === KIND.NESTED, hi, lo, need);
    if (event !== 0) {
      return this.#fault(event, config, inputHi, lo, this.#attributesOf(config, access), false);
    }
    if (walker.global) this.#commands.globals = true;
    if (walker.leafLg2 !== walker.sizeLg2) this.#commands.fragments = true;
    const extra = extraOf(walker.global, false, walker.leafLg2, walker.level);
    iotlb.fill(config.tag, hi, lo, walker.sizeLg2, walker.outHi, walker.outLo, walker.perm, extra);
    this.outHi = walker.outHi;
    this.outLo = walker.outLo;
    return TRANSLATE_OK;
  }

  /**
   * As {@link translate}, from the caches in `layers` alone and without a trace. What it does not do is what `translate` does
   * beyond the answer: record, fill, count.
   */
  probe(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number, layers: number): number {
    if ((this.#words[REG.CR0 / 4]! & SMMUEN) === 0) return this.#disabled(iovaHi | 0, iovaLo | 0);
    const stats = { ...this.stats };
    const retained = CHECKS ? this.#retained : null;
    if (retained !== null) {
      retained.probing = true;
      retained.layers = layers;
    }
    try {
      return this.#probe(requester, pasid, iovaHi | 0, iovaLo | 0, access, layers);
    } finally {
      if (retained !== null) {
        retained.probing = false;
        retained.layers = LAYER.ALL;
      }
      Object.assign(this.stats, stats);
    }
  }

  #probe(requester: number, pasid: number, iovaHi: number, lo: number, access: number, layers: number): number {
    const structures = this.#structures;
    let hi = iovaHi;
    let config = this.#configs[(requester ^ (pasid + 1)) & (CONFIG_SLOTS - 1)]!;
    const cached = this.#cacheConfigs && config.valid && config.sid === requester && config.pasid === pasid;
    if (!cached || (layers & LAYER.CONTEXT) === 0) {
      config = this.#scratch;
      config.decoded = false;
      const event = structures.walk(config, requester, pasid);
      if (event !== 0) return structures.stage2Fault ? this.#cdEvent : event;
    }
    const kind = config.kind;
    if (kind === KIND.ABORT) return ABORT_SILENT;
    const translatesS1 = kind === KIND.S1 || kind === KIND.NESTED;
    if (!translatesS1 && exceeds(hi, this.#oas)) return EVENT.F_ADDR_SIZE;
    if (kind === KIND.BYPASS) {
      this.outHi = hi;
      this.outLo = lo;
      return TRANSLATE_OK;
    }
    if (translatesS1) hi = withoutTopByte(config, hi);
    const need = this.#need(config, access);
    const iotlb = this.iotlb;
    const retained = CHECKS ? this.#retained : null;
    if ((layers & LAYER.LEAF) !== 0 && (iotlb.peek(config.tag, hi, lo) || retained?.findGlobal(config.tag, hi, lo))) {
      if ((iotlb.perm & need) === need) {
        this.outHi = iotlb.outHi;
        this.outLo = iotlb.outLo;
        return TRANSLATE_OK;
      }
      if (retained !== null && refusesHits(config)) return EVENT.F_PERMISSION;
    }
    const walker = this.#walker;
    const event =
      kind === KIND.S2
        ? walker.stage2(config, hi, lo, need)
        : walker.stage1(config, kind === KIND.NESTED, hi, lo, need);
    if (event !== 0) return event;
    this.outHi = walker.outHi;
    this.outLo = walker.outLo;
    return TRANSLATE_OK;
  }

  /** SMMUEN = 0: GBPA decides; an address beyond OAS aborts without an event (3.4). */
  #disabled(hi: number, lo: number): number {
    if ((this.#words[REG.GBPA / 4]! & GBPA_ABORT) !== 0 || exceeds(hi, this.#oas)) return ABORT_SILENT;
    this.outHi = hi;
    this.outLo = lo;
    return TRANSLATE_OK;
  }

  /** Permissions that the access needs, after STE.PRIVCFG and INSTCFG. */
  #need(config: StreamConfig, access: number): number {
    const privileged = config.privCfg >= 2 ? config.privCfg === 3 : (access & ACCESS.PRIV) !== 0;
    let kind = access;
    if ((access & ACCESS.WRITE) === 0) {
      if (config.instCfg === 2) kind = ACCESS.READ;
      else if (config.instCfg === 3 || (access & ACCESS.EXEC) !== 0) kind = ACCESS.EXEC;
    } else kind &= ~ACCESS.EXEC;
    return permOf(kind, privileged);
  }

  #attributesOf(config: StreamConfig, access: number): number {
    const need = this.#need(config, access);
    let attributes = (access & ACCESS.WRITE) === 0 ? RNW : 0;
    if ((need & (permOf(ACCESS.EXEC, false) | permOf(ACCESS.EXEC, true))) !== 0) attributes |= IND;
    if (need >= permOf(ACCESS.READ, true)) attributes |= PNU;
    return attributes;
  }

  /** Structure walk into `config`; an event number when it ended in one (recorded then). */
  #configure(config: StreamConfig, requester: number, pasid: number, hi: number, lo: number, access: number): number {
    const structures = this.#structures;
    const before = structures.structureReads;
    const event = structures.walk(config, requester, pasid);
    this.stats.structureReads += structures.structureReads - before;
    if (event === 0) return 0;
    if (structures.stage2Fault) {
      return this.#fault(this.#cdEvent, config, hi, lo, this.#attributesOf(config, access), false);
    }
    if (structures.silent) return event;
    const words = this.#events.words.fill(0);
    words[0] = event;
    words[1] = requester;
    if (pasid >= 0 && event !== EVENT.F_STREAM_DISABLED) {
      words[0]! |= (pasid << 12) | (event === EVENT.C_BAD_SUBSTREAMID ? 0 : SSV);
    }
    if (event === EVENT.F_STE_FETCH || event === EVENT.F_CD_FETCH) {
      words[6] = structures.fetchLo & ~7;
      words[7] = structures.fetchHi;
    }
    this.stats.faults++;
    this.#events.record();
    return event;
  }

  /** Stage 2 for a CD's IPA. */
  #translateCdAddress(config: StreamConfig, hi: number, lo: number): boolean {
    this.#cdEvent = this.#walker.contextDescriptor(config, hi, lo);
    if (this.#cdEvent !== 0) return false;
    this.#structures.physical(this.#walker.outHi, this.#walker.outLo);
    return true;
  }

  /** Records a fault of a walk, unless CD.R or STE.S2R suppress it (5.5). @returns the event number */
  #fault(event: number, config: StreamConfig, hi: number, lo: number, attributes: number, always: boolean): number {
    const walker = this.#walker;
    if (event !== EVENT.F_WALK_EABT && !always && !(walker.s2 ? config.s2r : config.r)) return event;
    const words = this.#events.words;
    words[0] = event | (config.pasid >= 0 ? SSV | (config.pasid << 12) : 0);
    words[1] = config.sid;
    words[2] = 0;
    words[3] =
      attributes |
      (walker.class << 8) |
      (walker.s2 ? S2 : 0) |
      (event === EVENT.F_PERMISSION && walker.walkRead ? TTRNW : 0);
    words[4] = lo;
    words[5] = hi;
    if (event === EVENT.F_WALK_EABT) {
      words[6] = walker.fetchLo & ~7;
      words[7] = walker.fetchHi;
    } else {
      words[6] = walker.s2 ? walker.ipaLo & ~0xfff : 0;
      words[7] = walker.s2 ? walker.ipaHi & 0x00ff_ffff : 0;
    }
    this.stats.faults++;
    this.#events.record();
    return event;
  }

  #dropConfigs(): void {
    for (const config of this.#configs) {
      config.valid = false;
      config.decoded = false;
    }
  }

  #defineIds(ids: SmmuIds): void {
    const registers = this.registers;
    const values: readonly [number, number][] = [
      [REG.IDR0, ids.IDR0],
      [REG.IDR1, ids.IDR1],
      [REG.IDR2, ids.IDR2 ?? 0],
      [REG.IDR3, ids.IDR3 ?? 0],
      [REG.IDR4, ids.IDR4 ?? 0],
      [REG.IDR5, ids.IDR5],
      [REG.IIDR, ids.IIDR ?? 0],
      [REG.AIDR, ids.AIDR ?? 1],
      [REG.GBPA, ids.GBPA_reset ?? 0x1000],
    ];
    for (const [offset, value] of values) registers.define(offset, 4, BigInt(value >>> 0));
    if (!this.capabilities.twoLevel) registers.setWritable(REG.STRTAB_BASE_CFG, 4, 0x3fn);
    if (!this.capabilities.hyp) registers.setWritable(REG.CR2, 4, 0x6n);
    if (!this.capabilities.msi) {
      for (const base of [REG.GERROR_IRQ_CFG0, REG.EVENTQ_IRQ_CFG0]) {
        registers.setWritable(base, 8, 0n);
        registers.setWritable(base + 8, 4, 0n);
        registers.setWritable(base + 12, 4, 0n);
      }
    }
  }

  /** Writes that the state forbids are ignored ("guarded by", chapter 6.3); true: dealt with. */
  #onWrite(offset: number, _size: 4 | 8, _hi: number, lo: number): boolean {
    const cr0 = this.#words[REG.CR0 / 4]!;
    const irq = this.#words[REG.IRQ_CTRL / 4]!;
    switch (offset & ~3) {
      case REG.GBPA:
        // Without Update nothing changes; with it the update is complete at once (6.3.14.1).
        if ((lo & GBPA_UPDATE) !== 0) this.#words[REG.GBPA / 4] = lo & 0x001f_3f1f;
        return true;
      case REG.CR1: {
        // TABLE_… is guarded by SMMUEN, QUEUE_… by the queues' enables.
        const open = ((cr0 & SMMUEN) === 0 ? CR1_TABLE : 0) | ((cr0 & (EVENTQEN | CMDQEN)) === 0 ? CR1_QUEUE : 0);
        this.#words[REG.CR1 / 4] = (this.#words[REG.CR1 / 4]! & ~open) | (lo & open);
        return true;
      }
      case REG.CR2:
      case REG.STRTAB_BASE:
      case REG.STRTAB_BASE + 4:
      case REG.STRTAB_BASE_CFG:
        return (cr0 & SMMUEN) !== 0;
      case REG.CMDQ_BASE:
      case REG.CMDQ_BASE + 4:
      case REG.CMDQ_CONS:
        return (cr0 & CMDQEN) !== 0;
      case REG.EVENTQ_BASE:
      case REG.EVENTQ_BASE + 4:
      case REG.EVENTQ_PROD:
        return (cr0 & EVENTQEN) !== 0;
      case REG.EVENTQ_IRQ_CFG0:
      case REG.EVENTQ_IRQ_CFG0 + 4:
      case REG.EVENTQ_IRQ_CFG1:
      case REG.EVENTQ_IRQ_CFG2:
        return (irq & EVENTQ_IRQEN) !== 0;
      case REG.GERROR_IRQ_CFG0:
      case REG.GERROR_IRQ_CFG0 + 4:
      case REG.GERROR_IRQ_CFG1:
      case REG.GERROR_IRQ_CFG2:
        return (irq & GERROR_IRQEN) !== 0;
      default:
        return false;
    }
  }

  #afterWrite(offset: number): void {
    switch (offset) {
      case REG.CR0: {
        const cr0 = this.#words[REG.CR0 / 4]!;
        if (((cr0 ^ this.#words[REG.CR0ACK / 4]!) & SMMUEN) !== 0) this.#dropConfigs();
        this.#words[REG.CR0ACK / 4] = cr0;
        this.#runCommands();
        break;
      }
      case REG.IRQ_CTRL:
        this.#words[REG.IRQ_CTRLACK / 4] = this.#words[REG.IRQ_CTRL / 4]!;
        break;
      case REG.CMDQ_PROD:
      case REG.GERRORN:
        this.#runCommands();
        break;
      default:
        break;
    }
  }

  /** The adversarial device leaves commands alone until software reads a register. */
  #runCommands(): void {
    if (!CHECKS || this.#retained === null) this.#commands.run();
  }
}
