/** Scalable mode by hand: requests with PASID, privilege, directories, tags. Numbers from the specification. */
import { describe, expect, test } from 'vitest';
import { Bare, R, ROOT, W } from './rig.ts';

const SID = 0x98; // device 19: the upper half of the bus
const CAP = 0x11d2_008c_222f_0e06n; // FS5LP, FS1GP, 57-bit second stage
/** RPS, FSTS, SSTS, SMTS, PASID with 20 bits, SRS, ERS, RPRIVS, PT, QI, C. */
const ECAP =
  0xf43n |
  (1n << 53n) |
  (1n << 49n) |
  (1n << 47n) |
  (1n << 46n) |
  (1n << 43n) |
  (1n << 40n) |
  (19n << 35n) |
  (3n << 30n);
const EXEC = 4;
const PRIV = 8;

/** First-stage tables for PASID 0x1fff of SID in domain 9: page 0x5000 read-write, 0x6000 read-only, 0x7000 supervisor. */
const build = (
  entry: { qw0?: bigint; qw1?: bigint; qw2?: bigint; context?: bigint; rid?: bigint; mode?: string } = {},
) => {
  const bare = new Bare({ cap: CAP, ecap: ECAP, iotlb: { mode: (entry.mode ?? 'unbounded') as 'unbounded' } });
  const contexts = 0x11_0000n;
  const directory = 0x12_0000n;
  const pasids = 0x13_0000n;
  const root = bare.table();
  bare.put(ROOT, 0n, contexts | 1n);
  // PDTS 0: 128 entries of the directory, PASIDs up to 0x1fff.
  bare.put(contexts + 32n * 0x18n, directory | (entry.context ?? 9n), entry.rid ?? 0x1fffn, 0n, 0n);
  bare.put(directory + 8n * 0x7fn, pasids | 1n);
  const pasidEntry = pasids + 64n * 0x3fn;
  bare.put(pasidEntry, entry.qw0 ?? 0x41n, entry.qw1 ?? 9n, root | (entry.qw2 ?? 0x33n));
  bare.entry(root, 4, 0x5000n, 1, 0x100_5007n, 7n);
  bare.entry(root, 4, 0x6000n, 1, 0x100_6005n, 7n);
  bare.entry(root, 4, 0x7000n, 1, 0x100_7003n, 7n);
  bare.entry(root, 4, 0x8000n, 1, 0x8000_0000_0100_8007n, 7n);
  bare.enable(1n);
  return { bare, root, pasidEntry };
};

test('RID_PASID names the tables of requests without PASID', () => {
  const { bare } = build();
  expect(bare.go(SID, 0x5abcn, W)).toBe(0x100_5abcn);
  expect(bare.unit.stats.structureReads).toBe(4);
  expect(bare.go(SID, 0x5abcn, W)).toBe(0x100_5abcn);
  expect(bare.unit.stats).toMatchObject({ structureReads: 4, walks: 1, walkReads: 4 });
});

test('the lower half of the bus has its own context table', () => {
  const { bare } = build();
  expect(bare.go(SID & 0x7f, 0x5000n)).toBe(-0x39n);
  expect(bare.go(SID + 8, 0x5000n)).toBe(-0x41n);
});

describe('requests with PASID', () => {
  test('translate, and faults carry the PASID', () => {
    const { bare } = build();
    expect(bare.go(SID, 0x5123n, R, 0x1fff)).toBe(0x100_5123n);
    expect(bare.go(SID, 0x9000n, W | PRIV, 0x1fff)).toBe(-0x71n);
    // F, write, PV, FR; PP, PRIV, SID.
    expect(bare.rd64(0x228)).toBe(0x801f_ff71_a000_0098n);
  });

  test('need PASIDE, and a PASID inside the directory', () => {
    const { bare } = build({ context: 1n });
    expect(bare.go(SID, 0x5000n, R, 0x1fff)).toBe(-0x45n);
    expect(build().bare.go(SID, 0x5000n, R, 0x2000)).toBe(-0x46n);
    expect(build().bare.go(SID, 0x5000n, R, 0x1000)).toBe(-0x51n);
    expect(build().bare.go(SID, 0x5000n, R, 0x1ffe)).toBe(-0x59n);
  });

  test('execute and privileged requests need their enables', () => {
    const { bare } = build();
    expect(bare.go(SID, 0x5000n, R | EXEC, 0x1fff)).toBe(0x100_5000n);
    expect(bare.go(SID, 0x8000n, R, 0x1fff)).toBe(0x100_8000n);
    expect(bare.go(SID, 0x8000n, R | EXEC, 0x1fff)).toBe(-0x82n);
    const closed = build({ qw2: 0x20n }).bare;
    expect(closed.go(SID, 0x5000n, R | EXEC, 0x1fff)).toBe(-0x5cn);
    expect(closed.go(SID, 0x5000n, R | PRIV, 0x1fff)).toBe(-0x5dn);
  });

  test('supervisor pages and write protection', () => {
    const { bare } = build();
    expect(bare.go(SID, 0x7000n, R, 0x1fff)).toBe(-0x81n);
    expect(bare.go(SID, 0x7000n, W | PRIV, 0x1fff)).toBe(0x100_7000n);
    // A user request must not use what a supervisor request has cached.
    expect(bare.go(SID, 0x7000n, R, 0x1fff)).toBe(-0x81n);
    expect(bare.go(SID, 0x6000n, W | PRIV, 0x1fff)).toBe(-0x85n);
    const unprotected = build({ qw2: 0x23n }).bare; // WPE clear
    expect(unprotected.go(SID, 0x6000n, W, 0x1fff)).toBe(-0x85n);
    expect(unprotected.go(SID, 0x6000n, W | PRIV, 0x1fff)).toBe(0x100_6000n);
  });
});

test('RID_PRIV makes requests without PASID privileged', () => {
  const { bare } = build({ rid: 0x10_1fffn });
  expect(bare.go(SID, 0x7000n)).toBe(0x100_7000n);
  expect(build({ rid: 0x10_1fffn, qw2: 0x20n }).bare.go(SID, 0x7000n)).toBe(-0x5dn);
});

test('execute-disable is a reserved bit while NXE is off', () => {
  expect(build({ qw2: 3n }).bare.go(SID, 0x8000n)).toBe(-0x72n);
});

test('dirty: the first write after a read walks again and sets D', () => {
  const { bare, root } = build();
  const leaf = bare.entry(root, 4, 0x5000n, 1, 0x100_5007n, 7n);
  bare.go(SID, 0x5000n, R);
  expect(bare.memory.readU64(leaf)).toBe(0x100_5027n);
  bare.go(SID, 0x5000n, W);
  expect(bare.memory.readU64(leaf)).toBe(0x100_5067n);
  expect(bare.unit.stats.walks).toBe(2);
  bare.go(SID, 0x5000n, W);
  expect(bare.unit.stats.walks).toBe(2);
});

test('a faulting walk sets no A bit', () => {
  const { bare, root } = build();
  const leaf = bare.entry(root, 4, 0x6000n, 1, 0x100_6005n, 7n);
  expect(bare.go(SID, 0x6000n, W)).toBe(-0x85n);
  expect(bare.memory.readU64(leaf)).toBe(0x100_6005n);
});

test('5-level first stage, and 57-bit canonical addresses', () => {
  const { bare, root } = build({ qw2: 0x37n });
  bare.entry(root, 5, 0xff80_0000_0000_0000n, 1, 0x100_0007n, 7n);
  expect(bare.go(SID, 0xff80_0000_0000_0abcn)).toBe(0x100_0abcn);
  expect(bare.go(SID, 0xff00_0000_0000_0abcn)).toBe(-0x71n);
  expect(bare.go(SID, 0xfe80_0000_0000_0abcn)).toBe(-0x80n);
  expect(bare.go(SID, 0x0100_0000_0000_0000n)).toBe(-0x80n);
  const high = 0xffff_0000_0000_0000n;
  bare.entry(root, 5, high, 1, 0x200_0007n, 7n);
  expect(bare.go(SID, high | 0xabcn)).toBe(0x200_0abcn);
});

test('1 GiB first-stage pages', () => {
  const { bare, root } = build();
  bare.entry(root, 4, 0x4000_0000n, 3, 0x1_4000_0087n, 7n);
  expect(bare.go(SID, 0x5234_5678n)).toBe(0x1_5234_5678n);
});

test('second stage in scalable mode: 57 bits', () => {
  const { bare, pasidEntry } = build({ qw0: 0n });
  const root = bare.table();
  bare.put(pasidEntry, root | 0x8dn, 9n, 0n);
  bare.entry(root, 5, 0x5000n, 1, 0x300_5001n);
  expect(bare.go(SID, 0x5000n)).toBe(0x300_5000n);
  expect(bare.go(SID, 0x5000n, W)).toBe(-0x79n);
  expect(bare.go(SID, 0x6000n)).toBe(-0x79n);
  expect(bare.go(SID, 0x1_0000_0000_0000n)).toBe(-0x83n); // MGAW is 48 here
});

test('nested translation is refused where the unit lacks it', () => {
  expect(build({ qw0: 0xcdn }).bare.go(SID, 0x5000n)).toBe(-0x5bn);
});

describe('invalidation', () => {
  test('PASID-based: exactly the pages of the PASID', () => {
    const { bare, root } = build();
    for (const page of [0x5000n, 0x6000n]) bare.go(SID, page);
    bare.entry(root, 4, 0x5000n, 1, 0x400_5007n, 7n);
    bare.entry(root, 4, 0x6000n, 1, 0x400_6005n, 7n);
    bare.enableQueue();
    bare.submit(0x1ffe_0009_0026n);
    bare.submit(0x1fff_0008_0026n);
    bare.submit(0x1fff_0009_0036n, 0x6000n);
    expect(bare.rd(0x34)).toBe(0);
    expect([bare.go(SID, 0x5000n), bare.go(SID, 0x6000n)]).toEqual([0x100_5000n, 0x400_6000n]);
    bare.submit(0x1fff_0009_0026n);
    expect(bare.go(SID, 0x5000n)).toBe(0x400_5000n);
  });

  test('the domain takes its first-stage translations with it', () => {
    const { bare, root } = build();
    bare.go(SID, 0x5000n);
    bare.entry(root, 4, 0x5000n, 1, 0x400_5007n, 7n);
    bare.enableQueue();
    bare.submit(0x8_0022n);
    expect(bare.go(SID, 0x5000n)).toBe(0x100_5000n);
    bare.submit(0x9_0022n);
    expect(bare.go(SID, 0x5000n)).toBe(0x400_5000n);
  });

  test('a page-selective command of the domain drops all its first-stage translations', () => {
    const { bare, root } = build();
    bare.go(SID, 0x5000n);
    bare.entry(root, 4, 0x5000n, 1, 0x400_5007n, 7n);
    bare.enableQueue();
    bare.submit(0x8_0032n, 0x9000n);
    expect(bare.go(SID, 0x5000n)).toBe(0x100_5000n);
    bare.submit(0x9_0032n, 0x9000n);
    expect(bare.go(SID, 0x5000n)).toBe(0x400_5000n);
  });

  test('PASID entries are cached until their cache is invalidated', () => {
    for (const descriptor of [0x9_0007n, 0x1fff_0009_0017n, 0x37n, 0x11n]) {
      const { bare, pasidEntry } = build();
      bare.go(SID, 0x5000n);
      bare.put(pasidEntry, 0n);
      expect(bare.go(SID, 0x5000n)).toBe(0x100_5000n);
      bare.enableQueue();
      bare.submit(descriptor);
      expect(bare.go(SID, 0x5000n)).toBe(-0x59n);
    }
  });

  test('256-bit descriptors: a misaligned tail, and a dirty upper half', () => {
    const { bare } = build();
    bare.wr64(0x88, 0n);
    bare.wr64(0x90, 0x30_0800n);
    bare.wr(0x18, 0x8400_0000);
    bare.wr64(0x88, 0x30n);
    expect([bare.rd(0x34), bare.rd64(0xb0)]).toEqual([0x10, 6n]);
    bare.put(0x30_0000n, 0x12n, 0n, 0n, 1n);
    bare.wr64(0x88, 0x20n);
    bare.wr(0x34, 0x10);
    expect([bare.rd(0x34), bare.rd64(0xb0)]).toEqual([0x10, 4n]);
    bare.put(0x30_0018n, 0n);
    bare.wr(0x34, 0x10);
    expect([bare.rd(0x34), bare.rd64(0x80)]).toEqual([0, 0x20n]);
  });
});
