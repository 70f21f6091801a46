import type { DriverHarness } from '@iommu-ts/iommu-core';

/** Loads one driver and no other, so that a process can hold one alone. */
export const DRIVERS: Readonly<Record<string, () => Promise<DriverHarness>>> = {
  'intel-vtd': async () => (await import('@iommu-ts/intel-vtd/harness')).harness,
  amd: async () => (await import('@iommu-ts/amd/harness')).harness,
  'arm-smmu': async () => (await import('@iommu-ts/arm-smmu/harness')).harness,
  'apple-dart': async () => (await import('@iommu-ts/apple-dart/harness')).harness,
  riscv: async () => (await import('@iommu-ts/riscv/harness')).harness,
};

/** @throws Error for a name that is not one of {@link DRIVERS}. */
export const loadDriver = (name: string): Promise<DriverHarness> => {
  const load = DRIVERS[name];
  if (load === undefined) throw new Error(`no driver ${name}: one of ${Object.keys(DRIVERS).join(', ')}`);
  return load();
};
