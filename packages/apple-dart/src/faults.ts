/**
 * Why DART refuses an access, and how each generation codes it in its ERROR register (Linux `apple-dart.c`, m1n1).
 * An access fails for one reason, so one code bit is set; ERROR holds the first error until software clears it.
 */
import { fieldOfWord, join64, maskLo } from '@iommu-ts/bits';
import type { FaultEvent } from '@iommu-ts/iommu-core';
import { T8020_ERROR, T8110_ERROR } from './registers.ts';
import type { DartField } from './registers.ts';

/** Register generation. */
export type Generation = 't8020' | 't8110';

/** Reasons, as the walker reports them; 0 is success. They index {@link codesOf}. */
export const REASON = {
  OK: 0,
  /** The stream does not translate, has no valid TTBR for the address, or the address is too wide. */
  NO_TTBR: 1,
  /** Four levels: entry of the top table not valid. */
  NO_PGD: 2,
  /** Table entry above the leaf not valid. */
  NO_PMD: 3,
  /** Leaf entry not valid. */
  NO_PTE: 4,
  /** Write without permission. */
  WRITE: 5,
  /** Read without permission. */
  READ: 6,
  /** Write outside the sub-page range. */
  SUBPAGE_WRITE: 7,
  /** Read outside the sub-page range. */
  SUBPAGE_READ: 8,
  /** A table lies where no memory answers. */
  TABLE_BUS_ERROR: 9,
} as const;

const codes = (names: readonly DartField[]): Int32Array => Int32Array.from([0, ...names.map((f) => maskLo(f))]);

const T8020_CODES = /* @__PURE__ */ codes([
  T8020_ERROR.NO_TTBR,
  T8020_ERROR.NO_PMD, // has no third level of tables
  T8020_ERROR.NO_PMD,
  T8020_ERROR.NO_PTE,
  T8020_ERROR.WRITE_FAULT,
  T8020_ERROR.READ_FAULT,
  T8020_ERROR.SUBPAGE_PROT,
  T8020_ERROR.SUBPAGE_PROT,
  T8020_ERROR.PTE_READ_FAULT,
]);

const T8110_CODES = /* @__PURE__ */ codes([
  T8110_ERROR.NO_TTBR,
  T8110_ERROR.NO_PGD,
  T8110_ERROR.NO_PMD,
  T8110_ERROR.NO_PTE,
  T8110_ERROR.WRITE_FAULT,
  T8110_ERROR.READ_FAULT,
  T8110_ERROR.WRITE_FAULT,
  T8110_ERROR.READ_FAULT,
  T8110_ERROR.AXI_DECODE,
]);

/** ERROR code bits by {@link REASON}. */
export const codesOf = (generation: Generation): Int32Array => (generation === 't8020' ? T8020_CODES : T8110_CODES);

const T8020_CODE_MASK = 0xfff;
const T8110_CODE_MASK = 0x7fff;

/** The code bits of an ERROR value: 11:0 on t8020, 14:0 on t8110. */
export const codeOfError = (generation: Generation, error: number): number =>
  error & (generation === 't8020' ? T8020_CODE_MASK : T8110_CODE_MASK);

/** Names of the code bits that are set in an ERROR value, `'NO_PTE'`; several joined by `|`, none: `'unknown'`. */
export const nameOfError = (generation: Generation, error: number): string => {
  const width = generation === 't8020' ? 12 : 15;
  const layout: Readonly<Record<string, DartField>> = generation === 't8020' ? T8020_ERROR : T8110_ERROR;
  const names = Object.entries(layout)
    .filter(([, f]) => f.msb < width && (error & maskLo(f)) !== 0)
    .map(([name]) => name);
  return names.length === 0 ? 'unknown' : names.join('|');
};

/** Decodes the error registers as read by the driver. Null when ERROR.FLAG is clear. */
export const decodeError = (
  generation: Generation,
  error: number,
  addrHi: number,
  addrLo: number,
): FaultEvent | null => {
  const layout: Readonly<Record<string, DartField>> = generation === 't8020' ? T8020_ERROR : T8110_ERROR;
  if (fieldOfWord(error, layout['FLAG']!) === 0) return null;
  const requester = fieldOfWord(error, layout['STREAM']!);
  const code = codeOfError(generation, error);
  const name = nameOfError(generation, error);
  const iova = join64(addrHi, addrLo);
  const access = accessOfError(generation, error);
  const fields = Object.fromEntries(Object.entries(layout).map(([field, f]) => [field, fieldOfWord(error, f)]));
  return {
    name,
    code,
    requester,
    pasid: -1,
    iova,
    access,
    fields,
    raw: [BigInt(error >>> 0), iova],
    text:
      `stream ${requester}: ${name} at iova 0x${iova.toString(16)}` +
      (access === 'unknown' ? '' : `, ${access} access`),
  };
};

/** t8110 says whether it was a write; t8020 only through READ_FAULT and WRITE_FAULT. */
const accessOfError = (generation: Generation, error: number): FaultEvent['access'] => {
  if (generation === 't8110') return fieldOfWord(error, T8110_ERROR.WRITE_nREAD) === 1 ? 'write' : 'read';
  if ((error & maskLo(T8020_ERROR.WRITE_FAULT)) !== 0) return 'write';
  return (error & maskLo(T8020_ERROR.READ_FAULT)) !== 0 ? 'read' : 'unknown';
};
