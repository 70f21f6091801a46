/**
 * The adversarial device: what is cached stays until the command that 48882 section 2.4 defines to drop it, commands take
 * effect when software next reads a register, and each says what it was once it has.
 */
import type { InvalidationEvent } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { Bare, CMD_HEAD, CMD_TAIL, CONTROL, DEVICE_TABLE, READ, RUNNING, RW, STATUS, STORE, WRITE } from './bare.ts';

const IOVA = 0x12_3456_7000n;
const PAGE = 0x5555_5000n;
const OTHER = 0x6666_6000n;

const retain = (): Bare => new Bare({ iotlb: { mode: 'retain' }, efr: (1n << 6n) | (2n << 10n) });
/** Any register read. */
const read = (bare: Bare): void => void bare.unit.mmio.read32(STATUS);
/** A command, executed. */
const done = (bare: Bare, low: bigint, high = 0n): void => {
  bare.command(low, high);
  read(bare);
};

const devtab = (id: number): bigint => (2n << 60n) | BigInt(id);
const pages = (domain: number): bigint => (3n << 60n) | (BigInt(domain) << 32n);
const PDE = 2n;
const S = 1n;
const ALL = 0x7fff_ffff_ffff_f000n | S;

/** Device 1, domain 5, three levels; the address of the level-1 entry, the level-2 entry and the new tables. */
const mapped = () => {
  const bare = retain();
  const leaf = bare.table();
  const middle = bare.table();
  const root = bare.table();
  bare.entry(leaf, 1, IOVA, 1n | PAGE | RW);
  bare.entry(middle, 2, IOVA, 1n | (1n << 9n) | leaf | RW);
  bare.entry(root, 3, IOVA, 1n | (2n << 9n) | middle | RW);
  bare.paging(1, 3, root);
  const events: InvalidationEvent[] = [];
  bare.unit.onInvalidate = (event) => events.push(event);
  return { bare, leaf, middle, root, events };
};

describe('translations, by DomainID (2.4.3)', () => {
  test('stay without a command, and go with INVALIDATE_IOMMU_PAGES of their address', () => {
    const { bare, leaf, events } = mapped();
    expect(bare.access(1, IOVA, READ)).toBe(PAGE);
    bare.entry(leaf, 1, IOVA, 0n);
    expect(bare.access(1, IOVA, READ)).toBe(PAGE);
    done(bare, pages(6), IOVA); // another domain
    done(bare, pages(5), IOVA + 0x1000n); // another page
    done(bare, devtab(1)); // the device table entry only
    expect(bare.access(1, IOVA, READ)).toBe(PAGE);
    done(bare, pages(5), IOVA);
    expect(bare.access(1, IOVA, READ)).toBe(2);
    expect(events.map((e) => [e.layers, e.domain, e.requester, e.startPfn, e.lastPfn])).toEqual([
      [1, 6, -1, 0x12_34567, 0x12_34567],
      [1, 5, -1, 0x12_34568, 0x12_34568],
      [4, -1, 1, 0, Infinity],
      [1, 5, -1, 0x12_34567, 0x12_34567],
    ]);
    expect(events[2]!.name).toBe('INVALIDATE_DEVTAB_ENTRY DeviceID=0x1');
  });

  test('a size in the address: the range and nothing beside it', () => {
    const { bare, leaf, events } = mapped();
    for (let n = 0n; n < 8n; n++) bare.entry(leaf, 1, 0x12_3456_0000n + (n << 12n), 1n | (PAGE + (n << 12n)) | RW);
    const all = (): (bigint | number)[] =>
      Array.from({ length: 8 }, (_, n) => bare.access(1, 0x12_3456_0000n + (BigInt(n) << 12n), READ));
    const before = all();
    for (let n = 0n; n < 8n; n++) bare.entry(leaf, 1, 0x12_3456_0000n + (n << 12n), 0n);
    // Ones in bits 12, zero in bit 13: 16 KiB.
    done(bare, pages(5), 0x12_3456_5000n | S);
    expect(all()).toEqual(before.map((pa, n) => (n >= 4 ? 2 : pa)));
    expect(events[0]).toMatchObject({ startPfn: 0x12_34564, lastPfn: 0x12_34567, layers: 1 });
    done(bare, pages(5), ALL);
    expect(all()).toEqual(before.map(() => 2));
    expect(events[1]).toMatchObject({ startPfn: 0, lastPfn: Infinity, layers: 1 });
  });
});

describe('page directory entries, by DomainID (2.4.3, PDE)', () => {
  /** Another leaf table stands where the first did; the translation is not cached, the way to it is. */
  const replaced = () => {
    const rig = mapped();
    const { bare, middle } = rig;
    const next = bare.table();
    bare.entry(next, 1, IOVA, 1n | OTHER | RW);
    bare.access(1, IOVA, READ);
    bare.entry(middle, 2, IOVA, 1n | (1n << 9n) | next | RW);
    return rig;
  };

  test('PDE=0 drops the translation and keeps the way', () => {
    const { bare } = replaced();
    done(bare, pages(5), IOVA);
    expect(bare.access(1, IOVA, READ)).toBe(PAGE);
    expect(bare.access(1, IOVA + 0x1000n, READ)).toBe(2); // the old table's neighbour: through the same way
  });

  test('PDE=1 drops both; of another domain or address neither', () => {
    const { bare, events } = replaced();
    done(bare, pages(6), ALL | PDE);
    done(bare, pages(5), (IOVA + 0x20_0000n) | PDE);
    done(bare, pages(5), IOVA);
    expect(bare.access(1, IOVA, READ)).toBe(PAGE);
    done(bare, pages(5), IOVA | PDE);
    expect(bare.access(1, IOVA, READ)).toBe(OTHER);
    expect(events.map((e) => e.layers)).toEqual([3, 3, 1, 3]);
  });

  test('a walk through a cached entry keeps the permissions of the entries above it', () => {
    const { bare, leaf, root, middle } = mapped();
    bare.entry(root, 3, IOVA, 1n | (2n << 9n) | middle | (1n << 61n)); // IR only
    expect(bare.access(1, IOVA, READ)).toBe(PAGE);
    bare.entry(leaf, 1, IOVA + 0x1000n, 1n | OTHER | RW);
    expect(bare.access(1, IOVA + 0x1000n, WRITE)).toBe(2);
    expect(bare.access(1, IOVA + 0x1000n, READ)).toBe(OTHER);
  });

  test('INVALIDATE_DEVTAB_ENTRY does not drop them, INVALIDATE_IOMMU_ALL does', () => {
    const { bare, events } = replaced();
    done(bare, devtab(1));
    done(bare, pages(5), IOVA);
    expect(bare.access(1, IOVA, READ)).toBe(PAGE);
    done(bare, 8n << 60n);
    expect(bare.access(1, IOVA, READ)).toBe(OTHER);
    expect(events.at(-1)).toMatchObject({ layers: 7, domain: -1, requester: -1, startPfn: 0, lastPfn: Infinity });
  });

  test('skipped levels: what is cached serves only addresses that the walk would have served', () => {
    const bare = retain();
    const leaf = bare.table();
    const root = bare.table();
    bare.entry(leaf, 1, 0x1000n, 1n | PAGE | RW);
    bare.entry(root, 4, 0x1000n, 1n | (1n << 9n) | leaf | RW); // from level 4 to level 1
    bare.paging(1, 4, root);
    expect(bare.access(1, 0x1000n, READ)).toBe(PAGE);
    expect(bare.access(1, 0x20_1000n, READ)).toBe(2);
    expect(bare.access(1, 0x4000_1000n, READ)).toBe(2);
  });

  test('not-present entries are never cached', () => {
    const { bare, leaf, middle } = mapped();
    expect(bare.access(1, IOVA + 0x1000n, READ)).toBe(2);
    expect(bare.access(1, IOVA + 0x20_0000n, READ)).toBe(2);
    bare.entry(leaf, 1, IOVA + 0x1000n, 1n | OTHER | RW);
    bare.entry(middle, 2, IOVA + 0x20_0000n, 1n | (0x1_2340_0000n & ~0x1f_ffffn) | RW);
    expect(bare.access(1, IOVA + 0x1000n, READ)).toBe(OTHER);
    expect(typeof bare.access(1, IOVA + 0x20_0000n, READ)).toBe('bigint');
  });
});

describe('device table entries (2.4.2)', () => {
  test('every one of 65536 stays until INVALIDATE_DEVTAB_ENTRY of its own DeviceID', () => {
    const bare = retain();
    bare.write64(0x0, DEVICE_TABLE | 0x1ffn); // 2 MiB: all of them
    const ids = [0, 1, 1024, 2048, 0x9001, 0xffff];
    for (const id of ids) bare.dte(id, 3n | RW, 9n);
    for (const id of ids) expect(bare.access(id, IOVA, READ)).toBe(IOVA);
    for (const id of ids) bare.dte(id, 1n);
    for (const id of ids) expect(bare.access(id, IOVA, READ)).toBe(IOVA);
    done(bare, devtab(1));
    expect(ids.map((id) => bare.access(id, IOVA, READ))).toEqual([IOVA, 2, IOVA, IOVA, IOVA, IOVA]);
    done(bare, pages(9), ALL | PDE); // translations of their domain are something else
    expect(bare.access(1024, IOVA, READ)).toBe(IOVA);
    done(bare, 8n << 60n);
    expect(ids.map((id) => bare.access(id, IOVA, READ))).toEqual([2, 2, 2, 2, 2, 2]);
  });

  test('writes of Control, of the table address and of the exclusion range drop nothing', () => {
    const bare = retain();
    bare.dte(1, 3n | RW, 9n);
    bare.access(1, IOVA, READ);
    bare.dte(1, 1n);
    bare.write64(CONTROL, RUNNING & ~1n);
    bare.write64(CONTROL, RUNNING);
    bare.write64(0x0, STORE);
    bare.write64(0x20, 0n);
    bare.write64(0x28, 0n);
    expect(bare.access(1, IOVA, READ)).toBe(IOVA);
    bare.unit.reset();
    bare.write64(0x0, DEVICE_TABLE);
    bare.write64(CONTROL, 1n);
    expect(bare.access(1, IOVA, READ)).toBe(2);
  });

  test('a moved device keeps its old table until then', () => {
    const { bare } = mapped();
    const next = bare.table();
    bare.entry(next, 1, 0x1000n, 1n | OTHER | RW);
    bare.access(1, IOVA, READ);
    bare.paging(1, 1, next, 7n);
    expect(bare.access(1, 0x1000n, READ)).toBe(2);
    done(bare, devtab(2));
    expect(bare.access(1, 0x1000n, READ)).toBe(2);
    done(bare, devtab(1));
    expect(bare.access(1, 0x1000n, READ)).toBe(OTHER);
  });
});

describe('commands are executed when software next reads a register', () => {
  test('not by the write of the tail pointer, not by another write, not by a DMA', () => {
    const { bare, leaf, events } = mapped();
    bare.access(1, IOVA, READ);
    bare.entry(leaf, 1, IOVA, 0n);
    bare.command(pages(5), IOVA);
    bare.command((1n << 60n) | STORE | 1n, 0x1234n); // COMPLETION_WAIT, S
    expect(bare.unit.pendingInvalidations).toBe(1);
    bare.write64(CONTROL, RUNNING);
    expect(bare.access(1, IOVA, READ)).toBe(PAGE);
    expect(bare.memory.readU64(STORE)).toBe(0n);
    expect(events).toEqual([]);
    expect(bare.unit.mmio.read32(CMD_HEAD)).toBe(0x20);
    expect(bare.unit.pendingInvalidations).toBe(0);
    expect(bare.memory.readU64(STORE)).toBe(0x1234n);
    expect(bare.access(1, IOVA, READ)).toBe(2);
    expect(events).toHaveLength(1);
  });

  test('in order, and what is told has happened', () => {
    const { bare } = mapped();
    const seen: [string, number, number][] = [];
    bare.unit.onInvalidate = (e) => seen.push([e.name, bare.unit.pendingInvalidations, bare.unit.iotlb.size]);
    bare.access(1, IOVA, READ);
    bare.command(devtab(1));
    bare.command(pages(5), IOVA | PDE);
    bare.command(8n << 60n);
    expect(bare.unit.pendingInvalidations).toBe(3);
    expect(bare.read64(CMD_TAIL)).toBe(0x30n);
    expect(seen).toEqual([
      ['INVALIDATE_DEVTAB_ENTRY DeviceID=0x1', 2, 1],
      ['INVALIDATE_IOMMU_PAGES DomainID=0x5 PDE=1 Address=0x1234567000..0x1234567fff', 1, 0],
      ['INVALIDATE_IOMMU_ALL', 0, 0],
    ]);
  });

  test('a stopped buffer has nothing pending; reset is told', () => {
    const { bare, events } = mapped();
    bare.command(devtab(1));
    bare.write64(CONTROL, 1n);
    expect(bare.unit.pendingInvalidations).toBe(0);
    read(bare);
    expect(events).toEqual([]);
    bare.unit.reset();
    expect(events).toMatchObject([{ name: 'reset', layers: 7, domain: -1, requester: -1 }]);
  });

  test('in the other modes at once, with the same word of it', () => {
    for (const mode of ['none', 'sized', 'unbounded'] as const) {
      const bare = new Bare({ iotlb: { mode } });
      const events: InvalidationEvent[] = [];
      bare.unit.onInvalidate = (event) => events.push(event);
      bare.command(pages(5), IOVA);
      expect(events).toMatchObject([{ domain: 5, startPfn: 0x12_34567, layers: 1 }]);
      expect(bare.unit.pendingInvalidations).toBe(0);
    }
  });
});
