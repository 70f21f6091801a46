import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { RingQueue } from '../src/ring-queue.ts';

describe('RingQueue', () => {
  test('stores and loads entries across pages, above 4 GiB', () => {
    const memory = new PhysicalMemory([{ base: 0x1_2345_6000n, size: 0x4000n }]);
    const ring = new RingQueue(memory, 32);
    ring.place(0x12_3456, 512);
    for (const index of [0, 1, 127, 128, 511]) {
      ring.words.fill(index + 1);
      expect(ring.write(index)).toBe(true);
      expect(memory.readU64(0x1_2345_6000n + BigInt(32 * index))).toBe(BigInt(index + 1) * 0x1_0000_0001n);
    }
    expect(ring.read(128)).toBe(true);
    expect([...ring.words]).toEqual(Array.from({ length: 8 }, () => 129));
    expect([ring.addressHi(128), ring.addressLo(128)]).toEqual([1, 0x2345_7000]);
    expect([ring.addressHi(511), ring.addressLo(511)]).toEqual([1, 0x2345_6000 + 32 * 511]);
  });

  test('a ring outside RAM is a bus error, told by the result', () => {
    const ring = new RingQueue(new PhysicalMemory([{ base: 0n, size: 0x1000n }]), 16);
    ring.place(0, 512);
    expect(ring.write(255)).toBe(true);
    expect(ring.write(256)).toBe(false);
    expect(ring.read(256)).toBe(false);
  });
});
