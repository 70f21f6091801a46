/** The words that checks, hardware and users share: what a check says, what hardware must tell so that it can be said. */

/** Every {@link CheckKind}. */
export const CHECK_KINDS = [
  'use-after-free',
  'freed-before-flush',
  'stale-translation',
  'over-invalidation',
  'incoherent',
  'leak',
  'misuse',
  'break-before-make',
] as const;

/** Kinds of {@link CheckReport}. */
export type CheckKind = (typeof CHECK_KINDS)[number];

/** Who did something, when, and (with `callSites`) from where. */
export interface CheckEvent {
  /** `'map'`, `'unmap'`, `'free'`, `'attach'`, … with its arguments in words. */
  readonly what: string;
  /** Number of the operation, counted from 1. */
  readonly operation: number;
  /** Virtual time in nanoseconds. */
  readonly timeNs: number;
  /** Where it was called from, when call sites were asked for. */
  readonly callSite?: string;
}

/** One finding. */
export interface CheckReport {
  readonly kind: CheckKind;
  /** One sentence: what happened. */
  readonly what: string;
  /** The operation that would have prevented it: a command of the architecture or a call of the API. */
  readonly hint: string;
  /** Number of the operation during or after which it was seen, and the virtual time then. */
  readonly operation: number;
  readonly timeNs: number;
  /** The addresses that it is about, by name (`iova`, `cached`, `fresh`, `page`, `entry`, …). */
  readonly addresses: Readonly<Record<string, bigint>>;
  readonly mappedBy?: CheckEvent;
  readonly unmappedBy?: CheckEvent;
  readonly freedBy?: CheckEvent;
}

/** What to check and how. Everything is off unless a system is made with `checks`. */
export interface CheckOptions {
  /** Checks to run (default all). */
  readonly kinds?: readonly CheckKind[];
  /** Keep the call site of every map, unmap and free (slow; default false). */
  readonly callSites?: boolean;
  /**
   * Called with every report that is kept, as it is made. Throw here to stop at the first: what is thrown comes out of the
   * operation or the DMA that is under way, at its end, so that nothing is left half done.
   */
  readonly onReport?: (report: CheckReport) => void;
  /** Freed table pages that are kept out of use, poisoned, before the oldest may be used again (default 4096). */
  readonly quarantinePages?: number;
  /** Reports that are kept; what comes after is counted only (default 1000). */
  readonly maxReports?: number;
  /**
   * What has to be gone when a domain is freed: `'pages'` (default) its table pages, as `free()` unmaps by contract;
   * `'mappings'`: its mappings as well.
   */
  readonly teardown?: 'pages' | 'mappings';
}

/**
 * The caches that a device may answer from, as a bit set: for {@link IommuHardware.probe} and {@link InvalidationEvent}.
 * Without any, every structure and every table entry is read from memory.
 */
export const LAYER = {
  /** Final translations: the IOTLB. */
  LEAF: 1,
  /** Table entries above the leaf: walk caches. */
  TABLE: 2,
  /** Device structures: contexts, device table entries, STEs and CDs. */
  CONTEXT: 4,
  ALL: 7,
} as const;

/** An invalidation that has taken effect; see {@link IommuHardware.onInvalidate}. */
export interface InvalidationEvent {
  /** The command as the specification spells it, with what it was told: `'IOTINVAL.VMA PSCID=5 ADDR=0x1000'`. */
  readonly name: string;
  /** {@link LAYER} bits: what it is defined to drop. */
  readonly layers: number;
  /** Domain id, ASID, VMID or PSCID that it was limited to; -1: all. */
  readonly domain: number;
  /** Requester that it was limited to; -1: all. */
  readonly requester: number;
  /** IOVA range in 4 KiB pages, inclusive; 0 … Infinity when it was not limited. */
  readonly startPfn: number;
  readonly lastPfn: number;
}

/** Names of an architecture's operations, for hints. */
export interface InvalidationHints {
  /** Drops final translations of a range. */
  readonly leaf: string;
  /** Drops table entries as well. */
  readonly table: string;
  /** Drops a device's structures. */
  readonly context: string;
  /** Waits until what was sent has taken effect. */
  readonly completion: string;
}

/** Told by an {@link Iotlb} that has a listener. `pfn` is the first 4 KiB page of the entry. */
export interface IotlbListener {
  filled(tag: number, pfn: number, sizeLg2: number): void;
  dropped(tag: number, pfn: number, sizeLg2: number, outHi: number, outLo: number, perm: number): void;
}
