/**
 * The conformance suite of page-table formats: what every format must do whatever its bits. Cases are named after
 * generic_pt's kunit tests where there is one. Each runs over sparse memory (the engine's plain loops) and flat memory
 * (its SIMD loops), and must give every table page back.
 */
import { describe, expect, test } from 'vitest';
import { passes } from './driver-suite.ts';
import { formatCases as basicCases } from './format/cases.ts';
import type { FormatSuiteCase } from './format/cases.ts';
import { failureCases } from './format/failure-cases.ts';
import { randomCases } from './format/random-cases.ts';
import { FormatRig } from './format/rig.ts';
import type { FormatCase, MemoryKind } from './format/rig.ts';

/** All cases, in the order they run. */
export const formatCases: readonly FormatSuiteCase[] = [...basicCases, ...failureCases, ...randomCases];

export interface FormatConformanceOptions {
  /**
   * Cases that are not passed yet, with the reason: `'case'` for all formats or `'format/case'`. They are run: one that
   * passes, or a key that matches no case of a format fails, so that stale entries can't hide.
   */
  readonly skip?: Readonly<Record<string, string>>;
}

/** The cases that apply to a format: the others make no test. */
const applicableFormatCases = (format: FormatCase): FormatSuiteCase[] => {
  const rig = new FormatRig(format.config, 'sparse');
  return formatCases.filter(({ lacks }) => (lacks?.(rig) ?? null) === null);
};

/** Skip keys that name neither a case nor a case of one of the formats. */
export const staleFormatSkips = (formats: readonly FormatCase[], skip: Readonly<Record<string, string>>): string[] => {
  const keys = new Set(
    formats.flatMap((format) => applicableFormatCases(format).flatMap(({ name }) => [name, `${format.name}/${name}`])),
  );
  return Object.keys(skip).filter((key) => !keys.has(key));
};

/** Declares the suite's tests for the formats of one driver; call it at the top of a test file. */
export const formatConformance = (formats: readonly FormatCase[], options: FormatConformanceOptions = {}): void => {
  const skip = options.skip ?? {};
  test('every skip names a case', () => expect(staleFormatSkips(formats, skip)).toEqual([]));
  describe.each(formats)('$name', (format) => {
    const cases = applicableFormatCases(format);
    for (const kind of ['sparse', 'flat'] as const satisfies readonly MemoryKind[]) {
      describe(`${kind} memory`, () => {
        for (const { name, run } of cases) {
          const reason = skip[name] ?? skip[`${format.name}/${name}`];
          const runOnce = (): void => {
            const rig = new FormatRig(format.config, kind);
            run(rig);
            rig.destroy();
          };
          test(name, (context) => {
            if (reason === undefined) return runOnce();
            expect(passes(runOnce), `${name} passes: its skip ("${reason}") is stale`).toBe(false);
            context.skip(reason);
          });
        }
      });
    }
  });
};
