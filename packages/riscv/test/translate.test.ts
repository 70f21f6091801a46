/** The process to translate an IOVA, step by step as the specification has it, on structures typed by hand. */
import { ACCESS } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { A, BareMetal, CAPABILITIES, D, DDT, G, R, RWXUAD, U, V, W, X, ppn } from './bare-metal.ts';

const { READ, WRITE, EXEC, PRIV } = ACCESS;
const SV39 = 8n << 60n;
const SV48 = 9n << 60n;
const SV57 = 10n << 60n;

const without = (bit: bigint): bigint => CAPABILITIES & ~(1n << bit);

/** One device (id 5) with a first-stage table. */
const firstStage = (mode: bigint, extra: { tc?: bigint; capabilities?: bigint } = {}) => {
  const bare = new BareMetal(extra.capabilities === undefined ? {} : { capabilities: extra.capabilities }).enable();
  const root = bare.page();
  bare.dc(5, { tc: extra.tc ?? V, ta: 0x77n << 12n, fsc: mode | (root >> 12n) });
  return { bare, root, levels: Number(mode >> 60n) - 5 };
};

describe('directory', () => {
  test('off, bare, and on', () => {
    const bare = new BareMetal().enable();
    bare.write64(16, 0n);
    bare.faults(5, 0x1234n, 256);
    bare.write64(16, 1n);
    bare.reaches(5, 0xfedc_ba98_7654_3210n, 0xfedc_ba98_7654_3210n, WRITE);
    bare.write64(16, ppn(DDT) | 2n);
    bare.faults(5, 0x1234n, 258);
    bare.dc(5, {});
    bare.reaches(5, 0x1234n, 0x1234n);
  });

  test.each([
    ['extended', CAPABILITIES, 64n, [6, 15, 24]],
    ['base', CAPABILITIES & ~(1n << 22n), 32n, [7, 16, 24]],
  ] as const)('one, two and three levels, %s format', (_, capabilities, bytes, widths) => {
    for (const levels of [1, 2, 3] as const) {
      const bare = new BareMetal({ capabilities }).enable(levels);
      const bits = widths[0];
      const did = 0xa5_5a5a & (2 ** widths[levels - 1]! - 1);
      let table = DDT;
      for (let i = levels - 1; i > 0; i--) {
        const index = (did >> (bits + 9 * (i - 1))) & 0x1ff;
        const entry = table + BigInt(index) * 8n;
        bare.faults(did, 0n, 258);
        bare.memory.writeU64(entry, (1n << 54n) | V);
        bare.faults(did, 0n, 259);
        bare.memory.writeU64(entry, (1n << 9n) | V);
        bare.faults(did, 0n, 259);
        // Where no memory answers.
        bare.memory.writeU64(entry, ppn(0x3000_0000n) | V);
        bare.faults(did, 0n, 257);
        table = bare.page();
        bare.memory.writeU64(entry, ppn(table) | V);
      }
      bare.faults(did, 0n, 258);
      bare.memory.writeU64(table + BigInt(did & (2 ** bits - 1)) * bytes, V);
      bare.reaches(did, 0x8000_0000n, 0x8000_0000n);
      // Wider than the directory.
      if (levels < 3) bare.faults(2 ** widths[levels - 1]!, 0n, 260);
    }
  });

  test('a directory where no memory answers', () => {
    const bare = new BareMetal().enable();
    bare.write64(16, 0n);
    bare.write64(16, ppn(0x3000_0000n) | 2n);
    bare.faults(5, 0n, 257);
  });

  const bad: readonly [string, Parameters<BareMetal['dc']>[1]][] = [
    ['tc bit 12', { tc: V | (1n << 12n) }],
    ['tc bit 23', { tc: V | (1n << 23n) }],
    ['tc bit 32', { tc: V | (1n << 32n) }],
    ['tc bit 63', { tc: V | (1n << 63n) }],
    ['EN_ATS without ATS', { tc: V | 2n }],
    ['EN_PRI', { tc: V | 4n }],
    ['T2GPA', { tc: V | 8n }],
    ['PRPR', { tc: V | 64n }],
    ['DPE without PDTV', { tc: V | 512n }],
    ['SBE', { tc: V | 1024n }],
    ['SXL', { tc: V | 2048n }],
    ['iohgatp.MODE 1', { iohgatp: 1n << 60n }],
    ['iohgatp.MODE 11', { iohgatp: 11n << 60n }],
    ['iohgatp.PPN not 16 KiB aligned', { iohgatp: (8n << 60n) | 0x201n }],
    ['ta bit 0', { ta: 1n }],
    ['ta bit 11', { ta: 1n << 11n }],
    ['ta bit 32', { ta: 1n << 32n }],
    ['ta.RCID without QOSID', { ta: 1n << 40n }],
    ['ta.MCID without QOSID', { ta: 1n << 52n }],
    ['fsc.MODE 7', { fsc: 7n << 60n }],
    ['fsc.MODE 11', { fsc: 11n << 60n }],
    ['fsc.MODE 15', { fsc: 15n << 60n }],
    ['fsc bit 44', { fsc: 1n << 44n }],
    ['fsc bit 59', { fsc: 1n << 59n }],
    ['pdtp.MODE 4', { tc: V | 32n, fsc: 4n << 60n }],
    ['msiptp.MODE 2', { iohgatp: 8n << 60n, msiptp: 2n << 60n }],
    ['msiptp.MODE Flat with Bare iohgatp', { msiptp: 1n << 60n }],
    ['msiptp bit 44', { msiptp: 1n << 44n }],
    ['msi_addr_mask bit 52', { mask: 1n << 52n }],
    ['msi_addr_mask beyond MGPAW', { mask: 1n << 47n }],
    ['msi_addr_pattern beyond MGPAW', { pattern: 1n << 47n }],
    ['doubleword 7', { reserved: 1n }],
  ];
  test.each(bad)('misconfigured: %s', (_, fields) => {
    const bare = new BareMetal().enable();
    bare.dc(9, fields);
    bare.faults(9, 0x5000n, 259);
    // With V = 0 all else is don't-care.
    bare.dc(9, { ...fields, tc: (fields.tc ?? V) & ~V });
    bare.faults(9, 0x5000n, 258);
    bare.dc(9, {});
    bare.reaches(9, 0x5000n, 0x5000n);
  });

  test('what capabilities leave out is misconfigured', () => {
    const cases: [bigint, Parameters<BareMetal['dc']>[1]][] = [
      [without(9n), { fsc: SV39 }],
      [without(10n), { fsc: SV48 }],
      [without(11n), { fsc: SV57 }],
      [without(17n), { iohgatp: SV39 }],
      [without(18n), { iohgatp: SV48 }],
      [without(19n), { iohgatp: SV57 }],
      [without(24n), { tc: V | 128n }],
      [without(24n), { tc: V | 256n }],
      [without(38n), { tc: V | 32n, fsc: 1n << 60n }],
      [without(39n), { tc: V | 32n, fsc: 2n << 60n }],
      [without(40n), { tc: V | 32n, fsc: 3n << 60n }],
    ];
    for (const [capabilities, fields] of cases) {
      const bare = new BareMetal({ capabilities }).enable();
      bare.dc(1, fields);
      bare.faults(1, 0n, 259);
      const full = new BareMetal().enable();
      full.dc(1, fields);
      expect(full.translate(1, 0n)).not.toBe(259);
    }
  });

  test('DTF keeps translation faults quiet, not those of the directory', () => {
    const { bare } = firstStage(SV39, { tc: V | 16n });
    const before = bare.read32(52);
    expect(bare.translate(5, 0x1000n)).toBe(13);
    expect(bare.translate(5, 0x1000n, READ, 7)).toBe(260);
    expect(bare.read32(52)).toBe(before);
    bare.dc(5, { tc: V | 16n | (1n << 12n) });
    bare.write64(16, 0n);
    bare.write64(16, ppn(DDT) | 2n);
    bare.faults(5, 0x1000n, 259);
  });
});

describe.each([
  ['Sv39', SV39, 39n],
  ['Sv48', SV48, 48n],
  ['Sv57', SV57, 57n],
] as const)('first stage %s', (_, mode, width) => {
  const top = 1n << (width - 1n);
  const negative = 0xffff_ffff_ffff_ffffn ^ (top - 1n);

  test('every level, both halves, the offset is kept', () => {
    const { bare, root, levels } = firstStage(mode);
    for (let level = 0; level < levels; level++) {
      const size = 1n << BigInt(12 + 9 * level);
      for (const va of [size & (top - 1n), negative | size]) {
        const pa = 0x55_5555_5555_5000n & ~(size - 1n) & ((1n << 56n) - 1n);
        bare.map(root, levels, va, ppn(pa) | RWXUAD, level);
        const offset = (size - 1n) & 0x1234_5678_9abc_def1n;
        bare.reaches(5, va, pa);
        bare.reaches(5, va | offset, pa | offset, WRITE);
        bare.reaches(5, va | offset, pa | offset, EXEC);
        // A new address space, lest the tables of one level stand in the way of the next.
        bare.memory.zeroPages(Number(root >> 12n), 4096);
        bare.command(1n);
      }
    }
  });

  test('non-canonical addresses', () => {
    const { bare, root, levels } = firstStage(mode);
    bare.map(root, levels, 0x1000n, ppn(0x40_0000n) | RWXUAD);
    bare.reaches(5, 0x1000n, 0x40_0000n);
    bare.faults(5, 0x1000n | top, 13);
    bare.faults(5, 0x1000n | (negative ^ top), 15, WRITE);
    bare.faults(5, 0x1000n | (1n << 63n), 12, EXEC);
    bare.faults(5, 0x1000n | (1n << width), 13);
  });

  test('entries that are not valid or reserved, at every level', () => {
    const { bare, root, levels } = firstStage(mode);
    const leaf = ppn(0x40_0000n) | RWXUAD;
    for (const wrong of [leaf & ~V, leaf & ~R, V | W | U | A | D, leaf | (1n << 54n), leaf | (1n << 58n)]) {
      bare.map(root, levels, 0x3000n, wrong);
      bare.faults(5, 0x3008n, 15, WRITE);
    }
    for (const bit of [59n, 60n, 61n, 62n]) {
      bare.map(root, levels, 0x3000n, leaf | (1n << bit));
      bare.faults(5, 0x3008n, 13);
    }
    // A pointer at the last level; pointers with A, D, U, PBMT or N.
    bare.map(root, levels, 0x3000n, ppn(0x40_0000n) | V);
    bare.faults(5, 0x3000n, 13);
    const entry = bare.map(root, levels, 0x20_0000n, 0n, 1);
    const next = bare.page();
    bare.memory.writeU64(next, leaf);
    for (const bit of [A, D, U, 1n << 61n, 1n << 63n, 1n << 54n]) {
      bare.memory.writeU64(entry, ppn(next) | V | bit);
      bare.faults(5, 0x20_0000n, 13);
    }
    // G and RSW are allowed.
    bare.memory.writeU64(entry, ppn(next) | V | G | 0x300n);
    bare.reaches(5, 0x20_0000n, 0x40_0000n);
  });

  test('permissions, U, A and D', () => {
    const { bare, root, levels } = firstStage(mode);
    const at = ppn(0x40_0000n);
    const set = (flags: bigint): void => {
      bare.map(root, levels, 0x7000n, at | flags);
      bare.command(1n);
    };
    set(V | R | U | A);
    bare.reaches(5, 0x7abcn, 0x40_0abcn);
    bare.faults(5, 0x7abcn, 15, WRITE);
    bare.faults(5, 0x7abcn, 12, EXEC);
    set(V | X | U | A);
    bare.reaches(5, 0x7000n, 0x40_0000n, EXEC);
    bare.faults(5, 0x7000n, 13);
    set(RWXUAD & ~U);
    bare.faults(5, 0x7000n, 13);
    set(RWXUAD & ~A);
    bare.faults(5, 0x7000n, 13);
    set(RWXUAD & ~D);
    bare.reaches(5, 0x7000n, 0x40_0000n);
    bare.faults(5, 0x7000n, 15, WRITE);
  });

  test('misaligned superpages', () => {
    const { bare, root, levels } = firstStage(mode);
    for (let level = 1; level < levels; level++) {
      const size = 1n << BigInt(12 + 9 * level);
      for (const wrong of [0x1000n, size >> 1n]) {
        bare.map(root, levels, size, ppn(wrong) | RWXUAD, level);
        bare.faults(5, size, 13);
      }
      bare.memory.zeroPages(Number(root >> 12n), 4096);
    }
  });

  test('Svnapot: 64 KiB', () => {
    const { bare, root, levels } = firstStage(mode);
    const N = 1n << 63n;
    for (let i = 0n; i < 16n; i++) {
      bare.map(root, levels, 0x5_0000n + i * 0x1000n, N | ppn(0x83_8000n) | RWXUAD);
    }
    // ppn[3:0] = 1000 codes the size: the low page bits come from the IOVA.
    bare.reaches(5, 0x5_0123n, 0x83_0123n);
    bare.reaches(5, 0x5_f123n, 0x83_f123n, WRITE);
    for (const low of [0n, 1n, 4n, 9n, 12n]) {
      bare.map(root, levels, 0x9_0000n, N | ppn(0x84_0000n | (low << 12n)) | RWXUAD);
      bare.faults(5, 0x9_0000n, 13);
    }
    bare.map(root, levels, 0x20_0000n, N | ppn(0x80_0000n) | RWXUAD, 1);
    bare.faults(5, 0x20_0000n, 13);
  });

  test('tables where no memory answers', () => {
    const { bare, root, levels } = firstStage(mode);
    bare.map(root, levels, 0x40_0000n, ppn(0x3000_0000n) | V, 1);
    bare.faults(5, 0x40_0000n, 5);
    bare.faults(5, 0x40_0000n, 7, WRITE);
    bare.faults(5, 0x40_0000n, 1, EXEC);
  });
});

test('A and D updated by hardware', () => {
  const { bare, root } = firstStage(SV39, { tc: V | 256n });
  const entry = bare.map(root, 3, 0x7000n, ppn(0x40_0000n) | V | R | W | U);
  bare.reaches(5, 0x7000n, 0x40_0000n);
  expect(bare.memory.readU64(entry) & (A | D)).toBe(A);
  // The cached translation must not hide the first write.
  bare.reaches(5, 0x7000n, 0x40_0000n, WRITE);
  expect(bare.memory.readU64(entry) & (A | D)).toBe(A | D);
  // Permission is checked first: nothing is updated by an access that is refused.
  const other = bare.map(root, 3, 0x8000n, ppn(0x40_0000n) | V | R | U);
  bare.faults(5, 0x8000n, 15, WRITE);
  expect(bare.memory.readU64(other) & (A | D)).toBe(0n);
});

test('Svpbmt and Svrsw60t59b where the capabilities have them', () => {
  const { bare, root } = firstStage(SV39, { capabilities: CAPABILITIES | (1n << 14n) | (1n << 15n) });
  const leaf = ppn(0x40_0000n) | RWXUAD;
  for (const bits of [1n << 61n, 2n << 61n, 1n << 59n, 1n << 60n]) {
    bare.map(root, 3, 0x7000n, leaf | bits);
    bare.command(1n);
    bare.reaches(5, 0x7000n, 0x40_0000n);
  }
  bare.map(root, 3, 0x7000n, leaf | (3n << 61n));
  bare.command(1n);
  bare.faults(5, 0x7000n, 13);
});

describe.each([
  ['Sv39x4', SV39, 41n],
  ['Sv48x4', SV48, 50n],
  ['Sv57x4', SV57, 59n],
] as const)('second stage %s', (_, mode, width) => {
  const secondStage = (tc = V) => {
    const bare = new BareMetal().enable();
    const root = bare.page(0x4000n);
    bare.dc(5, { tc, iohgatp: mode | (0x33n << 44n) | (root >> 12n) });
    return { bare, root, levels: Number(mode >> 60n) - 5 };
  };

  test('the whole width, every level', () => {
    const { bare, root, levels } = secondStage();
    for (let level = 0; level < levels; level++) {
      const size = 1n << BigInt(12 + 9 * level);
      const gpa = (1n << width) - size;
      bare.map(root, levels, gpa, RWXUAD | ppn(0n), level, true);
      bare.reaches(5, gpa + 0x123n, 0x123n);
      bare.reaches(5, gpa + size - 1n, size - 1n, WRITE);
      bare.memory.zeroPages(Number(root >> 12n), 0x4000);
      bare.command(1n | (1n << 7n));
    }
  });

  test('faults give the GPA in iotval2', () => {
    const { bare, root, levels } = secondStage();
    const leaf = ppn(0x40_0000n) | RWXUAD;
    expect(bare.faults(5, 0x7123n, 21)[3]).toBe(0x7120n);
    expect(bare.faults(5, 0x7123n, 23, WRITE)[3]).toBe(0x7120n);
    expect(bare.faults(5, 0x7123n, 20, EXEC)[3]).toBe(0x7120n);
    // Beyond the width, not sign-extended.
    const wide = (1n << width) | 0x7123n;
    expect(bare.faults(5, wide, 21)[3]).toBe(wide & ~3n);
    expect(bare.faults(5, 0xffff_ffff_ffff_f000n, 21)[3]).toBe(0xffff_ffff_ffff_f000n);
    for (const wrong of [leaf & ~U, leaf & ~A, leaf | (1n << 54n), leaf & ~R]) {
      bare.map(root, levels, 0x7000n, wrong, 0, true);
      expect(bare.faults(5, 0x7123n, 21)[3]).toBe(0x7120n);
    }
    bare.map(root, levels, 0x7000n, leaf & ~D, 0, true);
    bare.reaches(5, 0x7123n, 0x40_0123n);
    bare.faults(5, 0x7123n, 23, WRITE);
    bare.map(root, levels, 0x40_0000n, ppn(0x3000_0000n) | V, 1, true);
    bare.faults(5, 0x40_0000n, 5);
  });

  test('A and D updated by hardware', () => {
    const { bare, root, levels } = secondStage(V | 128n);
    const entry = bare.map(root, levels, 0x7000n, ppn(0x40_0000n) | V | R | W | U, 0, true);
    bare.reaches(5, 0x7000n, 0x40_0000n);
    expect(bare.memory.readU64(entry) & (A | D)).toBe(A);
    bare.reaches(5, 0x7000n, 0x40_0000n, WRITE);
    expect(bare.memory.readU64(entry) & (A | D)).toBe(A | D);
  });
});

/** Guest memory of 2 MiB at GPA 0x100_0000, 4 KiB pages; the first stage's tables are in it. */
const nested = (tc = V) => {
  const bare = new BareMetal().enable();
  const g = bare.page(0x4000n);
  const ram = bare.page(0x20_0000n);
  const guest = 0x100_0000n;
  const toHost = (gpa: bigint): bigint => ram + gpa - guest;
  const entries = new Map<bigint, bigint>();
  for (let at = 0n; at < 0x20_0000n; at += 0x1000n) {
    entries.set(guest + at, bare.map(g, 3, guest + at, ppn(ram + at) | RWXUAD, 0, true));
  }
  bare.dc(5, { tc, iohgatp: SV39 | (0x33n << 44n) | (g >> 12n), ta: 0x77n << 12n, fsc: SV39 | (guest >> 12n) });
  // Guest tables: root, one table of level 1, one of level 0.
  bare.memory.writeU64(toHost(guest), ppn(guest + 0x1000n) | V);
  bare.memory.writeU64(toHost(guest + 0x1000n), ppn(guest + 0x2000n) | V);
  const leafAt = (i: bigint): bigint => toHost(guest + 0x2000n) + i * 8n;
  bare.memory.writeU64(leafAt(3n), ppn(guest + 0x5000n) | RWXUAD);
  return { bare, guest, toHost, entries, leafAt };
};

describe('two stages', () => {
  test('both translate', () => {
    const { bare, guest, toHost } = nested();
    bare.reaches(5, 0x3abcn, toHost(guest + 0x5abcn));
    bare.reaches(5, 0x3abcn, toHost(guest + 0x5abcn), WRITE);
    bare.faults(5, 0x4000n, 13);
  });

  test('whose fault it is', () => {
    const { bare, guest, entries, leafAt } = nested();
    const target = entries.get(guest + 0x5000n)!;
    const keep = bare.memory.readU64(target);
    // The page itself: the access's own GPA.
    bare.memory.writeU64(target, keep & ~W);
    expect(bare.faults(5, 0x3abcn, 23, WRITE)[3]).toBe((guest + 0x5abcn) & ~3n);
    bare.memory.writeU64(target, keep);
    // A table of the first stage: implicit, with the address of the entry.
    const table = entries.get(guest + 0x2000n)!;
    bare.memory.writeU64(table, 0n);
    expect(bare.faults(5, 0x3abcn, 23, WRITE)[3]).toBe((guest + 0x2000n + 24n) | 1n);
    bare.memory.writeU64(table, keep & ~0x3f_ffff_ffff_fc00n);
    expect(bare.faults(5, 0x3abcn, 13)[3]).toBe(0n);
    bare.memory.writeU64(leafAt(3n), 0n);
  });

  test('an A/D update of the first stage needs a page that the second lets write', () => {
    const { bare, guest, entries, leafAt } = nested(V | 256n);
    bare.memory.writeU64(leafAt(3n), (ppn(guest + 0x5000n) | RWXUAD) & ~A);
    const table = entries.get(guest + 0x2000n)!;
    bare.memory.writeU64(table, bare.memory.readU64(table) & ~W);
    expect(bare.faults(5, 0x3abcn, 21)[3]).toBe((guest + 0x2000n + 24n) | 3n);
    bare.memory.writeU64(table, bare.memory.readU64(table) | W);
    expect(bare.translate(5, 0x3abcn)).toBe(0);
    expect(bare.memory.readU64(leafAt(3n)) & A).toBe(A);
  });

  test('first-stage superpage over small pages: each page by its own, all dropped by one invalidation', () => {
    const { bare, guest, toHost } = nested();
    // 2 MiB leaf of the guest at VA 0x4000_0000 covers the whole guest memory.
    bare.memory.writeU64(toHost(guest) + 8n, ppn(guest + 0x3000n) | V);
    bare.memory.writeU64(toHost(guest + 0x3000n), ppn(guest) | RWXUAD);
    for (const at of [0x5000n, 0x1f_f000n, 0x8_0000n]) bare.reaches(5, 0x4000_0000n + at, toHost(guest + at));
    bare.memory.writeU64(toHost(guest + 0x3000n), 0n);
    // IOTINVAL.VMA with GV, PSCV, AV for one address in it.
    bare.command(1n | (1n << 10n) | (0x77n << 12n) | (3n << 32n) | (0x33n << 44n), (0x4000_5000n >> 12n) << 10n);
    for (const at of [0x5000n, 0x1f_f000n, 0x8_0000n]) bare.faults(5, 0x4000_0000n + at, 13);
  });
});

describe('process directory', () => {
  test.each([
    ['PD8', 1n, 0x5an],
    ['PD17', 2n, 0x1_5a5an],
    ['PD20', 3n, 0xf_5a5an],
  ] as const)('%s', (_, mode, pid) => {
    const bare = new BareMetal().enable();
    const pdt = bare.page();
    bare.dc(5, { tc: V | 32n, fsc: (mode << 60n) | (pdt >> 12n) });
    const process = Number(pid);
    let table = pdt;
    for (let i = mode - 1n; i > 0n; i--) {
      const entry = table + ((pid >> (i === 1n ? 8n : 17n)) & 0x1ffn) * 8n;
      bare.faults(5, 0x1000n, 266, READ, process);
      bare.memory.writeU64(entry, V | 2n);
      bare.faults(5, 0x1000n, 267, READ, process);
      bare.memory.writeU64(entry, V | ppn(0x3000_0000n));
      bare.faults(5, 0x1000n, 265, READ, process);
      table = bare.page();
      bare.memory.writeU64(entry, V | ppn(table));
    }
    const pc = table + (pid & 0xffn) * 16n;
    bare.faults(5, 0x1000n, 266, READ, process);
    const root = bare.page();
    bare.map(root, 3, 0x1000n, ppn(0x40_0000n) | RWXUAD);
    bare.map(root, 3, 0x2000n, ppn(0x40_1000n) | (RWXUAD & ~U));
    bare.memory.writeU64(pc + 8n, SV39 | (root >> 12n));
    for (const wrong of [V | 8n, V | (1n << 11n), V | (1n << 32n)]) {
      bare.memory.writeU64(pc, wrong);
      bare.faults(5, 0x1000n, 267, READ, process);
    }
    bare.memory.writeU64(pc, V | (0x99n << 12n));
    bare.reaches(5, 0x1000n, 0x40_0000n, READ, process);
    bare.faults(5, 0x2000n, 13, READ, process);
    // Supervisor privilege: ENS, then SUM.
    bare.faults(5, 0x2000n, 260, READ | PRIV, process);
    bare.memory.writeU64(pc, V | 2n | (0x99n << 12n));
    bare.command(3n | (1n << 7n) | (pid << 12n) | (1n << 33n) | (5n << 40n));
    bare.reaches(5, 0x2000n, 0x40_1000n, READ | PRIV, process);
    bare.faults(5, 0x1000n, 13, READ | PRIV, process);
    bare.memory.writeU64(pc, V | 6n | (0x99n << 12n));
    bare.command(3n | (1n << 7n) | (pid << 12n) | (1n << 33n) | (5n << 40n));
    bare.reaches(5, 0x1000n, 0x40_0000n, READ | PRIV, process);
    bare.faults(5, 0x1000n, 12, EXEC | PRIV, process);
    // Wider than the directory; none at all, which then means no first stage.
    if (mode < 3n) bare.faults(5, 0x1000n, 260, READ, 0x4_0000);
    bare.reaches(5, 0x1234n, 0x1234n);
  });

  test('DPE gives requests without a process_id the process 0', () => {
    const bare = new BareMetal().enable();
    const pdt = bare.page();
    const root = bare.page();
    bare.dc(5, { tc: V | 32n | 512n, fsc: (1n << 60n) | (pdt >> 12n) });
    bare.memory.writeU64(pdt, V);
    bare.memory.writeU64(pdt + 8n, SV39 | (root >> 12n));
    bare.map(root, 3, 0x1000n, ppn(0x40_0000n) | RWXUAD);
    bare.reaches(5, 0x1000n, 0x40_0000n);
    bare.faults(5, 0x2000n, 13);
  });

  test('a process_id without PDTV', () => {
    const { bare, root } = firstStage(SV39);
    bare.map(root, 3, 0x1000n, ppn(0x40_0000n) | RWXUAD);
    bare.reaches(5, 0x1000n, 0x40_0000n);
    bare.faults(5, 0x1000n, 260, READ, 3);
  });

  test('in guest memory', () => {
    const bare = new BareMetal().enable();
    const g = bare.page(0x4000n);
    const pdt = bare.page();
    bare.dc(5, { tc: V | 32n, iohgatp: SV39 | (g >> 12n), fsc: (1n << 60n) | (0x70_0000n >> 12n) });
    // Not mapped by the second stage: an implicit read.
    expect(bare.faults(5, 0x1000n, 23, WRITE, 3)[3]).toBe(0x70_0030n | 1n);
    bare.map(g, 3, 0x70_0000n, ppn(pdt) | RWXUAD, 0, true);
    bare.faults(5, 0x1000n, 266, WRITE, 3);
    bare.memory.writeU64(pdt + 0x30n, V);
    bare.map(g, 3, 0x1000n, ppn(0x40_0000n) | RWXUAD, 0, true);
    bare.reaches(5, 0x1000n, 0x40_0000n, WRITE, 3);
    // A second-stage table of the directory's pages that no memory answers for.
    bare.map(g, 3, 0x70_0000n, ppn(0x3000_0000n) | V, 1, true);
    bare.command(1n | (1n << 7n));
    bare.faults(5, 0x5000n, 265, READ, 4);
  });
});

/** A window of eight interrupt files at guest page 0x28000, and its table. */
const withMsiTable = () => {
  const bare = new BareMetal().enable();
  const g = bare.page(0x4000n);
  const msi = bare.page();
  bare.dc(5, {
    iohgatp: SV39 | (7n << 44n) | (g >> 12n),
    msiptp: (1n << 60n) | (msi >> 12n),
    mask: 0b1011n,
    pattern: 0x2_8000n,
  });
  return { bare, g, msi };
};

describe('MSI page table', () => {
  test('basic translate mode', () => {
    const { bare, msi } = withMsiTable();
    // Page bits 3, 1, 0 are the file's number: pages 0x28000 + 1010 binary -> file 110 binary.
    bare.faults(5, 0x2800_a000n, 262, WRITE);
    bare.memory.writeU64(msi + 6n * 16n, ppn(0x1_2345_6000n) | V | 6n);
    bare.reaches(5, 0x2800_a004n, 0x1_2345_6004n, WRITE);
    bare.reaches(5, 0x2800_a000n, 0x1_2345_6000n, READ);
    bare.faults(5, 0x2800_a000n, 1, EXEC);
    // Bit 2 of the page number is no wildcard.
    bare.faults(5, 0x2800_e000n, 23, WRITE);
  });

  test('misconfigured entries', () => {
    const { bare, msi } = withMsiTable();
    for (const [low, high] of [
      [V, 0n],
      [V | 4n, 0n],
      [V | 6n | 8n, 0n],
      [V | 6n | (1n << 54n), 0n],
      [V | 6n, 1n],
      [V | 6n | (1n << 63n), 0n],
      // MRIF mode without capabilities.MSI_MRIF.
      [V | 2n, 0n],
    ] as const) {
      bare.memory.writeU64(msi, low);
      bare.memory.writeU64(msi + 8n, high);
      bare.faults(5, 0x2800_0000n, 263, WRITE);
    }
  });

  test('a superpage around the window does not swallow it', () => {
    const { bare, g, msi } = withMsiTable();
    bare.map(g, 3, 0x2800_0000n, ppn(0x40_0000n) | RWXUAD, 1, true);
    bare.reaches(5, 0x2801_0000n, 0x41_0000n, WRITE);
    bare.memory.writeU64(msi, ppn(0x1_2345_6000n) | V | 6n);
    bare.reaches(5, 0x2800_0000n, 0x1_2345_6000n, WRITE);
    bare.reaches(5, 0x2800_4000n, 0x40_4000n, WRITE);
    // One GVMA for the leaf drops all its pieces.
    bare.map(g, 3, 0x2800_0000n, 0n, 1, true);
    bare.command(1n | (1n << 7n) | (1n << 10n) | (1n << 33n) | (7n << 44n), (0x2800_4000n >> 12n) << 10n);
    bare.faults(5, 0x2801_0000n, 23, WRITE);
    bare.faults(5, 0x2800_4000n, 23, WRITE);
  });
});
