/** DMA through the bus: pages, permissions, several devices, and the domains without tables. */
import { expect } from 'vitest';
import { DEVICE, OTHER, Rig, RO, RW, STRANGER, sameBytes } from './rig.ts';
import type { DriverCase } from './rig.ts';

export const dmaCases: readonly DriverCase[] = [
  {
    name: 'dma_across_pages',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      // Adjacent IOVAs, scattered memory in no order.
      const places = [9, 2, 30, 4, 17];
      for (const [i, place] of places.entries()) domain.map(rig.iova(i), rig.pa(place), rig.granule, RW);
      const granule = Number(rig.granule);
      const device = rig.system.bus.device(DEVICE);
      for (const [start, length] of [
        [granule - 3, 7],
        [granule - 1, 2 * granule + 2],
        [5, 4 * granule],
        [0, 5 * granule],
      ] as const) {
        const bytes = rig.random.bytes(length);
        expect(device.write(rig.iova(0) + BigInt(start), bytes)).toMatchObject({ ok: true, bytes: length });
        // Every byte at its own place.
        for (let i = 0; i < length;) {
          const at = start + i;
          const part = Math.min(length - i, granule - (at % granule));
          const pa = rig.pa(places[Math.floor(at / granule)]!) + BigInt(at % granule);
          sameBytes(
            rig.memory.readBytes(pa, part),
            bytes.subarray(i, i + part),
            `${length} bytes from ${start}, at ${i}`,
          );
          i += part;
        }
        sameBytes(device.read(rig.iova(0) + BigInt(start), length).data, bytes, `${length} bytes read from ${start}`);
      }
    },
  },
  {
    name: 'dma_every_offset',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      domain.map(rig.iova(0), rig.pa(3), 2n * rig.granule, RW);
      for (const offset of [0n, 1n, 7n, 8n, 0xffdn, rig.granule - 1n, rig.granule, 2n * rig.granule - 9n]) {
        for (const length of [1, 2, 4, 8, 9]) rig.reaches(DEVICE, rig.iova(0) + offset, rig.pa(3) + offset, length);
      }
    },
  },
  {
    name: 'dma_permissions',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      domain.map(rig.iova(0), rig.pa(0), rig.granule, RO);
      domain.map(rig.iova(1), rig.pa(1), rig.granule, RW);
      rig.reads(DEVICE, rig.iova(0), rig.pa(0));
      rig.reaches(DEVICE, rig.iova(1), rig.pa(1));
      rig.memory.writeBytes(rig.pa(0), Uint8Array.of(7, 7, 7, 7));
      rig.refused(DEVICE, rig.iova(0), 'write');
      expect(rig.memory.readBytes(rig.pa(0), 4)).toEqual(Uint8Array.of(7, 7, 7, 7));
    },
  },
  {
    name: 'dma_mmio_doorbell',
    needs: (rig) => (rig.info.oas <= 36 ? 'RAM fills the physical address space' : null),
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      // A doorbell past the RAM.
      const doorbell = 1n << 36n;
      const stores: string[] = [];
      rig.memory.addMmio({
        name: 'doorbell',
        base: doorbell,
        size: rig.granule,
        handler: {
          read: () => 0x1234_5678n,
          write: (offset, size, value) => stores.push(`${offset}/${size}=${value}`),
        },
      });
      domain.map(rig.iova(0), doorbell, rig.granule, RW);
      const device = rig.system.bus.device(DEVICE);
      expect(device.write(rig.iova(0) + 0x40n, Uint8Array.of(0x21, 0, 0, 0))).toMatchObject({ ok: true });
      expect(stores).toEqual(['64/4=33']);
      expect(device.read(rig.iova(0), 4).data).toEqual(Uint8Array.of(0x78, 0x56, 0x34, 0x12));
    },
  },
  {
    name: 'dma_bus_error',
    needs: (rig) => (rig.info.oas <= 36 ? 'RAM fills the physical address space' : null),
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      // Mapped, but nothing answers there: no translation fault, no record, no exception.
      domain.map(rig.iova(0), 1n << 36n, rig.granule, RW);
      rig.driver.handleFaults();
      const result = rig.system.bus.device(DEVICE).read(rig.iova(0), 8);
      expect(result).toMatchObject({ ok: false, bytes: 0, busError: true, code: 0 });
      expect(rig.driver.handleFaults()).toEqual([]);
    },
  },
  {
    name: 'dma_two_domains',
    run(harness) {
      const rig = new Rig(harness);
      const a = rig.attached(DEVICE);
      const b = rig.attached(OTHER);
      a.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      b.map(rig.iova(0), rig.pa(8), rig.granule, RW);
      a.map(rig.iova(1), rig.pa(1), rig.granule, RW);
      // One IOVA, two domains: caches must keep them apart, whichever came first.
      for (let i = 0; i < 3; i++) {
        rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
        rig.reaches(OTHER, rig.iova(0), rig.pa(8));
      }
      rig.reaches(DEVICE, rig.iova(1), rig.pa(1));
      rig.refused(OTHER, rig.iova(1));
      b.unmap(rig.iova(0), rig.granule);
      rig.refused(OTHER, rig.iova(0));
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
    },
  },
  {
    name: 'dma_shared_domain',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE, OTHER);
      domain.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
      rig.reaches(OTHER, rig.iova(0), rig.pa(0));
      expect(domain.attachCount).toBe(2);
      rig.driver.detach(DEVICE);
      expect(domain.attachCount).toBe(1);
      rig.refused(DEVICE, rig.iova(0));
      rig.reaches(OTHER, rig.iova(0), rig.pa(0));
      domain.unmap(rig.iova(0), rig.granule);
      rig.refused(OTHER, rig.iova(0));
    },
  },
  {
    name: 'domain_identity',
    run(harness) {
      const rig = new Rig(harness);
      rig.driver.attach(DEVICE, rig.driver.identityDomain);
      expect(rig.driver.domainOf(DEVICE)).toBe(rig.driver.identityDomain);
      rig.reaches(DEVICE, rig.pa(0), rig.pa(0));
      rig.reaches(DEVICE, rig.pa(1000) - 8n, rig.pa(1000) - 8n);
      rig.refused(STRANGER, rig.pa(0));
    },
  },
  {
    name: 'domain_blocked',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      domain.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
      rig.driver.attach(DEVICE, rig.driver.blockedDomain);
      expect(rig.driver.domainOf(DEVICE)).toBe(rig.driver.blockedDomain);
      rig.refused(DEVICE, rig.iova(0));
      rig.refused(DEVICE, rig.iova(0), 'write');
      rig.refused(DEVICE, rig.pa(0));
      rig.driver.attach(DEVICE, domain);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
    },
  },
  {
    name: 'domain_replaced',
    run(harness) {
      const rig = new Rig(harness);
      const a = rig.attached(DEVICE);
      const b = rig.driver.createDomain();
      a.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      a.map(rig.iova(1), rig.pa(1), rig.granule, RW);
      b.map(rig.iova(0), rig.pa(5), rig.granule, RW);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
      rig.reaches(DEVICE, rig.iova(1), rig.pa(1));
      // Straight from one to the other: structures and caches must follow at once.
      rig.driver.attach(DEVICE, b);
      expect(rig.driver.domainOf(DEVICE)).toBe(b);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(5));
      rig.refused(DEVICE, rig.iova(1));
      rig.driver.attach(DEVICE, rig.driver.identityDomain);
      rig.reaches(DEVICE, rig.pa(0), rig.pa(0));
      rig.driver.attach(DEVICE, a);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
      rig.reaches(DEVICE, rig.iova(1), rig.pa(1));
    },
  },
  {
    name: 'domain_detached',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      domain.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
      rig.driver.detach(DEVICE);
      expect(rig.driver.domainOf(DEVICE)).toBeNull();
      if (harness.faultCodes.notConfigured.length > 0) {
        rig.faults(DEVICE, rig.iova(0), 'read', harness.faultCodes.notConfigured, false);
      } else rig.refused(DEVICE, rig.iova(0));
      rig.driver.detach(DEVICE);
      // The domain lives on without devices.
      domain.map(rig.iova(1), rig.pa(1), rig.granule, RW);
      rig.driver.attach(DEVICE, domain);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
      rig.reaches(DEVICE, rig.iova(1), rig.pa(1));
    },
  },
];
