/** The driver against the unit: what the common suite does not ask. */
import { PROT } from '@iommu-ts/page-table';
import { describe, expect, test } from 'vitest';
import { VTD_PRESETS, createVtdIommu } from '../src/index.ts';
import type { VtdPreset, VtdSystem, VtdSystemOptions } from '../src/index.ts';

const RW = PROT.READ | PROT.WRITE;
const SID = 0x0018;
const SERVER: VtdPreset = VTD_PRESETS.server;

const withDomain = (options: VtdSystemOptions = {}) => {
  const system = createVtdIommu(options);
  const domain = system.driver.createDomain();
  system.driver.attach(SID, domain);
  return { ...system, domain, device: system.bus.device(SID) };
};

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return (error as { code: string }).code;
  }
  return 'done';
};

/** Register writes and reads of the driver, in order. */
const watched = (system: VtdSystem): [string, number, number][] => {
  const log: [string, number, number][] = [];
  const { registers } = system.hardware;
  const write32 = registers.write32.bind(registers);
  const write64 = registers.write64.bind(registers);
  registers.write32 = (offset, value) => {
    log.push(['wr', offset, value >>> 0]);
    write32(offset, value);
  };
  registers.write64 = (offset, hi, lo) => {
    log.push(['wr64', offset, (hi >>> 0) * 2 ** 32 + (lo >>> 0)]);
    write64(offset, hi, lo);
  };
  return log;
};

describe('the structures that the driver writes', () => {
  test('root entry, context entry, page table', () => {
    const { driver, hardware, memory, domain } = withDomain();
    const { registers } = hardware;
    expect(registers.read(0x1c, 4)).toBe(0xc400_0000n); // TES, RTPS, QIES
    const root = registers.read(0x20, 8);
    const rootEntry = memory.readU64(root);
    expect(rootEntry & 0xfffn).toBe(1n);
    const context = (rootEntry & ~0xfffn) + 16n * BigInt(SID);
    expect(memory.readU64(context)).toBe(domain.table.root | 1n);
    expect(memory.readU64(context + 8n)).toBe((BigInt(domain.id) << 8n) | 2n);
    driver.attach(SID, driver.identityDomain);
    expect(memory.readU64(context)).toBe(9n);
    expect(memory.readU64(context + 8n)).toBe(0x102n);
    driver.attach(SID, driver.blockedDomain);
    expect([memory.readU64(context), memory.readU64(context + 8n)]).toEqual([0n, 0n]);
    expect(memory.readU64(root + 16n * 5n)).toBe(0n);
    driver.attach(0x0518, domain);
    expect(memory.readU64(root + 16n * 5n) & 1n).toBe(1n);
  });

  test('entries as Linux writes them', () => {
    const { memory, domain } = withDomain();
    domain.map(0n, 0x1_2345_6000n, 0x1000n, RW);
    domain.map(0x1000n, 0x1_2345_7000n, 0x1000n, PROT.READ);
    domain.map(0x2000n, 0x1_2345_8000n, 0x1000n, PROT.WRITE);
    domain.map(0x20_0000n, 0x4000_0000n, 0x20_0000n, RW);
    let table = domain.table.root;
    const step = (index: bigint): bigint => memory.readU64(table + 8n * index);
    for (let level = 4; level > 2; level--) {
      expect(step(0n) & 0xfffn).toBe(3n);
      table = step(0n) & ~0xfffn;
    }
    expect(step(1n)).toBe(0x4000_0083n);
    table = step(0n) & ~0xfffn;
    expect([step(0n), step(1n), step(2n)]).toEqual([0x1_2345_6003n, 0x1_2345_7001n, 0x1_2345_8002n]);
  });
});

describe('invalidations', () => {
  test('strict unmap: one page-selective descriptor and a wait', () => {
    const { driver, hardware, memory, domain, device } = withDomain();
    domain.map(0x10_0000n, 0x8000_0000n, 0x8000n, RW);
    device.write(0x10_0000n, new Uint8Array(0x8000));
    const commands = hardware.stats.commands;
    const before = driver.info.invalidationCommands;
    const queue = hardware.registers.read(0x90, 8);
    const at = hardware.registers.read(0x88, 8);
    expect(domain.unmap(0x10_2000n, 0x4000n)).toBe(0x4000n);
    expect(hardware.stats.commands - commands).toBe(2);
    expect(driver.info.invalidationCommands - before).toBe(1);
    // Type 2, granularity 3, draining, domain; pages 0x102 to 0x105 need the 8 pages from 0x100: AM 3, only leaves: IH.
    expect(memory.readU64(queue + at)).toBe(0xf2n | (BigInt(domain.id) << 16n));
    expect(memory.readU64(queue + at + 8n)).toBe(0x10_0043n);
    expect(memory.readU64(queue + at + 16n) & 0xfffn).toBe(0x25n);
    expect(hardware.registers.read(0x80, 8)).toBe(at + 32n);
    expect(device.read(0x10_2000n, 1).ok).toBe(false);
    expect(device.read(0x10_1000n, 0x1000).ok).toBe(true);
  });

  test('a range beyond MAMV takes the whole domain', () => {
    const small = { ...SERVER, cap: (SERVER.cap & ~(0x3fn << 48n)) | (2n << 48n) };
    const { hardware, memory, domain } = withDomain({ preset: small });
    domain.map(0n, 0x8000_0000n, 0x10_0000n, RW);
    const queue = hardware.registers.read(0x90, 8);
    const descriptor = (unmap: () => void): bigint => {
      const at = hardware.registers.read(0x88, 8);
      unmap();
      return memory.readU64(queue + at) & 0x3fn;
    };
    expect(descriptor(() => domain.unmap(0x4000n, 0x4000n))).toBe(0x32n); // AM 2
    expect(descriptor(() => domain.unmap(0xf000n, 0x2000n))).toBe(0x22n); // needs AM 5
    const none = withDomain({ preset: { ...SERVER, cap: SERVER.cap & ~(1n << 39n) } });
    none.domain.map(0n, 0x8000_0000n, 0x1000n, RW);
    const at = none.hardware.registers.read(0x88, 8);
    none.domain.unmap(0n, 0x1000n);
    expect(none.memory.readU64(none.hardware.registers.read(0x90, 8) + at) & 0x3fn).toBe(0x22n); // no PSI
  });

  test('a unit without queued invalidation is driven through its registers', () => {
    const { hardware, driver, domain, device } = withDomain({
      preset: { ...SERVER, ecap: SERVER.ecap & ~2n },
      iotlb: { mode: 'unbounded' },
    });
    expect(hardware.registers.read(0x1c, 4)).toBe(0xc000_0000n);
    domain.map(0x7000n, 0x8000_0000n, 0x3000n, RW);
    expect(device.write(0x7000n, new Uint8Array(0x3000)).ok).toBe(true);
    const before = driver.info.invalidationCommands;
    domain.unmap(0x8000n, 0x1000n);
    expect(driver.info.invalidationCommands - before).toBe(1);
    expect([device.read(0x7000n, 1).ok, device.read(0x8000n, 1).ok, device.read(0x9000n, 1).ok]).toEqual([
      true,
      false,
      true,
    ]);
    driver.detach(SID);
    expect(device.read(0x7000n, 1)).toMatchObject({ ok: false, code: 2 });
  });

  test('caching mode: maps and new context entries are invalidated too', () => {
    const { hardware, driver, domain, memory } = withDomain({ preset: 'virtual' });
    const queue = hardware.registers.read(0x90, 8);
    const at = hardware.registers.read(0x88, 8);
    const before = driver.info.invalidationCommands;
    domain.map(0x4_0000n, 0x8000_0000n, 0x2000n, RW);
    expect(driver.info.invalidationCommands - before).toBe(1);
    expect(memory.readU64(queue + at)).toBe(0xf2n | (BigInt(domain.id) << 16n));
    expect(memory.readU64(queue + at + 8n)).toBe(0x4_0001n);
    const next = hardware.registers.read(0x88, 8);
    driver.attach(0x20, domain);
    // Not-present entries are cached under domain-id 0.
    expect(memory.readU64(queue + next)).toBe(0x20_0000_0031n);
    expect(withDomain().driver.info.invalidationCommands).toBe(1);
  });

  test('the queue wraps many times', () => {
    const { hardware, domain, device } = withDomain({ iotlb: { mode: 'unbounded' } });
    for (let i = 0; i < 1000; i++) {
      domain.map(0x7000n, 0x8000_0000n + BigInt(i) * 0x1000n, 0x1000n, RW);
      expect(device.write(0x7000n, Uint8Array.of(i)).ok).toBe(true);
      domain.unmap(0x7000n, 0x1000n);
      expect(device.read(0x7000n, 1).ok).toBe(false);
      hardware.registers.write32(0x22c + 16 * (i % 8), 0x8000_0000);
    }
    expect(hardware.stats.commands).toBeGreaterThan(2000);
  });
});

test('registers are programmed in the order of a real driver', () => {
  const { hardware, memory, pages, clock, driver } = createVtdIommu();
  driver.release();
  const log = watched({ hardware, memory, pages, clock, driver } as VtdSystem);
  const again = new (driver.constructor as new (options: object) => VtdSystem['driver'])({
    mmio: hardware.mmio,
    memory,
    pages,
    clock,
  });
  const offsets = log.map(([, offset]) => offset);
  const first = (offset: number): number => offsets.indexOf(offset);
  const gcmd = log.filter(([, offset]) => offset === 0x18).map(([, , value]) => value);
  // QIE, then SRTP with QIE kept, then TE with QIE kept.
  expect(gcmd).toEqual([0x0400_0000, 0x4400_0000, 0x8400_0000]);
  expect(first(0x90)).toBeLessThan(first(0x18));
  expect(first(0x20)).toBeGreaterThan(first(0x18));
  expect(offsets.lastIndexOf(0x88)).toBeLessThan(offsets.lastIndexOf(0x18));
  expect(first(0x38)).toBeGreaterThan(first(0x44));
  expect(again.info.format).toBe('vtdss-48');
});

describe('faults', () => {
  test('an unattached device, a bus without a context table, a device of another domain', () => {
    const { driver, bus, domain } = withDomain();
    domain.map(0x5000n, 0x8000_0000n, 0x1000n, RW);
    expect(bus.device(0x20).read(0x5000n, 4).code).toBe(2);
    expect(bus.device(0x7720).write(0x5000n, Uint8Array.of(1)).code).toBe(1);
    const other = driver.createDomain();
    driver.attach(0x28, other);
    expect(bus.device(0x28).read(0x5678n, 4).code).toBe(6);
    const events = driver.handleFaults();
    expect(events.map((e) => [e.name, e.requester, e.access, e.iova])).toEqual([
      ['LCT.2', 0x20, 'read', 0x5000n],
      ['LRT.2', 0x7720, 'write', 0x5000n],
      ['LGN.3', 0x28, 'read', 0x5000n],
    ]);
    expect(driver.handleFaults()).toEqual([]);
    expect(events[1]!.text).toContain('77:04.0');
  });

  test('overflow: eight records are kept, and recording goes on once they are handled', () => {
    const { driver, device } = withDomain();
    for (let i = 0n; i < 20n; i++) device.read(0x1000n * i, 1);
    const pages = driver.handleFaults().map((e) => e.iova);
    expect(pages).toEqual([0n, 0x1000n, 0x2000n, 0x3000n, 0x4000n, 0x5000n, 0x6000n, 0x7000n]);
    device.read(0xabc_d000n, 1);
    expect(driver.handleFaults().map((e) => e.iova)).toEqual([0xabc_d000n]);
  });

  test('the fault interrupt is a message that the handler re-arms', () => {
    const { driver, hardware, device, memory } = withDomain();
    const seen: string[] = [];
    hardware.onInterrupt = (source) => {
      seen.push(source, ...driver.handleFaults().map((e) => e.name));
    };
    device.read(0n, 1);
    device.write(0n, Uint8Array.of(1));
    expect(seen).toEqual(['fault', 'LGN.3', 'fault', 'LGN.2']);
    expect(memory.read(0xfee0_0000n, 4)).toBe(0x21n);
  });

  test('address width', () => {
    const { driver, device } = withDomain({ preset: 'client' });
    expect(driver.info).toMatchObject({
      format: 'vtdss-39',
      apertureLast: 0x7f_ffff_ffffn,
      pageSizes: 0x20_1000n,
      oas: 39,
    });
    expect(device.read(0x80_0000_0000n, 1).code).toBe(4);
    expect(driver.handleFaults()[0]).toMatchObject({ name: 'LGN.1', iova: 0x80_0000_0000n });
  });
});

describe('domains', () => {
  test('57 bits', () => {
    const { driver, domain, device, memory } = withDomain({ preset: 'server-57' });
    expect(driver.info).toMatchObject({ format: 'vtdss-57', apertureLast: (1n << 57n) - 1n, oas: 52 });
    domain.map(0x1ff_ffff_ffff_f000n, 0x9_0000_0000n, 0x1000n, RW);
    expect(device.write(0x1ff_ffff_ffff_fffen, Uint8Array.of(7, 8)).ok).toBe(true);
    expect(memory.readBytes(0x9_0000_0ffen, 2)).toEqual(Uint8Array.of(7, 8));
  });

  test("domain ids: all of CAP.ND but 0 and the identity domain's", () => {
    const { driver } = createVtdIommu({ preset: { ...SERVER, cap: SERVER.cap & ~7n } });
    const domains = Array.from({ length: 14 }, () => driver.createDomain());
    expect(domains.map((d) => d.id)).toEqual([2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    expect(codeOf(() => driver.createDomain())).toBe('ENOSPC');
    domains[5]!.free();
    expect(driver.createDomain().id).toBe(7);
  });

  test('misuse', () => {
    const { driver, domain } = withDomain();
    const foreign = createVtdIommu().driver;
    expect(codeOf(() => driver.attach(0x1_0000, domain))).toBe('ERANGE');
    expect(codeOf(() => driver.attach(-1, domain))).toBe('ERANGE');
    expect(codeOf(() => driver.attach(0.5, domain))).toBe('ERANGE');
    expect(codeOf(() => foreign.attach(0, domain))).toBe('EINVAL');
    expect(codeOf(() => foreign.attach(0, driver.identityDomain))).toBe('EINVAL');
    expect(codeOf(() => domain.free())).toBe('EBUSY');
    expect(codeOf(() => driver.release())).toBe('EBUSY');
    driver.detach(SID);
    domain.free();
    expect(codeOf(() => driver.attach(SID, domain))).toBe('EINVAL');
    const noPassThrough = createVtdIommu({ preset: { ...SERVER, ecap: SERVER.ecap & ~0x40n } }).driver;
    expect(codeOf(() => noPassThrough.attach(SID, noPassThrough.identityDomain))).toBe('EOPNOTSUPP');
    expect(codeOf(() => createVtdIommu({ preset: { ...SERVER, cap: SERVER.cap & ~0x1f00n } }))).toBe('ENODEV');
  });

  test('a lazy domain: a device keeps its stale translation until the flush', () => {
    const { driver, bus, clock } = createVtdIommu({ iotlb: { mode: 'unbounded' } });
    const domain = driver.createDomain({ mode: 'lazy' });
    driver.attach(SID, domain);
    const device = bus.device(SID);
    domain.map(0x5000n, 0x8000_0000n, 0x1000n, RW);
    device.write(0x5000n, Uint8Array.of(1));
    const before = driver.info.invalidationCommands;
    domain.unmap(0x5000n, 0x1000n);
    expect(device.read(0x5000n, 1).ok).toBe(true);
    clock.advance(10_000_000);
    expect(driver.info.invalidationCommands - before).toBe(1);
    expect(device.read(0x5000n, 1).ok).toBe(false);
  });

  test('release gives every page back and lets DMA pass', () => {
    const system = withDomain();
    const { driver, domain, pages, device } = system;
    domain.map(0n, 0x8000_0000n, 0x40_1000n, RW);
    driver.attach(0x1234, domain);
    driver.attach(0x4321, driver.identityDomain);
    expect(pages.nrIommuPages()).toBeGreaterThan(8);
    driver.detach(SID);
    driver.detach(0x1234);
    domain.free();
    driver.release();
    driver.release();
    expect(pages.nrIommuPages()).toBe(0);
    expect(system.hardware.registers.read(0x1c, 4)).toBe(0x4000_0000n);
    expect(device.read(0x8000_0000n, 4).ok).toBe(true);
  });
});

test('a write buffer that must be flushed is', () => {
  const rwbf = { ...SERVER, cap: SERVER.cap | 0x10n };
  const system = createVtdIommu({ preset: rwbf });
  const log = watched(system);
  system.driver.attach(SID, system.driver.identityDomain);
  expect(log.filter(([, offset, value]) => offset === 0x18 && value === 0x8c00_0000).length).toBeGreaterThan(0);
});
