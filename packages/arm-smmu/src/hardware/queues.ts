/**
 * The command queue (IHI 0070, 3.5, 4, 7.1): commands are read from memory and carried out in order, at once; those of the
 * adversarial device, as far as they invalidate, only by the next CMD_SYNC.
 */
import { maskLo, maskWord } from '@iommu-ts/bits';
import type { HardwareStats, InvalidationEvent, Iotlb, RegisterFile } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { CERROR, CMD, CMD_SYNC, SYNC_CS } from '../commands.ts';
import { CR0, CR2, GERROR, REG } from '../registers.ts';
import type { Capabilities } from './capabilities.ts';
import { locateEntry, queueLog2 } from './fault-queue.ts';
import type { Interrupts } from './interrupts.ts';
import { GLOBAL, dropLeaves, isInvalidation, scopeOf, tell } from './invalidation.ts';
import type { Scope } from './invalidation.ts';
import type { Retained } from './retained.ts';
import { WORLD } from './tags.ts';
import type { TagTable } from './tags.ts';

const CMDQEN = maskLo(CR0.CMDQEN);
const CMDQ_ERR = maskLo(GERROR.CMDQ_ERR);
const E2H = maskLo(CR2.E2H);
const COMMAND_BYTES = 16;
const SSEC = 1 << 10;
const LAST_PFN = 2 ** 52 - 1;
/** MSIAddress[55:2] of CMD_SYNC: words 3 and 2. */
const MSI_HI = maskWord(CMD_SYNC.MSIAddress, 3);
const MSI_LO = maskWord(CMD_SYNC.MSIAddress, 2);

/** What makes a command legal; ILLEGAL: reserved, or of a feature that the identification registers do not show. */
const RULE = { ILLEGAL: 0, ANY: 1, STREAM: 2, VA: 3, IPA: 4, SYNC: 5 } as const;

/** Rules by opcode. */
const rulesOf = (capabilities: Capabilities): Uint8Array => {
  const rules = new Uint8Array(256);
  const { s1, s2, hyp } = capabilities;
  const set = (there: boolean, rule: number, ...opcodes: readonly number[]): void => {
    if (there) for (const opcode of opcodes) rules[opcode] = rule;
  };
  set(true, RULE.STREAM, CMD.PREFETCH_CONFIG, CMD.PREFETCH_ADDR, CMD.CFGI_STE, CMD.CFGI_STE_RANGE);
  set(s1, RULE.STREAM, CMD.CFGI_CD, CMD.CFGI_CD_ALL);
  set(s1, RULE.ANY, CMD.TLBI_NH_ALL, CMD.TLBI_NH_ASID);
  set(s1, RULE.VA, CMD.TLBI_NH_VA, CMD.TLBI_NH_VAA);
  set(s1 && hyp, RULE.ANY, CMD.TLBI_EL2_ALL, CMD.TLBI_EL2_ASID);
  set(s1 && hyp, RULE.VA, CMD.TLBI_EL2_VA, CMD.TLBI_EL2_VAA);
  set(s2, RULE.ANY, CMD.TLBI_S12_VMALL);
  set(s2, RULE.IPA, CMD.TLBI_S2_IPA);
  set(true, RULE.ANY, CMD.TLBI_NSNH_ALL);
  set(true, RULE.SYNC, CMD.SYNC);
  return rules;
};

/** What invalidations of configuration reach. */
export interface ConfigCache {
  invalidateAll(): void;
  /** Streams `first` … `last`, both inclusive. */
  invalidateStreams(first: number, last: number): void;
  /** One SubstreamID of a stream (traffic without one uses 0). */
  invalidateSubstream(sid: number, ssid: number): void;
}

export class CommandQueue {
  readonly #registers: Int32Array;
  readonly #memory: PhysicalMemory;
  readonly #capabilities: Capabilities;
  readonly #interrupts: Interrupts;
  readonly #iotlb: Iotlb;
  readonly #configs: ConfigCache;
  readonly #stats: HardwareStats;
  readonly #tags: TagTable;
  readonly #rules: Uint8Array;
  /** Caches of the adversarial device; null otherwise. */
  readonly #retained: Retained | null;
  /** Words of the command being carried out. */
  readonly #w = new Int32Array(4);
  #running = false;
  /** An entry was ever filled as global: by-address invalidations must look for those too. */
  globals = false;
  /** A combined entry was ever filled with a part of its stage 1 leaf: by-address invalidations take all its parts. */
  fragments = false;
  /** Told of invalidations that have taken effect. */
  listener: ((event: InvalidationEvent) => void) | null = null;

  constructor(
    registers: RegisterFile,
    memory: PhysicalMemory,
    capabilities: Capabilities,
    interrupts: Interrupts,
    iotlb: Iotlb,
    configs: ConfigCache,
    stats: HardwareStats,
    tags: TagTable,
    retained: Retained | null,
  ) {
    this.#retained = retained;
    this.#rules = rulesOf(capabilities);
    this.#registers = registers.words;
    this.#memory = memory;
    this.#capabilities = capabilities;
    this.#interrupts = interrupts;
    this.#iotlb = iotlb;
    this.#configs = configs;
    this.#stats = stats;
    this.#tags = tags;
  }

  /**
   * Consumes commands until the queue is empty, disabled, or in error. Indices count modulo twice the size, so the loop
   * ends after at most that many steps whatever software wrote. An MSI that reaches the SMMU's own registers comes back
   * here: the inner call leaves the work to the outer one.
   */
  run(): void {
    if (this.#running) return;
    this.#running = true;
    const registers = this.#registers;
    const log2 = queueLog2(registers, REG.CMDQ_BASE, this.#capabilities.cmdqLog2);
    const mask = (2 << log2) - 1;
    for (let budget = 2 << log2; budget > 0; budget--) {
      if ((registers[REG.CR0 / 4]! & CMDQEN) === 0 || this.#interrupts.active(CMDQ_ERR)) break;
      const cons = registers[REG.CMDQ_CONS / 4]!;
      if (((registers[REG.CMDQ_PROD / 4]! ^ cons) & mask) === 0) break;
      const index = cons & (mask >> 1);
      const memory = this.#memory;
      if (!locateEntry(memory, registers, REG.CMDQ_BASE, log2, COMMAND_BYTES, index, false)) {
        this.#error(CERROR.ABT);
        break;
      }
      for (let i = 0; i < 4; i++) this.#w[i] = memory.view[memory.index + i]!;
      if (!this.#execute()) {
        this.#error(CERROR.ILL);
        break;
      }
      this.#stats.commands++;
      registers[REG.CMDQ_CONS / 4] = (cons & ~0xf_ffff) | ((cons + 1) & mask);
    }
    this.#running = false;
  }

  /** CONS stays at the command, ERR tells why, and GERROR stops the queue until it is acknowledged (7.1). */
  #error(code: number): void {
    const registers = this.#registers;
    registers[REG.CMDQ_CONS / 4] = (registers[REG.CMDQ_CONS / 4]! & 0xf_ffff) | (code << 24);
    this.#interrupts.error(CMDQ_ERR);
  }

  /** Invalidations accepted, be they read out of the queue or not, that have not taken effect. */
  get pending(): number {
    const registers = this.#registers;
    let pending = this.#retained === null ? 0 : this.#retained.pending;
    if ((registers[REG.CR0 / 4]! & CMDQEN) === 0) return pending;
    const log2 = queueLog2(registers, REG.CMDQ_BASE, this.#capabilities.cmdqLog2);
    const mask = (2 << log2) - 1;
    const prod = registers[REG.CMDQ_PROD / 4]! & mask;
    const memory = this.#memory;
    let cons = registers[REG.CMDQ_CONS / 4]! & mask;
    for (; cons !== prod; cons = (cons + 1) & mask) {
      const index = cons & (mask >> 1);
      if (!locateEntry(memory, registers, REG.CMDQ_BASE, log2, COMMAND_BYTES, index, false)) break;
      if (isInvalidation(memory.view[memory.index]! & 0xff)) pending++;
    }
    return pending;
  }

  /** Carries one command out; false: CERROR_ILL. */
  #execute(): boolean {
    const opcode = this.#w[0]! & 0xff;
    if (!this.#legal(opcode)) return false;
    if (this.#retained !== null) this.#late(this.#retained, opcode);
    else {
      this.#carryOut(opcode);
      if (this.listener !== null && isInvalidation(opcode)) tell(this.#scope(), this.listener);
    }
    return true;
  }

  /** The adversarial device: an invalidation waits for the CMD_SYNC that completes it (4.7.3). */
  #late(retained: Retained, opcode: number): void {
    if (isInvalidation(opcode)) retained.accept(this.#scope());
    else if (opcode === CMD.SYNC) {
      retained.complete(this.listener);
      this.#sync();
    }
  }

  /** What the command is defined to reach. */
  #scope(): Scope {
    const e2h = (this.#registers[REG.CR2 / 4]! & E2H) !== 0;
    return scopeOf(this.#w, this.first, this.last, this.#capabilities, e2h);
  }

  /** Is the command one that this SMMU has, with fields that it can have? By address: fills {@link first}, {@link last}. */
  #legal(opcode: number): boolean {
    const rule = this.#rules[opcode]!;
    if (rule === RULE.VA || rule === RULE.IPA) return this.#range(rule === RULE.VA);
    if (rule === RULE.SYNC) return ((this.#w[0]! >>> 12) & 3) <= SYNC_CS.SEV;
    if (rule === RULE.STREAM) return (this.#w[0]! & SSEC) === 0;
    return rule === RULE.ANY;
  }

  /** A legal command takes effect. */
  #carryOut(opcode: number): void {
    const w = this.#w;
    const capabilities = this.#capabilities;
    switch (opcode) {
      case CMD.CFGI_STE:
      case CMD.CFGI_STE_RANGE:
        this.#cfgiSte(opcode === CMD.CFGI_STE_RANGE);
        break;
      case CMD.CFGI_CD:
      case CMD.CFGI_CD_ALL:
        this.#cfgiCd(opcode === CMD.CFGI_CD_ALL);
        break;
      case CMD.TLBI_NH_ALL:
      case CMD.TLBI_NH_ASID:
      case CMD.TLBI_NH_VA:
      case CMD.TLBI_NH_VAA:
        this.#tlbiStage1(opcode, capabilities.s2 ? w[1]! & 0xffff : 0);
        break;
      case CMD.TLBI_EL2_ALL:
      case CMD.TLBI_EL2_ASID:
      case CMD.TLBI_EL2_VA:
      case CMD.TLBI_EL2_VAA:
        this.#tlbiEl2(opcode);
        break;
      case CMD.TLBI_S12_VMALL:
      case CMD.TLBI_S2_IPA:
        this.#tlbiStage2(opcode, w[1]! & 0xffff);
        break;
      case CMD.TLBI_NSNH_ALL:
        this.#stats.invalidations++;
        if (!capabilities.hyp) this.#iotlb.invalidateAll();
        else this.#dropWorlds(WORLD.EL1, WORLD.NESTED);
        break;
      case CMD.SYNC:
        this.#sync();
        break;
      default:
        // A prefetch: a hint. What is prefetched could only be staler than what the next transaction reads.
        break;
    }
  }

  #cfgiSte(range: boolean): void {
    const w = this.#w;
    const sid = w[1]! >>> 0;
    const count = range ? 2 ** ((w[2]! & 0x1f) + 1) : 1;
    const first = sid - (sid % count);
    this.#configs.invalidateStreams(first, first + count - 1);
  }

  #cfgiCd(all: boolean): void {
    const w = this.#w;
    const sid = w[1]! >>> 0;
    const leaf = (w[2]! & 1) !== 0;
    // Without Leaf the L1CD goes too, and with it every CD behind it that was found through it.
    if (all || !leaf) this.#configs.invalidateStreams(sid, sid);
    else this.#configs.invalidateSubstream(sid, w[0]! >>> 12);
  }

  /** CMD_TLBI_NH_…: stage 1 of EL1, also what is combined with stage 2 (4.4.2). */
  #tlbiStage1(opcode: number, vmid: number): void {
    const tags = this.#tags;
    const asid = this.#w[1]! >>> 16;
    if (opcode === CMD.TLBI_NH_ASID) {
      this.#byAsid(tags.find(WORLD.EL1, vmid, asid));
      this.#byAsid(tags.find(WORLD.NESTED, vmid, asid));
    } else if (this.fragments) dropLeaves(this.#iotlb, tags, this.#scope());
    else if (opcode === CMD.TLBI_NH_VA) {
      this.#byRange(tags.find(WORLD.EL1, vmid, asid));
      this.#byRange(tags.find(WORLD.NESTED, vmid, asid));
      if (this.globals) this.#dropEl1(vmid, true);
    } else {
      if (opcode === CMD.TLBI_NH_ALL) {
        this.first = 0;
        this.last = LAST_PFN;
      }
      this.#dropEl1(vmid, false);
    }
    this.#stats.invalidations++;
  }

  /** CMD_TLBI_EL2_…: by CR2.E2H with or without ASID (4.4.2.7 …). */
  #tlbiEl2(opcode: number): void {
    const e2h = (this.#registers[REG.CR2 / 4]! & E2H) !== 0;
    const asid = this.#w[1]! >>> 16;
    if (opcode === CMD.TLBI_EL2_ALL) this.#dropWorlds(WORLD.EL2, WORLD.EL2_E2H);
    else if (opcode === CMD.TLBI_EL2_ASID) {
      if (e2h) this.#byAsid(this.#tags.find(WORLD.EL2_E2H, 0, asid));
    } else this.#dropEl2(e2h ? WORLD.EL2_E2H : WORLD.EL2, opcode === CMD.TLBI_EL2_VAA || !e2h ? -1 : asid);
    this.#stats.invalidations++;
  }

  /** CMD_TLBI_S12_VMALL and CMD_TLBI_S2_IPA (4.4.3); the latter leaves combined entries to the stage 1 commands. */
  #tlbiStage2(opcode: number, vmid: number): void {
    if (opcode === CMD.TLBI_S12_VMALL) this.#dropVmid(vmid);
    else this.#byRange(this.#tags.find(WORLD.S2, vmid, 0));
    this.#stats.invalidations++;
  }

  /** Entries of a tag (-1: none was ever made) in the command's range. */
  #byRange(tag: number): void {
    if (tag >= 0) this.#iotlb.invalidateRange(tag, this.first, this.last);
  }

  /** Non-global entries of a tag. */
  #byAsid(tag: number): void {
    if (tag < 0) return;
    if (this.globals) this.#dropNonGlobal(tag);
    else this.#iotlb.invalidateTag(tag);
  }

  // Rare scopes look at every entry. Their closures stand in methods of their own: a closure costs its captured variables
  // at the entry of the function it stands in, whether it is reached or not.

  #dropNonGlobal(tag: number): void {
    this.#iotlb.invalidateWhere((t, extra) => t === tag && (extra & GLOBAL) === 0);
  }

  /** Stage 1 of EL1 under `vmid` in the command's range, all ASIDs. */
  #dropEl1(vmid: number, globalOnly: boolean): void {
    const tags = this.#tags;
    const matches = (tag: number, extra: number): boolean => {
      const world = tags.worldOf(tag);
      if ((world !== WORLD.EL1 && world !== WORLD.NESTED) || tags.vmidOf(tag) !== vmid) return false;
      return !globalOnly || (extra & GLOBAL) !== 0;
    };
    this.#iotlb.invalidateWhere(matches, this.first, this.last);
  }

  /** One EL2 regime in the command's range; `asid` -1: any. Global entries match every ASID. */
  #dropEl2(world: number, asid: number): void {
    const tags = this.#tags;
    const matches = (tag: number, extra: number): boolean =>
      tags.worldOf(tag) === world && (asid < 0 || tags.asidOf(tag) === asid || (extra & GLOBAL) !== 0);
    this.#iotlb.invalidateWhere(matches, this.first, this.last);
  }

  /** Everything of one VMID: both stages and combined. */
  #dropVmid(vmid: number): void {
    const tags = this.#tags;
    this.#iotlb.invalidateWhere((tag) => tags.worldOf(tag) <= WORLD.NESTED && tags.vmidOf(tag) === vmid);
  }

  #dropWorlds(first: number, last: number): void {
    const tags = this.#tags;
    this.#iotlb.invalidateWhere((tag) => tags.worldOf(tag) >= first && tags.worldOf(tag) <= last);
  }

  /** Pages of the command's address: one address, or with IDR3.RIL a range (4.4.1.1). */
  first = 0;
  last = 0;

  /** Fills {@link first} and {@link last} (4 KiB pages, inclusive); false: the reserved combination, CERROR_ILL. */
  #range(virtual: boolean): boolean {
    const w = this.#w;
    let hi = w[3]!;
    // Virtual addresses are those of a canonical address space: whatever the top byte says, bit 55 decides.
    if (virtual) hi = (hi & 0x0080_0000) !== 0 ? hi | ~0x00ff_ffff : hi & 0x00ff_ffff;
    else hi &= 0x00ff_ffff;
    this.first = (hi >>> 0) * 0x10_0000 + (w[2]! >>> 12);
    this.last = this.first;
    const tg = (w[2]! >>> 10) & 3;
    if (!this.#capabilities.ril || tg === 0) return true;
    const num = (w[0]! >>> 12) & 0x1f;
    const scale = (w[0]! >>> 20) & 0x1f;
    let ttl = (w[2]! >>> 8) & 3;
    if (tg === 2 && ttl === 1) ttl = 0; // no blocks at level 1 with 16 KiB granules
    if (num === 0 && scale === 0 && ttl === 0) return false;
    // TTL is a hint that narrows the levels to look at; all levels are looked at here.
    const pages = (num + 1) * 2 ** scale * 4 ** (tg - 1);
    this.last = Math.min(this.first + pages - 1, LAST_PFN);
    return true;
  }

  #sync(): void {
    const w = this.#w;
    const signal = (w[0]! >>> 12) & 3;
    if (signal === SYNC_CS.IRQ) this.#interrupts.sync(w[3]! & MSI_HI, w[2]! & MSI_LO, w[1]!);
    else if (signal === SYNC_CS.SEV) this.#interrupts.wakeUp();
  }
}
