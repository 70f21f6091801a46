/** Stream tables, STEs and CDs: what is legal, what each mistake is called, and where the record says it (IHI 0070, 5, 7.3). */
import { describe, expect, test } from 'vitest';
import { SmmuV3 } from '../src/index.ts';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { Bare, CD, FULL, RAM, READ, STRTAB, TABLES, TABLES2, WRITE, cd0, s2, ste } from './bare.ts';

const SID1 = 1n << 32n;

describe('while SMMUEN is 0', () => {
  test('GBPA decides, and says nothing', () => {
    const bare = new Bare();
    expect(bare.access(0x1234_5678n)).toBe(0);
    expect(bare.pa).toBe(0x1234_5678n);
    expect(bare.access(1n << 48n)).toBe(-1); // beyond OAS
    bare.w32(0x44, 0x0010_0000); // no Update: ignored
    expect(bare.access(0x1000n)).toBe(0);
    bare.w32(0x44, 0x8010_0000 | 0);
    expect(bare.r32(0x44)).toBe(0x0010_0000);
    expect(bare.access(0x1000n)).toBe(-1);
    expect(bare.unit.stats.faults).toBe(0);
  });
});

describe('stream table', () => {
  test('linear: beyond the table is C_BAD_STREAMID, recorded only with RECINVSID', () => {
    const bare = new Bare().enable();
    expect(bare.access(0x1000n, READ, 256)).toBe(0x02);
    expect(bare.events()).toEqual([[0x100_0000_0002n, 0n, 0n, 0n]]);
    bare.enable({ cr2: 0 });
    expect(bare.access(0x1000n, READ, 256)).toBe(0x02);
    expect(bare.events()).toEqual([]);
    // A StreamID wider than SIDSIZE cannot be in the table, whatever LOG2SIZE says.
    bare.enable({ cfg: 32 });
    expect(bare.access(0x1000n, READ, 0x1_0000)).toBe(0x02);
  });

  test('the base is aligned to the size of the table', () => {
    const bare = new Bare().enable({ strtab: STRTAB + 0x40n });
    bare.stream(0, ste(4));
    expect(bare.access(0x1000n, READ, 0)).toBe(0);
  });

  test.each([6, 8, 10])('two-level, SPLIT %i', (split) => {
    const bare = new Bare().enable({ cfg: 16 | (split << 6) | (1 << 16) });
    const l2 = 0x80_0000n;
    const sid = (3 << split) + 5;
    bare.put(STRTAB + 24n, [l2 | BigInt(4)]); // Span 4: eight entries
    bare.put(l2 + 64n * 5n, ste(4));
    expect(bare.access(0x1234n, READ, sid)).toBe(0);
    expect(bare.access(0x1234n, READ, (3 << split) + 7)).toBe(0x04); // in the span, not valid
    expect(bare.access(0x1234n, READ, (3 << split) + 8)).toBe(0x02); // beyond the span
    expect(bare.access(0x1234n, READ, 2 << split)).toBe(0x02); // Span 0
    bare.put(STRTAB + 24n, [l2 | BigInt(split + 2)]); // more than SPLIT + 1
    expect(bare.access(0x1234n, READ, (3 << split) + 6)).toBe(0x02);
    bare.put(STRTAB + 24n, [l2 | 12n]); // reserved
    expect(bare.access(0x1234n, READ, (3 << split) + 6)).toBe(0x02);
  });

  test('reserved SPLIT behaves as 6, reserved FMT as linear', () => {
    const bare = new Bare().enable({ cfg: 16 | (7 << 6) | (1 << 16) });
    bare.put(STRTAB + 8n, [0x80_0000n | 1n]);
    bare.put(0x80_0000n, ste(4));
    expect(bare.access(0n, READ, 64)).toBe(0);
    bare.enable({ cfg: 8 | (2 << 16) });
    bare.stream(9, ste(4));
    expect(bare.access(0n, READ, 9)).toBe(0);
  });

  test('nothing there: F_STE_FETCH with the address', () => {
    const bare = new Bare().enable({ strtab: 0x90_0000_0000n });
    expect(bare.access(0x1000n, WRITE, 3)).toBe(0x03);
    expect(bare.events()).toEqual([[0x3_0000_0003n, 0n, 0n, 0x90_0000_00c0n]]);
  });
});

describe('STE', () => {
  test('Config: abort without a record, bypass, reserved as abort', () => {
    const bare = new Bare().enable();
    for (const config of [0, 1, 2, 3]) {
      bare.stream(config, ste(config));
      expect(bare.access(0x1000n, READ, config)).toBe(-1);
    }
    expect(bare.events()).toEqual([]);
    bare.stream(4, ste(4));
    expect(bare.access(0xffff_1234_5678n, READ, 4)).toBe(0);
    expect(bare.pa).toBe(0xffff_1234_5678n);
    // Beyond OAS: a stage 1 address size fault, even without stage 1 (3.4).
    expect(bare.access(0x1_0000_1234_5678n, WRITE, 4)).toBe(0x11);
    expect(bare.events()).toEqual([[0x4_0000_0011n, 0x200_0000_0000n, 0x1_0000_1234_5678n, 0n]]);
    expect(bare.access(0x1000n, READ, 4, 0)).toBe(0x08); // a SubstreamID without stage 1
    expect(bare.events()).toEqual([[0x4_0000_0008n, 0n, 0n, 0n]]);
  });

  const bad: readonly (readonly [string, readonly bigint[]])[] = [
    ['V = 0', [0n]],
    ['STRW = 1', ste(5, [CD, 1n << 30n])],
    ['STRW = 3', ste(5, [CD, 3n << 30n])],
    ['S1STALLD without stalls', ste(5, [CD, 1n << 27n])],
    ['S1CDMax above SSIDSIZE', ste(5, [CD | (21n << 59n)])],
    ['S1ContextPtr beyond OAS', ste(5, [1n << 48n])],
    ['S2AA64 = 0', ste(6, [0n, 0n, s2(25, 1) & ~(1n << 51n), TABLES2])],
    ['S2ENDI', ste(6, [0n, 0n, s2(25, 1) | (1n << 52n), TABLES2])],
    ['S2HD', ste(6, [0n, 0n, s2(25, 1) | (1n << 55n), TABLES2])],
    ['S2HA', ste(6, [0n, 0n, s2(25, 1) | (1n << 56n), TABLES2])],
    ['S2S', ste(6, [0n, 0n, s2(25, 1) | (1n << 57n), TABLES2])],
    ['S2TG = 3', ste(6, [0n, 0n, s2(25, 1, 3), TABLES2])],
    ['S2T0SZ = 15', ste(6, [0n, 0n, s2(15, 2), TABLES2])],
    ['S2T0SZ = 49', ste(6, [0n, 0n, s2(49, 0), TABLES2])],
    ['start level too deep', ste(6, [0n, 0n, s2(16, 1), TABLES2])],
    ['start level too high', ste(6, [0n, 0n, s2(25, 2), TABLES2])],
    ['16K with SL0 = 3', ste(6, [0n, 0n, s2(30, 3, 2), TABLES2])],
    ['S2TTB beyond S2PS', ste(6, [0n, 0n, s2(25, 1) & ~(7n << 48n), 1n << 32n])],
  ];
  test.each(bad)('C_BAD_STE: %s', (_, words) => {
    const bare = new Bare().enable();
    bare.put(CD, [cd0(), TABLES]);
    bare.stream(1, words);
    expect(bare.access(0x1000n)).toBe(0x04);
    expect(bare.events()).toEqual([[SID1 | 0x04n, 0n, 0n, 0n]]);
  });

  test('what the identification registers do not offer is illegal', () => {
    const only1 = new Bare({ ...FULL, IDR0: FULL.IDR0 & ~1 }).enable();
    only1.stream(1, ste(6, [0n, 0n, s2(25, 1), TABLES2]));
    expect(only1.access(0n)).toBe(0x04);
    const only2 = new Bare({ ...FULL, IDR0: FULL.IDR0 & ~2 }).enable();
    only2.stream(1, ste(5, [CD]));
    expect(only2.access(0n)).toBe(0x04);
    const vmid8 = new Bare({ ...FULL, IDR0: FULL.IDR0 & ~(1 << 18) }).enable();
    vmid8.stream(1, ste(6, [0n, 0n, s2(25, 1, 0, 0x100), TABLES2]));
    expect(vmid8.access(0n)).toBe(0x04);
    const noGranule = new Bare({ ...FULL, IDR5: 0x65 }).enable();
    noGranule.stream(1, ste(6, [0n, 0n, s2(25, 1), TABLES2]));
    expect(noGranule.access(0n)).toBe(0x04);
    // Without EL2 support STRW is RES0 and ignored.
    const noHyp = new Bare({ ...FULL, IDR0: FULL.IDR0 & ~(1 << 9) }).enable();
    noHyp.stage1();
    noHyp.stream(1, ste(5, [CD, 3n << 30n]));
    noHyp.page(0, RAM);
    expect(noHyp.access(0n)).toBe(0);
  });
});

describe('substreams', () => {
  /** A CD whose tables map VA 0 to `pa`. */
  const context = (bare: Bare, at: bigint, tables: bigint, pa: bigint, asid: number): void => {
    bare.put(at, [cd0(asid), tables]);
    for (let level = 0n; level < 3n; level++)
      bare.memory.writeU64(tables + 0x1000n * level, (tables + 0x1000n * (level + 1n)) | 3n);
    bare.memory.writeU64(tables + 0x3000n, pa | 0xc43n);
  };

  test('linear CD table', () => {
    const bare = new Bare().enable();
    // Four CDs; traffic without SubstreamID terminates (S1DSS 0).
    bare.stream(1, ste(5, [CD | (2n << 59n)]));
    context(bare, CD + 64n * 2n, TABLES, RAM, 5);
    expect(bare.access(0x123n, READ, 1, 2)).toBe(0);
    expect(bare.pa).toBe(RAM + 0x123n);
    expect(bare.access(0n, READ, 1, 4)).toBe(0x08);
    expect(bare.access(0n)).toBe(0x06);
    expect(bare.access(0n, READ, 1, 3)).toBe(0x0a);
    expect(bare.events()).toEqual([
      [SID1 | 0x4008n, 0n, 0n, 0n],
      [SID1 | 0x0006n, 0n, 0n, 0n],
      [SID1 | 0x380an, 0n, 0n, 0n], // SSV and SubstreamID
    ]);
    // A fault of the walk names the SubstreamID as well.
    expect(bare.access(0x1000n, WRITE, 1, 2)).toBe(0x10);
    expect(bare.events()).toEqual([[SID1 | 0x2810n, 0x200_0000_0000n, 0x1000n, 0n]]);
  });

  test('S1DSS: bypass, or CD 0', () => {
    const bare = new Bare().enable();
    bare.stream(1, ste(5, [CD | (2n << 59n), 1n]));
    expect(bare.access(0x7654_3210n)).toBe(0);
    expect(bare.pa).toBe(0x7654_3210n);
    bare.stream(2, ste(5, [CD | (2n << 59n), 2n]));
    context(bare, CD, TABLES, RAM, 5);
    expect(bare.access(0x10n, READ, 2)).toBe(0);
    expect(bare.pa).toBe(RAM + 0x10n);
    expect(bare.access(0x10n, READ, 2, 0)).toBe(0x06);
    bare.stream(3, ste(5, [CD | (2n << 59n), 3n])); // reserved: as 0
    expect(bare.access(0x10n, READ, 3)).toBe(0x06);
  });

  test.each([
    [1n, 6],
    [2n, 10],
  ] as const)('two-level CD table, format %i', (fmt, leafLg2) => {
    const bare = new Bare().enable();
    const leaf = 0xa0_0000n;
    bare.stream(1, ste(5, [CD | (fmt << 4n) | (12n << 59n)]));
    bare.put(CD + 8n * 3n, [leaf | 1n]);
    const ssid = (3 << leafLg2) + 9;
    context(bare, leaf + 64n * 9n, TABLES, RAM, 5);
    expect(bare.access(0x456n, READ, 1, ssid)).toBe(0);
    expect(bare.pa).toBe(RAM + 0x456n);
    expect(bare.access(0n, READ, 1, 2 << leafLg2)).toBe(0x08); // L1CD.V = 0
    bare.put(CD + 8n, [(1n << 50n) | 1n]); // beyond OAS
    expect(bare.access(0n, READ, 1, 1 << leafLg2)).toBe(0x08);
    bare.put(CD + 8n, [0x90_0000_0000n | 1n]);
    expect(bare.access(0n, READ, 1, (1 << leafLg2) + 1)).toBe(0x09);
    expect(bare.events().at(-1)?.[3]).toBe(0x90_0000_0040n);
  });

  test('two-level tables need CD2L; without SSIDSIZE the fields are ignored', () => {
    const flat = new Bare({ ...FULL, IDR0: FULL.IDR0 & ~(1 << 19) }).enable();
    flat.stream(1, ste(5, [CD | (1n << 4n) | (12n << 59n)]));
    expect(flat.access(0n, READ, 1, 1)).toBe(0x04);
    const none = new Bare({ ...FULL, IDR1: FULL.IDR1 & ~0x7c0 }).enable();
    none.stage1();
    none.stream(1, ste(5, [CD | (2n << 59n)]));
    none.page(0, RAM);
    expect(none.access(0n)).toBe(0);
    expect(none.access(0n, READ, 1, 0)).toBe(0x08);
  });
});

describe('CD', () => {
  const bad: readonly (readonly [string, readonly bigint[]])[] = [
    ['V = 0', [cd0() & ~(1n << 31n), TABLES]],
    ['AA64 = 0', [cd0() & ~(1n << 41n), TABLES]],
    ['ENDI', [cd0(3, 1n << 15n), TABLES]],
    ['A = 0', [cd0() & ~(1n << 46n), TABLES]],
    ['S = 1', [cd0(3, 1n << 44n), TABLES]],
    ['HA', [cd0(3, 1n << 43n), TABLES]],
    ['HD', [cd0(3, 1n << 42n), TABLES]],
    ['T0SZ = 15', [(cd0() & ~0x3fn) | 15n, TABLES]],
    ['T0SZ = 49', [(cd0() & ~0x3fn) | 49n, TABLES]],
    ['TG0 = 3', [cd0(3, 3n << 6n), TABLES]],
    ['TTB0 beyond IPS', [cd0() & ~(7n << 32n), 1n << 32n]],
    ['TG1 = 0 with EPD1 = 0', [(cd0() & ~(1n << 30n)) | (16n << 16n), TABLES, TABLES]],
    ['T1SZ = 15 with EPD1 = 0', [(cd0() & ~(1n << 30n)) | (15n << 16n) | (2n << 22n), TABLES, TABLES]],
  ];
  test.each(bad)('C_BAD_CD: %s', (_, words) => {
    const bare = new Bare().enable();
    bare.stage1();
    bare.put(CD, words);
    expect(bare.access(0n)).toBe(0x0a);
    expect(bare.events()).toEqual([[SID1 | 0x0an, 0n, 0n, 0n]]);
  });

  test('fields of a half that is off are ignored', () => {
    const bare = new Bare().enable();
    bare.stage1();
    bare.put(CD, [cd0(3, (3n << 6n) | 0x2fn | (1n << 14n)), 1n << 51n]);
    expect(bare.access(0n)).toBe(0x10); // EPD0: a translation fault, not an illegal CD
  });

  test('16-bit ASIDs need ASID16', () => {
    const bare = new Bare({ ...FULL, IDR0: FULL.IDR0 & ~(1 << 12) }).enable();
    bare.stage1(1, 0x100);
    expect(bare.access(0n)).toBe(0x0a);
  });

  test('nothing there: F_CD_FETCH', () => {
    const bare = new Bare().enable();
    bare.stream(1, ste(5, [0x90_0000_0040n]));
    expect(bare.access(0n)).toBe(0x09);
    expect(bare.events()).toEqual([[SID1 | 0x09n, 0n, 0n, 0x90_0000_0040n]]);
  });

  test('R = 0 keeps translation faults out of the queue, not configuration errors', () => {
    const bare = new Bare().enable();
    bare.stage1();
    bare.put(CD, [cd0() & ~(1n << 45n)]);
    expect(bare.access(0x1000n)).toBe(0x10);
    expect(bare.events()).toEqual([]);
    bare.memory.writeU64(TABLES, 0x90_0000_0003n);
    expect(bare.access(0x1000n, WRITE)).toBe(0x0b);
    expect(bare.events()).toEqual([[SID1 | 0x0bn, 0x100_0000_0000n, 0x1000n, 0x90_0000_0000n]]);
  });
});

describe('configuration cache', () => {
  test.each([
    ['CFGI_STE', [0x03, 1, 1], true],
    ['CFGI_STE of another stream', [0x03, 2, 1], false],
    ['CFGI_STE_RANGE over it', [0x04, 0, 1], true],
    ['CFGI_STE_RANGE beside it', [0x04, 4, 0], false],
    ['CFGI_ALL', [0x04, 0, 31], true],
    ['CFGI_CD', [0x05, 1, 1], true],
    ['CFGI_CD of another SubstreamID', [0x05 | (1 << 12), 1, 1], false],
    ['CFGI_CD without Leaf', [0x05 | (1 << 12), 1, 0], true],
    ['CFGI_CD_ALL', [0x06, 1, 0], true],
    ['CFGI_CD_ALL of another stream', [0x06, 2, 0], false],
  ] as const)('%s', (_, [w0, w1, w2], dropped) => {
    const bare = new Bare().enable();
    bare.stage1();
    bare.page(0, RAM);
    expect(bare.access(0n)).toBe(0);
    bare.put(CD, [0n]);
    expect(bare.access(0x20n)).toBe(0); // still what was read before
    bare.command(w0, w1, w2);
    expect(bare.access(0n)).toBe(dropped ? 0x0a : 0);
  });

  test('off with the IOTLB off', () => {
    const bare = new Bare(FULL, { mode: 'none' }).enable();
    bare.stage1();
    bare.page(0, RAM);
    expect(bare.access(0n)).toBe(0);
    bare.put(CD, [0n]);
    expect(bare.access(0n)).toBe(0x0a);
  });

  test('SMMUEN off and on again', () => {
    const bare = new Bare().enable();
    bare.stream(1, ste(4));
    expect(bare.access(0n)).toBe(0);
    bare.stream(1, [0n]);
    bare.w32(0x20, 0xc);
    bare.w32(0x20, 0xd);
    expect(bare.access(0n)).toBe(0x04);
  });
});

describe('what is not built is refused', () => {
  const memory = new PhysicalMemory([{ base: 0n, size: 0x10_0000n }]);
  test.each([
    ['HTTU', { IDR0: FULL.IDR0 | 0x40 }],
    ['ATS', { IDR0: FULL.IDR0 | 0x400 }],
    ['PRI', { IDR0: FULL.IDR0 | 0x1_0000 }],
    ['ATOS', { IDR0: FULL.IDR0 | 0x8000 }],
    ['VMW', { IDR0: FULL.IDR0 | 0x2_0000 }],
    ['AArch32', { IDR0: FULL.IDR0 | 4 }],
    ['big-endian', { IDR0: FULL.IDR0 | 0x20_0000 }],
    ['stalls', { IDR0: FULL.IDR0 & ~0x0100_0000 }],
    ['RAZ/WI', { IDR0: FULL.IDR0 & ~0x0400_0000 }],
    ['no stage', { IDR0: FULL.IDR0 & ~3 }],
    ['ECMDQ', { IDR1: FULL.IDR1 | (1 << 31) }],
    ['preset queues', { IDR1: FULL.IDR1 | (1 << 29) }],
    ['MPAM', { IDR3: 0x80 }],
    ['DPT', { IDR3: 0x8000 }],
    ['DS', { IDR5: 0xf5 }],
    ['56-bit addresses', { IDR5: 0x77 }],
    ['SMMUv2', { AIDR: 0x10 }],
  ])('%s', (_, change) => {
    expect(() => new SmmuV3(memory, { ids: { ...FULL, ...change } })).toThrow(
      expect.objectContaining({ code: 'EOPNOTSUPP' }),
    );
  });
});
