/** What tables that share CPU pages save, by figures that follow from the sizes of the tables. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { harnesses } from '../src/harnesses.ts';
import { startTableRows } from '../src/pages/sub-page.ts';
import type { StartTableRow, TraceSavingRow } from '../src/pages/sub-page.ts';
import { ONE_LINE, folder, iommu, put } from './helpers.ts';

/** Two devices in domains of their own, one page each: five drivers make a path of tables for each. */
const TRACE = [0, 1]
  .flatMap((n) => [
    { op: 'attach', domain: `D${n}`, rid: `0x00${n}0`, device: `0000:00:0${n}.0` },
    { op: 'map', domain: `D${n}`, iova: '0x40000000', pa: '0x100000000', size: '0x4000', iommuProt: 3 },
  ])
  .map((event) => `${JSON.stringify(event)}\n`)
  .join('');

describe('start tables', () => {
  const rows = new Map(startTableRows(harnesses).map((row) => [row.format, row]));
  const cost = (format: string): number[] => rows.get(format)!.cost.flatMap(({ whole, shared }) => [whole, shared]);

  test('a small one takes a page, or 64 bytes and up', () => {
    // Two entries of 8 bytes; 64 domains share a page of any size.
    expect(rows.get('arm-s1-16k-48')).toMatchObject({ tables: 1, bytes: 16 });
    expect(cost('arm-s1-16k-48')).toEqual([4096, 64, 16384, 256, 65536, 1024]);
    // 64 entries.
    expect(rows.get('arm-s1-64k-48')).toMatchObject({ tables: 1, bytes: 512 });
    expect(cost('arm-s1-64k-48')).toEqual([4096, 512, 16384, 512, 65536, 1024]);
  });

  test('four of 4 KiB side by side, and one of 16 KiB', () => {
    expect(rows.get('dart1-4k-32-36')).toMatchObject({ tables: 4, bytes: 4096 });
    expect(cost('dart1-4k-32-36')).toEqual([16384, 16384, 65536, 16384, 262144, 16384]);
    expect(rows.get('dart1-16k-32-36')).toMatchObject({ tables: 1, bytes: 16384 });
    expect(cost('dart1-16k-32-36')).toEqual([16384, 16384, 16384, 16384, 65536, 16384]);
  });

  test('sharing never costs more', () => {
    for (const row of rows.values())
      for (const { whole, shared } of row.cost) expect(shared).toBeLessThanOrEqual(whole);
  });
});

describe('iommu pages report --trace', () => {
  test('a trace through the five, with three sizes of CPU page', async () => {
    const dir = folder();
    put(dir, 'two.jsonl', TRACE);
    const args = ['pages', 'report', '--no-timing', '--trace', 'two.jsonl', '--json', 'p.json', '--html', 'p.html'];
    const { status, out, err } = await iommu(args, dir);
    expect({ status, err }).toEqual({ status: 0, err: '' });
    expect(out).toContain('Peak of SecPageTables over two.jsonl');
    const { subPages } = JSON.parse(readFileSync(path.join(dir, 'p.json'), 'utf8')) as {
      subPages: { startTables: StartTableRow[]; traces: TraceSavingRow[] };
    };
    expect(subPages.startTables.length).toBe(harnesses.flatMap(({ formats }) => formats).length);
    expect(subPages.traces).toHaveLength(harnesses.length * 3);
    const of = (driver: string): [number, number][] =>
      subPages.traces.filter((row) => row.driver === driver).map(({ whole, shared }) => [whole, shared]);
    // Root and context table, queue, status, and four levels for each of two domains: 12 tables of 4 KiB.
    expect(of('intel-vtd')).toEqual([
      [12 * 4096, 12 * 4096],
      [12 * 16384, 3 * 16384],
      [12 * 65536, 65536],
    ]);
    for (const row of subPages.traces) {
      expect(row.wrong, row.driver).toBe(0);
      expect(row.shared, row.driver).toBeLessThanOrEqual(row.whole);
      expect(row.shared % row.cpuPageSize).toBe(0);
    }
    expect(readFileSync(path.join(dir, 'p.html'), 'utf8')).toContain('Peak memory over two.jsonl');
  });

  test('a file that is no trace', async () => {
    const dir = folder();
    put(dir, 'bad.jsonl', '{"op":"map"}\n');
    for (const name of ['bad.jsonl', 'none.jsonl']) {
      const { status, out, err } = await iommu(['pages', 'report', '--no-timing', '--trace', name], dir);
      expect({ status, out }).toEqual({ status: 2, out: '' });
      expect(err).toMatch(ONE_LINE);
      expect(err).toContain(name);
    }
  });
});
