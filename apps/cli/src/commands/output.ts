/** `--json [file]` and other files that a command writes. */
import { closeSync, fstatSync, openSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
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
const REPORT = /^\s*\{\s*"format":\s*"iommu-(?:replay|verify|pages-report)\/1"/;

/** A table, vectors, a dump, its mappings or a trace, packed or plain: what these commands read. */
const looksLikeInput = (full: string): boolean => {
  const head = headText(full);
  return (
    /^\s*\{[^\n]*"op"\s*:/.test(head) ||
    /"format"\s*:\s*"iommu-(?:golden|vectors|guest-snapshot|mappings)\//.test(head) ||
    head.includes('IOMMU:') ||
    head.startsWith('# tracer:') ||
    head.startsWith('\x7fELF')
  );
};

/** An output of a command: the option, and the file that it was given, if any. */
type Output = readonly [option: string, file: string | null | undefined];

/** What a file is, whatever it is called; null when it is no regular file or does not exist. */
const identityOf = (full: string): string | null => {
  const stat = statSync(full, { throwIfNoEntry: false });
  return stat?.isFile() === true ? `${stat.dev}:${stat.ino}` : null;
};

/**
 * Makes sure, before a long run, that files can be written and that none of them is something to read: the input by
 * another name, a file that looks like one, or another output. What is claimed in vain is not left behind.
 * @param input what the command reads, as a full path
 * @throws IommuError `EFORMAT` when one can't be written.
 */
export const claimOutputs = (io: Io, outputs: readonly Output[], input: string | null = null): void => {
  const taken = new Map<string, string>();
  const created: string[] = [];
  try {
    for (const [option, file] of outputs) {
      if (typeof file !== 'string') continue;
      const full = path.resolve(io.cwd, file);
      doIt(option, file, () => {
        const before = identityOf(full);
        const head = before === null ? '' : headText(full);
        const report = REPORT.test(head) || head.startsWith('<!doctype html>');
        if (
          before !== null &&
          ((input !== null && before === identityOf(input)) || (!report && looksLikeInput(full)))
        ) {
          throw new Error('is an input, and is not written over');
        }
        const handle = openSync(full, 'a');
        const stat = fstatSync(handle);
        closeSync(handle);
        if (!stat.isFile()) return;
        if (before === null) created.push(full);
        const now = `${stat.dev}:${stat.ino}`;
        const other = taken.get(now);
        if (other !== undefined) throw new Error(`is what ${other} is written to`);
        taken.set(now, option);
      });
    }
  } catch (error) {
    for (const full of created) unlinkSync(full);
    throw error;
  }
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
