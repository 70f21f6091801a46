/** Which driver a golden table belongs to, and what format and options it was made with. */
import { goldenConfig as amd } from '@iommu-ts/amd';
import { goldenConfig as appleDart } from '@iommu-ts/apple-dart';
import { goldenConfig as armSmmu } from '@iommu-ts/arm-smmu';
import { goldenConfig as intelVtd } from '@iommu-ts/intel-vtd';
import type { GoldenHeader, PageTableConfig } from '@iommu-ts/page-table';
import { goldenConfig as riscv } from '@iommu-ts/riscv';

/** A driver's claim on a golden file: null when the page table is not one of its own. */
export type GoldenClaim = (header: GoldenHeader) => PageTableConfig | null;

/** By the driver's name. */
export const goldenClaims: Readonly<Record<string, GoldenClaim>> = {
  'intel-vtd': intelVtd,
  amd,
  'arm-smmu': armSmmu,
  'apple-dart': appleDart,
  riscv,
};
