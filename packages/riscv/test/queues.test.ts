/** Command queue, fault queue, interrupts, register semantics and debug requests, programmed by hand. */
import { ACCESS } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { RiscvIommuHardware } from '../src/hardware/unit.ts';
import { BareMetal, CAPABILITIES, CQ, DDT, FQ, R, RWXUAD, U, V, A, ppn } from './bare-metal.ts';

const [CQB, CQH, CQT, FQB, FQH, FQT] = [24, 32, 36, 40, 48, 52];
const [CQCSR, FQCSR, PQCSR, IPSR, ICVEC, MSI] = [72, 76, 80, 84, 760, 768];
const SV39 = 8n << 60n;

const make = (options: object) => () => new RiscvIommuHardware(new BareMetal().memory, options);

const iofence = (address: bigint, data: bigint): [bigint, bigint] => [2n | (1n << 10n) | (data << 32n), address >> 2n];

describe('registers', () => {
  test('reset values and read-only registers', () => {
    const bare = new BareMetal();
    const before = [...Array(256).keys()].map((i) => bare.read64(i * 8));
    expect(before[0]).toBe(CAPABILITIES);
    expect(before.slice(1).every((value) => value === 0n)).toBe(true);
    for (const offset of [0, CQH, FQT, 616]) {
      bare.write32(offset, -1);
      bare.write64(offset & ~7, offset === 0 ? ~0n & 0xffff_ffff_ffff_ffffn : 0n);
    }
    expect(bare.read64(0)).toBe(CAPABILITIES);
    expect([bare.read32(CQH), bare.read32(FQT), bare.read64(616)]).toEqual([0, 0, 0n]);
  });

  test('registers of absent capabilities read as zero and ignore writes', () => {
    const bare = new BareMetal({ capabilities: 0x38_1000_0e10n });
    // No ATS, HPM, DBG; IGS = WSI: no page-request queue, counters, debug interface, MSI table.
    for (const offset of [56, 64, PQCSR, 88, 92, 96, 104, 352, 600, 608, MSI, MSI + 8, MSI + 12]) {
      bare.write32(offset, -1);
      expect(bare.read32(offset), `${offset}`).toBe(0);
    }
    // fctl.WSI is 1 and stays 1.
    bare.write32(8, 0);
    expect(bare.read32(8)).toBe(2);
  });

  test('fctl.WSI where both kinds of interrupt are there', () => {
    const bare = new BareMetal({ capabilities: CAPABILITIES | (2n << 28n) });
    bare.write32(8, 0xffff_ffff | 0);
    expect(bare.read32(8)).toBe(2);
    bare.write32(8, 0);
    expect(bare.read32(8)).toBe(0);
    // Not while the IOMMU is on.
    bare.enable();
    bare.write32(8, 2);
    expect(bare.read32(8)).toBe(0);
  });

  test('ddtp', () => {
    const bare = new BareMetal({ maxIommuMode: 3 });
    bare.write64(16, 0xffff_ffff_ffff_fff0n);
    // busy and reserved bits stay 0.
    expect(bare.read64(16)).toBe(0x003f_ffff_ffff_fc00n);
    for (const mode of [4n, 5n, 9n, 15n]) {
      bare.write64(16, ppn(DDT) | mode);
      expect(bare.read64(16)).toBe(0x003f_ffff_ffff_fc00n);
    }
    bare.write64(16, ppn(DDT) | 3n);
    expect(bare.read64(16)).toBe(ppn(DDT) | 3n);
    // From one depth to another only through Off or Bare.
    bare.write64(16, ppn(DDT) | 2n);
    expect(bare.read64(16)).toBe(ppn(DDT) | 3n);
    bare.write64(16, 1n);
    bare.write64(16, ppn(DDT) | 2n);
    expect(bare.read64(16)).toBe(ppn(DDT) | 2n);
    // In halves, high first.
    bare.write64(16, 0n);
    bare.write32(20, 0x12_3456);
    bare.write32(16, 0x4802);
    expect(bare.read64(16)).toBe(0x12_3456_0000_4802n);
  });

  test('queue bases: WARL size, ignored while the queue is on, index bits follow', () => {
    const bare = new BareMetal({ queueLog2szMax: 7 });
    for (const [base, csr, index] of [
      [CQB, CQCSR, CQT],
      [FQB, FQCSR, FQH],
    ] as const) {
      bare.write64(base, 0xffff_ffff_ffff_ffffn);
      expect(bare.read64(base)).toBe(0x003f_ffff_ffff_fc07n);
      bare.write64(base, ppn(CQ) | 2n);
      bare.write32(index, 0xffff_ffff | 0);
      expect(bare.read32(index)).toBe(7);
      bare.write64(base, ppn(CQ) | 1n);
      expect(bare.read32(index)).toBe(3);
      bare.write32(index, 0);
      bare.write32(csr, 1);
      bare.write64(base, ppn(CQ) | 4n);
      expect(bare.read64(base)).toBe(ppn(CQ) | 1n);
      bare.write32(csr, 0);
      bare.write64(base, ppn(CQ) | 4n);
      expect(bare.read64(base)).toBe(ppn(CQ) | 4n);
    }
  });

  test('reset puts all back', () => {
    const bare = new BareMetal().enable();
    bare.dc(5, {});
    bare.reaches(5, 0x1000n, 0x1000n);
    bare.hardware.reset();
    expect(bare.read64(16)).toBe(0n);
    expect(bare.read32(CQCSR)).toBe(0);
    expect(bare.translate(5, 0x1000n)).toBe(256);
  });

  test('what is not built is refused at construction', () => {
    expect(make({ capabilities: CAPABILITIES | (1n << 27n) })).toThrow(/big-endian/);
    expect(make({ capabilities: CAPABILITIES | (1n << 41n) })).toThrow(/QoS/);
    expect(make({ fctl: 4n })).toThrow(/RV32/);
    expect(make({ capabilities: CAPABILITIES | (3n << 28n) })).toThrow(/reserved/);
    expect(make({ fctl: 2n })).toThrow(/IGS/);
    expect(make({ capabilities: (CAPABILITIES & ~(63n << 32n)) | (60n << 32n) })).toThrow(/PAS/);
    expect(make({ ddtpReset: 2n })).toThrow(/Off nor Bare/);
  });
});

describe('command queue', () => {
  test('enable, disable, IOFENCE.C writes its data, wrap-around', () => {
    const bare = new BareMetal().enable();
    expect(bare.read32(CQCSR)).toBe(0x1_0001);
    for (let i = 0; i < 200; i++) {
      bare.command(...iofence(0x40_0000n + BigInt(i) * 4n, BigInt(i) | 0x8000_0000n));
      expect(bare.read32(CQH)).toBe((i + 1) & 63);
      expect(bare.memory.read(0x40_0000n + BigInt(i) * 4n, 4)).toBe(BigInt(i) | 0x8000_0000n);
    }
    // A whole queue at once: 63 commands, one slot stays free.
    const head = bare.read32(CQH);
    for (let i = 0; i < 63; i++) {
      const at = CQ + BigInt((head + i) & 63) * 16n;
      const [low, high] = iofence(0x50_0000n + BigInt(i) * 4n, 7n);
      bare.memory.writeU64(at, low);
      bare.memory.writeU64(at + 8n, high);
    }
    bare.write32(CQT, (head + 63) & 63);
    expect(bare.read32(CQH)).toBe((head + 63) & 63);
    for (let i = 0n; i < 63n; i++) expect(bare.memory.read(0x50_0000n + i * 4n, 4)).toBe(7n);
    // Off: nothing is fetched; on again: the head starts over.
    bare.write32(CQCSR, 0);
    expect(bare.read32(CQCSR)).toBe(0);
    bare.write32(CQT, 0);
    const { commands } = bare.hardware.stats;
    bare.write32(CQCSR, 1);
    expect(bare.read32(CQH)).toBe(0);
    expect(bare.hardware.stats.commands).toBe(commands);
  });

  const illegal: [string, bigint, bigint][] = [
    ['opcode 0', 0n, 0n],
    ['opcode 5', 5n, 0n],
    ['custom opcode', 0x7fn, 0n],
    ['IOTINVAL func3 2', 1n | (2n << 7n), 0n],
    ['IOTINVAL bit 11', 1n | (1n << 11n), 0n],
    ['IOTINVAL NL without the extension', 1n | (1n << 34n), 0n],
    ['IOTINVAL bit 35', 1n | (1n << 35n), 0n],
    ['IOTINVAL bit 43', 1n | (1n << 43n), 0n],
    ['IOTINVAL bit 60', 1n | (1n << 60n), 0n],
    ['IOTINVAL bit 64', 1n, 1n],
    ['IOTINVAL S without the extension', 1n, 1n << 9n],
    ['IOTINVAL bit 126', 1n, 1n << 62n],
    ['IOTINVAL.GVMA with PSCV', 1n | (1n << 7n) | (1n << 32n), 0n],
    ['IOFENCE func3 1', 2n | (1n << 7n), 0n],
    ['IOFENCE WSI without wires', 2n | (1n << 11n), 0n],
    ['IOFENCE bit 14', 2n | (1n << 14n), 0n],
    ['IOFENCE bit 31', 2n | (1n << 31n), 0n],
    ['IOFENCE bit 127', 2n, 1n << 63n],
    ['IODIR func3 2', 3n | (2n << 7n), 0n],
    ['IODIR bit 10', 3n | (1n << 10n), 0n],
    ['IODIR bit 32', 3n | (1n << 32n), 0n],
    ['IODIR bit 34', 3n | (1n << 34n), 0n],
    ['IODIR bit 64', 3n, 1n],
    ['IODIR.INVAL_DDT with PID', 3n | (1n << 12n), 0n],
    ['IODIR.INVAL_PDT without DV', 3n | (1n << 7n), 0n],
    ['ATS without the capability', 4n, 0n],
  ];
  test.each(illegal)('illegal: %s', (_, low, high) => {
    const bare = new BareMetal().enable();
    bare.write32(CQCSR, 3);
    bare.command(...iofence(0x40_0000n, 1n));
    bare.command(low, high);
    expect(bare.read32(CQH)).toBe(1);
    expect(bare.read32(CQCSR)).toBe(0x1_0403);
    expect(bare.read32(IPSR)).toBe(1);
    // Stalled: a good command behind it does not run.
    bare.command(...iofence(0x40_0004n, 2n));
    expect(bare.memory.read(0x40_0004n, 4)).toBe(0n);
    // Cleared with the bad command still there: it stops again.
    bare.write32(CQCSR, 0x403);
    expect(bare.read32(CQCSR)).toBe(0x1_0403);
    // Mended: goes on by itself.
    bare.memory.writeU64(CQ + 16n, 2n);
    bare.memory.writeU64(CQ + 24n, 0n);
    bare.write32(CQCSR, 0x403);
    expect(bare.read32(CQCSR)).toBe(0x1_0003);
    expect(bare.read32(CQH)).toBe(3);
    expect(bare.memory.read(0x40_0004n, 4)).toBe(2n);
    // ipsr.cip stays until it is written, then stays clear.
    expect(bare.read32(IPSR)).toBe(1);
    bare.write32(IPSR, 1);
    expect(bare.read32(IPSR)).toBe(0);
  });

  test('memory faults: the queue itself, and the data of a fence', () => {
    const bare = new BareMetal().enable();
    bare.command(...iofence(0x3000_0000n, 1n));
    expect(bare.read32(CQCSR)).toBe(0x1_0101);
    expect(bare.read32(CQH)).toBe(0);
    bare.write32(CQCSR, 0);
    bare.write64(CQB, ppn(0x3000_0000n) | 5n);
    bare.write32(CQT, 1);
    bare.write32(CQCSR, 1);
    expect(bare.read32(CQCSR)).toBe(0x1_0101);
    // Enabling clears the error bits.
    bare.write32(CQCSR, 0);
    bare.write64(CQB, ppn(CQ) | 5n);
    bare.write32(CQT, 0);
    bare.write32(CQCSR, 1);
    expect(bare.read32(CQCSR)).toBe(0x1_0001);
  });

  test('IOFENCE.C with WSI, where interrupts are wires', () => {
    const bare = new BareMetal({ capabilities: CAPABILITIES | (1n << 28n) }).enable();
    const sources: string[] = [];
    bare.hardware.onInterrupt = (source) => sources.push(source);
    bare.write32(CQCSR, 3);
    bare.command(2n | (1n << 11n));
    expect(bare.read32(CQCSR)).toBe(0x1_0803);
    expect(bare.read32(IPSR)).toBe(1);
    expect(sources).toEqual(['cmdq']);
    // The condition stands: clearing ipsr alone sets it again.
    bare.write32(IPSR, 1);
    expect(bare.read32(IPSR)).toBe(1);
    expect(sources).toEqual(['cmdq', 'cmdq']);
    bare.write32(CQCSR, 0x803);
    bare.write32(IPSR, 1);
    expect(bare.read32(IPSR)).toBe(0);
  });

  test('ATS messages are handed out', () => {
    const bare = new BareMetal({ capabilities: CAPABILITIES | (1n << 25n) }).enable();
    const kinds: string[] = [];
    bare.hardware.onAtsMessage = ({ kind }) => kinds.push(kind);
    bare.command(4n | (0x18n << 40n), 0x1000n);
    bare.command(4n | (1n << 7n), 0n);
    expect(kinds).toEqual(['INVAL', 'PRGR']);
    bare.command(4n | (1n << 10n));
    expect(bare.read32(CQCSR)).toBe(0x1_0401);
  });
});

/** Two address spaces with a page at 0x1000 and one at 0x2000 each, cached. */
const setUp = () => {
  const bare = new BareMetal().enable();
  const entries: bigint[][] = [];
  for (const [did, pscid] of [
    [1, 0x11n],
    [2, 0x22n],
  ] as const) {
    const root = bare.page();
    bare.dc(did, { ta: pscid << 12n, fsc: SV39 | (root >> 12n) });
    entries.push([0x1000n, 0x2000n].map((va) => bare.map(root, 3, va, ppn(0x40_0000n + va) | RWXUAD)));
  }
  const cached = (did: number, va: bigint): boolean => bare.translate(did, va) === 0;
  for (const did of [1, 2]) for (const va of [0x1000n, 0x2000n]) expect(cached(did, va)).toBe(true);
  for (const pair of entries) for (const entry of pair) bare.memory.writeU64(entry, 0n);
  const state = (): boolean[] => [cached(1, 0x1000n), cached(1, 0x2000n), cached(2, 0x1000n), cached(2, 0x2000n)];
  expect(state()).toEqual([true, true, true, true]);
  return { bare, state };
};

describe('invalidation reaches what it names', () => {
  const AV = 1n << 10n;
  const PSCV = 1n << 32n;
  const GV = 1n << 33n;
  const cases: [string, bigint, bigint, boolean[]][] = [
    ['all', 1n, 0n, [false, false, false, false]],
    ['PSCID', 1n | PSCV | (0x11n << 12n), 0n, [false, false, true, true]],
    ['PSCID and address', 1n | PSCV | AV | (0x22n << 12n), 2n << 10n, [true, true, true, false]],
    ['address', 1n | AV, 1n << 10n, [false, true, false, true]],
    ['a GSCID: host address spaces stay', 1n | GV, 0n, [true, true, true, true]],
    ['GVMA: host address spaces stay', 1n | (1n << 7n), 0n, [true, true, true, true]],
    ['PSCID that is not valid is ignored', 1n | (0x11n << 12n), 0n, [false, false, false, false]],
  ];
  test.each(cases)('IOTINVAL %s', (_, low, high, left) => {
    const { bare, state } = setUp();
    bare.command(low, high);
    expect(bare.read32(CQCSR)).toBe(0x1_0001);
    expect(state()).toEqual(left);
  });

  test('the range extension', () => {
    const bare = new BareMetal({ capabilities: CAPABILITIES | (1n << 43n) }).enable();
    const root = bare.page();
    bare.dc(1, { ta: 0x11n << 12n, fsc: SV39 | (root >> 12n) });
    const pages = [...Array(16).keys()].map((i) => BigInt(i) * 0x1000n);
    const entries = pages.map((va) => bare.map(root, 3, va, ppn(0x40_0000n + va) | RWXUAD));
    for (const va of pages) bare.reaches(1, va, 0x40_0000n + va);
    for (const entry of entries) bare.memory.writeU64(entry, 0n);
    // ...0101 in the page number: one 1 from the bottom is a range of four pages, 4 … 7.
    bare.command(1n | PSCV | AV | (0x11n << 12n), (1n << 9n) | (0b0101n << 10n));
    for (const va of pages) {
      const hit = bare.translate(1, va) === 0;
      expect(hit, `0x${va.toString(16)}`).toBe(va < 0x4000n || va >= 0x8000n);
    }
  });

  test('device contexts are kept until IODIR', () => {
    const bare = new BareMetal().enable();
    bare.dc(1, {});
    bare.dc(2, {});
    bare.reaches(1, 0x1000n, 0x1000n);
    bare.reaches(2, 0x1000n, 0x1000n);
    bare.dc(1, { tc: 0n });
    bare.dc(2, { tc: 0n });
    bare.command(3n | (1n << 33n) | (2n << 40n));
    bare.reaches(1, 0x1000n, 0x1000n);
    bare.faults(2, 0x1000n, 258);
    bare.command(3n);
    bare.faults(1, 0x1000n, 258);
    // Without an IOTLB nothing is kept.
    const cold = new BareMetal({}, { mode: 'none' }).enable();
    cold.dc(1, {});
    cold.reaches(1, 0x1000n, 0x1000n);
    cold.dc(1, { tc: 0n });
    cold.faults(1, 0x1000n, 258);
  });
});

describe('fault queue', () => {
  test('overflow: recorded once, records dropped until cleared', () => {
    const bare = new BareMetal().enable();
    bare.write32(FQCSR, 3);
    bare.write32(IPSR, 2);
    for (let i = 0; i < 31; i++) expect(bare.translate(i, 0n)).toBe(258);
    expect(bare.read32(FQT)).toBe(31);
    expect(bare.read32(FQCSR)).toBe(0x1_0003);
    bare.translate(40, 0n);
    expect(bare.read32(FQT)).toBe(31);
    expect(bare.read32(FQCSR)).toBe(0x1_0203);
    expect(bare.hardware.stats.faults).toBe(32);
    // Room alone does not help.
    bare.write32(FQH, 10);
    bare.translate(41, 0n);
    expect(bare.read32(FQT)).toBe(31);
    bare.write32(FQCSR, 0x203);
    expect(bare.read32(FQCSR)).toBe(0x1_0003);
    bare.translate(42, 0n);
    expect(bare.read32(FQT)).toBe(0);
    expect(bare.memory.readU64(FQ + 31n * 32n) >> 40n).toBe(42n);
  });

  test('memory fault', () => {
    const bare = new BareMetal().enable();
    bare.write32(FQCSR, 0);
    bare.write64(FQB, ppn(0x3000_0000n) | 4n);
    bare.write32(FQCSR, 3);
    bare.translate(1, 0n);
    expect(bare.read32(FQT)).toBe(0);
    expect(bare.read32(FQCSR)).toBe(0x1_0103);
    expect(bare.read32(IPSR)).toBe(2);
    // Off and on again: clean.
    bare.write32(FQCSR, 0);
    bare.write64(FQB, ppn(FQ) | 4n);
    bare.write32(FQCSR, 1);
    expect(bare.read32(FQCSR)).toBe(0x1_0001);
    bare.faults(1, 0n, 258);
  });

  test('no interrupt where none is enabled', () => {
    const bare = new BareMetal().enable();
    for (let i = 0; i < 40; i++) bare.translate(1, 0n);
    expect(bare.read32(FQCSR)).toBe(0x1_0201);
    expect(bare.read32(IPSR)).toBe(0);
    // Enabled while the overflow stands.
    bare.write32(FQCSR, 3);
    expect(bare.read32(IPSR)).toBe(2);
  });

  test('off: nothing is written', () => {
    const bare = new BareMetal().enable();
    bare.write32(FQCSR, 0);
    bare.translate(1, 0n);
    expect(bare.memory.readU64(FQ)).toBe(0n);
    expect(bare.read32(FQT)).toBe(0);
    expect(bare.read32(FQCSR)).toBe(0);
  });
});

describe('interrupts', () => {
  test('messages: on the edge, by vector, masked and pending', () => {
    const bare = new BareMetal().enable();
    // fiv = 3; its message goes to 0x40_0000.
    bare.write64(ICVEC, 0xffff_ffff_ffff_0030n);
    expect(bare.read64(ICVEC)).toBe(0x30n);
    bare.write64(MSI + 48, 0xffff_0000_0040_0003n);
    expect(bare.read64(MSI + 48)).toBe(0x00ff_0000_0040_0000n);
    bare.write64(MSI + 48, 0x40_0000n);
    bare.write32(MSI + 56, 0xabcd);
    bare.write32(FQCSR, 3);
    const message = (): bigint => {
      const value = bare.memory.read(0x40_0000n, 4);
      bare.memory.write(0x40_0000n, 4, 0n);
      return value;
    };
    bare.translate(1, 0n);
    expect(message()).toBe(0xabcdn);
    // ipsr.fip is set still: no edge.
    bare.translate(1, 0n);
    expect(message()).toBe(0n);
    bare.write32(IPSR, 2);
    bare.translate(1, 0n);
    expect(message()).toBe(0xabcdn);
    // Masked: sent when the mask goes.
    bare.write32(MSI + 60, 0xffff_ffff | 0);
    expect(bare.read32(MSI + 60)).toBe(1);
    bare.write32(IPSR, 2);
    bare.translate(1, 0n);
    expect(message()).toBe(0n);
    bare.write32(MSI + 60, 0);
    expect(message()).toBe(0xabcdn);
    bare.write32(MSI + 60, 1);
    bare.write32(MSI + 60, 0);
    expect(message()).toBe(0n);
  });

  test('a message that nothing takes is cause 273', () => {
    const bare = new BareMetal().enable();
    bare.write64(MSI, 0x3000_0040n);
    bare.write32(FQCSR, 3);
    bare.translate(1, 0x5000n);
    expect(bare.read32(FQT)).toBe(2);
    expect([0n, 8n, 16n, 24n].map((o) => bare.memory.readU64(FQ + 32n + o))).toEqual([273n, 0n, 0x3000_0040n, 0n]);
  });

  test('enabling an interrupt whose condition stands', () => {
    const bare = new BareMetal().enable();
    bare.command(0n);
    expect(bare.read32(IPSR)).toBe(0);
    bare.write32(CQCSR, 3);
    expect(bare.read32(IPSR)).toBe(1);
  });
});

describe('debug translation requests', () => {
  test('answers, faults, and the access asked for', () => {
    const bare = new BareMetal().enable();
    const root = bare.page();
    bare.dc(5, { fsc: SV39 | (root >> 12n) });
    bare.map(root, 3, 0x1000n, ppn(0x12_3456_7000n) | RWXUAD);
    bare.map(root, 3, 0x2000n, ppn(0x40_0000n) | V | R | U | A);
    const ask = (iova: bigint, flags: bigint): bigint => {
      bare.write64(600, iova);
      bare.write64(608, 1n | flags | (5n << 40n));
      expect(bare.read64(608) & 1n).toBe(0n);
      return bare.read64(616);
    };
    const [Exe, NW] = [4n, 8n];
    expect(ask(0x1fffn, 0n)).toBe(ppn(0x12_3456_7000n));
    expect(ask(0x2000n, NW)).toBe(ppn(0x40_0000n));
    const before = bare.read32(FQT);
    expect(ask(0x2000n, 0n)).toBe(1n);
    expect(bare.read32(FQT)).toBe(before + 1);
    expect(bare.memory.readU64(FQ + BigInt(before) * 32n)).toBe((5n << 40n) | (3n << 34n) | 15n);
    expect(ask(0x2000n, NW | Exe)).toBe(1n);
    expect(ask(0x1000n, NW | Exe)).toBe(ppn(0x12_3456_7000n));
    // A process_id without PDTV.
    expect(ask(0x1000n, NW | (1n << 32n))).toBe(1n);
    expect(bare.read64(600)).toBe(0x1000n);
  });

  test('the address is kept in pages', () => {
    const bare = new BareMetal();
    bare.write64(600, 0xffff_ffff_ffff_ffffn);
    expect(bare.read64(600)).toBe(0xffff_ffff_ffff_f000n);
  });
});

test('a supervisor access through a cached entry of a user page', () => {
  const bare = new BareMetal().enable();
  const pdt = bare.page();
  const root = bare.page();
  bare.dc(5, { tc: V | 32n, fsc: (1n << 60n) | (pdt >> 12n) });
  bare.memory.writeU64(pdt + 16n, V | 2n);
  bare.memory.writeU64(pdt + 24n, SV39 | (root >> 12n));
  bare.map(root, 3, 0x1000n, ppn(0x40_0000n) | RWXUAD);
  bare.reaches(5, 0x1000n, 0x40_0000n, ACCESS.READ, 1);
  bare.faults(5, 0x1000n, 13, ACCESS.READ | ACCESS.PRIV, 1);
});
