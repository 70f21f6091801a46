/**
 * The command buffer: commands fetched from memory and executed, in order, until head meets tail or one is wrong.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, section 2.4 "Commands".
 *
 * When they are executed is the unit's business: it calls {@link CommandBuffer.process}.
 */
import { addressOfPfn, fieldOfWord, hex, maskHi, maskLo, maskWord, pfnOfWords } from '@iommu-ts/bits';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { LAYER, RingQueue } from '@iommu-ts/iommu-core';
import type { HardwareStats, IommuHardware } from '@iommu-ts/iommu-core';
import { COMMAND, COMMANDS, COMMAND_BYTES, reservedWord } from '../commands.ts';
import type { CommandName } from '../commands.ts';
import { EVENT, EVENTS, HARDWARE_ERROR } from '../faults.ts';
import { ComBaseAddr, ExtFeature, REGISTERS, Status } from '../registers.ts';
import { sizeLg2Of } from './address.ts';
import type { EventLog } from './fault-queue.ts';
import type { Interrupts } from './interrupts.ts';
import type { TranslationUnit } from './translate.ts';

const BASE = REGISTERS.ComBaseAddr.offset / 4;
const HEAD = REGISTERS.CmdBufHead.offset / 4;
const TAIL = REGISTERS.CmdBufTail.offset / 4;
const STATUS = REGISTERS.Status.offset / 4;

const BASE_HI = maskHi(ComBaseAddr.ComBase);
const CMD_BUF_RUN = maskLo(Status.CmdBufRun);
const COM_WAIT_INT = maskLo(Status.ComWaitInt);
const MIN_LEN_LG2 = 8;

const WAIT_S = maskLo(COMMANDS.COMPLETION_WAIT.S);
const WAIT_I = maskLo(COMMANDS.COMPLETION_WAIT.I);
const WAIT_ADDRESS_LO = maskWord(COMMANDS.COMPLETION_WAIT.StoreAddress, 0);
const WAIT_ADDRESS_HI = maskWord(COMMANDS.COMPLETION_WAIT.StoreAddress, 1);
const PAGES_S = maskWord(COMMANDS.INVALIDATE_IOMMU_PAGES.S, 2);
const PAGES_PDE = maskWord(COMMANDS.INVALIDATE_IOMMU_PAGES.PDE, 2);
const PAGES_GN = maskWord(COMMANDS.INVALIDATE_IOMMU_PAGES.GN, 2);
const PASID_MASK = maskWord(COMMANDS.INVALIDATE_IOMMU_PAGES.PASID, 0);
const IOTLB_TYPE = maskWord(COMMANDS.INVALIDATE_IOTLB_PAGES.Type, 2);
const ADDRESS_LO = maskWord(COMMANDS.INVALIDATE_IOMMU_PAGES.Address, 2);

const ILLEGAL_COMMAND_ERROR_W1 = EVENT.ILLEGAL_COMMAND_ERROR << 28;
const COMMAND_HARDWARE_ERROR_W1 =
  (EVENT.COMMAND_HARDWARE_ERROR << 28) | (HARDWARE_ERROR.MASTER_ABORT << (EVENTS.COMMAND_HARDWARE_ERROR.Type.lsb - 32));

/** What the PCI capability and the feature register say about commands. */
interface CommandFeatures {
  readonly efr: bigint;
  /** IotlbSup of the PCI capability header: devices may have IOTLBs. */
  readonly iotlbSup: boolean;
  /** Commands drop what the specification says and not a line more. */
  readonly exact: boolean;
}

/** Who is told of invalidations. */
type Listener = Pick<IommuHardware, 'onInvalidate'>;

/** How a command ended. */
const DONE = 0;
const ILLEGAL = 1;
const NO_ANSWER = 2;

export class CommandBuffer {
  readonly #words: Int32Array;
  readonly #memory: PhysicalMemory;
  readonly #ring: RingQueue;
  readonly #events: EventLog;
  readonly #interrupts: Interrupts;
  readonly #translation: TranslationUnit;
  readonly #stats: HardwareStats;
  readonly #listener: Listener;
  readonly #exact: boolean;
  /** Reserved bits by opcode, four words each; all ones for an opcode that this unit does not have. */
  readonly #reserved = new Int32Array(16 * 4).fill(-1);
  #busy = false;

  constructor(
    words: Int32Array,
    memory: PhysicalMemory,
    events: EventLog,
    interrupts: Interrupts,
    translation: TranslationUnit,
    stats: HardwareStats,
    features: CommandFeatures,
    listener: Listener,
  ) {
    this.#words = words;
    this.#memory = memory;
    this.#ring = new RingQueue(memory, COMMAND_BYTES);
    this.#events = events;
    this.#interrupts = interrupts;
    this.#translation = translation;
    this.#stats = stats;
    this.#listener = listener;
    this.#exact = features.exact;
    const sup = (lsb: number): boolean => ((features.efr >> BigInt(lsb)) & 1n) === 1n;
    const gt = sup(ExtFeature.GTSup.lsb);
    const absent: Partial<Record<CommandName, boolean>> = {
      INVALIDATE_IOTLB_PAGES: !features.iotlbSup,
      PREFETCH_IOMMU_PAGES: !sup(ExtFeature.PreFSup.lsb),
      COMPLETE_PPR_REQUEST: !sup(ExtFeature.PPRSup.lsb),
      INVALIDATE_IOMMU_ALL: !sup(ExtFeature.IASup.lsb),
    };
    for (const [name, opcode] of Object.entries(COMMAND) as [CommandName, number][]) {
      if (absent[name] === true) continue;
      for (let w = 0; w < 4; w++) this.#reserved[opcode * 4 + w] = reservedWord(COMMANDS[name], w);
    }
    // Fields of guest translation are reserved without it.
    const pages = COMMAND.INVALIDATE_IOMMU_PAGES * 4;
    if (!gt) {
      this.#reserved[pages]! |= PASID_MASK;
      this.#reserved[pages + 2]! |= PAGES_GN;
    }
    if (features.iotlbSup && !sup(ExtFeature.InvIotlbTypeSup.lsb)) {
      this.#reserved[COMMAND.INVALIDATE_IOTLB_PAGES * 4 + 2]! |= IOTLB_TYPE;
    }
  }

  /** CmdBufEn (and IommuEn) have become 1: fetching starts at the head pointer, unless the length is a reserved encoding. */
  start(): void {
    if (this.place()) this.#words[STATUS]! |= CMD_BUF_RUN;
  }

  stop(): void {
    this.#words[STATUS]! &= ~CMD_BUF_RUN;
  }

  /** Takes base and length from the register; false for a reserved length. */
  place(): boolean {
    const hi = this.#words[BASE + 1]!;
    const lenLg2 = fieldOfWord(hi, ComBaseAddr.ComLen);
    if (lenLg2 < MIN_LEN_LG2) return false;
    this.#ring.place(pfnOfWords(hi & BASE_HI, this.#words[BASE]!), 2 ** lenLg2);
    return true;
  }

  /**
   * Executes what stands between head and tail. At most one ring's length at a time, so that a command whose store moves
   * the tail pointer cannot keep the unit busy for ever; and never from inside a command.
   */
  process(): void {
    if (this.#busy) return;
    this.#busy = true;
    const words = this.#words;
    const ring = this.#ring;
    const last = ring.entries - 1;
    for (let budget = ring.entries; budget > 0 && (words[STATUS]! & CMD_BUF_RUN) !== 0; budget--) {
      const head = (words[HEAD]! >>> 4) & last;
      if (head === ((words[TAIL]! >>> 4) & last)) break;
      if (!ring.read(head)) {
        this.#stop(COMMAND_HARDWARE_ERROR_W1, ring.addressLo(head), ring.addressHi(head));
        break;
      }
      this.#stats.commands++;
      const result = this.#execute();
      if (result === ILLEGAL) {
        this.#stop(ILLEGAL_COMMAND_ERROR_W1, ring.addressLo(head), ring.addressHi(head));
        break;
      }
      if (result === NO_ANSWER) {
        this.#stop(COMMAND_HARDWARE_ERROR_W1, ring.words[0]! & WAIT_ADDRESS_LO, ring.words[1]! & WAIT_ADDRESS_HI);
        break;
      }
      words[HEAD] = ((head + 1) & last) << 4;
    }
    this.#busy = false;
  }

  /** An error: fetching stops with the head pointer at the command, and an event tells where. */
  #stop(w1: number, addressLo: number, addressHi: number): void {
    this.stop();
    this.#events.write(0, w1, addressLo, addressHi);
  }

  /** Invalidations between head and tail: accepted, not executed. */
  get pending(): number {
    const words = this.#words;
    const ring = this.#ring;
    if ((words[STATUS]! & CMD_BUF_RUN) === 0) return 0;
    const last = ring.entries - 1;
    const tail = (words[TAIL]! >>> 4) & last;
    let pending = 0;
    // The head is still at a command that tells of its effect.
    const head = (words[HEAD]! >>> 4) + (this.#busy ? 1 : 0);
    for (let at = head & last; at !== tail && ring.read(at); at = (at + 1) & last) {
      const opcode = ring.words[1]! >>> 28;
      const invalidates =
        opcode === COMMAND.INVALIDATE_DEVTAB_ENTRY ||
        opcode === COMMAND.INVALIDATE_IOMMU_PAGES ||
        opcode === COMMAND.INVALIDATE_IOMMU_ALL;
      if (invalidates) pending++;
    }
    return pending;
  }

  #pages(domain: number, w2: number, w3: number): void {
    const addressLo = w2 & ADDRESS_LO;
    const sized = (w2 & PAGES_S) !== 0;
    if ((w2 & PAGES_GN) === 0) {
      this.#translation.invalidatePages(domain, w3, addressLo, sized, (w2 & PAGES_PDE) !== 0);
      if (this.#listener.onInvalidate !== null) this.#tellPages(domain, w2, w3);
      return;
    }
    // The address is a guest's, and nothing of a guest table is cached: nothing need go, or the whole domain may.
    if (!this.#exact) this.#translation.invalidateDomain(domain, true);
  }

  #tellPages(domain: number, w2: number, w3: number): void {
    const pfn = pfnOfWords(w3, w2 & ADDRESS_LO);
    const lg2 = (w2 & PAGES_S) === 0 ? 12 : sizeLg2Of(w3, w2 & ADDRESS_LO);
    const pages = lg2 === 64 ? Infinity : 2 ** (lg2 - 12);
    const startPfn = lg2 === 64 ? 0 : Math.floor(pfn / pages) * pages;
    const lastPfn = startPfn + pages - 1;
    const pde = (w2 & PAGES_PDE) !== 0;
    const address = lg2 === 64 ? 'all' : `${hex(addressOfPfn(startPfn))}..${hex(addressOfPfn(lastPfn) + 0xfffn)}`;
    const name = `INVALIDATE_IOMMU_PAGES DomainID=${hex(domain)} PDE=${pde ? 1 : 0} Address=${address}`;
    this.#tell(name, pde ? LAYER.LEAF | LAYER.TABLE : LAYER.LEAF, domain, -1, startPfn, lastPfn);
  }

  #tell(name: string, layers: number, domain: number, requester: number, startPfn: number, lastPfn: number): void {
    this.#listener.onInvalidate?.({ name, layers, domain, requester, startPfn, lastPfn });
  }

  /** Executes the command in the ring's words. */
  #execute(): number {
    const words = this.#ring.words;
    const [w0, w1, w2, w3] = [words[0]!, words[1]!, words[2]!, words[3]!];
    const opcode = w1 >>> 28;
    const reserved = this.#reserved;
    const at = opcode * 4;
    const bad = (w0 & reserved[at]!) | (w1 & reserved[at + 1]!) | (w2 & reserved[at + 2]!) | (w3 & reserved[at + 3]!);
    if (bad !== 0) return ILLEGAL;
    switch (opcode) {
      case COMMAND.COMPLETION_WAIT: {
        // Commands are executed one after the other, so everything before has completed and F has nothing to wait for.
        if ((w0 & WAIT_S) !== 0 && !this.#memory.store64(w1 & WAIT_ADDRESS_HI, w0 & WAIT_ADDRESS_LO, w3, w2)) {
          return NO_ANSWER;
        }
        if ((w0 & WAIT_I) !== 0) {
          this.#words[STATUS]! |= COM_WAIT_INT;
          this.#interrupts.update();
        }
        return DONE;
      }
      case COMMAND.INVALIDATE_DEVTAB_ENTRY:
        this.#translation.invalidateDevice(w0 & 0xffff);
        if (this.#listener.onInvalidate !== null) {
          const id = w0 & 0xffff;
          this.#tell(`INVALIDATE_DEVTAB_ENTRY DeviceID=${hex(id)}`, LAYER.CONTEXT, -1, id, 0, Infinity);
        }
        return DONE;
      case COMMAND.INVALIDATE_IOMMU_PAGES:
        this.#stats.invalidations++;
        this.#pages(w1 & 0xffff, w2, w3);
        return DONE;
      case COMMAND.INVALIDATE_IOMMU_ALL:
        this.#stats.invalidations++;
        this.#translation.invalidateAll();
        if (this.#listener.onInvalidate !== null) this.#tell('INVALIDATE_IOMMU_ALL', LAYER.ALL, -1, -1, 0, Infinity);
        return DONE;
      case COMMAND.INVALIDATE_IOTLB_PAGES:
      case COMMAND.INVALIDATE_INTERRUPT_TABLE:
      case COMMAND.PREFETCH_IOMMU_PAGES:
      case COMMAND.COMPLETE_PPR_REQUEST:
        // No device has an IOTLB or sends page requests, no interrupt table is cached, and a prefetch is a hint.
        return DONE;
      default:
        return ILLEGAL;
    }
  }
}
