/** Watches what is done to a domain: its mappings, what is taken out of its table, and what is wrong with the call itself. */
import { pfnOfWords } from '@iommu-ts/bits';
import type { GatherRecord, PageTable } from '@iommu-ts/page-table';
import type { PagingDomain, PagingDomainOps } from '../domain.ts';
import type { DomainModel } from './domain-model.ts';
import { leftAllocated, leftMapped } from './leaks.ts';
import { hexOf, mappedTable, mappedTwice, unmappedOther } from './misuse.ts';
import { at } from './report-log.ts';
import { shadow } from './shadow.ts';
import type { CheckState } from './state.ts';
import type { TablePages } from './table-pages.ts';

/** Looks at the table before and after each call of the engine that changes it. */
export interface EngineObserver {
  before(model: DomainModel, startPfn: number, lastPfn: number): void;
  after(model: DomainModel): void;
}

/** Told of invalidations that an operation makes. */
export interface SyncObserver {
  begin(operation: string, model: DomainModel | null): void;
  /** The domain whose unmap (or map) is being synced, whatever the invalidation is made for; null: none. */
  syncOf: DomainModel | null;
  end(): void;
}

/** `domain.sync` is private to the class; it is where free lists go back, so the checks look in there. */
interface WithSync {
  sync(gather: GatherRecord): void;
}

export class DomainWatch {
  readonly #state: CheckState;
  readonly #tables: TablePages;
  readonly #syncs: SyncObserver;
  readonly #engine: EngineObserver | null;
  readonly #ops = new WeakSet<PagingDomainOps>();

  constructor(state: CheckState, tables: TablePages, syncs: SyncObserver, engine: EngineObserver | null) {
    this.#state = state;
    this.#tables = tables;
    this.#syncs = syncs;
    this.#engine = engine;
  }

  watch(model: DomainModel): void {
    const { domain } = model;
    this.#watchOps(domain.ops);
    this.#watchTable(model, domain.table);
    this.#watchMaps(model, domain);
    this.#watchUnmaps(model, domain);
    this.#watchFree(model, domain);
    shadow(domain as unknown as WithSync, 'sync', (original) => (gather) => {
      this.#tables.gather(model, gather.freelist);
      this.#syncs.syncOf = model;
      try {
        original(gather);
      } finally {
        this.#syncs.syncOf = null;
      }
    });
  }

  #watchMaps(model: DomainModel, domain: PagingDomain): void {
    const { log } = this.#state;
    shadow(domain, 'map', (original) => {
      const run = (iova: bigint, pa: bigint, size: bigint, prot: number): void =>
        log.during(`map(iova ${hexOf(iova)}, pa ${hexOf(pa)}, size ${hexOf(size)}) in domain ${domain.id}`, run, () =>
          original(iova, pa, size, prot),
        );
      return run;
    });
    shadow(domain, 'mapWords', (original) => {
      const run: PagingDomain['mapWords'] = (iovaHi, iovaLo, paHi, paLo, size, prot) => {
        const startPfn = pfnOfWords(iovaHi, iovaLo);
        const paPfn = pfnOfWords(paHi, paLo);
        return log.during(
          `map(iova ${at(startPfn)}, pa ${at(paPfn)}, size ${hexOf(size)}) in domain ${domain.id}`,
          run,
          () => {
            const lastPfn = startPfn + Math.ceil(size / 4096) - 1;
            const there = size > 0 ? model.mappings.overlap(startPfn, lastPfn) : undefined;
            const errno = original(iovaHi, iovaLo, paHi, paLo, size, prot);
            if (there !== undefined) mappedTwice(this.#state, model, startPfn, lastPfn, there, errno);
            if (domain.mapped > 0) mappedTable(this.#state, this.#tables, model, startPfn, paPfn, domain.mapped / 4096);
            return errno;
          },
        );
      };
      return run;
    });
  }

  #watchUnmaps(model: DomainModel, domain: PagingDomain): void {
    const { log } = this.#state;
    shadow(domain, 'unmap', (original) => {
      const run: PagingDomain['unmap'] = (iova, size, released) =>
        log.during(`unmap(iova ${hexOf(iova)}, size ${hexOf(size)}) in domain ${domain.id}`, run, () =>
          original(iova, size, released),
        );
      return run;
    });
    shadow(domain, 'unmapWords', (original) => {
      const run: PagingDomain['unmapWords'] = (iovaHi, iovaLo, size, released) => {
        log.begin(`unmap(iova ${at(pfnOfWords(iovaHi, iovaLo))}, size ${hexOf(size)}) in domain ${domain.id}`, run);
        const before = model.pending.length;
        const outer = model.queues;
        const queues = domain.flushQueue !== null;
        model.queues = queues;
        try {
          return original(iovaHi, iovaLo, size, released);
        } finally {
          // In strict mode nothing may wait any more, whether it was invalidated or not.
          if (!queues && model.pending.length > before) model.pending.length = before;
          model.queues = outer;
          log.end();
        }
      };
      return run;
    });
    shadow(domain, 'unmapGather', (original) => {
      const run: PagingDomain['unmapGather'] = (iova, size, gather) =>
        log.during(`unmapGather(iova ${hexOf(iova)}, size ${hexOf(size)}) in domain ${domain.id}`, run, () =>
          original(iova, size, gather),
        );
      return run;
    });
    shadow(domain, 'iotlbSync', (original) => {
      const run = (gather: GatherRecord): void => {
        log.begin(`iotlbSync() of domain ${domain.id}`, run);
        try {
          original(gather);
        } finally {
          this.#synced(gather);
          log.end();
        }
      };
      return run;
    });
    shadow(domain, 'flush', (original) => {
      const run = (): void => log.during(`flush() of domain ${domain.id}`, run, () => original());
      return run;
    });
    const { flushQueue } = domain;
    if (flushQueue === null) return;
    shadow(flushQueue, 'flush', (original) => () => {
      // Whatever was flushed, if anything: nobody will come back to what waits now. What released callbacks unmap waits anew.
      const waited = new Set(model.pending.filter(({ gather }) => gather === null));
      original();
      if (waited.size > 0) model.pending = model.pending.filter((one) => !waited.has(one));
    });
  }

  #watchFree(model: DomainModel, domain: PagingDomain): void {
    const { log, models } = this.#state;
    shadow(domain, 'free', (original) => {
      const run = (): void => {
        if (model.freed) {
          original();
          return;
        }
        log.during(`free() of domain ${domain.id}`, run, () => {
          const { length } = model.mappings.live;
          const [first] = model.mappings.live;
          original();
          model.freed = true;
          models.delete(domain);
          model.mappings.clear();
          if (log.options.teardown === 'mappings' && first !== undefined) leftMapped(log, model, first, length);
          leftAllocated(log, this.#tables, model);
        });
      };
      return run;
    });
  }

  /** Whoever synced it: a gather that was given to the wrong domain is empty afterwards, and nobody will come back to it. */
  #synced(gather: GatherRecord): void {
    for (const model of this.#state.models.values()) model.synced(gather);
  }

  /** One object may serve many domains: it is watched once. */
  #watchOps(ops: PagingDomainOps): void {
    if (this.#ops.has(ops)) return;
    this.#ops.add(ops);
    const { log, models } = this.#state;
    const during = (operation: string, domain: PagingDomain, from: () => void, body: () => void): void => {
      log.begin(`${operation} of domain ${domain.id}`, from);
      this.#syncs.begin(operation, models.get(domain) ?? null);
      try {
        body();
      } finally {
        this.#syncs.end();
        log.end();
      }
    };
    shadow(ops, 'iotlbSync', (original) => {
      const run: PagingDomainOps['iotlbSync'] = (domain, gather) => {
        during('iotlbSync()', domain, run as () => void, () => {
          original(domain, gather);
          this.#synced(gather);
        });
      };
      return run;
    });
    shadow(ops, 'flushIotlbAll', (original) => {
      const run: PagingDomainOps['flushIotlbAll'] = (domain) => {
        during('flushIotlbAll()', domain, run as () => void, () => {
          original(domain);
          models.get(domain)?.synced(null);
        });
      };
      return run;
    });
    if (ops.iotlbSyncMap !== undefined) {
      shadow(ops as Required<PagingDomainOps>, 'iotlbSyncMap', (original) => {
        const run: Required<PagingDomainOps>['iotlbSyncMap'] = (domain, startPfn, lastPfn) =>
          during('iotlbSyncMap()', domain, run as () => void, () => original(domain, startPfn, lastPfn));
        return run;
      });
    }
  }

  /** The engine's calls: here the model follows what really happened. */
  #watchTable(model: DomainModel, table: PageTable): void {
    const state = this.#state;
    const tables = this.#tables;
    const engine = this.#engine;
    const mapped = (
      iovaHi: number,
      iovaLo: number,
      paHi: number,
      paLo: number,
      bytes: number,
      gather: GatherRecord | null,
      call: () => number,
    ): number => {
      const startPfn = pfnOfWords(iovaHi, iovaLo);
      const lastPfn = startPfn + Math.max(Math.ceil(bytes / 4096), 1) - 1;
      tables.beginFresh();
      engine?.before(model, startPfn, lastPfn);
      const errno = call();
      tables.findFresh(model, startPfn, lastPfn);
      if (gather !== null) tables.gather(model, gather.freelist);
      if (table.mapped > 0) {
        model.mappings.add({
          startPfn,
          lastPfn: startPfn + table.mapped / 4096 - 1,
          paPfn: pfnOfWords(paHi, paLo),
          mappedBy: state.log.event,
        });
      }
      engine?.after(model);
      return errno;
    };
    const unmapped = (
      iovaHi: number,
      iovaLo: number,
      bytes: number,
      gather: GatherRecord,
      call: () => number,
    ): number => {
      const startPfn = pfnOfWords(iovaHi, iovaLo);
      const lastPfn = startPfn + Math.max(Math.ceil(bytes / 4096), 1) - 1;
      const hole = model.mappings.firstHole(startPfn, lastPfn);
      const there = model.mappings.overlap(startPfn, lastPfn);
      engine?.before(model, startPfn, lastPfn);
      const done = call();
      tables.gather(model, gather.freelist);
      if (done > 0) {
        const last = startPfn + done / 4096 - 1;
        model.mappings.remove(startPfn, last, state.log.event);
        model.pending.push({ startPfn, lastPfn: last, gather: model.queues ? null : gather });
      }
      engine?.after(model);
      if (done !== bytes) unmappedOther(state, model, startPfn, bytes, done, hole, there);
      return done;
    };
    shadow(
      table,
      'map',
      (original) =>
        (iovaHi, iovaLo, paHi, paLo, length, prot, gather = null) =>
          mapped(iovaHi, iovaLo, paHi, paLo, length, gather, () =>
            original(iovaHi, iovaLo, paHi, paLo, length, prot, gather),
          ),
    );
    shadow(
      table,
      'mapPages',
      (original) =>
        (iovaHi, iovaLo, paHi, paLo, sizeLg2, count, prot, gather = null) =>
          mapped(iovaHi, iovaLo, paHi, paLo, count * 2 ** sizeLg2, gather, () =>
            original(iovaHi, iovaLo, paHi, paLo, sizeLg2, count, prot, gather),
          ),
    );
    shadow(
      table,
      'unmap',
      (original) => (iovaHi, iovaLo, length, gather) =>
        unmapped(iovaHi, iovaLo, length, gather, () => original(iovaHi, iovaLo, length, gather)),
    );
    shadow(
      table,
      'unmapPages',
      (original) => (iovaHi, iovaLo, sizeLg2, count, gather) =>
        unmapped(iovaHi, iovaLo, count * 2 ** sizeLg2, gather, () => original(iovaHi, iovaLo, sizeLg2, count, gather)),
    );
  }
}
