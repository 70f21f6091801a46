/** The paths that run for every DMA and every unmapped page make no garbage: bytes of JavaScript heap a call. */
import { bytesPerCall } from '@iommu-ts/conformance/suite';
import { PROT } from '@iommu-ts/page-table';
import { expect, test } from 'vitest';
import { createVtdIommu } from '../src/index.ts';

/** A heap number a call would be 12 bytes or more. */
const NEXT_TO_NOTHING = 4;

test('the measurement sees garbage', () => {
  const keep: bigint[] = [0n];
  const bytes = bytesPerCall((n) => {
    for (let i = 0; i < n; i++) keep[0] = BigInt(i) << 32n;
  });
  expect(bytes).toBeGreaterThan(NEXT_TO_NOTHING);
});

const attached = () => {
  const { hardware, driver } = createVtdIommu();
  const domain = driver.createDomain();
  driver.attach(0x18, domain);
  // Not aligned to a large page: 4 KiB leaves.
  domain.map(0n, 0x8000_1000n, 0x100_0000n, PROT.READ | PROT.WRITE);
  return { hardware, domain };
};

test('translate: hits', () => {
  const { hardware } = attached();
  let status = 0;
  const bytes = bytesPerCall((n) => {
    for (let i = 0; i < n; i++) status |= hardware.translate(0x18, -1, 0, (i & 63) << 12, 1);
  });
  expect(status).toBe(0);
  expect(hardware.iotlb.hits).toBeGreaterThan(800_000);
  expect(bytes).toBeLessThan(NEXT_TO_NOTHING);
});

test('translate: misses', () => {
  const { hardware } = attached();
  let status = 0;
  const bytes = bytesPerCall((n) => {
    for (let i = 0; i < n; i++) status |= hardware.translate(0x18, -1, 0, (Math.imul(i, 0x9e37_79b1) >>> 20) << 12, 2);
  });
  expect(status).toBe(0);
  expect(hardware.stats.walks).toBeGreaterThan(400_000);
  expect(bytes).toBeLessThan(NEXT_TO_NOTHING);
});

test('translate: faults', () => {
  const { hardware } = attached();
  let passed = 0;
  const bytes = bytesPerCall((n) => {
    for (let i = 0; i < n; i++) if (hardware.translate(0x20, -1, 0, i << 12, 1) === 0) passed++;
  });
  expect(passed).toBe(0);
  expect(bytes).toBeLessThan(NEXT_TO_NOTHING);
});

test('map and unmap with their invalidations', () => {
  const { domain } = attached();
  let wrong = 0;
  const bytes = bytesPerCall((n) => {
    for (let i = 0; i < n; i++) {
      if (domain.mapWords(1, 0x21_0000, 0, 0x1234_5000, 4096, 3) !== 0) wrong++;
      if (domain.unmapWords(1, 0x21_0000, 4096) !== 4096) wrong++;
    }
  });
  expect(wrong).toBe(0);
  expect(bytes).toBeLessThan(NEXT_TO_NOTHING);
});
