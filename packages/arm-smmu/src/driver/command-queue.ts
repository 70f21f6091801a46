/** The driver's end of the command queue (IHI 0070, 3.5, 4): writes commands, rings the doorbell, waits for CMDQ_CONS. */
import { IommuError, hiOfPfn, loOfPfn } from '@iommu-ts/bits';
import type { MmioPort } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { CERROR, CMD, decodeCommand } from '../commands.ts';
import { REG } from '../registers.ts';
import type { SharedMemory } from './shared-memory.ts';

/** Reads of CMDQ_CONS until the hardware counts as dead. */
const POLLS = 10_000;
const CMDQ_ERR = 1;

/** The driver's end of CMDQ: commands go in at CMDQ_PROD, {@link CommandSender.sync} waits for CMDQ_CONS. */
export class CommandSender {
  readonly #mmio: MmioPort;
  readonly #shared: SharedMemory;
  readonly #memory: PhysicalMemory;
  readonly #incoherent: boolean;
  readonly log2: number;
  readonly pfn: number;
  readonly #mask: number;
  #prod = 0;
  #cons = 0;
  /** Commands sent so far that invalidate translations. */
  invalidations = 0;
  /** Of a command that the hardware refused: CERROR_… and the command's name. */
  #refused = '';

  /** @throws IommuError `ENOMEM`. */
  constructor(mmio: MmioPort, shared: SharedMemory, log2: number) {
    this.#mmio = mmio;
    this.#shared = shared;
    this.#memory = shared.memory;
    this.#incoherent = shared.incoherent;
    this.log2 = log2;
    this.#mask = (2 << log2) - 1;
    this.pfn = shared.allocate(16 << log2, 'the command queue');
  }

  /** Writes a command into the queue; waits for room when it is full. The hardware sees it at {@link sync} at the latest. */
  issue(w0: number, w1: number, w2: number, w3: number): void {
    const entries = 1 << this.log2;
    if (((this.#prod ^ this.#cons) & this.#mask) === entries) {
      this.#publish();
      for (let i = 0; ((this.#prod ^ this.#cons) & this.#mask) === entries; i++) this.#poll(i);
    }
    this.#store((this.#prod & (entries - 1)) * 16, w0, w1, w2, w3);
    this.#prod = (this.#prod + 1) & this.#mask;
  }

  /** An invalidation of translations. */
  invalidate(w0: number, w1: number, w2: number, w3: number): void {
    this.invalidations++;
    this.issue(w0, w1, w2, w3);
  }

  /**
   * CMD_SYNC, and waits until the hardware has consumed it: everything issued before is complete then.
   * @throws IommuError `ETIMEDOUT` when CMDQ_CONS does not get there, `EIO` when the hardware refused a command.
   */
  sync(): void {
    this.issue(CMD.SYNC, 0, 0, 0);
    this.#publish();
    for (let i = 0; this.#cons !== this.#prod; i++) this.#poll(i);
    if (this.#refused === '') return;
    const refused = this.#refused;
    this.#refused = '';
    throw new IommuError('EIO', refused);
  }

  #publish(): void {
    this.#mmio.write32(REG.CMDQ_PROD, this.#prod);
  }

  #poll(tries: number): void {
    this.#cons = this.#mmio.read32(REG.CMDQ_CONS) & this.#mask;
    const gerror = this.#mmio.read32(REG.GERROR) ^ this.#mmio.read32(REG.GERRORN);
    if (tries > POLLS) {
      throw new IommuError('ETIMEDOUT', 'the SMMU does not consume its command queue', {
        CMDQ_PROD: this.#prod,
        CMDQ_CONS: this.#cons,
      });
    }
    // The bound holds for these too: an SMMU that does not see what took their place refuses the same command for ever.
    if ((gerror & CMDQ_ERR) !== 0) this.#skipRefused();
  }

  /** Takes a refused command out of the way (a CMD_SYNC takes its place) and lets the queue go on (7.1). */
  #skipRefused(): void {
    const cons = this.#mmio.read32(REG.CMDQ_CONS);
    const error = (cons >>> 24) & 0x7f;
    const offset = (cons & (this.#mask >> 1)) * 16;
    const at = loOfPfn(this.pfn) + offset;
    const words = [0, 4, 8, 12].map((byte) => this.#memory.load32(hiOfPfn(this.pfn), at + byte));
    const name = error === CERROR.ILL ? 'CERROR_ILL' : error === CERROR.ABT ? 'CERROR_ABT' : `error ${error}`;
    this.#refused = `the SMMU refused ${decodeCommand(words).name}: ${name}`;
    this.#store(offset, CMD.SYNC, 0, 0, 0);
    this.#mmio.write32(REG.GERRORN, this.#mmio.read32(REG.GERROR));
  }

  #store(offset: number, w0: number, w1: number, w2: number, w3: number): void {
    const memory = this.#memory;
    const hi = hiOfPfn(this.pfn);
    const at = loOfPfn(this.pfn) + offset;
    memory.store64(hi, at, w1, w0);
    memory.store64(hi, at + 8, w3, w2);
    if (this.#incoherent) this.#shared.written(this.pfn, offset, 16);
  }
}
