import { describe, expect, test } from 'vitest';
import { covers, joinSpans, layOut, survey } from '../src/replay/layout.ts';
import { IovaSpace, tracedIovas } from '../src/replay/placement.ts';
import { harnesses } from '../src/harnesses.ts';
import { parseTrace } from '../src/replay/trace.ts';

const trace = (...maps: readonly (readonly [pa: bigint, size: bigint, prot: number])[]) =>
  parseTrace(
    maps
      .map(([pa, size, prot]) =>
        JSON.stringify({
          op: 'map',
          domain: 'D',
          iova: '0x1000',
          pa: `0x${pa.toString(16)}`,
          size: `0x${size.toString(16)}`,
          iommuProt: prot,
        }),
      )
      .join('\n'),
    't',
  );
const MIB = 0x10_0000n;
const GIB = 1n << 30n;

test('spans are joined', () => {
  expect(
    joinSpans([
      { start: 5n, end: 7n },
      { start: 0n, end: 2n },
      { start: 2n, end: 3n },
      { start: 6n, end: 9n },
    ]),
  ).toEqual([
    { start: 0n, end: 3n },
    { start: 5n, end: 9n },
  ]);
});

describe('what an address is', () => {
  test('RAM from the lowest to the highest page, doorbells cut out', () => {
    const { ram, mmio } = survey(
      trace([0x4000_0000n, 0x1000n, 3], [0x5000_0000n, 0x1000n, 3], [0x4800_0000n, 0x1000n, 2 | 16]),
    );
    expect(mmio).toEqual([{ start: 0x4800_0000n, end: 0x4800_1000n }]);
    expect(ram).toEqual([
      { start: 0x4000_0000n, end: 0x4800_0000n },
      { start: 0x4800_1000n, end: 0x5020_0000n },
    ]);
  });
  test('interrupt messages of x86 are no RAM, what lies around them is', () => {
    const { ram, mmio } = survey(trace([0n, 5n * GIB, 3]));
    expect(mmio).toEqual([{ start: 0xfee0_0000n, end: 0xfef0_0000n }]);
    expect(covers(ram, 0xfedf_f000n, 0xfee0_0000n) && covers(ram, 0xfef0_0000n, 5n * GIB)).toBe(true);
  });
  test('text without permissions: below a RAM that begins at 1 GiB there are devices', () => {
    const rows = (low: number): string =>
      Array.from({ length: 40 }, (_, i) => {
        const pa = i < low ? 0x809_0000 : 0x4000_0000 + i * 4096;
        return `map: IOMMU: iova=0x${(0x10_0000 + i * 4096).toString(16)} - 0x0 paddr=0x${pa.toString(16)} size=4096`;
      }).join('\n');
    expect(survey(parseTrace(rows(1), 't')).mmio).toEqual([{ start: 0x809_0000n, end: 0x809_1000n }]);
    expect(survey(parseTrace(rows(20), 't')).mmio).toEqual([]);
  });
});

describe('where tables lie', () => {
  test('above every address of the trace', () => {
    const { tables, memory } = layOut(survey(trace([0x1_2345_6000n, 0x1000n, 3], [0x8_0000_0000n, 0x1000n, 18])), 48);
    expect(tables).toEqual({ base: 0x8_4000_0000n, size: GIB });
    expect(memory.rangeOf(Number(tables.base >> 12n))).not.toBeNull();
  });
  test('within reach: what a narrow unit cannot see does not count', () => {
    const far = survey(trace([0x4000_0000n, 0x1000n, 3], [1n << 40n, 0x1000n, 3]));
    expect(layOut(far, 36).tables.base).toBe(0x8000_0000n);
    expect(layOut(far, 48).tables.base).toBe((1n << 40n) + GIB);
  });
  test('in the highest gap when the top is taken, smaller if need be', () => {
    const top = (1n << 36n) - 4096n;
    expect(layOut(survey(trace([0n, 0x1000n, 3], [top, 0x1000n, 3])), 36).tables).toEqual({
      base: (1n << 36n) - 2n * GIB,
      size: GIB,
    });
    const dense = Array.from({ length: 128 }, (_, i) => [BigInt(i) * 512n * MIB, 0x1000n, 3] as const);
    expect(layOut(survey(trace(...dense)), 36).tables.size).toBe(256n * MIB);
  });
  test('at the top when the trace maps all there is', () => {
    const { tables, ram } = layOut(survey(trace([0n, 1n << 36n, 3])), 36);
    expect(tables).toEqual({ base: (1n << 36n) - GIB, size: GIB });
    expect(covers(ram, tables.base, tables.base + 1n)).toBe(false);
  });
  test('doorbells record stores and answer loads by a pattern', () => {
    const { memory, doorbells } = layOut(survey(trace([0x809_0000n, 0x1000n, 18])), 48);
    memory.write(0x809_0040n, 4, 77n);
    expect(doorbells).toMatchObject({ count: 1, last: { address: 0x809_0040n, size: 4, value: 77n } });
    expect(memory.read(0x809_0010n, 4)).toBe(doorbells.read(0x809_0010n, 4));
    expect(memory.read(0x809_0010n, 4)).not.toBe(memory.read(0x809_0014n, 4));
  });
});

describe('the addresses of a domain', () => {
  const { driver } = harnesses.find((h) => h.name === 'intel-vtd')!.createSystem();
  test('moved mappings keep clear of the trace until there is nothing else', () => {
    const info = { ...driver.info, apertureFirst: 0n, apertureLast: 16n * MIB - 1n };
    const space = new IovaSpace(info, [], tracedIovas([{ iova: 8n * MIB, size: 8n * MIB }]));
    expect(space.reserve(15n * MIB, MIB)).toBe(true);
    expect(space.reserve(15n * MIB, 0x1000n)).toBe(false);
    expect(space.alloc(4n * MIB)).toBe(4n * MIB);
    expect(space.alloc(MIB)).toBe(3n * MIB);
    // 3 MiB are left below (not 0), 7 above: what is larger goes into the trace's own.
    expect(space.alloc(4n * MIB)).toBe(8n * MIB);
    expect(space.alloc(4n * MIB)).toBeNull();
    space.free(8n * MIB);
    expect(space.reserve(8n * MIB, MIB)).toBe(true);
  });
  test('stretches stay few, however scattered the trace is', () => {
    const scattered = Array.from({ length: 5000 }, (_, i) => ({ iova: BigInt(i) << 28n, size: 0x1000n }));
    const spans = tracedIovas(scattered);
    expect(spans.length).toBeLessThanOrEqual(2048);
    for (const { iova, size } of scattered) expect(covers(spans, iova, iova + size)).toBe(true);
  });
});
