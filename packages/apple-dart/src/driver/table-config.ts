/** The page table of a paging domain: format, widths and page size, and the name they have together. */
import { IommuError } from '@iommu-ts/bits';
import type { PageTableConfig, PageTableFormat } from '@iommu-ts/page-table';
import { DART_V1_16K, DART_V1_4K, DART_V2_16K } from '../formats.ts';
import type { PteVersion } from '../structures.ts';

/** `'dart1-16k-32-36'`: entry version, page size, IOVA and physical address width. */
export const formatName = (pte: PteVersion, pageShift: number, ias: number, oas: number): string =>
  `${pte}-${pageShift === 14 ? '16k' : '4k'}-${ias}-${oas}`;

/** The format for an entry version and a page size (12 or 14). */
export const formatOf = (pte: PteVersion, pageShift: number): PageTableFormat =>
  pte === 'dart2' ? DART_V2_16K : pageShift === 14 ? DART_V1_16K : DART_V1_4K;

/**
 * The configuration for the engine.
 * @throws IommuError `EOPNOTSUPP` for a page size or a width that `io-pgtable-dart` does not have.
 */
export const tableConfig = (pte: PteVersion, pageShift: number, ias: number, oas: number): PageTableConfig => {
  const name = formatName(pte, pageShift, ias, oas);
  if (pageShift !== 14 && !(pageShift === 12 && pte === 'dart1')) {
    throw new IommuError('EOPNOTSUPP', `DART with ${2 ** pageShift}-byte pages and ${pte} entries`, { format: name });
  }
  if ((oas !== 36 && oas !== 42) || (pte === 'dart1' && oas !== 36) || ias > oas || ias < 32) {
    throw new IommuError('EOPNOTSUPP', `DART with ${ias}-bit IOVAs and ${oas}-bit addresses`, { format: name });
  }
  return { format: formatOf(pte, pageShift), ias, oas, pageSizes: 1n << BigInt(pageShift) };
};
