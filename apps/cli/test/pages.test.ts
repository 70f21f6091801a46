/** `iommu pages report`: the figures typed again from the sizes of the structures, and the command as a user meets it. */
import { readFileSync, readdirSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { costRows, measure } from '../src/pages/descriptors.ts';
import type { CostRow } from '../src/pages/descriptors.ts';
import { pagesReportHtml, pagesReportJson, pagesReportText } from '../src/pages/report.ts';
import { sizeText } from '../src/pages/section.ts';
import type { Section } from '../src/pages/section.ts';
import { timingSection } from '../src/pages/timing.ts';
import { ONE_LINE, folder, gzip, iommu, put } from './helpers.ts';

const GIB = 2 ** 30;

describe('what descriptors cost', () => {
  const { rows, mismatches } = costRows();

  test('from 1 GiB to 16 TiB in powers of two; up to 16 GiB measured, and as computed', () => {
    expect(rows.map((row) => row.ramBytes)).toEqual(Array.from({ length: 15 }, (_, i) => GIB * 2 ** i));
    expect(rows.map((row) => row.how)).toEqual(Array.from({ length: 15 }, (_, i) => (i < 5 ? 'measured' : 'computed')));
    expect(mismatches).toEqual([]);
  });

  test.each(rows.map((row) => [sizeText(row.ramBytes), row] as const))('%s', (_name, row) => {
    const frames = row.ramBytes / 4096;
    expect(row.overlay.memmapBytes).toBe(frames * 64);
    expect(row.memdesc.memmapBytes).toBe(frames * 8);
    expect(row.overlay.percentOfRam).toBe(1.5625);
    expect(row.memdesc.percentOfRam).toBe(0.1953125);
    expect(row.overlay.bytesPerGiBOfRam).toBe(16 * 2 ** 20);
    expect(row.memdesc.bytesPerGiBOfRam).toBe(2 * 2 ** 20);
    // 4 KiB of tables for 2 MiB of RAM; 84 descriptors of 48 bytes in a page, behind 32 bytes.
    const tables = row.ramBytes / 2 ** 21;
    expect(row.tableBytes).toBe(tables * 4096);
    expect(row.overlay.slabBytes).toBe(0);
    expect(row.memdesc.slabBytes).toBe(Math.ceil(tables / 84) * 4096);
    // 256 frames of tables a MiB.
    expect(row.overlay.bytesPerMiBOfTables).toBe(256 * 64);
    expect(row.memdesc.bytesPerMiBOfTables).toBeCloseTo(256 * 8 + row.memdesc.slabBytes / (tables / 256), 6);
  });

  test('a measurement that is not what was computed is told', () => {
    const lying = costRows((layout, ram) => {
      const found = measure(layout, Math.min(ram, GIB));
      return ram > GIB ? { memmapBytes: 8, slabBytes: 0 } : { ...found, slabBytes: found.slabBytes + 4096 };
    });
    expect(lying.mismatches[0]).toBe('overlay, 1 GiB: separate descriptors: measured 4,096 bytes, computed 0');
    // Two of 1 GiB; of the four others the map of both layouts, and the slab of memdesc.
    expect(lying.mismatches).toHaveLength(2 + 4 * 3);
  });
});

test('a mismatch is in the text, the page and the JSON', () => {
  const section: Section = {
    key: 'made-up',
    tables: [{ title: 'A <table>', head: ['a', 'b'], rows: [['1', '2 & 3']] }],
    notes: ['a note'],
    plots: [{ title: 'A plot', words: 'Nothing.', draw: () => '<svg xmlns="x"></svg>' }],
    data: { x: 1 },
    mismatches: ['one is two'],
  };
  expect(pagesReportText([section])).toMatch(/A <table>\n[\s\S]*note: a note\n\none is two\na measurement is not /);
  const html = pagesReportHtml([section]);
  expect(html).toContain('A &lt;table&gt;');
  expect(html).toContain('<p class="wrong">one is two</p>');
  expect(pagesReportJson([section])).toEqual({
    format: 'iommu-pages-report/1',
    mismatches: ['one is two'],
    'made-up': { x: 1 },
  });
});

test('times: a positive number for every layout', () => {
  const { data, tables } = timingSection();
  const { rows } = data as { rows: { what: string; ns: Record<string, number> }[] };
  expect(rows).toHaveLength(3);
  for (const { what, ns } of rows) {
    expect(Object.keys(ns), what).toEqual(['host', 'overlay', 'memdesc']);
    for (const value of Object.values(ns)) expect(value, what).toBeGreaterThan(0);
  }
  expect(tables[0]!.rows).toHaveLength(3);
});

describe('iommu pages report', () => {
  test('text', async () => {
    const { status, out, err } = await iommu(['pages', 'report', '--no-timing', '--no-trace']);
    expect({ status, err }).toEqual({ status: 0, err: '' });
    expect(out).toMatch(/│ 1 GiB +│ 1\.5625 % │ 16,777,216 │ +16,384 │ +16 MiB │ 0\.1953 % │ +2,097,152 │/);
    expect(out).toMatch(/│ 16 TiB .*│ computed │/);
    expect(out).not.toContain('Time to allocate');
    expect(out).toMatch(/every measurement is what was computed\n$/);
  });

  test('--json and --html', async () => {
    const dir = folder();
    const { status, out } = await iommu(
      ['pages', 'report', '--no-timing', '--no-trace', '--json', '--html', 'p.html'],
      dir,
    );
    expect(status).toBe(0);
    const report = JSON.parse(out) as { format: string; mismatches: string[]; descriptors: { rows: CostRow[] } };
    expect(report).toMatchObject({ format: 'iommu-pages-report/1', mismatches: [] });
    expect(report.descriptors.rows).toHaveLength(15);
    expect(report).not.toHaveProperty('timing');
    const page = readFileSync(path.join(dir, 'p.html'), 'utf8');
    expect(page).toMatch(/^<!doctype html>/);
    expect(page).toContain('<svg xmlns="http://www.w3.org/2000/svg"');
    expect(page).not.toMatch(/<script|src=|href="http/);
    const again = await iommu(['pages', 'report', '--no-timing', '--no-trace', '--json', 'p.json'], dir);
    expect(again.out).toMatch(/^Descriptors for RAM/);
    expect(JSON.parse(readFileSync(path.join(dir, 'p.json'), 'utf8'))).toEqual(report);
  });

  test('help', async () => {
    const { status, out } = await iommu(['pages', 'report', '--help']);
    expect(status).toBe(0);
    expect(out).toMatch(/Examples:\n {2}iommu pages report /);
    expect((await iommu(['pages', '--help'])).out).toContain('report');
  });

  test.each([
    [['pages', 'report', '--speed'], /^iommu: unknown option '--speed'\n/],
    [['pages', 'report', 'x'], /^iommu: too many arguments/],
    [['pages', 'report', '--html'], /^iommu: option '--html <file>' argument missing\n/],
    [['pages', 'repot'], /^iommu: unknown command 'repot'/],
    [['pages'], /Usage: iommu pages/],
  ])('%j is refused with status 2', async (args, message) => {
    const { status, out, err } = await iommu(args);
    expect({ status, out }).toEqual({ status: 2, out: '' });
    expect(err).toMatch(message);
  });

  test.each(['--html', '--json'])('%s into a folder that is not there', async (option) => {
    const dir = folder();
    put(dir, 'file', 'x');
    const { status, out, err } = await iommu(['pages', 'report', option, 'file/x'], dir);
    expect({ status, out }).toEqual({ status: 2, out: '' });
    expect(err).toMatch(ONE_LINE);
    expect(err).toContain(`${option} file/x`);
  });

  describe('outputs that would be written over something', () => {
    const TRACE = '{"op":"attach","domain":"D0","rid":"0x0018"}\n';
    const quick = ['pages', 'report', '--no-timing', '--no-trace'];
    const refused = async (args: string[], dir: string, message: string): Promise<void> => {
      const { status, out, err } = await iommu(args, dir);
      expect({ status, out }).toEqual({ status: 2, out: '' });
      expect(err).toMatch(ONE_LINE);
      expect(err).toContain(message);
    };

    test.each(['--html', '--json'])('%s on a trace, its links and its packed form', async (option) => {
      const dir = folder();
      const file = put(dir, 't.jsonl', TRACE);
      symlinkSync(file, path.join(dir, 'link'));
      const packed = gzip(TRACE);
      put(dir, 't.jsonl.gz', packed);
      const args = ['pages', 'report', '--no-timing', '--trace', 't.jsonl', option];
      for (const name of ['t.jsonl', './link', 't.jsonl.gz']) {
        await refused([...args, name], dir, `${option} ${name}: is an input, and is not written over`);
      }
      await refused([...quick, option, 't.jsonl'], dir, 'is an input');
      expect(readFileSync(file, 'utf8')).toBe(TRACE);
      expect(new Uint8Array(readFileSync(path.join(dir, 't.jsonl.gz')))).toEqual(new Uint8Array(packed));
    });
    test('replay --report on the trace', async () => {
      const dir = folder();
      const file = put(dir, 't.jsonl', TRACE);
      await refused(['replay', 't.jsonl', '--report', 't.jsonl'], dir, '--report t.jsonl: is an input');
      expect(readFileSync(file, 'utf8')).toBe(TRACE);
    });
    test('two outputs in one file; nothing empty is left', async () => {
      const dir = folder();
      await refused([...quick, '--html', 'x', '--json', './x'], dir, '--json ./x: is what --html is written to');
      await refused([...quick, '--html', 'y', '--json', 'no/x'], dir, '--json no/x: ENOENT');
      expect(readdirSync(dir)).toEqual([]);
    });
    test('what an earlier run wrote is written anew', async () => {
      const dir = folder();
      for (let again = 0; again < 2; again++) {
        expect(await iommu([...quick, '--html', 'p.html', '--json', 'p.json'], dir)).toMatchObject({
          status: 0,
          err: '',
        });
      }
    });
  });
});
