/**
 * The conformance suite of page-table formats: what every format must do whatever its bits. Cases are named after
 * generic_pt's kunit tests where there is one. Each runs over sparse memory (the engine's plain loops) and flat memory
 * (its SIMD loops), and must give every table page back.
 */
import { describe, expect, test } from 'vitest';
import { formatCases as basicCases } from './format/cases.ts';
import type { FormatSuiteCase } from './format/cases.ts';
import { randomCases } from './format/random-cases.ts';
import { FormatRig } from './format/rig.ts';
import type { FormatCase, MemoryKind } from './format/rig.ts';

/** All cases, in the order they run. */
export const formatCases: readonly FormatSuiteCase[] = [...basicCases, ...randomCases];

export interface FormatConformanceOptions {
  /**
   * Cases to leave out, with the reason: `'case'` for all formats or `'format/case'`. A key that matches nothing fails,
   * so that stale entries can't hide.
   */
  readonly skip?: Readonly<Record<string, string>>;
}

/** Skip keys that name neither a case nor a case of one of the formats. */
export const staleFormatSkips = (formats: readonly FormatCase[], skip: Readonly<Record<string, string>>): string[] =>
  Object.keys(skip).filter(
    (key) =>
      !formatCases.some(({ name }) => key === name || formats.some((format) => key === `${format.name}/${name}`)),
  );

/** Declares the suite's tests for the formats of one driver; call it at the top of a test file. */
export const formatConformance = (formats: readonly FormatCase[], options: FormatConformanceOptions = {}): void => {
  const skip = options.skip ?? {};
  test('every skip names a case', () => expect(staleFormatSkips(formats, skip)).toEqual([]));
  describe.each(formats)('$name', (format) => {
    for (const kind of ['sparse', 'flat'] as const satisfies readonly MemoryKind[]) {
      describe(`${kind} memory`, () => {
        for (const { name, lacks, run } of formatCases) {
          const reason = skip[name] ?? skip[`${format.name}/${name}`];
          if (reason !== undefined) {
            test.skip(`${name} [${reason}]`, () => run(new FormatRig(format.config, kind)));
            continue;
          }
          test(name, (context) => {
            const rig = new FormatRig(format.config, kind);
            const missing = lacks?.(rig) ?? null;
            if (missing !== null) context.skip(missing);
            run(rig);
            rig.destroy();
          });
        }
      });
    }
  });
};
