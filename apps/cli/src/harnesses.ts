/** The five IOMMUs. Only this file and `goldens.ts` of the command line know their names. */
import { harness as amd } from '@iommu-ts/amd/harness';
import { harness as appleDart } from '@iommu-ts/apple-dart/harness';
import { harness as armSmmu } from '@iommu-ts/arm-smmu/harness';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { harness as intelVtd } from '@iommu-ts/intel-vtd/harness';
import { harness as riscv } from '@iommu-ts/riscv/harness';
import { inputError } from './input.ts';

export const harnesses: readonly DriverHarness[] = [intelVtd, amd, armSmmu, appleDart, riscv];

/** The drivers that `--driver a,b` names, in that order; `all` is every one. @throws IommuError `EFORMAT` for a wrong name. */
export const selectDrivers = (names: string, all: readonly DriverHarness[] = harnesses): DriverHarness[] => {
  const chosen: DriverHarness[] = [];
  for (const name of names.split(',').map((n) => n.trim())) {
    if (name === 'all') chosen.push(...all);
    else {
      const harness = all.find((h) => h.name === name);
      if (harness === undefined) {
        throw inputError(
          `--driver ${name === '' ? '(empty)' : name}: expected all or ${all.map((h) => h.name).join(', ')}`,
        );
      }
      chosen.push(harness);
    }
  }
  return [...new Set(chosen)];
};
