/** `iommu pages report`: what I/O page-table pages and their descriptors cost, as today and as planned. */
import path from 'node:path';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import type { Io } from '../io.ts';
import { descriptorSection } from '../pages/descriptors.ts';
import { mismatchesOf, pagesReportHtml, pagesReportJson, pagesReportText } from '../pages/report.ts';
import type { Section } from '../pages/section.ts';
import { subPageSection } from '../pages/sub-page.ts';
import { timingSection } from '../pages/timing.ts';
import { readTrace } from '../replay/trace.ts';
import { claimOutputs, jsonText, writeOutput } from './output.ts';
import { BUNDLED_TRACE } from './replay.ts';

export interface PagesReportFlags {
  readonly json?: string | boolean;
  readonly html?: string;
  readonly timing: boolean;
  /** A trace's file; false: none. Default: the bundled one. */
  readonly trace?: string | boolean;
}

/** @returns the exit status: 0, or 1 when a measurement is not what was computed. */
export const pagesReportCommand = (io: Io, flags: PagesReportFlags, harnesses: readonly DriverHarness[]): number => {
  const { json, html, trace } = flags;
  const given = typeof trace === 'string' ? path.resolve(io.cwd, trace) : null;
  const traces =
    trace === false
      ? []
      : [given === null ? readTrace(BUNDLED_TRACE, path.basename(BUNDLED_TRACE)) : readTrace(given, String(trace))];
  claimOutputs(
    io,
    [
      ['--html', html],
      ['--json', typeof json === 'string' ? json : null],
    ],
    given,
  );
  const sections: Section[] = [descriptorSection(), subPageSection(harnesses, traces)];
  if (flags.timing) sections.push(timingSection());
  if (html !== undefined) writeOutput(io, '--html', html, pagesReportHtml(sections));
  if (typeof json === 'string') writeOutput(io, '--json', json, jsonText(pagesReportJson(sections)));
  io.out(json === true ? jsonText(pagesReportJson(sections)) : pagesReportText(sections));
  return mismatchesOf(sections).length > 0 ? 1 : 0;
};
