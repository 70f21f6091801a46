/**
 * What DART reads from memory: page-table entries only. It has no device table; which stream uses which table stands in
 * registers. Positions from Linux `drivers/iommu/io-pgtable-dart.c` and m1n1 `hw/dart8020.py`, `hw/dart8110.py`.
 *
 * A table is one page: 2048 entries of 8 bytes with 16 KiB pages, 512 with 4 KiB. There are no blocks: leaves lie at the
 * lowest level only. Table entries use the address and VALID; the hardware looks at nothing else in them.
 */
import { bit, bits } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';

/** Entry of t8020 and t8103 (Linux: `APPLE_DART`). */
export const DART1_PTE = {
  SP_START: bits(63, 52, 'first sub-page that may be accessed (1/4096 of a page each)'),
  SP_END: bits(51, 40, 'last sub-page that may be accessed, inclusive'),
  PADDR: bits(35, 12, 'physical address 35:12, in place'),
  NO_READ: bit(8, 'reads fault (leaf)'),
  NO_WRITE: bit(7, 'writes fault (leaf)'),
  SP_DIS: bit(1, 'SP_START and SP_END are not looked at (leaf)'),
  VALID: bit(0, 'the entry may be used'),
} as const satisfies Layout;

/** Entry of t6000, t8110 and later (Linux: `APPLE_DART2`). */
export const DART2_PTE = {
  SP_START: bits(63, 52, 'first sub-page that may be accessed (1/4096 of a page each)'),
  SP_END: bits(51, 40, 'last sub-page that may be accessed, inclusive'),
  PADDR: bits(37, 10, 'physical address 41:14'),
  NO_READ: bit(3, 'reads fault (leaf)'),
  NO_WRITE: bit(2, 'writes fault (leaf)'),
  NO_CACHE: bit(1, 'uncached (leaf; memory is coherent here, no effect)'),
  VALID: bit(0, 'the entry may be used'),
} as const satisfies Layout;

/** Bits that {@link DART2_PTE}.PADDR is shifted right in the entry, against the address. */
export const DART2_PADDR_SHIFT = 4;

/** Generation of the page-table entry. */
export type PteVersion = 'dart1' | 'dart2';
