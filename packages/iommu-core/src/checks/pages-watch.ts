/**
 * Watches the allocator's own calls: who frees, and blocks that are parts of a page, which never reach the page source, where
 * whole blocks are watched.
 */
import { hex } from '@iommu-ts/bits';
import { NO_PAGE } from '@iommu-ts/iommu-pages';
import type { IommuPages, IommuPagesList } from '@iommu-ts/iommu-pages';
import type { ReportLog } from './report-log.ts';
import { shadow } from './shadow.ts';
import type { TablePages } from './table-pages.ts';

/** Has `tables` hear of every part that is allocated or freed; a free outside of all operations is one of its own. */
export const watchPages = (pages: IommuPages, tables: TablePages, log: ReportLog): void => {
  const each = (list: IommuPagesList, run: (pfn: number) => void): void => {
    if (!list.stale) for (const pfn of pages.listPages(list)) run(pfn);
  };
  /** Before there is a driver nothing is an operation. */
  const during = <T>(what: string, from: (...args: never[]) => unknown, body: () => T): T =>
    tables.started ? log.during(what, from, body) : body();
  shadow(pages, 'allocPagesNodeSz', (original) => (nid, size, gfp) => {
    const pfn = gfp === undefined ? original(nid, size) : original(nid, size, gfp);
    if (pfn !== NO_PAGE && pages.sizeOf(pfn) < pages.cpuPageSize) tables.partAllocated(pfn, pages.sizeOf(pfn));
    return pfn;
  });
  shadow(pages, 'freePages', (original) => {
    const run = (pfn: number): void => {
      during(`freePages(${hex(pfn)})`, run, () => {
        original(pfn);
        tables.partFreeing(pfn);
      });
    };
    return run;
  });
  shadow(pages, 'putPagesList', (original) => {
    const run = (list: IommuPagesList): void =>
      during(`putPagesList() of ${list.length} block(s)`, run, () => {
        each(list, (pfn) => tables.partFreeing(pfn));
        original(list);
      });
    return run;
  });
  shadow(pages, 'putPagesListRcu', (original) => {
    const run = (list: IommuPagesList): number =>
      during(`putPagesListRcu() of ${list.length} block(s)`, run, () => {
        each(list, (pfn) => tables.leaving(pfn));
        return original(list);
      });
    return run;
  });
};
