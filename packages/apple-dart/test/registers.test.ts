/** Positions typed from Linux `apple-dart.c`, `io-pgtable-dart.c` and m1n1, never taken from the tables under test. */
import { overlaps } from '@iommu-ts/bits';
import { describe, expect, test } from 'vitest';
import * as registers from '../src/registers.ts';
import { DART1_PTE, DART2_PTE } from '../src/structures.ts';
import { STREAM_COMMANDS, TLB_OPS, tlbFlushSid } from '../src/commands.ts';
import { REASON, codeOfError, codesOf, decodeError, nameOfError } from '../src/faults.ts';

const positions = (layout: Readonly<Record<string, { msb: number; lsb: number }>>): Record<string, [number, number]> =>
  Object.fromEntries(Object.entries(layout).map(([name, f]) => [name, [f.msb, f.lsb]]));

const layouts = {
  PARAMS1: registers.PARAMS1,
  PARAMS2: registers.PARAMS2,
  STREAM_COMMAND: registers.STREAM_COMMAND,
  T8020_ERROR: registers.T8020_ERROR,
  T8020_CONFIG: registers.T8020_CONFIG,
  T8020_REMAP: registers.T8020_REMAP,
  T8020_TCR: registers.T8020_TCR,
  T8020_TTBR: registers.T8020_TTBR,
  PARAMS3: registers.PARAMS3,
  PARAMS4: registers.PARAMS4,
  TLB_CMD: registers.TLB_CMD,
  T8110_ERROR: registers.T8110_ERROR,
  PROTECT: registers.PROTECT,
  T8110_TCR: registers.T8110_TCR,
  T8110_TTBR: registers.T8110_TTBR,
} as const;

const expected: Readonly<Record<keyof typeof layouts, Record<string, [number, number]>>> = {
  PARAMS1: {
    CLIENT_PARTITIONS_SUPPORTED: [29, 29],
    PAGE_SHIFT: [27, 24],
    LOG2_TE_COUNT: [22, 20],
    TLB_SET_COUNT: [11, 0],
  },
  PARAMS2: { SUPPORT_HW_FLUSH: [3, 3], SUPPORT_REG_LOCK: [1, 1], BYPASS_SUPPORT: [0, 0] },
  STREAM_COMMAND: { INVALIDATE: [20, 20], BUSY: [2, 2] },
  T8020_ERROR: {
    FLAG: [31, 31],
    STREAM: [27, 24],
    NO_DAPF_MATCH: [11, 11],
    WRITE: [10, 10],
    SUBPAGE_PROT: [7, 7],
    PTE_READ_FAULT: [6, 6],
    READ_FAULT: [4, 4],
    WRITE_FAULT: [3, 3],
    NO_PTE: [2, 2],
    NO_PMD: [1, 1],
    NO_TTBR: [0, 0],
  },
  T8020_CONFIG: { LOCK: [15, 15] },
  T8020_REMAP: { MAP3: [31, 24], MAP2: [23, 16], MAP1: [15, 8], MAP0: [7, 0] },
  T8020_TCR: { BYPASS_DAPF: [12, 12], BYPASS_DART: [8, 8], TRANSLATE_ENABLE: [7, 7] },
  T8020_TTBR: { VALID: [31, 31], ADDR: [30, 0] },
  PARAMS3: { PA_WIDTH: [29, 24], VA_WIDTH: [21, 16], VER_MAJ: [15, 8], VER_MIN: [7, 0] },
  PARAMS4: { NUM_CLIENTS: [24, 16], NUM_SIDS: [8, 0] },
  TLB_CMD: { BUSY: [31, 31], HARDWARE_FLUSH: [30, 30], FLUSH_VA_RANGE: [14, 14], OP: [10, 8], STREAM: [7, 0] },
  T8110_ERROR: {
    FLAG: [31, 31],
    WRITE_nREAD: [28, 28],
    STREAM: [27, 20],
    SECONDARY: [19, 19],
    BPF_REJECT: [14, 14],
    EXTERNAL: [13, 13],
    STT_FLUSH: [12, 12],
    STT_MISMATCH: [11, 11],
    APF_REJECT: [10, 10],
    DROP_PROTECT: [9, 9],
    CTRR_WRITE_PROTECT: [8, 8],
    AXI_ERROR: [7, 7],
    AXI_DECODE: [6, 6],
    READ_FAULT: [5, 5],
    WRITE_FAULT: [4, 4],
    NO_PTE: [3, 3],
    NO_PMD: [2, 2],
    NO_PGD: [1, 1],
    NO_TTBR: [0, 0],
  },
  PROTECT: {
    LOCK_TZ_SELECT: [4, 4],
    LOCK_TZ_CONFIG: [3, 3],
    UNKNOWN_2: [2, 2],
    LOCK_REG_4xx: [1, 1],
    TTBR_TCR: [0, 0],
  },
  T8110_TCR: {
    REMAP: [11, 8],
    REMAP_EN: [7, 7],
    FOUR_LEVEL: [3, 3],
    BYPASS_DAPF: [2, 2],
    BYPASS_DART: [1, 1],
    TRANSLATE_ENABLE: [0, 0],
  },
  T8110_TTBR: { ADDR: [29, 2], VALID: [0, 0] },
};

describe('registers', () => {
  for (const name of Object.keys(layouts) as (keyof typeof layouts)[]) {
    test(`${name} fields`, () => {
      expect(positions(layouts[name])).toEqual(expected[name]);
      expect(overlaps(layouts[name])).toEqual([]);
    });
  }

  test('offsets, t8020', () => {
    const at = Object.fromEntries(
      Object.entries<registers.DartRegister>(registers.T8020_REGISTERS).map(([n, r]) => [n, [r.offset, r.count ?? 1]]),
    );
    expect(at).toEqual({
      PARAMS1: [0x0, 1],
      PARAMS2: [0x4, 1],
      STREAM_COMMAND: [0x20, 1],
      STREAM_SELECT: [0x34, 1],
      ERROR: [0x40, 1],
      ERROR_ADDR_LO: [0x50, 1],
      ERROR_ADDR_HI: [0x54, 1],
      CONFIG: [0x60, 1],
      REMAP: [0x80, 4],
      DAPF_LOCK: [0xf0, 1],
      UNK1: [0xf8, 1],
      STREAMS_ENABLE: [0xfc, 1],
      TCR: [0x100, 16],
      TTBR: [0x200, 64],
    });
  });

  test('offsets, t8110', () => {
    const at = Object.fromEntries(
      Object.entries<registers.DartRegister>(registers.T8110_REGISTERS).map(([n, r]) => [n, [r.offset, r.count ?? 1]]),
    );
    expect(at).toEqual({
      PARAMS1: [0x0, 1],
      PARAMS2: [0x4, 1],
      PARAMS3: [0x8, 1],
      PARAMS4: [0xc, 1],
      TLB_CMD: [0x80, 1],
      ERROR: [0x100, 1],
      ERROR_MASK: [0x104, 1],
      ERROR_ADDR_LO: [0x170, 1],
      ERROR_ADDR_HI: [0x174, 1],
      ERROR_STREAMS: [0x1c0, 8],
      PROTECT: [0x200, 1],
      UNPROTECT: [0x204, 1],
      PROTECT_LOCK: [0x208, 1],
      ENABLE_STREAMS: [0xc00, 8],
      DISABLE_STREAMS: [0xc20, 8],
      TCR: [0x1000, 256],
      TTBR: [0x1400, 256],
    });
  });

  test('every register and field says where it is known from', () => {
    for (const map of [registers.T8020_REGISTERS, registers.T8110_REGISTERS]) {
      for (const [name, spec] of Object.entries<registers.DartRegister>(map)) {
        expect(['linux', 'm1n1', 'linux+m1n1', 'model'], name).toContain(spec.source);
        expect(spec.doc, name).not.toBe('');
        for (const [field, f] of Object.entries(spec.layout ?? {})) {
          expect(['linux', 'm1n1', 'linux+m1n1', 'model'], `${name}.${field}`).toContain(f.source);
        }
      }
    }
  });
});

describe('page-table entries', () => {
  test('dart1', () => {
    expect(positions(DART1_PTE)).toEqual({
      SP_START: [63, 52],
      SP_END: [51, 40],
      PADDR: [35, 12],
      NO_READ: [8, 8],
      NO_WRITE: [7, 7],
      SP_DIS: [1, 1],
      VALID: [0, 0],
    });
  });
  test('dart2', () => {
    expect(positions(DART2_PTE)).toEqual({
      SP_START: [63, 52],
      SP_END: [51, 40],
      PADDR: [37, 10],
      NO_READ: [3, 3],
      NO_WRITE: [2, 2],
      NO_CACHE: [1, 1],
      VALID: [0, 0],
    });
  });
});

describe('commands', () => {
  test('values as Linux writes them', () => {
    expect(STREAM_COMMANDS.INVALIDATE).toBe(0x10_0000);
    expect(TLB_OPS).toEqual({ FLUSH_ALL: 0, FLUSH_SID: 1 });
    expect(tlbFlushSid(0)).toBe(0x100);
    expect(tlbFlushSid(0xab)).toBe(0x1ab);
  });
});

describe('faults', () => {
  test('codes', () => {
    expect([...codesOf('t8020')]).toEqual([0, 0x1, 0x2, 0x2, 0x4, 0x8, 0x10, 0x80, 0x80, 0x40]);
    expect([...codesOf('t8110')]).toEqual([0, 0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x10, 0x20, 0x40]);
    expect(Object.keys(REASON)).toHaveLength(10);
  });
  test('code masks and names', () => {
    expect(codeOfError('t8020', 0x8f00_7fff | 0)).toBe(0xfff);
    expect(codeOfError('t8110', 0x8ff0_ffff | 0)).toBe(0x7fff);
    expect(nameOfError('t8020', 0x8100_0002)).toBe('NO_PMD');
    expect(nameOfError('t8110', 0x8100_0002)).toBe('NO_PGD');
    expect(nameOfError('t8020', 0x8100_0006)).toBe('NO_PTE|NO_PMD');
    expect(nameOfError('t8020', 0x8100_0000)).toBe('unknown');
  });
  test('records', () => {
    expect(decodeError('t8020', 0x0100_0002, 0, 0)).toBeNull();
    expect(decodeError('t8020', 0x8100_0008 | 0, 0, 0xfff9_b240 | 0)).toMatchObject({
      name: 'WRITE_FAULT',
      code: 8,
      requester: 1,
      pasid: -1,
      iova: 0xfff9_b240n,
      access: 'write',
      raw: [0x8100_0008n, 0xfff9_b240n],
      text: 'stream 1: WRITE_FAULT at iova 0xfff9b240, write access',
    });
    expect(decodeError('t8020', 0x8f00_0004 | 0, 3, 0)).toMatchObject({
      name: 'NO_PTE',
      requester: 15,
      iova: 0x3_0000_0000n,
      access: 'unknown',
    });
    expect(decodeError('t8110', 0x9ab0_0001 | 0, 0x3ff, 0x1234)).toMatchObject({
      name: 'NO_TTBR',
      requester: 0xab,
      iova: 0x3ff_0000_1234n,
      access: 'write',
      fields: { FLAG: 1, WRITE_nREAD: 1, STREAM: 0xab, NO_TTBR: 1, NO_PTE: 0 },
    });
  });
});
