import { GatherRecord, PROT } from '@iommu-ts/page-table';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { formatReport } from '../../src/checks/report-log.ts';
import type { CheckKind, CheckReport } from '../../src/checks/types.ts';
import type { PagingDomain } from '../../src/domain.ts';
import { createFake } from './fake.ts';

const RW = PROT.READ | PROT.WRITE;
const MIB2 = 0x20_0000n;
const ONE = Uint8Array.of(1);

const kinds = (reports: readonly CheckReport[]): CheckKind[] => reports.map((r) => r.kind);

/** A page is mapped, used, unmapped and used again; then a whole table comes and goes under it. */
const work = (system: ReturnType<typeof createFake>): PagingDomain => {
  const { driver, bus } = system;
  const domain = driver.createDomain();
  driver.attach(3, domain);
  const device = bus.device(3);
  domain.map(0x1000n, 0x10_0000n, 0x3000n, RW);
  device.write(0x2000n, ONE);
  domain.unmap(0x2000n, 0x1000n);
  device.write(0x2000n, ONE);
  domain.map(MIB2, 0x80_0000n, MIB2, RW);
  domain.unmap(MIB2, MIB2);
  domain.map(2n * MIB2, 0x90_1000n, MIB2, RW); // 512 entries
  device.write(2n * MIB2, ONE);
  domain.unmap(2n * MIB2, MIB2); // the lowest table goes
  device.write(2n * MIB2, ONE);
  return domain;
};

describe('a driver without mistakes', () => {
  test('is not reported, whatever it does', () => {
    const system = createFake();
    const domain = work(system);
    const { driver, checks, pages } = system;
    const second = driver.createDomain({ mode: 'lazy' });
    second.map(0x1000n, 0x10_0000n, 0x1000n, RW);
    driver.detach(3);
    driver.attach(3, second);
    system.bus.device(3).write(0x1000n, ONE);
    driver.detach(3);
    domain.free();
    second.free();
    driver.release();
    expect(checks.finish().map(formatReport)).toEqual([]);
    expect(checks.summary()).toMatchObject({ total: 0, suppressed: 0, lazyUses: 0 });
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('others may listen to the invalidations as well', () => {
    const system = createFake();
    const heard: string[] = [];
    system.hardware.onInvalidate = (event) => void heard.push(event.name);
    work(system);
    expect(heard.length).toBeGreaterThan(3);
    expect(system.checks.reports).toEqual([]);
  });

  test('lazy mode may answer from the cache until the flush, and that is counted', () => {
    const { driver, bus, checks, clock } = createFake();
    const domain = driver.createDomain({ mode: 'lazy' });
    driver.attach(3, domain);
    domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
    const device = bus.device(3);
    device.write(0x1000n, ONE);
    domain.unmap(0x1000n, 0x1000n);
    expect(device.write(0x1000n, ONE).ok).toBe(true);
    expect([checks.lazyUses, checks.reports.length]).toEqual([1, 0]);
    clock.advance(10_000_000);
    expect(device.write(0x1000n, ONE).ok).toBe(false);
    expect([checks.lazyUses, checks.reports.length]).toEqual([1, 0]);
  });

  test('an IOVA that is mapped again before the flush is a report, with the flush as the hint', () => {
    const { driver, bus, checks } = createFake();
    const domain = driver.createDomain({ mode: 'lazy' });
    driver.attach(3, domain);
    domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
    bus.device(3).write(0x1000n, ONE);
    domain.unmap(0x1000n, 0x1000n);
    domain.map(0x1000n, 0x20_0000n, 0x1000n, RW);
    bus.device(3).write(0x1000n, ONE);
    expect(checks.reports).toMatchObject([
      {
        kind: 'stale-translation',
        addresses: { iova: 0x1000n, cached: 0x10_0000n, fresh: 0x20_0000n },
        hint: expect.stringContaining('released') as unknown,
      },
    ]);
  });

  test('several unmaps under one gather may wait for its sync', () => {
    const { driver, bus, checks } = createFake();
    const domain = driver.createDomain();
    driver.attach(3, domain);
    domain.map(0x1000n, 0x10_0000n, 0x2000n, RW);
    bus.device(3).write(0x1000n, ONE);
    const gather = new GatherRecord();
    domain.unmapGather(0x1000n, 0x1000n, gather);
    bus.device(3).write(0x1000n, ONE);
    expect([checks.lazyUses, checks.reports.length]).toEqual([1, 0]);
    domain.iotlbSync(gather);
    expect(bus.device(3).write(0x1000n, ONE).ok).toBe(false);
    expect(checks.reports).toEqual([]);
  });

  test('a gather that another domain has synced, or that was reset, holds nothing any more', () => {
    for (const forget of ['other domain', 'reset']) {
      const { driver, bus, checks } = createFake();
      const domain = driver.createDomain();
      const other = driver.createDomain();
      driver.attach(3, domain);
      domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
      bus.device(3).write(0x1000n, ONE);
      const gather = new GatherRecord();
      domain.unmapGather(0x1000n, 0x1000n, gather);
      if (forget === 'reset') gather.reset();
      else other.iotlbSync(gather);
      bus.device(3).write(0x1000n, ONE);
      expect(checks.reports, forget).toMatchObject([{ kind: 'stale-translation', addresses: { iova: 0x1000n } }]);
      expect(checks.reports[0]!.hint).toMatch(/^INV_LEAF, for iova 0x1000 of domain 1/);
    }
  });

  test('after a flush nothing waits any more, whichever domain it was made for', () => {
    const { driver, bus, checks } = createFake();
    const other = driver.createDomain();
    const domain = driver.createDomain({ mode: 'lazy' });
    driver.attach(3, domain);
    domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
    bus.device(3).write(0x1000n, ONE);
    domain.unmap(0x1000n, 0x1000n);
    const { ops } = domain;
    const { flushIotlbAll } = ops;
    ops.flushIotlbAll = () => flushIotlbAll(other);
    domain.flush();
    bus.device(3).write(0x1000n, ONE);
    expect([checks.lazyUses, kinds(checks.reports)]).toEqual([0, ['stale-translation']]);
    expect(checks.reports[0]!.hint).toMatch(/^INV_LEAF/);
  });

  test('what a released callback unmaps waits for the next flush', () => {
    const { driver, bus, checks } = createFake();
    const domain = driver.createDomain({ mode: 'lazy', flushQueue: { entries: 2 } });
    driver.attach(3, domain);
    domain.map(0x1000n, 0x10_0000n, 0x3000n, RW);
    bus.device(3).write(0x2000n, ONE);
    domain.flush();
    domain.unmap(0x1000n, 0x1000n);
    const again = (): void => {
      bus.device(3).write(0x2000n, ONE);
      domain.unmap(0x2000n, 0x1000n);
    };
    domain.unmap(0x3000n, 0x1000n, again);
    expect(bus.device(3).write(0x2000n, ONE).ok).toBe(true);
    expect([checks.lazyUses, checks.reports.length]).toEqual([1, 0]);
    domain.flush();
    expect(bus.device(3).write(0x2000n, ONE).ok).toBe(false);
    expect(checks.reports).toEqual([]);
  });

  test('an IOVA that is mapped again before its gather is synced: the sync is the hint', () => {
    const { driver, bus, checks } = createFake();
    const domain = driver.createDomain();
    driver.attach(3, domain);
    domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
    bus.device(3).write(0x1000n, ONE);
    domain.unmapGather(0x1000n, 0x1000n, new GatherRecord());
    domain.map(0x1000n, 0x20_0000n, 0x1000n, RW);
    bus.device(3).write(0x1000n, ONE);
    expect(checks.reports).toMatchObject([{ kind: 'stale-translation' }]);
    expect(checks.reports[0]!.hint).toMatch(/^iotlbSync\(\) of the gather/);
  });
});

describe('stale translations', () => {
  test('a sync that sends nothing: the final translation, with the events and the command', () => {
    const system = createFake({ checks: { callSites: true } }, { noSync: true });
    work(system);
    const [first] = system.checks.reports;
    expect(first).toMatchObject({
      kind: 'stale-translation',
      what: 'the write of device 0x3 at iova 0x2000 went to 0x101000 through a cached final translation, but memory says no (code 0x2)',
      addresses: { iova: 0x2000n, cached: 0x10_1000n },
      mappedBy: { what: 'map(iova 0x1000, pa 0x100000, size 0x3000) in domain 1', operation: 3 },
      unmappedBy: { what: 'unmap(iova 0x2000, size 0x1000) in domain 1', operation: 4 },
    });
    expect(first!.hint).toMatch(/^INV_LEAF, for iova 0x2000 of domain 1/);
    expect(first!.mappedBy!.callSite).toContain('checks.test.ts');
    expect(formatReport(first!)).toContain('needed: INV_LEAF');
  });

  test('no wait after the commands: the completion is the hint', () => {
    const system = createFake({}, { noWait: true });
    work(system);
    expect(system.checks.reports[0]).toMatchObject({ kind: 'stale-translation' });
    expect(system.checks.reports[0]!.hint).toMatch(/^STATUS: wait until the \d+ invalidation/);
  });

  test('the wrong domain', () => {
    const system = createFake({}, { otherDomain: true });
    work(system);
    expect(system.checks.reports[0]).toMatchObject({ kind: 'stale-translation' });
  });

  test('a device moved without invalidating its structures: the context', () => {
    const { driver, bus, checks, mistakes } = createFake();
    const [one, two] = [driver.createDomain(), driver.createDomain()];
    one.map(0x1000n, 0x10_0000n, 0x1000n, RW);
    two.map(0x1000n, 0x20_0000n, 0x1000n, RW);
    driver.attach(3, one);
    bus.device(3).write(0x1000n, ONE);
    mistakes.noContext = true;
    driver.attach(3, two);
    bus.device(3).write(0x1000n, ONE);
    expect(checks.reports).toMatchObject([
      {
        kind: 'stale-translation',
        addresses: { cached: 0x10_0000n, fresh: 0x20_0000n },
        hint: expect.stringMatching(/^INV_CONTEXT, for device 0x3/) as unknown,
      },
    ]);
  });

  test('a device refused because of stale structures', () => {
    const { driver, bus, checks, mistakes, hardware } = createFake();
    const domain = driver.createDomain();
    domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
    driver.attach(3, domain);
    hardware.contexts.set(3, { root: 0, tag: 0 }); // what a device may keep that was never told
    mistakes.noContext = true;
    expect(bus.device(3).write(0x1000n, ONE).ok).toBe(false);
    expect(checks.reports).toMatchObject([
      {
        kind: 'stale-translation',
        addresses: { fresh: 0x10_0000n },
        hint: expect.stringMatching(/^INV_CONTEXT/) as unknown,
      },
    ]);
    expect(checks.reports[0]!.what).toContain('was refused (code 0x2)');
  });
});

describe('table pages', () => {
  test('a leaf-only invalidation for a table: freed before flush, then a table entry used after its page was freed', () => {
    const system = createFake({}, { leafOnly: true });
    work(system);
    expect(kinds(system.checks.reports)).toEqual(['freed-before-flush', 'use-after-free']);
    const [early, used] = system.checks.reports;
    expect(early).toMatchObject({
      addresses: { iova: 0x40_0000n, last: 0x5f_ffffn },
      freedBy: { what: 'unmap(iova 0x400000, size 0x200000) in domain 1' },
      hint: expect.stringMatching(/^INV_TABLE/) as unknown,
    });
    expect(used!.what).toMatch(
      /: the device reads page 0x[0-9a-f]+ through a cached entry, and the page has been freed/,
    );
    expect(used!.hint).toMatch(/^INV_TABLE/);
    expect(used!.addresses['page']).toBe(early!.addresses['page']);
    expect(used).toMatchObject({ freedBy: { what: 'unmap(iova 0x400000, size 0x200000) in domain 1' } });
  });

  test('a free list put before the sync', () => {
    const { driver, bus, checks, pages } = createFake();
    const domain = driver.createDomain();
    driver.attach(3, domain);
    domain.map(MIB2, 0x90_1000n, MIB2, RW);
    bus.device(3).write(MIB2, ONE);
    const gather = new GatherRecord();
    domain.unmapGather(MIB2, MIB2, gather);
    pages.putPagesList(gather.freelist);
    gather.freelist.init();
    domain.iotlbSync(gather);
    expect(checks.reports).toMatchObject([
      {
        kind: 'freed-before-flush',
        addresses: { iova: MIB2 },
        unmappedBy: { what: 'unmapGather(iova 0x200000, size 0x200000) in domain 1' },
        freedBy: { what: 'putPagesList() of 1 block(s)', operation: 5 },
      },
    ]);
  });

  test('a domain freed without a flush, after it had a device', () => {
    const system = createFake({}, {});
    const domain = work(system);
    system.mistakes.noFlushAll = true;
    system.driver.detach(3);
    domain.free();
    const found = system.checks.reports;
    expect(new Set(kinds(found))).toEqual(new Set(['freed-before-flush']));
    expect(found).toHaveLength(4); // the path to 0x1000, from the top down
  });

  test('nobody attached: nothing can be cached, so nothing is reported', () => {
    const { driver, checks } = createFake({}, { noSync: true, noFlushAll: true });
    const domain = driver.createDomain();
    domain.map(MIB2, 0x90_1000n, MIB2, RW);
    domain.unmap(MIB2, MIB2);
    domain.free();
    expect(checks.reports).toEqual([]);
  });

  test('the CPU writes to a page after it was freed', () => {
    const { driver, checks, memory } = createFake();
    const domain = driver.createDomain();
    const root = domain.table.root;
    domain.free();
    memory.writeU64(root + 0x18n, 1n);
    checks.finish();
    expect(checks.reports).toMatchObject([
      {
        kind: 'use-after-free',
        addresses: { page: root, written: root + 0x18n },
        freedBy: { what: 'free() of domain 1' },
      },
    ]);
  });

  test('an entry that still points to a freed page', () => {
    const { driver, bus, checks, pages } = createFake();
    const domain = driver.createDomain();
    driver.attach(3, domain);
    domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
    bus.device(3).write(0x1000n, ONE);
    const lowest = domain.table.walk(0x1000n).steps.at(-1)!.tablePa;
    pages.freePages(Number(lowest >> 12n));
    bus.device(3).write(0x1000n, ONE);
    expect(kinds(checks.reports)).toEqual(['freed-before-flush', 'use-after-free']);
    expect(checks.reports[1]!.what).toContain('an entry in memory still leads to page');
  });

  test('tables freed after a grace period belong to nobody meanwhile', () => {
    const free = (flush: boolean) => {
      const { driver, bus, checks, pages } = createFake();
      const domain = driver.createDomain();
      driver.attach(3, domain);
      domain.map(MIB2, 0x90_1000n, MIB2, RW);
      bus.device(3).write(MIB2, ONE);
      const gather = new GatherRecord();
      domain.unmapGather(MIB2, MIB2, gather);
      if (flush) domain.ops.iotlbSync(domain, gather);
      const [page] = pages.listPages(gather.freelist);
      const reading = pages.rcu.readLock();
      pages.putPagesListRcu(gather.freelist);
      gather.freelist.init();
      driver.detach(3);
      domain.free(); // the page is still allocated, and not lost
      driver.release();
      const early = [...checks.reports];
      pages.rcu.readUnlock(reading);
      pages.rcu.run();
      expect(pages.sizeOf(page!)).toBe(0);
      expect(checks.finish()).toEqual(early);
      return early;
    };
    expect(free(true)).toEqual([]);
    expect(free(false)).toMatchObject([
      { kind: 'freed-before-flush', freedBy: { what: 'putPagesListRcu() of 1 block(s)' } },
    ]);
  });

  test('a source that refuses on purpose is not asked until it gives', () => {
    let asked = 0;
    const memory = new PhysicalMemory([{ base: 0n, size: 0x10_0000n }]);
    const buddy = new BuddySource(memory);
    const below = {
      alloc: (node: number, size: number) => (asked++ === 3 ? -1 : buddy.alloc(node, size)),
      free: (pfn: number, size: number) => buddy.free(pfn, size),
      nodeOf: () => 0,
    };
    const free = buddy.freePages();
    const other = createFake({ memory, pages: new IommuPages(memory, below) });
    other.driver.createDomain().free(); // device table, its page, its top table
    expect(() => other.driver.createDomain()).toThrow('no page');
    expect(buddy.freePages()).toBe(free - 3); // the device table, and two pages in quarantine
    expect(other.checks.finish()).toEqual([]);
  });

  test('tables that are parts of a page', () => {
    const parts = (mistakes: Parameters<typeof createFake>[1]) => {
      const memory = new PhysicalMemory([{ base: 0n, size: 0x1000_0000n }]);
      const source = new BuddySource(memory, [{ base: 0x800_0000n, size: 0x800_0000n }]);
      const pages = new IommuPages(memory, source, { cpuPageSize: 65_536, subPage: true });
      return createFake({ memory, pages, bbm: true }, mistakes);
    };
    const good = parts({});
    const [one, two] = [work(good), good.driver.createDomain()];
    two.map(0x1000n, 0x10_0000n, 0x1000n, RW);
    good.driver.detach(3);
    one.free(); // the other's tables lie beside it
    two.free();
    good.driver.release();
    expect(good.checks.finish().map(formatReport)).toEqual([]);
    expect(good.pages.nrIommuPages()).toBe(0);

    const bad = parts({ leafOnly: true });
    work(bad);
    expect(kinds(bad.checks.reports)).toContain('freed-before-flush');
    const leaking = parts({ leakDomainPage: true });
    leaking.driver.createDomain().free();
    expect(kinds(leaking.checks.reports)).toEqual(['leak']);
  });

  test('an exhausted source gets its oldest pages back from the quarantine', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 0x10_0000n }]);
    const pages = new IommuPages(memory, new BuddySource(memory, [{ base: 0n, size: 0x1_0000n }]));
    const { checks, driver } = createFake({ memory, pages });
    for (let i = 0; i < 50; i++) driver.createDomain().free();
    expect(checks.finish()).toEqual([]);
  });
});

describe('over-invalidation', () => {
  const two = (mistakes: Parameters<typeof createFake>[1]) => {
    const system = createFake({}, mistakes);
    const { driver, bus } = system;
    const [one, other] = [driver.createDomain(), driver.createDomain()];
    driver.attach(1, one);
    driver.attach(2, other);
    one.map(0x1000n, 0x10_0000n, 0x2000n, RW);
    other.map(0x1000n, 0x20_0000n, 0x2000n, RW);
    for (const device of [1, 2]) bus.device(device).write(0x1000n, ONE);
    return { ...system, one, other };
  };

  test('a table of commands: what they dropped, and what was still true', () => {
    const { one, checks, bus } = two({});
    bus.device(1).write(0x2000n, ONE);
    one.unmap(0x1000n, 0x1000n);
    expect(checks.invalidationTable()).toContainEqual({ command: 'INV_PAGES', sent: 1, dropped: 1, stillTrue: 0 });
    expect(checks.operationTable()).toContainEqual({ operation: 'iotlbSync()', calls: 1, sent: 1, minimum: 1 });
    one.ops.flushIotlbAll(one);
    expect(checks.invalidationTable()).toContainEqual({ command: 'INV_ALL', sent: 1, dropped: 1, stillTrue: 1 });
    expect(checks.operationTable()).toContainEqual({ operation: 'flushIotlbAll()', calls: 1, sent: 1, minimum: 0 });
    expect(checks.reports).toEqual([]);
  });

  test('a sync that drops the translations of others', () => {
    const { one, checks } = two({ global: true });
    one.unmap(0x1000n, 0x1000n);
    expect(checks.reports).toMatchObject([{ kind: 'over-invalidation', addresses: { iova: 0x1000n } }]);
    expect(checks.reports[0]!.what).toContain('sent for domain 1, dropped translations of domain 2');
  });

  test('a sync made for another domain', () => {
    const { one, other, checks } = two({});
    const { iotlbSync } = one.ops;
    one.ops.iotlbSync = (_domain, gather) => iotlbSync(other, gather);
    one.unmap(0x1000n, 0x1000n);
    expect(checks.reports[0]!.what).toContain('sent for domain 1, dropped translations of domain 2');
  });

  test('a sync of everything, when nobody else is hurt', () => {
    const { one, other, checks } = two({ global: true });
    other.unmap(0x1000n, 0x2000n);
    expect(checks.reports).toHaveLength(1); // it dropped domain 1's
    one.unmap(0x2000n, 0x1000n);
    expect(checks.reports).toHaveLength(2);
    expect(checks.reports[1]!.what).toContain('drops all translations of the unit');
  });
});

describe('leaks', () => {
  test('a page of a domain that was freed', () => {
    const { driver, checks } = createFake({}, { leakDomainPage: true });
    driver.createDomain().free();
    expect(checks.reports).toMatchObject([{ kind: 'leak', freedBy: { what: 'free() of domain 1' } }]);
    expect(checks.reports[0]!.what).toContain('still allocated after the domain was freed');
  });

  test('a page of the driver after release', () => {
    const { driver, checks } = createFake({}, { leakDeviceTable: true });
    driver.release();
    expect(checks.reports).toMatchObject([{ kind: 'leak', freedBy: { what: 'release()' } }]);
  });

  test('counters that are not back', () => {
    const { driver, checks, pages } = createFake();
    pages.counters.charge(0, 0, 1);
    driver.release();
    expect(checks.reports).toMatchObject([{ kind: 'leak' }]);
    expect(checks.reports[0]!.what).toContain('nr_iommu_pages is 1 after the driver has released its unit, it was 0');
  });

  test('domains that were never freed, and with teardown "mappings" those that were freed with mappings', () => {
    const { driver, checks } = createFake({ checks: { teardown: 'mappings' } });
    const domain = driver.createDomain();
    domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
    checks.finish();
    expect(checks.reports).toMatchObject([{ kind: 'leak', addresses: { iova: 0x1000n, pa: 0x10_0000n } }]);
    domain.free();
    expect(checks.reports).toHaveLength(2);
    expect(checks.reports[1]!.what).toBe('domain 1 was freed with 1 run(s) of pages still mapped, the first at 0x1000');
  });
});

describe('misuse', () => {
  const mapped = () => {
    const system = createFake();
    const domain = system.driver.createDomain();
    domain.map(0x1000n, 0x10_0000n, 0x4000n, RW);
    return { ...system, domain };
  };

  test('a map over a mapping, refused or not', () => {
    const { domain, checks } = mapped();
    expect(() => domain.map(0x3000n, 0x20_0000n, 0x1000n, RW)).toThrow(expect.objectContaining({ code: 'EADDRINUSE' }));
    expect(checks.reports).toMatchObject([
      { kind: 'misuse', addresses: { iova: 0x3000n, pa: 0x10_2000n }, mappedBy: { operation: 2 } },
    ]);
    expect(checks.reports[0]!.what).toContain('refused with errno -98');
  });

  test('an unmap of what is not mapped, twice, or across the middle of a page', () => {
    const { domain, checks } = mapped();
    domain.unmap(0x8000n, 0x1000n);
    domain.unmap(0x2000n, 0x1000n);
    domain.unmap(0x2000n, 0x1000n);
    domain.map(MIB2, 0x40_0000n, MIB2, RW);
    domain.unmap(MIB2, 0x1000n); // generic_pt takes the leaf whole
    expect(checks.reports.map((r) => [r.kind, r.addresses['iova']])).toEqual([
      ['misuse', 0x8000n],
      ['misuse', 0x2000n],
      ['misuse', MIB2],
    ]);
    expect(checks.reports[1]!.unmappedBy).toMatchObject({ operation: 4 });
    expect(checks.reports[2]!.what).toContain('ends in the middle of a page: 0x200000 bytes went');
  });

  test('what is done on purpose is counted, not kept, and only as long as it is on purpose', () => {
    const { domain, checks } = mapped();
    expect(checks.onPurpose('misuse', () => void domain.unmap(0x8000n, 0x1000n))).toBe(1);
    expect(checks.onPurpose('leak', () => void domain.unmap(0x9000n, 0x1000n))).toBe(0);
    domain.unmap(0xa000n, 0x1000n);
    expect(checks.reports.map((r) => r.addresses['iova'])).toEqual([0x9000n, 0xa000n]);
  });

  test('a domain that was freed has no mappings that a map could overlap', () => {
    const { domain, checks } = mapped();
    domain.free();
    expect(() => domain.map(0x1000n, 0x20_0000n, 0x1000n, RW)).toThrow(expect.objectContaining({ code: 'ENODEV' }));
    expect(domain.mapWords(0, 0x1000, 0, 0x20_0000, 0x1000, RW)).toBe(-34);
    expect(checks.reports).toEqual([]);
  });

  test('data that is freed while it is mapped', () => {
    const { domain, checks } = mapped();
    checks.dataFreed(0x20_0000n, 0x1000);
    expect(checks.reports).toEqual([]);
    checks.dataFreed(0x10_1000n, 0x1000);
    expect(checks.reports).toMatchObject([{ kind: 'misuse', addresses: { iova: 0x2000n, page: 0x10_1000n } }]);
    domain.unmap(0x1000n, 0x4000n);
    checks.dataFreed(0x10_0000n, 0x4000);
    expect(checks.reports).toHaveLength(1);
  });

  test('a page of the table allocator as a target of DMA', () => {
    const { domain, checks } = mapped();
    domain.map(0x10_0000n, domain.table.root, 0x1000n, RW);
    expect(checks.reports).toMatchObject([
      { kind: 'misuse', addresses: { iova: 0x10_0000n, page: domain.table.root } },
    ]);
  });
});

describe('break-before-make', () => {
  const attached = (options = {}, mistakes = {}) => {
    const system = createFake({ bbm: true, ...options }, mistakes);
    const domain = system.driver.createDomain();
    system.driver.attach(3, domain);
    domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
    return { ...system, domain };
  };

  test('unmapped, invalidated, mapped elsewhere: as it should be', () => {
    const { domain, checks } = attached();
    domain.unmap(0x1000n, 0x1000n);
    domain.map(0x1000n, 0x20_0000n, 0x1000n, RW);
    domain.map(MIB2, 0x80_0000n, MIB2, RW);
    domain.unmap(MIB2, MIB2);
    domain.map(MIB2, 0x80_1000n, MIB2, RW);
    expect(checks.reports).toEqual([]);
  });

  test('valid again before the invalidation', () => {
    const { domain, checks } = attached({}, { noSync: true });
    domain.unmap(0x1000n, 0x1000n);
    domain.map(0x1000n, 0x20_0000n, 0x1000n, RW);
    expect(kinds(checks.reports)).toEqual(['break-before-make']);
    expect(checks.reports[0]).toMatchObject({
      addresses: { iova: 0x1000n },
      unmappedBy: { what: 'unmap(iova 0x1000, size 0x1000) in domain 1' },
      mappedBy: { what: 'map(iova 0x1000, pa 0x200000, size 0x1000) in domain 1' },
    });
    expect(checks.reports[0]!.hint).toMatch(/^INV_LEAF/);
  });

  test('never invalid in between', () => {
    const { domain, checks, memory, mistakes } = attached({ incoherentWalker: true });
    const { entryPa, entry } = domain.table.walk(0x2000n).steps[2]!;
    mistakes.whileWriting = () => memory.writeU64(entryPa, entry ^ 0x1000n);
    domain.map(0x2000n, 0x10_1000n, 0x1000n, RW);
    expect(checks.reports).toMatchObject([
      { kind: 'break-before-make', addresses: { entry: entryPa, old: entry, new: entry ^ 0x1000n } },
    ]);
    expect(checks.reports[0]!.what).toContain('without having been invalid in between');
  });
});

describe('incoherent walker', () => {
  test('a driver that flushes what it writes', () => {
    const system = createFake({ incoherentWalker: true });
    const domain = work(system);
    expect(system.bus.device(3).write(0x1000n, ONE).ok).toBe(true);
    system.driver.detach(3);
    domain.free();
    system.driver.release();
    expect(system.checks.finish().map(formatReport)).toEqual([]);
    expect(system.checks.flushTable()).toContainEqual(expect.objectContaining({ operation: 'map()' }));
  });

  test('a table entry that was not flushed is not seen, and named', () => {
    const { driver, bus, checks, mistakes } = createFake({ incoherentWalker: true });
    const domain = driver.createDomain();
    driver.attach(3, domain);
    domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
    mistakes.noTableFlush = true;
    domain.map(0x2000n, 0x10_1000n, 0x1000n, RW);
    expect(bus.device(3).write(0x1000n, ONE).ok).toBe(true); // its line had been flushed
    expect(bus.device(3).write(0x2000n, ONE).ok).toBe(false);
    const { entryPa, entry } = domain.table.walk(0x2000n).steps.at(-1)!;
    expect(checks.reports).toMatchObject([
      { kind: 'incoherent', addresses: { entry: entryPa, iova: 0x2000n, written: entry, seen: 0n } },
    ]);
    expect(checks.reports[0]!.hint).toContain(`flushIncoherent(0x${(entryPa >> 12n).toString(16)}, 0x10, 8)`);
  });

  test('an unmap that was not flushed: the walker still finds the page', () => {
    const { driver, bus, checks, mistakes } = createFake({ incoherentWalker: true });
    const domain = driver.createDomain();
    driver.attach(3, domain);
    domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
    mistakes.noTableFlush = true;
    domain.unmap(0x1000n, 0x1000n);
    expect(bus.device(3).write(0x1000n, ONE).ok).toBe(true);
    expect(checks.reports).toMatchObject([{ kind: 'incoherent', addresses: { iova: 0x1000n, written: 0n } }]);
  });

  test('zeroes of a new table that stayed in the cache', () => {
    const { driver, bus, checks, mistakes } = createFake({ incoherentWalker: true });
    mistakes.noTableFlush = true;
    const domain = driver.createDomain();
    mistakes.noTableFlush = false;
    driver.attach(3, domain);
    bus.device(3).write(0x1000n, ONE);
    expect(checks.reports).toMatchObject([
      { kind: 'incoherent', addresses: { entry: domain.table.root, written: 0n } },
    ]);
  });

  test('a device-table entry that was not flushed', () => {
    const { driver, bus, checks, mistakes } = createFake({ incoherentWalker: true });
    const domain = driver.createDomain();
    domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
    mistakes.noStructureFlush = true;
    driver.attach(3, domain);
    bus.device(3).write(0x1000n, ONE);
    expect(checks.reports).toMatchObject([{ kind: 'incoherent', addresses: { seen: 0n } }]);
    expect(checks.reports[0]!.hint).toContain(', 0x18, 8)');
  });

  test('flushes of lines that the device had already are counted', () => {
    const { driver, checks, pages } = createFake({ incoherentWalker: true });
    const domain = driver.createDomain();
    const before = checks.flushTable().reduce((sum, row) => sum + row.notNeeded, 0);
    pages.flushIncoherent(domain.table.rootPfn, 0x40, 0x80);
    const after = checks.flushTable().reduce((sum, row) => sum + row.notNeeded, 0);
    expect(after - before).toBe(2);
  });
});

describe('reports', () => {
  test('only the kinds that were asked for, bounded in number, counted all the same', () => {
    const told: CheckReport[] = [];
    const options = { kinds: ['misuse'] as const, maxReports: 2, onReport: (r: CheckReport) => void told.push(r) };
    const { driver, checks } = createFake({ checks: options }, { leakDomainPage: true });
    const domain = driver.createDomain();
    for (let i = 0; i < 5; i++) domain.unmap(0x1000n, 0x1000n);
    domain.free();
    expect(checks.reports).toHaveLength(2);
    expect(told).toEqual(checks.reports);
    expect(checks.summary()).toMatchObject({ total: 5, suppressed: 3, reports: { misuse: 5, leak: 0 } });
  });

  test('what onReport throws comes out at the end of the operation, and nothing is left half done', () => {
    const onReport = (report: CheckReport): void => {
      throw new Error(report.kind);
    };
    const { driver, bus, checks, pages } = createFake({ checks: { onReport } });
    const domain = driver.createDomain();
    driver.attach(3, domain);
    const device = bus.device(3);
    domain.map(MIB2, 0x10_1000n, MIB2, RW); // 512 entries, one table
    device.write(MIB2, ONE);
    expect(() => domain.unmap(MIB2, 2n * MIB2)).toThrow('misuse');
    // The unmap has been synced, its table is free.
    expect(device.write(MIB2, ONE).ok).toBe(false);
    domain.map(MIB2, 0x10_1000n, MIB2, RW);
    device.write(MIB2, ONE);
    const gather = new GatherRecord();
    domain.unmapGather(MIB2, MIB2, gather);
    expect(() => pages.putPagesList(gather.freelist)).toThrow('freed-before-flush');
    gather.freelist.init();
    expect(() => device.write(MIB2 + 0x1000n, ONE)).toThrow('use-after-free');
    domain.iotlbSync(gather);
    expect(device.write(MIB2, ONE).ok).toBe(false);
    driver.detach(3);
    domain.free();
    driver.release();
    expect(checks.finish().map(({ kind }) => kind)).toEqual(['misuse', 'freed-before-flush', 'use-after-free']);
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('a freed page that was written to leaves the quarantine all the same when onReport throws', () => {
    const onReport = (report: CheckReport): void => {
      throw new Error(report.kind);
    };
    const { checks, pages, memory } = createFake({ checks: { onReport, quarantinePages: 1 } });
    const [first, second] = [pages.allocPagesSz(4096), pages.allocPagesSz(4096)];
    pages.freePages(first);
    memory.writeU64(BigInt(first) << 12n, 1n);
    expect(() => pages.freePages(second)).toThrow('use-after-free');
    expect(() => checks.finish()).not.toThrow();
    expect(checks.reports).toHaveLength(1);
  });

  test('formatted for people', () => {
    expect(
      formatReport({
        kind: 'leak',
        what: 'page 0x1000 is left',
        hint: 'free it',
        operation: 4,
        timeNs: 10,
        addresses: { page: 0x1000n, iova: 0x20n },
        mappedBy: { what: 'map(…)', operation: 2, timeNs: 0, callSite: 'file.ts:1:2' },
      }),
    ).toBe(
      [
        'leak: page 0x1000 is left',
        '  page  0x1000',
        '  iova  0x20',
        '  mapped by operation 2, 0 ns: map(…)',
        '      at file.ts:1:2',
        '  seen in or after operation 4, at 10 ns',
        '  needed: free it',
      ].join('\n'),
    );
  });
});
