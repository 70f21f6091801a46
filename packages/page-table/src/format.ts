/**
 * A page-table format as data: numbers, small arrays and rules that are evaluated when a table is made, never per entry.
 *
 * All formats are instances of one class with the same field order and int32 masks, so that the engine's hot loops see
 * one hidden class whatever mixture of formats a process uses (a fifth class makes V8 five times slower, measured).
 */
import { IommuError, maskHi, maskLo } from '@iommu-ts/bits';
import type { Field, Layout } from '@iommu-ts/bits';
import type { HwInfo, PageTableFeatures, TableGeometry } from './config.ts';

/** Rules of map, unmap and their errors: Linux's `generic_pt` (VT-d, AMD, RISC-V). */
export const RULES_GENERIC_PT = 0;
/** Rules of map, unmap and their errors: Linux's `io-pgtable-arm`. */
export const RULES_IO_PGTABLE_ARM = 1;
/** Rules of map, unmap and their errors: Linux's `io-pgtable-dart`. */
export const RULES_IO_PGTABLE_DART = 2;

/** No contiguous entries. */
export const CONTIG_NONE = 0;
/** AMD: NextLevel 7, and the size coded in the low address bits (AMD I/O Virtualization Technology, 2.2.3). */
export const CONTIG_AMD = 1;
/** RISC-V Svnapot: N bit, and the size coded in the low PPN bits (Privileged Architecture, Svnapot). */
export const CONTIG_NAPOT = 2;

/** Sets `field` to `value` in a leaf when all conditions hold. Later rules or their bits in. */
export interface AttributeRule {
  /** Name of a field of the format's layout. */
  readonly field: string;
  readonly value: number;
  /** Bits of `PROT` that must all be set. */
  readonly when?: number;
  /** Bits of `PROT` that must all be clear. */
  readonly unless?: number;
  /** A feature that must be on. */
  readonly feature?: keyof PageTableFeatures;
  /** A feature that must be off. */
  readonly withoutFeature?: keyof PageTableFeatures;
}

/** How a permission is read back from an entry: `field` has (or, with `not`, has not) `value` under `mask` of the field. */
export interface PermissionTest {
  readonly field: string;
  readonly value: number;
}

/** A page size of a format. */
export interface FormatSize {
  readonly lg2: number;
  /** Only with this feature. */
  readonly feature?: keyof PageTableFeatures;
  /** Only when output addresses have at least so many bits. */
  readonly minOas?: number;
}

/** What {@link defineFormat} takes. Levels count 0 = lowest. */
export interface FormatSpec {
  readonly name: string;
  /** The specification and section the bits come from. */
  readonly spec: string;
  readonly rules: 0 | 1 | 2;
  /** Size of the smallest page, as a power of two. */
  readonly granuleLg2: number;
  /** Index bits of every level but the top one; absent: tables are as large as the smallest page. */
  readonly bits?: number;
  /** Highest level a table may start at. */
  readonly maxTopLevel: number;
  /** Level that a table starts at when the configuration does not say; -1: computed from the IOVA width. */
  readonly topLevel?: number;
  /** The top grows when a map needs it (AMD). */
  readonly dynamicTop?: boolean;
  /** The top table has 2^extra times the entries of the others (RISC-V Sv…x4: 2). */
  readonly topExtraBits?: number;
  /** The top table has only the entries that the IOVA width needs (Arm). */
  readonly shortTop?: boolean;
  /** Concatenated start tables: rows of [top level, ias or 0, oas or 0] where the level above is folded in (Arm stage 2). */
  readonly concatenate?: readonly (readonly [topLevel: number, ias: number, oas: number])[];
  /** Most start tables side by side (DART: 4 TTBRs). */
  readonly maxRoots?: number;
  /** IOVAs are sign-extended from `ias` bits. */
  readonly signExtend?: boolean;
  /** The specification's level number is this minus ours (Arm: 3); absent: the same. */
  readonly specLevelBase?: number;
  readonly sizes: readonly FormatSize[];
  /** Fields of a leaf entry, highest first. */
  readonly leafLayout: Layout;
  /** Fields of a table entry, highest first. */
  readonly tableLayout: Layout;
  /** Field of the output address, and how far left it must be shifted to be an address (RISC-V 2, DART v2 4, else 0). */
  readonly oa: Field;
  readonly oaShift?: number;
  /**
   * Address bits 51:48 are kept in entry bits 15:12 (Arm 64 KiB granule). `'write'`: or-ed in there but not read back,
   * which is what Linux does with the other granules when a mapping runs past 2^48.
   */
  readonly foldOa?: boolean | 'write';
  /** Width of the largest output address the entry can hold. */
  readonly maxOas: number;
  /** Bits of which one set makes an entry present. Absent: any bit of the entry. */
  readonly present?: Field;
  /** Above level 0 an entry is a table when this field has this value … */
  readonly tableType: {
    readonly field: Field;
    readonly value: number;
    /** … plus the level (AMD NextLevel). */ readonly plusLevel?: boolean;
  };
  /** Bits that every table entry has. */
  readonly tableBits: readonly AttributeRule[];
  /** Bits that a leaf of level 0 has beside its attributes. */
  readonly pageBits?: readonly AttributeRule[];
  /** Bits that a leaf of a higher level has beside its attributes. */
  readonly blockBits?: readonly AttributeRule[];
  /** Attributes of a leaf by protection and features. */
  readonly attributes: readonly AttributeRule[];
  readonly contig?: 0 | 1 | 2;
  /** How leaves tell what they allow. Absent: always allowed. */
  readonly read?: PermissionTest;
  readonly write?: PermissionTest;
  readonly exec?: PermissionTest;
  /** What a driver tells the hardware about a table of this format. */
  readonly hw: (geometry: TableGeometry) => HwInfo;
}

const at = (spec: FormatSpec, layout: Layout, rule: { field: string }): Field => {
  const field = layout[rule.field];
  if (field === undefined) {
    throw new IommuError('EINVAL', `format ${spec.name}: no field ${rule.field}`, { field: rule.field });
  }
  return field;
};

const put = (field: Field, value: number, words: [lo: number, hi: number]): void => {
  const bits = (BigInt(value) << BigInt(field.lsb)) & 0xffff_ffff_ffff_ffffn;
  words[0] |= Number(BigInt.asIntN(32, bits));
  words[1] |= Number(BigInt.asIntN(32, bits >> 32n));
};

/** One format; made by {@link defineFormat} only. Masks are int32; `…Lo` is bits 31:0 of an entry, `…Hi` bits 63:32. */
export class PageTableFormat {
  declare readonly name: string;
  declare readonly spec: string;
  declare readonly rules: number;
  declare readonly granuleLg2: number;
  /** Index bits of every level but the top one. */
  declare readonly bits: number;
  declare readonly maxTopLevel: number;
  declare readonly topLevel: number;
  declare readonly dynamicTop: boolean;
  declare readonly topExtraBits: number;
  declare readonly shortTop: boolean;
  declare readonly concatenate: readonly (readonly [number, number, number])[];
  declare readonly maxRoots: number;
  declare readonly signExtend: boolean;
  declare readonly specLevelBase: number;
  declare readonly sizes: readonly FormatSize[];
  declare readonly leafLayout: Layout;
  declare readonly tableLayout: Layout;
  declare readonly oaMaskLo: number;
  declare readonly oaMaskHi: number;
  declare readonly oaShift: number;
  /** Entry bits that hold address bits 51:48: read back, and written. */
  declare readonly foldLo: number;
  declare readonly foldWriteLo: number;
  declare readonly maxOas: number;
  declare readonly presentLo: number;
  declare readonly presentHi: number;
  declare readonly typeMask: number;
  declare readonly tableType: number;
  declare readonly tableStep: number;
  declare readonly contig: number;
  declare readonly definition: FormatSpec;

  constructor(spec: FormatSpec) {
    this.name = spec.name;
    this.spec = spec.spec;
    this.rules = spec.rules;
    this.granuleLg2 = spec.granuleLg2;
    this.bits = spec.bits ?? spec.granuleLg2 - 3;
    this.maxTopLevel = spec.maxTopLevel;
    this.topLevel = spec.topLevel ?? -1;
    this.dynamicTop = spec.dynamicTop ?? false;
    this.topExtraBits = spec.topExtraBits ?? 0;
    this.shortTop = spec.shortTop ?? false;
    this.concatenate = spec.concatenate ?? [];
    this.maxRoots = spec.maxRoots ?? 1;
    this.signExtend = spec.signExtend ?? false;
    this.specLevelBase = spec.specLevelBase ?? -1;
    this.sizes = spec.sizes;
    this.leafLayout = spec.leafLayout;
    this.tableLayout = spec.tableLayout;
    this.oaMaskLo = maskLo(spec.oa);
    this.oaMaskHi = maskHi(spec.oa);
    this.oaShift = spec.oaShift ?? 0;
    this.foldLo = spec.foldOa === true ? 0xf000 : 0;
    this.foldWriteLo = spec.foldOa === undefined || spec.foldOa === false ? 0 : 0xf000;
    this.maxOas = spec.maxOas;
    this.presentLo = spec.present === undefined ? -1 : maskLo(spec.present);
    this.presentHi = spec.present === undefined ? -1 : maskHi(spec.present);
    this.typeMask = maskLo(spec.tableType.field);
    this.tableType = (spec.tableType.value << spec.tableType.field.lsb) | 0;
    this.tableStep = spec.tableType.plusLevel === true ? 1 << spec.tableType.field.lsb : 0;
    this.contig = spec.contig ?? CONTIG_NONE;
    this.definition = spec;
    // Every rule must name a field that exists: found when the format is made, not when a mapping needs it.
    for (const rule of spec.tableBits) at(spec, spec.tableLayout, rule);
    for (const rule of [...spec.attributes, ...(spec.pageBits ?? []), ...(spec.blockBits ?? [])]) {
      at(spec, spec.leafLayout, rule);
    }
    for (const test of [spec.read, spec.write, spec.exec]) if (test !== undefined) at(spec, spec.leafLayout, test);
  }

  /** The specification's own number of our level `level`. */
  specLevel(level: number): number {
    return this.specLevelBase < 0 ? level : this.specLevelBase - level;
  }
}

/** Makes a format of its description. @throws IommuError `EINVAL` when a rule names a field that the layout does not have. */
export const defineFormat = (spec: FormatSpec): PageTableFormat => new PageTableFormat(spec);

const applies = (rule: AttributeRule, prot: number, features: PageTableFeatures): boolean =>
  (prot & (rule.when ?? 0)) === (rule.when ?? 0) &&
  (prot & (rule.unless ?? 0)) === 0 &&
  (rule.feature === undefined || features[rule.feature] === true) &&
  (rule.withoutFeature === undefined || features[rule.withoutFeature] !== true);

/**
 * Attribute words of every protection, evaluated once per table: four int32 a protection (0-63): page lo, page hi,
 * block lo, block hi; no address in them.
 */
export const leafAttributes = (format: PageTableFormat, features: PageTableFeatures): Int32Array => {
  const spec = format.definition;
  const out = new Int32Array(64 * 4);
  for (let prot = 0; prot < 64; prot++) {
    for (const block of [0, 1]) {
      const words: [number, number] = [0, 0];
      for (const rule of [...spec.attributes, ...((block === 1 ? spec.blockBits : spec.pageBits) ?? [])]) {
        if (applies(rule, prot, features)) put(at(spec, spec.leafLayout, rule), rule.value, words);
      }
      out[prot * 4 + block * 2] = words[0];
      out[prot * 4 + block * 2 + 1] = words[1];
    }
  }
  return out;
};

/** Bits of every table entry under `features`, as [lo, hi], without address and level. */
export const tableAttributes = (format: PageTableFormat, features: PageTableFeatures): [lo: number, hi: number] => {
  const spec = format.definition;
  const words: [number, number] = [0, 0];
  for (const rule of spec.tableBits) {
    if (applies(rule, 0, features)) put(at(spec, spec.tableLayout, rule), rule.value, words);
  }
  return words;
};
