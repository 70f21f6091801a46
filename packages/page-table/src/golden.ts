/** What the header of a golden table file (`iommu-golden/1`) says, as far as a driver needs it to name its own format. */
import type { PageTableConfig, PageTableFeatures } from './config.ts';

/** Configuration of a golden file. */
export interface GoldenConfig {
  readonly ias: number;
  readonly oas: number;
  readonly granule: number;
  readonly pageSizeBitmap: string;
  readonly signExtend: boolean;
  readonly incoherent: boolean;
  readonly featureNames: readonly string[];
  readonly startTopLevel?: number | undefined;
}

/** The part of a golden file that chooses the format. */
export interface GoldenHeader {
  readonly pageTable: string;
  readonly name: string;
  readonly config: GoldenConfig;
}

/** The configuration common to all formats: widths, page sizes, top level, and Linux's feature names as our features. */
export const goldenFeatures = (file: GoldenHeader): Omit<PageTableConfig, 'format'> & PageTableFeatures => {
  const { config } = file;
  const has = (name: string): boolean => config.featureNames.includes(name);
  return {
    ias: config.ias,
    oas: config.oas,
    pageSizes: BigInt(config.pageSizeBitmap),
    incoherent: config.incoherent,
    svnapot: has('RISCV_SVNAPOT_64K'),
    svpbmt: has('RISCV_SVPBMT'),
    snp: has('VTDSS_FORCE_COHERENCE'),
    forceWriteable: has('VTDSS_FORCE_WRITEABLE'),
    flushRangeNoGaps: has('FLUSH_RANGE_NO_GAPS'),
    ns: has('ARM_NS'),
    hd: has('ARM_HD'),
    fwb: has('ARM_S2FWB'),
    ttbr1: has('ARM_TTBR1'),
    ...(config.startTopLevel === undefined ? {} : { topLevel: config.startTopLevel }),
  };
};
