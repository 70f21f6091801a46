import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { DeviceMemory } from '../../src/checks/device-memory.ts';

const MMIO = 0x4_0000n;

/** RAM at 0 and 0x10000 with a hole between, RAM above 4 GiB, and a register file that counts its accesses. */
const machine = () => {
  const memory = new PhysicalMemory([
    { base: 0n, size: 0x8000n },
    { base: 0x1_0000n, size: 0x8000n, kind: 'flat' },
    { base: 0x1_0000_0000n, size: 0x4000n },
  ]);
  const log: string[] = [];
  memory.addMmio({
    name: 'registers',
    base: MMIO,
    size: 0x40n,
    handler: {
      read: (offset, size) => (
        log.push(`r${offset}/${size}`),
        0x8877_6655_4433_2211n & ((1n << BigInt(8 * size)) - 1n)
      ),
      write: (offset, size, value) => void log.push(`w${offset}/${size}=${value.toString(16)}`),
    },
  });
  return { memory, log };
};

/** A small generator (xorshift), so that a failure can be repeated. */
const random = (seed: number) => () => {
  seed ^= seed << 13;
  seed ^= seed >>> 17;
  seed ^= seed << 5;
  return seed >>> 0;
};

describe('DeviceMemory', () => {
  test('answers as the memory behind it, whatever is asked', () => {
    const seed = 0x1234_5677;
    const next = random(seed);
    const plain = machine();
    const other = machine();
    const device = new DeviceMemory(other.memory);
    const bases = [0, 0x7ff8, 0xfff0, 0x1_7ff0, 0x4_0000, 0x4_0038, 0x3ff8, 0x0fff];
    for (let i = 0; i < 4000; i++) {
      const what = next() % 13;
      const hi = next() % 4 === 0 ? 1 : 0;
      const lo = bases[next() % bases.length]! + (next() % 24);
      const value = next() | 0;
      const run = (m: PhysicalMemory): unknown => {
        const state = (): unknown[] => [m.busError, m.hi, m.lo];
        const bytes = new Uint8Array(300).fill(i);
        const address = BigInt(hi) * 2n ** 32n + BigInt(lo);
        try {
          switch (what) {
            case 0:
              return [m.load8(hi, lo), m.busError];
            case 1:
              return [m.load16(hi, lo), m.busError];
            case 2:
              return [m.load32(hi, lo), m.busError];
            case 3:
              return [m.load64(hi, lo), ...state()];
            case 4:
              return m.store8(hi, lo, value);
            case 5:
              return m.store16(hi, lo, value);
            case 6:
              return m.store32(hi, lo, value);
            case 7:
              return m.store64(hi, lo, ~value, value);
            case 8:
              return [m.copyIn(hi, lo, bytes, 3, value & 0xff), m.rangeOf(lo >>> 12)?.basePfn];
            case 9:
              return [m.copyOut(hi, lo, bytes, 3, value & 0xff), bytes];
            case 10:
              return m.read(address, ([1, 2, 4, 8] as const)[value & 3]!);
            case 11:
              return m.write(address, ([1, 2, 4, 8] as const)[value & 3]!, BigInt(value >>> 0));
            default:
              return [m.writeBytes(address, bytes.subarray(0, value & 0xff)), m.readBytes(address, value & 0xff)];
          }
        } catch (error) {
          return (error as { code?: string }).code;
        }
      };
      expect(run(device), `seed ${seed}, step ${i}, access ${what} at ${hi}:${lo.toString(16)}`).toEqual(
        run(plain.memory),
      );
    }
    expect(other.log).toEqual(plain.log);
    for (const [base, size] of [
      [0n, 0x8000],
      [0x1_0000n, 0x8000],
      [0x1_0000_0000n, 0x4000],
    ] as const) {
      expect(other.memory.readBytes(base, size)).toEqual(plain.memory.readBytes(base, size));
    }
  });

  test('what a probe writes is seen by the probe and by nobody else', () => {
    const { memory, log } = machine();
    const device = new DeviceMemory(memory);
    memory.writeU64(0x1000n, 5n);
    device.beginProbe();
    expect(device.locate(1, true)).toBe(true);
    device.view[device.index] = 7;
    expect(device.load32(0, 0x1000)).toBe(7);
    expect(device.load32(0, 0x1004)).toBe(0);
    expect(device.store32(0, 0x4_0000, 1)).toBe(true); // a register that is there, but not for a probe
    expect(device.store32(0, 0x9000, 1)).toBe(false);
    expect(memory.readU64(0x1000n)).toBe(5n);
    device.endProbe();
    expect([device.load32(0, 0x1000), log]).toEqual([5, []]);
  });

  test('freed pages are told, by a probe only to its maker', () => {
    const { memory } = machine();
    const device = new DeviceMemory(memory);
    const told: string[] = [];
    device.freed = new Map([[2, 0]]);
    device.onFreed = (pfn, write) => void told.push(`${pfn}${write ? 'w' : 'r'}`);
    device.load64(0, 0x2008);
    device.store64(0, 0x2010, 0, 1);
    device.load64(0, 0x1ff8);
    device.beginProbe();
    device.load64(0, 0x2008);
    expect(device.probeFreed).toBe(2);
    device.endProbe();
    expect(told).toEqual(['2r', '2w']);
  });

  test('an image shows what was written back, in lines of 64 bytes', () => {
    const { memory } = machine();
    const device = new DeviceMemory(memory);
    memory.writeU64(0x1000n, 1n);
    device.imageBegin(1, 0x2000, null);
    memory.writeU64(0x1000n, 2n);
    memory.writeU64(0x1040n, 3n);
    memory.writeU64(0x2ff8n, 4n);
    const seen = (): bigint[] => [device.readU64(0x1000n), device.readU64(0x1040n), device.readU64(0x2ff8n)];
    expect(seen()).toEqual([1n, 0n, 0n]);
    expect([device.unseen(1), device.unseen(2)]).toEqual([[0, 0x40], [0xff8]]);
    device.clean(1, 0x38, 8);
    expect(seen()).toEqual([2n, 0n, 0n]);
    device.clean(1, 0x1ff8, 8);
    expect(seen()).toEqual([2n, 0n, 4n]);
    expect([device.linesCleaned, device.linesEqual]).toEqual([2, 0]);
    device.clean(1, 0x1ff8, 8);
    expect([device.linesCleaned, device.linesEqual]).toEqual([3, 1]);
    device.beginProbe(true);
    expect(device.readU64(0x1040n)).toBe(3n);
    device.endProbe();
    // What the device writes, the CPU sees; and only what it wrote.
    device.writeU64(0x1048n, 9n);
    device.settle();
    expect([memory.readU64(0x1040n), memory.readU64(0x1048n)]).toEqual([3n, 9n]);
    device.imageEnd(1, 0x2000);
    expect(seen()).toEqual([2n, 3n, 4n]);
  });
});
