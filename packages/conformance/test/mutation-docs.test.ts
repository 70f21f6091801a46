/** docs/mutations/README.md counts what the tables of the drivers hold. */
import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import * as mutation from '../src/mutation/index.ts';

const folder = new URL('../../../docs/mutations/', import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, folder), 'utf8');
const namesIn = (name: string): string[] => [...read(name).matchAll(/^\| `([\w-]+)`/gm)].map((match) => match[1]!);
const files = readdirSync(fileURLToPath(folder)).filter((name) => name !== 'README.md');

test('the counts in the README are those of the tables', () => {
  const readme = read('README.md');
  const count = (label: string): number => Number(readme.match(new RegExp(`${label}[^|]*\\|\\s*(\\d+)`))?.[1]);
  for (const file of files) expect(count(`\\(${file}\\)`), file).toBe(namesIn(file).length);
  const all = files.flatMap(namesIn);
  expect(count('runs')).toBe(all.length);
  const shared = new Set(
    Object.values(mutation)
      .flatMap((value) => (Array.isArray(value) ? (value as readonly mutation.Mutation[]) : []))
      .map(({ name }) => name),
  );
  const sharedRuns = all.filter((name) => shared.has(name));
  expect(new Set(sharedRuns), 'every shared bug is seeded somewhere').toEqual(shared);
  expect(count('of them, bugs that differ in kind')).toBe(all.length - sharedRuns.length + shared.size);
  expect(all.length - sharedRuns.length + shared.size).toBeGreaterThanOrEqual(40);
  for (const file of files) expect(read(file), file).not.toContain('not caught');
});
