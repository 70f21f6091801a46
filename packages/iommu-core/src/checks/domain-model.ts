/** What the checks know of a domain: its mappings, who may have cached them, and what waits for an invalidation. */
import type { GatherRecord } from '@iommu-ts/page-table';
import type { PagingDomain } from '../domain.ts';
import { MappingModel } from './mappings.ts';
import type { CheckEvent } from './types.ts';

/** A device that is, or was, attached. Moments are numbers of one count of all that the checks see. */
interface User {
  attached: boolean;
  /** When it left. */
  leftAt: number;
  /** When everything that it could have cached of the tables was last invalidated. */
  flushedAt: number;
}

/** IOVAs that were unmapped and need not have been invalidated yet. */
interface Pending {
  readonly startPfn: number;
  readonly lastPfn: number;
  /** The gather that holds them; null: the flush queue. */
  readonly gather: GatherRecord | null;
}

/** One paging domain under watch. */
export class DomainModel {
  readonly domain: PagingDomain;
  readonly createdBy: CheckEvent;
  readonly mappings = new MappingModel();
  readonly users = new Map<number, User>();
  pending: Pending[] = [];
  /** Set while an unmap runs whose ranges go to the flush queue. */
  queues = false;
  freed = false;

  constructor(domain: PagingDomain, createdBy: CheckEvent) {
    this.domain = domain;
    this.createdBy = createdBy;
  }

  /** Why `pfn`, which was unmapped, need not have been invalidated yet; a gather that was reset holds nothing any more. */
  pendingAt(pfn: number): Pending | undefined {
    return this.pending.find(
      ({ startPfn, lastPfn, gather }) =>
        startPfn <= pfn && pfn <= lastPfn && (gather === null || (gather.startPfn <= pfn && pfn <= gather.lastPfn)),
    );
  }

  /** The gather (or, with null, the flush queue) has been synced. */
  synced(gather: GatherRecord | null): void {
    if (this.pending.length > 0) this.pending = this.pending.filter((one) => one.gather !== gather);
  }

  join(requester: number): void {
    const user = this.users.get(requester);
    if (user === undefined) this.users.set(requester, { attached: true, leftAt: 0, flushedAt: -1 });
    else user.attached = true;
  }

  leave(requester: number, moment: number): void {
    const user = this.users.get(requester);
    if (user === undefined || !user.attached) return;
    user.attached = false;
    user.leftAt = moment;
  }
}
