/**
 * The adversarial DART (IOTLB mode `'retain'`): what is kept for a stream is used after memory or a TTBR has changed, outlives
 * every flush of other streams, and goes with a flush of its own, but only when software next reads a register.
 */
import type { InvalidationEvent } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { DART_PARTS } from '../src/parts.ts';
import type { DartPreset } from '../src/parts.ts';
import { R } from './rig.ts';
import { DartWorld } from './world.ts';

const PRESETS = Object.keys(DART_PARTS) as DartPreset[];
const [LEAF, TABLE, CONTEXT] = [1, 2, 4];

/** `change` has been made; stream 1 still answers `old` at `iova`, and memory and registers say `now`. */
interface Case {
  readonly world: DartWorld;
  readonly iova: bigint;
  readonly old: string;
  readonly now: string;
}

/** An IOVA for which the top table has nothing: no table below it comes to be kept. */
const nothingAt = (world: DartWorld, preset: DartPreset): bigint =>
  preset === 't6020' ? 1n << 37n : 3n * world.page * (world.page / 8n);

const CASES: Record<string, { layer: number; make(preset: DartPreset): Case }> = {
  'a translation': {
    layer: LEAF,
    make: (preset) => {
      const world = new DartWorld(preset, { mode: 'retain' });
      world.bare.go(1, 0n);
      world.memory.writeU64(world.entries[0]!, world.entry(0x3000_0000n));
      return { world, iova: 0n, old: '-> 10000000', now: '-> 30000000' };
    },
  },
  'a table entry': {
    layer: TABLE,
    make: (preset) => {
      const world = new DartWorld(preset, { mode: 'retain' });
      world.bare.go(1, 0n);
      const table = world.table();
      const { page } = world;
      world.memory.writeU64(table + 32n, world.entry(0x3000_0000n));
      // Entries are put leaves first: six of each leaf table, then those that point to the leaf tables.
      world.memory.writeU64(world.entries[12]!, world.entry(table));
      const old = (0x1000_0000n + 4n * page).toString(16);
      return { world, iova: 4n * page, old: `-> ${old}`, now: '-> 30000000' };
    },
  },
  'a top table': {
    layer: CONTEXT,
    make: (preset) => {
      const world = new DartWorld(preset, { mode: 'retain' });
      world.bare.go(1, nothingAt(world, preset));
      world.ttbr(1, 0, world.roots[1]);
      return { world, iova: 0n, old: '-> 10000000', now: '-> 20000000' };
    },
  },
  'a top table that has gone': {
    layer: CONTEXT,
    make: (preset) => {
      const world = new DartWorld(preset, { mode: 'retain' });
      world.bare.go(1, nothingAt(world, preset));
      world.ttbr(1, 0, null);
      return { world, iova: 0n, old: '-> 10000000', now: 'code 1' };
    },
  },
  'that nothing was there': {
    layer: LEAF,
    make: (preset) => {
      const world = new DartWorld(preset, { mode: 'retain' });
      const iova = 5n * world.page;
      const old = `code ${-Number(world.bare.go(1, iova))}`;
      world.memory.writeU64(world.entries[5]!, world.entry(0x3000_0000n));
      return { world, iova, old, now: '-> 30000000' };
    },
  },
  'that no table was there': {
    layer: LEAF,
    make: (preset) => {
      const world = new DartWorld(preset, { mode: 'retain' });
      const iova = 3n * world.page * (world.page / 8n);
      const old = `code ${-Number(world.bare.go(1, iova))}`;
      const table = world.table();
      world.memory.writeU64(table, world.entry(0x3000_0000n));
      world.memory.writeU64(world.entries[12]! + 24n, world.entry(table));
      return { world, iova, old, now: '-> 30000000' };
    },
  },
};

const look = (c: Case, layers: number): string =>
  c.world.probe({ stream: 1, iova: c.iova, access: R, length: 1 }, layers);
const go = (c: Case): string => c.world.translate({ stream: 1, iova: c.iova, access: R, length: 1 });

describe.each(PRESETS)('%s', (preset) => {
  describe.each(Object.entries(CASES))('%s', (_, { layer, make }) => {
    test('is used, and its layer is named', () => {
      const c = make(preset);
      expect(look(c, 7)).toBe(c.old);
      expect(look(c, layer)).toBe(c.old);
      expect(look(c, 7 & ~layer)).toBe(c.now);
      expect(look(c, 0)).toBe(c.now);
      expect(go(c)).toBe(c.old);
    });

    test('stays with a flush of other streams, with reads, and with TCR and enables written', () => {
      const c = make(preset);
      c.world.flush(0, 2, 3);
      c.world.read();
      c.world.tcr(1, 'off');
      expect(go(c)).toBe('code 1');
      c.world.tcr(1, 'bypass');
      expect(go(c)).toBe(`-> ${c.iova.toString(16)}`);
      c.world.tcr(1, 'translate');
      expect(go(c)).toBe(c.old);
    });

    test('goes with a flush of its stream, once a register is read', () => {
      const c = make(preset);
      c.world.flush(1);
      expect(go(c)).toBe(c.old);
      expect(c.world.bare.dart.pendingInvalidations).toBe(1);
      c.world.read();
      expect(c.world.bare.dart.pendingInvalidations).toBe(0);
      expect(go(c)).toBe(c.now);
    });

    test('goes with a flush of all streams, and with a reset', () => {
      const flushed = make(preset);
      if (flushed.world.t8110) flushed.world.bare.wr(0x80, 0);
      else flushed.world.flush(...Array(16).keys());
      flushed.world.read();
      expect(go(flushed)).toBe(flushed.now);
      const reset = make(preset);
      const { words } = reset.world.bare.dart.registers;
      const before = Int32Array.from(words);
      reset.world.bare.dart.reset();
      for (let at = 0; at < before.length; at++) if (words[at] !== before[at]) reset.world.bare.wr(4 * at, before[at]!);
      expect(go(reset)).toBe(reset.now);
    });
  });

  test('streams have their own', () => {
    const world = new DartWorld(preset, { mode: 'retain' });
    for (const stream of [1, 2]) world.bare.go(stream, 0n);
    world.memory.writeU64(world.entries[0]!, 0n);
    world.flush(1);
    world.read();
    expect(world.bare.go(1, 0n)).toBeLessThan(0);
    expect(world.bare.go(2, 0n)).toBe(0x1000_0000n);
  });

  test('a TTBR that is not valid is not kept', () => {
    const world = new DartWorld(preset, { mode: 'retain' });
    expect(world.bare.go(7, 0n)).toBe(-1);
    world.ttbr(7, 0, world.roots[0]);
    expect(world.bare.go(7, 0n)).toBe(0x1000_0000n);
  });

  test('BUSY stands until the read after the command, and with busyReads as long as that says', () => {
    const world = new DartWorld(preset, { mode: 'retain' });
    const [register, busy] = world.t8110 ? [0x80, 0x8000_0000] : [0x20, 4];
    world.flush(1);
    expect(world.bare.dart.registers.words[register >> 2]! >>> 0).toBe(busy);
    expect(world.bare.rd(register)).toBe(0);
    expect(world.bare.dart.stats.invalidations).toBe(1);
  });
});

describe('onInvalidate', () => {
  const event = (name: string, requester: number): InvalidationEvent => ({
    name,
    layers: 7,
    domain: -1,
    requester,
    startPfn: 0,
    lastPfn: Infinity,
  });

  test.each(['none', 'sized', 'unbounded', 'retain'] as const)('stream by stream, once done: %s', (mode) => {
    const world = new DartWorld('t8103', { mode });
    const events: InvalidationEvent[] = [];
    world.bare.dart.onInvalidate = (e) => events.push(e);
    world.flush(1, 4);
    expect(events.length).toBe(mode === 'retain' ? 0 : 2);
    world.read();
    expect(events).toEqual([event('STREAM_COMMAND INVALIDATE stream 1', 1), event('STREAM_COMMAND INVALIDATE stream 4', 4)]); // prettier-ignore
    events.length = 0;
    // All streams are no less named: a domain may have them all.
    world.flush(...Array(16).keys());
    world.read();
    expect(events.map((e) => e.requester)).toEqual([...Array(16).keys()]);
    events.length = 0;
    world.bare.dart.reset();
    expect(events).toEqual([event('reset', -1)]);
  });

  test('t8110: one stream, or all', () => {
    const world = new DartWorld('t8110', { mode: 'retain' });
    const events: InvalidationEvent[] = [];
    world.bare.dart.onInvalidate = (e) => events.push(e);
    for (const command of [0x100 | 200, 0, 0x200]) {
      world.bare.wr(0x80, command);
      expect(world.bare.dart.pendingInvalidations).toBe(command === 0x200 ? 0 : 1);
      world.read();
    }
    expect(events).toEqual([event('TLB_CMD FLUSH_SID stream 200', 200), event('TLB_CMD FLUSH_ALL', -1)]);
  });
});
