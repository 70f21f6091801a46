import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createProgram } from '../src/cli.ts';

let folder: string;
let printed: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bench-'));
  printed = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => ((printed += String(text)), true));
  vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
});

afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
  rmSync(folder, { recursive: true });
});

const run = (...args: string[]): Promise<unknown> =>
  createProgram('not used')
    .exitOverride()
    .parseAsync(['node', 'bench', '--quick', ...args]);

describe('bench', () => {
  test('one row and one kind of ratio: tables on stdout, the same in the file, exit 0', async () => {
    const file = join(folder, 'out.json');
    await run('--driver', 'riscv', '--filter', 'sv48/(map-4k|bulk)$', '--rounds', '2', '--json', file);
    const document = JSON.parse(readFileSync(file, 'utf8'));
    expect(document).toMatchObject({
      format: 'iommu-bench/1',
      node: process.version,
      machine: { cpu: expect.any(String), cores: expect.any(Number) },
      commit: expect.any(String),
      options: { quick: true, rounds: 2, driver: ['riscv'] },
      kernel: [{ format: 'riscv64-sv48', row: 'map-4k', kernelNs: 20.9 }],
    });
    expect(document.rows).toHaveLength(1);
    expect(document.rows[0]).toMatchObject({ driver: 'riscv', format: 'riscv64-sv48', row: 'map-4k', per: 'call' });
    expect(document.rows[0].ns).toBeGreaterThan(0);
    expect(document.ratios.map((r: { name: string }) => r.name)).toEqual([
      'bulk map / TypedArray.fill of as many bytes',
      'bulk unmap / TypedArray.fill of as many bytes',
      'bulk map / calibration fill',
      'bulk unmap / calibration fill',
    ]);
    for (const text of [
      'riscv64-sv48',
      'map-4k',
      'bulk map / calibration fill',
      '≤ 12',
      'AMD Zen 5',
      process.version,
    ]) {
      expect(printed).toContain(text);
    }
    expect(printed.trimEnd().split('\n').at(-1)).toMatch(/^1 rows, 4 ratios, \d within their targets, \d not/);
    expect(process.exitCode).toBeUndefined();
  });

  test('rows and ratios can be left out', async () => {
    await run('--driver', 'riscv', '--no-rows', '--no-ratios');
    expect(printed).toMatch(/^0 rows, 0 ratios \(quick/m);
  });

  test.each([
    ['--driver', 'vax'],
    ['--rounds', '0'],
    ['--filter', '('],
  ])('%s %s is refused', async (option, value) => {
    await expect(run(option, value)).rejects.toMatchObject({ code: 'commander.invalidArgument' });
  });
});
