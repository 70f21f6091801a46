/**
 * The register map of Apple's DART, as data. Apple publishes no manual: the map is reverse engineered, so every register
 * and every field says where it is known from ({@link Source}); what nobody has published and this model had to choose is
 * marked `model`.
 *
 * Two generations: t8020 (A13; M1: t8103, t6000) and t8110 (M2 and later). Both have PARAMS1 and PARAMS2 at 0.
 */
import { bit, bits } from '@iommu-ts/bits';
import type { Field } from '@iommu-ts/bits';
import type { RegisterSpec } from '@iommu-ts/iommu-core';

/**
 * Where a register or field is known from.
 * - `linux`: used by Linux `drivers/iommu/apple-dart.c`
 * - `m1n1`: named in the Asahi project's m1n1 `proxyclient/m1n1/hw/dart8020.py`, `dart8110.py` or `src/dart.c`
 * - `linux+m1n1`: both agree
 * - `model`: position known (or not), but the behaviour here is this model's choice
 */
export type Source = 'linux' | 'm1n1' | 'linux+m1n1' | 'model';

/** A field with its provenance. */
export interface DartField extends Field {
  readonly source: Source;
}

/** Fields by name, highest first, with their provenance. */
export type DartLayout = Readonly<Record<string, DartField>>;

/** A register with its provenance. */
export interface DartRegister extends RegisterSpec {
  readonly source: Source;
  readonly layout?: DartLayout;
}

/** Registers by name. */
export type DartRegisterMap = Readonly<Record<string, DartRegister>>;

const from = (source: Source, field: Field): DartField => ({ ...field, source });

/** PARAMS1 of both generations (m1n1: PARAMS_0). */
export const PARAMS1 = {
  CLIENT_PARTITIONS_SUPPORTED: from('m1n1', bit(29, 'client partitions (t8110)')),
  PAGE_SHIFT: from('linux+m1n1', bits(27, 24, 'log2 of the page size: 12 or 14')),
  LOG2_TE_COUNT: from('m1n1', bits(22, 20, 'log2 of translations per TLB entry (t8110)')),
  TLB_SET_COUNT: from('m1n1', bits(11, 0, 'TLB sets (t8110)')),
} as const satisfies DartLayout;

/** PARAMS2 of both generations (m1n1: PARAMS_4). The SUPPORT_ bits are 0 here: those functions are not modelled. */
export const PARAMS2 = {
  SUPPORT_HW_FLUSH: from('m1n1', bit(3, 'flush driven by hardware (t8110)')),
  SUPPORT_REG_LOCK: from('m1n1', bit(1, 'register locking (t8110)')),
  BYPASS_SUPPORT: from('linux+m1n1', bit(0, 'streams can bypass translation')),
} as const satisfies DartLayout;

/** t8020 STREAM_COMMAND, offset 0x20. */
export const STREAM_COMMAND = {
  INVALIDATE: from('linux+m1n1', bit(20, 'drop cached translations of the streams in STREAM_SELECT')),
  BUSY: from('linux+m1n1', bit(2, 'the command has not completed')),
} as const satisfies DartLayout;

/** t8020 ERROR, offset 0x40; writing ones clears. */
export const T8020_ERROR = {
  FLAG: from('linux+m1n1', bit(31, 'an error is recorded; later errors are lost until it is cleared')),
  STREAM: from('linux+m1n1', bits(27, 24, 'stream of the access')),
  NO_DAPF_MATCH: from('m1n1', bit(11, 'refused by the address filter (not modelled: never set)')),
  WRITE: from('m1n1', bit(10, 'never set here: Linux compares CODE 11:0 with single bits')),
  SUBPAGE_PROT: from('m1n1', bit(7, 'outside SP_START … SP_END of the leaf entry')),
  PTE_READ_FAULT: from('m1n1', bit(6, 'nothing answered when a table entry was read')),
  READ_FAULT: from('linux+m1n1', bit(4, 'read of a page mapped without read permission')),
  WRITE_FAULT: from('linux+m1n1', bit(3, 'write to a page mapped without write permission')),
  NO_PTE: from('linux+m1n1', bit(2, 'the leaf entry is not valid')),
  NO_PMD: from('linux+m1n1', bit(1, 'the table entry above the leaf is not valid')),
  NO_TTBR: from('linux+m1n1', bit(0, 'no valid TTBR for the address, or the stream does not translate')),
} as const satisfies DartLayout;

/** t8020 CONFIG, offset 0x60. */
export const T8020_CONFIG = {
  LOCK: from('linux+m1n1', bit(15, 'TCR, TTBR, REMAP and CONFIG are read-only until reset')),
} as const satisfies DartLayout;

/** t8020 REMAP[n], offset 0x80 + 4n: which stream's TCR and TTBRs serve streams 4n … 4n+3. */
export const T8020_REMAP = {
  MAP3: from('m1n1', bits(31, 24, 'stream that serves 4n+3')),
  MAP2: from('m1n1', bits(23, 16, 'stream that serves 4n+2')),
  MAP1: from('m1n1', bits(15, 8, 'stream that serves 4n+1')),
  MAP0: from('m1n1', bits(7, 0, 'stream that serves 4n')),
} as const satisfies DartLayout;

/** t8020 TCR[sid], offset 0x100 + 4·sid. */
export const T8020_TCR = {
  BYPASS_DAPF: from('linux+m1n1', bit(12, 'go round the address filter (stored, no effect: there is no filter here)')),
  BYPASS_DART: from('linux+m1n1', bit(8, 'addresses pass untranslated; exists where PARAMS2.BYPASS_SUPPORT')),
  TRANSLATE_ENABLE: from('linux+m1n1', bit(7, 'translate through the TTBRs')),
} as const satisfies DartLayout;

/** t8020 TTBR[sid][i], offset 0x200 + 16·sid + 4·i. */
export const T8020_TTBR = {
  VALID: from('linux+m1n1', bit(31, 'the table may be used')),
  ADDR: from('linux+m1n1', bits(30, 0, 'physical address of the top table, shifted right by 12')),
} as const satisfies DartLayout;

/** t8110 PARAMS3, offset 0x8. */
export const PARAMS3 = {
  PA_WIDTH: from('linux+m1n1', bits(29, 24, 'bits of a physical address')),
  VA_WIDTH: from('linux+m1n1', bits(21, 16, 'bits of an IOVA')),
  VER_MAJ: from('linux+m1n1', bits(15, 8, 'major version')),
  VER_MIN: from('linux+m1n1', bits(7, 0, 'minor version')),
} as const satisfies DartLayout;

/** t8110 PARAMS4, offset 0xc. */
export const PARAMS4 = {
  NUM_CLIENTS: from('linux+m1n1', bits(24, 16, 'clients')),
  NUM_SIDS: from('linux+m1n1', bits(8, 0, 'streams')),
} as const satisfies DartLayout;

/** t8110 TLB_CMD, offset 0x80 (m1n1: TLB_OP). */
export const TLB_CMD = {
  BUSY: from('linux+m1n1', bit(31, 'the command has not completed')),
  HARDWARE_FLUSH: from('m1n1', bit(30, 'ignored: PARAMS2.SUPPORT_HW_FLUSH is 0')),
  FLUSH_VA_RANGE: from('m1n1', bit(14, 'ignored: the whole stream is flushed, which covers the range')),
  OP: from('linux+m1n1', bits(10, 8, '0 flush all, 1 flush STREAM; others do nothing here')),
  STREAM: from('linux+m1n1', bits(7, 0, 'stream of OP 1')),
} as const satisfies DartLayout;

/** t8110 ERROR, offset 0x100; writing ones clears. */
export const T8110_ERROR = {
  FLAG: from('linux+m1n1', bit(31, 'an error is recorded; later errors are lost until it is cleared')),
  WRITE_nREAD: from('m1n1', bit(28, 'the access was a write')),
  STREAM: from('linux+m1n1', bits(27, 20, 'stream of the access')),
  SECONDARY: from('model', bit(19, 'another error came while FLAG was set and is lost (name from m1n1)')),
  BPF_REJECT: from('m1n1', bit(14, 'never set')),
  EXTERNAL: from('m1n1', bit(13, 'never set')),
  STT_FLUSH: from('m1n1', bit(12, 'never set')),
  STT_MISMATCH: from('m1n1', bit(11, 'never set')),
  APF_REJECT: from('m1n1', bit(10, 'refused by the address filter (not modelled: never set)')),
  DROP_PROTECT: from('m1n1', bit(9, 'never set')),
  CTRR_WRITE_PROTECT: from('m1n1', bit(8, 'never set')),
  AXI_ERROR: from('m1n1', bit(7, 'never set')),
  AXI_DECODE: from('m1n1', bit(6, 'nothing answered when a table entry was read')),
  READ_FAULT: from('linux+m1n1', bit(5, 'read without permission, or outside the sub-page')),
  WRITE_FAULT: from('linux+m1n1', bit(4, 'write without permission, or outside the sub-page')),
  NO_PTE: from('linux+m1n1', bit(3, 'the leaf entry is not valid')),
  NO_PMD: from('linux+m1n1', bit(2, 'the table entry above the leaf is not valid')),
  NO_PGD: from('linux+m1n1', bit(1, 'four levels: the top table entry is not valid')),
  NO_TTBR: from('linux+m1n1', bit(0, 'no valid TTBR for the address, or the stream does not translate')),
} as const satisfies DartLayout;

/** t8110 PROTECT, UNPROTECT, PROTECT_LOCK, offsets 0x200, 0x204, 0x208. */
export const PROTECT = {
  LOCK_TZ_SELECT: from('m1n1', bit(4, 'stored, no effect here')),
  LOCK_TZ_CONFIG: from('m1n1', bit(3, 'stored, no effect here')),
  UNKNOWN_2: from('m1n1', bit(2, 'can be set; meaning unknown')),
  LOCK_REG_4xx: from('m1n1', bit(1, 'stored, no effect here')),
  TTBR_TCR: from('linux+m1n1', bit(0, 'TCR and TTBR are read-only')),
} as const satisfies DartLayout;

/** t8110 TCR[sid], offset 0x1000 + 4·sid. */
export const T8110_TCR = {
  REMAP: from('linux+m1n1', bits(11, 8, 'stream whose TCR and TTBR serve this one, with REMAP_EN')),
  REMAP_EN: from('linux+m1n1', bit(7, 'use REMAP')),
  FOUR_LEVEL: from(
    'linux+m1n1',
    bit(3, 'the TTBR counts as a level: three levels of tables, where VA_WIDTH is above 36'),
  ),
  BYPASS_DAPF: from('linux+m1n1', bit(2, 'go round the address filter (stored, no effect)')),
  BYPASS_DART: from('linux+m1n1', bit(1, 'addresses pass untranslated; exists where PARAMS2.BYPASS_SUPPORT')),
  TRANSLATE_ENABLE: from('linux+m1n1', bit(0, 'translate through the TTBR')),
} as const satisfies DartLayout;

/** t8110 TTBR[sid], offset 0x1400 + 4·sid. */
export const T8110_TTBR = {
  ADDR: from('linux+m1n1', bits(29, 2, 'physical address of the top table, shifted right by 14')),
  VALID: from('linux+m1n1', bit(0, 'the table may be used')),
} as const satisfies DartLayout;

/** Size of the register block of either generation in bytes (Linux refuses a smaller one). */
export const REGISTER_BLOCK_BYTES = 0x4000;

/** Registers of t8020, t8103 and t6000: 16 streams, four TTBRs a stream. */
export const T8020_REGISTERS = {
  PARAMS1: { offset: 0x00, width: 4, access: 'RO', layout: PARAMS1, source: 'linux', doc: 'page size' },
  PARAMS2: { offset: 0x04, width: 4, access: 'RO', layout: PARAMS2, source: 'linux', doc: 'bypass' },
  STREAM_COMMAND: {
    offset: 0x20,
    width: 4,
    access: 'RW',
    writable: 0n,
    layout: STREAM_COMMAND,
    source: 'linux+m1n1',
    doc: 'command to the streams in STREAM_SELECT; reads as BUSY or 0',
  },
  STREAM_SELECT: {
    offset: 0x34,
    width: 4,
    access: 'RW',
    source: 'linux+m1n1',
    doc: 'streams of the command, a bit each',
  },
  ERROR: { offset: 0x40, width: 4, access: 'RW1C', layout: T8020_ERROR, source: 'linux+m1n1', doc: 'first error' },
  ERROR_ADDR_LO: { offset: 0x50, width: 4, access: 'RO', source: 'linux+m1n1', doc: 'IOVA of the error, bits 31:0' },
  ERROR_ADDR_HI: { offset: 0x54, width: 4, access: 'RO', source: 'linux+m1n1', doc: 'IOVA of the error, bits 63:32' },
  CONFIG: {
    offset: 0x60,
    width: 4,
    access: 'RW',
    writable: 0x8000n,
    layout: T8020_CONFIG,
    source: 'linux+m1n1',
    doc: 'lock',
  },
  REMAP: {
    offset: 0x80,
    width: 4,
    access: 'RW',
    count: 4,
    stride: 4,
    layout: T8020_REMAP,
    source: 'm1n1',
    doc: 'stream remap; the identity after reset is this model’s choice',
  },
  DAPF_LOCK: {
    offset: 0xf0,
    width: 4,
    access: 'RW',
    writable: 1n,
    source: 'm1n1',
    doc: 'filter lock: stored, no effect',
  },
  UNK1: { offset: 0xf8, width: 4, access: 'RW', source: 'm1n1', doc: 'unknown: m1n1 writes 0; stored, no effect' },
  STREAMS_ENABLE: {
    offset: 0xfc,
    width: 4,
    access: 'RW',
    source: 'linux+m1n1',
    doc: 'streams let through, a bit each',
  },
  TCR: {
    offset: 0x100,
    width: 4,
    access: 'RW',
    writable: 0x1180n,
    count: 16,
    stride: 4,
    layout: T8020_TCR,
    source: 'linux+m1n1',
    doc: 'translation control of a stream',
  },
  TTBR: {
    offset: 0x200,
    width: 4,
    access: 'RW',
    count: 64,
    stride: 4,
    layout: T8020_TTBR,
    source: 'linux+m1n1',
    doc: 'TTBR[sid][i] at 4·(4·sid + i): top table of IOVA quarter i',
  },
} as const satisfies DartRegisterMap;

/** Registers of t8110 and later: up to 256 streams, one TTBR a stream. */
export const T8110_REGISTERS = {
  PARAMS1: { offset: 0x00, width: 4, access: 'RO', layout: PARAMS1, source: 'linux+m1n1', doc: 'page size' },
  PARAMS2: { offset: 0x04, width: 4, access: 'RO', layout: PARAMS2, source: 'linux+m1n1', doc: 'capabilities' },
  PARAMS3: { offset: 0x08, width: 4, access: 'RO', layout: PARAMS3, source: 'linux+m1n1', doc: 'address widths' },
  PARAMS4: { offset: 0x0c, width: 4, access: 'RO', layout: PARAMS4, source: 'linux+m1n1', doc: 'number of streams' },
  TLB_CMD: {
    offset: 0x80,
    width: 4,
    access: 'RW',
    writable: 0n,
    layout: TLB_CMD,
    source: 'linux+m1n1',
    doc: 'TLB command; reads as BUSY or 0',
  },
  ERROR: { offset: 0x100, width: 4, access: 'RW1C', layout: T8110_ERROR, source: 'linux+m1n1', doc: 'first error' },
  ERROR_MASK: {
    offset: 0x104,
    width: 4,
    access: 'RW',
    layout: T8110_ERROR,
    source: 'linux+m1n1',
    doc: 'error bits that raise no interrupt (still recorded: this model’s choice); Linux writes 0',
  },
  ERROR_ADDR_LO: { offset: 0x170, width: 4, access: 'RO', source: 'linux+m1n1', doc: 'IOVA of the error, bits 31:0' },
  ERROR_ADDR_HI: { offset: 0x174, width: 4, access: 'RO', source: 'linux+m1n1', doc: 'IOVA of the error, bits 63:32' },
  ERROR_STREAMS: {
    offset: 0x1c0,
    width: 4,
    access: 'RW1C',
    count: 8,
    stride: 4,
    source: 'linux+m1n1',
    doc: 'streams with an error, a bit each; Linux writes ones after an error',
  },
  PROTECT: {
    offset: 0x200,
    width: 4,
    access: 'RW',
    writable: 0n,
    layout: PROTECT,
    source: 'linux+m1n1',
    doc: 'ones protect',
  },
  UNPROTECT: {
    offset: 0x204,
    width: 4,
    access: 'WO',
    writable: 0n,
    layout: PROTECT,
    source: 'linux+m1n1',
    doc: 'ones lift protection, unless locked',
  },
  PROTECT_LOCK: {
    offset: 0x208,
    width: 4,
    access: 'RW',
    writable: 0n,
    layout: PROTECT,
    source: 'linux+m1n1',
    doc: 'ones forbid lifting that protection until reset',
  },
  ENABLE_STREAMS: {
    offset: 0xc00,
    width: 4,
    access: 'RW',
    writable: 0n,
    count: 8,
    stride: 4,
    source: 'linux+m1n1',
    doc: 'ones let streams through; reads as the streams let through',
  },
  DISABLE_STREAMS: {
    offset: 0xc20,
    width: 4,
    access: 'RW',
    writable: 0n,
    count: 8,
    stride: 4,
    source: 'linux+m1n1',
    doc: 'ones stop streams; reads as 0',
  },
  TCR: {
    offset: 0x1000,
    width: 4,
    access: 'RW',
    writable: 0xf8fn,
    count: 256,
    stride: 4,
    layout: T8110_TCR,
    source: 'linux+m1n1',
    doc: 'translation control of a stream',
  },
  TTBR: {
    offset: 0x1400,
    width: 4,
    access: 'RW',
    writable: 0x3fff_fffdn,
    count: 256,
    stride: 4,
    layout: T8110_TTBR,
    source: 'linux+m1n1',
    doc: 'top table of a stream',
  },
} as const satisfies DartRegisterMap;
