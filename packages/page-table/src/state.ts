/**
 * The state of one page table: geometry and masks as plain numbers in one hidden class, where its top table lies, and the
 * slots through which the engine hands words back (a returned number of 2^31 or more would be allocated).
 *
 * Over 500 lines because it is one class: every loop of the engine reads its fields, and a second class would be a second
 * hidden class at each of those places.
 */
import { IommuError, addressOfPfn, hex, loOfPfn } from '@iommu-ts/bits';
import { IommuPagesList, NO_PAGE } from '@iommu-ts/iommu-pages';
import type { IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { bulkFor } from './bulk.ts';
import type { WasmBulk } from './bulk.ts';
import type { PageTableConfig, PageTableFeatures, TableGeometry } from './config.ts';
import { CONTIG_AMD, CONTIG_NAPOT, RULES_IO_PGTABLE_DART, leafAttributes, tableAttributes } from './format.ts';
import type { PageTableFormat } from './format.ts';
import { GatherRecord } from './gather.ts';
import { POW2 } from './sizes.ts';

const TWO_32 = 0x1_0000_0000;
const NO_WORDS = new Int32Array(0);

/**
 * Smallest table. An Arm start table may have two entries, but its base is aligned to 64 bytes where output addresses have
 * 52 bits (Arm DDI 0487, TTBR0_EL1; IHI 0070, CD.TTB0), and Linux asks for as many always.
 */
const MIN_TABLE_BYTES = 64;

/** Bits of table entries that may be tested at once: a software mark (bits 11:8) may be absent in another's tables. */
const WALK_BITS = 0xff;

/** Mask of bits `from` and up of a 64-bit value, as [lo, hi] int32. */
const bitsFrom = (from: number): [lo: number, hi: number] => {
  const mask = BigInt.asUintN(64, -1n << BigInt(from));
  return [Number(BigInt.asIntN(32, mask)), Number(BigInt.asIntN(32, mask >> 32n))];
};

/** Index bits of the top table and its level, by the format's rule. */
const shapeOf = (config: PageTableConfig): { topLevel: number; topBits: number; roots: number } => {
  const { format, ias, oas } = config;
  const vaBits = ias - format.granuleLg2;
  let topLevel = config.topLevel ?? format.topLevel;
  let roots = 1;
  if (topLevel < 0) {
    topLevel = Math.max(Math.ceil(vaBits / format.bits), 1) - 1;
    if (format.rules === RULES_IO_PGTABLE_DART) {
      // Two levels below the TTBRs as long as the TTBRs that there are can cover the rest.
      topLevel = vaBits - 2 * format.bits <= Math.log2(format.maxRoots) ? 1 : 2;
    }
  }
  if (format.rules === RULES_IO_PGTABLE_DART) roots = 2 ** Math.max(0, vaBits - (topLevel + 1) * format.bits);
  let topBits = format.bits + format.topExtraBits;
  if (format.shortTop) {
    topBits = vaBits - topLevel * format.bits;
    for (const [level, wantIas, wantOas] of format.concatenate) {
      const match = (wantIas !== 0 && wantIas === ias) || (wantOas !== 0 && wantOas === oas);
      if (level === topLevel && match && config.topLevel === undefined) {
        topLevel--;
        topBits += format.bits;
        break;
      }
    }
  }
  return { topLevel, topBits: config.topBits ?? topBits, roots };
};

/** Page sizes that a table may use, as a bitmap. */
const sizesOf = (config: PageTableConfig): bigint => {
  const { format, ias, oas } = config;
  let all = 0n;
  for (const size of format.sizes) {
    if (size.feature !== undefined && config[size.feature] !== true) continue;
    if (oas < (size.minOas ?? 0) || size.lg2 >= ias) continue;
    // A generic_pt domain has no page as large as half its space.
    if (format.rules === 0 && size.lg2 > ias - 2 && ias < 64) continue;
    all |= 1n << BigInt(size.lg2);
  }
  if (config.pageSizes === undefined) return all;
  const extra = config.pageSizes & ~all;
  if (extra !== 0n || config.pageSizes === 0n) {
    throw new IommuError(
      'EINVAL',
      `page sizes ${hex(config.pageSizes)} are not a subset of ${hex(all)} of ${format.name}`,
      {
        pageSizes: config.pageSizes,
      },
    );
  }
  return config.pageSizes;
};

/** A table that is there already: where it lies. */
export interface Existing {
  readonly memory: PhysicalMemory;
  readonly roots: readonly number[];
}

/**
 * Everything the engine's functions read and write. Not for users: {@link PageTable} is.
 *
 * Fields that the constructor sets are `declare`d: a plain field declaration would first store `undefined`, after which V8
 * keeps the field as a tagged value for good and tests it at each use (a look-up took 33 ns instead of 24, measured).
 */
export class TableState {
  /** The format. */
  declare readonly format: PageTableFormat;
  /** Features as configured, all named. */
  declare readonly features: PageTableFeatures;
  /** Width of an IOVA in bits. */
  declare readonly ias: number;
  /** Width of an output address in bits. */
  declare readonly oas: number;
  /** Page sizes in use, as a bitmap (bit n = 2^n bytes). */
  declare readonly pageSizes: bigint;
  /** NUMA node of the tables, -1: none in particular. */
  declare readonly node: number;
  /** Allocator of the tables; null for a table that is open for reading. */
  declare readonly pages: IommuPages | null;
  /** Memory that the tables lie in. */
  declare readonly memory: PhysicalMemory;
  /** @internal */ declare readonly sync: ((gather: GatherRecord) => void) | null;
  /** @internal */ declare readonly flush: ((pfn: number, byteOffset: number, bytes: number) => void) | null;
  /** @internal */ declare readonly topChanged: (() => void) | null;
  /** For maps that come without a gather and must free tables. @internal */
  readonly ownGather = new GatherRecord();
  /** Tables collected by the present step, on their way to the front of a gather's list. @internal */
  readonly scratch = new IommuPagesList('tables of this step');

  /** @internal */ declare readonly rules: number;
  /** Smallest page as a power of two, and in bytes. */
  declare readonly granuleLg2: number;
  declare readonly granuleBytes: number;
  /** @internal */ declare readonly granuleMask: number;
  /** @internal */ declare readonly bits: number;
  /** Bytes of every table but the top one. @internal */
  declare readonly tableBytes: number;
  /** @internal */ declare readonly indexMask: number;
  /** @internal */ declare readonly leafSpanLg2: number;
  /** Bytes that a table of level 0 covers, less one. @internal */
  declare readonly spanMask: number;
  /** The second smallest page size in use (2^31 when there is none below it). @internal */
  declare readonly secondBytes: number;
  /** @internal */ declare readonly oaMaskLo: number;
  /** @internal */ declare readonly oaMaskHi: number;
  /** @internal */ declare readonly oaShift: number;
  /** @internal */ declare readonly foldLo: number;
  /** @internal */ declare readonly foldWriteLo: number;
  /** Output addresses count on linearly up to a multiple of 2^this only. @internal */
  declare readonly oaLimitLg2: number;
  /** @internal */ declare readonly presentLo: number;
  /** @internal */ declare readonly presentHi: number;
  /** @internal */ declare readonly typeMask: number;
  /** @internal */ declare readonly tableType: number;
  /** @internal */ declare readonly tableStep: number;
  /** @internal */ declare readonly contig: number;
  /** @internal */ declare readonly tableLo: number;
  /** @internal */ declare readonly tableHi: number;
  /** @internal */ declare readonly attributes: Int32Array;
  /** What all leaves of one entry have in common and tables have not: lets runs be cleared without a look at each. @internal */
  declare readonly pageMaskLo: number;
  /** @internal */ declare readonly pageValueLo: number;
  /** @internal */ declare readonly blockMaskLo: number;
  /** @internal */ declare readonly blockValueLo: number;
  /** @internal */ declare readonly leafMaskHi: number;
  /** Bits of a level-0 leaf that tell of a contiguous one, with `leafMaskHi`. @internal */
  declare readonly contigLo: number;
  /** What all table entries have in the low word, without their level. @internal */
  declare readonly entryMaskLo: number;
  /** @internal */ declare readonly entryValueLo: number;
  /** Level whose leaves have 2^n bytes, for n below 32 and levels above 0; 0: there is none, or the size is not in use. @internal */
  declare readonly levelOfLg2: Int8Array;
  /** @internal */ declare readonly sizesLo: number;
  /** @internal */ declare readonly sizesHi: number;
  /** @internal */ declare readonly granuleAllowed: number;
  /** @internal */ declare readonly forceWriteable: number;
  /** @internal */ declare readonly noGaps: number;
  /** IOVA bits that must be all clear (`lowOk`) or all set (`highOk`). @internal */
  declare readonly iasMaskLo: number;
  /** @internal */ declare readonly iasMaskHi: number;
  /** @internal */ declare readonly lowOk: number;
  /** @internal */ declare readonly highOk: number;
  /** Output address bits that must be clear. @internal */
  declare readonly oasMaskLo: number;
  /** @internal */ declare readonly oasMaskHi: number;
  /** @internal */ declare readonly dynamicTop: number;

  /** Level of the top table now, 0 = lowest. */
  declare topLevel: number;
  /** @internal */ declare topBits: number;
  /** @internal */ declare topMask: number;
  /** IOVA bits above what the present top covers; must be clear, or set with {@link highOk}. @internal */
  coverMaskLo = 0;
  /** @internal */ coverMaskHi = 0;
  /** Where the top table's index begins in the IOVA, and what its table entries have under `walkMaskLo`. @internal */
  topShift = 0;
  /** @internal */ topType = 0;
  /** What a look-up tests of the low word of a table entry; {@link topType} counts down by the format's step a level. @internal */
  walkMaskLo = 0;
  /** How often the top was replaced by a higher one. */
  topChanges = 0;
  /** Page frame numbers of the top tables, with a fraction of k/64 for one that is part of a page. */
  declare readonly rootPfns: number[];
  declare readonly rootCount: number;
  /** @internal */ rootHi = 0;
  /** @internal */ rootLo = 0;

  /** The flat RAM range that the tables lie in (`homeWords` is empty when there is none). @internal */
  homeWords: Int32Array = NO_WORDS;
  /** @internal */ homeHi = 0;
  /** @internal */ homeLo = 0;
  /** @internal */ homeLength = 0;
  /** High word of every table entry that points into the home range. @internal */
  walkHi = 0;
  /** Word of `homeWords` where the only top table begins, or -1. @internal */
  rootWord = -1;
  /**
   * For DART's look-up: word of `homeWords` where the only table of level 1 begins, -1 when it is to be found by
   * `rootWords` or in the table above, -2 when the look-up must be the general one.
   * @internal
   */
  dartWord = -2;
  /** Words of `homeWords` where DART's start tables begin, when there are several. @internal */
  rootWords: Int32Array = NO_WORDS;
  /** @internal */ bulk: WasmBulk | null = null;

  /** Last table of level 0 found by a map or unmap; forgotten whenever a table is freed or the top changes. @internal */
  cacheView: Int32Array = NO_WORDS;
  /** @internal */ cacheAt = -1;
  /** @internal */ cacheMask = 0;
  /** @internal */ cacheHi = 0;
  /** @internal */ cacheLo = 0;
  /** @internal */ cachePfn = 0;

  /** The same for blocks, of `blockBytes` bytes (`blockAt` -1: none); the IOVA's bits above the table's span are `blockHi:blockLo`. */
  /** @internal */ blockView: Int32Array = NO_WORDS;
  /** @internal */ blockAt = -1;
  /** @internal */ blockBytes = 0;
  /** @internal */ blockLg2 = 0;
  /** @internal */ blockSpanHi = 0;
  /** @internal */ blockSpanLo = 0;
  /** @internal */ blockHi = 0;
  /** @internal */ blockLo = 0;
  /** @internal */ blockPfn = 0;

  /** Slots: the table found by `find`, and its address. @internal */
  view: Int32Array = NO_WORDS;
  /** @internal */ at = 0;
  /** @internal */ tableHi32 = 0;
  /** @internal */ tableLo32 = 0;
  /** Slots: a 64-bit value. @internal */
  hi = 0;
  /** @internal */ lo = 0;
  /** Slots of the unmap recursion: present IOVA and last IOVA. @internal */
  curHi = 0;
  /** @internal */ curLo = 0;
  /** @internal */ lastHi = 0;
  /** @internal */ lastLo = 0;
  /** Bytes unmapped so far. @internal */
  unmapped = 0;

  /** Bytes mapped by the last map, also when it failed. */
  mapped = 0;
  /** Output address of the last successful `iovaToPhys`, int32 words. */
  outHi = 0;
  outLo = 0;
  /** Size of the leaf it was found in, as a power of two, its level, and the entry itself. */
  leafSizeLg2 = 0;
  leafLevel = 0;
  leafHi = 0;
  leafLo = 0;

  constructor(pages: IommuPages | null, config: PageTableConfig, existing: Existing | null) {
    const { format, ias, oas } = config;
    if (!(Number.isInteger(ias) && ias > format.granuleLg2 && ias <= 64)) {
      throw new IommuError('EINVAL', `ias ${ias} bits is not from ${format.granuleLg2 + 1} to 64`, { ias: `${ias}` });
    }
    if (!(Number.isInteger(oas) && oas > format.granuleLg2 && oas <= format.maxOas)) {
      throw new IommuError('EINVAL', `oas ${oas} bits is not from ${format.granuleLg2 + 1} to ${format.maxOas}`, {
        oas: `${oas}`,
      });
    }
    const { topLevel, topBits, roots } = shapeOf(config);
    if (!(topLevel >= 0 && topLevel <= format.maxTopLevel) || topBits < 1 || topBits > 20) {
      throw new IommuError('EINVAL', `${format.name} cannot have its top at level ${topLevel} for ias ${ias}`, {
        topLevel: `${topLevel}`,
      });
    }
    if (roots > format.maxRoots) {
      throw new IommuError('EINVAL', `ias ${ias} needs ${roots} start tables, ${format.name} has ${format.maxRoots}`, {
        ias: `${ias}`,
      });
    }
    this.format = format;
    this.features = featuresOf(config);
    this.ias = ias;
    this.oas = oas;
    this.pageSizes = sizesOf(config);
    this.node = config.node ?? -1;
    this.pages = pages;
    this.memory = existing === null ? pages!.memory : existing.memory;
    this.sync = config.sync ?? null;
    this.flush = config.incoherent === true ? (config.flush ?? null) : null;
    this.topChanged = config.topChanged ?? null;

    this.rules = format.rules;
    this.granuleLg2 = format.granuleLg2;
    this.granuleBytes = 1 << format.granuleLg2;
    this.granuleMask = (1 << format.granuleLg2) - 1;
    this.bits = format.bits;
    this.tableBytes = 8 << format.bits;
    this.indexMask = (1 << format.bits) - 1;
    this.spanMask = POW2[format.granuleLg2 + format.bits]! - 1;
    const larger = [...this.pageSizes.toString(2)].toReversed().indexOf('1', format.granuleLg2 + 1);
    this.secondBytes = larger > 0 && larger < 31 ? 1 << larger : 0x4000_0000;
    this.leafSpanLg2 = format.granuleLg2 + format.bits;
    this.oaMaskLo = format.oaMaskLo;
    this.oaMaskHi = format.oaMaskHi;
    this.oaShift = format.oaShift;
    this.foldLo = format.foldLo;
    this.foldWriteLo = format.foldWriteLo;
    this.oaLimitLg2 = format.foldWriteLo === 0 ? format.maxOas : 48;
    this.presentLo = format.presentLo;
    this.presentHi = format.presentHi;
    this.typeMask = format.typeMask;
    this.tableType = format.tableType;
    this.tableStep = format.tableStep;
    this.contig = format.contig;
    const [tableLo, tableHi] = tableAttributes(format, config);
    this.tableLo = tableLo;
    this.tableHi = tableHi;
    this.attributes = leafAttributes(format, config);
    const page = commonBits(this.attributes, 0);
    const block = commonBits(this.attributes, 2);
    this.pageMaskLo = (page.always | this.typeMask) & ~page.varied;
    this.pageValueLo = page.always & this.pageMaskLo;
    this.blockMaskLo = (block.always | this.typeMask) & ~block.varied;
    this.blockValueLo = block.always & this.blockMaskLo;
    this.contigLo = format.contig === CONTIG_AMD ? 0xe00 : 0;
    this.entryMaskLo = (tableLo & WALK_BITS) | this.typeMask;
    this.entryValueLo = (tableLo & WALK_BITS) | this.tableType;
    this.leafMaskHi = format.contig === CONTIG_NAPOT ? 0x8000_0000 | 0 : 0;
    this.levelOfLg2 = new Int8Array(32);
    for (let level = 1; level <= format.maxTopLevel; level++) {
      const lg2 = format.granuleLg2 + level * format.bits;
      if (lg2 < 31 && (this.pageSizes & (1n << BigInt(lg2))) !== 0n) this.levelOfLg2[lg2] = level;
    }
    this.sizesLo = Number(BigInt.asIntN(32, this.pageSizes));
    this.sizesHi = Number(BigInt.asIntN(32, this.pageSizes >> 32n));
    this.granuleAllowed = (this.pageSizes & (1n << BigInt(format.granuleLg2))) !== 0n ? 1 : 0;
    this.forceWriteable = config.forceWriteable === true ? 1 : 0;
    this.noGaps = config.flushRangeNoGaps === true ? 1 : 0;
    const [iasLo, iasHi] = ias === 64 ? [0, 0] : bitsFrom(format.signExtend ? ias - 1 : ias);
    // DART looks at the TTBR index only; what lies above its TTBRs is out of range.
    const dart = format.rules === RULES_IO_PGTABLE_DART;
    const dartMask = bitsFrom(format.granuleLg2 + format.bits * (topLevel + 1) + Math.log2(roots));
    this.iasMaskLo = dart ? dartMask[0] : iasLo;
    this.iasMaskHi = dart ? dartMask[1] : iasHi;
    this.lowOk = config.ttbr1 === true ? 0 : 1;
    this.highOk = config.ttbr1 === true || format.signExtend ? 1 : 0;
    const [oasLo, oasHi] = bitsFrom(oas);
    this.oasMaskLo = oasLo;
    this.oasMaskHi = oasHi;
    this.dynamicTop = format.dynamicTop ? 1 : 0;
    this.topLevel = topLevel;
    this.topBits = topBits;
    this.topMask = (1 << topBits) - 1;
    this.rootCount = roots;
    const topBytes = 8 << topBits;
    // Low bits of a root that was read somewhere mean something only when the table is smaller than a page.
    this.rootPfns = existing === null ? [] : existing.roots.map((pfn) => (topBytes < 4096 ? pfn : Math.floor(pfn)));
    if (existing === null) {
      for (let i = 0; i < roots; i++) {
        const pfn = pages!.allocPagesNodeSz(this.node, Math.max(topBytes, MIN_TABLE_BYTES));
        if (pfn === NO_PAGE) {
          for (const got of this.rootPfns) pages!.freePages(got);
          throw new IommuError('ENOMEM', `no page for the top table of ${format.name} (${hex(topBytes)} bytes)`);
        }
        this.rootPfns.push(pfn);
        if (this.flush !== null) this.flush(pfn, 0, topBytes);
      }
    }
    this.setTop(topLevel);
  }

  /** Forgets the tables that map and unmap remember. @internal */
  forget(): void {
    this.cacheAt = -1;
    this.blockAt = -1;
  }

  /** Takes `rootPfns[0]` as the top table at `level`, and settles what it covers. @internal */
  setTop(level: number): void {
    this.topLevel = level;
    this.topShift = this.granuleLg2 + level * this.bits;
    const pfn = this.rootPfns[0]!;
    this.rootHi = Math.floor(pfn / 0x10_0000) | 0;
    this.rootLo = loOfPfn(pfn);
    const cover = this.granuleLg2 + level * this.bits + this.topBits + Math.log2(this.rootCount);
    const short = cover < this.ias && !this.format.signExtend;
    const [lo, hi] = short ? bitsFrom(cover) : [this.iasMaskLo, this.iasMaskHi];
    this.coverMaskLo = lo;
    this.coverMaskHi = hi;
    this.forget();
    this.rootWord = -1;
    this.dartWord = -2;
    const range = this.memory.rangeOf(pfn);
    if (range !== null && range.flat) {
      this.homeWords = range.words;
      this.homeHi = Math.floor(range.basePfn / 0x10_0000) | 0;
      this.homeLo = loOfPfn(range.basePfn);
      this.homeLength = range.words.length;
      this.bulk = bulkFor(range);
      // The quick look-up wants one high address word for the whole range.
      const lastHi = Math.floor((range.endPfn - 1) / 0x10_0000) | 0;
      if (lastHi === this.homeHi) {
        // A top table smaller than a page may lie anywhere in one.
        if (this.rootCount === 1) this.rootWord = ((pfn - range.basePfn) * 1024) | 0;
        if (this.rules === RULES_IO_PGTABLE_DART) this.#setDart(range.basePfn, range.endPfn);
        // Address bits of the low word that the shift or the fold put beyond the low address word are tested as well.
        this.encodeOa(this.homeHi, 0);
        const beyond = this.foldLo | (this.oaShift === 0 ? 0 : -1 << (32 - this.oaShift));
        this.walkHi = this.hi | this.tableHi;
        this.walkMaskLo = this.entryMaskLo | beyond;
        this.topType = (this.entryValueLo + level * this.tableStep) | (this.lo & beyond);
      }
    }
  }

  /** Settles whether the look-up may take DART's own way: start tables in the home range, all tables of one shape. */
  #setDart(basePfn: number, endPfn: number): void {
    const plain = this.presentHi === 0 && this.foldLo === 0 && this.tableStep === 0 && this.contig === 0;
    const shaped = (this.topLevel === 1 || this.topLevel === 2) && this.topBits === this.bits && this.leafSpanLg2 < 32;
    if (!plain || !shaped || this.lowOk === 0 || this.highOk !== 0) return;
    if (this.rootCount === 1) this.dartWord = this.topLevel === 1 ? this.rootWord : -1;
    else if (this.rootPfns.length === this.rootCount && this.rootPfns.every((pfn) => pfn >= basePfn && pfn < endPfn)) {
      this.rootWords = Int32Array.from(this.rootPfns, (pfn) => (pfn - basePfn) * 1024);
      this.dartWord = -1;
    }
  }

  /** True when the IOVA lies in what the present top covers. @internal */
  inRange(hi: number, lo: number): boolean {
    const maskHi = this.coverMaskHi;
    const maskLo = this.coverMaskLo;
    const upHi = hi & maskHi;
    const upLo = lo & maskLo;
    // A zero mask (64 bits of IOVA) matches either way.
    if ((upHi | upLo) === 0) return this.lowOk !== 0;
    return this.highOk !== 0 && upHi === maskHi && upLo === maskLo;
  }

  /** Finds the words of the table at `hi:lo`: sets `view` and `at`; false when it is not RAM. @internal */
  locate(hi: number, lo: number): boolean {
    const word = ((lo - this.homeLo) | 0) >>> 2;
    const borrow = lo >>> 0 < this.homeLo >>> 0 ? 1 : 0;
    if (((hi - this.homeHi - borrow) | 0) === 0 && word < this.homeLength) {
      this.view = this.homeWords;
      this.at = word;
      return true;
    }
    // For a writer the chunk of a sparse range must exist; readers of dumps get zeros where nothing was written.
    const memory = this.memory;
    if (!memory.locate((hi >>> 0) * 0x10_0000 + (lo >>> 12), this.pages !== null)) return false;
    this.view = memory.view;
    this.at = memory.index + ((lo & 0xfff) >>> 2);
    return true;
  }

  /** Address of the table that an entry points to, into `hi` and `lo`. @internal */
  tableOf(entryHi: number, entryLo: number): void {
    const lo = entryLo & this.oaMaskLo;
    const shift = this.oaShift;
    this.lo = lo << shift;
    this.hi = ((entryHi & this.oaMaskHi) << shift) | ((lo >>> (31 - shift)) >>> 1) | ((entryLo & this.foldLo) << 4);
  }

  /** Entry bits of an output address, into `hi` and `lo`. @internal */
  encodeOa(oaHi: number, oaLo: number): void {
    const shift = this.oaShift;
    this.lo = (((oaLo >>> shift) | ((oaHi << (31 - shift)) << 1)) & this.oaMaskLo) | ((oaHi >>> 4) & this.foldWriteLo);
    this.hi = (oaHi >>> shift) & this.oaMaskHi;
  }

  /** A new zeroed table of `bytes`, or -1. @internal */
  allocTable(bytes: number): number {
    const pfn = this.pages!.allocPagesNodeSz(this.node, bytes);
    if (pfn !== NO_PAGE && this.flush !== null) this.flush(pfn, 0, bytes);
    return pfn;
  }

  /** Shape of the table, for the driver. */
  geometry(): TableGeometry {
    return {
      format: this.format,
      features: this.features,
      ias: this.ias,
      oas: this.oas,
      root: addressOfPfn(this.rootPfns[0]!),
      roots: this.rootPfns.map((pfn) => addressOfPfn(pfn)),
      topLevel: this.topLevel,
      levels: this.topLevel + 1,
      topBits: this.topBits,
      topBytes: 8 << this.topBits,
      bitsPerLevel: this.bits,
      topChanges: this.topChanges,
    };
  }
}

/** `lo + bytes` carried into `hi:lo` of `table`; bytes below 2^52. */
export const addBytes = (table: TableState, hi: number, lo: number, bytes: number): void => {
  const sum = (lo >>> 0) + bytes;
  table.hi = (hi + Math.floor(sum / TWO_32)) | 0;
  table.lo = sum | 0;
};

/** Bits that are set in the low word under every protection that may be mapped, and bits that are set under some only. */
const commonBits = (attributes: Int32Array, slot: number): { always: number; varied: number } => {
  let always = -1;
  let any = 0;
  for (let prot = 0; prot < 64; prot++) {
    if ((prot & 3) === 0) continue;
    always &= attributes[prot * 4 + slot]!;
    any |= attributes[prot * 4 + slot]!;
  }
  return { always, varied: any & ~always };
};

const featuresOf = (config: PageTableConfig): PageTableFeatures => ({
  svnapot: config.svnapot === true,
  svpbmt: config.svpbmt === true,
  snp: config.snp === true,
  forceWriteable: config.forceWriteable === true,
  flushRangeNoGaps: config.flushRangeNoGaps === true,
  incoherent: config.incoherent === true,
  ns: config.ns === true,
  hd: config.hd === true,
  fwb: config.fwb === true,
  ttbr1: config.ttbr1 === true,
});
