/** Watches blocks that are parts of a page: those never reach the page source, where whole blocks are watched. */
import { NO_PAGE } from '@iommu-ts/iommu-pages';
import type { IommuPages, IommuPagesList } from '@iommu-ts/iommu-pages';
import { shadow } from './shadow.ts';
import type { TablePages } from './table-pages.ts';

/** Has `tables` hear of every part that is allocated or freed. */
export const watchParts = (pages: IommuPages, tables: TablePages): void => {
  const freeing = (list: IommuPagesList): void => {
    if (list.stale) return;
    for (const pfn of pages.listPages(list)) tables.partFreeing(pfn);
  };
  shadow(pages, 'allocPagesNodeSz', (original) => (nid, size, gfp) => {
    const pfn = gfp === undefined ? original(nid, size) : original(nid, size, gfp);
    if (pfn !== NO_PAGE && pages.sizeOf(pfn) < pages.cpuPageSize) tables.partAllocated(pfn, pages.sizeOf(pfn));
    return pfn;
  });
  shadow(pages, 'freePages', (original) => (pfn) => {
    tables.partFreeing(pfn);
    original(pfn);
  });
  shadow(pages, 'putPagesList', (original) => (list) => {
    freeing(list);
    original(list);
  });
  shadow(pages, 'putPagesListRcu', (original) => (list) => {
    freeing(list);
    return original(list);
  });
};
