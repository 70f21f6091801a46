/**
 * Page-table formats of the Arm SMMU: VMSAv8-64 long descriptors, stage 1 and stage 2, with 4, 16 and 64 KiB granules.
 * Arm Architecture Reference Manual (DDI 0487), D8.3 "Translation table descriptor formats".
 */
import { bit, bits } from '@iommu-ts/bits';
import { PROT, RULES_IO_PGTABLE_ARM, defineFormat, goldenFeatures } from '@iommu-ts/page-table';
import type {
  AttributeRule,
  FormatSize,
  FormatSpec,
  GoldenHeader,
  HwInfo,
  PageTableConfig,
  PageTableFormat,
  TableGeometry,
} from '@iommu-ts/page-table';

const TYPE = bits(1, 0, '3 table or page, 1 block');
const SW_SYNC = bit(55, 'for software; Linux marks a flushed table descriptor');
/** Address bits 47:12; with a 64 KiB granule 47:16, and 51:48 lie in 15:12. */
const OA_64K = bits(47, 16, 'address of the page, block or next table');
const OA = bits(47, 12, 'address of the page, block or next table');

const layouts = (
  leaf: FormatSpec['leafLayout'],
  large: boolean,
): Pick<FormatSpec, 'leafLayout' | 'tableLayout' | 'oa'> => ({
  leafLayout: { ...leaf, ...(large ? { OA: OA_64K, OA_51_48: bits(15, 12, 'address bits 51:48') } : { OA }), TYPE },
  tableLayout: {
    NSTable: bit(63, 'tables below are non-secure'),
    APTable: bits(62, 61, 'permission limits for the tables below'),
    UXNTable: bit(60, 'execute never for the tables below, unprivileged'),
    PXNTable: bit(59, 'execute never for the tables below, privileged'),
    SW_SYNC,
    ...(large ? { OA: OA_64K, OA_51_48: bits(15, 12, 'address bits 51:48') } : { OA }),
    TYPE,
  },
  oa: large ? OA_64K : OA,
});

const stage1Leaf: FormatSpec['leafLayout'] = {
  UXN: bit(54, 'execute never, unprivileged'),
  PXN: bit(53, 'execute never, privileged'),
  CONTIGUOUS: bit(52, 'one of a contiguous set'),
  DBM: bit(51, 'hardware may set the dirty state'),
  nG: bit(11, 'not global'),
  AF: bit(10, 'access flag'),
  SH: bits(9, 8, 'shareability: 2 outer, 3 inner'),
  AP_2: bit(7, 'AP[2]: read-only'),
  AP_1: bit(6, 'AP[1]: unprivileged access'),
  NS: bit(5, 'non-secure'),
  AttrIndx: bits(4, 2, 'index into MAIR: 0 non-cacheable, 1 write-back, 2 device'),
};

const stage2Leaf: FormatSpec['leafLayout'] = {
  XN: bits(54, 53, 'execute never'),
  CONTIGUOUS: bit(52, 'one of a contiguous set'),
  DBM: bit(51, 'hardware may set the dirty state'),
  AF: bit(10, 'access flag'),
  SH: bits(9, 8, 'shareability: 2 outer, 3 inner'),
  S2AP_1: bit(7, 'S2AP[1]: write'),
  S2AP_0: bit(6, 'S2AP[0]: read'),
  MemAttr: bits(5, 2, 'memory type: 0xf write-back, 5 non-cacheable, 1 device; FWB: 6 write-back'),
};

const stage1Attributes: readonly AttributeRule[] = [
  { field: 'nG', value: 1 },
  { field: 'AF', value: 1 },
  { field: 'SH', value: 3, when: PROT.CACHE },
  { field: 'SH', value: 2, unless: PROT.CACHE },
  { field: 'AP_2', value: 1, unless: PROT.WRITE },
  { field: 'AP_1', value: 1, unless: PROT.PRIV },
  { field: 'AttrIndx', value: 2, when: PROT.MMIO },
  { field: 'AttrIndx', value: 1, when: PROT.CACHE, unless: PROT.MMIO },
  { field: 'UXN', value: 1, when: PROT.NOEXEC },
  { field: 'PXN', value: 1, when: PROT.NOEXEC },
  { field: 'NS', value: 1, feature: 'ns' },
  { field: 'DBM', value: 1, when: PROT.WRITE, feature: 'hd' },
];

const stage2Attributes: readonly AttributeRule[] = [
  { field: 'AF', value: 1 },
  { field: 'SH', value: 3, when: PROT.CACHE },
  { field: 'SH', value: 2, unless: PROT.CACHE },
  { field: 'S2AP_0', value: 1, when: PROT.READ },
  { field: 'S2AP_1', value: 1, when: PROT.WRITE },
  { field: 'MemAttr', value: 1, when: PROT.MMIO },
  { field: 'MemAttr', value: 0xf, when: PROT.CACHE, unless: PROT.MMIO, withoutFeature: 'fwb' },
  { field: 'MemAttr', value: 6, when: PROT.CACHE, unless: PROT.MMIO, feature: 'fwb' },
  { field: 'MemAttr', value: 5, unless: PROT.MMIO | PROT.CACHE },
  { field: 'XN', value: 3, when: PROT.NOEXEC },
];

const SIZES: Readonly<Record<number, readonly FormatSize[]>> = {
  12: [{ lg2: 12 }, { lg2: 21 }, { lg2: 30 }],
  14: [{ lg2: 14 }, { lg2: 25 }],
  16: [{ lg2: 16 }, { lg2: 29 }, { lg2: 42, minOas: 49 }],
};

/** Size codes of TCR.IPS and VTCR.PS. */
const PS_CODE: Readonly<Record<number, number>> = { 32: 0, 36: 1, 40: 2, 42: 3, 44: 4, 48: 5, 52: 6 };
const TG0: Readonly<Record<number, number>> = { 12: 0, 16: 1, 14: 2 };
const TG1: Readonly<Record<number, number>> = { 12: 2, 16: 3, 14: 1 };

/** Shareability and cacheability of the walks: inner, write-back; outer, non-cacheable where the walker does not snoop. */
const walks = (table: TableGeometry): { sh: number; orgn: number; irgn: number } =>
  table.features.incoherent === true ? { sh: 2, orgn: 0, irgn: 0 } : { sh: 3, orgn: 1, irgn: 1 };

/** MAIR as Linux has it: 0x44, 0xff, 0x04, 0xf4; the upper half is ones because 0xf4 << 24 is sign-extended there. */
const MAIR = 0xffff_ffff_f404_ff44n;

const stage1Hw = (table: TableGeometry): HwInfo => ({
  ttbr: table.root,
  tcr: {
    ips: PS_CODE[table.oas] ?? 5,
    tg: (table.features.ttbr1 === true ? TG1 : TG0)[table.format.granuleLg2]!,
    ...walks(table),
    tsz: 64 - table.ias,
  },
  mair: MAIR,
});

const stage2Hw = (table: TableGeometry): HwInfo => {
  const startLevel = 3 - table.topLevel;
  return {
    vttbr: table.root,
    vtcr: {
      ps: PS_CODE[table.oas] ?? 5,
      tg: TG0[table.format.granuleLg2]!,
      ...walks(table),
      sl: ~(startLevel + (table.format.granuleLg2 === 12 ? 1 : 0)) & 3,
      tsz: 64 - table.ias,
    },
  };
};

const common = (
  granuleLg2: number,
): Omit<FormatSpec, 'name' | 'spec' | 'attributes' | 'leafLayout' | 'tableLayout' | 'oa' | 'hw'> => ({
  rules: RULES_IO_PGTABLE_ARM,
  granuleLg2,
  maxTopLevel: 3,
  shortTop: true,
  specLevelBase: 3,
  sizes: SIZES[granuleLg2]!,
  foldOa: granuleLg2 === 16 ? true : 'write',
  maxOas: granuleLg2 === 16 ? 52 : 48,
  tableType: { field: TYPE, value: 3 },
  tableBits: [
    { field: 'TYPE', value: 3 },
    { field: 'NSTable', value: 1, feature: 'ns' },
    { field: 'SW_SYNC', value: 1, feature: 'incoherent' },
  ],
  pageBits: [{ field: 'TYPE', value: 3 }],
  blockBits: [{ field: 'TYPE', value: 1 }],
});

const stage1 = (name: string, granuleLg2: number): PageTableFormat =>
  defineFormat({
    ...common(granuleLg2),
    ...layouts(stage1Leaf, granuleLg2 === 16),
    name,
    spec: 'Arm DDI 0487 D8.3, stage 1',
    attributes: stage1Attributes,
    write: { field: 'AP_2', value: 0 },
    exec: { field: 'UXN', value: 0 },
    hw: stage1Hw,
  });

/** Start tables are concatenated only where the architecture leaves no choice (D8.2.3 and the size limits of each start level). */
const CONCATENATE: Readonly<Record<number, FormatSpec['concatenate']>> = {
  12: [
    [3, 0, 40],
    [3, 0, 42],
  ],
  14: [
    [3, 48, 48],
    [2, 0, 40],
  ],
  16: [],
};

const stage2 = (name: string, granuleLg2: number): PageTableFormat =>
  defineFormat({
    ...common(granuleLg2),
    ...layouts(stage2Leaf, granuleLg2 === 16),
    concatenate: CONCATENATE[granuleLg2]!,
    name,
    spec: 'Arm DDI 0487 D8.3, stage 2',
    attributes: stage2Attributes,
    read: { field: 'S2AP_0', value: 1 },
    write: { field: 'S2AP_1', value: 1 },
    exec: { field: 'XN', value: 0 },
    hw: stage2Hw,
  });

/** Stage 1, 4 KiB granule. */
export const ARM_S1_4K = /* @__PURE__ */ stage1('arm-s1-4k', 12);
/** Stage 1, 16 KiB granule. */
export const ARM_S1_16K = /* @__PURE__ */ stage1('arm-s1-16k', 14);
/** Stage 1, 64 KiB granule. */
export const ARM_S1_64K = /* @__PURE__ */ stage1('arm-s1-64k', 16);
/** Stage 2, 4 KiB granule. */
export const ARM_S2_4K = /* @__PURE__ */ stage2('arm-s2-4k', 12);
/** Stage 2, 16 KiB granule. */
export const ARM_S2_16K = /* @__PURE__ */ stage2('arm-s2-16k', 14);
/** Stage 2, 64 KiB granule. */
export const ARM_S2_64K = /* @__PURE__ */ stage2('arm-s2-64k', 16);

/** The configuration of a golden file of this vendor, or null when it is another's. */
export const goldenConfig = (file: GoldenHeader): PageTableConfig | null => {
  if (file.pageTable !== 'arm-lpae') return null;
  const { granule } = file.config;
  const second = file.name.startsWith('arm-s2');
  const format =
    granule === 4096
      ? second
        ? ARM_S2_4K
        : ARM_S1_4K
      : granule === 16384
        ? second
          ? ARM_S2_16K
          : ARM_S1_16K
        : second
          ? ARM_S2_64K
          : ARM_S1_64K;
  return { ...goldenFeatures(file), format };
};
