/** Declares the tests of a driver's part of the corpus, and writes its table. */
import type { CheckReport } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { MutationRig } from './rig.ts';
import type { Mutation, MutationTarget } from './types.ts';

/** What became of one mutation. */
export interface MutationOutcome {
  readonly mutation: Mutation;
  /** The report that the corpus expects, or null. */
  readonly report: CheckReport | null;
  /** All reports with the bug, and without it. */
  readonly reports: readonly CheckReport[];
  readonly clean: readonly CheckReport[];
  /** Whether the fault at the registers has changed anything. */
  readonly struck: boolean;
}

const hintOf = (rig: MutationRig, { hint }: Mutation): ((text: string) => boolean) =>
  hint instanceof RegExp ? (text) => hint.test(text) : (text) => text.includes(rig.hardware.invalidationHints[hint]);

/** Runs the scenario of a mutation, with the bug and without. */
export const seed = (target: MutationTarget, mutation: Mutation): MutationOutcome => {
  const without = MutationRig.without(target, mutation);
  mutation.scenario.run(without);
  without.checks.finish();
  const rig = MutationRig.with(target, mutation);
  try {
    mutation.scenario.run(rig);
  } catch {
    // A driver with a bug in it may come to grief; what the checks said before counts.
  }
  rig.checks.finish();
  const matches = hintOf(rig, mutation);
  const report = rig.reports.find(({ kind, hint }) => kind === mutation.check && matches(hint)) ?? null;
  const struck = mutation.port === undefined || rig.port.struck > 0;
  return { mutation, report, reports: rig.reports, clean: without.reports, struck };
};

const lines = (reports: readonly CheckReport[]): string[] =>
  reports.map(({ kind, what, hint }) => `${kind}: ${what} [${hint}]`);

/** The corpus of a driver as a Markdown table, from what the checks really said. */
const mutationTable = (title: string, outcomes: readonly MutationOutcome[]): string => {
  const rows = outcomes.map(({ mutation, report }) => [
    `\`${mutation.name}\``,
    mutation.bug,
    mutation.scenario.name,
    report?.kind ?? 'not caught',
    // Addresses depend on where the allocator happens to be.
    (report?.hint ?? '').replaceAll(/0x[0-9a-f]+/g, '0x…'),
  ]);
  const head = ['mutation', 'what the author did wrong', 'scenario', 'caught by', 'hint'];
  const cells = [head, ...rows].map((row) => row.map((cell) => cell.replaceAll('|', '\\|')));
  const widths = head.map((_, i) => Math.max(...cells.map((row) => row[i]!.length)));
  const line = (row: readonly string[]): string => `| ${row.map((cell, i) => cell.padEnd(widths[i]!)).join(' | ')} |`;
  const rule = `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`;
  return `# ${title}\n\n${[line(cells[0]!), rule, ...cells.slice(1).map(line)].join('\n')}\n`;
};

/**
 * Declares one test for each mutation: the check that is expected reports, with the hint that is expected, and the same
 * scenario without the bug leaves no report at all.
 * @param docs file that holds the table, relative to the test file; `vitest -u` writes it
 */
export const mutationConformance = (
  target: MutationTarget,
  mutations: readonly Mutation[],
  docs: { readonly title: string; readonly file: string },
): void => {
  describe(`${target.harness.name}: seeded bugs`, () => {
    const outcomes: MutationOutcome[] = [];
    test('names are unique', () => {
      expect(new Set(mutations.map(({ name }) => name)).size).toBe(mutations.length);
    });
    for (const mutation of mutations) {
      test(mutation.name, () => {
        const outcome = seed(target, mutation);
        const { check, hint } = mutation;
        expect(lines(outcome.clean), 'reports without the bug').toEqual([]);
        expect(outcome.struck, 'the fault has changed something').toBe(true);
        expect(
          outcome.report,
          `no ${check} report with hint ${String(hint)} among:\n${lines(outcome.reports).join('\n')}`,
        ).not.toBeNull();
        outcomes.push(outcome);
      });
    }
    test('the table in the documentation is in step', async (context) => {
      if (outcomes.length < mutations.length) context.skip('not all mutations were run and caught');
      await expect(mutationTable(docs.title, outcomes)).toMatchFileSnapshot(docs.file);
    });
  });
};
