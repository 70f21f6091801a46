/** The README's examples run as printed, and print what they say. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { expect, test } from 'vitest';

const folder = fileURLToPath(new URL('.', import.meta.url));
const readme = readFileSync(new URL('../README.md', import.meta.url)).toString();
const blocks = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]!);

test.each(blocks.map((code, i) => [i, code] as const))('example %i', async (_, code) => {
  const { outputFiles } = await build({
    stdin: { contents: code, resolveDir: folder, loader: 'ts' },
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'neutral',
    conditions: ['@iommu-ts/source'],
  });
  const place = mkdtempSync(`${folder}/.readme-`);
  try {
    writeFileSync(`${place}/example.mjs`, outputFiles[0]!.text);
    const printed = execFileSync(process.execPath, [`${place}/example.mjs`])
      .toString()
      .trim()
      .split('\n');
    // Comments behind or below a console.log say what it prints.
    const promised = [...code.matchAll(/console\.log\([^\n]*\);(?: |\n)\/\/ ([^\n]*)/g)].map((match) => match[1]!);
    expect(promised.length).toBeGreaterThan(0);
    expect(printed).toEqual(promised);
  } finally {
    rmSync(place, { recursive: true });
  }
});

test('there are examples', () => expect(blocks.length).toBe(2));
