/**
 * The command queue: specification section "Command-Queue (CQ)", registers `cqb`, `cqh`, `cqt`, `cqcsr`.
 * Commands are executed when the tail is written, in order, before the write returns: `cqcsr.busy` is never seen set.
 * The adversarial device (IOTLB mode `'retain'`) executes them when software next reads a register, any register: a command is
 * complete when `cqh` says so (IOFENCE.C), and a driver that does not ask can not know.
 */
import { addressOfPfn, hex, maskLo, pfnOfWords } from '@iommu-ts/bits';
import { LAYER, RingQueue } from '@iommu-ts/iommu-core';
import type { HardwareStats, InvalidationEvent, RegisterFile } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { COMMAND_BYTES, FUNC3, IODIR, IOFENCE, IOTINVAL, OPCODE } from '../commands.ts';
import { REGISTERS, cqcsr } from '../registers.ts';
import type { Features } from './features.ts';
import { CIP } from './interrupts.ts';
import type { Interrupts } from './interrupts.ts';
import type { TranslationCache } from './cache.ts';

const CQH = REGISTERS.cqh.offset >> 2;
const CQT = REGISTERS.cqt.offset >> 2;
const CQCSR = REGISTERS.cqcsr.offset >> 2;
const FCTL = REGISTERS.fctl.offset >> 2;
const CQEN = maskLo(cqcsr.cqen);
const CIE = maskLo(cqcsr.cie);
const CQMF = maskLo(cqcsr.cqmf);
const CMD_TO = maskLo(cqcsr.cmd_to);
const CMD_ILL = maskLo(cqcsr.cmd_ill);
const FENCE_W_IP = maskLo(cqcsr.fence_w_ip);
const CQON = maskLo(cqcsr.cqon);
const ERRORS = CQMF | CMD_TO | CMD_ILL;
const WSI = 2;

/** Opcode and func3 as they stand in bits 9:0 of a command. */
const op = (opcode: number, func3: number): number => opcode | (func3 << 7);
const IOTINVAL_VMA = op(OPCODE.IOTINVAL, FUNC3.IOTINVAL.VMA);
const IOTINVAL_GVMA = op(OPCODE.IOTINVAL, FUNC3.IOTINVAL.GVMA);
const IOFENCE_C = op(OPCODE.IOFENCE, FUNC3.IOFENCE.C);
const IODIR_DDT = op(OPCODE.IODIR, FUNC3.IODIR.INVAL_DDT);
const IODIR_PDT = op(OPCODE.IODIR, FUNC3.IODIR.INVAL_PDT);
const ATS_INVAL = op(OPCODE.ATS, FUNC3.ATS.INVAL);
const ATS_PRGR = op(OPCODE.ATS, FUNC3.ATS.PRGR);

const AV = maskLo(IOTINVAL.AV);
const FENCE_AV = maskLo(IOFENCE.AV);
const FENCE_WSI = maskLo(IOFENCE.WSI);
/** In word 1: */
const PSCV = 1;
const GV = 2;
const NL = 4;
const DV = 2;
/** In word 2: */
const S = 0x200;

/** Every bit of word `word` that no field of `layout` names. */
const reservedOf = (layout: Readonly<Record<string, { msb: number; lsb: number }>>, word: number): number => {
  let used = 0;
  for (const field of Object.values(layout)) {
    for (let n = Math.max(field.lsb, word * 32); n <= Math.min(field.msb, word * 32 + 31); n++) used |= 1 << (n & 31);
  }
  return ~used;
};
const RES_IOTINVAL = [0, 1, 2, 3].map((w) => reservedOf(IOTINVAL, w)) as [number, number, number, number];
const RES_IOFENCE = [0, 1, 2, 3].map((w) => reservedOf(IOFENCE, w)) as [number, number, number, number];
const RES_IODIR = [0, 1, 2, 3].map((w) => reservedOf(IODIR, w)) as [number, number, number, number];
/** `PID` is reserved in IODIR.INVAL_DDT. */
const IODIR_PID = maskLo(IODIR.PID);

/** A PCIe message that an ATS command asks for. */
export interface AtsMessage {
  readonly kind: 'INVAL' | 'PRGR';
  readonly words: readonly [number, number, number, number];
}

const DONE = 0;

export class CommandQueue {
  readonly #memory: PhysicalMemory;
  readonly #words: Int32Array;
  readonly #ring: RingQueue;
  readonly #features: Features;
  readonly #interrupts: Interrupts;
  readonly #cache: TranslationCache;
  readonly #stats: HardwareStats;
  #mask = 0;
  #running = false;
  /** Told of each invalidation that has taken effect. */
  onInvalidate: ((event: InvalidationEvent) => void) | null = null;
  /** Where ATS messages go; without a listener they are dropped, as on a link whose device does not answer. */
  onAtsMessage: ((message: AtsMessage) => void) | null = null;

  constructor(
    memory: PhysicalMemory,
    registers: RegisterFile,
    features: Features,
    interrupts: Interrupts,
    cache: TranslationCache,
    stats: HardwareStats,
  ) {
    this.#memory = memory;
    this.#words = registers.words;
    this.#ring = new RingQueue(memory, COMMAND_BYTES);
    this.#features = features;
    this.#interrupts = interrupts;
    this.#cache = cache;
    this.#stats = stats;
  }

  get active(): boolean {
    return (this.#words[CQCSR]! & CQON) !== 0;
  }

  place(pfn: number, mask: number): void {
    this.#mask = mask;
    this.#ring.place(pfn, (mask >>> 0) + 1);
    this.#words[CQT] = this.#words[CQT]! & mask;
  }

  writeTail(value: number): void {
    this.#words[CQT] = value & this.#mask;
    if (this.#cache.retained === null) this.run();
  }

  /** Invalidations between head and tail, which {@link run} has not executed yet. */
  get pending(): number {
    const words = this.#words;
    if ((words[CQCSR]! & (CQON | ERRORS)) !== CQON) return 0;
    let n = 0;
    for (let at = words[CQH]!; at !== words[CQT]; at = (at + 1) & this.#mask) {
      if (!this.#ring.read(at >>> 0)) break;
      const opcode = this.#ring.words[0]! & 0x7f;
      if (opcode === OPCODE.IOTINVAL || opcode === OPCODE.IODIR) n++;
    }
    return n;
  }

  writeCsr(value: number): void {
    const words = this.#words;
    const old = words[CQCSR]!;
    let csr = (old & (ERRORS | FENCE_W_IP) & ~value) | (value & (CQEN | CIE));
    if ((value & CQEN) !== 0) {
      csr |= CQON;
      if ((old & CQEN) === 0) {
        csr &= ~(ERRORS | FENCE_W_IP);
        words[CQH] = 0;
      }
    }
    words[CQCSR] = csr;
    this.updateInterrupt();
    if (this.#cache.retained === null) this.run();
  }

  /** Sets `ipsr.cip` while its conditions stand. */
  updateInterrupt(): void {
    const csr = this.#words[CQCSR]!;
    if ((csr & CIE) !== 0 && (csr & (ERRORS | FENCE_W_IP)) !== 0) this.#interrupts.raise(CIP);
  }

  /** Executes commands until the queue is empty, off, or stopped by an error. At most one round of the ring. */
  run(): void {
    // An interrupt handler that writes the tail re-enters here; the outer loop goes on with the new tail.
    if (this.#running) return;
    this.#running = true;
    const words = this.#words;
    while ((words[CQCSR]! & (CQON | ERRORS)) === CQON && words[CQH] !== words[CQT]) {
      const head = words[CQH]!;
      let error: number;
      if (this.#ring.read(head >>> 0)) {
        this.#stats.commands++;
        error = this.#execute();
      } else error = CQMF;
      if (error !== DONE) {
        words[CQCSR] = words[CQCSR]! | error;
        this.updateInterrupt();
        break;
      }
      words[CQH] = (head + 1) & this.#mask;
    }
    this.#running = false;
  }

  #execute(): number {
    const c = this.#ring.words;
    switch (c[0]! & 0x3ff) {
      case IOTINVAL_VMA:
      case IOTINVAL_GVMA:
        return this.#iotinval();
      case IOFENCE_C:
        return this.#iofence();
      case IODIR_DDT:
        if (reserved(c, RES_IODIR) || (c[0]! & IODIR_PID) !== 0) return CMD_ILL;
        if ((c[1]! & DV) !== 0) this.#cache.invalidateDevice(c[1]! >>> 8);
        else this.#cache.invalidateDirectory();
        if (this.onInvalidate !== null) this.#tellDirectory('IODIR.INVAL_DDT');
        return DONE;
      case IODIR_PDT:
        if (reserved(c, RES_IODIR) || (c[1]! & DV) === 0) return CMD_ILL;
        this.#cache.invalidateProcess(c[1]! >>> 8, c[0]! >>> 12);
        if (this.onInvalidate !== null) this.#tellDirectory(`IODIR.INVAL_PDT PID=${c[0]! >>> 12}`);
        return DONE;
      case ATS_INVAL:
      case ATS_PRGR:
        return this.#ats();
      default:
        return CMD_ILL;
    }
  }

  #iotinval(): number {
    const c = this.#ring.words;
    const { nl, s } = this.#features;
    const [w0, w1, w2, w3] = [c[0]!, c[1]!, c[2]!, c[3]!];
    if (reserved(c, RES_IOTINVAL) || ((w1 & NL) !== 0 && !nl) || ((w2 & S) !== 0 && !s)) return CMD_ILL;
    const gvma = (w0 & 0x3ff) === IOTINVAL_GVMA;
    if (gvma && (w1 & PSCV) !== 0) return CMD_ILL;
    this.#stats.invalidations++;
    const gscid = (w1 & GV) !== 0 ? (w1 >>> 12) & 0xffff : -1;
    const pscid = (w1 & PSCV) !== 0 ? w0 >>> 12 : -1;
    let first = 0;
    let last = Infinity;
    if ((w0 & AV) !== 0) {
      first = pfnOfWords((w3 << 2) | (w2 >>> 30), (w2 & ~0x3ff) << 2);
      last = first;
      if ((w2 & S) !== 0) {
        // Ones from the bottom up to the first zero code the size: X ones are 2^(X+1) pages.
        let pages = 2;
        for (let rest = first; rest % 2 === 1 && pages < 2 ** 52; rest = Math.floor(rest / 2)) pages *= 2;
        first -= first % pages;
        last = first + pages - 1;
      }
    }
    const nonLeaf = (w1 & NL) !== 0;
    if (gvma) this.#cache.invalidateGvma(gscid, first, last, nonLeaf);
    else this.#cache.invalidateVma(gscid, pscid, first, last, nonLeaf);
    if (this.onInvalidate !== null) this.#tellTables(gvma, gscid, pscid, first, last, nonLeaf);
    return DONE;
  }

  #tellTables(gvma: boolean, gscid: number, pscid: number, first: number, last: number, nonLeaf: boolean): void {
    // GVMA without GV ignores the address.
    const everywhere = last === Infinity || (gvma && gscid < 0);
    const names = [
      gvma ? 'IOTINVAL.GVMA' : 'IOTINVAL.VMA',
      ...(gscid < 0 ? [] : [`GSCID=${gscid}`]),
      ...(pscid < 0 ? [] : [`PSCID=${pscid}`]),
      ...(everywhere ? [] : [`ADDR=${hex(addressOfPfn(first))}`]),
      ...(last > first && !everywhere ? [`S (${last - first + 1} pages)`] : []),
      ...(nonLeaf && !everywhere ? ['NL'] : []),
    ];
    this.onInvalidate!({
      name: names.join(' '),
      layers: everywhere || nonLeaf ? LAYER.LEAF | LAYER.TABLE : LAYER.LEAF,
      domain: pscid >= 0 ? pscid : gscid,
      requester: -1,
      startPfn: everywhere ? 0 : first,
      lastPfn: everywhere ? Infinity : last,
    });
  }

  #tellDirectory(name: string): void {
    const w1 = this.#ring.words[1]!;
    const did = (w1 & DV) !== 0 ? w1 >>> 8 : -1;
    this.onInvalidate!({
      name: did < 0 ? name : `${name} DID=${hex(did)}`,
      layers: LAYER.CONTEXT,
      domain: -1,
      requester: did,
      startPfn: 0,
      lastPfn: Infinity,
    });
  }

  #iofence(): number {
    const c = this.#ring.words;
    const [w0, w1, w2, w3] = [c[0]!, c[1]!, c[2]!, c[3]!];
    if (reserved(c, RES_IOFENCE)) return CMD_ILL;
    const wires = (this.#words[FCTL]! & WSI) !== 0;
    if ((w0 & FENCE_WSI) !== 0 && !wires) return CMD_ILL;
    // PR and PW: memory here is coherent and accesses complete at once, so there is nothing to wait for.
    if ((w0 & FENCE_AV) !== 0 && !this.#memory.store32((w3 << 2) | (w2 >>> 30), w2 << 2, w1)) return CQMF;
    if ((w0 & FENCE_WSI) !== 0) {
      this.#words[CQCSR] = this.#words[CQCSR]! | FENCE_W_IP;
      this.updateInterrupt();
    }
    return DONE;
  }

  #ats(): number {
    const c = this.#ring.words;
    if (!this.#features.ats || (c[0]! & 0xc00) !== 0 || (c[1]! & 0xfc) !== 0) return CMD_ILL;
    const kind = (c[0]! & 0x3ff) === ATS_INVAL ? 'INVAL' : 'PRGR';
    if (this.onAtsMessage !== null) this.onAtsMessage({ kind, words: [c[0]!, c[1]!, c[2]!, c[3]!] });
    return DONE;
  }
}

const reserved = (c: Int32Array, masks: readonly [number, number, number, number]): boolean =>
  ((c[0]! & masks[0]) | (c[1]! & masks[1]) | (c[2]! & masks[2]) | (c[3]! & masks[3])) !== 0;
