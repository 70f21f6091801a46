/** Device table and page walk on a bare unit: every rule, and every fault with its record. */
import { describe, expect, test } from 'vitest';
import { Bare, DEVICE_TABLE, IR, IW, READ, RW, WRITE } from './bare.ts';

const IOVA = 0x12_3456_7abcn;
const PAGE = 0x5555_5000n;
const FC = 1n << 60n;

describe('device table', () => {
  test('nothing is translated while IommuEn is 0', () => {
    const bare = new Bare({}, 0n);
    bare.dte(1, 0xffff_ffff_ffff_ffffn);
    expect(bare.access(1, IOVA, WRITE)).toBe(IOVA);
  });

  test('V=0 passes, whatever else the entry says', () => {
    const bare = new Bare();
    bare.dte(1, 0xffff_ffff_ffff_fffen, ~0n & 0xffff_ffff_ffff_ffffn);
    expect(bare.access(1, 0xffff_ffff_ffff_fff0n, WRITE)).toBe(0xffff_ffff_ffff_fff0n);
    expect(bare.events()).toEqual([]);
  });

  test('V=1 with TV=0 faults, not present', () => {
    const bare = new Bare();
    bare.dte(7, 1n | RW, 5n);
    expect(bare.access(7, IOVA, READ)).toBe(2);
    expect(bare.access(7, IOVA, WRITE)).toBe(2);
    expect(bare.events()).toEqual([
      [0x2000_0000_0000_0007n, IOVA],
      [0x2020_0000_0000_0007n, IOVA],
    ]);
  });

  test('Mode 0 passes as IR and IW allow', () => {
    const bare = new Bare();
    bare.dte(1, 3n | RW, 9n);
    bare.dte(2, 3n | IR, 9n);
    bare.dte(3, 3n | IW, 9n);
    bare.dte(4, 3n, 9n);
    expect([1, 2, 3, 4].map((id) => bare.access(id, IOVA, READ))).toEqual([IOVA, IOVA, 2, 2]);
    expect([1, 2, 3, 4].map((id) => bare.access(id, IOVA, WRITE))).toEqual([IOVA, 2, IOVA, 2]);
    // PR and PE with a refused permission.
    expect(bare.events()[0]).toEqual([0x2050_0009_0000_0003n, IOVA]);
  });

  test('recordPe: false leaves PE clear', () => {
    const bare = new Bare({ recordPe: false });
    bare.dte(4, 3n, 9n);
    bare.access(4, IOVA, WRITE);
    expect(bare.events()).toEqual([[0x2030_0009_0000_0004n, IOVA]]);
  });

  test.each([
    ['reserved bit 2', 1n << 2n, 0n, true],
    ['reserved bit 6', 1n << 6n, 0n, true],
    ['HAD without HASup', 1n << 7n, 0n, true],
    ['reserved bit 63', 1n << 63n, 0n, true],
    ['PPR without PPRSup', 1n << 52n, 0n, true],
    ['GIoV', 1n << 54n, 0n, true],
    ['GV without GTSup', 1n << 55n, 0n, true],
    ['a guest root without GTSup', 1n << 58n, 0n, true],
    ['reserved bit 106', 0n, 1n << 42n, true],
    ['a guest root, upper part, without GTSup', 0n, 1n << 43n, true],
    ['Mode 7', 7n << 9n, 0n, false],
  ])('illegal entry: %s', (_, low, high, rz) => {
    const bare = new Bare();
    bare.dte(1, 3n | RW | low, 5n | high);
    expect(bare.access(1, IOVA | 3n, WRITE)).toBe(1);
    expect(bare.events()).toEqual([[0x1020_0000_0000_0001n | (rz ? 1n << 55n : 0n), IOVA & ~3n]]);
    // Not cached: a corrected entry works without a command.
    bare.dte(1, 3n | RW, 5n);
    expect(bare.access(1, IOVA, WRITE)).toBe(IOVA);
  });

  test('with GTSup an entry without GV may have guest fields, one with GV is illegal', () => {
    const bare = new Bare({ efr: (1n << 4n) | (2n << 10n) });
    bare.dte(1, 3n | RW | (3n << 56n), 5n | (0xffffn << 16n));
    expect(bare.access(1, IOVA, READ)).toBe(IOVA);
    bare.dte(2, 3n | RW | (1n << 55n), 5n);
    expect(bare.access(2, IOVA, READ)).toBe(1);
  });

  test('levels beyond HATS are illegal', () => {
    for (const [hats, most] of [
      [0n, 4],
      [1n, 5],
      [2n, 6],
    ] as const) {
      const bare = new Bare({ efr: hats << 10n });
      for (let mode = 1; mode <= 6; mode++) {
        bare.paging(mode, mode, bare.tables(mode, 0x1000n, 1n | PAGE | RW));
        expect(bare.access(mode, 0x1000n, READ), `HATS ${hats} mode ${mode}`).toBe(mode <= most ? PAGE : 1);
      }
    }
  });

  test('a device beyond the table faults, not present', () => {
    const bare = new Bare();
    bare.dte(128, 0n);
    expect(bare.access(127, IOVA, READ)).toBe(IOVA);
    expect(bare.access(128, IOVA, READ)).toBe(2);
    expect(bare.events()).toEqual([[0x2000_0000_0000_0080n, IOVA]]);
    expect(bare.access(0x1_0000, IOVA, READ)).toBe(-1);
    expect(bare.access(-1, IOVA, READ)).toBe(-1);
  });

  test('a table outside memory: DEV_TAB_HARDWARE_ERROR with the address of the entry', () => {
    const bare = new Bare();
    bare.write64(0x0, 0xf_0000_0000_0000n);
    expect(bare.access(0x41, IOVA, WRITE)).toBe(3);
    expect(bare.events()).toEqual([[0x3220_0000_0000_0041n, 0xf_0000_0000_0820n]]);
  });

  test('segments', () => {
    const bare = new Bare({ efr: 2n << 38n });
    // Four segments of 16384 devices; segment 2 at its own table.
    bare.write64(0x108, 0x60_0000n);
    bare.write64(0x18, 0x1005n | (2n << 34n));
    bare.memory.writeU64(0x60_0000n + 32n * 5n, 3n | IR);
    bare.dte(5, 3n | RW);
    expect(bare.access(0x8005, IOVA, READ)).toBe(IOVA);
    expect(bare.access(0x8005, IOVA, WRITE)).toBe(2);
    expect(bare.access(5, IOVA, WRITE)).toBe(IOVA);
  });

  test('SA suppresses all page fault events, SE all but the first until the entry is invalidated', () => {
    const bare = new Bare();
    bare.dte(1, 3n, 5n | (1n << 34n));
    bare.dte(2, 3n, 5n | (1n << 33n));
    for (let i = 0; i < 3; i++) {
      expect(bare.access(1, IOVA, READ)).toBe(2);
      expect(bare.access(2, IOVA, READ)).toBe(2);
    }
    expect(bare.events()).toEqual([[0x2050_0005_0000_0002n, IOVA]]);
    bare.command(0x2000_0000_0000_0002n);
    bare.access(2, IOVA, READ);
    expect(bare.events()).toHaveLength(1);
    // Other events are not suppressed.
    bare.dte(3, 3n | (7n << 9n), 5n | (1n << 34n));
    bare.access(3, IOVA, READ);
    expect(bare.events()).toHaveLength(1);
  });
});

describe('page walk', () => {
  test.each([1, 2, 3, 4, 5, 6])('mode %i: the whole width, and nothing beyond', (mode) => {
    const bare = new Bare();
    const width = mode === 6 ? 64n : BigInt(12 + 9 * mode);
    const last = (1n << width) - 0x1000n;
    bare.paging(1, mode, bare.tables(mode, last, 1n | PAGE | RW));
    expect(bare.access(1, last + 0xabcn, READ)).toBe(PAGE + 0xabcn);
    if (mode === 6) return;
    for (const bit of [width, 31n, 32n, 47n, 63n]) {
      if (bit < width) continue;
      expect(bare.access(1, last | (1n << bit), WRITE), `bit ${bit}`).toBe(2);
      expect(bare.events()).toEqual([[0x2020_0005_0000_0001n, last | (1n << bit)]]);
    }
  });

  test.each([1, 2, 3, 4, 5])("a leaf at level %i has the level's own size", (level) => {
    const bare = new Bare();
    const size = 1n << BigInt(3 + 9 * level);
    const iova = 3n * size;
    const pa = (5n * size) & 0xf_ffff_ffff_f000n;
    bare.paging(1, 6, bare.tables(6, iova, 1n | pa | RW | FC, level));
    expect(bare.access(1, iova + size - 1n, READ)).toBe(pa + size - 1n);
    expect(bare.access(1, iova, READ)).toBe(pa);
    expect(bare.unit.stats.walks).toBe(1);
    expect(bare.access(1, iova + size, READ)).toBe(2);
  });

  test.each(
    [1, 2, 3, 4, 5].flatMap((level) =>
      [1, 2, 3, 4, 5, 6, 7, 8].map((n) => [level, n] as const).filter(([l, more]) => 3 + 9 * l + more <= 52),
    ),
  )('next level 7 at level %i: 2^%i times the own size', (level, more) => {
    const bare = new Bare();
    const sizeLg2 = BigInt(3 + 9 * level + more);
    const size = 1n << sizeLg2;
    const pa = sizeLg2 >= 51n ? 0n : size;
    const encoded = pa | ((size >> 1n) - 1n);
    const leaf = (encoded & 0xf_ffff_ffff_f000n) | 0xe01n | RW;
    const iova = size;
    const root = bare.tables(6, iova, leaf, level);
    bare.paging(1, 6, root);
    expect(bare.access(1, iova + 0x123n, READ)).toBe(pa + 0x123n);
    // One cached entry serves the whole page, though the table has only the first of the repeated entries.
    expect(bare.access(1, iova + size - 1n, WRITE)).toBe(pa + size - 1n);
    expect(bare.unit.stats.walks).toBe(1);
  });

  test('a size that does not fit the level is a fault', () => {
    const bare = new Bare();
    // 2 MiB and 4 MiB at level 1, 8 KiB and 2 MiB at level 2, no zero at all.
    for (const [level, bits] of [
      [1, 0xf_f000n],
      [1, 0x1f_f000n],
      [2, 0n],
      [2, 0xf_f000n],
      [1, 0xf_ffff_ffff_f000n],
    ] as const) {
      bare.paging(1, 3, bare.tables(3, 0n, bits | 0xe01n | RW, level));
      bare.command(0x2000_0000_0000_0001n);
      expect(bare.access(1, 0n, READ)).toBe(2);
      expect(bare.events()).toEqual([[0x2010_0005_0000_0001n, 0n]]);
    }
  });

  test('levels may be skipped, their address bits must be zero', () => {
    const bare = new Bare();
    const [root, low] = [bare.table(), bare.table()];
    const iova = (7n << 39n) | (9n << 12n);
    bare.entry(root, 4, iova, 1n | (1n << 9n) | low | RW);
    bare.entry(low, 1, iova, 1n | PAGE | RW);
    bare.paging(1, 4, root);
    expect(bare.access(1, iova, READ)).toBe(PAGE);
    expect(bare.unit.stats.walkReads).toBe(2);
    for (const bit of [21n, 29n, 30n, 38n]) {
      expect(bare.access(1, iova | (1n << bit), READ), `bit ${bit}`).toBe(2);
      expect(bare.events()).toEqual([[0x2000_0005_0000_0001n, iova | (1n << bit)]]);
    }
  });

  test('a next level that is not lower is a fault, and no loop', () => {
    const bare = new Bare();
    for (const next of [2n, 3n, 4n, 5n, 6n]) {
      const root = bare.table();
      bare.entry(root, 2, IOVA & 0x3fff_ffffn, 1n | (next << 9n) | root | RW);
      bare.paging(1, 2, root);
      bare.command(0x2000_0000_0000_0001n);
      expect(bare.access(1, IOVA & 0x3fff_ffffn, READ), `next level ${next}`).toBe(2);
      expect(bare.events()).toEqual([[0x2010_0005_0000_0001n, IOVA & 0x3fff_ffffn]]);
    }
  });

  test.each([
    ['52 of a PTE', 1n << 52n, 0n, true],
    ['58 of a PTE', 1n << 58n, 0n, true],
    ['59 (U) of a PTE', 1n << 59n, 0n, false],
    ['63 of a PTE', 1n << 63n, 0n, false],
    ['52 of a PDE', 0n, 1n << 52n, true],
    ['60 of a PDE', 0n, 1n << 60n, true],
    ['63 of a PDE', 0n, 1n << 63n, false],
  ])('reserved bit %s', (_, leaf, pointer, faults) => {
    const bare = new Bare();
    const [root, low] = [bare.table(), bare.table()];
    bare.entry(root, 2, 0x1000n, 1n | (1n << 9n) | low | RW | pointer);
    bare.entry(low, 1, 0x1000n, 1n | PAGE | RW | leaf);
    bare.paging(1, 2, root);
    expect(bare.access(1, 0x1000n, WRITE)).toBe(faults ? 2 : PAGE);
    expect(bare.events()).toEqual(faults ? [[0x20b0_0005_0000_0001n, 0x1000n]] : []);
  });

  test('IR and IW are ANDed from the device table entry down', () => {
    const perms = [0n, IR, IW, RW];
    for (const dte of perms) {
      for (const pointer of perms) {
        for (const leaf of perms) {
          for (const access of [READ, WRITE, READ | WRITE]) {
            const bare = new Bare();
            const [root, low] = [bare.table(), bare.table()];
            bare.entry(root, 2, 0x1000n, 1n | (1n << 9n) | low | pointer);
            bare.entry(low, 1, 0x1000n, 1n | PAGE | leaf);
            bare.paging(1, 2, root, 5n, dte);
            const need = BigInt(access) << 61n;
            const allowed = (dte & pointer & leaf & need) === need;
            expect(bare.access(1, 0x1000n, access)).toBe(allowed ? PAGE : 2);
            const rw = (access & WRITE) === 0 ? 0n : 1n << 53n;
            expect(bare.events()).toEqual(allowed ? [] : [[0x2050_0005_0000_0001n | rw, 0x1000n]]);
          }
        }
      }
    }
  });

  test('a cached read-only page: a write is refused with the same record as by a walk', () => {
    const bare = new Bare();
    bare.paging(1, 3, bare.tables(3, 0x1000n, 1n | PAGE | IR));
    expect(bare.access(1, 0x1000n, READ)).toBe(PAGE);
    expect(bare.access(1, 0x1008n, WRITE)).toBe(2);
    expect(bare.events()).toEqual([[0x2070_0005_0000_0001n, 0x1008n]]);
    expect(bare.access(1, 0x1010n, READ)).toBe(PAGE + 0x10n);
  });

  test("devices of one domain share cached translations, each with its own entry's permission", () => {
    const bare = new Bare();
    const root = bare.tables(3, 0x1000n, 1n | PAGE | RW);
    bare.paging(1, 3, root, 5n, RW);
    bare.paging(2, 3, root, 5n, IR);
    expect(bare.access(1, 0x1000n, WRITE)).toBe(PAGE);
    expect(bare.access(2, 0x1000n, READ)).toBe(PAGE);
    expect(bare.unit.stats.walks).toBe(1);
    expect(bare.access(2, 0x1000n, WRITE)).toBe(2);
  });

  test('a table outside memory: PAGE_TAB_HARDWARE_ERROR with the address of the entry, and only that', () => {
    const bare = new Bare();
    bare.paging(0x11, 2, 0xf_0000_0000_0000n, 0x1234n);
    expect(bare.access(0x11, 5n << 21n, WRITE)).toBe(4);
    expect(bare.events()).toEqual([[0x4220_1234_0000_0011n, 0xf_0000_0000_0028n]]);
  });
});

describe('special addresses', () => {
  test('interrupts: writes to 0xfeex_xxxx do not meet the page tables', () => {
    const bare = new Bare();
    bare.paging(1, 4, bare.tables(4, 0xfee0_0000n, 1n | PAGE | RW));
    expect(bare.access(1, 0xfee0_0010n, WRITE)).toBe(0xfee0_0010n);
    expect(bare.access(1, 0xfedf_f000n, WRITE)).toBe(2);
    expect(bare.access(1, 0xfef0_0000n, WRITE)).toBe(2);
    expect(bare.access(1, 0x1_fee0_0000n, WRITE)).toBe(2);
    expect(bare.events()).toHaveLength(3);
    // Reads there are invalid requests, type 0.
    expect(bare.access(1, 0xfee0_0010n, READ)).toBe(8);
    expect(bare.events()).toEqual([[0x8000_0000_0000_0001n, 0xfee0_0010n]]);
  });

  test('interrupts with an interrupt map: forwarded with IntCtl 1, else refused', () => {
    const bare = new Bare();
    for (const intCtl of [0n, 1n, 2n, 3n]) bare.dte(Number(intCtl), 3n | RW, 5n, 1n | (intCtl << 60n));
    expect([0, 1, 2, 3].map((id) => bare.access(id, 0xfee0_0000n, WRITE))).toEqual([8, 0xfee0_0000n, 8, 8]);
    expect(bare.events()[0]).toEqual([0x8800_0000_0000_0000n, 0xfee0_0000n]);
  });

  test('the exclusion range, for all or for devices with EX', () => {
    const bare = new Bare();
    bare.dte(1, 3n, 5n);
    bare.dte(2, 3n, 5n | (1n << 39n));
    bare.write64(0x28, 0x8000_1000n);
    bare.write64(0x20, 0x8000_0001n);
    const at = (id: number) =>
      [0x7fff_ffffn, 0x8000_0000n, 0x8000_1fffn, 0x8000_2000n].map((a) => bare.access(id, a, WRITE));
    expect(at(1)).toEqual([2, 2, 2, 2]);
    expect(at(2)).toEqual([2, 0x8000_0000n, 0x8000_1fffn, 2]);
    bare.write64(0x20, 0x8000_0003n);
    expect(at(1)).toEqual([2, 0x8000_0000n, 0x8000_1fffn, 2]);
    bare.write64(0x20, 0x8000_0002n);
    expect(at(1)).toEqual([2, 2, 2, 2]);
  });

  test('a PASID without guest translation faults, with GN and the PASID in the record', () => {
    const bare = new Bare();
    bare.paging(1, 3, bare.tables(3, 0x1000n, 1n | PAGE | RW));
    expect(bare.access(1, 0x1000n, READ, 0xa_1234)).toBe(2);
    expect(bare.events()).toEqual([[0x2001_1234_000a_0001n, 0x1000n]]);
  });
});

test('device table entries are cached until invalidated', () => {
  const bare = new Bare();
  bare.dte(1, 3n | RW);
  expect(bare.access(1, IOVA, WRITE)).toBe(IOVA);
  bare.dte(1, 3n | IR);
  expect(bare.access(1, IOVA, WRITE)).toBe(IOVA);
  bare.command(0x2000_0000_0000_0001n);
  expect(bare.access(1, IOVA, WRITE)).toBe(2);
  // Another device in the same slot of the cache, then a write to the base register.
  bare.dte(1, 3n | RW);
  bare.write64(0x0, DEVICE_TABLE);
  expect(bare.access(1, IOVA, WRITE)).toBe(IOVA);
  const cold = new Bare({ iotlb: { mode: 'none' } });
  cold.dte(1, 3n | RW);
  cold.access(1, IOVA, WRITE);
  cold.dte(1, 3n | IR);
  expect(cold.access(1, IOVA, WRITE)).toBe(2);
});
