/** The port that does what a wrong driver would have done: what it changes, and that it changes nothing else. */
import type { MmioPort } from '@iommu-ts/iommu-core';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { FaultyPort } from '../src/mutation/index.ts';
import type { PortFault, RingLayout } from '../src/mutation/index.ts';

const BASE = 0x10;
const TAIL = 0x20;
const HEAD = 0x28;
const RING = 5;
/** Four commands; 1 and 2 invalidate, 9 completes by a store of its second word to address 0x100. */
const ring: RingLayout = {
  base: BASE,
  place: (_hi, lo) => ({ pfn: lo >>> 12, entries: 4 }),
  tail: TAIL,
  indexOf: (value) => value,
  invalidates: (words) => words[0] === 1 || words[0] === 2,
  nop: [7, 7, 7, 7],
  complete: (words, memory) => {
    if (words[0] === 9) memory.store32(0, 0x100, words[1]!);
  },
};

class Registers implements MmioPort {
  hi = 0;
  lo = 0;
  readonly log: string[] = [];
  read32(offset: number): number {
    this.log.push(`r${offset.toString(16)}`);
    return offset;
  }
  write32(offset: number, value: number): void {
    this.log.push(`w${offset.toString(16)}=${value.toString(16)}`);
  }
  read64(offset: number): void {
    this.hi = 1;
    this.lo = offset;
  }
  write64(offset: number, hi: number, lo: number): void {
    this.log.push(`W${offset.toString(16)}=${hi.toString(16)}:${lo.toString(16)}`);
  }
}

const rig = (fault: PortFault, layout: { ring: RingLayout | null; commandRegister?: number } = { ring }) => {
  const memory = new PhysicalMemory([{ base: 0n, size: 1n << 20n }]);
  const registers = new Registers();
  const port = new FaultyPort(registers, memory, layout, fault);
  port.write64(BASE, 0, RING << 12);
  let tail = 0;
  return {
    memory,
    registers,
    port,
    /** Writes commands (first words) and moves the tail. */
    send: (...opcodes: number[]) => {
      for (const opcode of opcodes) {
        memory.store32(0, (RING << 12) + tail * 16, opcode);
        memory.store32(0, (RING << 12) + tail * 16 + 4, 100 + opcode);
        tail = (tail + 1) % 4;
      }
      port.write32(TAIL, tail);
    },
    ring: () => [0, 1, 2, 3].map((i) => memory.load32(0, (RING << 12) + i * 16)),
  };
};

describe('FaultyPort', () => {
  test('passes everything through until it is armed, and what no fault touches after', () => {
    const { port, registers, send, ring: words } = rig({ command: () => 'drop', write32: () => null });
    send(1, 3);
    expect(words()).toEqual([1, 3, 0, 0]);
    expect(port.read32(HEAD)).toBe(HEAD);
    port.read64(0x30);
    expect([port.hi, port.lo]).toEqual([1, 0x30]);
    expect(registers.log).toEqual([`W10=0:5000`, 'w20=2', 'r28']);
    expect(port.ringPfn).toBe(RING);
    expect(port.struck).toBe(0);
  });

  test('edits each command once, also where the ring wraps', () => {
    const seen: number[] = [];
    const {
      port,
      send,
      ring: words,
    } = rig({
      command: (w) => {
        seen.push(w[0]!);
        if (w[0] === 2) return 'drop';
        w[0]! += 0x10;
        return undefined;
      },
    });
    port.armed = true;
    send(1, 2, 3);
    expect(words()).toEqual([0x11, 7, 0x13, 0]);
    send(4, 5);
    expect(words()).toEqual([0x15, 7, 0x13, 0x14]);
    expect(seen).toEqual([1, 2, 3, 4, 5]);
    expect(port.struck).toBeGreaterThan(0);
  });

  test('drops and changes register writes, and counts them by register', () => {
    const { port, registers } = rig({
      write32: (offset, value, nth) => (offset === 0x40 ? (nth === 2 ? null : value + nth) : value),
      write64: (offset) => offset !== 0x50,
    });
    port.armed = true;
    for (let i = 0; i < 3; i++) port.write32(0x40, 0);
    port.write32(0x44, 9);
    port.write64(0x50, 1, 2);
    port.write64(0x58, 1, 2);
    expect(registers.log.slice(1)).toEqual(['w40=1', 'w40=3', 'w44=9', 'W58=1:2']);
  });

  test('an impatient driver is answered without the device, by register and by memory', () => {
    const { port, registers, send, memory } = rig({
      impatient: (offset, tail) => (offset === HEAD ? tail : undefined),
    });
    port.armed = true;
    send(1, 9);
    expect(port.read32(HEAD)).toBe(2);
    expect(memory.load32(0, 0x100)).toBe(109);
    expect(port.read32(0x60)).toBe(0x60);
    expect(registers.log.slice(1)).toEqual(['w20=2', 'r60']);
  });

  test('silently: no invalidation gets through, everything else does', () => {
    const { port, send, ring: words } = rig({});
    port.silently(() => send(1, 9, 2));
    expect(words()).toEqual([7, 9, 7, 0]);
    send(1);
    expect(words()[3]).toBe(1);
    const registers = rig({}, { ring: null, commandRegister: 0x20 });
    registers.port.silently(() => {
      registers.port.write32(0x20, 1);
      registers.port.write32(0x24, 1);
    });
    registers.port.write32(0x20, 2);
    expect(registers.registers.log.slice(1)).toEqual(['w24=1', 'w20=2']);
  });
});
