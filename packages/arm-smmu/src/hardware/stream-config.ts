/**
 * Structure walk of an SMMUv3 (IHI 0070, 3.3, 5.1-5.4): StreamID to STE, SubstreamID to CD, and what they say, decoded into
 * plain numbers that the table walk reads.
 */
import { CHECKS, fieldOfWord, maskHi, maskLo } from '@iommu-ts/bits';
import type { Field } from '@iommu-ts/bits';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { EVENT } from '../faults.ts';
import { CR2, REG, STRTAB_BASE, STRTAB_BASE_CFG } from '../registers.ts';
import { ADDRESS_SIZES, CD, L1CD, L1STD, STE, STE_CONFIG } from '../structures.ts';
import type { Capabilities } from './capabilities.ts';
import { STRUCTURE } from './retained.ts';
import type { Retained } from './retained.ts';
import { WORLD } from './tags.ts';
import type { TagTable } from './tags.ts';

/** What is done with the traffic of a stream. */
export const KIND = { ABORT: 0, BYPASS: 1, S1: 2, S2: 3, NESTED: 4 } as const;

/** One table base: TTB0, TTB1 or S2TTB, with all that a walk from it needs. */
export class TableBase {
  /** No walks: every address in the range faults (EPDx). */
  disabled = true;
  inputBits = 0;
  granuleLg2 = 12;
  /** Level of the start table, as the architecture counts: 0 highest, 3 lowest. */
  startLevel = 0;
  /** Bits of index into the start table (with concatenation, more than one table's). */
  startBits = 0;
  baseHi = 0;
  baseLo = 0;
  /** Size of output addresses in bits. */
  outBits = 0;
  /** 64 KiB granule with 52-bit addresses: descriptor bits 15:12 are address bits 51:48. */
  fold52 = false;
  /** Bit n: blocks are allowed at level n. */
  blocks = 0;
  topByteIgnored = false;
  hierarchyDisabled = false;
  e0pd = false;

  /** Geometry for an input of `inputBits` walked from `startLevel`; the base is aligned to the start table. */
  place(inputBits: number, granuleLg2: number, startLevel: number, hi: number, lo: number, outBits: number): void {
    const stride = granuleLg2 - 3;
    const bits = inputBits - (granuleLg2 + (3 - startLevel) * stride);
    this.disabled = false;
    this.inputBits = inputBits;
    this.granuleLg2 = granuleLg2;
    this.startLevel = startLevel;
    this.startBits = bits;
    this.outBits = outBits;
    this.fold52 = granuleLg2 === 16 && outBits > 48;
    this.blocks = granuleLg2 === 12 ? 0b0110 : this.fold52 ? 0b0110 : 0b0100;
    this.baseHi = hi;
    // 52-bit output asks for 64-byte alignment at least (5.4, CD.TTB0).
    this.baseLo = lo & -(1 << Math.max(bits + 3, outBits > 48 ? 6 : 4));
  }
}

/** What the structures say about one (StreamID, SubstreamID). Made once, filled again and again. */
export class StreamConfig {
  valid = false;
  /** The fields below say what {@link ste} and {@link cd} mean, whether {@link valid} or not. */
  decoded = false;
  /** Bytes that were decoded. */
  readonly ste = new Int32Array(16);
  readonly cd = new Int32Array(16);
  /** CD table of the STE: log2 of its entries, and its format. */
  cdMax = 0;
  fmt = 0;
  sid = 0;
  /** PASID of the transaction, -1 without. */
  pasid = -1;
  kind: number = KIND.ABORT;
  tag = 0;
  /** Tag of what stage 2 alone translates, where there is a stage 2. */
  s2Tag = 0;
  /** STE.PRIVCFG and INSTCFG, 0 where incoming attributes are used. */
  privCfg = 0;
  instCfg = 0;
  /** EL2 without E2H: one privilege level, so AP[1] does not count. */
  singlePrivilege = false;
  wxn = false;
  uwxn = false;
  affd = false;
  /** Faults of stage 1 are recorded (CD.R). */
  r = false;
  s2affd = false;
  s2r = false;
  s2ptw = false;
  readonly ttb0 = new TableBase();
  readonly ttb1 = new TableBase();
  readonly s2 = new TableBase();
}

/** Translates an IPA for a CD fetch; false: a stage 2 fault, which the owner has noted. */
export type TranslateIpa = (config: StreamConfig, hi: number, lo: number) => boolean;

const GRANULE_TG0 = [12, 16, 14, 0];
const GRANULE_TG1 = [0, 14, 12, 16];
const RECINVSID = maskLo(CR2.RECINVSID);
const E2H = maskLo(CR2.E2H);
const CONTEXT_PTR_LO = maskLo(STE.S1ContextPtr);
const CONTEXT_PTR_HI = maskHi(STE.S1ContextPtr);
const L2PTR_LO = maskLo(L1STD.L2Ptr);
const L2PTR_HI = maskHi(L1STD.L2Ptr);
const CD_L2PTR_LO = maskLo(L1CD.L2Ptr);
const CD_L2PTR_HI = maskHi(L1CD.L2Ptr);
const STRTAB_HI = maskHi(STRTAB_BASE.ADDR);
const STRTAB_LO = maskLo(STRTAB_BASE.ADDR);

/** Value of a field that lies in one 32-bit word of a structure. */
const get = (words: Int32Array, field: Field): number => fieldOfWord(words[field.lsb >> 5]!, field);

const equal = (a: Int32Array, b: Int32Array): boolean => {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
};

/** Is address `hi:…` beyond `bits` bits? (32 <= bits <= 52) */
export const exceeds = (hi: number, bits: number): boolean => (bits === 32 ? hi : hi >>> (bits - 32)) !== 0;

/**
 * Walks the structures. A walk gives an event number, or 0 for success; what the record needs beyond it stands in the
 * `fetch…` fields. Reads memory at every call (caching is the owner's business), but for what an adversarial device has
 * retained.
 */
export class StructureWalker {
  readonly #memory: PhysicalMemory;
  readonly #registers: Int32Array;
  readonly #capabilities: Capabilities;
  readonly #translateIpa: TranslateIpa;
  readonly #tags: TagTable;
  readonly #ste = new Int32Array(16);
  readonly #cd = new Int32Array(16);
  readonly #l1 = new Int32Array(2);
  readonly #retained: Retained | null;
  /** Address of a fetch that aborted. */
  fetchHi = 0;
  fetchLo = 0;
  /** After physical(): the address to read. */
  #paHi = 0;
  #paLo = 0;
  /** The record must not be written (C_BAD_STREAMID with CR2.RECINVSID = 0). */
  silent = false;
  /** A stage 2 fault came up on the way to the CD: the owner has its code. */
  stage2Fault = false;
  structureReads = 0;

  constructor(
    memory: PhysicalMemory,
    registers: Int32Array,
    capabilities: Capabilities,
    translateIpa: TranslateIpa,
    tags: TagTable,
    retained: Retained | null = null,
  ) {
    this.#retained = retained;
    this.#memory = memory;
    this.#registers = registers;
    this.#capabilities = capabilities;
    this.#translateIpa = translateIpa;
    this.#tags = tags;
  }

  /** Fills `config` for a stream. @returns 0, or an event number. */
  walk(config: StreamConfig, sid: number, pasid: number): number {
    const known = config.decoded && config.sid === sid && config.pasid === pasid;
    config.valid = false;
    config.sid = sid;
    config.pasid = pasid;
    this.silent = false;
    this.stage2Fault = false;
    const event = this.#fetchSte(sid);
    if (event !== 0) return event;
    // The same bytes mean the same: comparing is several times cheaper than decoding.
    if (known && equal(this.#ste, config.ste)) {
      this.#keepSte(config);
      if (config.kind === KIND.S1 || config.kind === KIND.NESTED) {
        const cdEvent = this.#fetchCd(config, config.kind === KIND.NESTED);
        if (cdEvent !== 0) return cdEvent;
        config.valid = equal(this.#cd, config.cd);
        if (config.valid) this.#keepCd(config);
      } else config.valid = true;
      if (config.valid) return 0;
    }
    config.decoded = false;
    const result = this.#decodeSte(config, pasid);
    if (config.valid) {
      config.decoded = true;
      config.ste.set(this.#ste);
      config.cd.set(this.#cd);
    }
    return result;
  }

  /** Linear or two-level stream table (3.3.1, 3.3.2). */
  #fetchSte(sid: number): number {
    const registers = this.#registers;
    const cfg = registers[REG.STRTAB_BASE_CFG / 4]!;
    const log2 = Math.min(fieldOfWord(cfg, STRTAB_BASE_CFG.LOG2SIZE), this.#capabilities.sidSize);
    let hi = registers[REG.STRTAB_BASE / 4 + 1]! & STRTAB_HI;
    let lo = registers[REG.STRTAB_BASE / 4]! & STRTAB_LO;
    // Shifts, not powers: a power with a variable exponent is a call into the maths library.
    if (sid < 0 || sid > 0xffff_ffff || (log2 < 32 && sid >>> log2 !== 0)) return this.#badStreamId();
    const retained = CHECKS ? this.#retained : null;
    if (retained !== null && retained.structure(STRUCTURE.STE, sid, 0, this.#ste)) return 0;
    if (!this.#capabilities.twoLevel || fieldOfWord(cfg, STRTAB_BASE_CFG.FMT) !== 1) {
      return this.#indexed(hi, lo, log2 + 6, sid, 64) && this.#read(this.#ste, 16) ? 0 : EVENT.F_STE_FETCH;
    }
    const code = fieldOfWord(cfg, STRTAB_BASE_CFG.SPLIT);
    const split = code === 8 || code === 10 ? code : 6;
    const l1Log2 = Math.max(log2 - split, 0);
    const upper = sid >>> split;
    if (retained === null || !retained.structure(STRUCTURE.L1STD, upper, 0, this.#l1)) {
      if (!this.#indexed(hi, lo, Math.max(l1Log2 + 3, 6), upper, 8) || !this.#read(this.#l1, 2))
        return EVENT.F_STE_FETCH;
    }
    const span = get(this.#l1, L1STD.Span);
    const lower = sid & ((1 << split) - 1);
    // Reserved and out-of-bounds spans leave the streams invalid (5.1.1).
    if (span === 0 || span > split + 1 || lower >>> (span - 1) !== 0) return this.#badStreamId();
    if (retained !== null) retained.keep(STRUCTURE.L1STD, upper, 0, split, this.#l1);
    hi = this.#l1[1]! & L2PTR_HI;
    lo = this.#l1[0]! & L2PTR_LO;
    return this.#indexed(hi, lo, 5 + span, lower, 64) && this.#read(this.#ste, 16) ? 0 : EVENT.F_STE_FETCH;
  }

  #badStreamId(): number {
    this.silent = (this.#registers[REG.CR2 / 4]! & RECINVSID) === 0;
    return EVENT.C_BAD_STREAMID;
  }

  /** Fetch address of entry `index` of a table aligned to `2^alignLg2` bytes; the base's lower bits count as zero. */
  #indexed(hi: number, lo: number, alignLg2: number, index: number, bytes: number): boolean {
    const byte = index * bytes;
    this.fetchLo = (alignLg2 >= 32 ? 0 : lo & (-1 << alignLg2)) | byte | 0;
    this.fetchHi = (alignLg2 > 32 ? hi & (-1 << (alignLg2 - 32)) : hi) | (byte / 0x1_0000_0000);
    this.#paHi = this.fetchHi;
    this.#paLo = this.fetchLo;
    return true;
  }

  #read(target: Int32Array, words: number): boolean {
    this.structureReads++;
    const memory = this.#memory;
    if (!memory.locate((this.#paHi >>> 0) * 0x10_0000 + (this.#paLo >>> 12), false)) return false;
    const at = memory.index + ((this.#paLo & 0xfff) >>> 2);
    for (let i = 0; i < words; i++) target[i] = memory.view[at + i]!;
    return true;
  }

  /** STE validity (5.2.2) and what the stream does; goes on to the CD where stage 1 translates. */
  #decodeSte(config: StreamConfig, pasid: number): number {
    const ste = this.#ste;
    const capabilities = this.#capabilities;
    if (get(ste, STE.V) === 0) return EVENT.C_BAD_STE;
    const mode = get(ste, STE.Config);
    if (mode < STE_CONFIG.BYPASS) {
      this.#keepSte(config);
      config.kind = KIND.ABORT;
      return 0;
    }
    const s1 = (mode & 1) !== 0;
    const s2 = (mode & 2) !== 0;
    if ((s1 && !capabilities.s1) || (s2 && !capabilities.s2)) return EVENT.C_BAD_STE;
    config.privCfg = capabilities.attrPermsOvr ? get(ste, STE.PRIVCFG) : 0;
    config.instCfg = capabilities.attrPermsOvr ? get(ste, STE.INSTCFG) : 0;
    const strw = capabilities.hyp && !s2 && s1 ? get(ste, STE.STRW) : 0;
    const vmid = capabilities.s2 && strw === 0 ? get(ste, STE.S2VMID) : 0;
    if ((strw & 1) !== 0) return EVENT.C_BAD_STE;
    if ((s1 || s2) && !capabilities.vmid16 && vmid > 0xff) return EVENT.C_BAD_STE;
    const cdMax = s1 && capabilities.ssidSize > 0 ? get(ste, STE.S1CDMax) : 0;
    const fmt = cdMax > 0 ? get(ste, STE.S1Fmt) % 3 : 0;
    if (s1) {
      if (get(ste, STE.S1STALLD) === 1) return EVENT.C_BAD_STE;
      if (cdMax > capabilities.ssidSize || (fmt !== 0 && !capabilities.cd2l)) return EVENT.C_BAD_STE;
      if (!s2 && exceeds(ste[1]! & CONTEXT_PTR_HI, capabilities.oas)) return EVENT.C_BAD_STE;
    }
    if (s2 && !this.#stage2(config)) return EVENT.C_BAD_STE;
    this.#keepSte(config);
    if (s2) config.s2Tag = this.#tags.intern(WORLD.S2, vmid, 0);

    // SubstreamID handling (3.3.2, 7.3.7, 7.3.9).
    if (pasid >= 0 && (cdMax === 0 || pasid >>> cdMax !== 0)) return EVENT.C_BAD_SUBSTREAMID;
    const dss = cdMax > 0 ? get(ste, STE.S1DSS) : 2;
    if (cdMax > 0 && (pasid < 0 ? dss === 0 || dss === 3 : dss === 2 && pasid === 0)) return EVENT.F_STREAM_DISABLED;
    const translateS1 = s1 && !(pasid < 0 && dss === 1);
    config.kind = translateS1 ? (s2 ? KIND.NESTED : KIND.S1) : s2 ? KIND.S2 : KIND.BYPASS;
    config.singlePrivilege = false;
    if (!translateS1) {
      config.tag = this.#tags.intern(WORLD.S2, vmid, 0);
      config.valid = true;
      return 0;
    }
    const e2h = (this.#registers[REG.CR2 / 4]! & E2H) !== 0;
    const world = s2 ? WORLD.NESTED : strw === 0 ? WORLD.EL1 : e2h ? WORLD.EL2_E2H : WORLD.EL2;
    config.singlePrivilege = world === WORLD.EL2;
    config.cdMax = cdMax;
    config.fmt = fmt;
    const event = this.#fetchCd(config, s2);
    if (event !== 0) return event;
    if (!this.#stage1(config, world, vmid)) return EVENT.C_BAD_CD;
    this.#keepCd(config);
    config.valid = true;
    return 0;
  }

  #keepSte(config: StreamConfig): void {
    if (CHECKS && this.#retained !== null) this.#retained.keep(STRUCTURE.STE, config.sid, 0, 0, this.#ste);
  }

  #keepCd(config: StreamConfig): void {
    if (CHECKS && this.#retained !== null) {
      this.#retained.keep(STRUCTURE.CD, config.sid, Math.max(config.pasid, 0), 0, this.#cd);
    }
  }

  /** Stage 2 fields of the STE; false: ILLEGAL. */
  #stage2(config: StreamConfig): boolean {
    const ste = this.#ste;
    const capabilities = this.#capabilities;
    const granule = GRANULE_TG0[get(ste, STE.S2TG)]!;
    if (get(ste, STE.S2AA64) === 0 || get(ste, STE.S2ENDI) === 1) return false;
    if (get(ste, STE.S2S) === 1 || get(ste, STE.S2HA) === 1 || get(ste, STE.S2HD) === 1) return false;
    if (granule === 0 || (capabilities.granules & (1 << granule)) === 0) return false;
    const tsz = get(ste, STE.S2T0SZ);
    const smallest = capabilities.stt ? (granule === 16 ? 47 : 48) : 39;
    if (tsz > smallest || tsz < Math.max(granule === 16 ? 12 : 16, 64 - capabilities.oas)) return false;
    const level = stage2StartLevel(get(ste, STE.S2SL0), granule, capabilities);
    const stride = granule - 3;
    // At least one entry, at most sixteen concatenated tables.
    const indexBits = 64 - tsz - (granule + (3 - level) * stride);
    if (level < 0 || indexBits < 1 || indexBits > stride + 4) return false;
    const outBits = Math.min(ADDRESS_SIZES[get(ste, STE.S2PS)]!, capabilities.oas, granule === 16 ? 52 : 48);
    const hi = ste[STE.S2TTB.msb >> 5]! & 0x000f_ffff;
    if (exceeds(hi, outBits)) return false;
    config.s2.place(64 - tsz, granule, level, hi, ste[STE.S2TTB.lsb >> 5]! & ~0xf, outBits);
    config.s2affd = get(ste, STE.S2AFFD) === 1;
    config.s2r = get(ste, STE.S2R) === 1;
    config.s2ptw = get(ste, STE.S2PTW) === 1;
    return true;
  }

  /** CD by SubstreamID, linear or two-level (5.3); with stage 2 all pointers are IPAs. */
  #fetchCd(config: StreamConfig, s2: boolean): number {
    const ste = this.#ste;
    const { cdMax, fmt } = config;
    const ssid = Math.max(config.pasid, 0);
    const retained = CHECKS ? this.#retained : null;
    if (retained !== null && retained.structure(STRUCTURE.CD, config.sid, ssid, this.#cd)) return 0;
    let hi = ste[1]! & CONTEXT_PTR_HI;
    let lo = ste[0]! & CONTEXT_PTR_LO;
    let index = ssid;
    let tableLg2 = cdMax + 6;
    if (fmt !== 0) {
      const leafLg2 = fmt === 1 ? 6 : 10;
      const upper = ssid >>> leafLg2;
      if (retained === null || !retained.structure(STRUCTURE.L1CD, config.sid, upper, this.#l1)) {
        this.#indexed(hi, lo, Math.max(cdMax - leafLg2 + 3, 6), upper, 8);
        if (s2 && !this.#throughStage2(config)) return -1;
        if (!this.#read(this.#l1, 2)) return EVENT.F_CD_FETCH;
        if (get(this.#l1, L1CD.V) === 0) return EVENT.C_BAD_SUBSTREAMID;
        if (retained !== null) retained.keep(STRUCTURE.L1CD, config.sid, upper, leafLg2, this.#l1);
      }
      hi = this.#l1[1]! & CD_L2PTR_HI;
      lo = this.#l1[0]! & CD_L2PTR_LO;
      if (!s2 && exceeds(hi, this.#capabilities.oas)) return EVENT.C_BAD_SUBSTREAMID;
      index = ssid & ((1 << leafLg2) - 1);
      tableLg2 = leafLg2 + 6;
    }
    this.#indexed(hi, lo, tableLg2, index, 64);
    if (s2 && !this.#throughStage2(config)) return -1;
    return this.#read(this.#cd, 16) ? 0 : EVENT.F_CD_FETCH;
  }

  #throughStage2(config: StreamConfig): boolean {
    if (!this.#translateIpa(config, this.fetchHi, this.fetchLo)) {
      this.stage2Fault = true;
      return false;
    }
    return true;
  }

  /** Where the IPA of the structure being fetched lies; set by {@link TranslateIpa}. */
  physical(hi: number, lo: number): void {
    this.#paHi = hi;
    this.#paLo = lo;
    // F_CD_FETCH reports the physical address used for the fetch (7.3.10).
    this.fetchHi = hi;
    this.fetchLo = lo;
  }

  /** CD validity (5.4.2) and stage 1 parameters; false: ILLEGAL. */
  #stage1(config: StreamConfig, world: number, vmid: number): boolean {
    const cd = this.#cd;
    const capabilities = this.#capabilities;
    if (get(cd, CD.V) === 0 || get(cd, CD.AA64) === 0 || get(cd, CD.ENDI) === 1) return false;
    if (get(cd, CD.A) === 0 || get(cd, CD.S) === 1 || get(cd, CD.HA) === 1 || get(cd, CD.HD) === 1) return false;
    const asid = world === WORLD.EL2 ? 0 : get(cd, CD.ASID);
    if (!capabilities.asid16 && asid > 0xff) return false;
    const oneHalf = world === WORLD.EL2;
    const outBits = Math.min(ADDRESS_SIZES[get(cd, CD.IPS)]!, capabilities.oas);
    const epd0 = !oneHalf && get(cd, CD.EPD0) === 1;
    const epd1 = oneHalf || get(cd, CD.EPD1) === 1;
    config.ttb0.disabled = true;
    config.ttb1.disabled = true;
    if (!epd0) {
      const granule = GRANULE_TG0[get(cd, CD.TG0)]!;
      if (!this.#half(config.ttb0, get(cd, CD.T0SZ), granule, CD.TTB0, outBits)) return false;
    }
    if (!epd1) {
      const granule = GRANULE_TG1[get(cd, CD.TG1)]!;
      if (!this.#half(config.ttb1, get(cd, CD.T1SZ), granule, CD.TTB1, outBits)) return false;
    }
    const unprivilegedOff = capabilities.e0pd && !oneHalf;
    config.ttb0.topByteIgnored = get(cd, CD.TBI0) === 1;
    config.ttb1.topByteIgnored = get(cd, CD.TBI1) === 1;
    config.ttb0.hierarchyDisabled = capabilities.had && get(cd, CD.HAD0) === 1;
    config.ttb1.hierarchyDisabled = capabilities.had && get(cd, CD.HAD1) === 1;
    config.ttb0.e0pd = unprivilegedOff && get(cd, CD.E0PD0) === 1;
    config.ttb1.e0pd = unprivilegedOff && get(cd, CD.E0PD1) === 1;
    config.affd = get(cd, CD.AFFD) === 1;
    config.wxn = get(cd, CD.WXN) === 1;
    config.uwxn = get(cd, CD.UWXN) === 1;
    config.r = get(cd, CD.R) === 1;
    config.tag = this.#tags.intern(world, vmid, asid);
    return true;
  }

  #half(base: TableBase, tsz: number, granule: number, ttb: Field, outBits: number): boolean {
    const capabilities = this.#capabilities;
    if (granule === 0 || (capabilities.granules & (1 << granule)) === 0) return false;
    const smallest = capabilities.stt ? (granule === 16 ? 47 : 48) : 39;
    if (tsz > smallest || tsz < (capabilities.va52 && granule === 16 ? 12 : 16)) return false;
    const bits = granule === 16 ? outBits : Math.min(outBits, 48);
    const hi = this.#cd[ttb.msb >> 5]! & 0x000f_ffff;
    if (exceeds(hi, bits)) return false;
    const stride = granule - 3;
    const startLevel = 4 - Math.ceil((64 - tsz - granule) / stride);
    base.place(64 - tsz, granule, startLevel, hi, this.#cd[ttb.lsb >> 5]! & ~0xf, bits);
    return true;
  }
}

/** Start level coded by S2SL0 (DDI 0487, VTCR_EL2.SL0); -1: reserved. */
const stage2StartLevel = (sl0: number, granule: number, capabilities: Capabilities): number => {
  if (granule === 12) {
    if (sl0 === 3) return capabilities.stt ? 3 : -1;
    return sl0 === 2 && capabilities.oas < 44 ? -1 : 2 - sl0;
  }
  if (sl0 === 3) return -1;
  if (sl0 === 2 && capabilities.oas < (granule === 14 ? 42 : 44)) return -1;
  return 3 - sl0;
};
