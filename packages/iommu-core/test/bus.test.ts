import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { MmioHandler } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { Bus, DMA_BUS_ERROR } from '../src/bus.ts';
import { ACCESS, NO_PASID, TRANSLATE_OK } from '../src/transaction.ts';
import type { Translator } from '../src/transaction.ts';

/** Translates by a table of pages; anything else is refused with code 7. Remembers what it was asked. */
class TableTranslator implements Translator {
  readonly pages = new Map<bigint, bigint>();
  readonly asked: [requester: number, pasid: number, iova: bigint, access: number][] = [];
  outHi = 0;
  outLo = 0;
  translate(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number): number {
    const iova = (BigInt(iovaHi >>> 0) << 32n) | BigInt(iovaLo >>> 0);
    this.asked.push([requester, pasid, iova, access]);
    const page = this.pages.get(iova & ~0xfffn);
    if (page === undefined) return 7;
    const out = page | (iova & 0xfffn);
    this.outHi = Number(BigInt.asIntN(32, out >> 32n));
    this.outLo = Number(BigInt.asIntN(32, out));
    return TRANSLATE_OK;
  }
}

class Recorder implements MmioHandler {
  readonly log: string[] = [];
  read(offset: number, size: 1 | 2 | 4 | 8): bigint {
    this.log.push(`r${size}@${offset}`);
    return BigInt.asUintN(8 * size, 0x8877_6655_4433_2211n);
  }
  write(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    this.log.push(`w${size}@${offset}=${value.toString(16)}`);
  }
}

const RAM = 0x10_0000_0000n;
const MMIO = 0xfe00_0000n;

const make = (kind: 'flat' | 'sparse' = 'sparse') => {
  const memory = new PhysicalMemory([{ base: RAM, size: 0x100_0000n, kind }]);
  const mmio = new Recorder();
  memory.addMmio({ name: 'doorbell', base: MMIO, size: 0x1000n, handler: mmio });
  const translator = new TableTranslator();
  return { memory, mmio, translator, bus: new Bus(memory, translator) };
};

const pattern = (length: number, from = 1): Uint8Array => Uint8Array.from({ length }, (_, i) => from + i * 7);

describe.each(['flat', 'sparse'] as const)('Bus over %s RAM', (kind) => {
  test('a transfer is split at page boundaries, each part translated on its own, pages anywhere', () => {
    const { memory, translator, bus } = make(kind);
    translator.pages.set(0x5000n, RAM + 0x3000n);
    translator.pages.set(0x6000n, RAM + 0x40_0000n);
    translator.pages.set(0x7000n, RAM + 0x1000n);
    const bytes = pattern(0x1000 + 0x10 + 0x20);
    const device = bus.device(0x42, 5);
    expect(device.write(0x5ff0n, bytes)).toEqual({ ok: true, bytes: bytes.length, code: 0, busError: false });
    expect(translator.asked).toEqual([
      [0x42, 5, 0x5ff0n, ACCESS.WRITE],
      [0x42, 5, 0x6000n, ACCESS.WRITE],
      [0x42, 5, 0x7000n, ACCESS.WRITE],
    ]);
    expect(memory.readBytes(RAM + 0x3ff0n, 16)).toEqual(bytes.slice(0, 16));
    expect(memory.readBytes(RAM + 0x40_0000n, 4096)).toEqual(bytes.slice(16, 16 + 4096));
    expect(memory.readBytes(RAM + 0x1000n, 0x20)).toEqual(bytes.slice(16 + 4096));
    expect(memory.readBytes(RAM + 0x1020n, 1)).toEqual(new Uint8Array(1));
    const back = device.read(0x5ff0n, bytes.length);
    expect(back.data).toEqual(bytes);
    expect([back.ok, back.bytes]).toEqual([true, bytes.length]);
    expect([bus.translations, bus.refused]).toEqual([6, 0]);
  });

  test.each([1, 2, 3, 4, 7, 8, 31, 32, 33, 64, 100, 4096])('%i bytes at odd offsets, there and back', (length) => {
    const { memory, translator, bus } = make(kind);
    translator.pages.set(0n, RAM + 0x2000n);
    translator.pages.set(0x1000n, RAM + 0x5000n);
    for (const offset of [0n, 1n, 5n, 0xfffn]) {
      const bytes = pattern(length, Number(offset & 0xffn));
      expect(bus.device(1).write(offset, bytes).ok).toBe(true);
      const back = new Uint8Array(length);
      expect(bus.device(1).readInto(offset, back).ok).toBe(true);
      expect(back).toEqual(bytes);
      expect(memory.read(RAM + 0x2000n + offset, 1)).toBe(BigInt(bytes[0]!));
    }
  });

  test('only the asked part of a larger buffer moves', () => {
    const { translator, bus, memory } = make(kind);
    translator.pages.set(0n, RAM);
    const buffer = pattern(300);
    expect(bus.transfer(1, NO_PASID, 0, 0x10, ACCESS.WRITE, buffer, 100, 64)).toBe(TRANSLATE_OK);
    expect(bus.done).toBe(64);
    expect(memory.readBytes(RAM, 0x60)).toEqual(
      Uint8Array.from([...new Uint8Array(16), ...buffer.slice(100, 164), ...new Uint8Array(16)]),
    );
    const into = new Uint8Array(300).fill(0xee);
    expect(bus.transfer(1, NO_PASID, 0, 0x10, ACCESS.READ, into, 200, 50)).toBe(TRANSLATE_OK);
    expect(into).toEqual(
      Uint8Array.from([...new Uint8Array(200).fill(0xee), ...buffer.slice(100, 150), ...new Uint8Array(50).fill(0xee)]),
    );
  });
});

describe('Bus', () => {
  test('stops at the first part that is refused, and says how far it came', () => {
    const { memory, translator, bus } = make();
    translator.pages.set(0x1000n, RAM);
    translator.pages.set(0x3000n, RAM + 0x1000n);
    const result = bus.device(9).write(0x1f00n, pattern(0x3000));
    expect(result).toEqual({ ok: false, bytes: 0x100, code: 7, busError: false });
    expect(translator.asked.map((a) => a[2])).toEqual([0x1f00n, 0x2000n]);
    expect([bus.translations, bus.refused]).toEqual([2, 1]);
    expect(memory.readBytes(RAM + 0x1000n, 8)).toEqual(new Uint8Array(8));
    const read = bus.device(9).read(0x1f00n, 0x200);
    expect([read.ok, read.bytes, read.code]).toEqual([false, 0x100, 7]);
    expect(read.data.subarray(0x100)).toEqual(new Uint8Array(0x100));
  });

  test('a translated address where nothing answers is a bus error, not a fault', () => {
    const { translator, bus } = make();
    translator.pages.set(0x1000n, RAM);
    translator.pages.set(0x2000n, 0x5_0000_0000n);
    for (const length of [1, 2, 4, 8, 16]) {
      expect(bus.device(1).write(0x2000n, pattern(length))).toEqual({ ok: false, bytes: 0, code: 0, busError: true });
      expect(bus.device(1).read(0x2000n, length)).toMatchObject({ ok: false, bytes: 0, code: 0, busError: true });
    }
    expect(bus.device(1).write(0x1ff8n, pattern(16))).toEqual({ ok: false, bytes: 8, code: 0, busError: true });
    expect(bus.transfer(1, NO_PASID, 0, 0x2000, ACCESS.READ, new Uint8Array(4), 0, 4)).toBe(DMA_BUS_ERROR);
    expect(bus.refused).toBe(0);
  });

  test('the IOVA carries from the low word into the high one, and wraps at 2^64', () => {
    const { memory, translator, bus } = make();
    translator.pages.set(0xffff_f000n, RAM);
    translator.pages.set(0x1_0000_0000n, RAM + 0x2000n);
    const bytes = pattern(0x20);
    expect(bus.device(1).write(0xffff_fff0n, bytes).ok).toBe(true);
    expect(translator.asked.map((a) => a[2])).toEqual([0xffff_fff0n, 0x1_0000_0000n]);
    expect(memory.readBytes(RAM + 0x2000n, 16)).toEqual(bytes.slice(16));
    translator.pages.set(0xffff_ffff_ffff_f000n, RAM);
    translator.pages.set(0n, RAM + 0x3000n);
    expect(bus.device(1).write(0xffff_ffff_ffff_fff8n, bytes.slice(0, 16)).ok).toBe(true);
    expect(translator.asked.at(-1)![2]).toBe(0n);
    expect(memory.readBytes(RAM + 0x3000n, 8)).toEqual(bytes.slice(8, 16));
  });

  test('doorbells: 1, 2, 4 and 8 bytes are one access, anything else arrives as bytes', () => {
    const { mmio, translator, bus } = make();
    translator.pages.set(0x1000n, MMIO);
    const device = bus.device(3);
    const bytes = Uint8Array.of(0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88);
    for (const length of [1, 2, 4, 8]) expect(device.write(0x1040n, bytes.subarray(0, length)).ok).toBe(true);
    expect(device.write(0x1ffen, bytes.subarray(0, 2)).ok).toBe(true);
    expect(device.write(0x1040n, bytes.subarray(0, 3)).ok).toBe(true);
    expect(mmio.log).toEqual([
      'w1@64=11',
      'w2@64=2211',
      'w4@64=44332211',
      'w8@64=8877665544332211',
      'w2@4094=2211',
      'w1@64=11',
      'w1@65=22',
      'w1@66=33',
    ]);
    mmio.log.length = 0;
    for (const length of [1, 2, 4, 8]) expect(device.read(0x1040n, length).data).toEqual(bytes.slice(0, length));
    expect(device.read(0x1040n, 3).data).toEqual(Uint8Array.of(0x11, 0x11, 0x11));
    expect(mmio.log).toEqual(['r1@64', 'r2@64', 'r4@64', 'r8@64', 'r1@64', 'r1@65', 'r1@66']);
  });

  test('misuse is refused before anything moves', () => {
    const { bus, translator } = make();
    expect(() => bus.device(1).write(0n, new Uint8Array(0))).toThrowError(expect.objectContaining({ code: 'EINVAL' }));
    expect(() => bus.device(1).write(-1n, new Uint8Array(1))).toThrowError(expect.objectContaining({ code: 'ERANGE' }));
    expect(() => bus.device(1).read(1n << 64n, 1)).toThrowError(expect.objectContaining({ code: 'ERANGE' }));
    expect(() => bus.device(1).write(5 as unknown as bigint, new Uint8Array(1))).toThrowError(TypeError);
    expect(translator.asked).toEqual([]);
  });
});
