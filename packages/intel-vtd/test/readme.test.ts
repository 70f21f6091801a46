/** The examples in the README print what it says they print. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { expect, test } from 'vitest';

const here = fileURLToPath(new URL('..', import.meta.url));
const text = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
const examples = [...text.matchAll(/^```ts\n([\s\S]*?)^```\n\n```text\n([\s\S]*?)^```$/gm)];

test('there are examples', () => expect(examples.length).toBe(2));

test.each(examples.map((match, i) => [i + 1, match[1]!, match[2]!] as const))(
  'example %i',
  async (_n, code, output) => {
    const bundle = await build({
      stdin: { contents: code, resolveDir: here, loader: 'ts' },
      bundle: true,
      write: false,
      format: 'esm',
      platform: 'node',
      conditions: ['@iommu-ts/source'],
    });
    const stdout = execFileSync(process.execPath, ['--input-type=module', '-'], { input: bundle.outputFiles[0]!.text });
    expect(stdout.toString()).toBe(output);
  },
);
