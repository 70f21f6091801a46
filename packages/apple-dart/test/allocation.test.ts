/** The hot paths make no garbage: bytes of JavaScript heap a call. */
import { bytesPerCall } from '@iommu-ts/conformance/suite';
import { expect, test } from 'vitest';
import { createAppleDart } from '../src/system.ts';

/** A heap number a call would be 12 bytes or more. */
const NEXT_TO_NOTHING = 4;

test('the measurement sees an object a call', () => {
  const keep: unknown[] = [];
  const bytes = bytesPerCall((n) => {
    for (let i = 0; i < n; i++) keep[i & 1023] = { i };
  });
  expect(bytes).toBeGreaterThan(NEXT_TO_NOTHING);
});

const PAGES = 256;

for (const preset of ['t8103', 't6020'] as const) {
  const { driver, hardware } = createAppleDart({ preset, iotlb: { mode: 'sized' } });
  const domain = driver.createDomain();
  driver.attach(1, domain);
  domain.map(0n, 0x9_0000_0000n, BigInt(PAGES) << 14n, 1);

  const translate = (n: number): number => {
    let sum = 0;
    for (let i = 0; i < n; i++)
      sum += hardware.translate(1, -1, 0, ((i * 7) % PAGES) << 14, 1, 64) + (hardware.outLo & 1);
    return sum;
  };
  const refuse = (n: number): number => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += hardware.translate(1, -1, 0, ((i * 7) % PAGES) << 14, 2, 64);
    return sum;
  };
  const walk = (n: number): number => {
    let sum = 0;
    for (let i = 0; i < n; i++) {
      if ((i & 15) === 0) hardware.iotlb.invalidateAll();
      sum += hardware.translate(1, -1, 0, ((i * 7) % PAGES) << 14, 1, 64);
    }
    return sum;
  };
  const mapUnmap = (n: number): number => {
    let sum = 0;
    for (let i = 0; i < n; i++) {
      sum += domain.mapWords(0, 0x4000_0000 + ((i % 512) << 14), 9, 0x1000_0000, 0x4000, 3);
      sum += domain.unmapWords(0, 0x4000_0000 + ((i % 512) << 14), 0x4000) - 0x4000;
    }
    return sum;
  };

  test(`${preset}: translate`, () => {
    expect(bytesPerCall((n) => expect(translate(n)).toBe(0))).toBeLessThan(NEXT_TO_NOTHING);
    expect(bytesPerCall((n) => expect(walk(n)).toBe(0))).toBeLessThan(NEXT_TO_NOTHING);
    expect(bytesPerCall((n) => expect(refuse(n)).toBeGreaterThan(0))).toBeLessThan(NEXT_TO_NOTHING);
  });

  test(`${preset}: map, unmap and flush`, () => {
    expect(bytesPerCall((n) => expect(mapUnmap(n)).toBe(0))).toBeLessThan(NEXT_TO_NOTHING);
  });
}
