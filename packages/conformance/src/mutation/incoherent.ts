/** Bugs of drivers whose unit does not snoop the CPU's caches: bytes that were written and not flushed. */
import type { PagingDomain } from '@iommu-ts/iommu-core';
import type { MutationRig } from './rig.ts';
import { move, remap, tables } from './scenarios.ts';
import type { Mutation, Scenario } from './types.ts';

type Flush = (pfn: number, byteOffset: number, bytes: number) => void;

/** Puts something in place of the flush of table bytes. */
const changeFlush = (domain: PagingDomain, change: (flush: Flush) => Flush): void => {
  const table = domain.table as { flush: Flush | null };
  if (table.flush !== null) table.flush = change(table.flush);
};

/** Runs `run`, in which nothing is written back but commands. */
const unflushed = <T>(rig: MutationRig, run: () => T): T => {
  const { pages } = rig.system;
  const { ringPfn } = rig.port;
  const flush = pages.flushIncoherent;
  pages.flushIncoherent = (pfn, offset, length) => {
    if (pfn === ringPfn) flush.call(pages, pfn, offset, length);
  };
  try {
    return run();
  } finally {
    pages.flushIncoherent = flush;
  }
};

const mutation = (
  name: string,
  bug: string,
  scenario: Scenario,
  how: Pick<Mutation, 'system' | 'domain'>,
): Mutation => ({
  name,
  bug,
  scenario,
  check: 'incoherent',
  hint: /flushIncoherent\(/,
  options: { incoherentWalker: true },
  ...how,
});

/** For drivers with a unit that does not snoop (VT-d with ECAP.C=0, SMMU with IDR0.COHACC=0). */
export const incoherentMutations: readonly Mutation[] = [
  mutation('entries-not-flushed', 'map writes entries and never flushes them', remap, {
    domain: (domain) => changeFlush(domain, () => () => {}),
  }),
  mutation('one-entry-flushed', 'of a run of entries only the line of the first is flushed', tables, {
    domain: (domain) => changeFlush(domain, (flush) => (pfn, offset) => flush(pfn, offset, 8)),
  }),
  mutation('cleared-entries-not-flushed', 'unmap clears the entries, invalidates, and does not flush them', remap, {
    domain: (domain, rig) => {
      const unmap = domain.unmap.bind(domain);
      domain.unmap = (iova, size, released) => unflushed(rig, () => unmap(iova, size, released));
    },
  }),
  mutation('new-tables-not-flushed', 'a new table is zeroed, and the zeroes are not flushed', tables, {
    system: (rig) => {
      const { pages } = rig.system;
      const flush = pages.flushIncoherent.bind(pages);
      const granule = Number(rig.granule);
      pages.flushIncoherent = (pfn, offset, length) => {
        if (length < granule) flush(pfn, offset, length);
      };
      const start = pages.startIncoherent.bind(pages);
      pages.startIncoherent = (pfn) => unflushed(rig, () => start(pfn));
    },
  }),
  mutation('structures-not-flushed', 'attach rewrites the structures of a device and does not flush them', move, {
    system: (rig) => {
      const attach = rig.driver.attach.bind(rig.driver);
      rig.driver.attach = (requester, domain) => unflushed(rig, () => attach(requester, domain));
    },
  }),
];
