/** Tables that share CPU pages with queues, on a machine whose walker does not snoop: the queues are never flushed. */
import { withPages } from '@iommu-ts/conformance/suite';
import { formatReport } from '@iommu-ts/iommu-core';
import { PROT } from '@iommu-ts/page-table';
import { expect, test } from 'vitest';
import { harness } from '../src/harness.ts';

const RW = PROT.READ | PROT.WRITE;
const parted = withPages(harness, { cpuPageSize: 65536, subPage: true });
const options = { checks: true, iotlb: { mode: 'retain' }, incoherentWalker: true } as const;

test('the device sees a queue beside a table as the driver writes it', () => {
  const { driver, bus, checks } = parted.createSystem(options);
  const domain = driver.createDomain();
  driver.attach(3, domain);
  domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
  expect(bus.device(3).write(0x1000n, Uint8Array.of(1)).ok).toBe(true);
  domain.unmap(0x1000n, 0x1000n);
  expect(bus.device(3).write(0x1000n, Uint8Array.of(1)).ok).toBe(false);
  driver.detach(3);
  domain.free();
  driver.release();
  expect(checks!.finish().map(formatReport)).toEqual([]);
});

test('an entry that was not flushed is found there as well', () => {
  const { driver, bus, checks, pages } = parted.createSystem(options);
  const domain = driver.createDomain();
  driver.attach(3, domain);
  domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
  pages.flushIncoherent = () => {};
  domain.map(0x2000n, 0x10_1000n, 0x1000n, RW);
  expect(bus.device(3).write(0x2000n, Uint8Array.of(1)).ok).toBe(false);
  expect(checks!.reports).toMatchObject([{ kind: 'incoherent', addresses: { iova: 0x2000n } }]);
});

test('parts that wait for a grace period are no leak of the driver', () => {
  const { driver, checks } = parted.createSystem(options);
  const domain = driver.createDomain({ freeMode: 'rcu' });
  driver.attach(3, domain);
  domain.map(0x1000n, 0x10_0000n, 0x1000n, RW);
  driver.detach(3);
  domain.free();
  driver.release();
  expect(checks!.finish().map(formatReport)).toEqual([]);
});
