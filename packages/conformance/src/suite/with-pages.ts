/** A driver whose tables and queues come from an allocator of another kind than the usual one. */
import type { DriverHarness, IommuSystem, SystemOptions } from '@iommu-ts/iommu-core';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { IommuPagesOptions } from '@iommu-ts/iommu-pages';

const GIB = 1n << 30n;

/** Memory and allocator as a system has them by default (64 GiB, tables in the last), with `options`. */
export const pagesWith = (options: IommuPagesOptions): Required<Pick<SystemOptions, 'memory' | 'pages'>> => {
  const memory = new PhysicalMemory([{ base: 0n, size: 64n * GIB }]);
  return { memory, pages: new IommuPages(memory, new BuddySource(memory, [{ base: 63n * GIB, size: GIB }]), options) };
};

/** `harness` with such an allocator in every system that does not bring its own; `made` is told of each system. */
export const withPages = (
  harness: DriverHarness,
  options: IommuPagesOptions,
  made: (system: IommuSystem) => void = () => {},
): DriverHarness => ({
  ...harness,
  createSystem: (given = {}) => {
    const own = given.memory !== undefined || given.pages !== undefined;
    const system = harness.createSystem(own ? given : { ...pagesWith(options), ...given });
    made(system);
    return system;
  },
});
