/** Interrupts and global errors of an SMMUv3 (IHI 0070, 3.18, 7.5): wires, MSIs, GERROR. */
import { maskLo } from '@iommu-ts/bits';
import type { RegisterFile } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { GERROR, IRQ_CTRL, REG } from '../registers.ts';
import type { Capabilities } from './capabilities.ts';

const EVENTQ_IRQEN = maskLo(IRQ_CTRL.EVENTQ_IRQEN);
const GERROR_IRQEN = maskLo(IRQ_CTRL.GERROR_IRQEN);
const MSI_EVENTQ_ABT_ERR = maskLo(GERROR.MSI_EVENTQ_ABT_ERR);
const MSI_GERROR_ABT_ERR = maskLo(GERROR.MSI_GERROR_ABT_ERR);
const MSI_CMDQ_ABT_ERR = maskLo(GERROR.MSI_CMDQ_ABT_ERR);

export class Interrupts {
  readonly #registers: RegisterFile;
  readonly #memory: PhysicalMemory;
  readonly #msi: boolean;
  /** Called with `'evtq'`, `'gerror'`, `'cmdq-sync'` or `'sev'`, for a wire and for an MSI alike. */
  onInterrupt: ((source: string) => void) | null = null;

  constructor(registers: RegisterFile, memory: PhysicalMemory, capabilities: Capabilities) {
    this.#registers = registers;
    this.#memory = memory;
    this.#msi = capabilities.msi;
  }

  /** Are errors `mask` of GERROR active (any of them)? */
  active(mask: number): boolean {
    const { words } = this.#registers;
    return ((words[REG.GERROR / 4]! ^ words[REG.GERRORN / 4]!) & mask) !== 0;
  }

  /** Activates a global error; nothing happens when it is active already (7.5). */
  error(mask: number): void {
    if (this.active(mask)) return;
    this.#registers.words[REG.GERROR / 4]! ^= mask;
    if ((this.#registers.words[REG.IRQ_CTRL / 4]! & GERROR_IRQEN) === 0) return;
    this.#signal(
      'gerror',
      REG.GERROR_IRQ_CFG0,
      REG.GERROR_IRQ_CFG1,
      mask === MSI_GERROR_ABT_ERR ? 0 : MSI_GERROR_ABT_ERR,
    );
  }

  /** The event queue has become non-empty. */
  eventQueue(): void {
    if ((this.#registers.words[REG.IRQ_CTRL / 4]! & EVENTQ_IRQEN) === 0) return;
    this.#signal('evtq', REG.EVENTQ_IRQ_CFG0, REG.EVENTQ_IRQ_CFG1, MSI_EVENTQ_ABT_ERR);
  }

  /** CMD_SYNC with CS = IRQ has completed; an MSI when the command names an address. */
  sync(addressHi: number, addressLo: number, data: number): void {
    if (this.#msi && (addressHi | addressLo) !== 0) this.#write(addressHi, addressLo, data, MSI_CMDQ_ABT_ERR);
    this.onInterrupt?.('cmdq-sync');
  }

  /** CMD_SYNC with CS = SEV has completed. */
  wakeUp(): void {
    this.onInterrupt?.('sev');
  }

  #signal(source: string, cfg0: number, cfg1: number, abort: number): void {
    const { words } = this.#registers;
    const hi = words[cfg0 / 4 + 1]!;
    const lo = words[cfg0 / 4]!;
    if (this.#msi && (hi | lo) !== 0) this.#write(hi, lo, words[cfg1 / 4]!, abort);
    this.onInterrupt?.(source);
  }

  #write(hi: number, lo: number, data: number, abort: number): void {
    if (!this.#memory.store32(hi, lo, data) && abort !== 0) this.error(abort);
  }
}
