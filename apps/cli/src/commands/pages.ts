/** `iommu pages report`: what the descriptors of I/O page-table pages cost, today's and the planned ones. */
import type { Io } from '../io.ts';
import { descriptorSection } from '../pages/descriptors.ts';
import { mismatchesOf, pagesReportHtml, pagesReportJson, pagesReportText } from '../pages/report.ts';
import type { Section } from '../pages/section.ts';
import { timingSection } from '../pages/timing.ts';
import { claimOutput, jsonText, writeOutput } from './output.ts';

export interface PagesReportFlags {
  readonly json?: string | boolean;
  readonly html?: string;
  readonly timing: boolean;
}

/** @returns the exit status: 0, or 1 when a measurement is not what was computed. */
export const pagesReportCommand = (io: Io, flags: PagesReportFlags): number => {
  const { json, html } = flags;
  if (html !== undefined) claimOutput(io, '--html', html);
  if (typeof json === 'string') claimOutput(io, '--json', json);
  const sections: Section[] = [descriptorSection()];
  if (flags.timing) sections.push(timingSection());
  if (html !== undefined) writeOutput(io, '--html', html, pagesReportHtml(sections));
  if (typeof json === 'string') writeOutput(io, '--json', json, jsonText(pagesReportJson(sections)));
  io.out(json === true ? jsonText(pagesReportJson(sections)) : pagesReportText(sections));
  return mismatchesOf(sections).length > 0 ? 1 : 0;
};
