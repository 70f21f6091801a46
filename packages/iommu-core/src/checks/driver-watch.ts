/** Watches the driver: domains come and go, devices are attached and detached, and at the end everything is given back. */
import { hex } from '@iommu-ts/bits';
import type { CreateDomainOptions, IommuDriver } from '../driver.ts';
import type { Domain, PagingDomain } from '../domain.ts';
import { DomainModel } from './domain-model.ts';
import type { DomainWatch, SyncObserver } from './domain-watch.ts';
import { leftByDriver, leftInCounter } from './leaks.ts';
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

  let released = false;
  shadow(driver, 'release', (original) => {
    const run = (): void => {
      log.begin('release()', run);
      try {
        original();
        if (released) return;
        released = true;
        leftByDriver(log, tables);
        leftInCounter(log, tables, state.pages.nrIommuPages(), pagesBefore);
      } finally {
        log.end();
      }
    };
    return run;
  });
};

const requesterText = (requester: number): string => (Number.isInteger(requester) ? hex(requester) : String(requester));
