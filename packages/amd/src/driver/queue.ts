/**
 * The driver's end of the command buffer: commands written to memory, the tail pointer rung, completion awaited by what
 * the hardware stores.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, section 2.4 "Commands".
 */
import { IommuError, hex, hiOfPfn, loOfPfn, maskLo, maskWord } from '@iommu-ts/bits';
import type { MmioPort } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { COMMAND, COMMANDS, COMMAND_BYTES } from '../commands.ts';
import { REGISTERS, Status } from '../registers.ts';

const HEAD = REGISTERS.CmdBufHead.offset;
const TAIL = REGISTERS.CmdBufTail.offset;
const STATUS = REGISTERS.Status.offset;
const CMD_BUF_RUN = maskLo(Status.CmdBufRun);

const WAIT_S = maskLo(COMMANDS.COMPLETION_WAIT.S);
const PAGES_S = maskWord(COMMANDS.INVALIDATE_IOMMU_PAGES.S, 2);
const PAGES_PDE = maskWord(COMMANDS.INVALIDATE_IOMMU_PAGES.PDE, 2);
const ADDRESS_LO = maskWord(COMMANDS.INVALIDATE_IOMMU_PAGES.Address, 2);

/** Entries of the command buffer: 8 KiB, as Linux's. */
export const COMMAND_ENTRIES_LG2 = 9;
const ENTRIES = 2 ** COMMAND_ENTRIES_LG2;

/** Reads of a register or of the semaphore before the hardware counts as dead. */
const PATIENCE = 100_000;

export class CommandQueue {
  readonly #mmio: MmioPort;
  readonly #memory: PhysicalMemory;
  readonly #pfn: number;
  readonly #semaphorePfn: number;
  #tail = 0;
  /** The head pointer as read last: entries up to it are free. */
  #head = 0;
  #sequence = 0;
  /** Commands sent that invalidate translations. */
  invalidations = 0;

  /**
   * @param pfn first page of the ring, {@link COMMAND_ENTRIES_LG2} entries
   * @param semaphorePfn page that completions are stored to
   */
  constructor(mmio: MmioPort, memory: PhysicalMemory, pfn: number, semaphorePfn: number) {
    this.#mmio = mmio;
    this.#memory = memory;
    this.#pfn = pfn;
    this.#semaphorePfn = semaphorePfn;
  }

  /** Drops what is cached of one device table entry. */
  invalidateDevice(id: number): void {
    this.#put(id, COMMAND.INVALIDATE_DEVTAB_ENTRY << 28, 0, 0);
  }

  /** Drops everything that is cached under a domain, table entries included. */
  invalidateDomain(domain: number): void {
    this.#invalidatePages(domain, 0x7fff_ffff, -1 & ADDRESS_LO, PAGES_S);
  }

  /**
   * Drops what is cached of pages `startPfn … lastPfn` (4 KiB pages) of a domain, by the smallest power-of-two range that
   * holds them: with S=1 the ones from address bit 12 up to the first zero encode the size.
   */
  invalidateRange(domain: number, startPfn: number, lastPfn: number): void {
    const hi = hiOfPfn(startPfn);
    const lo = loOfPfn(startPfn);
    // The highest bit in which first and last differ is zero in the first: it ends the ones by itself. (With bit 31 the
    // subtraction leaves int32, and the bit operation takes it back to 0x7fffffff.)
    const differHi = (hi ^ hiOfPfn(lastPfn)) | 0;
    const differLo = lo ^ loOfPfn(lastPfn);
    if (differHi !== 0) {
      const top = 31 - Math.clz32(differHi);
      this.#invalidatePages(domain, hi | ((1 << top) - 1), -1 & ADDRESS_LO, PAGES_S);
    } else if (differLo !== 0) {
      const top = 31 - Math.clz32(differLo);
      this.#invalidatePages(domain, hi, lo | (((1 << top) - 1) & ADDRESS_LO), PAGES_S);
    } else {
      this.#invalidatePages(domain, hi, lo, 0);
    }
  }

  /** Drops all that is cached; only with ExtFeature.IASup. */
  invalidateAll(): void {
    this.invalidations++;
    this.#put(0, COMMAND.INVALIDATE_IOMMU_ALL << 28, 0, 0);
  }

  /**
   * Sends what was put, behind it a COMPLETION_WAIT, and returns when its store has arrived.
   * @throws IommuError `ETIMEDOUT` when it does not arrive.
   */
  wait(): void {
    const sequence = (this.#sequence = (this.#sequence + 1) | 0);
    const hi = hiOfPfn(this.#semaphorePfn);
    const lo = loOfPfn(this.#semaphorePfn);
    this.#put(lo | WAIT_S, (COMMAND.COMPLETION_WAIT << 28) | hi, sequence, 0);
    this.#ring();
    for (let i = 0; i < PATIENCE; i++) {
      if (this.#memory.load32(hi, lo) === sequence) return;
      // A read between the polls brings the write of the tail pointer to the hardware, should it still be on its way.
      this.#mmio.read32(HEAD);
    }
    throw this.#timeout('COMPLETION_WAIT did not complete');
  }

  #invalidatePages(domain: number, addressHi: number, addressLo: number, size: number): void {
    this.invalidations++;
    this.#put(0, (COMMAND.INVALIDATE_IOMMU_PAGES << 28) | domain, addressLo | PAGES_PDE | size, addressHi);
  }

  #put(w0: number, w1: number, w2: number, w3: number): void {
    const next = (this.#tail + 1) & (ENTRIES - 1);
    if (next === this.#head) this.#makeRoom(next);
    const byte = this.#tail * COMMAND_BYTES;
    this.#memory.locate(this.#pfn + (byte >>> 12), true);
    const view = this.#memory.view;
    const at = this.#memory.index + ((byte & 0xfff) >>> 2);
    view[at] = w0;
    view[at + 1] = w1;
    view[at + 2] = w2;
    view[at + 3] = w3;
    this.#tail = next;
  }

  /** The ring is full as far as we know: has the hardware moved on? */
  #makeRoom(next: number): void {
    this.#ring();
    for (let i = 0; i < PATIENCE; i++) {
      this.#head = (this.#mmio.read32(HEAD) >>> 4) & (ENTRIES - 1);
      if (next !== this.#head) return;
    }
    throw this.#timeout('the command buffer stays full');
  }

  #ring(): void {
    this.#mmio.write32(TAIL, this.#tail << 4);
  }

  #timeout(what: string): IommuError {
    const head = this.#mmio.read32(HEAD) >>> 0;
    const status = this.#mmio.read32(STATUS);
    const why = (status & CMD_BUF_RUN) === 0 ? ': the hardware has stopped fetching (see the event log)' : '';
    return new IommuError('ETIMEDOUT', `${what}${why}; CmdBufHead ${hex(head)}, CmdBufTail ${hex(this.#tail << 4)}`, {
      head,
      tail: this.#tail << 4,
      status: status >>> 0,
    });
  }
}
