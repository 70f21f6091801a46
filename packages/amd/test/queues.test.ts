/** Registers, command buffer, event log and interrupts on a bare unit. */
import { IommuError } from '@iommu-ts/bits';
import { describe, expect, test } from 'vitest';
import { AMD_PRESETS, AmdIommu } from '../src/index.ts';
import {
  Bare,
  CMD_HEAD,
  CMD_TAIL,
  COMMANDS,
  CONTROL,
  EVENTS,
  EVT_HEAD,
  EVT_TAIL,
  RAM_END,
  READ,
  RING,
  RUNNING,
  RW,
  STATUS,
  STORE,
  WRITE,
} from './bare.ts';

const ALL_FEATURES = (1n << 0n) | (1n << 1n) | (1n << 4n) | (1n << 6n) | (1n << 7n) | (2n << 10n) | (1n << 46n);
const WAIT = 0x1000_0000_0000_0000n;

/** Code of the error that `make` throws. */
const code = (make: () => unknown): string => {
  try {
    make();
    return 'made';
  } catch (error) {
    return (error as IommuError).code;
  }
};

/** Interrupts of a unit, as they come. */
const sources = (bare: Bare): string[] => {
  const seen: string[] = [];
  bare.unit.onInterrupt = (source) => seen.push(source);
  return seen;
};

describe('registers', () => {
  test('read back what can be written, by halves and whole', () => {
    const { mmio } = new Bare({}, 0n).unit;
    mmio.write32(0x0, 0x0180_01ff);
    mmio.write32(0x4, 0xffff_ffff | 0);
    expect([mmio.read32(0x0), mmio.read32(0x4)]).toEqual([0x0180_01ff, 0x000f_ffff]);
    mmio.write64(0x8, -1, -1);
    mmio.read64(0x8);
    expect([mmio.hi >>> 0, mmio.lo >>> 0]).toEqual([0x0f0f_ffff, 0xffff_f000]);
    mmio.write64(0x2000, -1, -1);
    mmio.read64(0x2000);
    expect([mmio.hi >>> 0, mmio.lo >>> 0]).toEqual([0, 0x7_fff0]);
    mmio.write64(0x28, -1, -1);
    mmio.read64(0x28);
    expect([mmio.hi >>> 0, mmio.lo >>> 0]).toEqual([0x000f_ffff, 0xffff_f000]);
  });

  test('feature registers are read-only and as constructed', () => {
    const bare = new Bare({ efr: ALL_FEATURES });
    bare.write64(0x30, 0n);
    bare.write64(0x1a0, 0xffffn);
    expect([bare.read64(0x30), bare.read64(0x1a0)]).toEqual([ALL_FEATURES, 0n]);
  });

  test('enables exist with their features only', () => {
    const all = 0xffff_ffff_ffff_ffffn;
    const control = (efr: bigint): bigint => {
      const bare = new Bare({ efr }, 0n);
      bare.write64(CONTROL, all);
      return bare.read64(CONTROL);
    };
    expect(control(0n)).toBe(0x1fffn);
    expect(control(1n << 1n)).toBe(0xffffn);
    expect(control(1n << 4n)).toBe(0x1_1fffn);
    expect(control(1n << 7n)).toBe(0x2_1fffn);
    expect(control(3n << 38n)).toBe(0x1c_0000_1fffn);
  });

  test('registers of absent features read as zero and ignore writes', () => {
    const bare = new Bare({ efr: 0n });
    for (const offset of [0x38, 0x100, 0x158, 0x160, 0x2030, 0x2038]) {
      bare.write64(offset, 0xffff_ffff_ffff_ffffn);
      expect(bare.read64(offset), offset.toString(16)).toBe(0n);
    }
  });

  test('reset', () => {
    const bare = new Bare();
    bare.paging(1, 1, bare.tables(1, 0x1000n, 1n | 0x5000n | RW));
    bare.access(1, 0x1000n, READ);
    bare.access(1, 0x2000n, READ);
    bare.command(WAIT);
    bare.unit.reset();
    expect([0x0, CONTROL, CMD_HEAD, CMD_TAIL, EVT_TAIL, STATUS].map((r) => bare.read64(r))).toEqual([
      0n,
      0n,
      0n,
      0n,
      0n,
      0n,
    ]);
    expect([bare.read64(0x8), bare.read64(0x10)]).toEqual([8n << 56n, 8n << 56n]);
    expect(bare.unit.iotlb.size).toBe(0);
    expect(Object.values(bare.unit.stats)).toEqual([0, 0, 0, 0, 0, 0]);
    expect(bare.access(1, 0x2000n, READ)).toBe(0x2000n);
  });

  test('what this version does not have is refused at construction', () => {
    const { memory } = new Bare();
    for (const bit of [2n, 3n, 9n, 16n, 21n, 24n, 28n, 42n, 48n, 49n, 50n, 52n, 55n, 63n]) {
      expect(
        code(() => new AmdIommu(memory, { efr: 1n << bit })),
        `bit ${bit}`,
      ).toBe('EOPNOTSUPP');
    }
    expect(code(() => new AmdIommu(memory, { efr2: 1n }))).toBe('EOPNOTSUPP');
    expect(code(() => new AmdIommu(memory, { efr: 3n << 10n }))).toBe('EINVAL');
    for (const preset of Object.values(AMD_PRESETS)) expect(code(() => new AmdIommu(memory, preset))).toBe('made');
    expect(AMD_PRESETS.default.efr & (1n << 4n), 'GTSup').toBe(0n);
  });
});

describe('command buffer', () => {
  test('Status tells when it runs', () => {
    const bare = new Bare({}, 0n);
    const run = () => bare.read64(STATUS) & 0x18n;
    expect(run()).toBe(0n);
    bare.write64(CONTROL, 0x1004n);
    expect(run()).toBe(0n);
    bare.write64(CONTROL, 0x1005n);
    expect(run()).toBe(0x18n);
    bare.write64(CONTROL, 0x0005n);
    expect(run()).toBe(0x08n);
    bare.write64(CONTROL, 0x1001n);
    expect(run()).toBe(0x10n);
    bare.write64(CONTROL, 0n);
    expect(run()).toBe(0n);
    // A length below 8 is reserved: nothing starts.
    bare.write64(0x8, COMMANDS | (7n << 56n));
    bare.write64(0x10, EVENTS);
    bare.write64(CONTROL, 0x1005n);
    expect(run()).toBe(0n);
  });

  test('commands wait until the buffer is enabled', () => {
    const bare = new Bare({}, 0n);
    bare.command(WAIT | STORE | 1n, 0x1122_3344_5566_7788n);
    expect(bare.memory.readU64(STORE)).toBe(0n);
    bare.write64(CONTROL, RUNNING);
    expect(bare.memory.readU64(STORE)).toBe(0x1122_3344_5566_7788n);
    expect(bare.read64(CMD_HEAD)).toBe(0x10n);
  });

  test('COMPLETION_WAIT stores, interrupts, or neither', () => {
    const bare = new Bare();
    bare.command(WAIT | STORE | 4n, 1n);
    expect(bare.memory.readU64(STORE)).toBe(0n);
    expect(bare.read64(STATUS) & 4n).toBe(0n);
    bare.command(WAIT | (STORE + 8n) | 3n, 0xdead_beef_cafe_f00dn);
    expect(bare.memory.readU64(STORE + 8n)).toBe(0xdead_beef_cafe_f00dn);
    expect(bare.read64(STATUS) & 4n).toBe(4n);
    bare.write64(STATUS, 4n);
    expect(bare.read64(STATUS) & 4n).toBe(0n);
  });

  test('wraps around', () => {
    const bare = new Bare();
    for (let i = 1; i <= 3 * RING + 5; i++) {
      bare.command(WAIT | STORE | 1n, BigInt(i));
      expect(bare.memory.readU64(STORE)).toBe(BigInt(i));
      expect(bare.read64(CMD_HEAD)).toBe(BigInt(16 * (i % RING)));
    }
    expect(bare.read64(CMD_HEAD)).toBe(0x50n);
    expect(bare.unit.stats.commands).toBe(3 * RING + 5);
  });

  test('many commands behind one doorbell, across the end of the ring', () => {
    const bare = new Bare({}, 0n);
    bare.write64(CMD_HEAD, 0xf00n);
    for (let i = 0; i < 32; i++) {
      const at = COMMANDS + BigInt((0xf00 + 16 * i) % 0x1000);
      bare.memory.writeU64(at, WAIT | (STORE + BigInt(8 * i)) | 1n);
      bare.memory.writeU64(at + 8n, BigInt(i + 1));
    }
    bare.write64(CMD_TAIL, 0x100n);
    bare.write64(CONTROL, RUNNING);
    for (let i = 0; i < 32; i++) expect(bare.memory.readU64(STORE + BigInt(8 * i))).toBe(BigInt(i + 1));
    expect(bare.read64(CMD_HEAD)).toBe(0x100n);
  });

  test.each<[string, bigint, bigint]>([
    ['opcode 0', 0n, 0n],
    ['opcode 9', 0x9000_0000_0000_0000n, 0n],
    ['opcode 15', 0xf000_0000_0000_0000n, 0n],
    ['COMPLETION_WAIT, bit 52', WAIT | (1n << 52n), 0n],
    ['INVALIDATE_DEVTAB_ENTRY, bit 16', 0x2000_0000_0001_0000n, 0n],
    ['INVALIDATE_DEVTAB_ENTRY, second quadword', 0x2000_0000_0000_0000n, 1n],
    ['INVALIDATE_IOMMU_PAGES, bit 48', 0x3001_0000_0000_0000n, 0n],
    ['INVALIDATE_IOMMU_PAGES, bit 67', 0x3000_0000_0000_0000n, 8n],
    ['INVALIDATE_IOMMU_PAGES, GN without GTSup', 0x3000_0000_0000_0000n, 4n],
    ['INVALIDATE_IOMMU_PAGES, PASID without GTSup', 0x3000_0000_0000_0001n, 0n],
    ['INVALIDATE_IOTLB_PAGES without IotlbSup', 0x4000_0000_0000_0000n, 0n],
    ['INVALIDATE_INTERRUPT_TABLE, bit 16', 0x5000_0000_0001_0000n, 0n],
    ['PREFETCH_IOMMU_PAGES without PreFSup', 0x6000_0000_0000_0000n, 0n],
    ['COMPLETE_PPR_REQUEST without PPRSup', 0x7000_0000_0000_0000n, 0n],
    ['INVALIDATE_IOMMU_ALL without IASup', 0x8000_0000_0000_0000n, 0n],
  ])('illegal: %s', (_, low, high) => {
    const bare = new Bare({ efr: 2n << 10n });
    bare.command(WAIT);
    bare.command(low, high);
    bare.command(WAIT | STORE | 1n, 7n);
    // Stopped at the command, which the event names; nothing behind it is executed.
    expect(bare.events()).toEqual([[0x5000_0000_0000_0000n, COMMANDS + 0x10n]]);
    expect(bare.read64(STATUS) & 0x10n).toBe(0n);
    expect(bare.read64(CMD_HEAD)).toBe(0x10n);
    expect(bare.memory.readU64(STORE)).toBe(0n);
    // Repaired and enabled anew, it goes on from there.
    bare.memory.writeU64(COMMANDS + 0x10n, WAIT);
    bare.memory.writeU64(COMMANDS + 0x18n, 0n);
    bare.write64(CONTROL, RUNNING & ~0x1000n);
    bare.write64(CONTROL, RUNNING);
    expect(bare.memory.readU64(STORE)).toBe(7n);
    expect(bare.read64(CMD_HEAD)).toBe(0x30n);
  });

  test('commands of features that are there are legal', () => {
    const bare = new Bare({ efr: ALL_FEATURES, iotlbSup: true });
    for (const opcode of [1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n]) bare.command(opcode << 60n);
    bare.command(0x3000_0005_000f_ffffn, 4n);
    expect(bare.events()).toEqual([]);
    expect(bare.read64(CMD_HEAD)).toBe(0x90n);
    expect(bare.unit.stats).toMatchObject({ commands: 9, invalidations: 3 });
  });

  test('COMMAND_HARDWARE_ERROR: a ring, or a store, that nothing answers', () => {
    const bare = new Bare({}, 0n);
    bare.write64(0x8, RAM_END | (8n << 56n));
    bare.write64(CONTROL, RUNNING);
    bare.write64(CMD_TAIL, 0x10n);
    expect(bare.events()).toEqual([[0x6200_0000_0000_0000n, RAM_END]]);
    expect(bare.read64(STATUS) & 0x10n).toBe(0n);

    const other = new Bare();
    other.command(WAIT | (RAM_END + 0x18n) | 1n, 1n);
    expect(other.events()).toEqual([[0x6200_0000_0000_0000n, RAM_END + 0x18n]]);
    expect(other.read64(CMD_HEAD)).toBe(0n);
  });

  test('a command that moves the tail pointer cannot keep the unit busy for ever', () => {
    const bare = new Bare();
    bare.memory.addMmio({ name: 'iommu', base: RAM_END, size: 0x4000n, handler: bare.unit.registers });
    for (let i = 0; i < RING; i++) {
      bare.memory.writeU64(COMMANDS + BigInt(16 * i), WAIT | (RAM_END + 0x2008n) | 1n);
      bare.memory.writeU64(COMMANDS + BigInt(16 * i + 8), BigInt(16 * ((i + 2) % RING)));
    }
    bare.write64(CMD_TAIL, 0x10n);
    expect(bare.unit.stats.commands).toBe(RING);
    expect(bare.events()).toEqual([]);
  });
});

describe('invalidation', () => {
  /** Pages of 4 KiB, of 64 KiB (next level 7) and of 2 MiB, all cached under domain 5; and one under domain 6. */
  const cached = (): Bare => {
    const bare = new Bare();
    const root = bare.table();
    const [middle, low] = [bare.table(), bare.table()];
    bare.entry(root, 3, 0n, 1n | (2n << 9n) | middle | RW);
    bare.entry(middle, 2, 0n, 1n | (1n << 9n) | low | RW);
    for (let i = 0n; i < 16n; i++) bare.entry(low, 1, i << 12n, 1n | (0x100_0000n + (i << 12n)) | RW);
    for (let i = 16n; i < 32n; i++) bare.entry(low, 1, i << 12n, 0xe01n | 0x200_7000n | RW);
    bare.entry(middle, 2, 0x20_0000n, 1n | 0x4000_0000n | RW);
    bare.paging(1, 3, root, 5n);
    bare.paging(2, 3, root, 6n);
    for (const iova of PLACES) bare.access(1, iova, READ);
    bare.access(2, 0n, READ);
    expect(bare.unit.iotlb.size).toBe(PLACES.length + 1);
    // From now on whatever is not cached faults.
    bare.memory.writeU64(root, 0n);
    return bare;
  };
  const PLACES = [...Array.from({ length: 16 }, (_, i) => BigInt(i) << 12n), 0x1_0000n, 0x20_0000n];
  const gone = (bare: Bare): bigint[] => PLACES.filter((iova) => bare.access(1, iova, READ) === 2);

  test.each<[string, bigint, bigint[]]>([
    ['one page', 0x3000n, [0x3000n]],
    ['one page in a 64 KiB page', 0x1_f000n, [0x1_0000n]],
    ['one page in a 2 MiB page', 0x3f_f000n, [0x20_0000n]],
    ['8 KiB', 0x4000n | 1n, [0x4000n, 0x5000n]],
    ['16 KiB', 0x9000n | 1n, [0x8000n, 0x9000n, 0xa000n, 0xb000n]],
    ['64 KiB', 0x7000n | 1n, PLACES.slice(0, 16)],
    ['64 KiB, the second', 0x1_7000n | 1n, [0x1_0000n]],
    ['128 KiB', 0xf000n | 1n, PLACES.slice(0, 17)],
    ['4 MiB', 0x1f_f000n | 1n, PLACES],
    ['16 GiB', 0x1_ffff_f000n | 1n, PLACES],
    ['a page elsewhere', 0x40_0000n, []],
    ['4 MiB elsewhere', 0x5f_f000n | 1n, []],
    ['everything', 0x7fff_ffff_ffff_f000n | 3n, PLACES],
    ['everything, no zero in the address', 0xffff_ffff_ffff_f000n | 3n, PLACES],
  ])('INVALIDATE_IOMMU_PAGES: %s', (_, high, expected) => {
    const bare = cached();
    bare.command(0x3000_0005_0000_0000n, high);
    expect(gone(bare)).toEqual(expected);
    expect(bare.access(2, 0n, READ), 'the other domain').toBe(0x100_0000n);
  });

  test('other domains and other commands touch nothing', () => {
    const bare = cached();
    bare.command(0x3000_0006_0000_0000n, 0x7fff_ffff_ffff_f003n);
    bare.command(0x2000_0000_0000_0001n);
    bare.command(0x5000_0000_0000_0001n);
    expect(gone(bare)).toEqual([]);
    expect(bare.access(2, 0n, READ)).toBe(2);
  });

  test('INVALIDATE_IOMMU_ALL', () => {
    const bare = cached();
    bare.command(0x8000_0000_0000_0000n);
    expect(bare.unit.iotlb.size).toBe(0);
    expect(gone(bare)).toEqual(PLACES);
    expect(bare.access(2, 0n, READ)).toBe(2);
  });
});

describe('event log', () => {
  test('overflow: the last free entry stays free, logging stops until enabled anew', () => {
    const bare = new Bare();
    bare.dte(1, 1n);
    for (let i = 0; i < RING + 3; i++) bare.access(1, BigInt(i) << 12n, WRITE);
    expect(bare.read64(EVT_TAIL)).toBe(BigInt(16 * (RING - 1)));
    expect(bare.read64(STATUS)).toBe(0x13n);
    expect(bare.unit.stats.faults).toBe(RING + 3);
    const events = bare.events();
    expect(events.map(([, high]) => high >> 12n)).toEqual(Array.from({ length: RING - 1 }, (_, i) => BigInt(i)));
    // Room again, but logging stands still.
    bare.access(1, 0xabc000n, WRITE);
    expect(bare.events()).toEqual([]);
    bare.write64(STATUS, 3n);
    expect(bare.read64(STATUS)).toBe(0x10n);
    bare.write64(CONTROL, RUNNING & ~4n);
    bare.write64(CONTROL, RUNNING);
    expect(bare.read64(STATUS)).toBe(0x18n);
    bare.access(1, 0xdef000n, WRITE);
    expect(bare.events()).toEqual([[0x2020_0000_0000_0001n, 0xdef000n]]);
  });

  test('wraps around while software keeps up', () => {
    const bare = new Bare();
    bare.dte(1, 1n);
    for (let i = 0; i < 3 * RING; i++) {
      bare.access(1, BigInt(i) << 12n, READ);
      expect(bare.events()).toEqual([[0x2000_0000_0000_0001n, BigInt(i) << 12n]]);
    }
    expect(bare.read64(STATUS) & 1n).toBe(0n);
  });

  test('off: faults are refused all the same, nothing is written', () => {
    const bare = new Bare({}, 0x1001n);
    bare.dte(1, 1n);
    expect(bare.access(1, 0x1000n, WRITE)).toBe(2);
    expect(bare.read64(EVT_TAIL)).toBe(0n);
    expect(bare.memory.readU64(EVENTS)).toBe(0n);
  });

  test('a log outside memory loses its entries and does no harm', () => {
    const bare = new Bare({}, 0n);
    bare.write64(0x10, RAM_END | (8n << 56n));
    bare.write64(CONTROL, RUNNING);
    bare.dte(1, 1n);
    expect(bare.access(1, 0x1000n, WRITE)).toBe(2);
    expect(bare.read64(EVT_TAIL)).toBe(0x10n);
  });

  test('the base may be changed while stopped', () => {
    const bare = new Bare();
    bare.write64(CONTROL, RUNNING & ~4n);
    bare.write64(0x10, 0x50_0000n | (9n << 56n));
    bare.write64(EVT_HEAD, 0x1ff0n);
    bare.write64(EVT_TAIL, 0x1ff0n);
    bare.write64(CONTROL, RUNNING);
    bare.dte(1, 1n);
    bare.access(1, 0x1000n, READ);
    expect(bare.memory.readU64(0x50_1ff0n)).toBe(0x2000_0000_0000_0001n);
    expect(bare.read64(EVT_TAIL)).toBe(0n);
  });
});

describe('interrupts', () => {
  test('one for a cause that rises, with its enable only', () => {
    const bare = new Bare();
    const seen = sources(bare);
    bare.dte(1, 1n);
    bare.access(1, 0n, READ);
    bare.command(WAIT | 2n);
    expect(seen).toEqual([]);
    // Enabled while the causes stand: they rise now.
    bare.write64(CONTROL, RUNNING | 0x18n);
    expect(seen).toEqual(['fault', 'cmdq']);
    bare.access(1, 0n, READ);
    bare.command(WAIT | 2n);
    expect(seen).toHaveLength(2);
    bare.write64(STATUS, 2n);
    bare.access(1, 0n, READ);
    bare.write64(STATUS, 4n);
    bare.command(WAIT | 2n);
    expect(seen).toEqual(['fault', 'cmdq', 'fault', 'cmdq']);
  });

  test('an overflow interrupts too', () => {
    const bare = new Bare({}, RUNNING | 8n);
    const seen = sources(bare);
    bare.dte(1, 1n);
    for (let i = 0; i < RING + 5; i++) bare.access(1, 0n, READ);
    expect(seen).toEqual(['fault', 'fault']);
  });

  test('the message is a memory write where the MSI capability is enabled', () => {
    const bare = new Bare({}, RUNNING | 0x10n);
    const { mmio } = bare.unit;
    mmio.write32(0x15c, 0x0080_0000);
    mmio.write32(0x160, 0);
    mmio.write32(0x164, 0x4123);
    bare.command(WAIT | 2n);
    expect(bare.memory.read(0x80_0000n, 4)).toBe(0n);
    mmio.write32(0x158, 1 << 16);
    expect(mmio.read32(0x158)).toBe(0x0081_0005);
    bare.write64(STATUS, 4n);
    bare.command(WAIT | 2n);
    expect(bare.memory.read(0x80_0000n, 4)).toBe(0x4123n);
  });
});
