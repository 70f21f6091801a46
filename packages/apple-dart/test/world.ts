/**
 * Streams of every kind on one bare DART, with pages of every kind, for tests that compare whole devices. Offsets and bits are
 * typed from Linux `apple-dart.c`, `io-pgtable-dart.c` and m1n1.
 */
import type { IotlbOptions } from '@iommu-ts/iommu-core';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { DART_PARTS } from '../src/parts.ts';
import type { DartPreset } from '../src/parts.ts';
import { Bare, GIB, R, W } from './rig.ts';
import type { Random } from './rig.ts';

/** Nothing answers here. */
const HOLE = 0x7000_0000n;
const BASE = 0x10_0000n;

/** One access. */
export interface Target {
  readonly stream: number;
  readonly iova: bigint;
  readonly access: number;
  readonly length: number;
}

export class DartWorld {
  readonly bare: Bare;
  readonly memory: PhysicalMemory;
  readonly t8110: boolean;
  readonly page: bigint;
  readonly #dart2: boolean;
  readonly #levels: number;
  #next = BASE;
  /** Entries that {@link step} changes. */
  readonly entries: bigint[] = [];
  readonly #original = new Map<bigint, bigint>();
  /** Two top tables, alike but for where they lead. */
  readonly roots: readonly [bigint, bigint];
  readonly #iovas: bigint[];

  constructor(preset: DartPreset, iotlb: IotlbOptions) {
    const part = DART_PARTS[preset];
    this.memory = new PhysicalMemory([{ base: 0n, size: GIB }]);
    this.bare = new Bare({ preset, iotlb, memory: this.memory });
    this.t8110 = part.generation === 't8110';
    this.#dart2 = part.pte === 'dart2';
    this.page = 1n << BigInt(part.pageShift);
    this.#levels = part.vaWidth > 38 ? 3 : 2;
    const slots = this.page / 8n;
    const [second, top] = [this.page * slots, this.page * slots * slots];
    this.roots = [this.#tree(0x1000_0000n), this.#tree(0x2000_0000n)];
    this.#iovas = [0n, 1n, 2n, 3n, 4n, 5n, 9n].map((n) => n * this.page);
    this.#iovas.push(second, second + this.page, 2n * second, 3n * second, top, top + this.page, 2n * top, 1n << 45n);
    this.registers(this.roots[0]);
    for (const at of this.entries) this.#original.set(at, this.memory.readU64(at));
  }

  table(): bigint {
    const at = this.#next;
    this.#next += this.page;
    return at;
  }

  /** An entry for `pa`, with read and write forbidden or not, limited to sub-pages or not. */
  entry(pa: bigint, forbid: { r?: boolean; w?: boolean; sub?: boolean } = {}): bigint {
    const sub = forbid.sub === true ? (0x10n << 52n) | (0x1fn << 40n) : 0xfffn << 40n;
    const bits = (forbid.r === true ? 2n : 0n) | (forbid.w === true ? 1n : 0n);
    return this.#dart2 ? (pa >> 4n) | (bits << 2n) | sub | 1n : pa | (bits << 7n) | sub | 1n;
  }

  #tree(pa: bigint): bigint {
    const leaves = [this.table(), this.table()] as const;
    const put = (table: bigint, slot: bigint, value: bigint): void => {
      this.memory.writeU64(table + slot * 8n, value);
      this.entries.push(table + slot * 8n);
    };
    for (const [i, table] of leaves.entries()) {
      const at = pa + BigInt(i) * 0x100_0000n;
      put(table, 0n, this.entry(at));
      put(table, 1n, this.entry(at + this.page, { w: true }));
      put(table, 2n, this.entry(at + 2n * this.page, { r: true }));
      put(table, 3n, this.entry(at + 3n * this.page, { sub: true }));
      put(table, 4n, this.entry(at + 4n * this.page));
      put(table, 5n, 0n);
    }
    const middle = this.table();
    put(middle, 0n, this.entry(leaves[0]));
    put(middle, 1n, this.entry(leaves[1]));
    put(middle, 2n, this.entry(HOLE));
    if (this.#levels === 2) return middle;
    const top = this.table();
    put(top, 0n, this.entry(middle));
    put(top, 1n, this.entry(middle));
    return top;
  }

  /** Streams: 1 and 2 translate, 3 bypasses, 4 is off, 5 is served by 1, 6 is not enabled, 7 has no table. */
  registers(root: bigint): void {
    for (let stream = 0; stream < 8; stream++) {
      this.tcr(stream, stream === 3 ? 'bypass' : stream === 4 ? 'off' : 'translate');
      this.ttbr(stream, 0, stream === 7 ? null : root);
      if (!this.t8110) this.ttbr(stream, 1, this.roots[1]);
    }
    this.bare.wr(this.t8110 ? 0xc00 : 0xfc, 0xbf);
    if (this.t8110) this.bare.wr(0x1000 + 20, 0x180 | 1);
    else this.bare.wr(0x84, 0x0706_0104);
  }

  tcr(stream: number, what: 'translate' | 'bypass' | 'off'): void {
    const four = this.#levels === 3 ? 8 : 0;
    if (this.t8110) this.bare.wr(0x1000 + 4 * stream, { translate: 1 | four, bypass: 2, off: 0 }[what]);
    else this.bare.wr(0x100 + 4 * stream, { translate: 0x80, bypass: 0x100, off: 0 }[what]);
  }

  ttbr(stream: number, i: number, root: bigint | null): void {
    if (this.t8110) this.bare.wr(0x1400 + 4 * stream, root === null ? 0 : Number(((root >> 14n) << 2n) | 1n));
    else this.bare.wr(0x200 + 16 * stream + 4 * i, root === null ? 0 : Number((root >> 12n) | 0x8000_0000n));
  }

  /** A flush of streams (t8110: one command each), not waited for. */
  flush(...streams: number[]): void {
    if (this.t8110) for (const stream of streams) this.bare.wr(0x80, 0x100 | stream);
    else {
      this.bare.wr(0x34, streams.reduce((mask, stream) => mask | (1 << stream), 0)); // prettier-ignore
      this.bare.wr(0x20, 1 << 20);
    }
  }

  /** A read of a register that has nothing to do with flushes. */
  read(): void {
    this.bare.rd(0);
  }

  targetOf(random: Random): Target {
    const length = random.pick([1, 4, 64]);
    const stream = random.pick([1, 1, 1, 1, 2, 2, 2, 3, 4, 5, 6, 7, 300]);
    const iova = random.pick(this.#iovas) + BigInt(random.below(64) * 64);
    return { stream, iova, access: random.pick([R, W, R | W]), length };
  }

  /** One random change: entries in memory, registers, a flush, a read. */
  step(random: Random): void {
    switch (random.below(8)) {
      case 0:
      case 1:
        for (let n = 0; n < 3; n++) {
          const at = random.pick(this.entries);
          const value = this.#original.get(at)!;
          const moved = value + (this.page << (this.#dart2 ? 0n : 4n)) * 16n;
          this.memory.writeU64(at, random.pick([value, value & ~1n, moved, value ^ (this.#dart2 ? 4n : 0x80n)]));
        }
        break;
      case 2:
        this.ttbr(random.pick([1, 2]), random.below(2), random.pick([...this.roots, null]));
        break;
      case 3:
        this.tcr(random.pick([1, 2]), random.pick(['translate', 'translate', 'translate', 'bypass', 'off']));
        break;
      case 4:
      case 5:
        this.flush(...random.pick([[1], [2], [1, 2], [0, 1, 2, 3, 4, 5, 6, 7], [9]]));
        if (random.below(2) === 0) this.read();
        break;
      case 6:
        this.bare.wr(this.t8110 ? 0x100 : 0x40, -1);
        break;
      default:
        for (const [at, value] of this.#original) this.memory.writeU64(at, value);
        if (random.below(2) === 0) this.registers(this.roots[0]);
    }
  }

  translate({ stream, iova, access, length }: Target): string {
    return said(this.bare.go(stream, iova, access, length));
  }

  probe({ stream, iova, access, length }: Target, layers: number): string {
    const { dart } = this.bare;
    const hi = Number(iova >> 32n) | 0;
    const code = dart.probe(stream, -1, hi, Number(iova & 0xffff_ffffn) | 0, access, layers, length);
    return said(code !== 0 ? -code : (BigInt(dart.outHi >>> 0) << 32n) | BigInt(dart.outLo >>> 0));
  }

  /** A DART without caches, with a copy of these registers and of memory. */
  fresh(preset: DartPreset): DartWorld {
    const copy = new DartWorld(preset, { mode: 'none' });
    copy.memory.writeBytes(BASE, this.memory.readBytes(BASE, Number(this.#next - BASE)));
    const [from, to] = [this.bare.dart.registers.words, copy.bare.dart.registers.words];
    for (let at = 0; at < from.length; at++) if (from[at] !== to[at]) copy.bare.wr(4 * at, from[at]!);
    return copy;
  }

  /** All that can be read of the device and of memory. */
  state(): Record<string, unknown> {
    const { dart } = this.bare;
    const { iotlb } = dart;
    return {
      registers: dart.registers.words.join(),
      memory: Buffer.from(this.memory.readBytes(BASE, Number(this.#next - BASE))).toString('base64'),
      stats: { ...dart.stats },
      iotlb: [iotlb.size, iotlb.hits, iotlb.misses, iotlb.evictions, iotlb.invalidated],
      line: [dart.interruptLine, ...this.bare.interrupts],
      pending: dart.pendingInvalidations,
    };
  }
}

const said = (answer: bigint | number): string =>
  typeof answer === 'bigint' ? `-> ${answer.toString(16)}` : `code ${-answer}`;
