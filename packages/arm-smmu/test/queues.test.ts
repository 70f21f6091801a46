/** Command queue, invalidation scopes, event queue, global errors, interrupts, guarded registers (IHI 0070, 3.5, 4, 6, 7). */
import { describe, expect, test } from 'vitest';
import { Bare, CD, CMDQ, FULL, RAM, READ, TABLES, TABLES2, WRITE, cd0, s2, ste } from './bare.ts';

const SYNC = 0x46;

describe('command queue', () => {
  test('wraps, and is consumed at once', () => {
    const bare = new Bare().enable();
    for (let i = 1; i <= 300; i++) {
      bare.command(SYNC);
      expect(bare.r32(0x9c)).toBe(i % 128);
    }
    expect(bare.unit.stats.commands).toBe(300);
  });

  test.each([
    ['opcode 0', [0]],
    ['opcode 0x07', [0x07]],
    ['opcode 0xff', [0xff]],
    ['CFGI_STE with SSec', [0x403]],
    ['CFGI_CD with SSec', [0x405]],
    ['PREFETCH_CONFIG with SSec', [0x401]],
    ['TLBI_EL3_ALL', [0x18]],
    ['ATC_INV', [0x40]],
    ['PRI_RESP', [0x41]],
    ['RESUME', [0x44]],
    ['STALL_TERM', [0x45]],
    ['SYNC with CS 3', [0x3046]],
    ['a range of nothing', [0x12, 0, 0x1000 | (1 << 10), 0]],
    ['16K level 1 is no hint', [0x12, 0, 0x4000 | (2 << 10) | (1 << 8), 0]],
  ] as const)('CERROR_ILL: %s', (_, words) => {
    const bare = new Bare().enable();
    bare.command(SYNC);
    bare.command(words[0], words[1] ?? 0, words[2] ?? 0, words[3] ?? 0);
    expect(bare.r32(0x9c)).toBe(0x0100_0001);
    expect(bare.r32(0x60)).toBe(1);
    expect(bare.interrupts).toEqual(['gerror']);
    // Stopped until acknowledged; what stands there then is read anew.
    bare.command(SYNC);
    expect(bare.r32(0x9c) & 0xf_ffff).toBe(1);
    bare.put(CMDQ + 16n, [BigInt(SYNC), 0n]);
    bare.w32(0x64, 1);
    expect(bare.r32(0x9c) & 0xf_ffff).toBe(3);
    expect(bare.r32(0x60)).toBe(1);
    // The next error toggles the bit back.
    bare.command(0);
    expect(bare.r32(0x60)).toBe(0);
    expect(bare.r32(0x9c)).toBe(0x0100_0003);
  });

  test('commands of a stage or level that is not there', () => {
    const one = new Bare({ ...FULL, IDR0: FULL.IDR0 & ~1 }).enable();
    one.command(0x28);
    expect(one.r32(0x9c)).toBe(0x0100_0000);
    for (const opcode of [0x10, 0x11, 0x12, 0x13, 0x05, 0x06, 0x20]) {
      const two = new Bare({ ...FULL, IDR0: FULL.IDR0 & ~2 }).enable();
      two.command(opcode);
      expect(two.r32(0x9c)).toBe(0x0100_0000);
    }
    const noHyp = new Bare({ ...FULL, IDR0: FULL.IDR0 & ~0x200 }).enable();
    noHyp.command(0x20);
    expect(noHyp.r32(0x9c)).toBe(0x0100_0000);
  });

  test('CERROR_ABT', () => {
    const bare = new Bare().enable();
    bare.w32(0x20, 5);
    bare.w64(0x90, 0x90_0000_0006n);
    bare.w32(0x20, 0xd);
    bare.w32(0x98, 1);
    expect(bare.r32(0x9c)).toBe(0x0200_0000);
    expect(bare.r32(0x60)).toBe(1);
  });

  test('LOG2SIZE is capped, an index far off ends as well', () => {
    const bare = new Bare({ ...FULL, IDR1: (FULL.IDR1 & ~(0x1f << 21)) | (3 << 21) }).enable({ cmdq: 19 });
    for (let i = 0n; i < 8n; i++) bare.put(CMDQ + 16n * i, [BigInt(SYNC), 0n]);
    bare.w32(0x98, 0xf_fff5);
    expect(bare.r32(0x9c)).toBe(5); // modulo 16
  });

  test('disabled: nothing happens; enabling starts what is there', () => {
    const bare = new Bare().enable();
    bare.w32(0x20, 5);
    bare.put(CMDQ, [BigInt(SYNC), 0n]);
    bare.w32(0x98, 1);
    expect(bare.r32(0x9c)).toBe(0);
    bare.w32(0x20, 0xd);
    expect(bare.r32(0x9c)).toBe(1);
  });
});

describe('CMD_SYNC and MSIs', () => {
  test('an MSI write, an interrupt, an event', () => {
    const bare = new Bare().enable();
    bare.command(0x1046, 0xcafe, 0x0400_0004, 0);
    expect(bare.memory.read(0x400_0004n, 4)).toBe(0xcafen);
    bare.command(0x1046);
    bare.command(0x2046);
    expect(bare.interrupts).toEqual(['cmdq-sync', 'cmdq-sync', 'sev']);
    bare.command(0x1046, 1, 4, 0x90);
    expect(bare.r32(0x60)).toBe(1 << 4); // MSI_CMDQ_ABT_ERR
    expect(bare.r32(0x9c)).toBe(4); // the command itself has completed
  });

  test('without IDR0.MSI there is only the wire', () => {
    const bare = new Bare({ ...FULL, IDR0: FULL.IDR0 & ~0x2000 }).enable();
    bare.command(0x1046, 0xcafe, 0x0400_0004, 0);
    expect(bare.memory.read(0x400_0004n, 4)).toBe(0n);
    expect(bare.interrupts).toEqual(['cmdq-sync']);
    bare.w32(0x50, 0);
    bare.w64(0xb0, 0x400_0000n);
    expect(bare.unit.registers.get64(0xb0)).toBe(0n);
  });

  test('event queue and GERROR', () => {
    const bare = new Bare().enable();
    bare.w32(0x50, 0);
    bare.w64(0xb0, 0x400_0010n);
    bare.w32(0xb8, 0x77);
    bare.w64(0x68, 0x400_0020n);
    bare.w32(0x70, 0x88);
    bare.w32(0x50, 5);
    expect(bare.r32(0x54)).toBe(5);
    bare.w64(0xb0, 0n); // guarded while enabled
    bare.access(0n);
    bare.access(0n);
    expect(bare.memory.read(0x400_0010n, 4)).toBe(0x77n);
    expect(bare.interrupts).toEqual(['evtq']); // only when it was empty
    bare.command(0);
    expect(bare.memory.read(0x400_0020n, 4)).toBe(0x88n);
    bare.w32(0x50, 0);
    bare.w64(0xb0, 0x90_0000_0000n);
    bare.w32(0x50, 4);
    bare.events();
    bare.access(0n);
    expect(bare.r32(0x60)).toBe(0x21); // CMDQ_ERR and MSI_EVENTQ_ABT_ERR
    bare.w32(0x50, 0);
    bare.events();
    bare.interrupts.length = 0;
    bare.access(0n);
    expect(bare.interrupts).toEqual([]);
  });
});

describe('event queue', () => {
  test('overflow toggles OVFLG once, until it is acknowledged', () => {
    const bare = new Bare().enable({ evtq: 1 });
    for (let i = 0; i < 5; i++) bare.access(BigInt(i), READ, i);
    expect(bare.r32(0x100a8)).toBe(0x8000_0002);
    expect(bare.r32(0x60)).toBe(0);
    expect(bare.unit.stats.faults).toBe(5);
    bare.w32(0x100ac, 1); // one consumed, overflow not acknowledged
    bare.access(0n, READ, 9);
    expect(bare.r32(0x100a8)).toBe(0x8000_0003);
    bare.access(0n, READ, 9);
    expect(bare.r32(0x100a8)).toBe(0x8000_0003);
    expect(bare.events().map((e) => e[0])).toEqual([0x1_0000_0004n, 0x9_0000_0004n]);
    bare.access(0n);
    bare.access(0n);
    bare.access(0n);
    expect(bare.r32(0x100a8)).toBe(1); // toggled back
  });

  test('disabled: discarded, no overflow', () => {
    const bare = new Bare().enable();
    bare.w32(0x20, 9);
    bare.access(0n);
    expect(bare.r32(0x100a8)).toBe(0);
  });

  test('a record that cannot be written: EVENTQ_ABT_ERR', () => {
    const bare = new Bare().enable();
    bare.w32(0x20, 9);
    bare.w64(0xa0, 0x90_0000_0004n);
    bare.w32(0x20, 0xd);
    bare.access(0n);
    expect([bare.r32(0x60), bare.r32(0x100a8)]).toEqual([4, 0]);
    bare.w32(0x20, 9);
    bare.w64(0xa0, 0x21_0004n);
    bare.w32(0x20, 0xd);
    bare.access(0n); // not writable while the error is not acknowledged
    expect(bare.r32(0x100a8)).toBe(0);
    bare.w32(0x64, 4);
    bare.access(0n);
    expect(bare.r32(0x100a8)).toBe(1);
  });
});

test('guarded registers are read-only while in use', () => {
  const bare = new Bare().enable();
  const before = [0x80, 0x84, 0x88, 0x90, 0xa0, 0x2c, 0x28, 0x9c, 0x100a8].map((offset) => bare.r32(offset));
  for (const offset of [0x80, 0x84, 0x88, 0x90, 0xa0, 0x2c, 0x28, 0x9c, 0x100a8]) bare.w32(offset, 0x1234_5678);
  expect([0x80, 0x84, 0x88, 0x90, 0xa0, 0x2c, 0x28, 0x9c, 0x100a8].map((offset) => bare.r32(offset))).toEqual(before);
  for (const offset of [0, 4, 0xc, 0x14, 0x1c, 0x24, 0x54, 0x60]) {
    const value = bare.r32(offset);
    bare.w32(offset, ~value);
    expect(bare.r32(offset)).toBe(value);
  }
  bare.w32(0x20, 0xc);
  bare.w32(0x28, 0xffff_ffff | 0);
  expect(bare.r32(0x28)).toBe(0xfc0); // the queues are on, the tables are free
  bare.w32(0x20, 0);
  expect(bare.r32(0x24)).toBe(0);
  bare.w32(0x28, 0xffff_ffff | 0);
  expect(bare.r32(0x28)).toBe(0xfff);
  bare.w64(0x80, 0xffff_ffff_ffff_ffffn);
  expect(bare.unit.registers.get64(0x80)).toBe(0x400f_ffff_ffff_ffc0n);
  bare.unit.reset();
  expect([bare.r32(0x80), bare.r32(0x28), bare.r32(0x44), bare.r32(0)]).toEqual([0, 0, 0x1000, FULL.IDR0]);
});

describe.each(['unbounded', 'retain'] as const)('invalidation scopes, %s', (mode) => {
  /**
   * Seven cached translations of different tags: stage 1 (VMID 7, ASIDs 3 and 4; VMID 8, ASID 3), stage 2 (VMIDs 7 and 8),
   * nested (VMID 7, ASID 3), EL2. All have pages 0 and 1; a scope is told by which still answer when the tables are gone.
   */
  const NAMES = ['s1:7/3', 's1:7/4', 's1:8/3', 's2:7', 's2:8', 'n:7/3', 'el2'] as const;
  const filled = (global = false): Bare => {
    const bare = new Bare(FULL, { mode }).enable();
    const leaf = global ? 0x443n : 0xc43n;
    bare.stage1();
    bare.page(0, RAM, leaf);
    bare.page(1, RAM, leaf);
    const vmid = (n: bigint): bigint[] => [0n, 0n, n];
    bare.put(CD, [cd0(3), TABLES]);
    bare.put(CD + 64n, [cd0(4), TABLES]);
    bare.stream(1, ste(5, [CD, ...vmid(7n).slice(1)]));
    bare.stream(2, ste(5, [CD + 64n, ...vmid(7n).slice(1)]));
    bare.stream(3, ste(5, [CD, ...vmid(8n).slice(1)]));
    // Stage 2 tables that map everything one to one: 1 GiB blocks.
    bare.put(TABLES2, [0x7fdn, 0x4000_07fdn]);
    bare.stream(4, ste(6, [0n, 0n, s2(25, 1, 0, 7), TABLES2]));
    bare.stream(5, ste(6, [0n, 0n, s2(25, 1, 0, 8), TABLES2]));
    bare.stream(6, ste(7, [CD, 0n, s2(25, 1, 0, 7), TABLES2]));
    bare.stream(7, ste(5, [CD, 2n << 30n]));
    for (let sid = 1; sid <= 7; sid++) {
      expect(bare.access(0n, WRITE, sid), `stream ${sid}`).toBe(0);
      expect(bare.access(0x1000n, WRITE, sid)).toBe(0);
    }
    bare.put(TABLES, [0n]);
    // The adversarial device remembers the way to the last level.
    bare.put(TABLES + 0x3000n, [0n, 0n]);
    bare.put(TABLES2, [0n, 0n]);
    return bare;
  };
  /** A command that has taken effect. */
  const carryOut = (bare: Bare, ...words: readonly [number, number?, number?, number?]): void => {
    bare.command(...words);
    bare.command(SYNC);
    bare.r32(0x9c);
  };
  const gone = (bare: Bare, iova: bigint): string[] => NAMES.filter((_, i) => bare.access(iova, READ, i + 1) !== 0);

  const vmid = (v: number, asid = 0): number => (asid << 16) | v | 0;
  test.each([
    ['NH_ALL', [0x10, vmid(7)], ['s1:7/3', 's1:7/4', 'n:7/3'], ['s1:7/3', 's1:7/4', 'n:7/3']],
    ['NH_ASID', [0x11, vmid(7, 3)], ['s1:7/3', 'n:7/3'], ['s1:7/3', 'n:7/3']],
    ['NH_VA', [0x12, vmid(7, 3), 0x1000], [], ['s1:7/3', 'n:7/3']],
    ['NH_VA leaf', [0x12, vmid(8, 3), 0x0001], ['s1:8/3'], []],
    ['NH_VAA', [0x13, vmid(7), 0x1000], [], ['s1:7/3', 's1:7/4', 'n:7/3']],
    ['EL2_ALL', [0x20], ['el2'], ['el2']],
    ['EL2_VA', [0x22, 0, 0x1000], [], ['el2']],
    ['EL2_VAA', [0x23, 0, 0], ['el2'], []],
    ['EL2_ASID without E2H', [0x21, vmid(0, 3)], [], []],
    ['S12_VMALL', [0x28, 7], ['s1:7/3', 's1:7/4', 's2:7', 'n:7/3'], ['s1:7/3', 's1:7/4', 's2:7', 'n:7/3']],
    ['NSNH_ALL', [0x30], NAMES.slice(0, 6), NAMES.slice(0, 6)],
    ['range of two', [0x12 | (1 << 12), vmid(7, 4), 1 << 10], ['s1:7/4'], ['s1:7/4']],
    ['range, SCALE 1', [0x12 | (1 << 20), vmid(7, 4), 1 << 10], ['s1:7/4'], ['s1:7/4']],
    ['range of one with TTL', [0x12, vmid(7, 4), (1 << 10) | (3 << 8)], ['s1:7/4'], []],
    ['16K granule', [0x12, vmid(7, 4), (2 << 10) | (3 << 8)], ['s1:7/4'], ['s1:7/4']],
    ['beside it', [0x12 | (3 << 12), vmid(7, 4), 0x2000 | (1 << 10)], [], []],
  ] as const)('TLBI_%s', (_, words, first, second) => {
    const bare = filled();
    carryOut(bare, words[0], words[1] ?? 0, words[2] ?? 0);
    expect(bare.r32(0x60), 'no command error').toBe(0);
    // 1 GiB blocks: both pages of a stage 2 entry go together.
    expect(gone(bare, 0n)).toEqual(first);
    expect(gone(bare, 0x1000n)).toEqual(second);
  });

  test('S2_IPA takes stage 2 entries, not combined ones', () => {
    const bare = filled();
    carryOut(bare, 0x2a, 7, 0x1000_0000);
    expect(gone(bare, 0n)).toEqual(['s2:7']); // the block around the address
    carryOut(bare, 0x2a, 8, 0x4000_0000);
    expect(gone(bare, 0n)).toEqual(['s2:7']);
  });

  test('global entries: not by ASID, but by address under any ASID', () => {
    const bare = filled(true);
    carryOut(bare, 0x11, vmid(7, 3));
    expect(gone(bare, 0n)).toEqual([]);
    carryOut(bare, 0x12, vmid(7, 9), 0x1000);
    expect(gone(bare, 0n)).toEqual([]);
    expect(gone(bare, 0x1000n)).toEqual(['s1:7/3', 's1:7/4', 'n:7/3']);
    carryOut(bare, 0x10, vmid(8));
    expect(gone(bare, 0n)).toEqual(['s1:8/3']);
  });

  test('EL2-E2H: entries have an ASID', () => {
    const bare = new Bare(FULL, { mode }).enable({ cr2: 3 });
    bare.stage1();
    bare.stream(1, ste(5, [CD, 2n << 30n]));
    bare.page(0, RAM);
    expect(bare.access(0n)).toBe(0);
    bare.put(TABLES, [0n]);
    bare.put(TABLES + 0x3000n, [0n]);
    carryOut(bare, 0x21, vmid(0, 4));
    carryOut(bare, 0x22, vmid(0, 4), 0);
    expect(bare.access(0n)).toBe(0);
    carryOut(bare, 0x22, vmid(0, 3), 0);
    expect(bare.access(0n)).toBe(0x10);
  });

  test('without RIL the range fields mean nothing', () => {
    const bare = new Bare({ ...FULL, IDR3: 0 }, { mode }).enable();
    bare.stage1();
    bare.page(0, RAM);
    bare.page(1, RAM);
    bare.access(0n);
    bare.access(0x1000n);
    bare.put(TABLES, [0n]);
    bare.put(TABLES + 0x3000n, [0n, 0n]);
    carryOut(bare, 0x12 | (1 << 12), vmid(0, 3), 1 << 10);
    expect(bare.r32(0x60)).toBe(0);
    expect([bare.access(0n), bare.access(0x1000n)]).toEqual([0x10, 0]);
  });

  test('the whole address space in one range, and one that runs over the top', () => {
    const bare = filled();
    carryOut(bare, 0x12 | (31 << 12) | (31 << 20), vmid(7, 3), 1 << 10);
    expect(gone(bare, 0n)).toEqual(['s1:7/3', 'n:7/3']);
    const upper = filled();
    carryOut(upper, 0x12 | (31 << 12) | (31 << 20), vmid(7, 3), 1 << 10, 0xffff_0000 | 0);
    expect(gone(upper, 0n)).toEqual([]);
  });
});
