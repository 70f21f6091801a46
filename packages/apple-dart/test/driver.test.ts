/** The driver on the emulated hardware: what Linux does, fault by fault, and everything given back. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { IommuError } from '@iommu-ts/bits';
import { VirtualClock } from '@iommu-ts/iommu-core';
import type { MmioPort } from '@iommu-ts/iommu-core';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { AppleDartDriver } from '../src/driver/driver.ts';
import { AppleDart } from '../src/hardware/unit.ts';
import { resolvePart } from '../src/parts.ts';
import type { DartPreset } from '../src/parts.ts';
import { createAppleDart } from '../src/system.ts';

const RW = 3;
const RO = 1;
const WO = 2;
const presets: readonly DartPreset[] = ['t8103', 't8103-4k', 't6000', 't8110', 't6020'];

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return error instanceof IommuError ? error.code : String(error);
  }
  return 'nothing thrown';
};

/** An MMIO port that writes down every access. */
class Recorder implements MmioPort {
  readonly log: string[] = [];
  hi = 0;
  lo = 0;
  readonly #inner: MmioPort;
  constructor(inner: MmioPort) {
    this.#inner = inner;
  }
  read32(offset: number): number {
    this.log.push(`rd ${offset.toString(16)}`);
    return this.#inner.read32(offset);
  }
  write32(offset: number, value: number): void {
    this.log.push(`wr ${offset.toString(16)} ${(value >>> 0).toString(16)}`);
    this.#inner.write32(offset, value);
  }
  read64(): void {
    throw new Error('DART registers are 32 bits wide');
  }
  write64(): void {
    throw new Error('DART registers are 32 bits wide');
  }
}

describe('as Linux does it', () => {
  test('probe, reset, attach, flush and error handler: the same register accesses in the same order', () => {
    const file = new URL(
      '../../conformance/fixtures/vectors/linux-drivers/apple-dart-t8103-linux-7.2.jsonl.gz',
      import.meta.url,
    );
    const ops = gunzipSync(readFileSync(file))
      .toString()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { op?: string; off: string; val: string })
      .filter((o) => o.op === 'rd' || o.op === 'wr')
      .map((o) => {
        const offset = Number(o.off).toString(16);
        return o.op === 'rd' ? `rd ${offset}` : `wr ${offset} ${Number(o.val).toString(16)}`;
      });
    const attach = ops.indexOf('wr 104 80');
    expect(attach).toBeGreaterThan(0);
    const linux = ops.slice(0, attach + 4);

    const memory = new PhysicalMemory([{ base: 0n, size: 1n << 30n }]);
    const pages = new IommuPages(memory, new BuddySource(memory));
    const hardware = new AppleDart(memory, { part: resolvePart({ bypass: false }) });
    const mmio = new Recorder(hardware.mmio);
    const driver = new AppleDartDriver({ mmio, pages, clock: new VirtualClock() });
    const domain = driver.createDomain();
    driver.attach(1, domain);
    // The tables lie elsewhere: the value of TTBR[1][0] is ours.
    const root = (0x8000_0000 + Number(domain.table.root >> 12n)).toString(16);
    expect(mmio.log).toEqual(linux.map((access) => access.replace(/^wr 210 8.*$/, `wr 210 ${root}`)));

    // A map and an unmap flush once each.
    mmio.log.length = 0;
    const flush = ['wr 34 2', 'wr 20 100000', 'rd 20'];
    domain.map(0x4000n, 0x10_0000n, 0x4000n, RW);
    domain.unmap(0x4000n, 0x4000n);
    expect(mmio.log).toEqual([...flush, ...flush]);

    // The error interrupt: three reads, and what was read written back.
    mmio.log.length = 0;
    expect(hardware.translate(1, -1, 0, 0x4000, 1)).toBe(4);
    expect(driver.handleFaults()).toHaveLength(1);
    expect(mmio.log).toEqual(['rd 40', 'rd 50', 'rd 54', 'wr 40 81000004']);
    expect(ops.join(' ')).toContain(mmio.log.join(' '));
  });
});

describe.each(presets)('%s', (preset) => {
  const t8110 = preset === 't8110' || preset === 't6020';
  const code = t8110
    ? { ttbr: 1, pgd: 2, pmd: 4, pte: 8, write: 16, read: 32 }
    : { ttbr: 1, pgd: 2, pmd: 2, pte: 4, write: 8, read: 16 };

  test('info', () => {
    const { info } = createAppleDart({ preset }).driver;
    expect(info).toMatchObject({
      format: {
        t8103: 'dart1-16k-32-36',
        't8103-4k': 'dart1-4k-32-36',
        t6000: 'dart2-16k-32-42',
        t8110: 'dart2-16k-36-42',
        t6020: 'dart2-16k-42-42',
      }[preset],
      apertureLast: preset === 't8110' ? 0xf_ffff_ffffn : preset === 't6020' ? 0x3ff_ffff_ffffn : 0xffff_ffffn,
      requesters: t8110 ? 256 : 16,
      granuleLg2: preset === 't8103-4k' ? 12 : 14,
    });
  });

  test('DMA through map and unmap, and every kind of fault decoded', () => {
    const system = createAppleDart({ preset });
    const { driver, bus, memory, hardware } = system;
    const page = driver.info.pageSizes;
    const domain = driver.createDomain();
    const stream = driver.info.requesters - 1;
    driver.attach(stream, domain);
    domain.map(4n * page, 0x10_0000n, 2n * page, RW);
    domain.map(8n * page, 0x20_0000n, page, RO);
    domain.map(9n * page, 0x30_0000n, page, WO);
    const device = bus.device(stream);
    const bytes = Uint8Array.from({ length: 5000 }, (_, i) => i * 7);
    expect(device.write(4n * page + 100n, bytes)).toMatchObject({ ok: true });
    expect(memory.readBytes(0x10_0064n, 5000)).toEqual(bytes);
    expect(device.read(4n * page + 100n, 5000).data).toEqual(bytes);
    expect(driver.handleFaults()).toEqual([]);

    const fault = (requester: number, iova: bigint, rw: 'r' | 'w', want: number, name: string): void => {
      const d = bus.device(requester);
      const result = rw === 'w' ? d.write(iova, bytes.subarray(0, 4)) : d.read(iova, 4);
      expect(result).toMatchObject({ ok: false, bytes: 0, code: want, busError: false });
      const known = t8110 ? (rw === 'w' ? 'write' : 'read') : null;
      const access = known ?? (name === 'WRITE_FAULT' ? 'write' : name === 'READ_FAULT' ? 'read' : 'unknown');
      expect(driver.handleFaults()).toEqual([
        expect.objectContaining({ name, code: want, requester, pasid: -1, iova, access }),
      ]);
      expect(driver.handleFaults()).toEqual([]);
      expect(hardware.interruptLine).toBe(false);
    };
    fault(stream, 5n, 'r', code.pte, 'NO_PTE');
    fault(stream, 6n * page + 3n, 'w', code.pte, 'NO_PTE');
    fault(stream, 0x8000_0000n, 'r', code.pmd, 'NO_PMD');
    if (preset === 't6020') fault(stream, 0x10_0000_0000n, 'r', code.pgd, 'NO_PGD');
    fault(stream, 8n * page, 'w', code.write, 'WRITE_FAULT');
    fault(stream, 9n * page, 'r', code.read, 'READ_FAULT');
    fault(stream, 1n << 60n, 'w', code.ttbr, 'NO_TTBR');
    fault(0, 4n * page, 'r', code.ttbr, 'NO_TTBR');
    domain.unmap(4n * page, page);
    fault(stream, 4n * page, 'r', code.pte, 'NO_PTE');
    expect(device.read(5n * page, 4)).toMatchObject({ ok: true });
    driver.attach(stream, driver.blockedDomain);
    fault(stream, 5n * page, 'r', code.ttbr, 'NO_TTBR');
    driver.attach(stream, driver.identityDomain);
    expect(device.read(0x10_0064n, 5000).data).toEqual(bytes);
    driver.detach(stream);
    fault(stream, 5n * page, 'r', code.ttbr, 'NO_TTBR');
    expect(hardware.stats.faults).toBe(preset === 't6020' ? 11 : 10);
  });

  test('the last page of the aperture, and none above', () => {
    const { driver, bus } = createAppleDart({ preset });
    const { apertureLast, pageSizes: page } = driver.info;
    const domain = driver.createDomain();
    driver.attach(2, domain);
    domain.map(apertureLast + 1n - page, 0x10_0000n, page, RW);
    expect(bus.device(2).write(apertureLast, Uint8Array.of(9))).toMatchObject({ ok: true });
    expect(codeOf(() => domain.map(apertureLast + 1n, 0x10_0000n, page, RW))).toBe('ERANGE');
    expect(codeOf(() => domain.map(apertureLast + 1n - 2n * page, 0x10_0000n, 3n * page, RW))).toBe('ERANGE');
  });

  test('release gives everything back', () => {
    const { driver, pages, hardware } = createAppleDart({ preset });
    expect(pages.nrIommuPages()).toBe(0);
    const domain = driver.createDomain();
    const other = driver.createDomain();
    driver.attach(1, domain);
    driver.attach(3, domain);
    driver.attach(3, other);
    domain.map(0x1000_0000n, 0x10_0000n, 100n * driver.info.pageSizes, RW);
    expect(pages.nrIommuPages()).toBeGreaterThan(2);
    expect(codeOf(() => driver.release())).toBe('EBUSY');
    expect(codeOf(() => domain.free())).toBe('EBUSY');
    driver.detach(1);
    driver.detach(3);
    domain.free();
    other.free();
    driver.release();
    expect(pages.nrIommuPages()).toBe(0);
    expect(hardware.iotlb.size).toBe(0);
    expect(hardware.translate(1, -1, 0, 0x1000_0000, 1)).toBe(code.ttbr);
  });

  test('the hardware’s BUSY bit is waited for', () => {
    const { driver, bus, hardware } = createAppleDart({ preset, busyReads: 7 });
    const page = driver.info.pageSizes;
    const domain = driver.createDomain();
    driver.attach(1, domain);
    driver.attach(2, domain);
    domain.map(0n, 0x10_0000n, page, RW);
    for (const s of [1, 2]) expect(bus.device(s).read(0n, 4).ok).toBe(true);
    expect(hardware.iotlb.size).toBe(2);
    domain.unmap(0n, page);
    expect(hardware.iotlb.size).toBe(0);
    for (const s of [1, 2]) expect(bus.device(s).read(0n, 4).ok).toBe(false);
    expect(codeOf(() => createAppleDart({ preset, busyReads: 100 }))).toBe('ETIMEDOUT');
  });
});

describe('flushes', () => {
  test('only the streams of the domain are flushed', () => {
    const { driver, bus, hardware } = createAppleDart();
    const a = driver.createDomain();
    const b = driver.createDomain();
    for (const s of [1, 4, 15]) driver.attach(s, a);
    driver.attach(7, b);
    a.map(0n, 0x10_0000n, 0x8000n, RW);
    b.map(0n, 0x20_0000n, 0x8000n, RW);
    const all = [1, 4, 15, 7];
    for (const s of all) expect(bus.device(s).read(0n, 4).ok).toBe(true);
    expect(hardware.iotlb.size).toBe(4);
    a.unmap(0x4000n, 0x4000n);
    expect(hardware.iotlb.size).toBe(1);
    const { hits } = hardware.iotlb;
    for (const s of all) expect(bus.device(s).read(0n, 4).ok).toBe(true);
    expect(hardware.iotlb.hits).toBe(hits + 1);
  });

  test('lazy mode: one flush for many unmaps', () => {
    const { driver, bus, hardware, clock } = createAppleDart({ mode: 'lazy' });
    const domain = driver.createDomain();
    driver.attach(1, domain);
    domain.map(0n, 0x10_0000n, 0x10_0000n, RW);
    bus.device(1).read(0n, 4);
    const before = hardware.stats.invalidations;
    for (let i = 0n; i < 64n; i++) domain.unmap(i * 0x4000n, 0x4000n);
    expect(hardware.stats.invalidations).toBe(before);
    expect(bus.device(1).read(0n, 4).ok).toBe(true);
    clock.advance(10_000_000);
    expect(hardware.stats.invalidations).toBe(before + 1);
    expect(bus.device(1).read(0n, 4).ok).toBe(false);
  });

  test('a domain is flushed from streams that left it before its tables are freed', () => {
    const { driver, bus, hardware } = createAppleDart();
    const domain = driver.createDomain();
    driver.attach(1, domain);
    domain.map(0n, 0x10_0000n, 0x4000n, RW);
    bus.device(1).read(0n, 4);
    driver.attach(1, driver.identityDomain);
    expect(hardware.iotlb.size).toBe(1);
    domain.free();
    expect(hardware.iotlb.size).toBe(0);
  });
});

describe('refusals', () => {
  test('identity without bypass', () => {
    const { driver, bus } = createAppleDart({ bypass: false });
    const domain = driver.createDomain();
    driver.attach(1, domain);
    domain.map(0n, 0x10_0000n, 0x4000n, RW);
    expect(codeOf(() => driver.attach(1, driver.identityDomain))).toBe('EOPNOTSUPP');
    expect(codeOf(() => createAppleDart({ incoherentWalker: true }))).toBe('EOPNOTSUPP');
    // Nothing has changed.
    expect(driver.domainOf(1)).toBe(domain);
    expect(bus.device(1).read(0n, 4).ok).toBe(true);
  });
  test('foreign domains and streams', () => {
    const { driver } = createAppleDart();
    const other = createAppleDart().driver;
    expect(codeOf(() => driver.attach(1, other.createDomain()))).toBe('EINVAL');
    expect(codeOf(() => driver.attach(1, other.identityDomain))).toBe('EINVAL');
    for (const s of [16, -1, 1.5, Number.NaN]) {
      expect(codeOf(() => driver.attach(s, driver.blockedDomain))).toBe('ERANGE');
      expect(codeOf(() => driver.detach(s))).toBe('ERANGE');
      expect(codeOf(() => driver.domainOf(s))).toBe('ERANGE');
    }
  });
  test('a locked DART', () => {
    for (const preset of ['t8103', 't8110'] as const) {
      const memory = new PhysicalMemory([{ base: 0n, size: 1n << 30n }]);
      const part = resolvePart({ preset });
      const hardware = new AppleDart(memory, { part, locked: true });
      const pages = new IommuPages(memory, new BuddySource(memory));
      const { compatible } = part;
      expect(
        codeOf(() => new AppleDartDriver({ mmio: hardware.mmio, pages, clock: new VirtualClock(), compatible })),
      ).toBe('EBUSY');
    }
  });
  test('unknown parts', () => {
    const { hardware, pages, clock } = createAppleDart();
    const made = (compatible: string) => (): unknown =>
      new AppleDartDriver({ mmio: hardware.mmio, pages, clock, compatible });
    expect(codeOf(made('apple,m99-dart'))).toBe('ENODEV');
    expect(codeOf(made('constructor'))).toBe('ENODEV');
  });
  test('domains are used up, and one comes back', () => {
    const { hardware, pages, clock } = createAppleDart();
    const driver = new AppleDartDriver({ mmio: hardware.mmio, pages, clock, maxDomains: 3 });
    const domains = [0, 1, 2].map(() => driver.createDomain());
    expect(domains.map((d) => d.id)).toEqual([0, 1, 2]);
    expect(codeOf(() => driver.createDomain())).toBe('ENOSPC');
    domains[1]!.free();
    expect(driver.createDomain().id).toBe(1);
  });
  test('no memory for the top table leaks no id', () => {
    const { hardware, clock, memory } = createAppleDart();
    const pages = new IommuPages(memory, new BuddySource(memory, [{ base: 0n, size: 0x8000n }]));
    const driver = new AppleDartDriver({ mmio: hardware.mmio, pages, clock, maxDomains: 3 });
    const domains = [driver.createDomain(), driver.createDomain()];
    for (let i = 0; i < 5; i++) expect(codeOf(() => driver.createDomain())).toBe('ENOMEM');
    for (const d of domains) d.free();
    expect(pages.nrIommuPages()).toBe(0);
    expect(driver.createDomain().id).toBe(0);
  });
  test('tables beyond the physical address width', () => {
    const memory = new PhysicalMemory([{ base: 1n << 36n, size: 1n << 30n }]);
    const { driver, pages } = createAppleDart({ memory });
    expect(['ERANGE', 'EINVAL', 'ENOMEM']).toContain(codeOf(() => driver.createDomain()));
    expect(pages.nrIommuPages()).toBe(0);
    driver.release();
    // 42 bits reach it.
    const wide = createAppleDart({ preset: 't6000', memory });
    const domain = wide.driver.createDomain();
    wide.driver.attach(1, domain);
    domain.map(0n, (1n << 36n) + 0x4000n, 0x4000n, RW);
    expect(wide.bus.device(1).write(8n, Uint8Array.of(42)).ok).toBe(true);
    expect(memory.readBytes((1n << 36n) + 0x4008n, 1)).toEqual(Uint8Array.of(42));
  });
});

test('reserved: the MSI doorbell’s page', () => {
  expect(createAppleDart().driver.reservedRegions()).toEqual([
    { start: 0xffff_c000n, last: 0xffff_ffffn, type: 'msi', doc: expect.any(String) as string },
  ]);
  expect(createAppleDart({ preset: 't8103-4k' }).driver.reservedRegions()[0]).toMatchObject({ start: 0xffff_f000n });
});
