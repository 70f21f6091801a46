import type { PageTableFormat } from './format.ts';
import type { GatherRecord } from './gather.ts';

/** What a table's hardware or driver can do beyond the format. All default to off. */
export interface PageTableFeatures {
  /** RISC-V Svnapot: 64 KiB pages. */
  readonly svnapot?: boolean;
  /** RISC-V Svpbmt: memory types in the entry. */
  readonly svpbmt?: boolean;
  /** VT-d second stage: SNP in every leaf (Linux: force coherence). */
  readonly snp?: boolean;
  /** VT-d second stage: read-only mappings are refused (Linux: FORCE_WRITEABLE, for nesting parents on parts with an erratum). */
  readonly forceWriteable?: boolean;
  /** Ranges that do not touch may not share one flush (Linux: FLUSH_RANGE_NO_GAPS). */
  readonly flushRangeNoGaps?: boolean;
  /** The hardware's walker does not snoop caches: entries carry a software mark and are flushed. */
  readonly incoherent?: boolean;
  /** Arm: non-secure. */
  readonly ns?: boolean;
  /** Arm: hardware dirty state, DBM in writable leaves. */
  readonly hd?: boolean;
  /** Arm stage 2: forced write-back. */
  readonly fwb?: boolean;
  /** Arm stage 1: the upper half, under TTBR1; IOVAs have all bits above `ias` set. */
  readonly ttbr1?: boolean;
}

/** What a table is made of. */
export interface PageTableConfig extends PageTableFeatures {
  readonly format: PageTableFormat;
  /** Width of an IOVA in bits. */
  readonly ias: number;
  /** Width of an output address in bits. */
  readonly oas: number;
  /** Page sizes to use, a subset of the format's, as a bitmap (bit n = 2^n bytes). */
  readonly pageSizes?: bigint;
  /** Level of the top table at the start (0 = lowest). */
  readonly topLevel?: number;
  /** Index bits of the top table, where the format's own rule is not what the hardware was told. */
  readonly topBits?: number;
  /** NUMA node of the tables. */
  readonly node?: number;
  /**
   * Called when gathered tables must be freed before the operation goes on or returns: flush the hardware by the record,
   * then put its free list and reset it. Absent: the engine puts the list itself.
   */
  readonly sync?: ((gather: GatherRecord) => void) | null;
  /** Incoherent walker: called with the bytes of a table just written, so that their cache lines can be flushed. */
  readonly flush?: ((pfn: number, byteOffset: number, bytes: number) => void) | null;
  /** The top table was replaced by a higher one (AMD): the device table must point to it before `map` goes on. */
  readonly topChanged?: (() => void) | null;
}

/** Shape of a table, as the hardware has to be told it. */
export interface TableGeometry {
  readonly format: PageTableFormat;
  readonly features: PageTableFeatures;
  readonly ias: number;
  readonly oas: number;
  /** Address of the (first) top table. */
  readonly root: bigint;
  /** Addresses of all top tables (DART has up to four). */
  readonly roots: readonly bigint[];
  readonly topLevel: number;
  readonly levels: number;
  /** Index bits of the top table, and its bytes. */
  readonly topBits: number;
  readonly topBytes: number;
  /** Index bits of the other tables. */
  readonly bitsPerLevel: number;
  readonly topChanges: number;
}

/** Register and structure fields by their names; numbers for small fields, `bigint` for addresses and whole registers. */
export interface HwInfo {
  readonly [field: string]: bigint | number | readonly bigint[] | HwInfo;
}
