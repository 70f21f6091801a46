/** Operations as they go by, and what was found during them. */
import { addressOfPfn, hex } from '@iommu-ts/bits';
import type { VirtualClock } from '../clock.ts';
import type { CheckEvent, CheckKind, CheckOptions, CheckReport } from './types.ts';

/** What {@link ReportLog.report} adds to a finding by itself. */
type Finding = Omit<CheckReport, 'operation' | 'timeNs'>;

/** Counts operations, keeps reports up to a number, and one of a kind that repeats itself within an operation. */
export class ReportLog {
  readonly reports: CheckReport[] = [];
  readonly options: CheckOptions;
  readonly #clock: VirtualClock;
  readonly #kinds: ReadonlySet<CheckKind> | null;
  readonly #max: number;
  readonly #counts = new Map<CheckKind, number>();
  readonly #said = new Set<string>();
  #saidIn = 0;
  #what = 'set-up';
  #callSite: string | undefined = undefined;
  #event: CheckEvent | null = null;
  /** Operations that are under way, one inside the other. */
  depth = 0;
  /** A translation is under way. */
  translating = false;
  /** Number of the present (or last) operation. */
  operation = 0;
  /** What `onReport` threw while something was under way. */
  #thrown: { readonly error: unknown } | null = null;
  /** Findings that were not kept. */
  suppressed = 0;
  /** Findings of a kind that is done on purpose now. */
  readonly onPurpose = new Map<CheckKind, number>();

  constructor(clock: VirtualClock, options: CheckOptions) {
    this.#clock = clock;
    this.options = options;
    this.#kinds = options.kinds === undefined ? null : new Set(options.kinds);
    this.#max = options.maxReports ?? 1000;
  }

  /** Whether findings of `kind` are asked for. */
  wants(kind: CheckKind): boolean {
    return this.#kinds === null || this.#kinds.has(kind);
  }

  /** An operation begins; the outermost one gives its name and its place to all inside. `from` is the function called. */
  begin(what: string, from: (...args: never[]) => unknown): void {
    if (this.depth++ > 0) return;
    this.operation++;
    this.#what = what;
    this.#event = null;
    this.#callSite = this.options.callSites === true ? callSiteOf(from) : undefined;
  }

  /** It ends; here comes out what `onReport` threw meanwhile. */
  end(): void {
    this.depth--;
    this.settle();
  }

  /**
   * Throws what `onReport` threw, as soon as nothing is under way: an operation, or the device, that stopped half way would
   * leave queues, tables and the checks themselves in a state that no driver can bring about.
   */
  settle(): void {
    const thrown = this.#thrown;
    if (thrown === null || this.depth > 0 || this.translating) return;
    this.#thrown = null;
    throw thrown.error;
  }

  /** Runs `body` as an operation; see {@link begin}. */
  during<T>(what: string, from: (...args: never[]) => unknown, body: () => T): T {
    this.begin(what, from);
    try {
      return body();
    } finally {
      this.end();
    }
  }

  /** The present (or last) operation. */
  get event(): CheckEvent {
    this.#event ??= {
      what: this.#what,
      operation: this.operation,
      timeNs: this.#clock.now,
      ...(this.#callSite === undefined ? {} : { callSite: this.#callSite }),
    };
    return this.#event;
  }

  /** Findings of a kind, kept or not. */
  count(kind: CheckKind): number {
    return this.#counts.get(kind) ?? 0;
  }

  /**
   * Keeps a finding, once an operation.
   * @param key tells findings of one kind apart
   */
  report(key: string, finding: Finding): void {
    if (!this.wants(finding.kind)) return;
    if (this.#saidIn !== this.operation) {
      this.#said.clear();
      this.#saidIn = this.operation;
    }
    const once = `${finding.kind} ${key}`;
    if (this.#said.has(once)) return;
    this.#said.add(once);
    const meant = this.onPurpose.get(finding.kind);
    if (meant !== undefined) {
      this.onPurpose.set(finding.kind, meant + 1);
      return;
    }
    this.#counts.set(finding.kind, this.count(finding.kind) + 1);
    if (this.reports.length >= this.#max) {
      this.suppressed++;
      return;
    }
    const report: CheckReport = { ...finding, operation: this.operation, timeNs: this.#clock.now };
    this.reports.push(report);
    try {
      this.options.onReport?.(report);
    } catch (error) {
      this.#thrown ??= { error };
      this.settle();
    }
  }
}

/** The line of the stack that called `from`. */
const callSiteOf = (from: (...args: never[]) => unknown): string => {
  const host = Error as unknown as { captureStackTrace?: (target: object, below: unknown) => void };
  const holder: { stack?: string } = {};
  if (host.captureStackTrace === undefined) return 'unknown';
  host.captureStackTrace(holder, from);
  const line = (holder.stack ?? '').split('\n').find((text) => text.trimStart().startsWith('at '));
  return line === undefined ? 'unknown' : line.trim().slice(3);
};

/** An address for a sentence. */
export const at = (pfn: number, offset = 0): string => hex(addressOfPfn(pfn, offset));

/** An event for a sentence: `operation 12: unmap …`. */
const eventText = (event: CheckEvent): string =>
  `operation ${event.operation}, ${event.timeNs} ns: ${event.what}${event.callSite === undefined ? '' : `\n      at ${event.callSite}`}`;

/** A report as lines for people. */
export const formatReport = (report: CheckReport): string => {
  const lines = [`${report.kind}: ${report.what}`];
  const addresses = Object.entries(report.addresses);
  if (addresses.length > 0) {
    const width = Math.max(...addresses.map(([name]) => name.length));
    for (const [name, address] of addresses) lines.push(`  ${name.padEnd(width)}  ${hex(address)}`);
  }
  for (const [label, event] of [
    ['mapped by', report.mappedBy],
    ['unmapped by', report.unmappedBy],
    ['freed by', report.freedBy],
  ] as const) {
    if (event !== undefined) lines.push(`  ${label} ${eventText(event)}`);
  }
  lines.push(`  seen in or after operation ${report.operation}, at ${report.timeNs} ns`, `  needed: ${report.hint}`);
  return lines.join('\n');
};
