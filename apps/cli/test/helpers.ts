import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import { run } from '../src/cli.ts';
import type { Parts } from '../src/cli.ts';
import { goldenClaims } from '../src/goldens.ts';
import { harnesses } from '../src/harnesses.ts';

const FIXTURES = fileURLToPath(new URL('../../../packages/conformance/fixtures', import.meta.url));
export const fixture = (name: string): string => path.join(FIXTURES, name);

export interface Outcome {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

/** `iommu <args>` in this process. */
export const iommu = async (
  args: readonly string[],
  cwd: string = FIXTURES,
  parts?: Partial<Parts>,
): Promise<Outcome> => {
  let out = '';
  let err = '';
  const io = {
    out: (text: string): void => void (out += text),
    err: (text: string): void => void (err += text),
    progress: false,
    cwd,
  };
  const status = await run(args, io, '0.0.0-test', { harnesses, claims: goldenClaims, ...parts });
  return { status, out, err };
};

/** An empty folder of our own. */
export const folder = (): string => mkdtempSync(path.join(tmpdir(), 'iommu-test-'));

/** Writes `content` into `dir` and returns the path. */
export const put = (dir: string, name: string, content: string | Uint8Array): string => {
  const full = path.join(dir, name);
  writeFileSync(full, content);
  return full;
};

/** Text of a fixture, unpacked. */
export const textOf = (name: string): string => {
  const bytes = readFileSync(fixture(name));
  return (bytes[0] === 0x1f ? gunzipSync(bytes) : bytes).toString('utf8');
};

export const gzip = (text: string): Uint8Array => gzipSync(text);

/** One clear line, and no stack trace. */
export const ONE_LINE = /^iommu: [^\n]+\n$/;
