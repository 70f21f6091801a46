/**
 * The adversarial device (IOTLB mode `'retain'`): each thing that the specification allows to be cached (section "Caching
 * in-memory data structures") is used after memory has changed, outlives every command that is not defined to drop it, and
 * goes with every command that is.
 */
import type { InvalidationEvent } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { BareMetal, DDT, RWXUAD, V, ppn } from './bare-metal.ts';
import { CAPABILITIES, CASES, NOW, PDTV, ddt, firstStage, gvma, pdt, start, vma } from './retain-cases.ts';
import type { Case, Command } from './retain-cases.ts';
import { SV39 } from './world.ts';

const probe = ({ bare, did, pid, iova }: Case, layers: number): bigint | number => {
  const cause = bare.hardware.probe(did, pid ?? -1, 0, Number(iova), 1, layers);
  return cause === 0 ? bare.out : cause;
};
/** The answer does not come into the IOTLB by being asked for. */
const answer = (c: Case): bigint | number => probe(c, 7);

describe.each(Object.entries(CASES).map(([name, c]) => [`${name} (${c.section})`, c] as const))(
  '%s',
  (_, { layer, make, keep, drop }) => {
    test('is used although memory says otherwise, and its layer is named', () => {
      const c = make();
      expect(answer(c)).toBe(c.old);
      expect(probe(c, 7 & ~layer)).toBe(c.now);
      expect(probe(c, layer)).toBe(c.old);
      expect(probe(c, 0)).toBe(c.now);
      c.bare.reaches(c.did, c.iova, c.old, 1, c.pid ?? -1);
    });

    test.each(Object.entries(keep))('stays with %s', (_name, command) => {
      const c = make();
      c.bare.command(...command);
      expect(c.bare.read32(32)).toBe(1);
      expect(answer(c)).toBe(c.old);
      c.bare.reaches(c.did, c.iova, c.old, 1, c.pid ?? -1);
    });

    test.each(Object.entries(drop))('goes with %s, not before a register is read', (_name, command) => {
      const c = make();
      c.bare.command(...command);
      expect(answer(c)).toBe(c.old);
      expect(c.bare.hardware.pendingInvalidations).toBe(1);
      c.bare.read32(84);
      expect(c.bare.hardware.pendingInvalidations).toBe(0);
      expect(answer(c)).toBe(c.now);
      c.bare.reaches(c.did, c.iova, c.now, 1, c.pid ?? -1);
    });

    test('goes with a reset', () => {
      const c = make();
      const ddtp = c.bare.read64(16);
      c.bare.hardware.reset();
      c.bare.write64(16, ddtp);
      expect(answer(c)).toBe(c.now);
    });
  },
);

test('a directory stays through Off, Bare and a new root ("the IOMMU may retain", section ddtp)', () => {
  const c = CASES['a device context']!.make();
  for (const ddtp of [0n, 1n, ppn(c.bare.page()) | 2n]) c.bare.write64(16, ddtp);
  expect(answer(c)).toBe(c.old);
});

test('every device and every page is kept', () => {
  const bare = start();
  const { root } = firstStage(bare, 0n, ppn(0n) | RWXUAD);
  for (let i = 1n; i < 200n; i++) bare.map(root, 3, i << 12n, ppn(i << 13n) | RWXUAD);
  for (let did = 0; did < 64; did++) bare.dc(did, { ta: 1n << 12n, fsc: SV39 | (root >> 12n) });
  for (let i = 0n; i < 200n; i++) bare.reaches(Number(i % 64n), i << 12n, i << 13n);
  bare.memory.writeBytes(DDT, new Uint8Array(4096));
  bare.memory.writeBytes(root, new Uint8Array(4096));
  for (let i = 0n; i < 200n; i++) bare.reaches(Number((i * 7n) % 64n), i << 12n, i << 13n);
});

describe('never kept', () => {
  test('what has V = 0', () => {
    const bare = start();
    bare.faults(5, 0x1000n, 258);
    const root = bare.page();
    const table = bare.page();
    bare.dc(5, { tc: V | PDTV, fsc: (1n << 60n) | (table >> 12n) });
    bare.faults(5, 0x1000n, 266, 1, 3);
    bare.memory.writeU64(table + 48n, V);
    bare.memory.writeU64(table + 56n, SV39 | (root >> 12n));
    bare.faults(5, 0x1000n, 13, 1, 3);
    bare.map(root, 3, 0x1000n, 0n);
    bare.faults(5, 0x1000n, 13, 1, 3);
    bare.map(root, 3, 0x1000n, ppn(NOW) | RWXUAD);
    bare.reaches(5, 0x1000n, NOW, 1, 3);
  });

  test('what led to a fault', () => {
    const bare = start();
    bare.dc(5, { tc: V | (1n << 12n) });
    bare.faults(5, 0x1000n, 259);
    bare.dc(5, {});
    bare.reaches(5, 0x1000n, 0x1000n);
  });
});

describe('commands', () => {
  test('wait for a read of a register: by mmio, by memory, of 32 and of 64 bits; a write is none', () => {
    for (const read of [
      (b: BareMetal) => b.read32(0),
      (b: BareMetal) => b.read64(16),
      (b: BareMetal) => b.hardware.mmio.read(32, 4),
      (b: BareMetal) => b.hardware.mmio.read(16, 8),
    ]) {
      const bare = start();
      for (const command of [vma(), ddt(), [2n, 0n], gvma()] as Command[]) bare.command(...command);
      bare.write32(48, 0);
      expect(bare.hardware.stats.commands).toBe(0);
      expect(bare.hardware.pendingInvalidations).toBe(3);
      read(bare);
      expect(bare.hardware.stats.commands).toBe(4);
      expect(bare.hardware.pendingInvalidations).toBe(0);
    }
  });

  test('behind one that stopped the queue do not count as pending', () => {
    const bare = start();
    bare.command(0x7fn);
    bare.command(...vma());
    expect(bare.hardware.pendingInvalidations).toBe(1);
    bare.read32(0);
    expect(bare.read32(72) & 0x400).toBe(0x400);
    expect(bare.hardware.pendingInvalidations).toBe(0);
  });
});

describe('onInvalidate', () => {
  const ALL = { domain: -1, requester: -1, startPfn: 0, lastPfn: Infinity };
  const EVENTS: readonly [Command, InvalidationEvent][] = [
    [vma(), { ...ALL, name: 'IOTINVAL.VMA', layers: 3 }],
    [vma({ pscid: 5n }), { ...ALL, name: 'IOTINVAL.VMA PSCID=5', layers: 3, domain: 5 }],
    [
      vma({ pscid: 5n, addr: 0x1000n }),
      { ...ALL, name: 'IOTINVAL.VMA PSCID=5 ADDR=0x1000', layers: 1, domain: 5, startPfn: 1, lastPfn: 1 },
    ],
    [
      vma({ pscid: 5n, addr: 0x1000n, nl: true }),
      { ...ALL, name: 'IOTINVAL.VMA PSCID=5 ADDR=0x1000 NL', layers: 3, domain: 5, startPfn: 1, lastPfn: 1 },
    ],
    [
      vma({ pscid: 5n, addr: 0x5000n, s: true }),
      { ...ALL, name: 'IOTINVAL.VMA PSCID=5 ADDR=0x4000 S (4 pages)', layers: 1, domain: 5, startPfn: 4, lastPfn: 7 },
    ],
    [gvma({ addr: 0x1000n }), { ...ALL, name: 'IOTINVAL.GVMA', layers: 3 }],
    [
      gvma({ gscid: 7n, addr: 0x1000n }),
      { ...ALL, name: 'IOTINVAL.GVMA GSCID=7 ADDR=0x1000', layers: 1, domain: 7, startPfn: 1, lastPfn: 1 },
    ],
    [ddt(), { ...ALL, name: 'IODIR.INVAL_DDT', layers: 4 }],
    [ddt(9n), { ...ALL, name: 'IODIR.INVAL_DDT DID=0x9', layers: 4, requester: 9 }],
    [pdt(9n, 3n), { ...ALL, name: 'IODIR.INVAL_PDT PID=3 DID=0x9', layers: 4, requester: 9 }],
  ];

  test.each(['none', 'sized', 'unbounded', 'retain'] as const)('each command once it is executed: %s', (mode) => {
    for (const [command, event] of EVENTS) {
      const bare = new BareMetal({ capabilities: CAPABILITIES }, { mode }).enable();
      const events: InvalidationEvent[] = [];
      bare.hardware.onInvalidate = (e) => events.push(e);
      bare.command(...command);
      expect(events.length).toBe(mode === 'retain' ? 0 : 1);
      bare.read32(32);
      expect(events).toEqual([event]);
    }
  });

  test('a fence is none, nor is a command that is illegal; a reset is', () => {
    const bare = start();
    const events: string[] = [];
    bare.hardware.onInvalidate = ({ name }) => events.push(name);
    bare.command(2n);
    bare.command(3n | (1n << 12n));
    bare.read32(32);
    expect(events).toEqual([]);
    bare.hardware.reset();
    expect(events).toEqual(['reset']);
  });
});
