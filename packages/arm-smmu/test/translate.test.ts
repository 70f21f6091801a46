/** Table walks from bytes: granules, halves, permissions, flags, sizes, nesting (IHI 0070, 3.4; DDI 0487, D8). */
import { describe, expect, test } from 'vitest';
import { Bare, CD, EXEC, FULL, PRIV, RAM, READ, TABLES, TABLES2, WRITE, cd0, s2, ste } from './bare.ts';

const SID1 = 1n << 32n;
/** Word 1 of a record, in its upper half: RnW, PnU, InD, S2, CLASS. */
const RNW = 1n << 35n;
const PNU = 1n << 33n;
const IND = 1n << 34n;
const S2 = 1n << 39n;
const TT = 1n << 40n;
const IN = 2n << 40n;
const TTRNW = 1n << 44n;

const wide = { ...FULL, IDR5: 0x476 };

describe('stage 1', () => {
  test('4K: pages, 2 MiB and 1 GiB blocks', () => {
    const bare = new Bare().enable();
    bare.stage1();
    bare.page(5, RAM + 0x7000n);
    bare.memory.writeU64(TABLES + 0x2000n + 8n * 3n, (RAM + 0x20_0000n) | 0xc41n);
    bare.memory.writeU64(TABLES + 0x1000n + 8n * 2n, 0x8000_0000n | 0xc41n);
    for (const [iova, pa] of [
      [0x5abcn, RAM + 0x7abcn],
      [0x61_2345n, RAM + 0x21_2345n],
      [0x9234_5678n, 0x9234_5678n],
    ] as const) {
      expect(bare.access(iova)).toBe(0);
      expect(bare.pa).toBe(pa);
      const { walks } = bare.unit.stats;
      expect(bare.access(iova ^ 0x8n, WRITE)).toBe(0); // from the IOTLB
      expect(bare.pa).toBe(pa ^ 0x8n);
      expect(bare.unit.stats.walks).toBe(walks);
    }
    // A level 0 block, a level 3 "block", and an empty entry are all invalid.
    bare.memory.writeU64(TABLES + 8n, RAM | 0xc41n);
    bare.page(6, RAM, 0xc41n);
    for (const iova of [0x80_0000_0000n, 0x6000n, 0x8000n]) expect(bare.access(iova)).toBe(0x10);
    expect(bare.events().map((e) => e[1])).toEqual([RNW | IN, RNW | IN, RNW | IN]);
  });

  test('16K: level 2 blocks, none at level 1', () => {
    const bare = new Bare().enable();
    bare.stage1();
    bare.put(CD, [(cd0() & ~0x3fn) | 17n | (2n << 6n)]); // 47 bits, start level 1
    bare.memory.writeU64(TABLES, (TABLES + 0x4000n) | 3n);
    bare.memory.writeU64(TABLES + 8n, 0x8000_0000n | 0xc41n);
    bare.memory.writeU64(TABLES + 0x4000n + 8n, 0x8200_0000n | 0xc41n);
    bare.memory.writeU64(TABLES + 0x4000n, (TABLES + 0x8000n) | 3n);
    bare.memory.writeU64(TABLES + 0x8000n + 8n * 3n, (RAM + 0x4000n) | 0xc43n);
    expect(bare.access(0xf123n)).toBe(0);
    expect(bare.pa).toBe(RAM + 0x7123n);
    expect(bare.access(0x3ff_ffffn)).toBe(0);
    expect(bare.pa).toBe(0x83ff_ffffn);
    expect(bare.access(1n << 36n)).toBe(0x10);
  });

  test('64K: 48 bits with level 2 blocks, 52 bits with level 1 blocks', () => {
    const bare = new Bare().enable();
    bare.stage1();
    bare.put(CD, [cd0(3, 1n << 6n)]);
    bare.memory.writeU64(TABLES, (TABLES + 0x1_0000n) | 3n);
    bare.memory.writeU64(TABLES + 8n, (1n << 42n) | 0xc41n);
    bare.memory.writeU64(TABLES + 0x1_0000n + 8n, 0xa000_0000n | 0xc41n);
    expect(bare.access(0x2abc_def0n)).toBe(0);
    expect(bare.pa).toBe(0xaabc_def0n);
    expect(bare.access(1n << 42n)).toBe(0x10);

    const far = new Bare(wide).enable();
    far.stage1();
    // T0SZ 12: 52-bit addresses; IPS 6: 52 bits out.
    far.put(CD, [(cd0(3, 1n << 6n) & ~0x3fn & ~(7n << 32n)) | 12n | (6n << 32n)]);
    far.memory.writeU64(TABLES + 8n * 1023n, 0x0000_0c00_0000_5000n | 0xc41n); // PA bits 51:48 = 5
    far.memory.writeU64(TABLES, (TABLES + 0x1_0000n) | 3n);
    far.memory.writeU64(TABLES + 0x1_0000n, (TABLES + 0x2_0000n) | 3n);
    far.memory.writeU64(TABLES + 0x2_0000n + 8n, 0x0000_1234_5678_9000n | 0xc43n);
    expect(far.access(0xf_fc12_3456_789an)).toBe(0);
    expect(far.pa).toBe(0x5_0c12_3456_789an);
    expect(far.access(0x1_beefn)).toBe(0);
    expect(far.pa).toBe(0x9_1234_5678_beefn);
    expect(far.access(1n << 52n)).toBe(0x10);
  });

  test('small tables: an input of 25 bits, a start table of 16 entries aligned to its size', () => {
    const bare = new Bare().enable();
    bare.stage1();
    bare.put(CD, [(cd0() & ~0x3fn) | 39n, TABLES + 0x40n]); // bits below the size count as zero
    bare.memory.writeU64(TABLES + 8n * 9n, RAM | 0xc41n);
    expect(bare.access(0x120_0abcn)).toBe(0);
    expect(bare.pa).toBe(RAM + 0xabcn);
    expect(bare.access(0x200_0000n)).toBe(0x10);
    // IDR3.STT: as small as one page's worth of bits above the granule.
    bare.put(CD, [(cd0(4) & ~0x3fn) | 48n, TABLES + 0x3000n]);
    bare.command(0x03, 1);
    bare.page(7, RAM);
    expect(bare.access(0x7123n)).toBe(0);
    expect(bare.pa).toBe(RAM + 0x123n);
  });

  test('the upper half, TTB1', () => {
    const bare = new Bare().enable();
    bare.stage1();
    // T1SZ 25 (39 bits), TG1 4K (2), EPD1 0, EPD0 1.
    bare.put(CD, [cd0(3, (25n << 16n) | (2n << 22n) | (1n << 14n)) & ~(1n << 30n), 0n, TABLES + 0x1000n]);
    bare.memory.writeU64(TABLES + 0x1000n + 8n * 511n, 0x8000_0000n | 0xc41n);
    expect(bare.access(0xffff_ffff_c123_4567n)).toBe(0);
    expect(bare.pa).toBe(0x8123_4567n);
    for (const iova of [0xffff_ff7f_c000_0000n, 0x7fff_ffff_c000_0000n, 0x7f_c000_0000n, 0n]) {
      expect(bare.access(iova)).toBe(0x10);
      expect(bare.events()).toEqual([[SID1 | 0x10n, RNW | IN, iova, 0n]]);
    }
  });

  test('top byte ignored', () => {
    const bare = new Bare().enable();
    bare.stage1();
    bare.page(1, RAM);
    bare.put(CD, [cd0(3, 1n << 38n)]);
    expect(bare.access(0xab00_0000_0000_1234n)).toBe(0);
    expect(bare.pa).toBe(RAM + 0x234n);
    const { walks } = bare.unit.stats;
    expect(bare.access(0x1235n)).toBe(0);
    expect(bare.unit.stats.walks).toBe(walks); // one entry for all top bytes
    expect(bare.access(0x0001_0000_0000_1234n)).toBe(0x10);
    expect(bare.access(0xab00_0000_0000_9000n)).toBe(0x10);
    expect(bare.events().at(-1)?.[2]).toBe(0xab00_0000_0000_9000n); // recorded as it came
  });

  describe('permissions', () => {
    // AP[2:1] in bits 7:6; UXN bit 54, PXN bit 53.
    const cases: readonly (readonly [string, bigint, bigint, string])[] = [
      ['AP 01', 0x443n, 0n, 'ur uw pr pw ux'],
      ['AP 11', 0x4c3n, 0n, 'ur pr ux px'],
      ['AP 00', 0x403n, 0n, 'pr pw ux px'],
      ['AP 10', 0x483n, 0n, 'pr ux px'],
      ['AP 11, UXN', 0x4c3n | (1n << 54n), 0n, 'ur pr px'],
      ['AP 11, PXN', 0x4c3n | (1n << 53n), 0n, 'ur pr ux'],
      ['AP 01, WXN', 0x443n, 1n << 36n, 'ur uw pr pw'],
      ['AP 11, WXN', 0x4c3n, 1n << 36n, 'ur pr ux px'],
    ];
    test.each(cases)('%s', (_, attributes, cd, allowed) => {
      for (const mode of ['none', 'sized'] as const) {
        const bare = new Bare(FULL, { mode }).enable();
        bare.stage1();
        bare.put(CD, [cd0(3, cd)]);
        bare.page(0, RAM, attributes | 0x800n);
        const kinds = { ur: READ, uw: WRITE, ux: EXEC, pr: READ | PRIV, pw: WRITE | PRIV, px: EXEC | PRIV };
        // Twice, so that the second round meets what the first has cached.
        for (const round of [1, 2]) {
          const got = Object.entries(kinds).filter(([, access]) => bare.access(0n, access) === 0);
          expect(got.map(([name]) => name).toSorted(), `round ${round}`).toEqual(allowed.split(' ').toSorted());
        }
        expect(new Set(bare.events().map((e) => e[0]! & 0xffn))).toEqual(new Set([0x13n]));
      }
    });

    test('the record says what was asked', () => {
      const bare = new Bare().enable();
      bare.stage1();
      bare.page(0, RAM, 0x4c3n | (3n << 53n) | 0x800n);
      for (const access of [WRITE, WRITE | PRIV, EXEC, EXEC | PRIV]) expect(bare.access(0x10n, access)).toBe(0x13);
      expect(bare.events().map((e) => e[1])).toEqual([IN, IN | PNU, IN | RNW | IND, IN | RNW | IND | PNU]);
    });

    test('tables take away: APTable, XNTable, and HAD0 that ignores them', () => {
      const bare = new Bare(FULL, { mode: 'none' }).enable();
      bare.stage1();
      bare.page(0, RAM);
      const table = (TABLES + 0x2000n) | 3n;
      const set = (bits: bigint): void => bare.memory.writeU64(TABLES + 0x1000n, table | bits);
      set(1n << 61n);
      expect([bare.access(0n), bare.access(0n, READ | PRIV)]).toEqual([0x13, 0]);
      set(1n << 62n);
      expect([bare.access(0n), bare.access(0n, WRITE), bare.access(0n, WRITE | PRIV)]).toEqual([0, 0x13, 0x13]);
      set(1n << 60n);
      expect(bare.access(0n, EXEC)).toBe(0x13);
      set(7n << 60n);
      bare.put(CD, [cd0(), TABLES | 2n]);
      expect([bare.access(0n, WRITE), bare.access(0n, EXEC)]).toEqual([0, 0]);
    });

    test('STE.PRIVCFG and INSTCFG override, E0PD keeps the unprivileged out', () => {
      const bare = new Bare().enable();
      bare.stage1(1, 3, 5, [0n]);
      bare.page(0, RAM, 0x483n | 0x800n | (1n << 54n));
      expect(bare.access(0n)).toBe(0x13);
      bare.stream(1, ste(5, [CD, 3n << 48n])); // privileged
      bare.command(0x03, 1, 1);
      expect(bare.access(0n)).toBe(0);
      bare.stream(1, ste(5, [CD, (2n << 48n) | (2n << 50n)])); // unprivileged, data
      bare.command(0x03, 1, 1);
      bare.events();
      expect(bare.access(0n, EXEC | PRIV)).toBe(0x13);
      expect(bare.events()[0]?.[1]).toBe(IN | RNW);
      bare.stream(1, ste(5, [CD]));
      bare.put(CD, [cd0(4), TABLES | 4n]);
      bare.command(0x03, 1, 1);
      bare.page(0, RAM);
      expect([bare.access(0n), bare.access(0n, READ | PRIV), bare.access(0n)]).toEqual([0x10, 0, 0x10]);
    });
  });

  test('Access flag, and its place in the order of faults', () => {
    const bare = new Bare().enable();
    bare.stage1();
    bare.page(0, RAM, 0x883n); // AF 0, read-only and privileged: the flag comes first
    expect(bare.access(0n, WRITE)).toBe(0x12);
    bare.page(1, (1n << 47n) | RAM, 0x843n);
    bare.put(CD, [cd0() & ~(7n << 32n)]); // IPS 32 bits: the size comes before the flag
    bare.command(0x03, 1, 1);
    expect(bare.access(0x1000n)).toBe(0x11);
    bare.put(CD, [cd0(3, 1n << 35n)]); // AFFD
    bare.command(0x03, 1, 1);
    bare.page(0, RAM, 0x843n);
    expect(bare.access(0n, WRITE)).toBe(0);
  });

  test('addresses beyond IPS: leaves and tables', () => {
    const bare = new Bare().enable();
    bare.stage1();
    bare.put(CD, [(cd0() & ~(7n << 32n)) | (1n << 32n)]); // 36 bits
    bare.page(0, 1n << 36n);
    expect(bare.access(0x18n, WRITE)).toBe(0x11);
    expect(bare.events()).toEqual([[SID1 | 0x11n, IN, 0x18n, 0n]]);
    bare.page(0, 0xf_ffff_f000n);
    bare.memory.writeU64(TABLES + 0x1000n, (1n << 36n) | 3n);
    expect(bare.access(0x18n)).toBe(0x11);
  });

  test('walk abort: class TT and the address of the descriptor', () => {
    const bare = new Bare().enable();
    bare.stage1();
    bare.memory.writeU64(TABLES + 0x2000n, 0x90_0000_0003n);
    expect(bare.access(0x5018n, WRITE)).toBe(0x0b);
    expect(bare.events()).toEqual([[SID1 | 0x0bn, TT, 0x5018n, 0x90_0000_0028n]]);
  });

  test('EL2: one privilege level, one half', () => {
    const bare = new Bare().enable();
    bare.stage1();
    bare.stream(1, ste(5, [CD, 2n << 30n]));
    bare.put(CD, [cd0() & ~(1n << 30n)]); // EPD1 is ignored and TTB1 is not there
    bare.page(0, RAM, 0xc83n); // AP[2:1] = 10: read-only; AP[1] means nothing
    expect([bare.access(0n), bare.access(0n, WRITE), bare.access(0n, EXEC)]).toEqual([0, 0x13, 0]);
    expect(bare.access(0xffff_ffff_ffff_f000n)).toBe(0x10);
  });
});

describe('stage 2', () => {
  const second = (bare: Bare, more = 0n): void => {
    bare.stream(1, ste(6, [0n, 0n, s2(25, 1) | more, TABLES2]));
    bare.stage2Tables();
  };

  test('pages and what the record says', () => {
    const bare = new Bare().enable();
    second(bare);
    bare.page2(1, RAM);
    expect(bare.access(0x1234n)).toBe(0);
    expect(bare.pa).toBe(RAM + 0x234n);
    expect(bare.access(0x2348n, WRITE)).toBe(0x10);
    expect(bare.events()).toEqual([[SID1 | 0x10n, S2 | IN, 0x2348n, 0x2000n]]);
    expect(bare.access(1n << 39n)).toBe(0x10); // beyond S2T0SZ
    expect(bare.events()).toEqual([[SID1 | 0x10n, S2 | IN | RNW, 1n << 39n, 1n << 39n]]);
    expect(bare.access(1n << 48n)).toBe(0x11); // beyond IAS: a stage 1 fault, recorded whatever S2R says
    second(bare, 0n);
    bare.stream(1, ste(6, [0n, 0n, s2(25, 1) & ~(1n << 58n), TABLES2]));
    bare.command(0x03, 1, 1);
    bare.events();
    expect(bare.access(0x5000n)).toBe(0x10);
    expect(bare.events()).toEqual([]); // S2R = 0
    expect(bare.access(1n << 48n)).toBe(0x11);
    expect(bare.events()).toEqual([[SID1 | 0x11n, IN | RNW, 1n << 48n, 0n]]);
  });

  test.each([
    [0x40n, 'ur pr ux px'],
    [0x80n, 'uw pw'],
    [0xc0n, 'ur pr ux px uw pw'],
    [0x00n, ''],
    [0xc0n | (1n << 53n), 'ur pr ux uw pw'],
    [0xc0n | (2n << 53n), 'ur pr uw pw'],
    [0xc0n | (3n << 53n), 'ur pr px uw pw'],
  ])('S2AP and XN %#x', (bits, allowed) => {
    const bare = new Bare().enable();
    second(bare);
    bare.page2(0, RAM, (0x43fn & ~0xc0n) | bits);
    const kinds = { ur: READ, uw: WRITE, ux: EXEC, pr: READ | PRIV, pw: WRITE | PRIV, px: EXEC | PRIV };
    for (let round = 0; round < 2; round++) {
      const got = Object.entries(kinds).filter(([, access]) => bare.access(0n, access) === 0);
      expect(got.map(([name]) => name).toSorted()).toEqual(allowed.split(' ').filter(Boolean).toSorted());
    }
  });

  test('concatenated start tables', () => {
    const bare = new Bare().enable();
    // 40 bits from level 1: two tables, 8 KiB, aligned to 8 KiB.
    bare.stream(1, ste(6, [0n, 0n, s2(24, 1), TABLES2 + 0x1000n]));
    bare.memory.writeU64(TABLES2 + 0x1000n + 8n, 0x8000_0000n | 0x7fdn);
    expect(bare.access((1n << 39n) + (1n << 30n) + 0x123n)).toBe(0);
    expect(bare.pa).toBe(0x8000_0123n);
    // 16 tables of 16K from level 2: 40 bits.
    const big = new Bare().enable();
    big.stream(1, ste(6, [0n, 0n, s2(24, 1, 2), TABLES2]));
    big.memory.writeU64(TABLES2 + 8n * 0x7fffn, 0x8200_0000n | 0x7fdn);
    expect(big.access((1n << 40n) - 1n)).toBe(0);
    expect(big.pa).toBe(0x83ff_ffffn);
  });

  test('S2PS, Access flag, abort', () => {
    const bare = new Bare(FULL, { mode: 'none' }).enable();
    second(bare);
    bare.stream(1, ste(6, [0n, 0n, s2(25, 1) & ~(7n << 48n), TABLES2]));
    bare.page2(0, 1n << 32n);
    expect(bare.access(0n)).toBe(0x11);
    bare.page2(0, RAM, 0x3ffn);
    expect(bare.access(0n)).toBe(0x12);
    second(bare, 1n << 53n); // S2AFFD
    expect(bare.access(0n)).toBe(0);
    bare.memory.writeU64(TABLES2 + 0x1000n, 0x90_0000_0003n);
    bare.events();
    expect(bare.access(0x3000n)).toBe(0x0b);
    expect(bare.events()).toEqual([[SID1 | 0x0bn, S2 | IN | RNW, 0x3000n, 0x90_0000_0018n]]);
  });
});

describe('nested', () => {
  /** Stage 2 maps the pages of CD and stage 1 tables one to one, and IPA 0x10000 to RAM. */
  const nested = (bare: Bare, more = 0n): void => {
    bare.stage1(1, 3, 7);
    bare.stream(1, ste(7, [CD, 0n, s2(25, 1) | more, TABLES2]));
    bare.memory.writeU64(TABLES2, (TABLES2 + 0x1000n) | 3n);
    bare.memory.writeU64(TABLES2 + 0x1000n, (TABLES2 + 0x2000n) | 3n);
    bare.memory.writeU64(TABLES2 + 0x1000n + 8n, (TABLES2 + 0x3000n) | 3n); // IPA 2-4 MiB
    for (const pa of [CD, TABLES, TABLES + 0x1000n, TABLES + 0x2000n, TABLES + 0x3000n]) map2(bare, pa, pa);
    map2(bare, 0x1_0000n, RAM);
    bare.page(4, 0x1_0000n);
  };
  const map2 = (bare: Bare, ipa: bigint, pa: bigint, attributes = 0x7ffn): void =>
    bare.memory.writeU64(TABLES2 + 0x2000n + 8n * (ipa >> 12n), pa === 0n ? 0n : pa | attributes);

  test('both stages, cached as one', () => {
    const bare = new Bare().enable();
    nested(bare);
    expect(bare.access(0x4567n)).toBe(0);
    expect(bare.pa).toBe(RAM + 0x567n);
    const { walkReads } = bare.unit.stats;
    expect(bare.access(0x4568n, WRITE)).toBe(0);
    expect(bare.unit.stats.walkReads).toBe(walkReads);
  });

  test('a large stage 1 block over small stage 2 pages', () => {
    const bare = new Bare().enable();
    nested(bare);
    bare.memory.writeU64(TABLES + 0x2000n + 8n, 0n | 0xc41n); // VA 2 MiB -> IPA 0, 2 MiB block
    map2(bare, 0x2_0000n, RAM + 0x5000n);
    expect(bare.access(0x21_0010n)).toBe(0);
    expect(bare.pa).toBe(RAM + 0x10n);
    expect(bare.access(0x22_0010n)).toBe(0);
    expect(bare.pa).toBe(RAM + 0x5010n);
  });

  test.each([
    ['stage 1 leaf', (b: Bare) => b.page(4, 0n, 0n), 0x10, IN, 0n],
    ['stage 1 permission', (b: Bare) => b.page(4, 0x1_0000n, 0xcc3n), 0x13, IN, 0n],
    ['stage 1 permission before stage 2', (b: Bare) => b.page(4, 0x77_0000n, 0xcc3n), 0x13, IN, 0n],
    ['stage 2 leaf', (b: Bare) => map2(b, 0x1_0000n, 0n), 0x10, S2 | IN, 0x1_0000n],
    ['stage 2 permission', (b: Bare) => map2(b, 0x1_0000n, RAM, 0x77fn), 0x13, S2 | IN, 0x1_0000n],
    ['stage 2 Access flag', (b: Bare) => map2(b, 0x1_0000n, RAM, 0x3ffn), 0x12, S2 | IN, 0x1_0000n],
    ['stage 1 root', (b: Bare) => map2(b, TABLES, 0n), 0x10, S2 | TT, TABLES],
    ['stage 1 table', (b: Bare) => map2(b, TABLES + 0x3000n, 0n), 0x10, S2 | TT, TABLES + 0x3000n],
    [
      'read of a table',
      (b: Bare) => map2(b, TABLES + 0x3000n, TABLES + 0x3000n, 0x7bfn),
      0x13,
      S2 | TT | TTRNW,
      TABLES + 0x3000n,
    ],
    ['CD', (b: Bare) => map2(b, CD, 0n), 0x10, S2, CD],
    ['IPA beyond S2T0SZ', (b: Bare) => b.page(4, 1n << 39n), 0x10, S2 | IN, 1n << 39n],
    ['IPA beyond IPS', (b: Bare) => b.put(CD, [cd0() & ~(7n << 32n)]) ?? b.page(4, 1n << 33n), 0x11, IN, 0n],
  ] as const)('%s', (_, spoil, code, word1, ipa) => {
    const bare = new Bare().enable();
    nested(bare);
    spoil(bare);
    expect(bare.access(0x4018n, WRITE)).toBe(code);
    expect(bare.events()).toEqual([[SID1 | BigInt(code), word1, 0x4018n, ipa]]);
  });

  test('S2PTW: tables in Device memory', () => {
    const bare = new Bare().enable();
    nested(bare, 1n << 54n);
    expect(bare.access(0x4000n)).toBe(0);
    bare.command(0x30);
    map2(bare, TABLES + 0x1000n, TABLES + 0x1000n, 0x7c7n); // MemAttr Device-nGnRE
    expect(bare.access(0x4000n)).toBe(0x13);
    expect(bare.events()).toEqual([[SID1 | 0x13n, S2 | TT | TTRNW | RNW, 0x4000n, TABLES + 0x1000n]]);
  });

  test('aborts name the physical address', () => {
    const bare = new Bare().enable();
    nested(bare);
    map2(bare, TABLES + 0x3000n, 0x90_0000_0000n);
    expect(bare.access(0x4018n)).toBe(0x0b);
    expect(bare.events()).toEqual([[SID1 | 0x0bn, TT | RNW, 0x4018n, 0x90_0000_0020n]]);
    map2(bare, CD, 0x90_0000_0000n);
    bare.command(0x03, 1, 1);
    expect(bare.access(0x4018n)).toBe(0x09);
    expect(bare.events()).toEqual([[SID1 | 0x09n, 0n, 0n, 0x90_0000_0000n]]);
  });
});
