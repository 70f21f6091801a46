/** DMA that must be refused: the code, the record in its architected place, and the driver's reading of it. */
import { hex } from '@iommu-ts/bits';
import { expect } from 'vitest';
import { DEVICE, OTHER, Rig, RO, RW, STRANGER, WO } from './rig.ts';
import type { DriverCase } from './rig.ts';

const none = (kind: keyof Rig['harness']['faultCodes']) => (rig: Rig) =>
  rig.harness.faultCodes[kind].length === 0 ? 'the architecture has no code for it' : null;

export const faultCases: readonly DriverCase[] = [
  {
    name: 'fault_not_present',
    needs: none('notPresent'),
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      const codes = harness.faultCodes.notPresent;
      rig.faults(DEVICE, rig.iova(5), 'read', codes, true);
      rig.faults(DEVICE, rig.iova(6), 'write', codes, true);
      // Beside a mapping: now the walk ends at the last level.
      domain.map(rig.iova(5), rig.pa(5), rig.granule, RW);
      rig.reaches(DEVICE, rig.iova(5), rig.pa(5));
      rig.faults(DEVICE, rig.iova(6), 'read', codes, true);
      domain.unmap(rig.iova(5), rig.granule);
      rig.faults(DEVICE, rig.iova(5), 'write', codes, true);
    },
  },
  {
    name: 'fault_not_configured',
    needs: none('notConfigured'),
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      domain.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      rig.faults(STRANGER, rig.iova(0), 'read', harness.faultCodes.notConfigured, false);
      rig.faults(STRANGER, rig.iova(0), 'write', harness.faultCodes.notConfigured, false);
      const last = rig.info.requesters - 1;
      rig.faults(last, rig.iova(0), 'read', harness.faultCodes.notConfigured, false);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
    },
  },
  {
    name: 'fault_permission',
    needs: none('permission'),
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      const codes = harness.faultCodes.permission;
      domain.map(rig.iova(0), rig.pa(0), rig.granule, RO);
      rig.memory.writeBytes(rig.pa(0), Uint8Array.of(1, 2, 3, 4));
      rig.faults(DEVICE, rig.iova(0), 'write', codes, true);
      rig.reads(DEVICE, rig.iova(0), rig.pa(0));
      // Again from a cached entry.
      rig.memory.writeBytes(rig.pa(0), Uint8Array.of(1, 2, 3, 4));
      rig.faults(DEVICE, rig.iova(0), 'write', codes, true);
      expect(rig.memory.readBytes(rig.pa(0), 4)).toEqual(Uint8Array.of(1, 2, 3, 4));
    },
  },
  {
    name: 'fault_read_of_write_only',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      domain.map(rig.iova(0), rig.pa(0), rig.granule, WO);
      rig.writes(DEVICE, rig.iova(0), rig.pa(0));
      // A format without write-only pages makes it read-write.
      if (rig.info.writeOnly) rig.faults(DEVICE, rig.iova(0), 'read', harness.faultCodes.permission, true);
      else rig.reads(DEVICE, rig.iova(0), rig.pa(0));
    },
  },
  {
    name: 'fault_address_width',
    needs: (rig) =>
      rig.info.apertureLast === 0xffff_ffff_ffff_ffffn ? 'the aperture has no end' : none('addressWidth')(rig),
    run(harness) {
      const rig = new Rig(harness);
      rig.attached(DEVICE);
      rig.faults(DEVICE, rig.info.apertureLast + 1n, 'read', harness.faultCodes.addressWidth, false);
      rig.faults(DEVICE, rig.info.apertureLast + 1n, 'write', harness.faultCodes.addressWidth, false);
    },
  },
  {
    name: 'fault_reserved_bit',
    needs: none('reservedBit'),
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      domain.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      const leaf = rig.leafEntry(domain, rig.iova(0));
      const before = rig.memory.readU64(leaf.pa);
      expect(harness.setReservedBit(rig.memory, leaf.pa, leaf.level), 'the format has a reserved bit').toBe(true);
      expect(hex(rig.memory.readU64(leaf.pa)), 'the entry was changed').not.toBe(hex(before));
      rig.writeBack(leaf.pa);
      rig.faults(DEVICE, rig.iova(0), 'read', harness.faultCodes.reservedBit, true);
      rig.memory.writeU64(leaf.pa, before);
      rig.writeBack(leaf.pa);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
    },
  },
  {
    name: 'fault_crossing',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE);
      domain.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      // The part before the hole gets through, the rest does not.
      const bytes = rig.random.bytes(32);
      const result = rig.system.bus.device(DEVICE).write(rig.iova(1) - 16n, bytes);
      expect(result).toMatchObject({ ok: false, bytes: 16, busError: false });
      expect(rig.memory.readBytes(rig.pa(1) - 16n, 16)).toEqual(bytes.subarray(0, 16));
      expect(rig.driver.handleFaults().length).toBeGreaterThan(0);
    },
  },
  {
    name: 'fault_flood',
    run(harness) {
      const rig = new Rig(harness);
      const domain = rig.attached(DEVICE, OTHER);
      domain.map(rig.iova(0), rig.pa(0), rig.granule, RW);
      // More than any fault queue holds: nothing may hang or get lost but records.
      for (let i = 0; i < 20_000; i++) rig.system.bus.device(DEVICE).read(rig.iova(1 + (i % 64)), 4);
      rig.reaches(DEVICE, rig.iova(0), rig.pa(0));
      expect(rig.driver.handleFaults().length).toBeGreaterThan(0);
      // Once the driver has caught up, new faults are recorded again.
      rig.faults(OTHER, rig.iova(7), 'write', harness.faultCodes.notPresent, true);
    },
  },
];
