/**
 * Reads a stream's configuration out of a dump: register values by name, and memory.
 *
 * Names, as a manifest gives them: `PARAMS1`, `PARAMS2`; t8020: `TCR[sid]`, `TTBR[sid][i]` (i = 0 … 3), `REMAP[n]` (n = 0 … 3),
 * `STREAMS_ENABLE`; t8110 (told by the presence of `PARAMS3`): `PARAMS3`, `PARAMS4`, `TCR[sid]`, `TTBR[sid]`,
 * `ENABLE_STREAMS[n]`. What is missing counts as after reset, except that missing stream enables count as enabled and a
 * missing `PARAMS1` as 16 KiB pages. Which entry version t8020 registers go with, no register tells: `COMPATIBLE_T6000` other
 * than 0 means `dart2`.
 */
import { extract, hex } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';
import type { DeviceConfig } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { PageTableConfig } from '@iommu-ts/page-table';
import { formatOf } from './driver/table-config.ts';
import { PARAMS1, PARAMS2, PARAMS3, T8020_TCR, T8020_TTBR, T8110_TCR, T8110_TTBR } from './registers.ts';

/** A register value of the dump, by its name. */
export type Register = (name: string) => bigint | undefined;

/** See `DriverHarness.inspect`: never throws for what the dump holds. */
export const inspect = (_memory: PhysicalMemory, register: Register, requester: number): DeviceConfig => {
  const t8110 = register('PARAMS3') !== undefined;
  const sid = remapped(register, requester, t8110);
  const tcr = register(`TCR[${sid}]`) ?? 0n;
  const layout: Layout = t8110 ? T8110_TCR : T8020_TCR;
  const is = (name: string): boolean => extract(tcr, layout[name]!) === 1n;
  const details: Record<string, string> = { stream: `${sid}`, TCR: hex(tcr) };
  if (sid !== requester) details['remapped from'] = `${requester}`;
  if (!enabled(register, requester, t8110)) return { kind: 'blocked', reason: 'stream not enabled', details };
  const translate = is('TRANSLATE_ENABLE');
  const bypass = is('BYPASS_DART') && extract(register('PARAMS2') ?? 1n, PARAMS2.BYPASS_SUPPORT) === 1n;
  if (translate && bypass) return { kind: 'invalid', reason: 'TCR translates and bypasses at once', details };
  if (bypass) return { kind: 'identity', details };
  if (!translate) return { kind: 'blocked', reason: 'TCR neither translates nor bypasses', details };
  const pageShift = Number(extract(register('PARAMS1') ?? 0x0e00_0000n, PARAMS1.PAGE_SHIFT));
  if (pageShift !== 12 && pageShift !== 14) {
    return { kind: 'invalid', reason: `PARAMS1.PAGE_SHIFT is ${pageShift}`, details };
  }
  const dart2 = t8110 || (register('COMPATIBLE_T6000') ?? 0n) !== 0n;
  if (dart2 && pageShift === 12) return { kind: 'invalid', reason: 'dart2 entries with 4 KiB pages', details };
  const ttbrs = t8110
    ? [register(`TTBR[${sid}]`) ?? 0n]
    : [0, 1, 2, 3].map((i) => register(`TTBR[${sid}][${i}]`) ?? 0n);
  const four = t8110 && is('FOUR_LEVEL');
  const oas = t8110 ? Number(extract(register('PARAMS3')!, PARAMS3.PA_WIDTH)) : dart2 ? 42 : 36;
  const tables = ttbrs.flatMap((ttbr, i) => {
    const name = t8110 ? `TTBR[${sid}]` : `TTBR[${sid}][${i}]`;
    details[name] = hex(ttbr);
    if (extract(ttbr, t8110 ? T8110_TTBR.VALID : T8020_TTBR.VALID) === 0n) return [];
    const root = t8110 ? extract(ttbr, T8110_TTBR.ADDR) << 14n : extract(ttbr, T8020_TTBR.ADDR) << 12n;
    const config: PageTableConfig = {
      format: formatOf(dart2 ? 'dart2' : 'dart1', pageShift),
      // What one TTBR covers. IOVAs of a table count from 0: TTBR[sid][i] begins at i times that.
      ias: four ? Math.min(42, oas) : pageShift === 14 ? 36 : 30,
      oas: oas === 36 ? 36 : 42,
      pageSizes: 1n << BigInt(pageShift),
    };
    return [{ name, config, root }];
  });
  if (tables.length === 0) return { kind: 'invalid', reason: 'no valid TTBR', details };
  return { kind: 'paging', tables, details };
};

const remapped = (register: Register, sid: number, t8110: boolean): number => {
  if (t8110) {
    const tcr = register(`TCR[${sid}]`) ?? 0n;
    return extract(tcr, T8110_TCR.REMAP_EN) === 1n ? Number(extract(tcr, T8110_TCR.REMAP)) : sid;
  }
  const remap = register(`REMAP[${sid >>> 2}]`);
  return remap === undefined ? sid : Number((remap >> BigInt(8 * (sid & 3))) & 0xffn);
};

const enabled = (register: Register, sid: number, t8110: boolean): boolean => {
  const word = register(t8110 ? `ENABLE_STREAMS[${sid >>> 5}]` : 'STREAMS_ENABLE');
  return word === undefined || ((word >> BigInt(sid & 31)) & 1n) === 1n;
};
