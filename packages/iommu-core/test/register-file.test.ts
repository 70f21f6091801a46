import { bit, bits } from '@iommu-ts/bits';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RegisterFile } from '../src/register-file.ts';
import type { RegisterMap } from '../src/register-file.ts';

const MAP = {
  ID: { offset: 0, width: 4, access: 'RO', reset: 0x1234_5678n, doc: 'identification' },
  CTRL: {
    offset: 4,
    width: 4,
    access: 'RW',
    writable: 0xffn,
    layout: { EN: bit(0), MODE: bits(7, 1) },
    doc: 'control',
  },
  BASE: { offset: 8, width: 8, access: 'RW', writable: 0x00ff_ffff_ffff_f000n, doc: 'base' },
  STATUS: { offset: 16, width: 4, access: 'RW1C', doc: 'status' },
  GO: { offset: 20, width: 4, access: 'WO', doc: 'doorbell' },
  SLOT: { offset: 32, width: 4, access: 'RW', count: 4, stride: 8, doc: 'array' },
} satisfies RegisterMap;

describe('RegisterFile', () => {
  test('access rules: RO, masks, write-one-to-clear, write-only, arrays', () => {
    const regs = new RegisterFile(MAP, 0x100);
    regs.write32(0, -1);
    expect(regs.read32(0)).toBe(0x1234_5678);
    regs.write32(4, 0xfff);
    expect(regs.read32(4)).toBe(0xff);
    regs.words[4] = 0b1110;
    regs.write32(16, 0b0110);
    expect(regs.read32(16)).toBe(0b1000);
    regs.write32(20, 7);
    expect([regs.read32(20), regs.words[5]]).toEqual([0, 7]);
    regs.write32(48, 5);
    expect([regs.read32(48), regs.read32(52)]).toEqual([5, 0]);
    regs.write32(52, 9); // between two elements of the array: nothing is there
    expect(regs.read32(52)).toBe(0);
  });

  test('halves of an 8-byte register, and one 8-byte access over two 4-byte registers', () => {
    const writes: number[] = [];
    const regs = new RegisterFile(MAP, 0x100, { afterWrite: (offset) => void writes.push(offset) });
    regs.write64(8, 0x7fff_ffff, -1);
    expect(regs.get64(8)).toBe(0x00ff_ffff_ffff_f000n);
    regs.write32(12, 1);
    expect(regs.read(8, 8)).toBe(0x0000_0001_ffff_f000n);
    regs.write64(0, 3, 9);
    expect([regs.read32(0), regs.read32(4)]).toEqual([0x1234_5678, 3]);
    expect(writes).toEqual([8, 8, 0, 4]);
  });

  test('a write that the hardware deals with itself is not stored; computed registers are refreshed before a read', () => {
    const regs: RegisterFile = new RegisterFile(MAP, 0x100, {
      onWrite: (offset, size, hi, lo) => offset === 4 && size === 4 && hi === 0 && lo === 6,
      beforeRead: (offset) => {
        if (offset === 0) regs.words[0] = 42;
      },
    });
    regs.write32(4, 6);
    regs.write32(0, 0);
    expect([regs.read32(4), regs.read32(0)]).toEqual([0, 42]);
  });

  test('sub-word reads extract; misaligned accesses and sub-word writes are counted, not done', () => {
    const regs = new RegisterFile(MAP, 0x100);
    expect([regs.read(1, 1), regs.read(2, 2)]).toEqual([0x56n, 0x1234n]);
    regs.write(4, 1, 0xffn);
    regs.write32(5, 1);
    regs.write64(12, 1, 1);
    regs.read64(4);
    expect([regs.read32(4), regs.get64(8), regs.hi, regs.lo, regs.malformed]).toEqual([0, 0n, 0, 0, 4]);
  });

  test('sits in physical memory as an MMIO range', () => {
    const regs = new RegisterFile(MAP, 0x100);
    const memory = new PhysicalMemory([{ base: 0n, size: 0x1000n }]);
    memory.addMmio({ name: 'unit', base: 0x10_0000n, size: 0x100n, handler: regs });
    memory.write(0x10_0008n, 8, 0x1_2345_6789n);
    expect(memory.read(0x10_0008n, 8)).toBe(0x1_2345_6000n);
    expect(memory.load32(0, 0x10_0000)).toBe(0x1234_5678);
  });

  test('reset values can be given at construction and come back', () => {
    const regs = new RegisterFile(MAP, 0x100);
    regs.define(0, 4, 0xffff_ffffn);
    regs.write64(8, 0, 0x7000);
    regs.reset();
    expect([regs.read32(0), regs.get64(8)]).toEqual([-1, 0n]);
  });

  test('refuses maps that overlap', () => {
    expect(() => new RegisterFile({ ...MAP, TWICE: { offset: 12, width: 4, access: 'RW', doc: '' } }, 0x100)).toThrow(
      expect.objectContaining({ code: 'EINVAL' }),
    );
  });

  test('any access at any offset answers and never throws', () => {
    fc.assert(
      fc.property(
        fc.nat(0x140),
        fc.constantFrom(1, 2, 4, 8),
        fc.bigInt(0n, (1n << 64n) - 1n),
        (offset, size, value) => {
          const regs = new RegisterFile(MAP, 0x100);
          regs.write(offset, size as 8, value);
          expect(regs.read(offset, size as 8)).toBeLessThan(1n << BigInt(8 * size));
          expect(regs.read32(0)).toBe(0x1234_5678);
        },
      ),
      { seed: 7 },
    );
  });
});
