import { hi32, hex, IommuError, checkU64, lo32 } from '@iommu-ts/bits';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { ACCESS, NO_PASID, TRANSLATE_OK } from './transaction.ts';
import type { Translator } from './transaction.ts';

/** How a DMA ended. `ok`; or the bytes that got through and why the rest did not. */
export interface DmaResult {
  readonly ok: boolean;
  /** Bytes transferred before it stopped. */
  readonly bytes: number;
  /** The fault code that {@link Translator.translate} gave; 0 when it was not a translation fault. */
  readonly code: number;
  /** True when the translated address was answered by nothing. */
  readonly busError: boolean;
}

/** The bus between devices and the IOMMU: splits a DMA at 4 KiB pages, has each part translated, and moves the bytes. */
export class Bus {
  readonly memory: PhysicalMemory;
  readonly translator: Translator;
  /** Pages translated so far, and how many were refused. */
  translations = 0;
  refused = 0;

  constructor(memory: PhysicalMemory, translator: Translator) {
    this.memory = memory;
    this.translator = translator;
  }

  /** A device on this bus. */
  device(requester: number, pasid: number = NO_PASID): DmaDevice {
    return new DmaDevice(this, requester, pasid);
  }

  /**
   * Moves `length` bytes between `buffer[offset…]` and IOVA `hi:lo`. Stops at the first part that is refused.
   * Small transfers to MMIO (doorbells) are single stores.
   * @returns {@link TRANSLATE_OK}, the fault code, or {@link DMA_BUS_ERROR}; the bytes done are in {@link done}.
   */
  transfer(
    requester: number,
    pasid: number,
    iovaHi: number,
    iovaLo: number,
    access: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
  ): number {
    const translator = this.translator;
    const memory = this.memory;
    const write = (access & ACCESS.WRITE) !== 0;
    let hi = iovaHi | 0;
    let lo = iovaLo | 0;
    let done = 0;
    let status = TRANSLATE_OK as number;
    while (done < length) {
      const step = Math.min(length - done, 4096 - (lo & 0xfff));
      this.translations++;
      // The length too: some architectures protect parts of a page.
      status = translator.translate(requester, pasid, hi, lo, access, step);
      if (status !== TRANSLATE_OK) {
        this.refused++;
        break;
      }
      const { outHi, outLo } = translator;
      const at = offset + done;
      // A part lies in one page, and a page is RAM or it is not: nothing has been copied when the copy says no.
      const moved = write
        ? memory.copyIn(outHi, outLo, buffer, at, step) || this.#mmioStore(outHi, outLo, buffer, at, step)
        : memory.copyOut(outHi, outLo, buffer, at, step) || this.#mmioLoad(outHi, outLo, buffer, at, step);
      if (!moved) {
        status = DMA_BUS_ERROR;
        break;
      }
      done += step;
      const next = (lo >>> 0) + step;
      lo = next | 0;
      if (next >= 0x1_0000_0000) hi = (hi + 1) | 0;
    }
    this.done = done;
    return status;
  }
  /** Bytes done by the last {@link transfer}. */
  done = 0;

  /** To MMIO: 1, 2, 4 or 8 bytes are one store, a longer burst arrives as bytes. */
  #mmioStore(hi: number, lo: number, buffer: Uint8Array, at: number, size: number): boolean {
    const memory = this.memory;
    switch (size) {
      case 1:
        return memory.store8(hi, lo, buffer[at]!);
      case 2:
        return memory.store16(hi, lo, buffer[at]! | (buffer[at + 1]! << 8));
      case 4:
        return memory.store32(hi, lo, wordAt(buffer, at));
      case 8:
        return memory.store64(hi, lo, wordAt(buffer, at + 4), wordAt(buffer, at));
      default:
        for (let i = 0; i < size; i++) if (!memory.store8(hi, lo + i, buffer[at + i]!)) return false;
        return true;
    }
  }

  /** From MMIO, likewise. */
  #mmioLoad(hi: number, lo: number, buffer: Uint8Array, at: number, size: number): boolean {
    const memory = this.memory;
    switch (size) {
      case 1:
      case 2:
      case 4: {
        const value = size === 1 ? memory.load8(hi, lo) : size === 2 ? memory.load16(hi, lo) : memory.load32(hi, lo);
        if (memory.busError) return false;
        for (let i = 0; i < size; i++) buffer[at + i] = value >>> (8 * i);
        return true;
      }
      case 8:
        if (!memory.load64(hi, lo)) return false;
        for (let i = 0; i < 4; i++) {
          buffer[at + i] = memory.lo >>> (8 * i);
          buffer[at + 4 + i] = memory.hi >>> (8 * i);
        }
        return true;
      default:
        for (let i = 0; i < size; i++) {
          buffer[at + i] = memory.load8(hi, lo + i);
          if (memory.busError) return false;
        }
        return true;
    }
  }
}

const wordAt = (bytes: Uint8Array, at: number): number =>
  bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);

/** {@link Bus.transfer}: translated, but nothing answered at the physical address. */
export const DMA_BUS_ERROR = -2;

/** An emulated device: a requester id that reads and writes memory by IOVA. */
export class DmaDevice {
  readonly bus: Bus;
  readonly requester: number;
  readonly pasid: number;

  constructor(bus: Bus, requester: number, pasid: number = NO_PASID) {
    this.bus = bus;
    this.requester = requester;
    this.pasid = pasid;
  }

  /** DMA write: `bytes` to `iova`. Never throws for a fault. */
  write(iova: bigint, bytes: Uint8Array): DmaResult {
    return this.#run(iova, ACCESS.WRITE, bytes);
  }

  /** DMA read: `bytes.length` bytes at `iova` into `bytes`. Never throws for a fault. */
  readInto(iova: bigint, bytes: Uint8Array): DmaResult {
    return this.#run(iova, ACCESS.READ, bytes);
  }

  /** DMA read of `length` bytes; what was not transferred reads as zero. */
  read(iova: bigint, length: number): DmaResult & { readonly data: Uint8Array } {
    const data = new Uint8Array(length);
    return { ...this.#run(iova, ACCESS.READ, data), data };
  }

  #run(iova: bigint, access: number, bytes: Uint8Array): DmaResult {
    checkU64(iova, 'iova');
    if (bytes.length === 0) throw new IommuError('EINVAL', `DMA of no bytes at iova ${hex(iova)}`, { iova });
    const status = this.bus.transfer(
      this.requester,
      this.pasid,
      hi32(iova),
      lo32(iova),
      access,
      bytes,
      0,
      bytes.length,
    );
    if (status === TRANSLATE_OK) return { ok: true, bytes: bytes.length, code: 0, busError: false };
    const busError = status === DMA_BUS_ERROR;
    return { ok: false, bytes: this.bus.done, code: busError ? 0 : status, busError };
  }
}
