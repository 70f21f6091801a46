/** The device directory as the driver builds it: root, tables on demand, device contexts in place. */
import { IommuError, addressOfPfn, hex, hi32, lo32 } from '@iommu-ts/bits';
import type { MmioPort } from '@iommu-ts/iommu-core';
import type { IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { NO_PAGE } from '@iommu-ts/iommu-pages';
import { IOMMU_MODE, REGISTERS } from '../registers.ts';
import { DC_BYTES } from '../structures.ts';
import { POLL_LIMIT } from './command-queue.ts';

const DDTP = REGISTERS.ddtp.offset;
const BUSY = 1 << 4;
const V = 1;
/** Bits of DDI[0] in base and extended format. */
const LEAF_BITS = { base: 7, extended: 6 } as const;

/** Doublewords of a device context. */
const TC = 0;
const IOHGATP = 8;
const TA = 16;
const FSC = 24;

/** Writes `ddtp` and waits for its busy bit; the mode that the register then has (WARL). */
export const writeDdtp = (mmio: MmioPort, mode: number, rootPfn: number): number => {
  const value = (mode > IOMMU_MODE.Bare ? addressOfPfn(rootPfn) >> 2n : 0n) | BigInt(mode);
  mmio.write64(DDTP, hi32(value), lo32(value));
  for (let i = 0; i < POLL_LIMIT; i++) {
    mmio.read64(DDTP);
    if ((mmio.lo & BUSY) === 0) return mmio.lo & 0xf;
  }
  throw new IommuError('ETIMEDOUT', `ddtp stays busy after ${hex(value)}`, { ddtp: value });
};

export class DeviceDirectory {
  readonly #memory: PhysicalMemory;
  readonly #pages: IommuPages;
  readonly #allocated: number[] = [];
  readonly #root: number;
  readonly #leafBits: number;
  readonly #dcBytes: number;
  /** Levels that the hardware took. */
  readonly levels: number;
  /** Number of device_ids that it tells apart. */
  readonly devices: number;

  /**
   * Allocates the root and turns translation on, with the deepest directory that the hardware takes: 3, 2, then 1 level.
   * @throws IommuError `ENOMEM`, `ENODEV` when it takes none.
   */
  constructor(mmio: MmioPort, pages: IommuPages, extended: boolean) {
    this.#pages = pages;
    this.#memory = pages.memory;
    this.#leafBits = extended ? LEAF_BITS.extended : LEAF_BITS.base;
    this.#dcBytes = extended ? DC_BYTES.extended : DC_BYTES.base;
    this.#root = this.#table();
    let mode: number = IOMMU_MODE['3LVL'];
    while (mode >= IOMMU_MODE['1LVL'] && writeDdtp(mmio, mode, this.#root) !== mode) mode--;
    if (mode < IOMMU_MODE['1LVL']) {
      pages.freePages(this.#root);
      throw new IommuError('ENODEV', 'ddtp takes none of 3LVL, 2LVL and 1LVL');
    }
    this.levels = mode - 1;
    this.devices = 2 ** Math.min(24, this.#leafBits + 9 * (this.levels - 1));
  }

  /** Gives all tables back; translation has to be off. */
  free(): void {
    for (const pfn of this.#allocated) this.#pages.freePages(pfn);
    this.#allocated.length = 0;
  }

  /** Clears V of a device's context; false when it has none. The caller invalidates. */
  invalidate(did: number): boolean {
    const at = this.#locate(did, false);
    if (at === null) return false;
    this.#memory.load64(at.hi, at.lo | TC);
    if ((this.#memory.lo & V) === 0) return false;
    this.#memory.store64(at.hi, at.lo | TC, this.#memory.hi, this.#memory.lo & ~V);
    return true;
  }

  /** Writes a context whose V is 0 and sets V last. @throws IommuError `ENOMEM` when there is no page for a directory table. */
  install(did: number, fsc: bigint, pscid: number): void {
    const at = this.#locate(did, true)!;
    const memory = this.#memory;
    memory.store64(at.hi, at.lo | IOHGATP, 0, 0);
    memory.store64(at.hi, at.lo | TA, 0, pscid << 12);
    memory.store64(at.hi, at.lo | FSC, hi32(fsc), lo32(fsc));
    memory.store64(at.hi, at.lo | TC, 0, V);
  }

  #locate(did: number, make: boolean): { hi: number; lo: number } | null {
    let table = this.#root;
    for (let level = this.levels - 1; level > 0; level--) {
      const index = (did >>> (this.#leafBits + 9 * (level - 1))) & 0x1ff;
      const entry = addressOfPfn(table, index * 8);
      this.#memory.load64(hi32(entry), lo32(entry));
      if ((this.#memory.lo & V) === 0) {
        if (!make) return null;
        table = this.#table();
        const value = (addressOfPfn(table) >> 2n) | BigInt(V);
        this.#memory.store64(hi32(entry), lo32(entry), hi32(value), lo32(value));
      } else table = (this.#memory.hi & 0x3f_ffff) * 0x40_0000 + (this.#memory.lo >>> 10);
    }
    const dc = addressOfPfn(table, (did & (2 ** this.#leafBits - 1)) * this.#dcBytes);
    return { hi: hi32(dc), lo: lo32(dc) };
  }

  #table(): number {
    const pfn = this.#pages.allocPagesSz(4096);
    if (pfn === NO_PAGE) throw new IommuError('ENOMEM', 'no page for a device-directory table');
    this.#allocated.push(pfn);
    return pfn;
  }
}
