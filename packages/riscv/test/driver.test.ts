/** The driver on its hardware: what the common suite does not know about a RISC-V IOMMU. */
import { IommuError } from '@iommu-ts/bits';
import { ACCESS, createMachine } from '@iommu-ts/iommu-core';
import { PROT } from '@iommu-ts/page-table';
import { describe, expect, test } from 'vitest';
import { createRiscvIommu } from '../src/create.ts';
import { RiscvIommuDriver } from '../src/driver/driver.ts';
import { RiscvIommuHardware } from '../src/hardware/unit.ts';

const RW = PROT.READ | PROT.WRITE | PROT.CACHE;

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return error instanceof IommuError ? error.code : String(error);
  }
  return 'nothing thrown';
};

describe('probe', () => {
  test.each([
    [4, 3, 0x100_0000],
    [3, 2, 0x8000],
    [2, 1, 0x40],
  ])('a directory as deep as the hardware takes (mode %i)', (maxIommuMode, levels, devices) => {
    const { driver, hardware, bus } = createRiscvIommu({ hardware: { maxIommuMode } });
    expect(driver.ddtLevels).toBe(levels);
    expect(driver.info.requesters).toBe(devices);
    hardware.mmio.read64(16);
    expect(hardware.mmio.lo & 0xf).toBe(maxIommuMode);
    const domain = driver.createDomain();
    driver.attach(devices - 1, domain);
    domain.map(0x1000n, 0x40_0000n, 0x1000n, RW);
    expect(bus.device(devices - 1).write(0x1000n, Uint8Array.of(1)).ok).toBe(true);
    expect(bus.device(devices - 2).write(0x1000n, Uint8Array.of(1)).code).toBe(258);
    expect(bus.device(devices).write(0x1000n, Uint8Array.of(1)).code).toBe(260);
  });

  test('the widest first stage, or the one asked for', () => {
    for (const [capabilities, addressBits, format] of [
      [undefined, undefined, 'sv57'],
      [undefined, 48, 'sv48'],
      [undefined, 39, 'sv39'],
      [0x38_0000_0610n, undefined, 'sv48'],
      [0x38_0000_0210n, 57, 'sv39'],
    ] as const) {
      const { driver, bus } = createRiscvIommu({
        hardware: capabilities === undefined ? {} : { capabilities },
        driver: addressBits === undefined ? {} : { addressBits },
      });
      expect(driver.info.format).toBe(format);
      const domain = driver.createDomain();
      driver.attach(7, domain);
      const last = driver.info.apertureLast - 0xfffn;
      domain.map(last, 0x40_0000n, 0x1000n, RW);
      expect(bus.device(7).write(last, Uint8Array.of(1)).ok).toBe(true);
      expect(bus.device(7).write(last + 0x1000n, Uint8Array.of(1)).code).toBe(15);
      expect(domain.table.pageSizes).toBe(driver.info.pageSizes);
    }
  });

  test('what it cannot drive', () => {
    expect(codeOf(() => createRiscvIommu({ hardware: { capabilities: 0x38_0000_0010n } }))).toBe('EOPNOTSUPP');
    expect(codeOf(() => createRiscvIommu({ incoherentWalker: true }))).toBe('EOPNOTSUPP');
    expect(codeOf(() => createRiscvIommu({ hardware: { capabilities: 0x38_0000_0e20n } }))).toBe('ENODEV');
  });

  test('base-format device contexts, small queues, wires', () => {
    const { driver, hardware, bus, pages } = createRiscvIommu({
      preset: 'linux-minimal',
      hardware: { queueLog2szMax: 2, capabilities: 0x38_1000_0e10n },
    });
    const sources: string[] = [];
    hardware.onInterrupt = (source) => sources.push(source);
    hardware.mmio.read64(24);
    expect(hardware.mmio.lo & 0x1f).toBe(2);
    const domain = driver.createDomain();
    driver.attach(300, domain);
    // 100 leaves, an invalidation each, through a ring of 8 commands.
    for (let i = 0n; i < 100n; i++) domain.map(i * 0x1000n, 0x40_0000n + i * 0x2000n, 0x1000n, RW);
    for (let i = 0n; i < 100n; i++) expect(bus.device(300).write(i * 0x1000n, Uint8Array.of(1)).ok).toBe(true);
    const commands = driver.info.invalidationCommands;
    expect(domain.unmap(0n, 100n * 0x1000n)).toBe(100n * 0x1000n);
    expect(driver.info.invalidationCommands - commands).toBe(100);
    for (let i = 0n; i < 100n; i++) expect(bus.device(300).write(i * 0x1000n, Uint8Array.of(1)).code).toBe(15);
    expect(sources).toEqual(['fault']);
    expect(driver.handleFaults().length).toBe(7);
    expect(driver.faultQueueOverflows).toBe(1);
    driver.detach(300);
    domain.free();
    driver.release();
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('what firmware left on is turned off first', () => {
    const { memory, pages, clock } = createMachine();
    const hardware = new RiscvIommuHardware(memory);
    const { mmio } = hardware;
    // A queue that is on, stopped by an illegal command, its interrupt pending; translation Bare.
    mmio.write64(24, 0, 0x400);
    mmio.write32(72, 3);
    mmio.write32(36, 1);
    mmio.write32(76, 3);
    mmio.write64(16, 0, 1);
    expect(mmio.read32(84)).toBe(1);
    const driver = new RiscvIommuDriver({ mmio, pages, clock });
    expect(mmio.read32(84)).toBe(0);
    expect(mmio.read32(72)).toBe(0x1_0001);
    driver.attach(1, driver.identityDomain);
    expect(hardware.translate(1, -1, 0, 0x1000, ACCESS.READ)).toBe(0);
  });
});

test('interrupts as messages, to where the owner says', () => {
  const address = 0x50_0040n;
  const { driver, bus, memory } = createRiscvIommu({ driver: { msi: { address, data: 0x2a } } });
  bus.device(9).read(0x1000n, 4);
  expect(memory.read(address, 4)).toBe(0x2an);
  memory.write(address, 4, 0n);
  const [event] = driver.handleFaults();
  expect(event).toMatchObject({ code: 258, name: 'DDT entry not valid', requester: 9, iova: 0x1000n, access: 'read' });
  bus.device(9).read(0x1000n, 4);
  expect(memory.read(address, 4)).toBe(0x2an);
  // Without an address no message is ever stored.
  const quiet = createRiscvIommu();
  quiet.memory.write(0n, 4, 0x1234n);
  quiet.bus.device(9).read(0x1000n, 4);
  expect(quiet.memory.read(0n, 4)).toBe(0x1234n);
});

test('what attach and detach send', () => {
  const { driver, hardware, memory } = createRiscvIommu();
  const domain = driver.createDomain();
  hardware.mmio.read64(24);
  const queue = (BigInt(hardware.mmio.lo >>> 10) << 12n) | (BigInt(hardware.mmio.hi) << 34n);
  /** Opcode and func3 of the commands that `run` queues. */
  const sent = (run: () => void): number[] => {
    const from = hardware.mmio.read32(36);
    run();
    const to = hardware.mmio.read32(36);
    return Array.from({ length: to - from }, (_, i) => Number(memory.readU64(queue + BigInt(from + i) * 16n) & 0x3ffn));
  };
  const [VMA, FENCE, DDT] = [1, 2, 3];
  // A new device: its context may not have been cached, but the directory tables above it were just made.
  expect(sent(() => driver.attach(5, domain))).toEqual([DDT, FENCE]);
  expect(sent(() => driver.attach(5, domain))).toEqual([]);
  // To another domain: invalid, with the old address space (the specification asks for it), then valid.
  expect(sent(() => driver.attach(5, driver.identityDomain))).toEqual([DDT, VMA, FENCE, DDT, FENCE]);
  expect(sent(() => driver.attach(5, driver.blockedDomain))).toEqual([DDT, FENCE]);
  expect(sent(() => driver.attach(5, domain))).toEqual([DDT, FENCE]);
  driver.attach(6, domain);
  expect(sent(() => driver.detach(5))).toEqual([DDT, VMA, FENCE]);
  expect(sent(() => driver.detach(6))).toEqual([DDT, VMA, FENCE]);
});

test('PSCIDs are used up and come back', () => {
  const { driver } = createRiscvIommu({ driver: { pscidLast: 3 } });
  const domains = [1, 2, 3].map(() => driver.createDomain());
  expect(domains.map((d) => d.id)).toEqual([1, 2, 3]);
  expect(codeOf(() => driver.createDomain())).toBe('ENOSPC');
  domains[1]!.free();
  expect(driver.createDomain().id).toBe(2);
});

test('interrupt files are reserved', () => {
  const { driver } = createRiscvIommu({ driver: { imsic: [{ start: 0x2800_0000n, last: 0x2800_ffffn }] } });
  expect(driver.reservedRegions()).toEqual([
    { start: 0x2800_0000n, last: 0x2800_ffffn, type: 'sw-msi', doc: 'interrupt files (IMSIC)' },
  ]);
  expect(createRiscvIommu().driver.reservedRegions()).toEqual([]);
});

const setUp = () => {
  const system = createRiscvIommu();
  const domain = system.driver.createDomain();
  system.driver.attach(1, domain);
  const commandsOf = (run: () => void): number => {
    const before = system.driver.info.invalidationCommands;
    run();
    return system.driver.info.invalidationCommands - before;
  };
  return { ...system, domain, commandsOf };
};

describe('invalidation', () => {
  test('one command a leaf, whatever its size; a NAPOT leaf takes one for each of its 16 pages', () => {
    const { domain, commandsOf } = setUp();
    for (const [size, commands] of [
      [0x1000n, 2],
      [0x1_0000n, 32],
      [0x20_0000n, 2],
      [0x4000_0000n, 2],
    ] as const) {
      domain.map(0x40_0000_0000n, 0n, size * 2n, RW);
      expect(commandsOf(() => domain.unmap(0x40_0000_0000n, size * 2n))).toBe(commands);
    }
  });

  test('the whole address space for many leaves and for freed tables', () => {
    const { domain, commandsOf, pages } = setUp();
    domain.map(0x1000n, 0x1000n, 0x1000n * 511n, RW);
    expect(commandsOf(() => domain.unmap(0x1000n, 0x1000n * 511n))).toBeLessThan(600);
    // A table wholly covered is freed: without AV, so that non-leaf entries go too.
    domain.map(0x20_0000n, 0x1000n, 0x20_0000n, RW);
    const before = pages.nrIommuPages();
    expect(commandsOf(() => domain.unmap(0x20_0000n, 0x20_0000n))).toBe(1);
    expect(pages.nrIommuPages()).toBe(before - 1);
    expect(commandsOf(() => domain.unmap(0x20_0000n, 0x20_0000n))).toBe(0);
  });

  test('a command queue that stops is reported, not waited for', () => {
    const { domain, hardware } = setUp();
    domain.map(0x1000n, 0x1000n, 0x1000n, RW);
    // Someone turns the queue off behind the driver's back.
    hardware.mmio.write32(72, 0);
    expect(codeOf(() => domain.unmap(0x1000n, 0x1000n))).toBe('ETIMEDOUT');
  });
});

test('lazy mode: nothing is invalidated until the flush, nothing freed before', () => {
  const { driver, bus, clock, pages } = createRiscvIommu({ mode: 'lazy' });
  const domain = driver.createDomain();
  driver.attach(1, domain);
  domain.map(0x20_0000n, 0x1000n, 0x20_0000n, RW);
  const device = bus.device(1);
  expect(device.write(0x20_0000n, Uint8Array.of(1)).ok).toBe(true);
  const before = pages.nrIommuPages();
  const commands = driver.info.invalidationCommands;
  let released = false;
  domain.unmap(0x20_0000n, 0x20_0000n, () => (released = true));
  expect(driver.info.invalidationCommands).toBe(commands);
  expect([pages.nrIommuPages(), released]).toEqual([before, false]);
  expect(device.write(0x20_0000n, Uint8Array.of(1)).ok).toBe(true);
  clock.advance(10_000_000);
  expect(device.write(0x20_0000n, Uint8Array.of(1)).code).toBe(15);
  expect([pages.nrIommuPages(), released]).toEqual([before - 1, true]);
  expect(driver.info.invalidationCommands).toBe(commands + 1);
});

test('the end', () => {
  const { driver, pages, hardware, bus } = createRiscvIommu();
  const domain = driver.createDomain();
  driver.attach(0x12345, domain);
  expect(codeOf(() => driver.release())).toBe('EBUSY');
  driver.detach(0x12345);
  driver.detach(0x12345);
  domain.free();
  driver.release();
  driver.release();
  expect(pages.nrIommuPages()).toBe(0);
  expect(bus.device(0x12345).read(0n, 4).code).toBe(256);
  hardware.mmio.read64(16);
  expect(hardware.mmio.lo).toBe(0);
  expect([hardware.mmio.read32(72), hardware.mmio.read32(76)]).toEqual([0, 0]);
  expect(codeOf(() => driver.createDomain())).toBe('ENODEV');
  expect(codeOf(() => driver.attach(1, driver.identityDomain))).toBe('ENODEV');
});
