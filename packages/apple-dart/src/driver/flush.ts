/** TLB flushes through the registers, waiting until the hardware says that it is done (Linux: `…_hw_invalidate_tlb`). */
import { IommuError, maskLo } from '@iommu-ts/bits';
import type { MmioPort } from '@iommu-ts/iommu-core';
import { STREAM_COMMANDS, tlbFlushSid } from '../commands.ts';
import type { Generation } from '../faults.ts';
import { STREAM_COMMAND, T8020_REGISTERS, T8110_REGISTERS, TLB_CMD } from '../registers.ts';

/** Reads of the command register before a flush is given up (Linux: 100 of 1 µs). */
const BUSY_TIMEOUT = 100;

const STREAM_BUSY = maskLo(STREAM_COMMAND.BUSY);
const TLB_BUSY = maskLo(TLB_CMD.BUSY);

/** Flushes cached translations of streams, given as a bit mask of 32-bit words. */
export class TlbFlusher {
  readonly #mmio: MmioPort;
  readonly #t8110: boolean;
  /** Commands sent so far. */
  commands = 0;

  constructor(mmio: MmioPort, generation: Generation) {
    this.#mmio = mmio;
    this.#t8110 = generation === 't8110';
  }

  /**
   * Flushes every stream of `mask`; returns when the hardware has done it. One command on t8020, one a stream on t8110.
   * @throws IommuError `ETIMEDOUT` when BUSY does not fall.
   */
  flush(mask: Int32Array): void {
    if (!this.#t8110) {
      if (mask[0] === 0) return;
      this.#mmio.write32(T8020_REGISTERS.STREAM_SELECT.offset, mask[0]!);
      this.#run(T8020_REGISTERS.STREAM_COMMAND.offset, STREAM_COMMANDS.INVALIDATE, STREAM_BUSY);
      return;
    }
    for (let word = 0; word < mask.length; word++) {
      for (let left = mask[word]!; left !== 0; left &= left - 1) {
        const sid = 32 * word + 31 - Math.clz32(left & -left);
        this.#run(T8110_REGISTERS.TLB_CMD.offset, tlbFlushSid(sid), TLB_BUSY);
      }
    }
  }

  #run(register: number, command: number, busy: number): void {
    const mmio = this.#mmio;
    this.commands++;
    mmio.write32(register, command);
    for (let i = 0; i < BUSY_TIMEOUT; i++) if ((mmio.read32(register) & busy) === 0) return;
    throw new IommuError('ETIMEDOUT', `DART is still busy after ${BUSY_TIMEOUT} reads, command ${command}`, {
      command,
    });
  }
}
