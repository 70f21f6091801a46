/** The hot paths make no garbage: bytes of JavaScript heap a call, once the code is warm. */
import { bytesPerCall } from '@iommu-ts/conformance/suite';
import { PROT } from '@iommu-ts/page-table';
import { describe, expect, test } from 'vitest';
import { createArmSmmuIommu } from '../src/index.ts';

/** Bytes that a call of `run` leaves on the heap. */
const garbage = (run: (i: number) => void): number =>
  bytesPerCall((n) => {
    for (let i = 0; i < n; i++) run(i);
  });

/** A heap number a call would be 12 bytes or more. */
const NEXT_TO_NOTHING = 4;

describe('no garbage', () => {
  test('the measurement sees an object a call', () => {
    const box: { value: number | string } = { value: 0 };
    const kept: object[] = [];
    const seen = garbage((i) => {
      kept[i & 7] = { value: box, i };
    });
    expect(seen).toBeGreaterThan(NEXT_TO_NOTHING);
  });

  test.each(['none', 'sized'] as const)('translate, IOTLB %s', (mode) => {
    const { driver, hardware } = createArmSmmuIommu({ iotlb: { mode } });
    const domain = driver.createDomain();
    driver.attach(3, domain);
    domain.map(0xffff_0000_0000n, 0xc_0000_0000n, 0x10_0000n, PROT.READ | PROT.WRITE);
    let failed = 0;
    const seen = garbage((i) => {
      const lo = ((i * 0x1_3579) & 0xf_ffff) | 0;
      if (hardware.translate(3, -1, 0xffff, lo, 1 + (i & 1)) !== 0 || hardware.outHi !== 0xc) failed++;
    });
    expect(failed).toBe(0);
    expect(seen).toBeLessThan(NEXT_TO_NOTHING);
  });

  test('faults into a full event queue', () => {
    const { driver, hardware } = createArmSmmuIommu();
    driver.attach(3, driver.createDomain());
    const seen = garbage((i) => {
      hardware.translate(3, -1, i & 0xff, i << 12, 2);
    });
    expect(seen).toBeLessThan(NEXT_TO_NOTHING);
  });

  test('map, invalidate, unmap through the command queue', () => {
    const { driver } = createArmSmmuIommu();
    const domain = driver.createDomain();
    driver.attach(3, domain);
    let failed = 0;
    const seen = garbage((i) => {
      const lo = (i & 0xff) << 12;
      if (domain.mapWords(0x7f, lo, 1, lo, 0x1000, 3) !== 0) failed++;
      if (domain.unmapWords(0x7f, lo, 0x1000) !== 0x1000) failed++;
    });
    expect(failed).toBe(0);
    expect(seen).toBeLessThan(NEXT_TO_NOTHING);
  });
});
