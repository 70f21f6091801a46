/** Translating, mapping and unmapping make no garbage: bytes of JavaScript heap a call, once the code is warm. */
import { bytesPerCall } from '@iommu-ts/conformance/suite';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { PROT } from '@iommu-ts/page-table';
import { expect, test } from 'vitest';
import { createRiscvIommu } from '../src/create.ts';
import { BareMetal, RWXUAD, ppn } from './bare-metal.ts';

/** Calls to warm up or to count. */
const CALLS = 100_000;

const setUp = (mode: 'none' | 'sized') => {
  const memory = new PhysicalMemory([{ base: 0n, size: 0x1000_0000n, kind: 'flat' }]);
  const system = createRiscvIommu({ memory, iotlb: { mode } });
  const domain = system.driver.createDomain();
  system.driver.attach(1, domain);
  domain.map(0x40_0000_0000n, 0x1000n, 0x100_0000n, PROT.READ | PROT.WRITE);
  return { ...system, domain };
};

test('the measurement sees a heap number', () => {
  const boxes = [{ n: 0.5 }];
  const bytes = bytesPerCall((n) => {
    for (let i = 0; i < n; i++) boxes[0] = { n: i + 0.5 };
  });
  expect(boxes[0]!.n).toBeGreaterThan(1);
  expect(bytes).toBeGreaterThan(4);
});

test.each(['none', 'sized'] as const)('translate, IOTLB %s', (mode) => {
  const { hardware } = setUp(mode);
  let failed = 0;
  const bytes = bytesPerCall((n) => {
    for (let i = 0; i < n; i++) {
      // Hits and misses, reads and writes.
      const page = Math.imul(i, 0x9e37_79b1) >>> 20;
      if (hardware.translate(1, -1, 0x40, page << 12, 1 + (i & 1)) !== 0) failed++;
    }
  });
  expect(failed).toBe(0);
  expect(bytes).toBeLessThan(1);
});

test('map and strict unmap', () => {
  const { domain, hardware } = setUp('sized');
  const { commands } = hardware.stats;
  const bytes = bytesPerCall((n) => {
    for (let i = 0; i < n; i++) {
      domain.mapWords(0x41, (i & 0xff) << 12, 0, 0x10_0000, 4096, 3);
      hardware.translate(1, -1, 0x41, (i & 0xff) << 12, 1);
      domain.unmapWords(0x41, (i & 0xff) << 12, 4096);
    }
  });
  expect(hardware.stats.commands - commands).toBe(9 * CALLS * 2);
  expect(bytes).toBeLessThan(1);
});

test('refused accesses', () => {
  const { hardware } = setUp('sized');
  const bytes = bytesPerCall((n) => {
    for (let i = 0; i < n; i++) hardware.translate(1, -1, 0x7f, i << 12, 1);
  });
  expect(hardware.stats.faults).toBe(9 * CALLS);
  expect(bytes).toBeLessThan(1);
});

test('translate through two stages', () => {
  const bare = new BareMetal().enable();
  const g = bare.page(0x4000n);
  const root = bare.page();
  bare.map(g, 3, 0n, ppn(0n) | RWXUAD, 2, true);
  bare.dc(5, {
    iohgatp: (8n << 60n) | (0x1234n << 44n) | (g >> 12n),
    ta: 0x77n << 12n,
    fsc: (8n << 60n) | (root >> 12n),
  });
  for (let i = 0n; i < 512n; i++) bare.map(root, 3, 0x4000_0000n + i * 0x1000n, ppn(0x40_0000n + i * 0x1000n) | RWXUAD);
  let failed = 0;
  const bytes = bytesPerCall((n) => {
    for (let i = 0; i < n; i++) {
      if (bare.hardware.translate(5, -1, 0, 0x4000_0000 + ((i & 511) << 12), 1) !== 0) failed++;
    }
  });
  expect(failed).toBe(0);
  expect(bytes).toBeLessThan(1);
});
