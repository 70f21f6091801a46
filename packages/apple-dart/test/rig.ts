/** A bare DART for tests that program it by hand: plain numbers, no constants of the package. */
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { IotlbOptions } from '@iommu-ts/iommu-core';
import { AppleDart } from '../src/hardware/unit.ts';
import { resolvePart } from '../src/parts.ts';
import type { DartPartOptions } from '../src/parts.ts';

export const GIB = 1n << 30n;
export const R = 1;
export const W = 2;

/** Numbers that repeat: mulberry32. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed;
  }
  /** 32 random bits, unsigned. */
  u32(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  }
  below(n: number): number {
    return this.u32() % n;
  }
  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }
}

export interface BareOptions extends DartPartOptions {
  readonly iotlb?: IotlbOptions;
  readonly busyReads?: number;
  readonly locked?: boolean;
  readonly memory?: PhysicalMemory;
}

/** A device and 1 GiB of memory. */
export class Bare {
  readonly memory: PhysicalMemory;
  readonly dart: AppleDart;
  readonly interrupts: string[] = [];

  constructor(options: BareOptions = {}) {
    this.memory = options.memory ?? new PhysicalMemory([{ base: 0n, size: GIB }]);
    this.dart = new AppleDart(this.memory, {
      part: resolvePart(options),
      iotlb: options.iotlb ?? { mode: 'sized' },
      busyReads: options.busyReads ?? 0,
      locked: options.locked ?? false,
    });
    this.dart.onInterrupt = (source) => this.interrupts.push(source);
  }

  rd(offset: number): number {
    return this.dart.mmio.read32(offset) >>> 0;
  }

  wr(offset: number, value: number): void {
    this.dart.mmio.write32(offset, value | 0);
  }

  /** One access; the address, or `-code`. */
  go(stream: number, iova: bigint, access = R, length?: number): bigint | number {
    const { dart } = this;
    const code = dart.translate(stream, -1, Number(iova >> 32n) | 0, Number(iova & 0xffff_ffffn) | 0, access, length);
    if (code !== 0) return -code;
    return (BigInt(dart.outHi >>> 0) << 32n) | BigInt(dart.outLo >>> 0);
  }

  /** t8103 with 16 KiB pages: stream 1 translates through a table at 0x10000, whose first leaf table is at 0x14000. */
  simple(): this {
    this.wr(0xfc, 0xffff);
    this.memory.writeU64(0x10000n, 0x14000n | 1n);
    this.wr(0x200 + 16, 0x8000_0010);
    this.wr(0x100 + 4, 0x80);
    return this;
  }

  /** Leaf number `i` of {@link simple}. */
  leaf(i: number, entry: bigint): void {
    this.memory.writeU64(0x14000n + 8n * BigInt(i), entry);
  }
}
