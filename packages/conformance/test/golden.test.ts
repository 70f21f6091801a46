/** The player of golden tables itself: it must refuse what is no golden file, and see a difference in each thing it compares. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { bit, bits } from '@iommu-ts/bits';
import { PROT, RULES_GENERIC_PT, defineFormat, goldenFeatures } from '@iommu-ts/page-table';
import type { GoldenHeader, PageTableConfig } from '@iommu-ts/page-table';
import { describe, expect, it } from 'vitest';
import { playGolden } from '../src/index.ts';

const NAME = 'vtdss-39-0.json.gz';
const source = gunzipSync(readFileSync(new URL(`../fixtures/golden/${NAME}`, import.meta.url))).toString('utf8');

type Json = Record<string, unknown>;
const read = (): Json => JSON.parse(source) as Json;

/** The format of that file, typed here: this package knows no vendor. */
const ADDR = bits(51, 12);
const PS = bit(7);
const FORMAT = defineFormat({
  name: 'second-stage',
  spec: 'test',
  rules: RULES_GENERIC_PT,
  granuleLg2: 12,
  maxTopLevel: 2,
  topLevel: 2,
  sizes: [{ lg2: 12 }, { lg2: 21 }, { lg2: 30 }],
  leafLayout: { ADDR, PS, W: bit(1), R: bit(0) },
  tableLayout: { ADDR, PS, W: bit(1), R: bit(0) },
  oa: ADDR,
  maxOas: 52,
  tableType: { field: PS, value: 0 },
  tableBits: [
    { field: 'R', value: 1 },
    { field: 'W', value: 1 },
  ],
  blockBits: [{ field: 'PS', value: 1 }],
  attributes: [
    { field: 'R', value: 1, when: PROT.READ },
    { field: 'W', value: 1, when: PROT.WRITE },
  ],
  hw: (table) => ({ ssptptr: table.root, aw: table.topLevel - 1 }),
});
const resolve = (header: GoldenHeader): PageTableConfig | null =>
  header.pageTable === 'vtdss' ? { ...goldenFeatures(header), format: FORMAT } : null;

it('plays', () => {
  const result = playGolden(read(), resolve, NAME);
  expect(result).toMatchObject({ ok: true, mismatches: [], name: 'vtdss-39', pageTable: 'vtdss', ops: 200 });
});

it('a page table that nobody knows is a failure with a reason', () => {
  const result = playGolden({ ...read(), pageTable: 'sparc' }, resolve, NAME);
  expect(result.ok).toBe(false);
  expect(result.reason).toContain('sparc');
});

describe('sees a difference', () => {
  const flip = (hex: string): string => `${hex.slice(0, -1)}${hex.endsWith('1') ? '2' : '1'}`;
  const firstOf = (json: Json, list: string): Json => (json[list] as Json[])[0]!;
  const cases: readonly (readonly [name: string, where: RegExp, change: (json: Json) => void])[] = [
    ['in a return value', /^op 0 .* ret/, (json) => void (firstOf(json, 'ops')['ret'] = -22)],
    ['in the bytes mapped', /^op 0 .* mapped/, (json) => void (firstOf(json, 'ops')['mapped'] = '0x7000')],
    [
      'in a leaf',
      /^leaf 0/,
      (json) => void (firstOf(json, 'leaves')['pteHex'] = flip(firstOf(json, 'leaves')['pteHex'] as string)),
    ],
    ['when a leaf is missing', /^leaf/, (json) => void (json['leaves'] as unknown[]).pop()],
    ['in a probe', /^probe 0/, (json) => void (firstOf(json, 'probes')['pa'] = '0x123')],
    ['in the allocation log', /^alloc 1/, (json) => void ((json['alloc'] as unknown[][])[1]![1] = '0x99999000')],
    ['when the log goes on', /^alloc/, (json) => void (json['alloc'] as unknown[]).pop()],
    [
      'in a byte of a table',
      /^table .* entry/,
      (json) => {
        const tables = json['tables'] as Record<string, string>;
        const [pa, bytes] = Object.entries(tables)[0]!;
        tables[pa] = flip(bytes);
      },
    ],
    [
      'when a table is missing',
      /^table/,
      (json) => {
        const tables = json['tables'] as Record<string, string>;
        delete tables[Object.keys(tables)[3]!];
      },
    ],
    [
      'in a level',
      /^table .* level/,
      (json) => {
        const levels = json['tableLevels'] as Record<string, number>;
        levels[Object.keys(levels)[1]!] = 0;
      },
    ],
    [
      'in what the hardware is told',
      /^root\.hw\.aw/,
      (json) => void (((json['root'] as Json)['hw'] as Json)['aw'] = 2),
    ],
    ['in the shape', /^root\.topLevel/, (json) => void ((json['root'] as Json)['topLevel'] = 3)],
  ];
  it.each(cases)('%s', (_name, where, change) => {
    const json = read();
    change(json);
    const result = playGolden(json, resolve, NAME);
    expect(result.ok).toBe(false);
    expect(result.mismatches.map((one) => one.where).join('\n')).toMatch(new RegExp(where.source, 'm'));
  });
});

describe('refuses what is no golden file, naming file and place', () => {
  const cases: readonly (readonly [name: string, where: RegExp, change: (json: Json) => unknown])[] = [
    ['not an object', /the file/, () => []],
    ['another format', /"format"/, (json) => ({ ...json, format: 'iommu-golden/9' })],
    ['no configuration', /"config"/, (json) => ({ ...json, config: null })],
    ['a width that is none', /"ias"/, (json) => ({ ...json, config: { ...(json['config'] as Json), ias: 'x' } })],
    [
      'widths that the format has not',
      /"config"/,
      (json) => ({ ...json, config: { ...(json['config'] as Json), oas: 60 } }),
    ],
    [
      'an arena that is not at a page',
      /"arenaBase"/,
      (json) => ({ ...json, config: { ...(json['config'] as Json), arenaBase: '0x80000001' } }),
    ],
    ['no operations', /"ops"/, (json) => ({ ...json, ops: 7 })],
    ['an operation that is none', /"ops"\[0\]/, (json) => ({ ...json, ops: [null] })],
    [
      'an operation of another kind',
      /"ops"\[0\].*"op"/,
      (json) => ({ ...json, ops: [{ op: 'flush', iova: '0x0', size: '0x1000', count: 1, len: '0x1000' }] }),
    ],
    [
      'an address that is none',
      /"ops"\[0\].*"iova"/,
      (json) => ({ ...json, ops: [{ ...((json['ops'] as Json[])[0] as Json), iova: '0xz' }] }),
    ],
    [
      'a leaf without size',
      /"leaves"\[0\].*"size"/,
      (json) => ({ ...json, leaves: [{ iova: '0x0', pa: '0x0', level: 0, pteHex: '0x1' }] }),
    ],
    ['bytes that are none', /"tables"/, (json) => ({ ...json, tables: { '0x80000000': 'xy' } })],
    ['a table at no address', /"tables"/, (json) => ({ ...json, tables: { here: '00' } })],
    ['a log entry that is none', /"alloc"\[0\]/, (json) => ({ ...json, alloc: [['take', '0x0', 1]] })],
  ];
  it.each(cases)('%s', (_name, where, change) => {
    let error: unknown;
    try {
      playGolden(change(read()), resolve, 'some/file.json');
    } catch (caught) {
      error = caught;
    }
    expect(error).toMatchObject({ code: 'EFORMAT' });
    expect((error as Error).message).toContain('some/file.json');
    expect((error as Error).message).toMatch(where);
  });
});
