/** Plays a trace through one driver and its emulated IOMMU: the main job of `iommu replay`. */
import { codeOfErrno, hex, hi32, lo32 } from '@iommu-ts/bits';
import { Random } from '@iommu-ts/conformance';
import type { DriverHarness, DriverInfo, IommuSystem, ReservedRegion } from '@iommu-ts/iommu-core';
import { BuddySource, IommuPages } from '@iommu-ts/iommu-pages';
import { DomainBook, UNCHECKED } from './bookkeeping.ts';
import type { Piece } from './bookkeeping.ts';
import { Checker } from './checks.ts';
import type { Layout, Span } from './layout.ts';
import { OpLog } from './op-log.ts';
import { IovaSpace, place, tracedIovas } from './placement.ts';
import type { DriverResult, ReplayOptions, SeriesPoint } from './result.ts';
import { sanitizerResult } from './sanitize.ts';
import type { Trace, TraceEvent } from './trace.ts';

/** `--check sample`: one mapping in so many is checked (and the first of every domain). */
const SAMPLE = 8;
/** Virtual time between two events: the flush queue's 10 ms pass every thousand events. */
export const EVENT_NS = 10_000;
/** Long enough for every flush queue. */
const LONG_NS = 10_000_000_000;
const SERIES_POINTS = 200;
/** Mappings of a domain that are checked when a device is attached later. */
const LATE_CHECKS = 8;

/** A range that was unmapped, and must fault now. */
interface Gone {
  readonly book: DomainBook;
  readonly iova: bigint;
  size: bigint;
  readonly paShift: bigint;
  /** The requester whose DMA went through it, so that a cache may have kept it. */
  readonly requester: number;
}

/** A fresh system over `layout`, tables and queues in their own room; with `sanitize`, under the checks. */
export const systemFor = (
  harness: DriverHarness,
  layout: Layout,
  options: ReplayOptions,
  sanitize = false,
): IommuSystem => {
  const { memory, tables } = layout;
  const pages = new IommuPages(memory, new BuddySource(memory, [tables]), options.pages);
  const checked = sanitize ? ({ checks: true, iotlb: { mode: 'retain' } } as const) : {};
  return harness.createSystem({ memory, pages, mode: options.mode, ...checked });
};

export class DriverPlayer {
  readonly #harness: DriverHarness;
  readonly #trace: Trace;
  readonly #options: ReplayOptions;
  readonly #system: IommuSystem;
  readonly #info: DriverInfo;
  readonly #reserved: readonly ReservedRegion[];
  readonly #random: Random;
  readonly #checker: Checker;
  readonly #books = new Map<string, DomainBook>();
  /** Requester of the trace → requester of the driver. */
  readonly #streams = new Map<number, number>();
  readonly #narrow: boolean;
  /** IOVAs that the trace uses, which moved mappings keep clear of. */
  readonly #traced: readonly Span[];
  /** Requester of the driver → the domain it is attached to. */
  readonly #attachedTo = new Map<number, DomainBook>();
  readonly #due: Gone[] = [];
  readonly log = new OpLog();
  readonly #series: SeriesPoint[] = [];
  readonly #basePages: number;
  #structurePages = 0;
  #mapped = 0;
  #peakMapped = 0;
  #tablePagesAtPeak = 0;
  #peakPages = 0;
  readonly #counts = { maps: 0, unmaps: 0, attaches: 0, moved: 0, clipped: 0, widened: 0, cut: 0, refused: 0 };
  readonly #refusals = new Map<string, number>();

  constructor(harness: DriverHarness, trace: Trace, layout: Layout, options: ReplayOptions) {
    this.#harness = harness;
    this.#trace = trace;
    this.#options = options;
    this.#system = systemFor(harness, layout, options, options.sanitize === true);
    this.#info = this.#system.driver.info;
    this.#reserved = this.#system.driver.reservedRegions();
    this.#random = new Random(options.seed);
    this.#checker = new Checker(harness, this.#system, this.#random, layout);
    this.#basePages = this.#system.pages.nrIommuPages();
    this.#traced = options.iova === 'keep' ? tracedIovas(trace.events.filter((e) => e.op === 'map')) : [];
    const highest = trace.events.reduce((max, e) => (e.op === 'attach' && e.rid > max ? e.rid : max), 0);
    this.#narrow = highest >= this.#info.requesters;
  }

  /** Plays every event. `progress` is told how many are done. */
  play(progress: (done: number) => void = () => {}): DriverResult {
    const { events } = this.#trace;
    const every = Math.max(1, Math.floor(events.length / SERIES_POINTS));
    for (const [i, event] of events.entries()) {
      this.#checker.line = event.line;
      this.#guarded(() => {
        this.#event(event);
        this.#system.clock.advance(EVENT_NS);
        this.#checkGone();
      });
      if (i % every === 0) this.#series.push({ event: i, mappedBytes: this.#mapped, tablePages: this.#tablePages() });
      if (i % 256 === 0) progress(i);
    }
    const tablePagesNow = this.#tablePages();
    this.#series.push({ event: events.length, mappedBytes: this.#mapped, tablePages: tablePagesNow });
    this.#guarded(() => {
      this.#system.clock.advance(LONG_NS);
      for (const book of this.#books.values()) book.domain.flush();
      this.#checkGone();
    });
    progress(events.length);
    const result = this.#result(tablePagesNow);
    this.#guarded(() => this.#tearDown());
    const { checks } = this.#system;
    return {
      ...result,
      wrong: this.#checker.wrong,
      told: this.#checker.told,
      ...(checks === null ? {} : { sanitizer: sanitizerResult(checks) }),
    };
  }

  /** What a driver or a unit throws is a wrong result, not the end of the run. */
  #guarded(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.#checker.broken(`threw: ${(error as Error).message}`);
    }
  }

  #event(event: TraceEvent): void {
    if (event.op === 'attach') this.#attach(event.domain, event.rid);
    else if (event.op === 'map') this.#map(event);
    else this.#unmap(event.domain, event.iova, event.iova + event.size);
  }

  #refuse(reason: string): void {
    this.#counts.refused++;
    this.#refusals.set(reason, (this.#refusals.get(reason) ?? 0) + 1);
  }

  /** The driver's domain for a domain of the trace; null when the driver has none left. */
  #book(name: string): DomainBook | null {
    const known = this.#books.get(name);
    if (known !== undefined) return known;
    let book: DomainBook;
    try {
      const domain = this.#system.driver.createDomain({ mode: this.#options.mode });
      const space = new IovaSpace(this.#info, this.#reserved, this.#traced);
      book = new DomainBook(name, this.#books.size, domain, space);
    } catch (error) {
      this.#refuse(`domain: ${(error as Error).message}`);
      return null;
    }
    this.#notePages();
    this.#books.set(name, book);
    this.log.domain();
    return book;
  }

  /** The driver's number for a requester of the trace; by order of first attach where its ids are narrower. */
  #streamOf(rid: number): number | null {
    if (!this.#narrow) return rid;
    const known = this.#streams.get(rid);
    if (known !== undefined) return known;
    if (this.#streams.size >= this.#info.requesters) return null;
    const stream = this.#streams.size;
    this.#streams.set(rid, stream);
    return stream;
  }

  #attach(domain: string, rid: number): void {
    this.#counts.attaches++;
    const book = this.#book(domain);
    if (book === null) return;
    const requester = this.#streamOf(rid);
    if (requester === null) {
      this.#refuse('attach: all streams are in use');
      return;
    }
    const before = this.#system.pages.nrIommuPages();
    this.#attachedTo.get(requester)?.requesters.delete(requester);
    this.#system.driver.attach(requester, book.domain);
    this.#structurePages += this.#system.pages.nrIommuPages() - before;
    this.#attachedTo.set(requester, book);
    const first = book.requesters.size === 0;
    book.requesters.add(requester);
    this.log.attach(book.index, requester);
    // Mappings that were made before there was a device to use them.
    if (!first || this.#options.check === 'none') return;
    const all = this.#options.check === 'all';
    for (const piece of book.pieces.slice(0, all ? undefined : LATE_CHECKS)) this.#checkPiece(book, piece);
  }

  #map(event: TraceEvent & { op: 'map' }): void {
    this.#counts.maps++;
    const book = this.#book(event.domain);
    if (book === null) return;
    const keep = this.#options.iova === 'keep';
    const spot = place(event, this.#info, this.#reserved, book.space, keep);
    if (typeof spot === 'string') {
      this.#refuse(`map: ${spot}`);
      return;
    }
    const { domain } = book;
    const size = Number(spot.size);
    const errno = domain.mapWords(hi32(spot.iova), lo32(spot.iova), hi32(spot.pa), lo32(spot.pa), size, event.prot);
    if (errno !== 0) {
      if (domain.mapped > 0) domain.unmapWords(hi32(spot.iova), lo32(spot.iova), domain.mapped);
      domain.flush();
      book.space.free(spot.iova);
      this.#refuse(`map: ${codeOfErrno(errno)}`);
      return;
    }
    if (spot.moved) this.#counts.moved++;
    if (spot.clipped) this.#counts.clipped++;
    if (spot.widened) this.#counts.widened++;
    this.log.map(book.index, spot.iova, spot.pa, size, event.prot);
    const piece: Piece = {
      t0: event.iova,
      t1: event.iova + spot.kept,
      a0: spot.iova,
      a1: spot.iova + spot.size,
      shift: spot.start - event.iova,
      paShift: event.pa - spot.start,
      prot: event.prot,
      checkedBy: UNCHECKED,
    };
    const first = book.pieces.length === 0;
    book.add(piece);
    this.#mapped += size;
    this.#notePages();
    const { check } = this.#options;
    if (check === 'all' || (check === 'sample' && (first || this.#random.oneIn(SAMPLE)))) this.#checkPiece(book, piece);
  }

  /** DMA through a mapping by one of its domain's devices, and by some that are not. */
  #checkPiece(book: DomainBook, piece: Piece): void {
    if (book.requesters.size === 0) return;
    const requester = this.#random.pick([...book.requesters]);
    piece.checkedBy = requester;
    this.#checker.mapped(piece, requester, this.#options.check === 'all' ? 4 : 2);
    if (this.#random.oneIn(4)) {
      const stranger = this.#stranger();
      if (stranger !== null) {
        const pa = piece.t0 + piece.shift + piece.paShift;
        this.#checker.refused(
          stranger,
          piece.t0 + piece.shift,
          this.#random.oneIn(2) ? 'read' : 'write',
          'notConfigured',
          pa,
        );
      }
    }
    if (this.#random.oneIn(4)) {
      const others = [...this.#attachedTo].filter(([, other]) => other !== book);
      if (others.length === 0) return;
      const [other, itsBook] = this.#random.pick(others);
      this.#checker.otherDomain(itsBook, other, piece.t0 + piece.shift);
    }
  }

  /** A requester that was never attached, or null when all ids are taken. */
  #stranger(): number | null {
    for (let i = 0; i < 64; i++) {
      const id = this.#random.below(this.#info.requesters);
      if (!this.#attachedTo.has(id)) return id;
    }
    return null;
  }

  #unmap(name: string, start: bigint, end: bigint): void {
    this.#counts.unmaps++;
    const book = this.#books.get(name);
    const pieces = book?.overlapping(start, end) ?? [];
    if (book === undefined || pieces.length === 0) {
      this.#refuse('unmap: nothing mapped there');
      return;
    }
    for (let i = 0; i < pieces.length;) {
      const piece = pieces[i]!;
      if (piece.t0 < start || piece.t1 > end) {
        this.#cut(book, piece, start, end);
        i++;
        continue;
      }
      // Whole mappings that lie one behind the other go in one call, as the kernel unmaps them.
      let n = i + 1;
      while (n < pieces.length && pieces[n]!.t1 <= end && pieces[n]!.a0 === pieces[n - 1]!.a1) n++;
      this.#unmapWhole(book, pieces.slice(i, n));
      i = n;
    }
  }

  #unmapWhole(book: DomainBook, pieces: readonly Piece[]): void {
    const a0 = pieces[0]!.a0;
    const a1 = pieces.at(-1)!.a1;
    for (const piece of pieces) book.remove(piece);
    const done = this.#unmapRange(book, a0, a1, pieces);
    if (done !== a1 - a0) this.#checker.broken(`unmap of ${a1 - a0} bytes at ${hex(a0)} took ${done}`);
  }

  /**
   * Unmaps the driver's range `[a0, a1)`, which belongs to `pieces`. Their IOVAs come free at once, in lazy mode after the
   * flush; until then nothing else is placed there, and then the access must fault.
   */
  #unmapRange(book: DomainBook, a0: bigint, a1: bigint, pieces: readonly Piece[]): bigint {
    const size = Number(a1 - a0);
    const range = { a0, a1 };
    const gone = pieces
      .filter((p) => p.checkedBy !== UNCHECKED)
      .map((p): Gone => ({ book, iova: p.a0, size: p.a1 - p.a0, paShift: p.paShift, requester: p.checkedBy }));
    book.pending.add(range);
    const done = book.domain.unmapWords(hi32(a0), lo32(a0), size, () => {
      book.pending.delete(range);
      for (const piece of pieces) book.space.free(piece.a0);
      this.#due.push(...gone);
    });
    // What the driver left mapped (or took beyond) is not asked about.
    if (gone.length === 1 && done < size) gone[0]!.size = BigInt(done);
    this.#mapped -= done;
    this.log.unmap(book.index, a0, size);
    return BigInt(done);
  }

  /** An unmap that cuts a mapping: what goes is the driver's own rule, and the bookkeeping follows it. */
  #cut(book: DomainBook, piece: Piece, start: bigint, end: bigint): void {
    this.#counts.cut++;
    const granule = 1n << BigInt(this.#info.granuleLg2);
    const from = start + piece.shift;
    const to = end + piece.shift;
    // Whole granules inside the cut; at an end of the mapping its own edge.
    const b0 = start <= piece.t0 ? piece.a0 : ((from + granule - 1n) / granule) * granule;
    const b1 = end >= piece.t1 ? piece.a1 : (to / granule) * granule;
    if (b1 <= b0) {
      this.#refuse('unmap: less than a granule of a mapping');
      return;
    }
    // The reservation is split, so that what stays keeps its place; the flush is waited for, cuts are rare.
    book.remove(piece);
    book.space.free(piece.a0);
    book.space.reserve(b0, b1 - b0);
    // The trace's own kernel cut along its pages; where this format has larger ones the cut is misuse, but not the driver's.
    let done = 0n;
    const cut = (): void => void (done = this.#unmapRange(book, b0, b1, [{ ...piece, a0: b0, a1: b1 }]));
    const { checks } = this.#system;
    if (checks === null) cut();
    else checks.onPurpose('misuse', cut);
    book.domain.flush();
    if (done === 0n) this.#refuse('unmap: begins inside a larger page');
    const e1 = b0 + done;
    const keep = (part: Piece): void => {
      if (part.a1 <= part.a0) return;
      book.space.reserve(part.a0, part.a1 - part.a0);
      if (part.t1 > part.t0) book.add(part);
    };
    if (done === 0n) {
      keep(piece);
      return;
    }
    const lower = b0 - piece.shift;
    const upper = e1 - piece.shift;
    keep({ ...piece, a1: b0, t1: start < lower ? start : lower });
    keep({ ...piece, a0: e1, t0: end > upper ? end : upper });
  }

  /** What was unmapped (and, in lazy mode, flushed) must fault. */
  #checkGone(): void {
    if (this.#due.length === 0) return;
    for (const { book, iova, size, paShift, requester } of this.#due.splice(0)) {
      if (size === 0n || book.requesters.size === 0) continue;
      const who = book.requesters.has(requester) ? requester : this.#random.pick([...book.requesters]);
      const places = [iova, iova + size - 4n, iova + BigInt(this.#random.below(Number(size / 4n))) * 4n];
      for (const [i, at] of places.entries()) {
        this.#checker.refused(who, at, i === 1 ? 'read' : 'write', 'notPresent', at + paShift);
      }
    }
  }

  /** Pages of I/O page tables alone: without queues and device structures. */
  #tablePages(): number {
    return this.#system.pages.nrIommuPages() - this.#basePages - this.#structurePages;
  }

  #notePages(): void {
    const pages = this.#tablePages();
    if (pages > this.#peakPages) this.#peakPages = pages;
    if (this.#mapped > this.#peakMapped) {
      this.#peakMapped = this.#mapped;
      this.#tablePagesAtPeak = pages;
    }
  }

  #result(tablePagesNow: number): Omit<DriverResult, 'wrong' | 'told'> {
    const { stats, iotlb } = this.#system.hardware;
    const lookups = iotlb.hits + iotlb.misses;
    const mib = this.#peakMapped / 2 ** 20;
    return {
      driver: this.#harness.name,
      title: this.#harness.title,
      format: this.#info.format,
      events: this.#trace.events.length,
      ...this.#counts,
      refusals: Object.fromEntries(this.#refusals),
      nsPerMap: null,
      nsPerUnmap: null,
      dmaChecked: this.#checker.dmaChecked,
      bytesChecked: this.#checker.bytesChecked,
      faultsProvoked: this.#checker.faultsProvoked,
      faultsCaught: this.#checker.faultsCaught,
      peakPageBytes: this.#system.pages.peakPages * this.#system.pages.cpuPageSize,
      tablePages: { now: tablePagesNow, peak: this.#peakPages },
      mappedBytes: { now: this.#series.at(-1)!.mappedBytes, peak: this.#peakMapped },
      tableBytesPerMappedMiB: mib === 0 ? null : (this.#tablePagesAtPeak * this.#system.pages.cpuPageSize) / mib,
      invalidationCommands: this.#system.driver.info.invalidationCommands,
      commands: stats.commands,
      iotlbHitRate: lookups === 0 ? null : iotlb.hits / lookups,
      walkReadsPerMiss: stats.walks === 0 ? null : stats.walkReads / stats.walks,
      series: this.#series,
    };
  }

  /** Everything given back: what is left then was lost. */
  #tearDown(): void {
    const { driver, pages } = this.#system;
    for (const requester of this.#attachedTo.keys()) driver.detach(requester);
    for (const book of this.#books.values()) book.domain.free();
    driver.release();
    const lost = pages.nrIommuPages();
    if (lost !== 0) this.#checker.broken(`${lost} pages were not given back at the end`);
  }
}
