import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { describe, expect, test } from 'vitest';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const cli = path.join(root, 'apps/cli');

interface Example {
  readonly name: string;
  readonly code: string;
  /** The `text` block that follows, if any. */
  readonly output: string | undefined;
}

/** `ts` blocks of a README with the `text` block that comes right after each. */
const examplesOf = (file: string): Example[] => {
  const text = readFileSync(path.join(root, file), 'utf8');
  const blocks = [...text.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)];
  return blocks.flatMap((block, i) => {
    if (block[1] !== 'ts') return [];
    const next = blocks[i + 1];
    const between = next === undefined ? '' : text.slice(block.index + block[0].length, next.index);
    const output = next?.[1] === 'text' && between.trim() === '' ? next[2] : undefined;
    return [{ name: `${file} line ${text.slice(0, block.index).split('\n').length}`, code: block[2]!, output }];
  });
};

const run = async (code: string): Promise<string> => {
  const bundle = await build({
    stdin: { contents: code, resolveDir: cli, loader: 'ts' },
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'node',
    conditions: ['@iommu-ts/source'],
  });
  return execFileSync(process.execPath, ['--input-type=module', '-'], {
    input: bundle.outputFiles[0]!.text,
    encoding: 'utf8',
  });
};

const readmes = [
  'README.md',
  ...readdirSync(path.join(root, 'packages'))
    .map((name) => `packages/${name}/README.md`)
    .filter((file) => {
      try {
        return readFileSync(path.join(root, file), 'utf8').length > 0;
      } catch {
        return false;
      }
    }),
];

describe('the examples in the READMEs run as printed', () => {
  const examples = readmes.flatMap(examplesOf);
  test('there are examples', () => {
    expect(examples.length).toBeGreaterThan(0);
    expect(examplesOf('README.md').length).toBeGreaterThan(0);
  });
  for (const { name, code, output } of examples) {
    test(name, async () => {
      const printed = await run(code);
      if (output !== undefined) expect(printed.trimEnd()).toBe(output.trimEnd());
    });
  }
});

describe('the commands in README.md run as printed', () => {
  const text = readFileSync(path.join(root, 'README.md'), 'utf8');
  const commands = [...text.matchAll(/^\$ pnpm --silent iommu (.*)$/gm)].map((m) => m[1]!);
  test('there are commands', () => expect(commands.length).toBeGreaterThan(0));
  for (const command of commands) {
    test(`iommu ${command}`, () => {
      const args = command.match(/'[^']*'|\S+/g)!.map((arg) => arg.replace(/^'|'$/g, ''));
      const printed = execFileSync(process.execPath, ['scripts/iommu.mjs', ...args], {
        cwd: root,
        encoding: 'utf8',
        env: { ...process.env, INIT_CWD: root, NO_COLOR: '1' },
      });
      expect(printed.trim()).not.toBe('');
    });
  }
});
