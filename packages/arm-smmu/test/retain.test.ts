/**
 * The adversarial SMMU (IOTLB mode `retain`): whatever may be kept is kept, and goes with the command that is defined to drop
 * it, with no other (IHI 0070, 3.17, 4.3, 4.4).
 */
import { LAYER } from '@iommu-ts/iommu-core';
import type { InvalidationEvent } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { Bare, CD, FULL, RAM, READ, STRTAB, TABLES, TABLES2, WRITE, cd0, s2, ste } from './bare.ts';

const CFGI_STE = 0x03;
const CFGI_RANGE = 0x04;
const CFGI_CD = 0x05;
const CFGI_CD_ALL = 0x06;
const NH_ALL = 0x10;
const NH_ASID = 0x11;
const NH_VA = 0x12;
const NH_VAA = 0x13;
const S12_VMALL = 0x28;
const S2_IPA = 0x2a;
const NSNH_ALL = 0x30;
const SYNC = 0x46;
const LEAF = 1;
const ASID3 = 3 << 16;
const OK = 0;
const F_TRANSLATION = 0x10;
const F_PERMISSION = 0x13;

class Adversary extends Bare {
  constructor(ids = FULL) {
    super(ids, { mode: 'retain' });
  }

  /** A command, CMD_SYNC, and the read that waits for it. */
  complete(...words: readonly [number, number?, number?, number?]): void {
    this.command(...words);
    this.command(SYNC);
    this.r32(0x9c);
  }

  /** Address that an access reaches, or the event that it ends in. */
  reach(iova: bigint, access = READ, sid = 1, pasid = -1): string {
    const event = this.access(iova, access, sid, pasid);
    return event === OK ? `0x${this.pa.toString(16)}` : `event ${event}`;
  }
}

/** Stream 1 with stage 1, VA 0x5000 mapped to RAM, and used once. */
const stage1 = (): Adversary => {
  const unit = new Adversary();
  unit.enable();
  unit.stage1();
  unit.page(5, RAM);
  expect(unit.reach(0x5008n)).toBe('0x40000008');
  return unit;
};

describe('when a command takes effect', () => {
  test('accepted by the write of CMDQ_PROD, carried out at the next read of a register, complete with CMD_SYNC', () => {
    const unit = stage1();
    const told: InvalidationEvent[] = [];
    unit.unit.onInvalidate = (event) => told.push(event);
    unit.page(5, RAM + 0x1000n);
    unit.command(NH_VA, ASID3, 0x5000, 0);
    expect(unit.unit.pendingInvalidations).toBe(1);
    expect(unit.unit.registers.words[0x9c / 4]).toBe(0);
    expect(unit.reach(0x5000n)).toBe('0x40000000');
    // Consumed, which is not complete.
    expect(unit.r32(0x9c)).toBe(1);
    expect(unit.unit.pendingInvalidations).toBe(1);
    expect(unit.reach(0x5000n)).toBe('0x40000000');
    expect(told).toEqual([]);
    unit.command(SYNC);
    expect(unit.unit.pendingInvalidations).toBe(1);
    expect(unit.reach(0x5000n)).toBe('0x40000000');
    expect(unit.r32(0x9c)).toBe(2);
    expect(unit.unit.pendingInvalidations).toBe(0);
    expect(unit.reach(0x5000n)).toBe('0x40001000');
    expect(told).toEqual([
      {
        name: 'CMD_TLBI_NH_VA Address=0x5 ASID=0x3',
        layers: LAYER.LEAF | LAYER.TABLE,
        domain: 3,
        requester: -1,
        startPfn: 5,
        lastPfn: 5,
      },
    ]);
  });

  test('any register will do, read in any way', () => {
    for (const read of [
      (unit: Adversary): unknown => unit.r32(0),
      (unit: Adversary): unknown => unit.unit.mmio.read64(0x90),
      (unit: Adversary): unknown => unit.unit.registers.read(0x20, 1),
    ]) {
      const unit = stage1();
      unit.command(NH_ASID, ASID3);
      unit.command(SYNC);
      expect(unit.unit.iotlb.size).toBe(1);
      read(unit);
      expect(unit.unit.iotlb.size).toBe(0);
    }
  });

  test('an illegal command stops the queue as ever, and nothing behind it is carried out', () => {
    const unit = stage1();
    unit.command(0xff);
    unit.command(NH_ASID, ASID3);
    unit.command(SYNC);
    expect(unit.r32(0x9c)).toBe(0x0100_0000);
    expect(unit.unit.iotlb.size).toBe(1);
    expect(unit.unit.pendingInvalidations).toBe(1);
  });

  test('without CMDQEN nothing is pending', () => {
    const unit = stage1();
    unit.command(NH_ASID, ASID3);
    unit.w32(0x20, 5);
    expect(unit.unit.pendingInvalidations).toBe(0);
  });

  test.each(['none', 'sized', 'unbounded'] as const)('%s: at once', (mode) => {
    const unit = new Bare(FULL, { mode }).enable();
    const told: string[] = [];
    unit.unit.onInvalidate = (event) => told.push(event.name);
    unit.command(NH_ASID, ASID3);
    unit.command(SYNC);
    expect(told).toEqual(['CMD_TLBI_NH_ASID ASID=0x3']);
    expect(unit.unit.pendingInvalidations).toBe(0);
    expect(unit.unit.retained).toBe(null);
  });
});

describe('configuration (4.3)', () => {
  test.each([
    ['CMD_CFGI_STE', [CFGI_STE, 1, LEAF], true],
    ['CMD_CFGI_STE without Leaf', [CFGI_STE, 1, 0], true],
    ['CMD_CFGI_ALL', [CFGI_RANGE, 0, 31], true],
    ['a range with the stream', [CFGI_RANGE, 2, 1], true],
    ['a range beside it', [CFGI_RANGE, 4, 1], false],
    ['of another stream', [CFGI_STE, 2, 0], false],
    ['CMD_CFGI_CD', [CFGI_CD, 1, 0], false],
    ['CMD_CFGI_CD_ALL', [CFGI_CD_ALL, 1], false],
    ['CMD_TLBI_NSNH_ALL', [NSNH_ALL], false],
  ] as const)('STE: %s', (_, words, drops) => {
    const unit = new Adversary();
    unit.enable();
    unit.stream(1, ste(4));
    expect(unit.reach(0x5000n)).toBe('0x5000');
    unit.stream(1, ste(0));
    expect(unit.reach(0x5000n)).toBe('0x5000');
    unit.complete(words[0], words[1], words[2]);
    expect(unit.reach(0x5000n)).toBe(drops ? 'event -1' : '0x5000');
  });

  test('an STE that aborts is valid, hence kept; one with V = 0 or an illegal one is not', () => {
    const unit = new Adversary();
    unit.enable();
    expect(unit.reach(0x5000n)).toBe('event 4');
    unit.stream(1, ste(6)); // stage 2 without AArch64 tables
    expect(unit.reach(0x5000n)).toBe('event 4');
    unit.stream(1, ste(0));
    expect(unit.reach(0x5000n)).toBe('event -1');
    unit.stream(1, ste(4));
    expect(unit.reach(0x5000n)).toBe('event -1');
    unit.complete(CFGI_STE, 1, LEAF);
    expect(unit.reach(0x5000n)).toBe('0x5000');
  });

  test.each([
    ['CMD_CFGI_CD', [CFGI_CD, 1, LEAF], true],
    ['CMD_CFGI_CD_ALL', [CFGI_CD_ALL, 1], true],
    ['CMD_CFGI_STE: the CDs go with it', [CFGI_STE, 1, LEAF], true],
    ['of another substream', [CFGI_CD | (1 << 12), 1, 0], false],
    ['of another stream', [CFGI_CD, 2, 0], false],
    ['CMD_TLBI_NSNH_ALL', [NSNH_ALL], false],
  ] as const)('CD: %s', (_, words, drops) => {
    const unit = stage1();
    // Another ASID: what is kept under the first no longer matters.
    unit.put(CD, [cd0(9)]);
    unit.page(5, RAM + 0x1000n);
    expect(unit.reach(0x5000n)).toBe('0x40000000');
    unit.complete(words[0], words[1], words[2]);
    // The translation itself went with CMD_TLBI_NSNH_ALL.
    const kept = words[0] === NSNH_ALL ? '0x40001000' : '0x40000000';
    expect(unit.reach(0x5000n)).toBe(drops ? '0x40001000' : kept);
    expect(unit.unit.iotlb.peek(1, 0, 0x5000)).toBe(drops);
  });

  test('what was dropped and found unchanged is kept again', () => {
    const unit = stage1();
    unit.complete(CFGI_STE, 1, LEAF);
    expect(unit.unit.retained!.structures).toBe(0);
    expect(unit.reach(0x5000n)).toBe('0x40000000');
    expect(unit.unit.retained!.structures).toBe(2);
    unit.complete(CFGI_CD, 1, LEAF);
    expect(unit.unit.retained!.structures).toBe(1);
    expect(unit.reach(0x5000n)).toBe('0x40000000');
    unit.put(CD, [0n]);
    unit.stream(1, ste(0));
    expect(unit.reach(0x5000n)).toBe('0x40000000');
  });

  test('two-level stream table: CMD_CFGI_STE with Leaf leaves the L1STD (4.3.1)', () => {
    const unit = new Adversary();
    unit.enable({ cfg: 16 | (8 << 6) | (1 << 16) });
    const l2 = 0x80_0000n;
    unit.put(STRTAB + 24n, [l2 | 9n]);
    unit.put(l2 + 64n * 5n, ste(4));
    const sid = (3 << 8) + 5;
    expect(unit.reach(0x5000n, READ, sid)).toBe('0x5000');
    unit.put(STRTAB + 24n, [(l2 + 0x4000n) | 9n]);
    unit.complete(CFGI_STE, sid, LEAF);
    unit.put(l2 + 64n * 5n, ste(0));
    expect(unit.reach(0x5000n, READ, sid)).toBe('event -1'); // through the old table
    unit.complete(CFGI_STE, (4 << 8) + 5, 0); // another L1STD
    unit.complete(CFGI_STE, sid, LEAF);
    expect(unit.reach(0x5000n, READ, sid)).toBe('event -1');
    unit.complete(CFGI_STE, sid, 0);
    expect(unit.reach(0x5000n, READ, sid)).toBe('event 4'); // the new table is empty
    // An L1STD without a table is not kept.
    expect(unit.reach(0x5000n, READ, 5)).toBe('event 2');
    unit.put(STRTAB, [l2 | 9n]);
    unit.put(l2 + 64n * 5n, ste(4));
    expect(unit.reach(0x5000n, READ, 5)).toBe('0x5000');
  });

  test('two-level CD table: CMD_CFGI_CD with Leaf leaves the L1CD (4.3.3)', () => {
    const unit = new Adversary();
    unit.enable();
    unit.stage1();
    unit.page(5, RAM);
    const [l1, l2] = [0x90_0000n, 0x91_0000n];
    // S1CDMax 10, S1Fmt 1 (leaves of 64 CDs), S1DSS 0.
    unit.stream(1, ste(5, [l1 | (1n << 4n) | (10n << 59n)]));
    unit.put(l1 + 8n, [l2 | 1n]);
    for (const ssid of [64n, 65n]) unit.put(l2 + 64n * (ssid - 64n), [cd0(3), TABLES]);
    expect(unit.reach(0x5000n, READ, 1, 64)).toBe('0x40000000');
    expect(unit.reach(0x5000n, READ, 1, 65)).toBe('0x40000000');
    unit.put(l1 + 8n, [0n]);
    unit.put(l2, [0n]);
    unit.complete(CFGI_CD | (64 << 12), 1, LEAF);
    expect(unit.reach(0x5000n, READ, 1, 64)).toBe('event 10'); // C_BAD_CD, through the old L1CD
    unit.complete(CFGI_CD | (128 << 12), 1, 0); // the L1CD beside it
    expect(unit.reach(0x5000n, READ, 1, 64)).toBe('event 10');
    unit.complete(CFGI_CD | (64 << 12), 1, 0);
    expect(unit.reach(0x5000n, READ, 1, 64)).toBe('event 8'); // C_BAD_SUBSTREAMID: no L1CD
    expect(unit.reach(0x5000n, READ, 1, 65)).toBe('0x40000000'); // its CD is its own
    unit.complete(CFGI_CD_ALL, 1);
    expect(unit.reach(0x5000n, READ, 1, 65)).toBe('event 8');
  });

  test('neither SMMUEN nor another table drops what is cached (3.11)', () => {
    const unit = stage1();
    const kept = unit.unit.retained!.structures;
    expect(kept).toBe(2);
    unit.w32(0x20, 0);
    unit.r32(0x20);
    unit.enable({ strtab: 0xa0_0000n });
    expect(unit.unit.retained!.structures).toBe(kept);
    unit.page(5, RAM + 0x1000n);
    expect(unit.reach(0x5000n)).toBe('0x40000000');
    unit.complete(CFGI_RANGE, 0, 31);
    expect(unit.reach(0x5000n)).toBe('event 4');
    unit.unit.reset();
    expect(unit.unit.retained).toEqual({ structures: 0, tables: 0 });
  });

  test('every stream is kept', () => {
    const unit = new Adversary();
    unit.enable({ cfg: 10 });
    for (let sid = 0; sid < 1000; sid++) unit.stream(sid, ste(4));
    for (let sid = 0; sid < 1000; sid++) expect(unit.access(0x1000n, READ, sid)).toBe(OK);
    unit.put(STRTAB, Array.from<bigint>({ length: 8000 }).fill(0n));
    for (let sid = 0; sid < 1000; sid++) expect(unit.access(0x1000n, READ, sid)).toBe(OK);
  });
});

describe('stage 1 translations (4.4.2)', () => {
  test.each([
    ['CMD_TLBI_NH_VA, Leaf', [NH_VA, ASID3, 0x5000 | LEAF], true],
    ['CMD_TLBI_NH_VA', [NH_VA, ASID3, 0x5000], true],
    ['the page beside it', [NH_VA, ASID3, 0x6000], false],
    ['another ASID', [NH_VA, 4 << 16, 0x5000], false],
    ['another VMID', [NH_VA, ASID3 | 1, 0x5000], false],
    ['CMD_TLBI_NH_VAA', [NH_VAA, 4 << 16, 0x5000], true],
    ['CMD_TLBI_NH_ASID', [NH_ASID, ASID3], true],
    ['CMD_TLBI_NH_ASID, another', [NH_ASID, 4 << 16], false],
    ['CMD_TLBI_NH_ALL', [NH_ALL], true],
    ['CMD_TLBI_NH_ALL, another VMID', [NH_ALL, 1], false],
    ['CMD_TLBI_S12_VMALL', [S12_VMALL], true],
    ['CMD_TLBI_S12_VMALL, another VMID', [S12_VMALL, 1], false],
    ['CMD_TLBI_S2_IPA', [S2_IPA, 0, 0x5000], false],
    ['CMD_TLBI_NSNH_ALL', [NSNH_ALL], true],
    ['CMD_TLBI_EL2_ALL', [0x20], false],
    ['CMD_CFGI_ALL', [CFGI_RANGE, 0, 31], false],
    ['a range with it: 4 pages of 4 KiB', [NH_VA | (3 << 12), ASID3, 0x4000 | (1 << 10)], true],
    ['a range before it', [NH_VA | (3 << 12), ASID3, 0x1000 | (1 << 10)], false],
    ['TTL 3: its level', [NH_VA, ASID3, 0x5000 | (1 << 10) | (3 << 8)], true],
    ['TTL 2: not its level', [NH_VA, ASID3, 0x5000 | (1 << 10) | (2 << 8)], false],
  ] as const)('leaf: %s', (_, words, drops) => {
    const unit = stage1();
    unit.page(5, RAM + 0x1000n);
    unit.complete(words[0], words[1], words[2]);
    expect(unit.reach(0x5000n)).toBe(drops ? '0x40001000' : '0x40000000');
  });

  test('nothing that faults is kept: not the absence of a page, of a table, or of the Access flag', () => {
    const unit = stage1();
    expect(unit.reach(0x6000n)).toBe(`event ${F_TRANSLATION}`);
    unit.page(6, RAM, 0x843n); // AF = 0
    expect(unit.reach(0x6000n)).toBe('event 18');
    unit.page(6, RAM);
    expect(unit.reach(0x6000n)).toBe('0x40000000');
    expect(unit.reach(0x4000_0000n)).toBe(`event ${F_TRANSLATION}`);
    unit.memory.writeU64(TABLES + 0x1008n, RAM | 0xc41n);
    expect(unit.reach(0x4000_0000n)).toBe('0x40000000');
  });

  test('a cached entry that forbids the access ends in F_PERMISSION, whatever the table says by now', () => {
    const unit = new Adversary();
    unit.enable();
    unit.stage1();
    unit.page(5, RAM, 0xcc3n); // read-only
    expect(unit.reach(0x5000n)).toBe('0x40000000');
    unit.page(5, RAM);
    expect(unit.reach(0x5000n, WRITE)).toBe(`event ${F_PERMISSION}`);
    const [event] = unit.events();
    // CLASS = IN, S2 = 0, RnW = 0, InputAddr.
    expect(event).toEqual([(1n << 32n) | 0x13n, 2n << 40n, 0x5000n, 0n]);
    expect(unit.unit.stats.faults).toBe(1);
    unit.complete(NH_VA, ASID3, 0x5000 | LEAF);
    expect(unit.reach(0x5000n, WRITE)).toBe('0x40000000');
  });

  test.each([
    ['CMD_TLBI_NH_VA', [NH_VA, ASID3, 0x5000], true],
    ['of another page below the same table', [NH_VA, ASID3, 0x9000], true],
    ['CMD_TLBI_NH_VA, Leaf', [NH_VA, ASID3, 0x5000 | LEAF], false],
    ['CMD_TLBI_NH_VAA, Leaf', [NH_VAA, 0, 0x5000 | LEAF], false],
    ['of a page below another table', [NH_VA, ASID3, 0x20_0000], false],
    ['another ASID', [NH_VA, 4 << 16, 0x5000], false],
    ['CMD_TLBI_NH_ASID', [NH_ASID, ASID3], true],
    ['CMD_TLBI_NH_ASID, another', [NH_ASID, 4 << 16], false],
    ['CMD_TLBI_NSNH_ALL', [NSNH_ALL], true],
    ['CMD_CFGI_ALL', [CFGI_RANGE, 0, 31], false],
  ] as const)('table: %s', (_, words, drops) => {
    const unit = stage1();
    expect(unit.unit.retained!.tables).toBe(3);
    // The last table is replaced by one that maps elsewhere; page 6 was never used.
    unit.page(6, RAM);
    unit.memory.writeU64(TABLES + 0x2000n, (TABLES + 0x9000n) | 3n);
    unit.memory.writeU64(TABLES + 0x9000n + 48n, (RAM + 0x2000n) | 0xc43n);
    unit.complete(words[0], words[1], words[2]);
    expect(unit.reach(0x6000n)).toBe(drops ? '0x40002000' : '0x40000000');
  });

  test('what table descriptors take away is kept with the table', () => {
    const unit = new Adversary();
    unit.enable();
    unit.stage1();
    unit.memory.writeU64(TABLES + 0x1000n, (TABLES + 0x2000n) | 3n | (1n << 62n)); // APTable: read-only
    unit.page(5, RAM);
    unit.page(6, RAM);
    expect(unit.reach(0x5000n)).toBe('0x40000000');
    unit.memory.writeU64(TABLES + 0x1000n, (TABLES + 0x2000n) | 3n);
    expect(unit.reach(0x6000n, WRITE)).toBe(`event ${F_PERMISSION}`);
    unit.complete(NH_VA, ASID3, 0x6000 | LEAF);
    expect(unit.reach(0x6000n, WRITE)).toBe(`event ${F_PERMISSION}`);
    unit.complete(NH_VA, ASID3, 0x6000);
    expect(unit.reach(0x6000n, WRITE)).toBe('0x40000000');
  });

  test('global entries: not with CMD_TLBI_NH_ASID, with any ASID by address', () => {
    const unit = new Adversary();
    unit.enable();
    unit.stage1();
    unit.page(5, RAM, 0x443n); // nG = 0
    expect(unit.reach(0x5000n)).toBe('0x40000000');
    unit.page(5, RAM + 0x1000n, 0x443n);
    unit.complete(NH_ASID, ASID3);
    expect(unit.reach(0x5000n)).toBe('0x40000000');
    unit.complete(NH_VA, 9 << 16, 0x5000);
    expect(unit.reach(0x5000n)).toBe('0x40001000');
  });

  test('a global entry answers under every ASID of its VMID, others under their own (3.17)', () => {
    for (const [attributes, vmid, reached] of [
      [0x443n, 0n, '0x40000000'],
      [0xc43n, 0n, '0x40001000'],
      [0x443n, 5n, '0x40001000'],
    ] as const) {
      const unit = new Adversary();
      unit.enable();
      unit.stage1();
      unit.page(5, RAM, attributes);
      expect(unit.reach(0x5000n)).toBe('0x40000000');
      // Stream 2: ASID 4, and a table of its own.
      unit.stream(2, ste(5, [CD + 0x1000n, 0n, vmid]));
      unit.put(CD + 0x1000n, [cd0(4), TABLES + 0x8000n]);
      for (let level = 0n; level < 3n; level++)
        unit.memory.writeU64(TABLES + 0x8000n + 0x1000n * level, (TABLES + 0x9000n + 0x1000n * level) | 3n);
      unit.memory.writeU64(TABLES + 0xb000n + 40n, (RAM + 0x1000n) | 0xc43n);
      for (const layers of [0, LAYER.TABLE | LAYER.CONTEXT]) {
        expect(unit.unit.probe(2, -1, 0, 0x5000, READ, layers)).toBe(OK);
        expect(unit.unit.outLo).toBe(Number(RAM) + 0x1000);
      }
      expect(unit.unit.probe(2, -1, 0, 0x5000, READ, LAYER.ALL)).toBe(OK);
      expect(`0x${unit.unit.outLo.toString(16)}`).toBe(reached);
      expect(unit.reach(0x5000n, READ, 2)).toBe(reached);
    }
  });

  test('a block goes by any address in it', () => {
    const unit = new Adversary();
    unit.enable();
    unit.stage1();
    unit.memory.writeU64(TABLES + 0x2008n, RAM | 0xc41n);
    expect(unit.reach(0x20_1234n)).toBe('0x40001234');
    unit.memory.writeU64(TABLES + 0x2008n, (RAM + 0x20_0000n) | 0xc41n);
    expect(unit.reach(0x3f_0000n)).toBe('0x401f0000');
    unit.complete(NH_VA, ASID3, 0x3f_f000 | LEAF);
    expect(unit.reach(0x20_1234n)).toBe('0x40201234');
  });

  test.each([
    ['4 KiB', 0n, 12, 16],
    ['16 KiB', 1n, 14, 128],
    ['64 KiB', 2n, 16, 32],
  ] as const)('contiguous pages of %s make one entry, which goes by the address of any', (_, kind, lg2, count) => {
    const unit = new Adversary({ ...FULL, IDR5: 0x75 });
    unit.enable();
    unit.stage1();
    // TG0: 0 4 KiB, 2 16 KiB, 1 64 KiB; the start tables of 48 bits.
    const tg0 = [0n, 2n, 1n][Number(kind)]!;
    const size = 1n << BigInt(lg2);
    unit.put(CD, [cd0(3, tg0 << 6n), TABLES]);
    for (let level = 0n; level < 3n; level++)
      unit.memory.writeU64(TABLES + size * level, (TABLES + size * (level + 1n)) | 3n);
    const last = kind === 2n ? TABLES + size * 2n : TABLES + size * 3n;
    const set = BigInt(count);
    for (let i = 0n; i < set; i++) unit.memory.writeU64(last + 8n * (set + i), (RAM + size * i) | 0xc43n | (1n << 52n));
    expect(unit.reach(set * size)).toBe('0x40000000');
    expect(unit.unit.iotlb.sizeLg2).toBe(0); // a miss
    for (let i = 0n; i < set; i++) unit.memory.writeU64(last + 8n * (set + i), 0n);
    expect(unit.reach((2n * set - 1n) * size)).toBe(`0x${(RAM + (set - 1n) * size).toString(16)}`);
    expect(unit.unit.iotlb.size).toBe(1);
    const address = Number((set + 3n) * size);
    unit.complete(NH_VA, ASID3, address | LEAF);
    expect(unit.reach((2n * set - 1n) * size)).toBe(`event ${F_TRANSLATION}`);
  });
});

/** Stream 1 with stage 2 alone, VMID 7, IPA 0x5000 mapped to RAM, and used once. */
const stage2 = (): Adversary => {
  const unit = new Adversary();
  unit.enable();
  unit.stream(1, ste(6, [0n, 0n, s2(25, 1), TABLES2]));
  unit.stage2Tables();
  unit.page2(5, RAM);
  expect(unit.reach(0x5000n)).toBe('0x40000000');
  return unit;
};

describe('stage 2 translations (4.4.3)', () => {
  test.each([
    ['CMD_TLBI_S2_IPA', [S2_IPA, 7, 0x5000], true, true],
    ['CMD_TLBI_S2_IPA, Leaf', [S2_IPA, 7, 0x5000 | LEAF], true, false],
    ['another IPA', [S2_IPA, 7, 0x20_0000], false, false],
    ['another VMID', [S2_IPA, 8, 0x5000], false, false],
    ['CMD_TLBI_S12_VMALL', [S12_VMALL, 7], true, true],
    ['CMD_TLBI_S12_VMALL, another VMID', [S12_VMALL, 8], false, false],
    ['CMD_TLBI_NH_ALL', [NH_ALL, 7], false, false],
    ['CMD_TLBI_NH_VA', [NH_VA, 7, 0x5000], false, false],
    ['CMD_TLBI_NSNH_ALL', [NSNH_ALL], true, true],
  ] as const)('%s', (_, words, leaf, table) => {
    const unit = stage2();
    expect(unit.unit.retained!.tables).toBe(2);
    unit.page2(5, RAM + 0x1000n);
    unit.page2(6, RAM);
    unit.memory.writeU64(TABLES2 + 0x1000n, (TABLES2 + 0x9000n) | 3n);
    unit.memory.writeU64(TABLES2 + 0x9000n + 40n, (RAM + 0x2000n) | 0x7ffn);
    unit.memory.writeU64(TABLES2 + 0x9000n + 48n, (RAM + 0x3000n) | 0x7ffn);
    unit.complete(words[0], words[1], words[2]);
    expect(unit.reach(0x6000n)).toBe(table ? '0x40003000' : '0x40000000');
    expect(unit.reach(0x5000n)).toBe(leaf ? (table ? '0x40002000' : '0x40001000') : '0x40000000');
  });

  test('a cached entry that forbids the access: the record names stage 2 and the IPA', () => {
    const unit = new Adversary();
    unit.enable();
    unit.stream(1, ste(6, [0n, 0n, s2(25, 1), TABLES2]));
    unit.stage2Tables();
    unit.page2(5, RAM, 0x77fn); // S2AP: read-only
    expect(unit.reach(0x5000n)).toBe('0x40000000');
    unit.page2(5, RAM);
    expect(unit.reach(0x5000n, WRITE)).toBe(`event ${F_PERMISSION}`);
    expect(unit.events()).toEqual([[(1n << 32n) | 0x13n, (2n << 40n) | (1n << 39n), 0x5000n, 0x5000n]]);
  });
});

test('a contiguous set of stage 2 is one entry', () => {
  const unit = stage2();
  for (let i = 16; i < 32; i++) unit.page2(i, RAM + 0x1000n * BigInt(i), 0x7ffn | (1n << 52n));
  expect(unit.reach(0x1_0000n)).toBe('0x40010000');
  for (let i = 16; i < 32; i++) unit.page2(i, 0n, 0n);
  expect(unit.reach(0x1_f000n)).toBe('0x4001f000');
  unit.complete(S2_IPA, 7, 0x1_4000 | LEAF);
  expect(unit.reach(0x1_f000n)).toBe(`event ${F_TRANSLATION}`);
});

/** Both stages: VA 0x5000 → IPA 0x40005000 → RAM. Stage 1 structures and tables lie at their own IPAs. */
const nested = (): Adversary => {
  const unit = new Adversary();
  unit.enable();
  unit.stage1(1, 3, 7, [0n, s2(25, 1), TABLES2]);
  unit.stage2Tables();
  // CD and stage 1 tables: IPA = PA, one page each at IPA 0x220000 and 0x300000…
  unit.memory.writeU64(TABLES2 + 0x1008n, (TABLES2 + 0x3000n) | 3n);
  for (const at of [CD, TABLES, TABLES + 0x1000n, TABLES + 0x2000n, TABLES + 0x3000n, TABLES + 0x9000n])
    unit.memory.writeU64(TABLES2 + 0x3000n + 8n * ((at - 0x20_0000n) >> 12n), at | 0x7ffn);
  unit.page2(5, RAM);
  unit.page(5, 0x5000n);
  expect(unit.reach(0x5000n)).toBe('0x40000000');
  return unit;
};

describe('nested (4.4.2, 4.4.3)', () => {
  test.each([
    ['CMD_TLBI_S2_IPA leaves the combined entry', [[S2_IPA, 7, 0x5000]], '0x40000000'],
    ['CMD_TLBI_NH_VA leaves stage 2', [[NH_VA, ASID3 | 7, 0x5000]], '0x40000000'],
    [
      'both',
      [
        [S2_IPA, 7, 0x5000],
        [NH_VA, ASID3 | 7, 0x5000],
      ],
      '0x40001000',
    ],
    [
      'CMD_TLBI_NH_ALL and S2_IPA',
      [
        [NH_ALL, 7],
        [S2_IPA, 7, 0x5000 | LEAF],
      ],
      '0x40001000',
    ],
    [
      'of another VMID',
      [
        [S2_IPA, 8, 0x5000],
        [NH_VA, ASID3 | 8, 0x5000],
      ],
      '0x40000000',
    ],
    ['CMD_TLBI_S12_VMALL takes both', [[S12_VMALL, 7]], '0x40001000'],
    ['CMD_TLBI_NSNH_ALL takes both', [[NSNH_ALL]], '0x40001000'],
  ] as const)('a page of stage 2 changes: %s', (_, commands, reached) => {
    const unit = nested();
    unit.page2(5, RAM + 0x1000n);
    expect(unit.reach(0x5000n)).toBe('0x40000000');
    for (const words of commands) unit.complete(words[0], words[1], words[2]);
    expect(unit.reach(0x5000n)).toBe(reached);
  });

  test('stage 1 tables are found by IPA: a table that stage 2 moves is read where stage 2 remembers it', () => {
    const unit = nested();
    unit.page(6, 0x5000n);
    // The last stage 1 table moves to another page behind the same IPA.
    unit.memory.writeU64(
      TABLES2 + 0x3000n + 8n * ((TABLES + 0x3000n - 0x20_0000n) >> 12n),
      (TABLES + 0x9000n) | 0x7ffn,
    );
    unit.memory.writeU64(TABLES + 0x9000n + 48n, 0x7000n | 0xc43n);
    unit.page2(7, RAM + 0x7000n);
    expect(unit.reach(0x6000n)).toBe('0x40000000');
    unit.complete(NH_VA, ASID3 | 7, 0x6000);
    expect(unit.reach(0x6000n)).toBe('0x40000000');
    unit.complete(S2_IPA, 7, Number(TABLES + 0x3000n));
    unit.complete(NH_VA, ASID3 | 7, 0x6000 | LEAF);
    expect(unit.reach(0x6000n)).toBe('0x40007000');
  });

  test('a CD is kept as it was read, wherever stage 2 puts its page', () => {
    const unit = nested();
    unit.memory.writeU64(TABLES2 + 0x3000n + 8n * ((CD - 0x20_0000n) >> 12n), 0n);
    unit.complete(S12_VMALL, 7);
    expect(unit.reach(0x5000n)).toBe('0x40000000');
    unit.complete(CFGI_CD, 1, LEAF);
    expect(unit.reach(0x5000n)).toBe(`event ${F_TRANSLATION}`);
  });

  test.each([
    ['retain', 0x3f_f000],
    ['retain', 0x20_0000],
    ['sized', 0x3f_f000],
    ['sized', 0x20_0000],
  ] as const)('%s: parts of a stage 1 block go together, by any address in it: 0x%s', (mode, address) => {
    const unit = new Bare(FULL, { mode }).enable();
    unit.stage1(1, 3, 7, [0n, s2(25, 1), TABLES2]);
    unit.stage2Tables();
    unit.memory.writeU64(TABLES2 + 0x1008n, 0x20_0000n | 0x7fdn); // IPA 2 MiB … 4 MiB is itself
    for (let i = 0; i < 4; i++) unit.page2(i, RAM + BigInt(i) * 0x1_0000n);
    unit.memory.writeU64(TABLES + 0x2008n, 0xc41n); // VA 2 MiB: block at IPA 0
    for (let i = 0n; i < 4n; i++) expect(unit.access(0x20_0000n + 0x1000n * i)).toBe(0);
    // Tag 0 is stage 2's alone, tag 1 the combined entries'.
    const combined = (): number =>
      [0, 1, 2, 3].filter((i) => unit.unit.iotlb.peek(1, 0, 0x20_0000 + 0x1000 * i)).length;
    expect(combined()).toBe(4);
    unit.command(NH_VA, (3 << 16) | 7, address | LEAF);
    unit.command(SYNC);
    unit.r32(0x9c);
    expect(combined()).toBe(0);
  });
});

describe('onInvalidate', () => {
  test.each([
    ['CMD_CFGI_STE StreamID=0x5 Leaf', [CFGI_STE, 5, 1], [{ layers: 4, domain: -1, requester: 5, last: Infinity }]],
    ['a range', [CFGI_RANGE, 4, 0], [4, 5].map((requester) => ({ layers: 4, domain: -1, requester, last: Infinity }))],
    ['CMD_CFGI_ALL', [CFGI_RANGE, 0, 31], [{ layers: 4, domain: -1, requester: -1, last: Infinity }]],
    ['CMD_CFGI_CD', [CFGI_CD, 5], [{ layers: 4, domain: -1, requester: 5, last: Infinity }]],
    ['CMD_TLBI_NH_ASID', [NH_ASID, ASID3], [{ layers: 3, domain: 3, requester: -1, last: Infinity }]],
    ['CMD_TLBI_NH_VA, Leaf', [NH_VA, ASID3, 1], [{ layers: 1, domain: 3, requester: -1, last: 0 }]],
    ['CMD_TLBI_NH_VAA', [NH_VAA, ASID3, 0], [{ layers: 3, domain: -1, requester: -1, last: 0 }]],
    ['CMD_TLBI_NH_ALL', [NH_ALL, 7], [{ layers: 3, domain: -1, requester: -1, last: Infinity }]],
    ['CMD_TLBI_S2_IPA', [S2_IPA, 7, 0], [{ layers: 3, domain: 7, requester: -1, last: 0 }]],
    ['CMD_TLBI_S12_VMALL', [S12_VMALL, 7], [{ layers: 3, domain: 7, requester: -1, last: Infinity }]],
    ['CMD_TLBI_NSNH_ALL', [NSNH_ALL], [{ layers: 3, domain: -1, requester: -1, last: Infinity }]],
    ['CMD_SYNC', [SYNC], []],
    ['CMD_PREFETCH_ADDR', [2], []],
  ] as const)('%s', (_, words, expected) => {
    for (const mode of ['retain', 'sized', 'none'] as const) {
      const unit = new Bare(FULL, { mode }).enable();
      const told: unknown[] = [];
      unit.unit.onInvalidate = ({ layers, domain, requester, startPfn, lastPfn }) => {
        expect(startPfn).toBe(0);
        told.push({ layers, domain, requester, last: lastPfn });
      };
      unit.command(words[0], words[1], words[2]);
      unit.command(SYNC);
      unit.r32(0x9c);
      expect(told).toEqual(expected);
    }
  });

  test('a range of addresses, and a reset', () => {
    const unit = new Bare().enable();
    const told: InvalidationEvent[] = [];
    unit.unit.onInvalidate = (event) => told.push(event);
    unit.command(NH_VA | (2 << 12) | (1 << 20), ASID3, 0x10_0000 | (1 << 10) | LEAF);
    unit.unit.reset();
    expect(told.map(({ startPfn, lastPfn, layers }) => [startPfn, lastPfn, layers])).toEqual([
      [0x100, 0x105, 1],
      [0, Infinity, 7],
    ]);
  });
});
