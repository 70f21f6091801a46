/** What a replay finds out, as `--json` prints it. */
import type { IommuPagesOptions } from '@iommu-ts/iommu-pages';
import type { SanitizerResult } from './sanitize.ts';

type CheckLevel = 'none' | 'sample' | 'all';

export interface ReplayOptions {
  readonly check: CheckLevel;
  readonly mode: 'strict' | 'lazy';
  readonly iova: 'keep' | 'allocate';
  readonly seed: number;
  /** Measure the time of maps and unmaps, in rounds of their own. */
  readonly timing: boolean;
  /** Run under the checks, on a device that keeps in its caches all that it may. */
  readonly sanitize?: boolean;
  /** Of the allocator of tables and queues. */
  readonly pages?: IommuPagesOptions;
}

/** A moment of a run. */
export interface SeriesPoint {
  readonly event: number;
  readonly mappedBytes: number;
  readonly tablePages: number;
}

export interface DriverResult {
  readonly driver: string;
  readonly title: string;
  readonly format: string;
  readonly events: number;
  readonly maps: number;
  readonly unmaps: number;
  readonly attaches: number;
  /** Nanoseconds a call, without checks; null where there was no call. */
  readonly nsPerMap: number | null;
  readonly nsPerUnmap: number | null;
  /** DMA transfers compared byte for byte, and their bytes. */
  readonly dmaChecked: number;
  readonly bytesChecked: number;
  readonly faultsProvoked: number;
  /** Of those, refused with the right record decoded. */
  readonly faultsCaught: number;
  /** Bytes or faults that were wrong; `told` says what, the first of them. */
  readonly wrong: number;
  readonly told: readonly string[];
  /** Most bytes of CPU pages that tables, queues and device structures took together. */
  readonly peakPageBytes: number;
  /** Pages of I/O page tables at the end of the trace, and at most. */
  readonly tablePages: { readonly now: number; readonly peak: number };
  readonly mappedBytes: { readonly now: number; readonly peak: number };
  /** At the moment when most was mapped. */
  readonly tableBytesPerMappedMiB: number | null;
  /** Commands that invalidate translations, and all commands. */
  readonly invalidationCommands: number;
  readonly commands: number;
  readonly iotlbHitRate: number | null;
  readonly walkReadsPerMiss: number | null;
  /** Maps at another IOVA, maps of a part, maps of more than was asked for (whole granules). */
  readonly moved: number;
  readonly clipped: number;
  readonly widened: number;
  /** Unmaps that cut a larger mapping. */
  readonly cut: number;
  /** Events that could not be played, and why. */
  readonly refused: number;
  readonly refusals: Readonly<Record<string, number>>;
  readonly series: readonly SeriesPoint[];
  /** What the checks found, with `--sanitize`. */
  readonly sanitizer?: SanitizerResult;
}

export interface ReplayReport {
  readonly format: 'iommu-replay/1';
  /** The trace as the user named it. */
  readonly trace: string;
  readonly source: 'events' | 'ftrace';
  readonly seed: number;
  readonly check: CheckLevel;
  readonly mode: 'strict' | 'lazy';
  readonly iova: 'keep' | 'allocate';
  /** Events left out while reading, and remarks on it. */
  readonly leftOut: number;
  readonly notes: readonly string[];
  readonly drivers: readonly DriverResult[];
}
