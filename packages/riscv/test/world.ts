/**
 * Devices of every kind behind one bare IOMMU, each with pages of every kind, for tests that compare whole devices. Bits are
 * typed from the specification.
 */
import { ACCESS } from '@iommu-ts/iommu-core';
import type { IotlbOptions } from '@iommu-ts/iommu-core';
import type { Random } from '@iommu-ts/conformance';
import { A, BareMetal, D, G, R, RWXUAD, U, V, W, X, ppn } from './bare-metal.ts';

export const SV39 = 8n << 60n;
const DTF = 1n << 4n;
const PDTV = 1n << 5n;
const GADE = 1n << 7n;
const SADE = 1n << 8n;
const NAPOT = 1n << 63n;
/** Nothing answers here. */
const HOLE = 0x3000_0000n;

const IOVAS = [
  0x1000n,
  0x2000n,
  0x3000n,
  0x4000n,
  0x5000n,
  0x6000n,
  0x7000n,
  0x8000n,
  0x1_0000n,
  0x1_5000n,
  0x1_f000n,
  0x20_0000n,
  0x23_4000n,
  0x40_0000n,
  0x60_0000n,
  0x80_0000n,
  0x4000_0000n,
  0x4123_4000n,
  1n << 38n,
  1n << 41n,
] as const;

/** Device ids and process ids (the ones with most to find more often) that {@link targetOf} picks from; some of them have no context. */
const REQUESTERS: readonly (readonly [number, number])[] = [
  [0, -1], [1, -1], [1, 3], [2, -1], [3, -1], [4, -1], [4, -1], [4, -1], [5, 1], [5, 0x101], [5, 2], [5, -1], [6, 1], [6, 7], [7, -1],
  [8, -1], [9, -1], [10, -1], [64, -1], [1 << 20, -1],
]; // prettier-ignore

const ACCESSES = [
  ACCESS.READ,
  ACCESS.READ,
  ACCESS.WRITE,
  ACCESS.READ | ACCESS.WRITE,
  ACCESS.EXEC,
  ACCESS.READ | ACCESS.PRIV,
  ACCESS.WRITE | ACCESS.PRIV,
] as const;

/** One access. */
export interface Target {
  readonly did: number;
  readonly pid: number;
  readonly iova: bigint;
  readonly access: number;
}

export const targetOf = (random: Random): Target => {
  const [did, pid] = random.pick(REQUESTERS);
  return { did, pid, iova: random.pick(IOVAS) + BigInt(random.below(4096)), access: random.pick(ACCESSES) };
};

/** Fills a table of three levels with leaves of every kind. */
const leaves = (bare: BareMetal, root: bigint, x4 = false): bigint[] => {
  const entries: bigint[] = [];
  const leaf = (va: bigint, value: bigint, level = 0): void => {
    entries.push(bare.map(root, 3, va, value, level, x4));
  };
  leaf(0x1000n, ppn(0x5_1000n) | RWXUAD);
  leaf(0x2000n, ppn(0x5_2000n) | V | R | U | A);
  leaf(0x3000n, ppn(0x5_3000n) | V | R | W | U);
  leaf(0x4000n, ppn(0x5_4000n) | V | R | W | U | A);
  leaf(0x5000n, ppn(0x5_5000n) | V | R | W | A | D);
  leaf(0x6000n, ppn(0x5_6000n) | RWXUAD | G);
  leaf(0x8000n, ppn(0x5_8000n) | V | X | U | A);
  for (let i = 0n; i < 16n; i++) leaf(0x1_0000n + i * 0x1000n, NAPOT | ppn(0x6_8000n) | RWXUAD);
  leaf(0x20_0000n, ppn(0x800_0000n) | RWXUAD, 1);
  leaf(0x40_0000n, ppn(HOLE) | V, 1);
  leaf(0x60_0000n, (1n << 54n) | ppn(0x800_0000n) | RWXUAD, 1);
  leaf(0x4000_0000n, ppn(0x4000_0000n) | RWXUAD, 2);
  return entries;
};

export class World {
  readonly bare: BareMetal;
  /** Entries in memory that {@link step} changes: addresses of PTEs, contexts, MSI PTEs. */
  readonly entries: bigint[] = [];
  readonly #original = new Map<bigint, bigint>();
  /** End of the memory in use. */
  readonly end: bigint;

  constructor(iotlb: IotlbOptions) {
    const bare = new BareMetal({ capabilities: 0xdf8_814e_0e10n }, iotlb).enable();
    this.bare = bare;
    const stage1 = (identity: bigint | null = null): bigint => {
      const root = bare.page();
      this.entries.push(...leaves(bare, root));
      if (identity !== null) bare.map(identity, 3, 0x20_0000n, ppn(0x20_0000n) | RWXUAD, 1, true);
      return root;
    };
    const stage2 = (): bigint => {
      const root = bare.page(0x4000n);
      this.entries.push(...leaves(bare, root, true));
      // Where the tables of first stages lie, and where their leaves point.
      bare.map(root, 3, 0x20_0000n, ppn(0x20_0000n) | RWXUAD, 1, true);
      for (let at = 0x5_0000n; at < 0x7_0000n; at += 0x1000n) {
        this.entries.push(bare.map(root, 3, at, ppn(at + 0x100_0000n) | RWXUAD, 0, true));
      }
      bare.map(root, 3, 0x800_0000n, ppn(0x800_0000n) | RWXUAD, 1, true);
      return root;
    };
    bare.dc(1, { ta: 1n << 12n, fsc: SV39 | (stage1() >> 12n) });
    bare.dc(2, { tc: V | SADE, ta: 2n << 12n, fsc: SV39 | (stage1() >> 12n) });
    bare.dc(3, { tc: V | GADE, iohgatp: SV39 | (3n << 44n) | (stage2() >> 12n) });
    const msi = bare.page();
    this.entries.push(msi, msi + 16n, msi + 32n, msi + 48n);
    bare.memory.writeU64(msi, ppn(0x700_0000n) | 7n);
    bare.memory.writeU64(msi + 16n, ppn(0x700_1000n) | 7n);
    bare.memory.writeU64(msi + 32n, ppn(0x700_2000n) | 3n);
    const guest = stage2();
    bare.dc(4, {
      tc: V | SADE | GADE,
      iohgatp: SV39 | (4n << 44n) | (guest >> 12n),
      ta: 4n << 12n,
      fsc: SV39 | (stage1(guest) >> 12n),
      // Pages 0x51 … 0x54 of the guest are interrupt files.
      msiptp: (1n << 60n) | (msi >> 12n),
      mask: 3n,
      pattern: 0x50n,
    });
    const directory = (second: boolean, pscid: bigint): bigint => {
      const pdt = bare.page();
      const leaf = bare.page();
      const high = bare.page();
      bare.memory.writeU64(pdt, ppn(leaf) | V);
      bare.memory.writeU64(pdt + 8n, ppn(high) | V);
      for (const at of [leaf + 16n, high + 16n]) {
        bare.memory.writeU64(at, (pscid << 12n) | V | (at === leaf + 16n ? 2n : 4n));
        bare.memory.writeU64(at + 8n, SV39 | (stage1() >> 12n));
        this.entries.push(at);
        pscid++;
      }
      if (!second) this.entries.push(pdt, pdt + 8n);
      return pdt;
    };
    bare.dc(5, { tc: V | PDTV, fsc: (2n << 60n) | (directory(false, 0x50n) >> 12n) });
    const host = stage2();
    bare.dc(6, {
      tc: V | PDTV | SADE | GADE,
      iohgatp: SV39 | (6n << 44n) | (host >> 12n),
      fsc: (2n << 60n) | (directory(true, 0x60n) >> 12n),
    });
    bare.dc(7, { tc: V | (1n << 12n) });
    bare.dc(8, { tc: V | DTF, ta: 8n << 12n, fsc: SV39 | (HOLE >> 12n) });
    bare.dc(9, {});
    for (let did = 0n; did < 10n; did++) this.entries.push(0x12_0000n + did * 64n);
    this.end = bare.page();
    for (const at of this.entries) this.#original.set(at, bare.memory.readU64(at));
  }

  /** One random change: an entry in memory, a command, a read of a register, `ddtp`, the fault queue emptied. */
  step(random: Random): void {
    const { bare } = this;
    switch (random.below(8)) {
      case 0:
      case 1:
        for (let n = 0; n < 16; n++) {
          const at = random.pick(this.entries);
          const value = this.#original.get(at)!;
          const [pageBit, low] = [1n << (10n + BigInt(random.below(3))), BigInt(random.below(256))];
          bare.memory.writeU64(at, random.pick([value, value, value & ~1n, value ^ pageBit, value ^ low]));
        }
        break;
      case 2:
      case 3:
      case 4:
        this.#command(random);
        break;
      case 5:
        bare.read32(random.pick([0, 32, 36, 52, 84]));
        break;
      case 6:
        bare.write32(48, bare.read32(52));
        break;
      default:
        if (random.oneIn(8)) {
          const on = bare.read64(16);
          bare.write64(16, BigInt(random.below(2)));
          if (!random.oneIn(4)) bare.write64(16, on);
        } else bare.write64(16, (0x12_0000n >> 2n) | 2n);
        // And now and then all is well again, or after a while nothing would be.
        if (random.oneIn(2)) for (const [at, value] of this.#original) bare.memory.writeU64(at, value);
    }
  }

  #command(random: Random): void {
    const { bare } = this;
    const page = random.pick(IOVAS) >> 12n;
    const pscid = BigInt(random.pick([1, 2, 4, 0x50, 0x51, 0x60, 0x61]));
    const gscid = BigInt(random.pick([3, 4, 6]));
    const [av, nl] = [random.oneIn(2) ? 1n << 10n : 0n, random.oneIn(2) ? 1n << 34n : 0n];
    const [pscv, gv] = [random.oneIn(2) ? 1n << 32n : 0n, random.oneIn(2) ? 1n << 33n : 0n];
    const did = BigInt(random.below(10)) << 40n;
    switch (random.below(4)) {
      case 0:
        return bare.command(1n | av | nl | pscv | gv | (pscid << 12n) | (gscid << 44n), page << 10n);
      case 1:
        return bare.command(1n | (1n << 7n) | av | nl | gv | (gscid << 44n), page << 10n);
      case 2:
        return bare.command(3n | (random.oneIn(3) ? 0n : (1n << 33n) | did));
      default:
        return bare.command(3n | (1n << 7n) | (1n << 33n) | did | (BigInt(random.pick([1, 0x101])) << 12n));
    }
  }

  translate(target: Target): string {
    const { did, pid, iova, access } = target;
    const cause = this.bare.translate(did, iova, access, pid);
    return cause === 0 ? `-> ${this.bare.out.toString(16)}` : `cause ${cause}`;
  }

  probe(target: Target, layers: number): string {
    const { hardware } = this.bare;
    const { did, pid, iova, access } = target;
    const [hi, lo] = [Number(BigInt.asIntN(32, iova >> 32n)), Number(BigInt.asIntN(32, iova))];
    const cause = hardware.probe(did, pid, hi, lo, access, layers);
    return cause === 0 ? `-> ${this.bare.out.toString(16)}` : `cause ${cause}`;
  }

  /** A device without caches on a copy of the registers that say where the directory is, and of memory. */
  fresh(): World {
    const copy = new World({ mode: 'none' });
    copy.bare.memory.writeBytes(0x10_0000n, this.bare.memory.readBytes(0x10_0000n, Number(this.end - 0x10_0000n)));
    copy.bare.write64(16, 0n);
    copy.bare.write64(16, this.bare.hardware.mmio.get64(16));
    return copy;
  }

  /** All that can be read of the device and of memory. */
  state(): Record<string, unknown> {
    const { hardware, memory } = this.bare;
    const { iotlb } = hardware;
    const bytes = memory.readBytes(0x10_0000n, Number(this.end - 0x10_0000n));
    let hash = 0;
    for (const word of new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)) {
      hash = (Math.imul(hash, 31) + word) | 0;
    }
    return {
      registers: hardware.mmio.words.join(),
      memory: hash,
      stats: { ...hardware.stats },
      iotlb: [iotlb.size, iotlb.hits, iotlb.misses, iotlb.evictions, iotlb.invalidated],
      pending: hardware.pendingInvalidations,
    };
  }
}
