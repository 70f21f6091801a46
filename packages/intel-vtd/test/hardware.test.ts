/** The unit on its registers in legacy mode, programmed by hand with numbers typed from the specification. */
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { Bare, CAP, CONTEXTS, ECAP, QUEUE, R, ROOT, W } from './rig.ts';

const SID = 0x18;

/** A unit that maps page 0x5000 to 0x123_4000 for SID in domain 7, read-write. */
const mapped = (options = {}): { bare: Bare; root: bigint; leaf: bigint } => {
  const bare = new Bare(options);
  const root = bare.attach(SID, 7);
  const leaf = bare.entry(root, 4, 0x5000n, 1, 0x123_4003n);
  bare.enable();
  return { bare, root, leaf };
};

describe('global command and status', () => {
  test('translation off: everything passes', () => {
    const bare = new Bare();
    expect(bare.go(SID, 0xdead_beef_0123n, W)).toBe(0xdead_beef_0123n);
    expect(bare.go(SID, 0xfee0_0000n)).toBe(0xfee0_0000n);
    expect(bare.rd(0x34)).toBe(0);
  });

  test('GSTS acknowledges, one-shots do not stick, GCMD reads as zero', () => {
    const bare = new Bare();
    bare.wr64(0x20, ROOT);
    bare.wr(0x18, 0x4000_0000);
    expect(bare.rd(0x1c)).toBe(0x4000_0000);
    bare.wr(0x18, 0x0800_0000); // WBF
    expect(bare.rd(0x1c)).toBe(0x4000_0000);
    bare.wr(0x18, 0x8400_0000);
    expect(bare.rd(0x1c)).toBe(0xc400_0000);
    expect(bare.rd(0x18)).toBe(0);
    bare.wr(0x18, 0x0300_0000); // IRE, SIRTP: not there
    expect(bare.rd(0x1c)).toBe(0x4000_0000);
  });

  test('the root table is what SRTP latched, not what RTADDR holds', () => {
    const { bare } = mapped();
    bare.wr64(0x20, 0x50_0000n);
    expect(bare.go(SID, 0x5abcn)).toBe(0x123_4abcn);
    bare.wr(0x18, 0xc000_0000);
    bare.wr64(0x28, 0xa000_0000_0000_0000n);
    expect(bare.go(SID, 0x5abcn)).toBe(-1n);
  });

  test('ESRTPS: setting the root table drops every cache', () => {
    for (const esrtps of [false, true]) {
      const { bare, leaf } = mapped({ cap: CAP | (esrtps ? 1n << 63n : 0n), iotlb: { mode: 'unbounded' } });
      expect(bare.go(SID, 0x5000n)).toBe(0x123_4000n);
      bare.put(leaf, 0x222_2003n);
      bare.wr(0x18, 0xc000_0000);
      expect(bare.go(SID, 0x5000n)).toBe(esrtps ? 0x222_2000n : 0x123_4000n);
    }
  });

  test('reset', () => {
    const { bare } = mapped();
    expect(bare.go(SID, 0x9000n)).toBe(-6n);
    bare.unit.reset();
    expect([bare.rd(0x1c), bare.rd(0x34), bare.rd64(0x228), bare.rd(0x38)]).toEqual([0, 0, 0n, 0x8000_0000]);
    expect(bare.unit.stats).toEqual({
      walks: 0,
      walkReads: 0,
      structureReads: 0,
      commands: 0,
      invalidations: 0,
      faults: 0,
    });
    expect(bare.unit.iotlb.size).toBe(0);
    expect(bare.go(SID, 0x9000n)).toBe(0x9000n);
  });
});

describe('structures', () => {
  const cases: [string, (bare: Bare) => void, number][] = [
    ['root entry not present', (b) => b.put(ROOT, 0n), 1],
    ['root entry bit 1', (b) => b.put(ROOT, CONTEXTS | 3n), 0xa],
    ['root entry upper half', (b) => b.put(ROOT + 8n, 1n << 63n), 0xa],
    ['context table beyond the host address width', (b) => b.put(ROOT, (1n << 48n) | 1n), 0xa],
    ['context table outside memory', (b) => b.put(ROOT, 0x7f00_0000_0001n), 9],
    ['root table outside memory', (b) => b.wr64(0x20, 0x7f00_0000_0000n), 8],
    ['context entry not present', (b) => b.context(SID, 0n, 0n), 2],
    ['context entry bit 4', (b) => b.context(SID, 0x20_0011n, 0x702n), 0xb],
    ['context entry bit 71', (b) => b.context(SID, 0x20_0001n, 0x782n), 0xb],
    ['context entry bit 88', (b) => b.context(SID, 0x20_0001n, 0x100_0702n), 0xb],
    ['page table beyond the host address width', (b) => b.context(SID, (1n << 51n) | 1n, 0x702n), 0xb],
    ['AW 0', (b) => b.context(SID, 0x20_0001n, 0x700n), 3],
    ['AW 3, which SAGAW lacks', (b) => b.context(SID, 0x20_0001n, 0x703n), 3],
    ['AW 7', (b) => b.context(SID, 0x20_0001n, 0x707n), 3],
    ['TT 1 without device TLBs', (b) => b.context(SID, 0x20_0005n, 0x702n), 3],
    ['TT 3', (b) => b.context(SID, 0x20_000dn, 0x702n), 3],
    ['page table outside memory', (b) => b.context(SID, 0x7f00_0000_0001n, 0x702n), 7],
  ];
  test.each(cases)('%s', (_name, spoil, reason) => {
    const bare = new Bare();
    bare.attach(SID, 7);
    bare.wr64(0x20, ROOT);
    spoil(bare);
    bare.wr(0x18, 0x4000_0000);
    bare.wr(0x18, 0x8000_0000);
    expect(bare.go(SID, 0x5abcn, W)).toBe(-BigInt(reason));
    expect(bare.fault()).toEqual({ reason, requester: SID, page: 0x5000n, read: false });
    expect(bare.rd(0x34)).toBe(0);
    expect(bare.unit.stats.faults).toBe(1);
  });

  test('bits 70:67 of a context entry are free for software', () => {
    const { bare } = mapped();
    bare.context(SID, bare.memory.readU64(CONTEXTS + 0x180n), 0x77an);
    bare.wr64(0x28, 0xa000_0000_0000_0000n);
    expect(bare.go(SID, 0x5000n)).toBe(0x123_4000n);
  });

  test('a unit with fewer domains: upper domain-id bits are reserved', () => {
    const bare = new Bare({ cap: CAP & ~7n }); // ND 0: 16 domains
    bare.attach(SID, 15);
    bare.attach(SID + 8, 16);
    bare.enable();
    expect(bare.go(SID, 0n)).toBe(-6n);
    expect(bare.go(SID + 8, 0n)).toBe(-0xbn);
  });

  test('pass-through, up to the host address width', () => {
    const bare = new Bare({ hostAddressWidth: 40 });
    bare.context(SID, 9n, 0x702n);
    bare.enable();
    expect(bare.go(SID, 0xff_ffff_f123n, W)).toBe(0xff_ffff_f123n);
    expect(bare.go(SID, 0x100_0000_0000n, R)).toBe(-4n);
    const without = new Bare({ ecap: ECAP & ~0x40n });
    without.context(SID, 9n, 0x702n);
    without.enable();
    expect(without.go(SID, 0n)).toBe(-3n);
  });

  test('TT 1 where there are device TLBs', () => {
    const bare = new Bare({ ecap: ECAP | 4n });
    const root = bare.attach(SID, 7);
    bare.context(SID, root | 5n, 0x702n);
    bare.entry(root, 4, 0n, 1, 0x123_4003n);
    bare.enable();
    expect(bare.go(SID, 0n)).toBe(0x123_4000n);
  });

  test('FPD: faults behind the context entry are not recorded, root faults are', () => {
    const bare = new Bare();
    const root = bare.attach(SID, 7);
    bare.context(SID, root | 3n, 0x702n);
    bare.context(SID + 8, 2n, 0n);
    bare.enable();
    expect(bare.go(SID, 0x5000n)).toBe(-6n);
    expect(bare.go(SID, 0x5000n)).toBe(-6n);
    expect(bare.go(SID + 8, 0x5000n)).toBe(-2n);
    expect([bare.rd(0x34), bare.unit.stats.faults]).toEqual([0, 0]);
    expect(bare.go(0x3318, 0x5000n)).toBe(-1n);
    expect(bare.rd(0x34)).toBe(2);
  });

  test('buses have context tables of their own', () => {
    const bare = new Bare();
    const a = bare.attach(0x0318, 3);
    const b = bare.attach(0x0718, 4);
    bare.entry(a, 4, 0n, 1, 0xaaa003n);
    bare.entry(b, 4, 0n, 1, 0xbbb003n);
    bare.enable();
    // Both fall into one slot of a direct-mapped context cache.
    for (let i = 0; i < 3; i++) {
      expect(bare.go(0x0318, 0n)).toBe(0xaaa000n);
      expect(bare.go(0x0718, 0n)).toBe(0xbbb000n);
    }
  });

  test('requests with PASID are blocked in legacy mode', () => {
    const { bare } = mapped();
    expect(bare.go(SID, 0x5000n, R, 0x12345)).toBe(-0x31n);
    expect(bare.rd64(0x228)).toBe(0xc123_4531_8000_0018n);
  });

  test('a root table mode that the unit lacks', () => {
    for (const mode of [1n, 2n, 3n]) {
      const bare = new Bare();
      bare.enable(mode);
      // RTADDR.TTM is kept as written, so that SRTP shows what was asked for.
      expect(bare.go(SID, 0n)).toBe(-0x30n);
    }
  });
});

describe('second-stage walk', () => {
  test('3, 4 and 5 levels, every index', () => {
    for (const levels of [3, 4, 5]) {
      const bare = new Bare({ cap: 0x00d2_008c_2238_0e06n });
      const root = bare.attach(SID, 7, levels);
      const iova = levels === 5 ? 0x1fe_dcba_9876_5432n : levels === 4 ? 0xfedc_ba98_7654n : 0x7e_dcba_9876n;
      bare.entry(root, levels, iova, 1, (0x9_8765_4321_0003n & ~0xfffn) | 3n);
      bare.enable();
      expect(bare.go(SID, iova)).toBe((0x9_8765_4321_0000n & ~0xfffn) | (iova & 0xfffn));
      expect(bare.unit.stats).toMatchObject({ walks: 1, walkReads: levels, structureReads: 2 });
    }
  });

  test('2 MiB and 1 GiB pages', () => {
    const bare = new Bare();
    const root = bare.attach(SID, 7);
    bare.entry(root, 4, 0x40_0000n, 2, 0x1_2360_0083n);
    bare.entry(root, 4, 0x8000_0000n, 3, 0x7f_4000_0083n);
    bare.enable();
    expect(bare.go(SID, 0x5f_edcbn)).toBe(0x1_237f_edcbn);
    expect(bare.go(SID, 0xabcd_ef01n)).toBe(0x7f_6bcd_ef01n);
    expect(bare.unit.iotlb.size).toBe(2);
    expect(bare.go(SID, 0x40_0000n)).toBe(0x1_2360_0000n);
    expect(bare.go(SID, 0x8000_0000n)).toBe(0x7f_4000_0000n);
    expect(bare.unit.stats.walks).toBe(2);
  });

  test.each([
    [2, 0x0c, 'CAP.SSLPS 0', 0n],
    [3, 0x0c, 'CAP.SSLPS 2 MiB only', 1n],
    [2, 0, 'CAP.SSLPS 2 MiB only', 1n],
  ])('a large page at level %i gives %i with %s', (level, reason, _name, sslps) => {
    const bare = new Bare({ cap: (CAP & ~(0xfn << 34n)) | (sslps << 34n) });
    const root = bare.attach(SID, 7);
    bare.entry(root, 4, 0n, level, 0x4000_0083n);
    bare.enable();
    expect(bare.go(SID, 0n)).toBe(reason === 0 ? 0x4000_0000n : -BigInt(reason));
  });

  test('permissions of all levels together', () => {
    for (const level of [1, 2, 3, 4]) {
      for (const allowed of [0n, 1n, 2n, 3n]) {
        const bare = new Bare({ iotlb: { mode: 'none' } });
        const root = bare.attach(SID, 7);
        bare.entry(root, 4, 0n, 1, 0x123_4003n);
        const at = bare.entry(root, 4, 0n, level, 0n);
        bare.entry(root, 4, 0n, level, 0n);
        const address = level === 1 ? 0x123_4000n : 0x20_0000n + 0x1000n * BigInt(5 - level);
        bare.put(at, address | allowed);
        bare.enable();
        expect(bare.go(SID, 0n, R)).toBe((allowed & 1n) !== 0n ? 0x123_4000n : -6n);
        expect(bare.go(SID, 0n, W)).toBe((allowed & 2n) !== 0n ? 0x123_4000n : -5n);
        expect(bare.go(SID, 0n, R | W)).toBe(allowed === 3n ? 0x123_4000n : (allowed & 2n) === 0n ? -5n : -6n);
      }
    }
  });

  test.each([
    ['leaf, bit 48', 1, 1n << 48n],
    ['leaf, bit 51', 1, 1n << 51n],
    ['leaf, bit 62', 1, 1n << 62n],
    ['leaf, SNP without snoop control', 1, 1n << 11n],
    ['pointer, bit 11', 2, 1n << 11n],
    ['pointer, bit 50', 3, 1n << 50n],
    ['pointer at level 4, bit 7', 4, 1n << 7n],
    ['2 MiB page, bit 12', 2, 0x1080n],
    ['2 MiB page, bit 20', 2, 0x10_0080n],
    ['1 GiB page, bit 29', 3, 0x2000_0080n],
  ])('reserved: %s', (_name, level, bits) => {
    const { bare, root } = mapped();
    const at = bare.entry(root, 4, 0x5000n, level, bare.memory.readU64(bare.entry(root, 4, 0x5000n, level, 0n)));
    bare.put(at, (level > 1 && (bits & 0x80n) !== 0n && level < 4 ? 0x4000_0003n : 0x20_1003n) | bits);
    expect(bare.go(SID, 0x5000n)).toBe(-0xcn);
    expect(bare.fault()).toMatchObject({ reason: 0xc, page: 0x5000n, read: true });
  });

  test('bits that hardware ignores', () => {
    const { bare, leaf } = mapped();
    bare.put(leaf, 0xbff0_0000_0123_4003n | 0x77cn);
    expect(bare.go(SID, 0x5000n)).toBe(0x123_4000n);
    const snoop = mapped({ ecap: ECAP | 0x80n });
    snoop.bare.put(snoop.leaf, 0x123_4803n);
    expect(snoop.bare.go(SID, 0x5000n)).toBe(0x123_4000n);
  });

  test('reserved bits of an entry that is not present do not count', () => {
    const { bare, leaf } = mapped();
    bare.put(leaf, 0x7fff_ffff_ffff_fffcn);
    expect(bare.go(SID, 0x5000n)).toBe(-6n);
  });

  test('address widths: AGAW, and MGAW where it is less', () => {
    const bare = new Bare();
    const three = bare.attach(SID, 7, 3);
    const four = bare.attach(SID + 8, 8, 4);
    bare.entry(three, 3, 0x7f_ffff_f000n, 1, 0x111_1003n);
    bare.entry(four, 4, 0xffff_ffff_f000n, 1, 0x222_2003n);
    bare.enable();
    expect(bare.go(SID, 0x7f_ffff_ffffn)).toBe(0x111_1fffn);
    expect(bare.go(SID, 0x80_0000_0000n)).toBe(-4n);
    expect(bare.go(SID + 8, 0xffff_ffff_ffffn)).toBe(0x222_2fffn);
    expect(bare.go(SID + 8, 0x1_0000_0000_0000n)).toBe(-4n);
    expect(bare.go(SID + 8, 0xffff_ffff_ffff_f000n)).toBe(-4n);
    const narrow = new Bare({ cap: (CAP & ~(0x3fn << 16n)) | (34n << 16n) }); // 35 bits
    narrow.attach(SID, 7, 4);
    narrow.enable();
    expect(narrow.go(SID, 0x7_ffff_ffffn)).toBe(-6n);
    expect(narrow.go(SID, 0x8_0000_0000n)).toBe(-4n);
  });

  test('a table outside memory', () => {
    const { bare, root } = mapped();
    bare.entry(root, 4, 0x5000n, 2, 0x7f_0000_0003n);
    expect(bare.go(SID, 0x5000n)).toBe(-7n);
    expect(bare.fault()).toMatchObject({ reason: 7 });
  });
});

describe('interrupt address range', () => {
  test('writes are interrupts and pass, whatever is mapped there; reads are refused without a record', () => {
    const { bare, root } = mapped();
    bare.entry(root, 4, 0xfee0_0000n, 1, 0x123_4003n);
    expect(bare.go(SID, 0xfee0_0018n, W)).toBe(0xfee0_0018n);
    expect(bare.go(0x7777, 0xfeef_fff0n, W)).toBe(0xfeef_fff0n);
    expect(bare.go(SID, 0xfee0_0018n, R)).toBe(1n);
    expect([bare.rd(0x34), bare.unit.stats.walks]).toEqual([0, 0]);
    expect(bare.go(SID, 0xfedf_f000n, W)).toBe(-5n);
    expect(bare.go(SID, 0xfef0_0000n, W)).toBe(-5n);
    expect(bare.go(SID, 0x1_fee0_0000n, W)).toBe(-5n);
  });

  test('nothing may translate into it, not even the inside of a large page', () => {
    const bare = new Bare({ iotlb: { mode: 'unbounded' } });
    const root = bare.attach(SID, 7);
    bare.entry(root, 4, 0x1000n, 1, 0xfee0_0003n);
    bare.entry(root, 4, 0x4000_0000n, 3, 0xc000_0083n);
    bare.enable();
    expect(bare.go(SID, 0x1000n, W)).toBe(-0xen);
    expect(bare.go(SID, 0x4000_0000n)).toBe(0xc000_0000n);
    expect(bare.go(SID, 0x7ed0_0000n)).toBe(0xfed0_0000n);
    expect(bare.go(SID, 0x7ee0_0000n)).toBe(-0xen);
    expect(bare.go(SID, 0x7eef_f000n)).toBe(-0xen);
    expect(bare.go(SID, 0x7ef0_0000n)).toBe(0xfef0_0000n);
  });
});

describe('IOTLB', () => {
  test('a permission that is not cached is walked for, and its fault is recorded', () => {
    const { bare, leaf } = mapped();
    bare.put(leaf, 0x123_4001n);
    expect(bare.go(SID, 0x5000n, R)).toBe(0x123_4000n);
    expect(bare.go(SID, 0x5000n, W)).toBe(-5n);
    expect(bare.fault()).toEqual({ reason: 5, requester: SID, page: 0x5000n, read: false });
    bare.put(leaf, 0x123_4003n);
    expect(bare.go(SID, 0x5000n, W)).toBe(0x123_4000n);
    expect(bare.unit.stats.walks).toBe(3);
    expect(bare.go(SID, 0x5000n, W)).toBe(0x123_4000n);
    expect(bare.unit.stats.walks).toBe(3);
  });

  test('not-present entries are not cached', () => {
    const { bare, root } = mapped();
    expect(bare.go(SID, 0x8000n)).toBe(-6n);
    bare.entry(root, 4, 0x8000n, 1, 0x777_7003n);
    expect(bare.go(SID, 0x8000n)).toBe(0x777_7000n);
    expect(bare.go(SID + 8, 0n)).toBe(-2n);
    bare.context(SID + 8, root | 1n, 0x702n);
    expect(bare.go(SID + 8, 0x8000n)).toBe(0x777_7000n);
  });

  test('mode none: every change shows at once', () => {
    const { bare, leaf } = mapped({ iotlb: { mode: 'none' } });
    expect(bare.go(SID, 0x5000n)).toBe(0x123_4000n);
    bare.put(leaf, 0n);
    expect(bare.go(SID, 0x5000n)).toBe(-6n);
    bare.context(SID, 0n, 0n);
    expect(bare.go(SID, 0x5000n)).toBe(-2n);
  });

  test('domains are kept apart, devices of one domain share', () => {
    const bare = new Bare();
    const a = bare.attach(SID, 3);
    bare.context(SID + 8, a | 1n, 0x302n);
    const b = bare.attach(SID + 16, 4);
    bare.entry(a, 4, 0n, 1, 0xaaa003n);
    bare.entry(b, 4, 0n, 1, 0xbbb003n);
    bare.enable();
    expect(bare.go(SID, 0n)).toBe(0xaaa000n);
    expect(bare.go(SID + 8, 0n)).toBe(0xaaa000n);
    expect(bare.go(SID + 16, 0n)).toBe(0xbbb000n);
    expect(bare.unit.stats.walks).toBe(2);
  });
});

const code = (cap: bigint, ecap: bigint): string => {
  try {
    return new Bare({ cap, ecap }).unit.name;
  } catch (error) {
    return (error as { code: string }).code;
  }
};

test('what is not built is refused at construction', () => {
  expect(code(CAP | 8n, ECAP)).toBe('EOPNOTSUPP'); // advanced fault logging
  expect(code(CAP | 0x20n, ECAP)).toBe('EOPNOTSUPP'); // protected memory
  expect(code(CAP, ECAP | 8n)).toBe('EOPNOTSUPP'); // interrupt remapping
  expect(code(CAP, ECAP | (1n << 26n))).toBe('EOPNOTSUPP'); // nested
  expect(code(CAP, ECAP | (1n << 29n))).toBe('EOPNOTSUPP'); // page requests
  expect(code(CAP, ECAP | (1n << 45n))).toBe('EOPNOTSUPP'); // second-stage A/D
  expect(code(CAP, ECAP | (1n << 52n))).toBe('EOPNOTSUPP'); // abort mode
  expect(code(CAP, ECAP | (1n << 51n))).toBe('EOPNOTSUPP'); // performance monitoring
  expect(code(CAP | (1n << 59n), ECAP)).toBe('EOPNOTSUPP'); // posted interrupts
  expect(code(CAP, 0xffn)).toBe('EOPNOTSUPP');
  expect(code(CAP, 0x43n)).toBe('EINVAL'); // IOTLB registers over VER
  expect(code(CAP, ECAP)).toBe('intel-vtd');
  expect(() => new Bare({ hostAddressWidth: 53 })).toThrow(/53/);
});

test('registers where the queue would be read as zero in a unit without QI', () => {
  const bare = new Bare({ ecap: ECAP & ~2n });
  bare.wr64(0x90, QUEUE);
  bare.wr64(0x88, 0x10n);
  bare.wr(0x18, 0x0400_0000);
  expect([bare.rd64(0x90), bare.rd64(0x88), bare.rd(0x1c)]).toEqual([0n, 0n, 0]);
});

test('tables may lie in memory above 4 GiB', () => {
  const memory = new PhysicalMemory([
    { base: 0n, size: 64n << 20n },
    { base: 0x12_0000_0000n, size: 16n << 20n },
  ]);
  const bare = new Bare({ memory });
  bare.context(SID, 0x12_0000_1001n, 0x702n);
  bare.put(0x12_0000_1000n, 0x12_0000_2003n);
  bare.put(0x12_0000_2000n, 0x12_0000_3003n);
  bare.put(0x12_0000_3000n, 0x12_0000_4003n);
  bare.put(0x12_0000_4000n, 0xabcd_1234_5003n);
  bare.enable();
  expect(bare.go(SID, 0x678n)).toBe(0xabcd_1234_5678n);
});
