/** A probe answers as the device would, from the caches that it is given, and leaves no trace. */
import { LAYER } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { SmmuV3 } from '../src/index.ts';
import { Bare, CD, EXEC, FULL, PRIV, RAM, READ, STRTAB, TABLES, TABLES2, WRITE, cd0, s2, ste } from './bare.ts';

const MODES = ['none', 'sized', 'retain'] as const;
const LAYERS = [0, 1, 2, 3, 4, 5, 6, 7];
const IPA_CD = 0x20_0000n;

/** Everything that software or a later transaction could see, but the answer's address. */
const trace = (bare: Bare): unknown => {
  const { unit, memory } = bare;
  const { iotlb } = unit;
  const words = [STRTAB, 0x20_0000n, 0x21_0000n, CD, TABLES, TABLES2].map((at) =>
    Array.from({ length: 12 }, (_, page) => {
      memory.locate(Number(at >> 12n) + page, true);
      return Buffer.from(memory.view.slice(memory.index, memory.index + 1024).buffer).toString('latin1');
    }),
  );
  const entries: string[] = [];
  for (let tag = -1; tag < 8; tag++) {
    for (let page = 0; page < 16; page++) {
      if (!iotlb.peek(tag, 0, page << 12)) continue;
      entries.push(`${tag}:${page} ${iotlb.outHi}:${iotlb.outLo} ${iotlb.perm} ${iotlb.extra} ${iotlb.sizeLg2}`);
    }
  }
  return {
    registers: [...unit.registers.words],
    words,
    entries,
    interrupts: [...bare.interrupts],
    stats: { ...unit.stats },
    iotlb: [iotlb.size, iotlb.hits, iotlb.misses, iotlb.evictions, iotlb.invalidated],
    retained: unit.retained,
    pending: unit.pendingInvalidations,
  };
};

const probe = (unit: SmmuV3, iova: bigint, access: number, sid: number, pasid: number, layers: number): string => {
  const hi = Number(BigInt.asIntN(32, iova >> 32n));
  const event = unit.probe(sid, pasid, hi, Number(BigInt.asIntN(32, iova)), access, layers);
  return event === 0 ? `${unit.outHi}:${unit.outLo}` : `event ${event}`;
};

const use = (unit: SmmuV3, iova: bigint, access: number, sid: number, pasid: number): string => {
  const hi = Number(BigInt.asIntN(32, iova >> 32n));
  const event = unit.translate(sid, pasid, hi, Number(BigInt.asIntN(32, iova)), access);
  return event === 0 ? `${unit.outHi}:${unit.outLo}` : `event ${event}`;
};

/** A device without a past over the memory and registers of `bare`. */
const fresh = (bare: Bare): SmmuV3 => {
  const unit = new SmmuV3(bare.memory, { ids: FULL, iotlb: { mode: 'none' } });
  unit.registers.words.set(bare.unit.registers.words);
  return unit;
};

interface Access {
  readonly what: string;
  readonly iova: bigint;
  readonly access: number;
  readonly sid: number;
  readonly pasid?: number;
}

/** Streams of every kind, and faults of every kind that a translation can end in. */
const ACCESSES: readonly Access[] = [
  { what: 'bypass', iova: 0x1234n, access: READ, sid: 0 },
  { what: 'stage 1', iova: 0x5008n, access: READ, sid: 1 },
  { what: 'stage 1, write', iova: 0x5008n, access: WRITE, sid: 1 },
  { what: 'F_PERMISSION', iova: 0x6000n, access: WRITE, sid: 1 },
  { what: 'F_PERMISSION, execute', iova: 0x6000n, access: READ | EXEC, sid: 1 },
  { what: 'privileged', iova: 0x6000n, access: READ | PRIV, sid: 1 },
  { what: 'F_TRANSLATION', iova: 0x7000n, access: READ, sid: 1 },
  { what: 'F_TRANSLATION, outside TTB0', iova: 1n << 50n, access: READ, sid: 1 },
  { what: 'F_ACCESS', iova: 0x8000n, access: READ, sid: 1 },
  { what: 'F_ADDR_SIZE', iova: 0x9000n, access: READ, sid: 1 },
  { what: 'F_WALK_EABT', iova: 0x4000_0000n, access: READ, sid: 1 },
  { what: 'stage 2', iova: 0x5000n, access: READ, sid: 2 },
  { what: 'stage 2, F_TRANSLATION', iova: 0x7000n, access: READ, sid: 2 },
  { what: 'stage 2, F_PERMISSION', iova: 0x6000n, access: WRITE, sid: 2 },
  { what: 'nested', iova: 0x5000n, access: READ, sid: 3 },
  { what: 'nested, F_TRANSLATION of stage 1', iova: 0x7000n, access: READ, sid: 3 },
  { what: 'nested, F_TRANSLATION of stage 2', iova: 0x6000n, access: READ, sid: 3 },
  { what: 'nested, F_TRANSLATION of a table', iova: 0x4000_0000n, access: READ, sid: 3 },
  { what: 'aborted', iova: 0x5000n, access: READ, sid: 4 },
  { what: 'C_BAD_STE', iova: 0x5000n, access: READ, sid: 5 },
  { what: 'C_BAD_CD', iova: 0x5000n, access: READ, sid: 6 },
  { what: 'F_CD_FETCH', iova: 0x5000n, access: READ, sid: 7 },
  { what: 'F_TRANSLATION of a CD', iova: 0x5000n, access: READ, sid: 8 },
  { what: 'C_BAD_STREAMID', iova: 0x5000n, access: READ, sid: 256 },
  { what: 'C_BAD_SUBSTREAMID', iova: 0x5000n, access: READ, sid: 1, pasid: 3 },
  { what: 'bypass beyond OAS', iova: 1n << 50n, access: READ, sid: 0 },
  { what: 'substream', iova: 0x5000n, access: READ, sid: 9, pasid: 1 },
  { what: 'F_STREAM_DISABLED', iova: 0x5000n, access: READ, sid: 9 },
];

const system = (mode: (typeof MODES)[number]): Bare => {
  const bare = new Bare(FULL, { mode }).enable();
  bare.stage1();
  bare.stream(0, ste(4));
  bare.page(5, RAM);
  bare.page(6, RAM + 0x1000n, (1n << 54n) | 0xcc3n);
  bare.page(8, RAM, 0x843n);
  bare.page(9, 1n << 46n, 0xc43n);
  // CD.IPS of 44 bits, so that 1 << 46 is too wide.
  bare.put(CD, [(cd0(3) & ~(7n << 32n)) | (4n << 32n)]);
  bare.memory.writeU64(TABLES + 0x1008n, 0x80_0000_0003n);
  bare.stream(2, ste(6, [0n, 0n, s2(25, 1), TABLES2]));
  bare.stage2Tables();
  bare.page2(5, RAM);
  bare.page2(6, RAM, 0x77fn);
  // Nested: CD 1 at CD + 0x1000, tables at TABLES + 0x8000.
  bare.stream(3, ste(7, [CD + 0x1000n, 0n, s2(25, 1, 0, 9), TABLES2 + 0x8000n]));
  bare.put(CD + 0x1000n, [cd0(5), TABLES + 0x8000n]);
  const nested = TABLES + 0x8000n;
  for (let level = 0n; level < 3n; level++)
    bare.memory.writeU64(nested + 0x1000n * level, (nested + 0x1000n * (level + 1n)) | 3n);
  bare.memory.writeU64(nested + 0x1008n, 0x7000_0003n);
  bare.memory.writeU64(nested + 0x3000n + 40n, 0x5000n | 0xc43n);
  bare.memory.writeU64(nested + 0x3000n + 48n, 0x6000n | 0xc43n);
  const t2 = TABLES2 + 0x8000n;
  bare.memory.writeU64(t2, (t2 + 0x1000n) | 3n);
  bare.memory.writeU64(t2 + 0x1000n, (t2 + 0x2000n) | 3n);
  bare.memory.writeU64(t2 + 0x1008n, IPA_CD | 0x7fdn);
  bare.memory.writeU64(t2 + 0x2000n + 40n, RAM | 0x7ffn);
  bare.stream(4, ste(0));
  bare.stream(6, ste(5, [CD + 0x2000n]));
  bare.stream(7, ste(5, [0x80_0000_0000n]));
  bare.stream(8, ste(7, [0x6000_0000n, 0n, s2(25, 1, 0, 9), t2]));
  // S1CDMax 2, linear: substreams 0 to 3.
  bare.stream(9, ste(5, [(CD + 0x3000n) | (2n << 59n)]));
  bare.put(CD + 0x3040n, [cd0(6), TABLES]);
  return bare;
};

describe.each(MODES)('IOTLB %s', (mode) => {
  test('the accesses end as they are called', () => {
    const bare = system(mode);
    const events = new Map(ACCESSES.map((a) => [a.what, use(bare.unit, a.iova, a.access, a.sid, a.pasid ?? -1)]));
    const expected: readonly (readonly [string, number])[] = [
      ['F_PERMISSION', 0x13],
      ['F_TRANSLATION', 0x10],
      ['F_ACCESS', 0x12],
      ['F_ADDR_SIZE', 0x11],
      ['F_WALK_EABT', 0x0b],
      ['C_BAD_STE', 4],
      ['C_BAD_CD', 0xa],
      ['F_CD_FETCH', 9],
      ['C_BAD_STREAMID', 2],
      ['C_BAD_SUBSTREAMID', 8],
      ['F_STREAM_DISABLED', 6],
      ['nested, F_TRANSLATION of stage 2', 0x10],
      ['F_TRANSLATION of a CD', 0x10],
      ['stage 2, F_PERMISSION', 0x13],
    ];
    for (const [what, event] of expected) expect([what, events.get(what)]).toEqual([what, `event ${event}`]);
    for (const what of ['bypass', 'stage 1', 'privileged', 'stage 2', 'nested', 'substream'])
      expect([what, events.get(what)]).toEqual([what, expect.stringMatching(/^\d+:\d+$/)]);
  });

  test.each(ACCESSES)('$what', ({ iova, access, sid, pasid = -1 }) => {
    for (const warm of [false, true]) {
      const bare = system(mode);
      if (warm) for (const a of ACCESSES) use(bare.unit, a.iova, a.access, a.sid, a.pasid ?? -1);
      if (mode === 'retain') {
        // Something that waits, and must wait on.
        bare.command(0x11, 99 << 16);
        expect(bare.unit.pendingInvalidations).toBe(1);
      }
      const before = trace(bare);
      const answers = LAYERS.map((layers) => probe(bare.unit, iova, access, sid, pasid, layers));
      expect(trace(bare)).toEqual(before);
      // Nothing is stale: all agree with one another, and with a device that has no cache.
      expect(answers).toEqual(LAYERS.map(() => use(fresh(bare), iova, access, sid, pasid)));
      expect(answers[7]).toBe(use(bare.unit, iova, access, sid, pasid));
    }
  });

  test('a probe does not change which entry is evicted next', () => {
    const order = (probing: boolean): string => {
      const bare = new Bare(FULL, { mode, sets: 1, ways: 2 }).enable();
      bare.stage1();
      for (let i = 0; i < 4; i++) bare.page(i, RAM + 0x1000n * BigInt(i));
      use(bare.unit, 0n, READ, 1, -1);
      use(bare.unit, 0x1000n, READ, 1, -1);
      if (probing) probe(bare.unit, 0n, READ, 1, -1, LAYER.ALL);
      use(bare.unit, 0x2000n, READ, 1, -1);
      return [0, 1, 2].map((i) => bare.unit.iotlb.peek(0, 0, i << 12)).join();
    };
    expect(order(true)).toBe(order(false));
  });
});

describe('which cache an answer comes from', () => {
  /** Event or address for each set of layers, after everything was used once. */
  const answers = (bare: Bare, iova: bigint, sid = 1): string[] =>
    LAYERS.map((layers) => probe(bare.unit, iova, READ, sid, -1, layers));
  const used = (): Bare => {
    const bare = new Bare(FULL, { mode: 'retain' }).enable();
    bare.stage1();
    bare.page(5, RAM);
    bare.page(6, RAM);
    use(bare.unit, 0x5000n, READ, 1, -1);
    return bare;
  };
  const [A, B, F] = [`0:${0x4000_0000}`, `0:${0x4000_1000}`, 'event 16'];

  test('the IOTLB', () => {
    const bare = used();
    bare.page(5, RAM + 0x1000n);
    expect(answers(bare, 0x5000n)).toEqual([B, A, B, A, B, A, B, A]);
    expect(use(bare.unit, 0x5000n, READ, 1, -1)).toBe(A);
  });

  test('the walk cache', () => {
    const bare = used();
    bare.memory.writeU64(TABLES + 0x2000n, 0n);
    expect(answers(bare, 0x6000n)).toEqual([F, F, A, A, F, F, A, A]);
    expect(use(bare.unit, 0x6000n, READ, 1, -1)).toBe(A);
  });

  test('structures', () => {
    const bare = used();
    bare.stream(1, ste(4));
    const bypass = `0:${0x6000}`;
    expect(answers(bare, 0x6000n)).toEqual([bypass, bypass, bypass, bypass, A, A, A, A]);
    expect(use(bare.unit, 0x6000n, READ, 1, -1)).toBe(A);
  });

  test('sized: structures and IOTLB', () => {
    const bare = new Bare().enable();
    bare.stage1();
    bare.page(5, RAM);
    use(bare.unit, 0x5000n, READ, 1, -1);
    bare.stream(1, ste(4));
    bare.page(5, RAM + 0x1000n);
    const bypass = `0:${0x5000}`;
    expect(answers(bare, 0x5000n)).toEqual([bypass, bypass, bypass, bypass, B, A, B, A]);
  });

  test('stage 2 of nested translation: its leaves are the IOTLB, its tables the walk cache', () => {
    const bare = system('retain');
    use(bare.unit, 0x5000n, READ, 3, -1);
    const t2 = TABLES2 + 0x8000n;
    bare.memory.writeU64(t2 + 0x2000n + 40n, (RAM + 0x1000n) | 0x7ffn);
    expect(answers(bare, 0x5000n, 3)).toEqual([B, A, B, A, B, A, B, A]);
    bare.memory.writeU64(t2, 0n);
    expect(answers(bare, 0x5000n, 3)).toEqual([F, A, B, A, F, A, B, A]);
  });

  test('SMMUEN = 0', () => {
    const bare = used();
    bare.w32(0x20, 0);
    expect(answers(bare, 0x5000n)).toEqual(LAYERS.map(() => `0:${0x5000}`));
  });
});
