/** Calls that no correct user makes; Linux's `IOMMU_DEBUG_PAGEALLOC` and the warnings of its DMA layer. */
import { addressOfPfn, hex } from '@iommu-ts/bits';
import type { DomainModel } from './domain-model.ts';
import type { Mapping } from './mappings.ts';
import { at } from './report-log.ts';
import type { CheckState } from './state.ts';
import type { TablePages } from './table-pages.ts';

/** A map over what is mapped, refused or not. */
export const mappedTwice = (
  state: CheckState,
  model: DomainModel,
  startPfn: number,
  lastPfn: number,
  there: Mapping,
  errno: number,
): void => {
  const first = Math.max(startPfn, there.startPfn);
  state.log.report(`map ${startPfn}`, {
    kind: 'misuse',
    what:
      `map of iova ${at(startPfn)} … ${at(lastPfn, 4095)} in domain ${model.domain.id} overlaps what is mapped at ` +
      `${at(first)}${errno === 0 ? '' : ` (refused with errno ${errno})`}`,
    hint: 'unmap it first, or map elsewhere',
    addresses: {
      iova: addressOfPfn(first),
      mapped: addressOfPfn(there.startPfn),
      pa: addressOfPfn(there.paPfn + first - there.startPfn),
    },
    mappedBy: there.mappedBy,
  });
};

/** A page of the table allocator as the target of DMA: a device could write itself any mapping. */
export const mappedTable = (
  state: CheckState,
  tables: TablePages,
  model: DomainModel,
  startPfn: number,
  paPfn: number,
  pages: number,
): void => {
  if (!state.log.wants('misuse')) return;
  const block = tables.within(paPfn, paPfn + pages - 1);
  if (block === undefined) return;
  const offset = Math.max(block.pfn - paPfn, 0);
  state.log.report(`target ${block.pfn}`, {
    kind: 'misuse',
    what:
      `domain ${model.domain.id} maps iova ${at(startPfn + offset)} to ${at(paPfn + offset)}, which is a page that the ` +
      `driver keeps its tables or queues in (allocated by operation ${block.allocatedBy.operation}, ${block.allocatedBy.what})`,
    hint: 'map memory that does not belong to the table allocator',
    addresses: { iova: addressOfPfn(startPfn + offset), page: addressOfPfn(paPfn + offset) },
    mappedBy: state.log.event,
  });
};

/** An unmap that took more or less than it was asked for. */
export const unmappedOther = (
  state: CheckState,
  model: DomainModel,
  startPfn: number,
  bytes: number,
  done: number,
  hole: number,
  there: Mapping | undefined,
): void => {
  const gone = hole < 0 ? undefined : model.mappings.lastGone(hole);
  const range = `unmap of ${hexOf(bytes)} bytes at iova ${at(startPfn)} in domain ${model.domain.id}`;
  const what =
    done > bytes
      ? `${range} ends in the middle of a page: ${hexOf(done)} bytes went`
      : hole >= 0
        ? `${range}: nothing is mapped at ${at(hole)}, ${hexOf(done)} bytes went`
        : `${range} begins or ends in the middle of a page: ${hexOf(done)} bytes went`;
  state.log.report(`unmap ${startPfn}`, {
    kind: 'misuse',
    what,
    hint: hole >= 0 ? 'unmap what is mapped, once' : 'unmap whole pages, as they were mapped',
    addresses: { iova: addressOfPfn(startPfn), ...(hole >= 0 ? { hole: addressOfPfn(hole) } : {}) },
    ...(there === undefined ? {} : { mappedBy: there.mappedBy }),
    ...(gone === undefined ? {} : { unmappedBy: gone.unmappedBy }),
  });
};

/** Whatever a caller passed, for the name of the operation: the domain itself refuses what is no number. */
export const hexOf = (value: unknown): string =>
  typeof value === 'bigint' || (typeof value === 'number' && Number.isInteger(value)) ? hex(value) : String(value);
