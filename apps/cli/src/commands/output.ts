/** `--json [file]` and other files that a command writes. */
import { closeSync, openSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { headText, inputError } from '../input.ts';
import type { Io } from '../io.ts';

const doIt = (option: string, file: string, act: () => void): void => {
  try {
    act();
  } catch (error) {
    throw inputError(`${option} ${file}: ${(error as Error).message.split('\n')[0]!}`);
  }
};

/** Makes sure, before a long run, that a file can be written. @throws IommuError `EFORMAT` when it can't. */
export const claimOutput = (io: Io, option: string, file: string): void =>
  doIt(option, file, () => closeSync(openSync(path.resolve(io.cwd, file), 'a')));

/** Writes a file that the user named. @throws IommuError `EFORMAT` when it can't. */
export const writeOutput = (io: Io, option: string, file: string, text: string): void =>
  doIt(option, file, () => writeFileSync(path.resolve(io.cwd, file), text));

/** What `--json` was given: nothing, "to stdout", or a file. */
export interface JsonTarget {
  readonly json: boolean;
  readonly file: string | null;
  /** A word behind `--json` that is an input after all. */
  readonly input: string | null;
}

/** What an earlier `--json` wrote. */
const REPORT = /^\s*\{\s*"format":\s*"iommu-(?:replay|verify)\/1"/;

/** A table, vectors, a dump or a trace, packed or plain: what these commands read. */
const looksLikeInput = (full: string): boolean => {
  const head = headText(full);
  return (
    /^\s*\{[^\n]*"op"\s*:/.test(head) ||
    /"format"\s*:\s*"iommu-(?:golden|vectors|guest-snapshot)\//.test(head) ||
    head.includes('IOMMU:') ||
    head.startsWith('# tracer:')
  );
};

/**
 * `--json` takes a file name or none, so a word behind it could be either. A folder or an existing file that looks like
 * something to read is an input and is never written over; so is every existing file while no other input is named.
 * What an earlier `--json` wrote is written anew.
 * @param named inputs were named apart from this word
 */
export const jsonTarget = (io: Io, value: string | boolean | undefined, named: boolean): JsonTarget => {
  if (value === undefined || value === false) return { json: false, file: null, input: null };
  if (value === true) return { json: true, file: null, input: null };
  const full = path.resolve(io.cwd, value);
  const input = { json: true, file: null, input: value };
  const file = { json: true, file: value, input: null };
  let size: number;
  try {
    const stat = statSync(full);
    if (stat.isDirectory()) return input;
    size = stat.isFile() ? stat.size : 0;
  } catch {
    return file;
  }
  if (size === 0 || REPORT.test(headText(full))) return file;
  return named && !looksLikeInput(full) ? file : input;
};

/** JSON of a report, a line a key at the top. */
export const jsonText = (report: unknown): string => `${JSON.stringify(report, null, 1)}\n`;
