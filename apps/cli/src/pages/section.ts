/** `iommu pages report` is made of sections: each with tables, plots, and the same as data. */
import type { PageDocument } from '../html.ts';

interface SectionTable {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

interface SectionPlot {
  readonly title: string;
  readonly words: string;
  /** SVG. */
  readonly draw: (document: PageDocument) => string;
}

export interface Section {
  /** Its key in the JSON report. */
  readonly key: string;
  readonly tables: readonly SectionTable[];
  /** What a reader should know. */
  readonly notes: readonly string[];
  readonly plots: readonly SectionPlot[];
  /** For the JSON report. */
  readonly data: unknown;
  /** Where a measurement was not what was computed: the report is in error. */
  readonly mismatches: readonly string[];
}

/** `1 GiB`, `16 TiB`: a power of two of bytes. */
export const sizeText = (bytes: number): string => {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit + 1 < units.length) {
    value /= 1024;
    unit++;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(2)} ${units[unit]!}`;
};

export const countText = (value: number): string => value.toLocaleString('en-US');
