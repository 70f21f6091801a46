/** The five drivers with the descriptors of their tables in emulated memory: the cases in which tables come and go. */
import { driverCases, withPages } from '@iommu-ts/conformance/suite';
import type { IommuSystem } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { harnesses } from '../src/harnesses.ts';

const CASES = ['map_simple', 'mixed', 'random_map', 'lazy_free_after_flush', 'domain_freed', 'release'];

describe.each(['overlay', 'memdesc'] as const)('%s', (layout) => {
  test.each(harnesses.map((harness) => [harness.name, harness] as const))('%s', (_name, harness) => {
    const systems: IommuSystem[] = [];
    const harnessWith = withPages(harness, { layout }, (system) => systems.push(system));
    for (const name of CASES) {
      const found = driverCases.find((c) => c.name === name);
      expect(found, name).toBeDefined();
      found!.run(harnessWith);
    }
    // A case may bring an allocator of its own.
    const ours = systems.filter(({ pages }) => pages.descriptorUsage.layout === layout);
    expect(ours.length).toBeGreaterThanOrEqual(CASES.length - 1);
    for (const { pages } of ours) {
      const { memmapBytes, slabUsedBytes } = pages.descriptorUsage;
      // 262144 pages of the GiB that tables come from.
      expect(memmapBytes).toBe(262_144 * (layout === 'overlay' ? 64 : 8));
      expect(slabUsedBytes > 0).toBe(layout === 'memdesc' && pages.nrIommuPages() > 0);
    }
    expect(ours.some(({ pages }) => pages.nrIommuPages() === 0)).toBe(true);
  });
});
