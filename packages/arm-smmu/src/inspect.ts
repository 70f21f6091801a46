/** Reads a stream's configuration out of a dump: register values by name, and memory. Nothing throws for what it holds. */
import { decode, extract, hex, hi32, join64, lo32 } from '@iommu-ts/bits';
import type { FieldValues, Layout } from '@iommu-ts/bits';
import type { DeviceConfig } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { PageTableFormat } from '@iommu-ts/page-table';
import { ARM_S1_16K, ARM_S1_4K, ARM_S1_64K, ARM_S2_16K, ARM_S2_4K, ARM_S2_64K } from './formats.ts';
import { CR0, GBPA, IDR5, STRTAB_BASE, STRTAB_BASE_CFG } from './registers.ts';
import { ADDRESS_SIZES, CD, L1CD, L1STD, STE, STE_CONFIG } from './structures.ts';

type Tables = NonNullable<DeviceConfig['tables']>;

const S1_TTB0: Readonly<Record<string, PageTableFormat>> = { 0: ARM_S1_4K, 1: ARM_S1_64K, 2: ARM_S1_16K };
const S1_TTB1: Readonly<Record<string, PageTableFormat>> = { 1: ARM_S1_16K, 2: ARM_S1_4K, 3: ARM_S1_64K };
const S2: Readonly<Record<string, PageTableFormat>> = { 0: ARM_S2_4K, 1: ARM_S2_64K, 2: ARM_S2_16K };

/** `bytes` at `address` as one number; null where there is no memory. */
const load = (memory: PhysicalMemory, address: bigint, bytes: number): bigint | null => {
  let value = 0n;
  for (let i = 0; i < bytes; i += 8) {
    const at = address + BigInt(i);
    if (!memory.load64(hi32(at), lo32(at))) return null;
    value |= join64(memory.hi, memory.lo) << BigInt(8 * i);
  }
  return value;
};

const invalid = (reason: string, details: Readonly<Record<string, string>> = {}): DeviceConfig => ({
  kind: 'invalid',
  reason,
  details,
});

const alignDown = (address: bigint, lg2: bigint): bigint => (address >> lg2) << lg2;
const fieldText = (values: FieldValues<Layout>): string =>
  Object.entries(values)
    .filter(([, value]) => value !== 0n)
    .map(([name, value]) => `${name}=${hex(value)}`)
    .join(' ');

/** What registers and memory say about stream `sid`. */
export const inspectStream = (
  memory: PhysicalMemory,
  register: (name: string) => bigint | undefined,
  sid: number,
): DeviceConfig => {
  if (extract(register('CR0') ?? 0n, CR0.SMMUEN) === 0n) {
    const blocked = extract(register('GBPA') ?? 0n, GBPA.ABORT) === 1n;
    return { kind: blocked ? 'blocked' : 'identity', details: { SMMUEN: '0' } };
  }
  const found = findSte(memory, register, BigInt(sid));
  if (typeof found === 'string') return invalid(found);
  const ste = load(memory, found, 64);
  if (ste === null) return invalid(`no memory at the STE ${hex(found)}`);
  const fields = decode(STE, ste);
  const details = { ste: hex(found), STE: fieldText(fields) };
  if (fields.V === 0n) return invalid('STE.V is 0 (C_BAD_STE)', details);
  const mode = Number(fields.Config);
  if (mode < STE_CONFIG.BYPASS) return { kind: 'blocked', details };
  if (mode === STE_CONFIG.BYPASS) return { kind: 'identity', details };
  const oas = ADDRESS_SIZES[Number(extract(register('IDR5') ?? 6n, IDR5.OAS))]!;
  const second = (mode & 2) !== 0 ? stage2Tables(fields, oas) : [];
  if ((mode & 1) === 0) {
    if (second.length === 0) return invalid('the stage 2 fields are illegal (C_BAD_STE)', details);
    return { kind: 'paging', domainId: Number(fields.S2VMID), tables: second, details };
  }
  if ((mode & 2) !== 0) {
    // CD and stage 1 tables lie at IPAs: only the second stage can be shown as a table of physical memory.
    return { kind: 'paging', domainId: Number(fields.S2VMID), tables: second, details: { ...details, nested: 'yes' } };
  }
  return stage1(memory, fields, oas, details);
};

/** Address of the STE, or why there is none. */
const findSte = (
  memory: PhysicalMemory,
  register: (name: string) => bigint | undefined,
  sid: bigint,
): bigint | string => {
  const base = (register('STRTAB_BASE') ?? 0n) & (((1n << 46n) - 1n) << BigInt(STRTAB_BASE.ADDR.lsb));
  const { FMT, SPLIT, LOG2SIZE } = decode(STRTAB_BASE_CFG, register('STRTAB_BASE_CFG') ?? 0n);
  if (LOG2SIZE > 32n || sid >> LOG2SIZE !== 0n) return `StreamID ${hex(sid)} is outside the table (C_BAD_STREAMID)`;
  if (FMT !== 1n) return alignDown(base, LOG2SIZE + 6n) + 64n * sid;
  const split = SPLIT === 8n || SPLIT === 10n ? SPLIT : 6n;
  const tableLg2 = LOG2SIZE > split ? LOG2SIZE - split + 3n : 3n;
  const l1 = load(memory, alignDown(base, tableLg2 > 6n ? tableLg2 : 6n) + 8n * (sid >> split), 8);
  if (l1 === null) return 'no memory at the L1STD (F_STE_FETCH)';
  const span = extract(l1, L1STD.Span);
  const lower = sid & ((1n << split) - 1n);
  if (span === 0n || span > split + 1n || lower >> (span - 1n) !== 0n) return 'outside L1STD.Span (C_BAD_STREAMID)';
  return alignDown(extract(l1, L1STD.L2Ptr) << 6n, span + 5n) + 64n * lower;
};

const stage2Tables = (ste: FieldValues<typeof STE>, oas: number): Tables => {
  const format = S2[`${ste.S2TG}`];
  if (format === undefined || ste.S2AA64 === 0n) return [];
  const granule = format.granuleLg2;
  const ias = 64 - Number(ste.S2T0SZ);
  const outBits = Math.min(ADDRESS_SIZES[Number(ste.S2PS)]!, oas, granule === 16 ? 52 : 48);
  const startLevel = (granule === 12 ? 2 : 3) - Number(ste.S2SL0);
  const topLevel = 3 - startLevel;
  const topBits = ias - granule - topLevel * (granule - 3);
  if (startLevel < 0 || topBits < 1 || topBits > granule + 1) return [];
  const config = { format, ias, oas: outBits, topLevel, topBits };
  return [{ name: 'S2TTB', config, root: alignDown(ste.S2TTB << 4n, BigInt(Math.max(topBits + 3, 4))) }];
};

/** The stream's CD (of SubstreamID 0) and its one or two tables. */
const stage1 = (
  memory: PhysicalMemory,
  ste: FieldValues<typeof STE>,
  oas: number,
  details: Readonly<Record<string, string>>,
): DeviceConfig => {
  let at = alignDown(ste.S1ContextPtr << 6n, ste.S1CDMax > 0n && ste.S1Fmt % 3n === 0n ? ste.S1CDMax + 6n : 6n);
  if (ste.S1CDMax > 0n && ste.S1Fmt % 3n !== 0n) {
    const l1 = load(memory, at, 8);
    if (l1 === null || extract(l1, L1CD.V) === 0n) return invalid('the L1CD is invalid (C_BAD_SUBSTREAMID)', details);
    at = extract(l1, L1CD.L2Ptr) << 12n;
  }
  const raw = load(memory, at, 64);
  if (raw === null) return invalid(`no memory at the CD ${hex(at)} (F_CD_FETCH)`, details);
  const cd = decode(CD, raw);
  const more = { ...details, cd: hex(at), CD: fieldText(cd) };
  if (cd.V === 0n || cd.AA64 === 0n) return invalid('the CD is invalid (C_BAD_CD)', more);
  const ips = Math.min(ADDRESS_SIZES[Number(cd.IPS)]!, oas);
  const tables: Tables[number][] = [];
  const half = (
    name: string,
    format: PageTableFormat | undefined,
    tsz: bigint,
    ttb: bigint,
    ttbr1: boolean,
  ): boolean => {
    const ias = 64 - Number(tsz);
    if (format === undefined || ias > 52 || ias <= format.granuleLg2) return false;
    const outBits = Math.min(ips, format.granuleLg2 === 16 ? 52 : 48);
    tables.push({ name, config: { format, ias, oas: outBits, ...(ttbr1 ? { ttbr1 } : {}) }, root: ttb << 4n });
    return true;
  };
  const sound =
    (cd.EPD0 === 1n || half('TTB0', S1_TTB0[`${cd.TG0}`], cd.T0SZ, cd.TTB0, false)) &&
    (cd.EPD1 === 1n || half('TTB1', S1_TTB1[`${cd.TG1}`], cd.T1SZ, cd.TTB1, true));
  if (!sound) return invalid('the CD is illegal (C_BAD_CD)', more);
  return { kind: 'paging', domainId: Number(cd.ASID), tables, details: more };
};
