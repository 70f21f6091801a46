/** Watches the driver: domains come and go, devices are attached and detached, and at the end everything is given back. */
import { addressOfPfn, hex } from '@iommu-ts/bits';
import type { CreateDomainOptions, IommuDriver } from '../driver.ts';
import type { Domain, PagingDomain } from '../domain.ts';
import { DomainModel } from './domain-model.ts';
import type { DomainWatch, SyncObserver } from './domain-watch.ts';
import { at } from './report-log.ts';
import { shadow } from './shadow.ts';
import type { CheckState } from './state.ts';
import type { TablePages } from './table-pages.ts';

/** Begins to watch `driver`, and every domain that it makes from now on. */
export const watchDriver = (
  state: CheckState,
  tables: TablePages,
  domains: DomainWatch,
  syncs: SyncObserver,
  driver: IommuDriver,
  pagesBefore: number,
): void => {
  const { log, models } = state;

  shadow(driver, 'createDomain', (original) => {
    const run = (options?: CreateDomainOptions): PagingDomain => {
      log.begin('createDomain()', run);
      try {
        tables.beginFresh();
        const domain = original(options);
        const model = new DomainModel(domain, log.event);
        models.set(domain, model);
        tables.ownFresh(model);
        domains.watch(model);
        return domain;
      } finally {
        log.end();
      }
    };
    return run;
  });

  /** Runs `body`, which moves `requester`, and notes who uses which domain afterwards. */
  const moving = (what: string, requester: number, from: (...args: never[]) => unknown, body: () => void): void => {
    const known = requester >= 0 && requester < driver.info.requesters;
    const old = known ? driver.domainOf(requester) : null;
    log.begin(what, from);
    syncs.begin(what.slice(0, what.indexOf('(')) + '()', null);
    // What the old domain's tables were read for ends here; what is invalidated from now on counts.
    const moment = ++state.moment;
    try {
      body();
    } finally {
      if (known) {
        const now = driver.domainOf(requester);
        if (old !== now) {
          modelOf(old)?.leave(requester, moment);
          modelOf(now)?.join(requester);
        }
      }
      syncs.end();
      log.end();
    }
  };
  const modelOf = (domain: Domain | null): DomainModel | undefined =>
    domain === null || domain.type !== 'paging' ? undefined : models.get(domain);

  shadow(driver, 'attach', (original) => {
    const run = (requester: number, domain: Domain): void => {
      const name = domain.type === 'paging' ? `domain ${domain.id}` : `the ${domain.type} domain`;
      moving(`attach(device ${requesterText(requester)}) to ${name}`, requester, run, () =>
        original(requester, domain),
      );
    };
    return run;
  });
  shadow(driver, 'detach', (original) => {
    const run = (requester: number): void =>
      moving(`detach(device ${requesterText(requester)})`, requester, run, () => original(requester));
    return run;
  });

  /** With every block back, the allocator must count as many pages as before the driver began. */
  const checkCounter = (): void => {
    const now = state.pages.nrIommuPages();
    if (tables.blocks.size > 0 || tables.othersFreed || now === pagesBefore) return;
    log.report('counter', {
      kind: 'leak',
      what: `nr_iommu_pages is ${now} after the driver has released its unit, it was ${pagesBefore} before it began`,
      hint: 'count every block once when it is allocated and once when it is freed',
      addresses: {},
      freedBy: log.event,
    });
  };

  let released = false;
  shadow(driver, 'release', (original) => {
    const run = (): void => {
      log.begin('release()', run);
      try {
        original();
        if (released) return;
        released = true;
        for (const block of tables.blocks.values()) {
          if (!block.ofDriver || block.leaving !== null) continue;
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
        checkCounter();
      } finally {
        log.end();
      }
    };
    return run;
  });
};

const requesterText = (requester: number): string => (Number.isInteger(requester) ? hex(requester) : String(requester));
