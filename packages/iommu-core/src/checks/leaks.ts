/** What is still there when it should be gone. */
import { addressOfPfn, hex } from '@iommu-ts/bits';
import type { DomainModel } from './domain-model.ts';
import type { Mapping } from './mappings.ts';
import { at } from './report-log.ts';
import type { ReportLog } from './report-log.ts';
import type { TablePages } from './table-pages.ts';

/** Whatever was allocated for a domain that has been freed must be gone. */
export const leftAllocated = (log: ReportLog, tables: TablePages, model: DomainModel): void => {
  for (const block of tables.of(model)) {
    log.report(hex(block.pfn), {
      kind: 'leak',
      what:
        `${block.table === null ? 'page' : 'table page'} ${at(block.pfn)} (${block.bytes} bytes) of domain ` +
        `${model.domain.id} is still allocated after the domain was freed; it was allocated by operation ` +
        `${block.allocatedBy.operation}, ${block.allocatedBy.what}`,
      hint: `freePages(${hex(block.pfn)}) when the domain is freed`,
      addresses: { page: addressOfPfn(block.pfn) },
      freedBy: log.event,
    });
  }
};

/** Mappings that outlive their domain. */
export const leftMapped = (log: ReportLog, model: DomainModel, first: Mapping, count: number): void => {
  log.report(`mappings ${model.domain.id}`, {
    kind: 'leak',
    what: `domain ${model.domain.id} was freed with ${count} run(s) of pages still mapped, the first at ${at(first.startPfn)}`,
    hint: 'unmap what was mapped before the domain is freed',
    addresses: {
      iova: addressOfPfn(first.startPfn),
      last: addressOfPfn(first.lastPfn, 4095),
      pa: addressOfPfn(first.paPfn),
    },
    mappedBy: first.mappedBy,
    freedBy: log.event,
  });
};

/** Whatever the driver allocated must be gone when it has released its unit. */
export const leftByDriver = (log: ReportLog, tables: TablePages): void => {
  for (const block of tables.blocks.values()) {
    if (!block.ofDriver || tables.onlyWaits(block)) continue;
    log.report(hex(block.pfn), {
      kind: 'leak',
      what:
        `page ${at(block.pfn)} (${block.bytes} bytes) is still allocated after the driver has released its unit; it was ` +
        `allocated by operation ${block.allocatedBy.operation}, ${block.allocatedBy.what}`,
      hint: `freePages(${hex(block.pfn)}) in release()`,
      addresses: { page: addressOfPfn(block.pfn) },
      freedBy: log.event,
    });
  }
};

/** With every block back, the allocator must count as many pages as before the driver began. */
export const leftInCounter = (log: ReportLog, tables: TablePages, now: number, before: number): void => {
  if (tables.blocks.size > 0 || tables.othersFreed || now === before) return;
  log.report('counter', {
    kind: 'leak',
    what: `nr_iommu_pages is ${now} after the driver has released its unit, it was ${before} before it began`,
    hint: 'count every block once when it is allocated and once when it is freed',
    addresses: {},
    freedBy: log.event,
  });
};
