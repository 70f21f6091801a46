import { describe, expect, test } from 'vitest';
import { parseKnownDeviations, parseVectors, playVectors } from '../src/index.ts';
import type { PlayVectorsOptions, ScenarioResult } from '../src/index.ts';
import { slot, toy } from './toy.ts';

type Op = Readonly<Record<string, unknown>>;
const HEADER = {
  format: 'iommu-vectors/1',
  iommu: 'toy-iommu',
  source: 'hand',
  config: { id: '0x1', ram: [['0x0', '0x100000']] },
};

const text = (ops: readonly Op[], header: Op = HEADER): string =>
  [header, { op: 'scenario', name: 'one' }, ...ops].map((op) => JSON.stringify(op)).join('\n');

const play = (ops: readonly Op[], options: PlayVectorsOptions = {}, header: Op = HEADER): ScenarioResult =>
  playVectors(text(ops, header), toy, options).scenarios[0]!;

const wr = (off: string, val: string): Op => ({ op: 'wr', off, size: 4, val });
const rd = (off: string, val: string, more: Op = {}): Op => ({
  op: 'rd',
  off,
  size: 4,
  val,
  mask: '0xffffffff',
  ...more,
});
const dma = (iova: string, rw: string, more: Op): Op => ({
  op: 'dma',
  rid: '0x0018',
  pasid: null,
  iova,
  rw,
  len: 4,
  ...more,
});

describe('reads', () => {
  test('compared under the mask', () => {
    expect(play([wr('0x0', '0x1234'), rd('0x0', '0x1234')])).toMatchObject({ ok: true, ops: 2, compared: 1 });
    expect(play([wr('0x0', '0x1234'), rd('0x0', '0xff34', { mask: '0xff' })]).ok).toBe(true);
    const bad = play([wr('0x0', '0x1234'), rd('0x0', '0x1235'), wr('0x0', '0x1')]);
    expect(bad).toMatchObject({
      ok: false,
      ops: 2,
      mismatch: { line: 4, op: 'rd 0x0', expected: '0x1235', got: '0x1234' },
    });
  });
  test('64 bits', () => {
    const ops = [{ op: 'wr', off: '0x8', size: 8, val: '0x8000000190000002' }];
    const read = { op: 'rd', off: '0x8', size: 8, val: '0x8000000190000002', mask: '0xffffffffffffffff' };
    expect(play([...ops, read]).ok).toBe(true);
    expect(play([...ops, { ...read, val: '0x8000000090000002' }]).ok).toBe(false);
  });
  test('poll repeats, but not for ever', () => {
    expect(play([rd('0x1c', '0x5')]).ok).toBe(false);
    expect(play([rd('0x1c', '0x5', { poll: true })]).ok).toBe(true);
    expect(play([rd('0x1c', '0x5000', { poll: true })]).ok).toBe(false);
  });
  test('impl and note are not compared', () => {
    expect(play([rd('0x0', '0x5', { impl: 'id' }), rd('0x0', '0x6', { note: 'not asserted' })])).toMatchObject({
      ok: true,
      compared: 0,
    });
  });
  test('a cold answer is, when caches are off', () => {
    const op = rd('0x0', '0x5', { impl: 'hit', cold: '0x7' });
    expect(play([op]).ok).toBe(true);
    expect(play([op], { iotlb: { mode: 'none' } }).ok).toBe(false);
    expect(play([wr('0x0', '0x7'), op], { iotlb: { mode: 'none' } })).toMatchObject({ ok: true, compared: 1 });
  });
});

describe('marks', () => {
  test("the specification's value counts, and the rest of the scenario is skipped", () => {
    const marked = rd('0x0', '0x5', { spec_val: '0x7', qemu_deviates: 'why' });
    const rest = [rd('0x4', '0x99'), wr('0x0', '0x1'), { op: 'tr' }];
    expect(play([wr('0x0', '0x7'), marked, ...rest])).toMatchObject({ ok: true, ops: 2, skippedOps: 3 });
    expect(play([wr('0x0', '0x5'), marked, ...rest])).toMatchObject({
      ok: false,
      skippedOps: 3,
      mismatch: { expected: '0x7' },
    });
  });
  test('spec_hex and spec', () => {
    const chk = { op: 'chk', pa: '0x2000', hex: '01', spec_hex: '02', qemu_deviates: 'why' };
    expect(play([{ op: 'mem', pa: '0x2000', hex: '02' }, chk]).ok).toBe(true);
    expect(play([{ op: 'mem', pa: '0x2000', hex: '01' }, chk]).ok).toBe(false);
    const refused = dma('0x5000', 'w', {
      hex: '01020304',
      ok: true,
      pa: '0x2000',
      spec: { ok: false },
      qemu_deviates: 'why',
    });
    expect(play([refused]).ok).toBe(true);
    expect(play([slot(0, 5n, 2n), refused]).ok).toBe(false);
    const reached = dma('0x5000', 'r', { ok: false, spec: { ok: true, pa: '0x2000' }, qemu_deviates: 'why' });
    expect(play([slot(0, 5n, 2n), reached]).ok).toBe(true);
    expect(play([slot(0, 5n, 3n), reached]).ok).toBe(false);
  });
});

describe('dma', () => {
  test('reads and writes move the recorded bytes', () => {
    const ops = [
      slot(0, 5n, 2n),
      { op: 'mem', pa: '0x2004', hex: 'aabbccdd' },
      dma('0x5004', 'r', { hex: 'aabbccdd', ok: true, pa: '0x2004' }),
      dma('0x5008', 'w', { hex: '01020304', ok: true, pa: '0x2008' }),
      { op: 'chk', pa: '0x2004', hex: 'aabbccdd01020304' },
    ];
    expect(play(ops)).toMatchObject({ ok: true, compared: 3 });
    expect(
      play([...ops.slice(0, 2), dma('0x5004', 'r', { hex: 'aabbccde', ok: true, pa: '0x2004' })]).mismatch,
    ).toMatchObject({
      expected: 'aabbccde',
      got: 'aabbccdd',
    });
    expect(play([ops[0]!, dma('0x5004', 'r', { hex: '00000000', ok: true, pa: '0x3004' })]).ok).toBe(false);
  });
  test('crossing a page: each part translated, pa is the first byte', () => {
    const cross = dma('0x5ffe', 'w', { hex: '01020304', ok: true, pa: '0x2ffe' });
    const both = [
      slot(0, 5n, 2n),
      slot(1, 6n, 9n),
      cross,
      { op: 'chk', pa: '0x2ffe', hex: '0102' },
      { op: 'chk', pa: '0x9000', hex: '0304' },
    ];
    expect(play(both).ok).toBe(true);
  });
  test('a refused one moves nothing, not even its first page', () => {
    const cross = dma('0x5ffe', 'w', { hex: '01020304', ok: false });
    expect(play([slot(0, 5n, 2n), cross, { op: 'chk', pa: '0x2ffe', hex: '0000' }]).ok).toBe(true);
    expect(play([slot(0, 5n, 2n), cross, { op: 'chk', pa: '0x2ffe', hex: '0102' }]).ok).toBe(false);
  });
  test('ok is compared both ways, permissions too', () => {
    expect(play([dma('0x5000', 'r', { ok: true, pa: '0x2000' })]).mismatch!.got).toContain('code 0x1');
    expect(play([slot(0, 5n, 2n), dma('0x5000', 'r', { ok: false })]).mismatch!.got).toContain('success at 0x2000');
    expect(play([slot(0, 5n, 2n, 1), dma('0x5000', 'w', { hex: '01020304', ok: false })]).ok).toBe(true);
    expect(play([slot(0, 5n, 2n), { ...dma('0x5000', 'r', { ok: false }), rid: '0xff' }]).ok).toBe(true);
  });
  test('impl: memory follows the recording, no fault of ours is left behind', () => {
    const stale = dma('0x5000', 'w', { hex: '01020304', ok: true, pa: '0x7000', impl: 'tlb' });
    expect(play([stale, { op: 'chk', pa: '0x7000', hex: '01020304' }, rd('0x14', '0x0')]).ok).toBe(true);
  });
  test('note: informs in recordings of drivers, else it means not judged', () => {
    const odd = dma('0x5000', 'r', { ok: true, pa: '0x2000', note: 'kick' });
    expect(play([odd]).ok).toBe(true);
    const recording = { ...HEADER, config: { id: '0x1', kernel_cmdline: 'console=ttyS0' } };
    expect(play([odd], {}, recording).ok).toBe(false);
    expect(play([slot(0, 5n, 2n), odd], {}, recording).ok).toBe(true);
  });
  test('a large write of a recording has no bytes: only the translation counts', () => {
    const large = { ...dma('0x5000', 'w', { ok: true, pa: '0x2000', hex16: '00', sha: '00' }), len: 4096 };
    expect(
      play([slot(0, 5n, 2n), { op: 'mem', pa: '0x2000', hex: '77' }, large, { op: 'chk', pa: '0x2000', hex: '77' }]).ok,
    ).toBe(true);
  });
});

describe('memory', () => {
  const far = dma('0x5000', 'r', { ok: false });
  test('has no end, unless the scenario is marked', () => {
    expect(
      play([slot(0, 5n, 0x8_0000_0000n), dma('0x5000', 'r', { hex: '00000000', ok: true, pa: '0x800000000000' })]).ok,
    ).toBe(true);
    const bounded = [HEADER, { op: 'scenario', name: 'one', impl: 'physmem' }, slot(0, 5n, 0x8_0000_0000n), far];
    const lines = bounded.map((op) => JSON.stringify(op)).join('\n');
    expect(playVectors(lines, toy).scenarios[0]).toMatchObject({ ok: true });
  });
  test('starts over with every scenario', () => {
    const lines = [HEADER, { op: 'scenario', name: 'a' }, { op: 'mem', pa: '0x3000', hex: '55' }, wr('0x0', '0x9')];
    const again = [{ op: 'scenario', name: 'b' }, { op: 'chk', pa: '0x3000', hex: '00' }, rd('0x0', '0x0')];
    const report = playVectors([...lines, ...again].map((op) => JSON.stringify(op)).join('\n'), toy);
    expect(report).toMatchObject({ passed: 2, failed: 0 });
  });
});

describe('what is not built fails, and is never skipped', () => {
  test('an unknown operation', () => {
    expect(play([{ op: 'tr', did: 1 }])).toMatchObject({ ok: false, skippedOps: 0 });
    expect(play([{ op: 'tr', did: 1 }]).reason).toMatch(/line 3.*"tr" is not supported yet/);
    expect(play([{ op: 'note_cmd', name: 'x' }]).ok).toBe(true);
  });
  test('a configuration', () => {
    const result = play([rd('0x0', '0x0')], {}, { ...HEADER, config: { id: '0x1', nested: true } });
    expect(result).toMatchObject({ ok: false, ops: 0, reason: 'nested translation is not built yet' });
  });
  test('an access size', () => {
    expect(play([{ op: 'rd', off: '0x0', size: 2, val: '0x0' }]).reason).toMatch(/2 bytes are not supported yet/);
  });
  test('a device that throws', () => {
    expect(play([wr('0x18', '0x1')]).reason).toMatch(/line 3: the device threw: register 24 is broken/);
  });
});

test('known deviations end a scenario, and only that operation', () => {
  const entry = { file: 'a.jsonl.gz', scenario: 'one', op: 3, clause: '3.2', why: 'because' };
  const known = parseKnownDeviations(JSON.stringify([entry]), 'known.json');
  const ops = [rd('0x0', '0x5'), rd('0x4', '0x5')];
  const options = { file: '/some/where/a.jsonl.gz', knownDeviations: known };
  expect(play(ops, options)).toMatchObject({ ok: true, skippedOps: 1, deviation: { clause: '3.2' } });
  expect(play(ops, { ...options, file: 'b.jsonl.gz' }).ok).toBe(false);
  expect(play([wr('0x0', '0x5'), ...ops], options).ok).toBe(false);
  // For every seed of a recording: a star in the name, and the kind of the operation.
  const [seeds] = parseKnownDeviations(JSON.stringify([{ ...entry, file: 'a-*.jsonl.gz', op: 'rd' }]), 'known.json');
  const playSeed = (file: string) => play(ops, { file, knownDeviations: [seeds!] }).ok;
  expect(['a-1.jsonl.gz', 'a-22.jsonl.gz', 'a.jsonl.gz', 'b-1.jsonl.gz'].map(playSeed)).toEqual([
    true,
    true,
    false,
    false,
  ]);
  expect(() => parseKnownDeviations('[{"file":1}]', 'known.json')).toThrow(/known\.json: entry 0/);
});

const ram = (value: unknown) => parseVectors(text([], { ...HEADER, config: { id: '0x1', ram: value } })).ram;

describe('damaged files', () => {
  const damaged: [string, string, RegExp][] = [
    ['nothing', '', /line 1.*header/],
    ['not JSON', '{"format":"iommu-vectors/1"', /line 1.*JSON object/],
    ['another format', '{"format":"x/1","iommu":"toy"}', /line 1.*"format"/],
    ['no iommu', '{"format":"iommu-vectors/1"}\n{"op":"scenario","name":"a"}', /line 1.*"iommu"/],
    ['no scenario', JSON.stringify(HEADER), /at least one "scenario"/],
    [
      'an operation before it',
      `${JSON.stringify(HEADER)}\n${JSON.stringify(rd('0x0', '0x0'))}`,
      /line 2.*"scenario" before/,
    ],
    ['no op', text([{ off: 1 }]), /line 3.*"op"/],
    ['a bad number', text([rd('zero', '0x0')]), /line 3.*"off"/],
    ['bad bytes', text([{ op: 'mem', pa: '0x0', hex: 'abc' }]), /line 3.*"hex"/],
    ['a short mask', text([{ op: 'chk', pa: '0x0', hex: 'aabb', mask: 'ff' }]), /line 3.*"mask"/],
    ['no ok', text([{ op: 'dma', rid: 1, iova: '0x0', rw: 'r', len: 4 }]), /line 3.*"ok"/],
    ['too few bytes', text([dma('0x0', 'r', { ok: true, hex: 'aa' })]), /line 3.*"hex"/],
    ['a bad config', text([], { ...HEADER, config: {} }), /line 1.*config.*toy/],
  ];
  for (const [name, lines, message] of damaged) {
    test(name, () => {
      expect(() => playVectors(lines, toy, { file: 'f.jsonl' })).toThrow(message);
      expect(() => playVectors(lines, toy, { file: 'f.jsonl' })).toThrow(expect.objectContaining({ code: 'EFORMAT' }));
      expect(() => playVectors(lines, toy, { file: 'f.jsonl' })).toThrow(/^f\.jsonl: /);
    });
  }
  test('a physmem scenario needs to know where memory ends', () => {
    const lines = [
      { ...HEADER, config: { id: '0x1' } },
      { op: 'scenario', name: 'a', impl: 'physmem' },
    ];
    expect(() => playVectors(lines.map((l) => JSON.stringify(l)).join('\n'), toy)).toThrow(/"ram"/);
  });
  test('both shapes of ram', () => {
    expect(ram([['0x0', '0x1000']])).toEqual([{ base: 0n, size: 0x1000n }]);
    expect(ram({ base: '0x1000', size: '0x2000' })).toEqual([{ base: 0x1000n, size: 0x2000n }]);
    expect(() => ram('all')).toThrow(/"ram"/);
  });
});
