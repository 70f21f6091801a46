/** A domain whose tables go back after an RCU grace period, on the virtual clock. */
import { BuddySource, IommuPages, PhysicalMemory, Rcu } from '@iommu-ts/iommu-pages';
import { PROT, X86_64_4LEVEL } from '@iommu-ts/page-table';
import { expect, test } from 'vitest';
import { VirtualClock } from '../src/clock.ts';
import { PagingDomain } from '../src/domain.ts';
import type { DomainMode } from '../src/domain.ts';

const RW = PROT.READ | PROT.WRITE;
const MIB2 = 0x20_0000n;
const TICK = 1_000_000;

const setup = (mode: DomainMode) => {
  const memory = new PhysicalMemory([{ base: 0n, size: 0x1000_0000n }]);
  const clock = new VirtualClock();
  const pages = new IommuPages(memory, new BuddySource(memory), { rcu: new Rcu({ clock, tickNs: TICK }) });
  const log: string[] = [];
  const make = (id: number): PagingDomain =>
    new PagingDomain({
      pages,
      clock,
      mode,
      freeMode: 'rcu',
      flushQueue: { periodNs: 10 },
      id,
      table: { format: X86_64_4LEVEL, ias: 48, oas: 52 },
      ops: {
        iotlbSync: () => void log.push(`sync, ${pages.rcuPending} wait`),
        flushIotlbAll: () => void log.push(`flush, ${pages.rcuPending} wait`),
        release: () => void log.push('release'),
      },
    });
  return { pages, clock, log, make, domain: make(1) };
};

test('strict: after the invalidation, tables wait for a tick of the clock', () => {
  const { domain, pages, clock, log } = setup('strict');
  expect(domain.freeMode).toBe('rcu');
  domain.map(MIB2, 0x1234_0000n, MIB2, RW);
  domain.unmap(MIB2, MIB2);
  expect([log, pages.nrIommuPages(), pages.rcuPending]).toEqual([['sync, 0 wait'], 4, 1]);
  clock.advance(TICK - 1);
  expect(pages.nrIommuPages()).toBe(4);
  clock.advance(1);
  expect([pages.nrIommuPages(), pages.rcuPending]).toEqual([3, 0]);
});

test('lazy: first the flush, then the grace period', () => {
  const { domain, pages, clock, log } = setup('lazy');
  domain.map(MIB2, 0x1234_0000n, MIB2, RW);
  domain.unmap(MIB2, MIB2);
  expect([pages.rcuPending, log]).toEqual([0, []]);
  clock.advance(10);
  expect([log, pages.nrIommuPages(), pages.rcuPending]).toEqual([['flush, 0 wait'], 4, 1]);
  clock.advance(TICK);
  expect(pages.nrIommuPages()).toBe(3);
});

test('a dump holds the tables of a domain that is freed, and ends the grace period', () => {
  const { domain, make, pages, clock } = setup('strict');
  domain.map(MIB2, 0x1234_0000n, MIB2, RW);
  const dump = domain.table.leaves();
  const first = dump.next().value;
  domain.free();
  clock.advance(100 * TICK);
  expect([pages.nrIommuPages(), pages.rcuPending]).toEqual([4, 4]);
  // Another domain does not get the pages that are read.
  const other = make(2);
  other.map(0n, 0x7000_0000n, 4n * MIB2, RW);
  const rest = [...dump];
  expect([first, ...rest]).toHaveLength(512);
  expect(rest.every(({ pa }) => pa < 0x7000_0000n)).toBe(true);
  expect(pages.rcuPending).toBe(4);
  clock.advance(TICK);
  expect(pages.rcuPending).toBe(0);
  other.free();
  clock.advance(TICK);
  expect(pages.nrIommuPages()).toBe(0);
});
