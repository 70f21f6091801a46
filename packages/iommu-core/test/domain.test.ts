import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { GatherRecord, PROT, X86_64_4LEVEL } from '@iommu-ts/page-table';
import { describe, expect, test } from 'vitest';
import { VirtualClock } from '../src/clock.ts';
import { PagingDomain } from '../src/domain.ts';
import type { DomainMode } from '../src/domain.ts';

const RW = PROT.READ | PROT.WRITE;
const MIB2 = 0x20_0000n;

const setup = (mode: DomainMode = 'strict') => {
  const memory = new PhysicalMemory([{ base: 0n, size: 0x1000_0000n }]);
  const pages = new IommuPages(memory, new BuddySource(memory));
  const clock = new VirtualClock();
  const log: string[] = [];
  const domain = new PagingDomain({
    pages,
    clock,
    mode,
    id: 7,
    table: { format: X86_64_4LEVEL, ias: 48, oas: 52 },
    ops: {
      iotlbSync: (_domain, gather) =>
        void log.push(
          `sync ${gather.startPfn.toString(16)}-${gather.lastPfn.toString(16)} free=${gather.freelist.length} live=${pages.nrIommuPages()}`,
        ),
      flushIotlbAll: () => void log.push(`flush live=${pages.nrIommuPages()}`),
      release: (d) => void log.push(`release ${d.id} live=${pages.nrIommuPages()}`),
    },
  });
  return { memory, pages, clock, log, domain };
};

describe('PagingDomain', () => {
  test('strict: the invalidation comes before the tables are given back', () => {
    const { domain, log, pages } = setup();
    domain.map(MIB2, 0x1234_0000n, MIB2, RW); // 512 entries, one lowest table
    expect([pages.nrIommuPages(), log]).toEqual([4, []]);
    expect(domain.iovaToPhys(MIB2 + 0x1234n)).toBe(0x1234_1234n);
    expect(domain.unmap(MIB2, MIB2)).toBe(MIB2);
    expect(log).toEqual(['sync 200-3ff free=1 live=4']);
    expect(pages.nrIommuPages()).toBe(3);
    expect(domain.iovaToPhys(MIB2)).toBeNull();
  });

  test('a size that no number holds is misaligned, not 2^64', () => {
    const { domain } = setup();
    domain.map(MIB2, 0n, MIB2, RW);
    for (const size of [(1n << 64n) - 1n, (1n << 60n) + 1n]) {
      expect(domain.unmap(MIB2, size)).toBe(0n);
      expect(() => domain.map(0n, 0n, size, RW)).toThrow();
    }
    expect(domain.iovaToPhys(MIB2)).toBe(0n);
    expect(domain.iovaToPhys(0n)).toBeNull();
  });

  test('an output range does not wrap around the address width', () => {
    const { domain } = setup();
    const last = (1n << 52n) - 0x1000n;
    expect(() => domain.map(MIB2, last, 0x2000n, RW)).toThrow(expect.objectContaining({ code: 'ERANGE' }));
    expect(domain.iovaToPhys(MIB2)).toBeNull();
    domain.map(MIB2, last, 0x1000n, RW);
    expect(domain.iovaToPhys(MIB2)).toBe(last);
  });

  test('lazy: pages and ranges wait for one flush of the domain', () => {
    const { domain, log, pages, clock } = setup('lazy');
    domain.map(MIB2, 0x1234_0000n, MIB2, RW);
    domain.unmap(MIB2, MIB2, () => log.push('released'));
    expect([log, pages.nrIommuPages()]).toEqual([[], 4]);
    clock.advance(10_000_000);
    expect([log, pages.nrIommuPages()]).toEqual([['flush live=4', 'released'], 3]);
  });

  test('a block over an empty table: the table is freed only after a sync', () => {
    const { domain, log, pages } = setup();
    domain.map(MIB2, 0x1234_0000n, 0x1000n, RW);
    domain.unmap(MIB2, 0x1000n);
    log.length = 0;
    domain.map(MIB2, 0x4000_0000n, MIB2, RW);
    expect(log).toHaveLength(1);
    expect(log[0]).toMatch(/free=1 live=4$/);
    expect(pages.nrIommuPages()).toBe(3);
  });

  test('several unmaps under one gather, one invalidation', () => {
    const { domain, log } = setup();
    domain.map(0x10_0000n, 0n, 0x4000n, RW);
    const gather = new GatherRecord();
    expect(domain.unmapGather(0x10_0000n, 0x1000n, gather)).toBe(0x1000n);
    expect(domain.unmapGather(0x10_3000n, 0x1000n, gather)).toBe(0x1000n);
    expect(log).toEqual([]);
    domain.iotlbSync(gather);
    expect(log).toEqual(['sync 100-103 free=0 live=4']);
    expect(gather.empty).toBe(true);
  });

  test('errors carry the code of the errno and what stayed mapped', () => {
    const { domain } = setup();
    domain.map(0x3000n, 0n, 0x1000n, RW);
    expect(() => domain.map(0x1000n, 0x10_0000n, 0x4000n, RW)).toThrow(
      expect.objectContaining({
        code: 'EADDRINUSE',
        details: expect.objectContaining({ iova: '0x1000', errno: '-98' }) as unknown,
      }),
    );
    expect(() => domain.map(0x1000n, 0n, 0x1000n, PROT.CACHE)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(() => domain.map(0x10_0001n, 0n, 0x1000n, RW)).toThrow(expect.objectContaining({ code: 'ENXIO' }));
    expect(() => domain.map(0x8000_0000_0000n, 0n, 0x1000n, RW)).toThrow(expect.objectContaining({ code: 'ERANGE' }));
    expect(() => domain.map(1n << 64n, 0n, 0x1000n, RW)).toThrow(expect.objectContaining({ code: 'ERANGE' }));
    expect(() => domain.map(0x1000 as unknown as bigint, 0n, 0x1000n, RW)).toThrow(TypeError);
  });

  test('out of memory for a table is ENOMEM, and free gives all back', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 0x2000n }]);
    const pages = new IommuPages(memory, new BuddySource(memory));
    const domain = new PagingDomain({
      pages,
      clock: new VirtualClock(),
      id: 1,
      table: { format: X86_64_4LEVEL, ias: 48, oas: 52 },
      ops: { iotlbSync: () => {}, flushIotlbAll: () => {}, release: () => {} },
    });
    expect(() => domain.map(0n, 0n, 0x1000n, RW)).toThrow(expect.objectContaining({ code: 'ENOMEM' }));
    domain.free();
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('free is refused while a device is attached; then flush, tables, ids, in this order', () => {
    const { domain, log, pages } = setup();
    domain.map(0n, 0n, 0x1000n, RW);
    domain.attached();
    expect(() => domain.free()).toThrow(expect.objectContaining({ code: 'EBUSY' }));
    domain.detached();
    domain.free();
    domain.free();
    expect(log).toEqual(['flush live=4', 'release 7 live=0']);
    expect(pages.nrSecPageTablePages).toBe(0);
  });
});
