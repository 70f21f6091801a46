/** `iommu verify` on what was recorded, and on copies with something wrong in them. */
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { ONE_LINE, fixture, folder, gzip, iommu, put, textOf } from './helpers.ts';

const lastLine = (out: string): string => out.trimEnd().split('\n').at(-1)!;

describe('recorded files', () => {
  test('golden tables: a line a file, then the sum', async () => {
    const files = [
      'amdv1-va48-0',
      'arm-s1-4k-48-0',
      'dart1-16k-36-36-0',
      'riscv64-sv48-0',
      'vtdss-48-0',
      'x86_64-48-0',
    ];
    const names = files.map((name) => `golden/${name}.json.gz`);
    const { status, out, err } = await iommu(['verify', ...names]);
    expect(err).toBe('');
    expect(status).toBe(0);
    const lines = out.trimEnd().split('\n');
    expect(lines).toHaveLength(names.length + 1);
    for (const [i, name] of names.entries()) expect(lines[i]).toContain(name);
    expect(lines.at(-1)).toBe('6 passed, 0 failed, 0 skipped');
    expect(out).toMatch(
      /amdv1.*\(amd\)[\s\S]*arm-s1.*\(arm-smmu\)[\s\S]*dart1.*\(apple-dart\)[\s\S]*riscv64.*\(riscv\)[\s\S]*x86_64.*\(intel-vtd\)/,
    );
  });
  test('the recordings of drivers, with every IOTLB', async () => {
    const { status, out } = await iommu(['verify', 'vectors/linux-drivers']);
    expect(status, out).toBe(0);
    expect(lastLine(out)).toBe('5 passed, 0 failed, 0 skipped');
  });
  test('vectors: skipped operations are counted apart', async () => {
    const { out } = await iommu(['verify', 'vectors/qemu/amd-vi-v1-1.jsonl.gz', '--json']);
    const report = JSON.parse(out) as {
      format: string;
      passed: number;
      failed: number;
      skipped: number;
      files: { cases: unknown[] }[];
    };
    expect(report.format).toBe('iommu-verify/1');
    expect(report.passed + report.failed).toBe(91);
    expect(report.skipped).toBeGreaterThan(0);
    expect(report.files[0]!.cases).toHaveLength(91);
  });
  test('a snapshot, by its folder or its manifest', async () => {
    for (const name of ['guests/linux-6.12-amd-vi', 'guests/linux-6.12-amd-vi/manifest.json']) {
      const { status, out } = await iommu(['verify', name]);
      expect(status, out).toBe(0);
      expect(lastLine(out)).toBe('10 passed, 0 failed, 0 skipped');
    }
  });
  test('folders in folders; --driver leaves the others out', async () => {
    const { out, err } = await iommu(['verify', 'guests', '--driver', 'riscv']);
    expect(err).toBe('');
    expect(out.trimEnd().split('\n')).toHaveLength(2);
    expect(lastLine(out)).toBe('14 passed, 0 failed, 0 skipped');
  });
  test('--json FILE keeps the lines, and an input behind --json is an input', async () => {
    const dir = folder();
    cpSync(fixture('golden/vtdss-39-0.json.gz'), path.join(dir, 'a.json.gz'));
    const { status, out } = await iommu(['verify', 'a.json.gz', '--json', 'out.json'], dir);
    expect(status).toBe(0);
    expect(lastLine(out)).toBe('1 passed, 0 failed, 0 skipped');
    expect(JSON.parse(readFileSync(path.join(dir, 'out.json'), 'utf8'))).toMatchObject({
      passed: 1,
      files: [{ file: 'a.json.gz', kind: 'golden' }],
    });
    const before = readFileSync(path.join(dir, 'a.json.gz'));
    const swapped = await iommu(['verify', '--json', 'a.json.gz'], dir);
    expect(JSON.parse(swapped.out)).toMatchObject({ passed: 1 });
    expect(readFileSync(path.join(dir, 'a.json.gz'))).toEqual(before);
  });
});

describe('folders as people have them', () => {
  const one = 'golden/vtdss-39-0.json.gz';
  test('a manifest of something else, links in a circle, other files', async () => {
    const dir = folder();
    cpSync(fixture(one), path.join(dir, 'a.json.gz'));
    put(dir, 'manifest.json', '{"name":"an extension","manifest_version":3}');
    put(dir, 'notes.txt', 'a golden table: "format"');
    put(dir, 'package.json', '{"format":7}');
    symlinkSync('.', path.join(dir, 'loop'));
    symlinkSync('nowhere', path.join(dir, 'dangling.json'));
    const { status, out, err } = await iommu(['verify', '.'], dir);
    expect({ status, err }).toEqual({ status: 0, err: '' });
    expect(out).toBe('ok   a.json.gz (intel-vtd): 1 passed, 0 failed\n1 passed, 0 failed, 0 skipped\n');
  });
  test('the content tells, not the name', async () => {
    const dir = folder();
    put(dir, 'plain', textOf(one));
    cpSync(fixture(one), path.join(dir, 'packed.bin'));
    put(dir, 'vectors.log', textOf('vectors/linux-drivers/amd-vi-linux-7.2.jsonl.gz'));
    const { status, out } = await iommu(['verify', dir]);
    expect(status, out).toBe(0);
    expect(lastLine(out)).toBe('3 passed, 0 failed, 0 skipped');
  });
  test('files are named as they were given', async () => {
    const dir = folder();
    mkdirSync(path.join(dir, 'below'));
    cpSync(fixture(one), path.join(dir, 'a.json.gz'));
    put(dir, 'b.json', '{');
    const below = path.join(dir, 'below');
    for (const name of ['../a.json.gz', '..', '../']) {
      const { out } = await iommu(['verify', name], below);
      expect(out).toMatch(/^ok {3}\.\.\/a\.json\.gz \(intel-vtd\)/);
    }
    expect((await iommu(['verify', '..'], below)).err).toMatch(/^iommu: \.\.\/b\.json: expected JSON/);
    expect((await iommu(['verify', path.join(dir, 'a.json.gz')], dir)).out).toContain(path.join(dir, 'a.json.gz'));
    expect((await iommu(['verify', '../nothing'], below)).err).toContain('iommu: ../nothing: no such file');
  });
  test('what is no JSON is told in one line', async () => {
    const dir = folder();
    put(dir, 'tsconfig.json', '// of a project\n{"a": 1,}\n');
    const { status, err } = await iommu(['verify', 'tsconfig.json'], dir);
    expect(status).toBe(2);
    expect(err).toMatch(ONE_LINE);
  });
});

describe('--json FILE where a file is', () => {
  test('another file is written over, an input is not', async () => {
    const dir = folder();
    cpSync(fixture('golden/vtdss-39-0.json.gz'), path.join(dir, 'a.json.gz'));
    for (const before of ['', 'old\n', '{"format":"iommu-verify/1"', '{"made by":"something else"}']) {
      put(dir, 'out.json', before);
      const { status, out } = await iommu(['verify', 'a.json.gz', '--json', 'out.json'], dir);
      expect({ status, last: lastLine(out) }).toEqual({ status: 0, last: '1 passed, 0 failed, 0 skipped' });
      expect(JSON.parse(readFileSync(path.join(dir, 'out.json'), 'utf8'))).toMatchObject({ passed: 1 });
    }
    put(dir, 'g.json', textOf('golden/vtdss-39-1.json.gz'));
    const both = await iommu(['verify', 'a.json.gz', '--json', 'g.json'], dir);
    expect(JSON.parse(both.out)).toMatchObject({ passed: 2 });
    expect(readFileSync(path.join(dir, 'g.json'), 'utf8')).toBe(textOf('golden/vtdss-39-1.json.gz'));
  });
  test('one that cannot be written is told before anything is played', async () => {
    const dir = folder();
    cpSync(fixture('golden/vtdss-39-0.json.gz'), path.join(dir, 'a.json.gz'));
    const { status, out, err } = await iommu(['verify', 'a.json.gz', '--json', 'no/such/x.json'], dir);
    expect({ status, out }).toEqual({ status: 2, out: '' });
    expect(err).toMatch(/^iommu: --json no\/such\/x\.json: ENOENT[^\n]*\n$/);
  });
});

describe('what does not match fails with status 1', () => {
  const golden = (change: (text: string) => string): Promise<{ status: number; out: string; err: string }> => {
    const dir = folder();
    const text = textOf('golden/vtdss-39-0.json.gz');
    const changed = change(text);
    expect(changed).not.toBe(text);
    put(dir, 'g.json.gz', gzip(changed));
    return iommu(['verify', 'g.json.gz'], dir);
  };
  test.each([
    ['a return value', (t: string) => t.replace('"ret":0,"mapped"', '"ret":-22,"mapped"')],
    ['bytes unmapped', (t: string) => t.replace('"len":"0x1000","ret":"0x1000"', '"len":"0x1000","ret":"0x2000"')],
    ['a leaf', (t: string) => t.replace(/("leaves":\s*\[\s*\{[^}]*"pa":\s*")0x([0-9a-f]+)"/, '$10x1$2"')],
    [
      'a byte of a table',
      (t: string) =>
        t.replace(
          /("tables":\s*\{\s*"0x[0-9a-f]+":\s*")(.)/,
          (_, a: string, b: string) => `${a}${b === '0' ? '1' : '0'}`,
        ),
    ],
    ['a probe', (t: string) => t.replace(/("probes":[\s\S]*?"pa":\s*)(?:null|"[^"]*")/, '$1"0xdead000"')],
    ['the log', (t: string) => t.replace(/\["alloc"/, '["free"')],
  ])('golden table: %s', async (_name, change) => {
    const { status, out, err } = await golden(change);
    expect(err).toBe('');
    expect(status).toBe(1);
    expect(out).toMatch(/^FAIL g\.json\.gz \(intel-vtd\): 0 passed, 1 failed; first: /);
    expect(lastLine(out)).toBe('0 passed, 1 failed, 0 skipped');
  });

  const vectors = async (change: (lines: string[]) => string[]): Promise<{ status: number; out: string }> => {
    const dir = folder();
    const lines = textOf('vectors/qemu/intel-vtd-legacy-1.jsonl.gz').split('\n');
    put(dir, 'v.jsonl.gz', gzip(change(lines).join('\n')));
    return iommu(['verify', 'v.jsonl.gz', '-v'], dir);
  };
  test.each([
    ['a register', '"op":"rd"', (l: string) => l.replace(/"val":"0x([0-9a-f]+)"/, '"val":"0x$11"')],
    [
      'memory',
      '"op":"chk"',
      (l: string) => l.replace(/"hex":"(.)/, (_, d: string) => `"hex":"${d === 'f' ? '0' : 'f'}`),
    ],
    ['where a DMA lands', '"ok":true,"pa"', (l: string) => l.replace(/"pa":"0x/, '"pa":"0x1')],
    ['that a DMA is refused', '"ok":false', (l: string) => l.replace('"ok":false', '"ok":true')],
    ['an operation nobody knows', '"op":"wr"', (l: string) => l.replace('"op":"wr"', '"op":"tr"')],
  ])('vectors: %s', async (_name, where, change) => {
    const all = (await vectors((lines) => lines)).out;
    const { status, out } = await vectors((lines) => {
      const at = lines.findIndex(
        (l, i) => i > 20 && l.includes(where) && !/"(?:impl|note|qemu_deviates|mask":"0x0)"/.test(l),
      );
      expect(at).toBeGreaterThan(0);
      return lines.with(at, change(lines[at]!));
    });
    expect(status).toBe(1);
    const failed = (text: string): number => Number(/(\d+) failed, \d+ skipped/.exec(lastLine(text))![1]);
    expect(failed(out)).toBe(failed(all) + 1);
  });

  test('snapshot: one bit of a table', async () => {
    const dir = folder();
    const copy = path.join(dir, 'guest');
    mkdirSync(copy);
    for (const part of ['manifest.json', 'mappings.json.gz', 'tables.core.gz']) {
      cpSync(path.join(fixture('guests/linux-6.12-amd-vi'), part), path.join(copy, part));
    }
    const core = gunzipSync(readFileSync(path.join(copy, 'tables.core.gz')));
    const text = textOf('guests/linux-6.12-amd-vi/mappings.json.gz');
    expect((await iommu(['verify', 'guest'], dir)).status).toBe(0);
    // A leaf of AMD v1 with IR and IW (bits 62:61), FC (60) and PR (0): the first one found loses its IW.
    let at = -1;
    for (let i = 0x1000; i < core.length && at < 0; i += 8) {
      if (core[i + 7] === 0x70 && (core[i]! & 1) === 1 && (core[i + 1]! & 0x0e) === 0) at = i;
    }
    expect(at).toBeGreaterThan(0);
    core[at + 7] = 0x30;
    writeFileSync(path.join(copy, 'tables.core.gz'), gzipSync(core));
    const bit = await iommu(['verify', 'guest'], dir);
    expect(bit.status, bit.out).toBe(1);
    expect(bit.out).toMatch(/expected 0x.* rw, found 0x.* r-/);
    writeFileSync(path.join(copy, 'mappings.json'), text.replace('"pa":"0x', '"pa":"0x1'));
    const mapping = await iommu(['verify', 'guest'], dir);
    expect(mapping.status).toBe(1);
  });

  test('an IOMMU that no driver plays, a table that none has', async () => {
    const dir = folder();
    put(dir, 'v.jsonl', '{"format":"iommu-vectors/1","iommu":"vax-ubamap"}\n{"op":"scenario","name":"one"}\n');
    put(dir, 'g.json', textOf('golden/vtdss-39-0.json.gz').replace('"pageTable":"vtdss"', '"pageTable":"vax"'));
    const { status, out } = await iommu(['verify', 'v.jsonl', 'g.json'], dir);
    expect(status).toBe(1);
    expect(out).toMatch(/no driver plays "vax-ubamap" yet/);
    expect(out).toMatch(/no driver knows the page table "vax"/);
    expect(lastLine(out)).toBe('0 passed, 2 failed, 0 skipped');
  });
  test('a known deviation passes, only for that operation', async () => {
    const dir = folder();
    const lines = textOf('vectors/qemu/intel-vtd-legacy-1.jsonl.gz').split('\n');
    const at = lines.findIndex((l, i) => i > 20 && l.includes('"op":"rd"') && !l.includes('"mask":"0x0"'));
    const scenario = /"name":"([^"]*)"/.exec(lines.slice(0, at).findLast((l) => l.includes('"scenario"'))!)![1]!;
    put(dir, 'v.jsonl', lines.with(at, lines[at]!.replace(/"val":"0x([0-9a-f]+)"/, '"val":"0x$11"')).join('\n'));
    const entry = { file: 'v.jsonl', scenario, op: at + 1, clause: '1.2', why: 'a test' };
    put(dir, 'known.json', JSON.stringify([entry]));
    put(dir, 'other.json', JSON.stringify([{ ...entry, op: at }]));
    const without = await iommu(['verify', 'v.jsonl', '--known-deviations', 'other.json'], dir);
    const known = await iommu(['verify', 'v.jsonl', '--known-deviations', 'known.json'], dir);
    expect(without.status).toBe(1);
    const failed = (text: string): number => Number(/(\d+) failed, \d+ skipped/.exec(lastLine(text))![1]);
    expect(failed(known.out)).toBe(failed(without.out) - 1);
    expect(known.out).toMatch(/1 known to deviate/);
    put(dir, 'none.json', '[]');
    const files = ['known.json', 'none.json'].flatMap((file) => ['--known-deviations', file]);
    expect((await iommu(['verify', 'v.jsonl', ...files], dir)).out).toBe(known.out);
    put(dir, 'bad.json', '{}');
    const bad = await iommu(['verify', 'v.jsonl', '--known-deviations', 'bad.json'], dir);
    expect(bad).toMatchObject({ status: 2, out: '' });
    expect(bad.err).toMatch(ONE_LINE);
  });
});

describe('what cannot be read gives status 2', () => {
  test('the rest is played all the same', async () => {
    const dir = folder();
    cpSync(fixture('golden/vtdss-39-0.json.gz'), path.join(dir, 'a.json.gz'));
    put(dir, 'b.json.gz', readFileSync(fixture('golden/vtdss-39-1.json.gz')).subarray(0, 1000));
    const { status, out, err } = await iommu(['verify', '.'], dir);
    expect(status).toBe(2);
    expect(err).toMatch(ONE_LINE);
    expect(err).toMatch(/b\.json\.gz: byte 1000: expected whole gzip data/);
    expect(lastLine(out)).toBe('1 passed, 0 failed, 0 skipped');
  });
  test.each([
    [
      'a field of a golden file',
      'g.json',
      () => textOf('golden/vtdss-39-0.json.gz').replace('"iova":"0x4ce2e61000"', '"iova":77.5'),
      /g\.json: .*"iova"/,
    ],
    [
      'a golden file cut short',
      'g.json',
      () => textOf('golden/vtdss-39-0.json.gz').slice(0, 20_000),
      /g\.json: expected JSON/,
    ],
    [
      'a line of vectors',
      'v.jsonl',
      () => textOf('vectors/qemu/amd-vi-v1-1.jsonl.gz').split('\n').with(40, '{"op":"rd"}').join('\n'),
      /v\.jsonl: line 41: expected "off"/,
    ],
    [
      'vectors cut short',
      'v.jsonl',
      () => textOf('vectors/qemu/amd-vi-v1-1.jsonl.gz').slice(0, 10_007),
      /v\.jsonl: line \d+: expected a JSON object/,
    ],
    [
      'another format',
      'x.json',
      () => '{"format":"iommu-golden/9"}',
      /x\.json: expected "format" iommu-golden\/1, .*found "iommu-golden\/9"/,
    ],
  ])('%s', async (_name, file, content, message) => {
    const dir = folder();
    put(dir, file, content());
    const { status, err } = await iommu(['verify', file], dir);
    expect(status).toBe(2);
    expect(err).toMatch(ONE_LINE);
    expect(err).toMatch(message);
  });
  test('a snapshot without its core', async () => {
    const dir = folder();
    for (const part of ['manifest.json', 'mappings.json.gz']) {
      cpSync(path.join(fixture('guests/linux-6.12-amd-vi'), part), path.join(dir, part));
    }
    const { status, err } = await iommu(['verify', '.'], dir);
    expect(status).toBe(2);
    expect(err).toMatch(/expected tables\.core or tables\.core\.gz in the snapshot folder/);
    put(dir, 'tables.core', new Uint8Array(100));
    expect((await iommu(['verify', '.'], dir)).err).toMatch(/tables\.core: byte 0: expected the ELF magic/);
  });
  test.each([
    [['no-such-folder'], /no-such-folder: no such file or folder/],
    [['.'], /expected golden tables, vectors or snapshots in it, found none/],
    [[], /verify: expected files or folders/],
    [['.', '--driver', 'vax'], /--driver vax/],
  ])('%j', async (args, message) => {
    const { status, err } = await iommu(['verify', ...args], folder());
    expect(status).toBe(2);
    expect(err).toMatch(ONE_LINE);
    expect(err).toMatch(message);
  });
  test('files of a driver that was not asked for', async () => {
    const { status, err } = await iommu(['verify', 'golden/vtdss-39-0.json.gz', '--driver', 'riscv']);
    expect(status).toBe(2);
    expect(err).toMatch(/--driver riscv: none of the 1 inputs belongs to it/);
  });
});
