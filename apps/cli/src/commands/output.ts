/** `--json [file]` and other files that a command writes. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { inputError } from '../input.ts';
import type { Io } from '../io.ts';

/** Writes a file that the user named. @throws IommuError `EFORMAT` when it can't. */
export const writeOutput = (io: Io, option: string, file: string, text: string): void => {
  try {
    writeFileSync(path.resolve(io.cwd, file), text);
  } catch (error) {
    throw inputError(`${option} ${file}: ${(error as Error).message.split('\n')[0]!}`);
  }
};

/** True for a file that an earlier `--json` wrote. */
const isReport = (full: string): boolean => {
  try {
    return /^\s*\{\s*"format":\s*"iommu-(?:replay|verify)\/1"/.test(readFileSync(full, 'utf8').slice(0, 200));
  } catch {
    return false;
  }
};

/** What `--json` was given: nothing, "to stdout", or a file. */
export interface JsonTarget {
  readonly json: boolean;
  readonly file: string | null;
  /** A word behind `--json` that is an input after all. */
  readonly input: string | null;
}

/**
 * `--json` takes a file name or none, so a word behind it could be either. Something that exists and was not written by
 * this program is an input, and is never written over.
 */
export const jsonTarget = (io: Io, value: string | boolean | undefined): JsonTarget => {
  if (value === undefined || value === false) return { json: false, file: null, input: null };
  if (value === true) return { json: true, file: null, input: null };
  const full = path.resolve(io.cwd, value);
  let there = false;
  try {
    const stat = statSync(full);
    there = stat.isDirectory() || stat.size > 0;
  } catch {
    there = false;
  }
  if (there && !isReport(full)) return { json: true, file: null, input: value };
  return { json: true, file: value, input: null };
};

/** JSON of a report, a line a key at the top. */
export const jsonText = (report: unknown): string => `${JSON.stringify(report, null, 1)}\n`;
