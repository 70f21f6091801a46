/**
 * Bugs that are the same whatever the commands are called: made above the registers, in what a driver does with an unmap,
 * a free list, a flush queue, a domain that goes, or in what the user of a driver does with its buffers.
 */
import type { PagingDomain, PagingDomainOps } from '@iommu-ts/iommu-core';
import type { GatherRecord } from '@iommu-ts/page-table';
import type { MutationRig } from './rig.ts';
import { block, detach, lazy, remap, tables } from './scenarios.ts';
import type { Mutation } from './types.ts';

/** Replaces operations of a domain. Drivers share one object of operations between domains: each is changed once. */
export const changeOps = (
  domain: PagingDomain,
  change: (ops: PagingDomainOps) => Partial<Record<keyof PagingDomainOps, unknown>>,
): void => {
  const { ops } = domain;
  if (changed.has(ops)) return;
  changed.add(ops);
  Object.assign(ops, change(ops));
};
const changed = new WeakSet<PagingDomainOps>();

/** `iotlbSync` with something done before (or in place of) it. */
const aroundSync =
  (around: (sync: () => void, gather: GatherRecord, rig: MutationRig) => void): NonNullable<Mutation['domain']> =>
  (domain, rig) =>
    changeOps(domain, (ops) => {
      const original = ops.iotlbSync.bind(ops);
      return {
        iotlbSync: (of: PagingDomain, gather: GatherRecord) => around(() => original(of, gather), gather, rig),
      };
    });

/** Nothing is invalidated. */
const silentSync = aroundSync((sync, _gather, rig) => rig.port.silently(sync));

/** `flushIotlbAll` invalidates nothing. */
const silentFlush: NonNullable<Mutation['domain']> = (domain, rig) =>
  changeOps(domain, (ops) => {
    const original = ops.flushIotlbAll.bind(ops);
    return { flushIotlbAll: (of: PagingDomain) => rig.port.silently(() => original(of)) };
  });

/** For every driver. */
export const commonMutations: readonly Mutation[] = [
  {
    name: 'unmap-without-sync',
    bug: 'unmap clears the entries and forgets to invalidate what is cached of them',
    scenario: remap,
    check: 'stale-translation',
    hint: 'leaf',
    domain: silentSync,
  },
  {
    name: 'lazy-never-flushed',
    bug: 'the flush queue releases its IOVAs without the flush of the domain',
    scenario: lazy,
    check: 'stale-translation',
    hint: 'leaf',
    domain: silentFlush,
  },
  {
    name: 'tables-of-domain-kept',
    bug: 'the domain goes, its tables stay allocated',
    scenario: remap,
    check: 'leak',
    hint: /freePages\(/,
    domain: (domain) => {
      domain.table.destroy = () => {};
    },
  },
  {
    name: 'mapped-twice',
    bug: 'the user maps a buffer at an IOVA that another buffer is mapped at',
    scenario: remap,
    check: 'misuse',
    hint: /unmap it first/,
    domain: (domain) => {
      const map = domain.map.bind(domain);
      domain.map = (iova, pa, size, prot) => {
        map(iova, pa, size, prot);
        try {
          map(iova, pa + 0x100_0000n, size, prot);
        } catch {
          // The engine refuses; the user does not look.
        }
      };
    },
  },
  {
    name: 'unmapped-twice',
    bug: 'the user unmaps a buffer a second time',
    scenario: remap,
    check: 'misuse',
    hint: /unmap what is mapped, once/,
    domain: (domain) => {
      const unmap = domain.unmap.bind(domain);
      domain.unmap = (iova, size, released) => {
        const bytes = unmap(iova, size, released);
        unmap(iova, size);
        return bytes;
      };
    },
  },
  {
    name: 'buffer-freed-while-mapped',
    bug: 'the pages of a buffer go back to the operating system before they are unmapped',
    scenario: remap,
    check: 'misuse',
    hint: /unmap iova .* before the page is freed/,
    system: (rig) => {
      rig.giveBack = (domain, iova, size, pa) => {
        rig.checks.dataFreed(pa, Number(size));
        domain.unmap(iova, size);
      };
    },
  },
  {
    name: 'tables-given-to-device',
    bug: 'the user maps memory for DMA in which the driver keeps its tables',
    scenario: remap,
    check: 'misuse',
    hint: /does not belong to the table allocator/,
    domain: (domain) => {
      const map = domain.map.bind(domain);
      domain.map = (iova, _pa, size, prot) => map(iova, domain.table.root, size, prot);
    },
  },
  {
    name: 'domain-never-freed',
    bug: 'the user takes its devices out and forgets the domain',
    scenario: remap,
    check: 'leak',
    hint: /free\(\) the domain/,
    domain: (domain) => {
      domain.free = () => {};
    },
  },
];

/** The driver goes, and something that it allocated for itself stays. */
const keepOnePage = (rig: MutationRig): void => {
  const { pages } = rig.system;
  const release = rig.driver.release.bind(rig.driver);
  rig.driver.release = () => {
    const free = pages.freePages;
    let kept = false;
    pages.freePages = (pfn) => {
      if (kept) free.call(pages, pfn);
      kept = true;
    };
    try {
      release();
    } finally {
      pages.freePages = free;
    }
  };
};

const putNow = (rig: MutationRig, gather: GatherRecord): void => {
  if (gather.freelist.empty) return;
  rig.system.pages.putPagesList(gather.freelist);
  gather.freelist.init();
};

/** For drivers with structures in memory, whose formats let tables go before the domain does (all but DART). */
export const tableMutations: readonly Mutation[] = [
  {
    name: 'tables-freed-before-sync',
    bug: 'the free list goes back to the allocator first, the invalidation is sent after',
    scenario: tables,
    check: 'freed-before-flush',
    hint: 'table',
    domain: aroundSync((sync, gather, rig) => {
      putNow(rig, gather);
      sync();
    }),
  },
  {
    name: 'tables-freed-when-queued',
    bug: 'lazy mode puts the IOVA in the flush queue and the table pages straight back to the allocator',
    scenario: lazy,
    check: 'freed-before-flush',
    hint: 'table',
    domain: (domain, rig) => {
      const queue = domain.flushQueue;
      if (queue === null) return;
      const add = queue.add.bind(queue);
      queue.add = (freelist, released = null) => {
        if (!freelist.empty) {
          rig.system.pages.putPagesList(freelist);
          freelist.init();
        }
        add(freelist, released);
      };
    },
  },
  {
    name: 'table-used-after-free',
    bug: 'tables that an unmap emptied are freed, and nothing at all is invalidated',
    scenario: tables,
    check: 'use-after-free',
    hint: 'table',
    domain: silentSync,
  },
  {
    name: 'table-written-after-free',
    bug: 'the driver clears an entry of a table that it has freed already',
    scenario: tables,
    check: 'use-after-free',
    hint: /write to the page before it is freed/,
    domain: aroundSync((sync, gather, rig) => {
      const { memory, pages } = rig.system;
      const [first] = pages.listPages(gather.freelist);
      sync();
      if (first === undefined) return;
      putNow(rig, gather);
      memory.writeU64(BigInt(first) << 12n, 0n);
    }),
  },
  {
    name: 'structures-kept-at-release',
    bug: 'the driver is released and keeps a page of its structures or queues',
    scenario: remap,
    check: 'leak',
    hint: /freePages\(/,
    system: keepOnePage,
  },
  {
    name: 'free-list-lost',
    bug: 'the invalidation is sent, the free list is initialised again without being put',
    scenario: tables,
    check: 'leak',
    hint: /freePages\(/,
    domain: aroundSync((sync, gather) => {
      sync();
      gather.freelist.init();
    }),
  },
];

/** For drivers that invalidate by range and only what was unmapped: DART flushes whole streams, and after maps too. */
export const rangeMutations: readonly Mutation[] = [
  {
    name: 'iova-released-before-flush',
    bug: 'lazy mode gives an IOVA back when it is queued, not when the flush is done',
    scenario: lazy,
    check: 'stale-translation',
    hint: /flush/,
    domain: (domain) => {
      const queue = domain.flushQueue;
      if (queue === null) return;
      const add = queue.add.bind(queue);
      queue.add = (freelist, released = null) => {
        add(freelist);
        released?.();
      };
    },
  },
  {
    name: 'first-page-only',
    bug: 'of the range that was unmapped only the first page is invalidated',
    scenario: remap,
    check: 'stale-translation',
    hint: 'leaf',
    domain: aroundSync((sync, gather) => {
      if (!gather.empty) gather.lastPfn = gather.startPfn;
      sync();
    }),
  },
  {
    name: 'block-without-flush',
    bug: 'a large page replaces an empty table, which is freed without an invalidation',
    scenario: block,
    check: 'freed-before-flush',
    hint: 'table',
    domain: aroundSync((sync, gather, rig) => {
      if (gather.leafLevels !== 0) sync();
      else rig.port.silently(sync);
    }),
  },
];

/** For drivers that send less when only leaves went (VT-d, Arm, RISC-V). */
export const leafHintMutations: readonly Mutation[] = [
  {
    name: 'tables-not-mentioned',
    bug: 'tables went with the unmap, the invalidation is the one for leaves only',
    scenario: tables,
    check: 'freed-before-flush',
    hint: 'table',
    domain: aroundSync((sync, gather) => {
      gather.tableLevels = 0;
      sync();
    }),
  },
];

/** For drivers that do not invalidate the domain when its last device leaves (AMD, Arm, DART). */
export const lateFlushMutations: readonly Mutation[] = [
  {
    name: 'freed-without-flush',
    bug: 'a domain is freed, and its id used again, without a flush of what is cached under the id',
    scenario: detach,
    check: 'freed-before-flush',
    hint: 'table',
    domain: silentFlush,
  },
];

/**
 * A device is detached, but its structure in memory stays as it was: what the driver stored for it while it attached the
 * device is stored again after the detach.
 * @param isStructure tells pages of structures from those of queues
 */
export const keepContextAtDetach =
  (isStructure: (rig: MutationRig, pfn: number) => boolean): NonNullable<Mutation['system']> =>
  (rig) => {
    const { memory, driver } = rig;
    /** Stores of the present call: where, and how to make them again. */
    type Log = { pfn: number; again: () => void }[];
    const stores = new Map<number, Log>();
    let current: Log | null = null;
    const store64 = memory.store64.bind(memory);
    memory.store64 = (hi, lo, valueHi, valueLo) => {
      const again = (): void => void store64(hi, lo, valueHi, valueLo);
      current?.push({ pfn: (hi >>> 0) * 0x10_0000 + (lo >>> 12), again });
      return store64(hi, lo, valueHi, valueLo);
    };
    const writeU64 = memory.writeU64.bind(memory);
    memory.writeU64 = (address, value) => {
      current?.push({ pfn: Number(address >> 12n), again: () => writeU64(address, value) });
      writeU64(address, value);
    };
    const attach = driver.attach.bind(driver);
    driver.attach = (requester, domain) => {
      current = [];
      stores.set(requester, current);
      try {
        attach(requester, domain);
      } finally {
        current = null;
      }
    };
    const detachNow = driver.detach.bind(driver);
    driver.detach = (requester) => {
      detachNow(requester);
      for (const { pfn, again } of stores.get(requester) ?? []) if (isStructure(rig, pfn)) again();
      stores.delete(requester);
    };
  };

/** The invalidation steps through the range with the stride of a larger page than was unmapped. */
export const strideOf = (sizeLg2: number): NonNullable<Mutation['domain']> =>
  aroundSync((sync, gather) => {
    if (gather.pgsizeLg2 !== 0) gather.pgsizeLg2 = sizeLg2;
    sync();
  });
