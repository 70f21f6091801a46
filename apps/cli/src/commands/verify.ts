/** `iommu verify`: recorded tables, vectors and dumps against the drivers. */
import path from 'node:path';
import { parseKnownDeviations } from '@iommu-ts/conformance';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import type { GoldenClaim } from '../goldens.ts';
import { selectDrivers } from '../harnesses.ts';
import { inputError, readText } from '../input.ts';
import type { Io } from '../io.ts';
import { findInputs } from '../verify/inputs.ts';
import { fileLine, playInput } from '../verify/play.ts';
import type { FileResult } from '../verify/play.ts';
import { claimOutputs, jsonTarget, jsonText, writeOutput } from './output.ts';

export interface VerifyFlags {
  readonly driver: string;
  readonly json?: string | boolean;
  readonly knownDeviations?: readonly string[];
  readonly verbose?: boolean;
}

/** Puts the name that the user gave in the place of the path that was opened. */
const asGiven =
  (cwd: string, name: string, full: string) =>
  (text: string): string => {
    const { sep } = path;
    // Below the current folder, `.` and `./a` need no dots.
    const plain = path.isAbsolute(name) ? text : text.replaceAll(`${cwd}${sep}`, '');
    const given = path.normalize(name).replace(/(?<=.)[\\/]+$/, '');
    if (plain === full || plain.startsWith(`${full}:`)) return given + plain.slice(full.length);
    return plain.replaceAll(`${full}${sep}`, `${given}${sep}`);
  };

/** @returns the exit status: 0, 1 something failed, 2 something could not be read. */
export const verifyCommand = (
  io: Io,
  names: readonly string[],
  flags: VerifyFlags,
  all: readonly DriverHarness[],
  claims: Readonly<Record<string, GoldenClaim>>,
): number => {
  const target = jsonTarget(io, flags.json, names.length > 0);
  const inputs = target.input === null ? [...names] : [target.input, ...names];
  if (inputs.length === 0) throw inputError('verify: expected files or folders');
  const harnesses = selectDrivers(flags.driver, all);
  const deviations = (flags.knownDeviations ?? []).flatMap((file) =>
    parseKnownDeviations(readText(path.resolve(io.cwd, file), file), file),
  );
  claimOutputs(io, [['--json', target.file]]);
  const context = { harnesses, claims, deviations };
  const lines = !(target.json && target.file === null);
  const files: FileResult[] = [];
  const unreadable: { file: string; message: string }[] = [];
  let others = 0;
  for (const name of inputs) {
    const full = path.resolve(io.cwd, name);
    const shown = asGiven(path.resolve(io.cwd), name, full);
    let any = false;
    for (const input of findInputs(full)) {
      any = true;
      try {
        if (input.kind === 'unreadable') throw inputError(input.message);
        const result = playInput(input, context, all);
        if (result === null) {
          others++;
          continue;
        }
        const named = { ...result, file: shown(result.file) };
        files.push(named);
        if (lines) {
          io.out(`${fileLine(named)}\n`);
          if (flags.verbose === true) {
            for (const c of named.cases) if (!c.ok) io.out(`       ${c.name}: ${c.why}\n`);
          }
        }
      } catch (error) {
        if ((error as { code?: string }).code !== 'EFORMAT') throw error;
        const message = shown((error as Error).message);
        unreadable.push({ file: shown(input.file), message });
        io.err(`iommu: ${message}\n`);
      }
    }
    if (!any) {
      const message = `${name}: expected golden tables, vectors or snapshots in it, found none`;
      unreadable.push({ file: name, message });
      io.err(`iommu: ${message}\n`);
    }
  }
  if (files.length === 0 && unreadable.length === 0) {
    throw inputError(`--driver ${flags.driver}: none of the ${others} inputs belongs to it`);
  }
  const sum = (of: (r: FileResult) => number): number => files.reduce((total, r) => total + of(r), 0);
  const totals = { passed: sum((r) => r.passed), failed: sum((r) => r.failed), skipped: sum((r) => r.skipped) };
  if (target.json) {
    const text = jsonText({ format: 'iommu-verify/1', ...totals, files, unreadable });
    if (target.file === null) io.out(text);
    else writeOutput(io, '--json', target.file, text);
  }
  if (lines) io.out(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped\n`);
  if (unreadable.length > 0) return 2;
  return totals.failed > 0 ? 1 : 0;
};
