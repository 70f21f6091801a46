/** The command line as a user meets it. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { BUNDLED_TRACE } from '../src/commands/replay.ts';
import { harnesses } from '../src/harnesses.ts';
import { ONE_LINE, fixture, folder, gzip, iommu, put, textOf } from './helpers.ts';

const SMALL = [
  '{"op":"attach","domain":"D0","rid":"0x0018"}',
  '{"op":"map","domain":"D0","iova":"0x40000000","pa":"0x100000","size":"0x8000","iommuProt":7}',
  '{"op":"unmap","domain":"D0","iova":"0x40000000","size":"0x8000"}',
].join('\n');

describe('iommu', () => {
  test('--version, --help', async () => {
    expect(await iommu(['--version'])).toEqual({ status: 0, out: '0.0.0-test\n', err: '' });
    const help = await iommu(['--help']);
    expect(help).toMatchObject({ status: 0, err: '' });
    expect(help.out).toMatch(/replay .*[\s\S]*verify /);
    for (const command of ['replay', 'verify']) {
      const { status, out } = await iommu([command, '--help']);
      expect(status).toBe(0);
      expect(out).toMatch(/Examples:[\s\S]*Exit status: 0, 1 .*, 2 /);
    }
  });
  test.each([
    [[], /Usage/],
    [['walk'], /unknown command 'walk'/],
    [['replay', '--speed'], /unknown option '--speed'/],
    [['replay', '--report'], /argument missing/],
    [['replay', 'a', 'b'], /too many arguments/],
  ])('%j is refused with status 2', async (args, message) => {
    const { status, out, err } = await iommu(args);
    expect(status).toBe(2);
    expect(out).toBe('');
    expect(err).toMatch(message);
    expect(err).not.toMatch(/\n {4}at /);
  });
});

describe('iommu replay', () => {
  test('a table, a row a driver, and the verdict', async () => {
    const dir = folder();
    put(dir, 'small.jsonl', SMALL);
    const { status, out, err } = await iommu(['replay', 'small.jsonl', '--check', 'all'], dir);
    expect(err).toBe('');
    expect(status).toBe(0);
    expect(out).toMatch(/^small\.jsonl: 3 events, mode strict, check all, iova keep, seed 1\n/);
    for (const { name } of harnesses) expect(out).toMatch(new RegExp(`│ ${name} +│ +3 │`));
    expect(out).toMatch(/every byte and every fault was right\n$/);
    expect(out).not.toContain('\u{1b}');
  });
  test('--json alone prints JSON and nothing else', async () => {
    const dir = folder();
    put(dir, 'small.jsonl.gz', gzip(SMALL));
    const { status, out, err } = await iommu(['replay', 'small.jsonl.gz', '--driver', 'riscv,amd', '--json'], dir);
    expect({ status, err }).toEqual({ status: 0, err: '' });
    const report = JSON.parse(out) as { format: string; trace: string; drivers: { driver: string; events: number }[] };
    expect(report).toMatchObject({ format: 'iommu-replay/1', trace: 'small.jsonl.gz', seed: 1 });
    expect(report.drivers.map((d) => d.driver)).toEqual(['riscv', 'amd']);
    expect(report.drivers[0]).toMatchObject({
      events: 3,
      nsPerMap: expect.any(Number),
      nsPerUnmap: expect.any(Number),
      wrong: 0,
    });
  });
  test('--json FILE and --report FILE', async () => {
    const dir = folder();
    put(dir, 'small.jsonl', SMALL);
    const args = ['replay', 'small.jsonl', '--json', 'out.json', '--report', 'out.html'];
    for (let again = 0; again < 2; again++) {
      const { status, out } = await iommu(args, dir);
      expect(status).toBe(0);
      expect(out).toMatch(/every byte/);
    }
    const report = JSON.parse(readFileSync(path.join(dir, 'out.json'), 'utf8')) as { drivers: unknown[] };
    expect(report.drivers).toHaveLength(5);
    const page = readFileSync(path.join(dir, 'out.html'), 'utf8');
    expect(page).toMatch(/^<!doctype html>/);
    // Self-contained: nothing is loaded, nothing runs.
    expect(page).not.toMatch(/<script|<link|src=|url\((?!#)|@import/);
    expect(page.match(/<svg /g)!.length).toBeGreaterThanOrEqual(7);
    for (const { name } of harnesses) expect(page).toContain(name);
  });
  test('an input behind --json is an input, and is not written over', async () => {
    const dir = folder();
    const file = put(dir, 'small.jsonl', SMALL);
    const { status, out } = await iommu(['replay', '--driver', 'amd', '--json', 'small.jsonl'], dir);
    expect(status).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ trace: 'small.jsonl' });
    expect(readFileSync(file, 'utf8')).toBe(SMALL);
  });
  test('the bundled trace, when none is named', async () => {
    expect(readFileSync(BUNDLED_TRACE)).toEqual(readFileSync(fixture('guests/linux-6.12-amd-vi/events.jsonl.gz')));
    const { status, out } = await iommu(['replay', '--driver', 'amd', '--no-timing']);
    expect(status).toBe(0);
    expect(out).toMatch(/6,016 events/);
  });
  test('a snapshot folder and ftrace text', async () => {
    const events = await iommu(['replay', 'guests/linux-6.12-amd-vi', '--driver', 'amd', '--no-timing', '--json']);
    expect(JSON.parse(events.out)).toMatchObject({ source: 'events', trace: 'guests/linux-6.12-amd-vi' });
    const text = await iommu(['replay', 'guests/linux-6.12-amd-vi/trace.txt.gz', '--driver', 'amd', '--no-timing']);
    expect(text.status).toBe(0);
    expect(text.out).toMatch(/names no domain[\s\S]*maps left out[\s\S]*every byte/);
  });
  test('--check none checks nothing, and says so', async () => {
    const dir = folder();
    put(dir, 'small.jsonl', SMALL);
    const { out } = await iommu(['replay', 'small.jsonl', '--check', 'none', '--driver', 'amd', '--json'], dir);
    expect((JSON.parse(out) as { drivers: unknown[] }).drivers[0]).toMatchObject({
      dmaChecked: 0,
      faultsProvoked: 0,
      iotlbHitRate: null,
    });
    expect((await iommu(['replay', 'small.jsonl', '--check', 'none', '--driver', 'amd'], dir)).out).toMatch(
      /nothing was checked\n$/,
    );
  });
  test('status 1 when something was wrong', async () => {
    const dir = folder();
    put(dir, 'small.jsonl', SMALL);
    const sound = harnesses.find((h) => h.name === 'amd')!;
    const deaf = {
      ...sound,
      createSystem: (options: Parameters<typeof sound.createSystem>[0]) => {
        const system = sound.createSystem(options);
        system.driver.handleFaults = () => [];
        return system;
      },
    };
    const { status, out } = await iommu(['replay', 'small.jsonl', '--check', 'all', '--no-timing'], dir, {
      harnesses: [deaf],
    });
    expect(status).toBe(1);
    expect(out).toMatch(/amd: \d+ WRONG\n {2}line \d+: [\s\S]*a byte or a fault was wrong\n$/);
  });
  test.each([
    [['nothing.jsonl'], /nothing\.jsonl: no such file or folder/],
    [['small.jsonl', '--driver', 'vax'], /--driver vax: expected all or intel-vtd, amd/],
    [['small.jsonl', '--driver', ''], /--driver \(empty\)/],
    [['small.jsonl', '--check', 'some'], /--check some: expected none, sample, all/],
    [['small.jsonl', '--mode', 'slow'], /--mode slow: expected strict, lazy/],
    [['small.jsonl', '--iova', 'x'], /--iova x: expected keep, allocate/],
    [['small.jsonl', '--seed', '-1'], /--seed -1|argument missing|unknown option/],
    [['small.jsonl', '--seed', '1e99'], /--seed 1e99: expected a whole number/],
    [['small.jsonl', '--json', 'no/such/dir/x.json'], /--json no\/such\/dir\/x\.json: ENOENT/],
    [['small.jsonl', '--report', '.'], /--report \.: EISDIR/],
  ])('%j: one line, status 2', async (args, message) => {
    const dir = folder();
    put(dir, 'small.jsonl', SMALL);
    const { status, err } = await iommu(['replay', ...args, '--no-timing'], dir);
    expect(status).toBe(2);
    expect(err).toMatch(ONE_LINE);
    expect(err).toMatch(message);
  });
});

describe('damaged input never ends in a stack trace', () => {
  const whole = textOf('guests/linux-6.12-amd-vi/events.jsonl.gz');
  const packed = gzipSync(whole);
  const random = Uint8Array.from({ length: 4096 }, (_, i) => (Math.imul(i + 1, 0x9e37_79b1) >>> 24) & 0xff);
  const cases: [string, string | Uint8Array][] = [
    ['nothing at all', ''],
    ['a truncated gzip', packed.subarray(0, packed.length >> 1)],
    ['a gzip with a wrong byte', packed.map((byte, i) => (i === packed.length >> 1 ? byte ^ 0x55 : byte))],
    ['gzip of nothing', gzipSync('')],
    ['random bytes', random],
    ['gzip of random bytes', gzipSync(random)],
    ['half a line', whole.slice(0, 5003)],
    ['a list', '[1, 2, 3]'],
    ['a number', '42'],
    ['null', 'null'],
    ['text', 'the quick brown fox\n'.repeat(50)],
    ['a golden file', textOf('golden/vtdss-39-0.json.gz')],
    ['vectors', textOf('vectors/qemu/amd-vi-v1-1.jsonl.gz')],
  ];
  test.each(cases)('replay of %s', async (_name, content) => {
    const dir = folder();
    put(dir, 'bad', content);
    const { status, out, err } = await iommu(['replay', 'bad', '--driver', 'amd', '--no-timing'], dir);
    expect({ status, out }).toEqual({ status: 2, out: '' });
    expect(err).toMatch(ONE_LINE);
    expect(err).toMatch(/^iommu: bad: .*expected /);
  });
  test.each(cases.slice(0, 11))('verify of %s', async (_name, content) => {
    const dir = folder();
    put(dir, 'bad.json', content);
    const { status, out, err } = await iommu(['verify', 'bad.json'], dir);
    expect(status).toBe(2);
    expect(out).toBe('0 passed, 0 failed, 0 skipped\n');
    expect(err).toMatch(ONE_LINE);
    expect(err).toMatch(/^iommu: bad\.json: .*expected /);
  });
  test('events with one field changed: read, or refused in one line', async () => {
    const dir = folder();
    const lines = whole.split('\n').slice(0, 60);
    const values = ['""', '"0x"', '-1', 'null', '{}', '[]', '"0xfffffffffffffffff"', 'true', '1e400', '"D1"', '"0x0"'];
    for (let i = 0; i < 60; i++) {
      const at = (i * 7) % lines.length;
      let field = 0;
      const changed = lines[at]!.replace(/:("[^"]*"|\d+)/g, (all) =>
        field++ === i % 6 ? `:${values[i % values.length]}` : all,
      );
      put(dir, 'bad', lines.with(at, changed).join('\n'));
      const { status, err } = await iommu(['replay', 'bad', '--driver', 'amd', '--no-timing'], dir);
      expect([0, 2], changed).toContain(status);
      if (status === 2) expect(err).toMatch(ONE_LINE);
    }
  });
});
