/** The driver's fault handler: reads event records out of memory, moves EVENTQ_CONS on, acknowledges overflow and errors. */
import { addressOfPfn } from '@iommu-ts/bits';
import type { FaultEvent, MmioPort } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { EVENT_BYTES, decodeEvent } from '../faults.ts';
import { REG } from '../registers.ts';
import type { SharedMemory } from './shared-memory.ts';

const OVFLG = 0x8000_0000 | 0;
/** GERROR.CMDQ_ERR is the command sender's business. */
const CMDQ_ERR = 1;

export class FaultHandler {
  readonly #mmio: MmioPort;
  readonly #memory: PhysicalMemory;
  readonly log2: number;
  readonly pfn: number;
  /** Times the event queue overflowed: records were lost. */
  overflows = 0;
  /** GERROR bits that were seen active. */
  globalErrors = 0;

  /** @throws IommuError `ENOMEM`. */
  constructor(mmio: MmioPort, shared: SharedMemory, log2: number) {
    this.#mmio = mmio;
    this.#memory = shared.memory;
    this.log2 = log2;
    this.pfn = shared.allocate(EVENT_BYTES << log2, 'the event queue');
  }

  /** All records since the last call, oldest first. */
  handle(): FaultEvent[] {
    const mmio = this.#mmio;
    const mask = (2 << this.log2) - 1;
    const events: FaultEvent[] = [];
    let cons = mmio.read32(REG.EVENTQ_CONS);
    const prod = mmio.read32(REG.EVENTQ_PROD);
    if (((prod ^ cons) & OVFLG) !== 0) this.overflows++;
    for (; ((prod ^ cons) & mask) !== 0; cons = (cons & ~mask) | ((cons + 1) & mask)) {
      const at = addressOfPfn(this.pfn) + BigInt((cons & (mask >> 1)) * EVENT_BYTES);
      const word = (i: number): bigint => this.#memory.readU64(at + BigInt(8 * i));
      events.push(decodeEvent([word(0), word(1), word(2), word(3)]));
    }
    mmio.write32(REG.EVENTQ_CONS, (prod & OVFLG) | (cons & mask));
    const gerrorn = mmio.read32(REG.GERRORN);
    const active = (mmio.read32(REG.GERROR) ^ gerrorn) & ~CMDQ_ERR;
    if (active !== 0) {
      this.globalErrors |= active;
      mmio.write32(REG.GERRORN, gerrorn ^ active);
    }
    return events;
  }
}
