/** The driver on the emulated hardware: what it writes to tables, queues and registers, and what becomes of DMA. */
import { IommuError } from '@iommu-ts/bits';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { GatherRecord, PROT } from '@iommu-ts/page-table';
import { describe, expect, test } from 'vitest';
import { AMD_PRESETS, AmdDriver, createAmdIommu } from '../src/index.ts';
import type { AmdSystem, CreateAmdIommuOptions } from '../src/index.ts';

const RW = PROT.READ | PROT.WRITE;
const PA = 0x1_2345_6000n;

const read64 = ({ hardware }: AmdSystem, offset: number): bigint => hardware.registers.get64(offset);
const dte = (system: AmdSystem, id: number): [bigint, bigint] => {
  const at = (read64(system, 0) & 0xf_ffff_ffff_f000n) + BigInt(32 * id);
  return [system.memory.readU64(at), system.memory.readU64(at + 8n)];
};
/** The last `n` commands before the tail pointer, as pairs of quadwords. */
const lastCommands = (system: AmdSystem, n: number): [bigint, bigint][] => {
  const base = read64(system, 0x8) & 0xf_ffff_ffff_f000n;
  const tail = read64(system, 0x2008);
  return Array.from({ length: n }, (_, i) => {
    const at = base + ((tail - BigInt(16 * (n - i))) & 0x1fffn);
    return [system.memory.readU64(at), system.memory.readU64(at + 8n)];
  });
};
const codeOf = (run: () => unknown): string => {
  try {
    run();
    return 'no error';
  } catch (error) {
    return (error as IommuError).code;
  }
};
const writes = (system: AmdSystem, id: number, iova: bigint) =>
  system.bus.device(id).write(iova, Uint8Array.of(1, 2, 3, 4));

/** A system with device 0x18 in a paging domain. */
const attached = (options: CreateAmdIommuOptions = {}) => {
  const system = createAmdIommu({ lastDeviceId: 255, ...options });
  const domain = system.driver.createDomain();
  system.driver.attach(0x18, domain);
  return { system, domain };
};

describe('probe and enable', () => {
  test('registers as a boot leaves them', () => {
    const system = createAmdIommu();
    // 2 MiB of device table, rings of 512 entries, everything running, IASup used for a clean start.
    expect(read64(system, 0x0) & 0x1ffn).toBe(0x1ffn);
    expect(read64(system, 0x8) >> 56n).toBe(9n);
    expect(read64(system, 0x10) >> 56n).toBe(9n);
    expect(read64(system, 0x18)).toBe(0x148dn);
    expect(read64(system, 0x2020)).toBe(0x18n);
    expect(lastCommands(system, 2)[0]).toEqual([0x8000_0000_0000_0000n, 0n]);
    expect(system.driver.info).toMatchObject({
      name: 'amd',
      format: 'amdv1-va64',
      apertureLast: 0xffff_ffff_ffff_ffffn,
      oas: 52,
      requesters: 0x1_0000,
      writeOnly: true,
      rules: 'generic_pt',
    });
    expect(dte(system, 0)).toEqual([1n, 0n]);
    expect(dte(system, 0xffff)).toEqual([1n, 0n]);
  });

  test('levels by HATS', () => {
    expect(createAmdIommu({ preset: 'small', lastDeviceId: 15 }).driver.info.apertureLast).toBe(0xffff_ffff_ffffn);
    const five = createAmdIommu({
      preset: { efr: (1n << 10n) | (1n << 6n), efr2: 0n, iotlbSup: false },
      lastDeviceId: 15,
    });
    expect(five.driver.info).toMatchObject({ format: 'amdv1-va57', apertureLast: (1n << 57n) - 1n });
  });

  test('without IASup every entry and every domain is invalidated one by one', () => {
    const preset = { ...AMD_PRESETS.default, efr: 2n << 10n };
    const system = createAmdIommu({ preset, lastDeviceId: 255, lastDomainId: 20 });
    expect(system.hardware.stats).toMatchObject({ invalidations: 21, commands: 256 + 21 + 1 });
    const domain = system.driver.createDomain();
    system.driver.attach(9, domain);
    domain.map(0x1000n, PA, 0x1000n, RW);
    expect(writes(system, 9, 0x1000n).ok).toBe(true);
  });

  test('a device table for fewer devices', () => {
    const system = createAmdIommu({ lastDeviceId: 200 });
    expect(read64(system, 0x0) & 0x1ffn).toBe(1n);
    expect(system.driver.info.requesters).toBe(201);
    system.driver.attach(200, system.driver.identityDomain);
    expect(writes(system, 200, PA).ok).toBe(true);
    expect(codeOf(() => system.driver.attach(201, system.driver.identityDomain))).toBe('ERANGE');
    expect(codeOf(() => system.driver.attach(-1, system.driver.identityDomain))).toBe('ERANGE');
    // An id beyond the table, and one in the table's last page that no device has.
    expect(writes(system, 0x400, PA)).toMatchObject({ ok: false, code: 2 });
    expect(system.driver.handleFaults()[0]).toMatchObject({ name: 'IO_PAGE_FAULT', requester: 0x400 });
    for (const lastDeviceId of [-1, 0x1_0000, 1.5])
      expect(codeOf(() => createAmdIommu({ lastDeviceId }))).toBe('ERANGE');
    expect(codeOf(() => createAmdIommu({ lastDomainId: 0 }))).toBe('ERANGE');
  });

  test('no memory for the tables: nothing stays allocated', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 1n << 20n }]);
    const pages = new IommuPages(memory, new BuddySource(memory));
    expect(codeOf(() => createAmdIommu({ memory, pages }))).toBe('ENOMEM');
    expect(pages.nrIommuPages()).toBe(0);
  });
});

describe('attach', () => {
  test('entries of each kind of domain', () => {
    const system = createAmdIommu();
    const { driver } = system;
    const domain = driver.createDomain();
    driver.attach(0x18, domain);
    expect(dte(system, 0x18)).toEqual([0x6000_0000_0000_0603n | domain.table.root, BigInt(domain.id)]);
    expect(lastCommands(system, 2)[0]).toEqual([0x2000_0000_0000_0018n, 0n]);
    driver.attach(0x18, driver.identityDomain);
    expect(dte(system, 0x18)).toEqual([0x6000_0000_0000_0003n, 0n]);
    expect(domain.attachCount).toBe(0);
    driver.attach(0x18, driver.blockedDomain);
    expect(dte(system, 0x18)).toEqual([3n, 0n]);
    expect(writes(system, 0x18, PA)).toMatchObject({ ok: false, code: 2 });
    driver.detach(0x18);
    expect(dte(system, 0x18)).toEqual([1n, 0n]);
    expect(writes(system, 0x18, PA)).toMatchObject({ ok: false, code: 2 });
    const events = driver.handleFaults();
    // Blocked: present, not permitted. Detached: not configured.
    expect(events.map((e) => [e.fields['PR'], e.fields['PE'], e.requester, e.iova])).toEqual([
      [1n, 1n, 0x18, PA],
      [0n, 0n, 0x18, PA],
    ]);
  });

  test('a top that grows: the entries of all attached devices follow', () => {
    const system = createAmdIommu();
    const { driver, bus } = system;
    const domain = driver.createDomain();
    driver.attach(1, domain);
    driver.attach(2, domain);
    driver.attach(3, driver.createDomain());
    const third = dte(system, 3);
    domain.map(0x1000n, PA, 0x1000n, RW);
    expect(writes(system, 1, 0x1000n).ok).toBe(true);
    let mode = 3n;
    for (const [iova, expected] of [
      [0x7f_ffff_f000n, 3n],
      [0x80_0000_0000n, 4n],
      [0x1_0000_0000_0000n, 5n],
      [0xffff_ffff_ffff_f000n, 6n],
    ] as const) {
      domain.map(iova, PA + 0x1000n, 0x1000n, RW);
      mode = expected;
      for (const id of [1, 2]) {
        expect(dte(system, id)).toEqual([0x6000_0000_0000_0003n | (mode << 9n) | domain.table.root, BigInt(domain.id)]);
        expect(bus.device(id).write(iova, Uint8Array.of(9, Number(mode))).ok).toBe(true);
        expect(system.memory.readBytes(PA + 0x1000n, 2)).toEqual(Uint8Array.of(9, Number(mode)));
        expect(writes(system, id, 0x1000n).ok).toBe(true);
      }
    }
    expect(dte(system, 3)).toEqual(third);
    expect(driver.handleFaults()).toEqual([]);
    domain.unmap(0xffff_ffff_ffff_f000n, 0x1000n);
    expect(writes(system, 1, 0xffff_ffff_ffff_f000n).ok).toBe(false);
  });

  test('misuse', () => {
    const { driver } = createAmdIommu({ lastDeviceId: 15 });
    const other = createAmdIommu({ lastDeviceId: 15 }).driver;
    expect(codeOf(() => driver.attach(1, other.createDomain()))).toBe('EINVAL');
    expect(codeOf(() => driver.attach(1, other.identityDomain))).toBe('EINVAL');
    const domain = driver.createDomain();
    driver.attach(1, domain);
    driver.attach(1, domain);
    expect(domain.attachCount).toBe(1);
    expect(codeOf(() => domain.free())).toBe('EBUSY');
    driver.detach(1);
    driver.detach(1);
    domain.free();
    expect(codeOf(() => driver.attach(1, domain))).toBe('EINVAL');
  });

  test('domain ids run out and come back', () => {
    const { driver } = createAmdIommu({ lastDomainId: 3, lastDeviceId: 15 });
    const domains = [driver.createDomain(), driver.createDomain(), driver.createDomain()];
    expect(domains.map((d) => d.id)).toEqual([1, 2, 3]);
    expect(codeOf(() => driver.createDomain())).toBe('ENOSPC');
    domains[1]!.free();
    expect(driver.createDomain().id).toBe(2);
  });
});

describe('invalidation', () => {
  test.each<[string, bigint, bigint, bigint]>([
    ['one page', 0x4000n, 0x4000n, 0x4000n | 2n],
    ['two pages of one pair', 0x4000n, 0x5000n, 0x4000n | 3n],
    ['two pages of two pairs', 0x5000n, 0x6000n, 0x5000n | 3n],
    ['sixteen pages', 0x1_0000n, 0x1_f000n, 0x1_7000n | 3n],
    ['across 2 GiB', 0x7fff_f000n, 0x8000_0000n, 0x7fff_f000n | 3n],
    ['across 4 GiB', 0xffff_f000n, 0x1_0000_0000n, 0xffff_f000n | 3n],
    ['across 8 GiB', 0x1_ffff_f000n, 0x2_0000_0000n, 0x1_ffff_f000n | 3n],
    ['across 2^62', 0x3fff_ffff_ffff_f000n, 0x4000_0000_0000_0000n, 0x3fff_ffff_ffff_f000n | 3n],
    ['across 2^63', 0x7fff_ffff_ffff_f000n, 0x8000_0000_0000_0000n, 0x7fff_ffff_ffff_f000n | 3n],
  ])('%s', (_, first, last, second) => {
    const system = createAmdIommu({ lastDeviceId: 15 });
    const domain = system.driver.createDomain();
    const gather = new GatherRecord();
    gather.add(Number(first >> 12n), Number(last >> 12n));
    domain.iotlbSync(gather);
    const [command, wait] = lastCommands(system, 2);
    expect(command).toEqual([0x3000_0000_0000_0000n | (BigInt(domain.id) << 32n), second]);
    // S=1, and the store really happened.
    expect(wait![0] >> 60n).toBe(1n);
    expect(wait![0] & 7n).toBe(1n);
    expect(system.memory.readU64(wait![0] & 0xf_ffff_ffff_fff8n)).toBe(wait![1]);
  });

  test('the whole domain, as Linux writes it', () => {
    const system = createAmdIommu({ lastDeviceId: 15 });
    const domains = [1, 2, 3].map(() => system.driver.createDomain());
    domains[2]!.ops.flushIotlbAll(domains[2]!);
    expect(lastCommands(system, 2)[0]).toEqual([0x3000_0003_0000_0000n, 0x7fff_ffff_ffff_f003n]);
  });

  test('the command buffer wraps around many times', () => {
    const system = createAmdIommu({ lastDeviceId: 15 });
    const domain = system.driver.createDomain();
    system.driver.attach(1, domain);
    for (let i = 0; i < 1500; i++) {
      domain.map(0x1000n, PA + (BigInt(i) << 12n), 0x1000n, RW);
      expect(writes(system, 1, 0x1000n).ok).toBe(true);
      expect(system.memory.readBytes(PA + (BigInt(i) << 12n), 4)).toEqual(Uint8Array.of(1, 2, 3, 4));
      domain.unmap(0x1000n, 0x1000n);
    }
    expect(system.hardware.stats.commands).toBeGreaterThan(3000);
    expect(system.driver.info.invalidationCommands).toBe(1501);
  });

  test('hardware that has stopped: ETIMEDOUT, with the reason', () => {
    const system = createAmdIommu({ lastDeviceId: 15 });
    const domain = system.driver.createDomain();
    domain.map(0x1000n, PA, 0x1000n, RW);
    // Somebody switches the command buffer off.
    system.hardware.mmio.write64(0x18, 0, 0x48d);
    let error: unknown;
    try {
      domain.unmap(0x1000n, 0x1000n);
    } catch (caught) {
      error = caught;
    }
    expect((error as IommuError).code).toBe('ETIMEDOUT');
    expect((error as IommuError).message).toContain('stopped fetching');
  });

  test('lazy mode flushes the domain once for many unmaps', () => {
    const system = createAmdIommu({ mode: 'lazy', lastDeviceId: 15 });
    const domain = system.driver.createDomain();
    system.driver.attach(1, domain);
    const before = system.driver.info.invalidationCommands;
    for (let i = 0n; i < 64n; i++) domain.map(i << 12n, PA + (i << 13n), 0x1000n, RW);
    for (let i = 0n; i < 64n; i++) {
      expect(writes(system, 1, i << 12n).ok).toBe(true);
      domain.unmap(i << 12n, 0x1000n);
      expect(writes(system, 1, i << 12n).ok, 'still cached').toBe(true);
    }
    expect(system.driver.info.invalidationCommands).toBe(before);
    system.clock.advance(20_000_000);
    expect(system.driver.info.invalidationCommands).toBe(before + 1);
    for (let i = 0n; i < 64n; i++) expect(writes(system, 1, i << 12n).ok).toBe(false);
  });
});

describe('faults', () => {
  test('each kind, decoded', () => {
    const { system, domain } = attached({ preset: 'small' });
    const device = system.bus.device(0x18);
    domain.map(0x1000n, PA, 0x1000n, PROT.READ);
    domain.map(0x2000n, PA, 0x1000n, PROT.WRITE);
    domain.map(0x3000n, PA, 0x1000n, RW);
    const leaf = domain.table.walk(0x3000n).steps.at(-1)!.entryPa;
    system.memory.writeU64(leaf, system.memory.readU64(leaf) | (1n << 55n));
    device.read(0xdead_0000n, 4);
    device.write(0x1008n, Uint8Array.of(1));
    device.read(0x2004n, 1);
    device.read(0x3000n, 1);
    device.write(1n << 48n, Uint8Array.of(1));
    system.bus.device(0x20).write(0x1000n, Uint8Array.of(1));
    system.bus.device(0x18, 77).read(0x1000n, 4);
    const events = system.driver.handleFaults();
    expect(
      events.map((e) => [
        e.name,
        e.requester,
        e.pasid,
        e.iova,
        e.access,
        e.fields['PR'],
        e.fields['RZ'],
        e.fields['PE'],
      ]),
    ).toEqual([
      ['IO_PAGE_FAULT', 0x18, -1, 0xdead_0000n, 'read', 0n, 0n, 0n],
      ['IO_PAGE_FAULT', 0x18, -1, 0x1008n, 'write', 1n, 0n, 1n],
      ['IO_PAGE_FAULT', 0x18, -1, 0x2004n, 'read', 1n, 0n, 1n],
      ['IO_PAGE_FAULT', 0x18, -1, 0x3000n, 'read', 1n, 1n, 0n],
      ['IO_PAGE_FAULT', 0x18, -1, 1n << 48n, 'write', 0n, 0n, 0n],
      ['IO_PAGE_FAULT', 0x20, -1, 0x1000n, 'write', 0n, 0n, 0n],
      ['IO_PAGE_FAULT', 0x18, 77, 0x1000n, 'read', 0n, 0n, 0n],
    ]);
    expect(events[1]!.fields['DomainID']).toBe(BigInt(domain.id));
    expect(events[1]!.text).toBe('IO_PAGE_FAULT: write address 0x1008 by device 0x18, not permitted');
    expect(system.driver.handleFaults()).toEqual([]);
  });

  test('an overflow: what the log holds is read, logging is restarted', () => {
    const { system } = attached();
    const device = system.bus.device(0x18);
    for (let i = 0n; i < 600n; i++) device.read(i << 12n, 4);
    expect(read64(system, 0x2020) & 9n).toBe(1n);
    const events = system.driver.handleFaults();
    expect(events.map((e) => e.iova >> 12n)).toEqual(Array.from({ length: 511 }, (_, i) => BigInt(i)));
    expect(read64(system, 0x2020)).toBe(0x18n);
    for (let i = 0n; i < 5n; i++) device.read((700n + i) << 12n, 4);
    expect(system.driver.handleFaults().map((e) => e.iova >> 12n)).toEqual([700n, 701n, 702n, 703n, 704n]);
  });

  test('the interrupt comes with the first event after each acknowledgement', () => {
    const { system } = attached();
    const seen: string[] = [];
    system.hardware.onInterrupt = (source) => seen.push(source);
    for (let round = 0; round < 3; round++) {
      for (let i = 0n; i < 4n; i++) system.bus.device(0x18).read(i << 12n, 4);
      expect(system.driver.handleFaults()).toHaveLength(4);
    }
    expect(seen).toEqual(['fault', 'fault', 'fault']);
  });
});

describe('release', () => {
  test('everything goes back, the unit is off', () => {
    const system = createAmdIommu();
    const { driver, pages } = system;
    const domain = driver.createDomain();
    driver.attach(1, domain);
    driver.attach(2, driver.identityDomain);
    domain.map(0n, 0n, 0x4000_0000n, RW);
    domain.map(0xffff_0000_0000_0000n, PA, 0x1000n, RW);
    expect(codeOf(() => driver.release())).toBe('EBUSY');
    driver.detach(1);
    domain.free();
    driver.release();
    driver.release();
    expect(pages.nrIommuPages()).toBe(0);
    expect(pages.nrSecPageTablePages).toBe(0);
    expect([0x0, 0x8, 0x10, 0x18, 0x2020].map((r) => read64(system, r))).toEqual([0n, 0n, 0n, 0n, 0n]);
    expect(writes(system, 77, PA).ok, 'nothing is translated any more').toBe(true);
    expect(codeOf(() => driver.createDomain())).toBe('ENODEV');
    expect(codeOf(() => driver.handleFaults())).toBe('ENODEV');
  });

  test('another driver can take the unit over', () => {
    const first = createAmdIommu({ lastDeviceId: 15 });
    first.bus.device(1).read(0n, 4);
    first.driver.release();
    const { memory, pages, clock, hardware } = first;
    const driver = new AmdDriver({ memory, pages, clock, mmio: hardware.mmio, lastDeviceId: 15 });
    expect(driver.handleFaults()).toEqual([]);
    driver.attach(1, driver.identityDomain);
    expect(writes(first, 1, PA).ok).toBe(true);
    expect(writes(first, 2, PA).ok).toBe(false);
    expect(driver.handleFaults()).toHaveLength(1);
  });
});

test('reserved regions: the MSI window and the special addresses of HyperTransport', () => {
  const { driver } = createAmdIommu({ lastDeviceId: 15 });
  expect(driver.reservedRegions().map(({ start, last, type }) => [start, last, type])).toEqual([
    [0xfee0_0000n, 0xfeef_ffffn, 'msi'],
    [0xfd_0000_0000n, 0xff_ffff_ffffn, 'reserved'],
  ]);
});

test('a walker that does not snoop is refused: there is no such unit', () => {
  expect(codeOf(() => createAmdIommu({ lastDeviceId: 15, incoherentWalker: true }))).toBe('EOPNOTSUPP');
  expect(codeOf(() => createAmdIommu({ lastDeviceId: 15, incoherentWalker: false }))).toBe('no error');
});
