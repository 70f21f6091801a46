/** The driver against the hardware: what the common suite does not know of, because it is this architecture's own. */
import { Bus, VirtualClock } from '@iommu-ts/iommu-core';
import type { MmioPort, PagingDomain } from '@iommu-ts/iommu-core';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { PROT, PageTable } from '@iommu-ts/page-table';
import { describe, expect, test } from 'vitest';
import {
  ArmSmmuDriver,
  PRESETS,
  SmmuV3,
  createArmSmmuIommu,
  decodeCommand,
  inspectStream,
  presetIds,
} from '../src/index.ts';
import type { ArmSmmuSystem, PresetName } from '../src/index.ts';

const RW = PROT.READ | PROT.WRITE;
const byte = Uint8Array.of(1);

/** Commands that the driver put into its queue, read out of memory when CMDQ_PROD is written. */
const commandsOf = (system: ArmSmmuSystem, run: () => void): string[] => {
  const { hardware, memory } = system;
  const names: string[] = [];
  const base = hardware.registers.get64(0x90) & 0xf_ffff_ffff_ffe0n;
  let at = hardware.mmio.read32(0x98);
  const write32 = hardware.registers.write32.bind(hardware.registers);
  hardware.registers.write32 = (offset, value) => {
    const end = offset === 0x98 ? value : at;
    for (; at !== end; at = (at + 1) & 0x1ff) {
      const entry = base + BigInt((at & 0xff) * 16);
      const words = [0n, 4n, 8n, 12n].map((i) => Number(memory.read(entry + i, 4)));
      const { name, fields } = decodeCommand(words);
      const va = name.startsWith('CMD_TLBI') && fields['Address'] !== undefined ? fields['Address'] << 12n : 0n;
      const range =
        fields['TG'] === 0n || fields['TG'] === undefined
          ? ''
          : ` ${fields['NUM']}/${fields['SCALE']}/${fields['TTL']}`;
      names.push(
        `${name.slice(4)}${va === 0n && !name.includes('VA') ? '' : ` ${va.toString(16)}`}${range}${fields['Leaf'] === 1n ? ' leaf' : ''}`,
      );
    }
    write32(offset, value);
  };
  run();
  hardware.registers.write32 = write32;
  return names;
};

describe('what is sent', () => {
  test('attach: V = 0 is never mixed with new fields; detach', () => {
    const system = createArmSmmuIommu({ preset: 'stage1' });
    const { driver } = system;
    const a = driver.createDomain();
    const b = driver.createDomain();
    // A new second-level table, the fields, then the word with V.
    expect(commandsOf(system, () => driver.attach(0x1234, a))).toEqual([
      'CFGI_STE',
      'SYNC',
      'CFGI_STE leaf',
      'SYNC',
      'CFGI_STE leaf',
      'SYNC',
    ]);
    // From one stage 1 domain to another only one word changes: hitless.
    expect(commandsOf(system, () => driver.attach(0x1234, b))).toEqual(['CFGI_STE leaf', 'SYNC']);
    expect(commandsOf(system, () => driver.attach(0x1234, b))).toEqual([]);
    expect(commandsOf(system, () => driver.attach(0x1234, driver.identityDomain)).length).toBe(6);
    expect(commandsOf(system, () => driver.attach(0x1234, driver.blockedDomain)).length).toBe(6);
    expect(commandsOf(system, () => driver.detach(0x1234))).toEqual(['CFGI_STE leaf', 'SYNC']);
    expect(commandsOf(system, () => driver.detach(0x1234))).toEqual([]);
  });

  test('unmap without RIL: a command a page, the whole ASID beyond 512', () => {
    const system = createArmSmmuIommu({ preset: 'stage1' });
    const domain = system.driver.createDomain();
    domain.map(0x10_0000n, 0x4000_1000n, 0x40_0000n, RW);
    const unmap = (iova: bigint, size: bigint): string[] => commandsOf(system, () => domain.unmap(iova, size));
    expect(unmap(0x10_0000n, 0x3000n)).toEqual([
      'TLBI_NH_VA 100000 leaf',
      'TLBI_NH_VA 101000 leaf',
      'TLBI_NH_VA 102000 leaf',
      'SYNC',
    ]);
    expect(unmap(0x10_3000n, 0x20_0000n).length).toBe(513); // 512 pages: the queue of 256 wraps twice
    expect(unmap(0x30_3000n, 0x1f_d000n).length).toBe(0x1fe);
    domain.map(0x10_0000n, 0x4000_1000n, 0x20_1000n, RW);
    expect(unmap(0x10_0000n, 0x20_1000n)).toEqual(['TLBI_NH_ASID', 'SYNC']);
    domain.map(0x4000_0000n, 0x4000_0000n, 0x60_0000n, RW);
    expect(unmap(0x4000_0000n, 0x40_0000n)).toEqual(['TLBI_NH_VA 40000000 leaf', 'TLBI_NH_VA 40200000 leaf', 'SYNC']);
  });

  test('unmap with RIL: ranges, smallest scale first, with the level', () => {
    const system = createArmSmmuIommu();
    const domain = system.driver.createDomain();
    domain.map(0x10_0000n, 0x4000_1000n, 0x40_0000n, RW);
    const unmap = (iova: bigint, size: bigint): string[] => commandsOf(system, () => domain.unmap(iova, size));
    expect(unmap(0x10_0000n, 0x1000n)).toEqual(['TLBI_NH_VA 100000 0/0/3 leaf', 'SYNC']);
    // 0x123 = 3 + 9 * 32 pages.
    expect(unmap(0x10_1000n, 0x12_3000n)).toEqual([
      'TLBI_NH_VA 101000 2/0/3 leaf',
      'TLBI_NH_VA 104000 8/5/3 leaf',
      'SYNC',
    ]);
    domain.map(0x4000_0000n, 0x4000_0000n, 0x60_0000n, RW);
    expect(unmap(0x4000_0000n, 0x60_0000n)).toEqual(['TLBI_NH_VA 40000000 2/9/2 leaf', 'SYNC']);
  });

  test('stage 2: by IPA, by VMID', () => {
    const system = createArmSmmuIommu({ preset: 'stage2' });
    const domain = system.driver.createDomain({ mode: 'lazy' });
    domain.map(0x10_0000n, 0x4000_1000n, 0x4000n, RW);
    const strict = system.driver.createDomain();
    strict.map(0x10_0000n, 0x4000_1000n, 0x4000n, RW);
    expect(commandsOf(system, () => strict.unmap(0x10_0000n, 0x2000n))).toEqual([
      'TLBI_S2_IPA 100000 0/1/3 leaf',
      'SYNC',
    ]);
    expect(commandsOf(system, () => domain.unmap(0x10_0000n, 0x2000n))).toEqual([]);
    expect(commandsOf(system, () => domain.flush())).toEqual(['TLBI_S12_VMALL', 'SYNC']);
  });

  test('mapping over a table frees it after a walk-cache invalidation (no leaf)', () => {
    const system = createArmSmmuIommu();
    const domain = system.driver.createDomain();
    domain.map(0x4000_0000n, 0x5000_0000n, 0x1000n, RW);
    domain.unmap(0x4000_0000n, 0x1000n);
    const sent = commandsOf(system, () => domain.map(0x4000_0000n, 0x5000_0000n, 0x20_0000n, RW));
    expect(sent.some((name) => name.startsWith('TLBI')) && !sent.some((name) => name.endsWith('leaf'))).toBe(true);
  });
});

describe('faults', () => {
  test('every kind, decoded', () => {
    const { driver, bus, memory } = createArmSmmuIommu();
    const domain = driver.createDomain();
    driver.attach(0x18, domain);
    domain.map(0x10_0000n, 0x4000_0000n, 0x1000n, PROT.READ);
    domain.map(0x20_0000n, 0x4000_0000n, 0x1000n, RW | PROT.PRIV);
    domain.map(0x30_0000n, 0x4000_0000n, 0x1000n, RW);
    const leaf = domain.table.walk(0x30_0000n).steps.at(-1)!.entryPa;
    memory.writeU64(leaf, memory.readU64(leaf) & ~(1n << 10n));
    const device = bus.device(0x18);
    for (const iova of [0x10_0000n, 0x20_0004n, 0x30_0008n, 0x40_000cn, 1n << 48n]) device.write(iova, byte);
    bus.device(0x19).write(0x10_0000n, byte);
    bus.device(0x7000).read(0x10_0000n, 1);
    expect(driver.handleFaults().map((e) => [e.name, e.code, e.requester, e.iova, e.access])).toEqual([
      ['F_PERMISSION', 0x13, 0x18, 0x10_0000n, 'write'],
      ['F_PERMISSION', 0x13, 0x18, 0x20_0004n, 'write'],
      ['F_ACCESS', 0x12, 0x18, 0x30_0008n, 'write'],
      ['F_TRANSLATION', 0x10, 0x18, 0x40_000cn, 'write'],
      ['F_TRANSLATION', 0x10, 0x18, 1n << 48n, 'write'],
      ['C_BAD_STE', 0x04, 0x19, 0n, 'unknown'],
      ['C_BAD_STREAMID', 0x02, 0x7000, 0n, 'unknown'],
    ]);
    expect(driver.handleFaults()).toEqual([]);
  });

  test('overflow is seen, acknowledged, and over', () => {
    const { driver, bus, hardware } = createArmSmmuIommu();
    for (let i = 0; i < 300; i++) bus.device(i).read(0n, 1);
    expect(driver.handleFaults().length).toBe(128);
    expect(driver.overflows).toBe(1);
    bus.device(5).read(0n, 1);
    expect(driver.handleFaults().map((e) => e.requester)).toEqual([5]);
    expect(driver.overflows).toBe(1);
    expect(hardware.mmio.read32(0x100a8) & 0x8000_0000).toBe(hardware.mmio.read32(0x100ac) & 0x8000_0000);
  });

  test('a global error is acknowledged', () => {
    const { driver, bus, hardware } = createArmSmmuIommu();
    hardware.mmio.write32(0x20, 0x9);
    hardware.mmio.write64(0xa0, 0x1000, 7);
    hardware.mmio.write32(0x20, 0xd);
    bus.device(0).read(0n, 1);
    expect(hardware.mmio.read32(0x60)).toBe(4);
    hardware.mmio.write64(0xa0, 0, 0);
    driver.handleFaults();
    expect(hardware.mmio.read32(0x64)).toBe(4);
  });
});

test.each(Object.keys(PRESETS) as PresetName[])('preset %s drives', (preset) => {
  const { driver, bus, pages, memory } = createArmSmmuIommu({
    preset,
    ...(preset === 'wide' ? { granuleLg2: 16 } : {}),
  });
  const wide = preset === 'wide';
  expect(driver.info.apertureLast).toBe((1n << (wide ? 52n : preset === 'stage2' ? 44n : 48n)) - 1n);
  expect(driver.info.oas).toBe(wide ? 52 : preset === 'qemu' || preset === 'stage2' ? 44 : 48);
  const domain = driver.createDomain();
  driver.attach(7, domain);
  const last = driver.info.apertureLast + 1n - 0x1_0000n;
  domain.map(last, 0x4000_0000n, 0x1_0000n, RW);
  memory.writeBytes(0x4000_fff0n, Uint8Array.of(1, 2, 3));
  expect(bus.device(7).read(last + 0xfff0n, 3).data).toEqual(Uint8Array.of(1, 2, 3));
  driver.detach(7);
  domain.free();
  driver.release();
  driver.release();
  expect(pages.nrIommuPages()).toBe(0);
});

test.each([12, 14, 16] as const)('granule 2^%i, both stages, and what a dump would show', (granuleLg2) => {
  for (const stage of [1, 2] as const) {
    const { driver, bus, memory, hardware } = createArmSmmuIommu({ granuleLg2, stage });
    const domain = driver.createDomain();
    driver.attach(0x321, domain);
    const size = 1n << BigInt(granuleLg2);
    const big = driver.info.pageSizes & ~(size - 1n) & ~size;
    const block = big & -big;
    domain.map(block, 0x4000_0000n, block + size, PROT.WRITE);
    expect(bus.device(0x321).write(2n * block - 1n, Uint8Array.of(9, 8))).toMatchObject({ ok: true });
    expect(bus.device(0x321).read(block, 4).ok).toBe(stage === 1); // stage 2 keeps write-only apart
    const names: Readonly<Record<string, number>> = { CR0: 0x20, IDR5: 0x14, STRTAB_BASE_CFG: 0x88 };
    const register = (name: string): bigint | undefined =>
      name === 'STRTAB_BASE' ? hardware.registers.get64(0x80) : BigInt(hardware.mmio.read32(names[name] ?? 0x1c));
    const config = inspectStream(memory, register, 0x321);
    expect(config).toMatchObject({ kind: 'paging', domainId: domain.id });
    const leaves = [...PageTable.open(memory, config.tables![0]!.config, config.tables![0]!.root).leaves()];
    expect(leaves.map((l) => [l.iova, l.pa, l.size])).toEqual([
      [block, 0x4000_0000n, block],
      [2n * block, 0x4000_0000n + block, size],
    ]);
    driver.attach(0x321, driver.identityDomain);
    expect(inspectStream(memory, register, 0x321).kind).toBe('identity');
    driver.attach(0x321, driver.blockedDomain);
    expect(inspectStream(memory, register, 0x321).kind).toBe('blocked');
    driver.detach(0x321);
    expect(inspectStream(memory, register, 0x321).kind).toBe('invalid');
  }
});

describe('what cannot be driven', () => {
  const build = (ids: Parameters<typeof presetIds>[0], more: object): (() => unknown) => {
    const memory = new PhysicalMemory([{ base: 0n, size: 1n << 30n }]);
    const pages = new IommuPages(memory, new BuddySource(memory, [{ base: 0n, size: 1n << 28n }]));
    const hardware = new SmmuV3(memory, { ids: presetIds(ids) });
    return () => new ArmSmmuDriver({ mmio: hardware.mmio, memory, pages, clock: new VirtualClock(), ...more });
  };
  test('a stage or granule that is not there', () => {
    expect(build('stage1', { stage: 2 })).toThrow(/no stage 2/);
    expect(build('stage2', { stage: 1 })).toThrow(/no stage 1/);
    expect(build('full', { granuleLg2: 13 })).toThrow(/granule/);
  });

  test('hardware that does not answer', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 1n << 30n }]);
    const pages = new IommuPages(memory, new BuddySource(memory, [{ base: 0n, size: 1n << 28n }]));
    const inner = new SmmuV3(memory, { ids: presetIds('full') });
    // Reads as it should until `dead`; then CMDQ_CONS stands still.
    let dead = false;
    const port: MmioPort = {
      hi: 0,
      lo: 0,
      read32: (offset) => inner.mmio.read32(offset),
      write32: (offset, value) => {
        if (!(dead && offset === 0x98)) inner.mmio.write32(offset, value);
      },
      read64: (offset) => inner.mmio.read64(offset),
      write64: (offset, hi, lo) => inner.mmio.write64(offset, hi, lo),
    };
    const driver = new ArmSmmuDriver({ mmio: port, memory, pages, clock: new VirtualClock() });
    dead = true;
    expect(() => driver.attach(1, driver.identityDomain)).toThrow(expect.objectContaining({ code: 'ETIMEDOUT' }));
    const none: MmioPort = { hi: 0, lo: 0, read32: () => -1, write32: () => {}, read64: () => {}, write64: () => {} };
    expect(() => new ArmSmmuDriver({ mmio: none, memory, pages, clock: new VirtualClock() })).toThrow();
  });

  test('a command that the hardware refuses is reported, and the queue goes on', () => {
    const { driver, bus, hardware, memory } = createArmSmmuIommu();
    driver.commands.issue(0xff, 0, 0, 0);
    expect(() => driver.commands.sync()).toThrow(/refused opcode 0xff: CERROR_ILL/);
    driver.attach(1, driver.identityDomain);
    expect(bus.device(1).write(0x123n, byte).ok).toBe(true);
    expect(memory.read(0x123n, 1)).toBe(1n);
    expect(hardware.mmio.read32(0x60)).toBe(hardware.mmio.read32(0x64));
  });

  test('no memory: nothing is left behind', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 1n << 30n }]);
    const pages = new IommuPages(memory, new BuddySource(memory, [{ base: 0x10_0000n, size: 0xa000n }]));
    const hardware = new SmmuV3(memory, { ids: presetIds('full') });
    const driver = new ArmSmmuDriver({ mmio: hardware.mmio, memory, pages, clock: new VirtualClock() });
    const held = pages.nrIommuPages();
    const domains: PagingDomain[] = [];
    const fill = (): void => {
      for (;;) domains.push(driver.createDomain());
    };
    expect(fill).toThrow(expect.objectContaining({ code: 'ENOMEM' }));
    expect(() => driver.attach(0x4000, driver.identityDomain)).toThrow(expect.objectContaining({ code: 'ENOMEM' }));
    expect(driver.domainOf(0x4000)).toBeNull();
    for (const domain of domains) domain.free();
    expect(pages.nrIommuPages()).toBe(held);
    driver.release();
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('8-bit ASIDs run out after 255', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 1n << 30n }]);
    const pages = new IommuPages(memory, new BuddySource(memory, [{ base: 0n, size: 1n << 28n }]));
    const ids = { ...PRESETS.full, IDR0: PRESETS.full.IDR0 & ~0x1000 };
    const hardware = new SmmuV3(memory, { ids });
    const driver = new ArmSmmuDriver({ mmio: hardware.mmio, memory, pages, clock: new VirtualClock() });
    const domains = Array.from({ length: 255 }, () => driver.createDomain());
    expect(() => driver.createDomain()).toThrow(expect.objectContaining({ code: 'ENOSPC' }));
    domains[100]!.free();
    const again = driver.createDomain();
    expect(again.id).toBe(101);
    driver.attach(1, again);
    again.map(0x1000n, 0x2000_0000n, 0x1000n, RW);
    expect(new Bus(memory, hardware).device(1).write(0x1000n, byte).ok).toBe(true);
  });
});
