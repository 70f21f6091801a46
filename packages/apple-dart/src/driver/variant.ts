/**
 * What the driver must know of a part beyond its PARAMS registers, by the device tree's `compatible`: where registers lie and
 * which bits mean what (Linux: `struct apple_dart_hw`).
 */
import { IommuError, maskLo } from '@iommu-ts/bits';
import type { Generation } from '../faults.ts';
import {
  PROTECT,
  T8020_CONFIG,
  T8020_REGISTERS,
  T8020_TCR,
  T8020_TTBR,
  T8110_REGISTERS,
  T8110_TCR,
  T8110_TTBR,
} from '../registers.ts';
import type { PteVersion } from '../structures.ts';

/** Registers of one kind of DART as the driver uses them. */
export interface DartVariant {
  readonly generation: Generation;
  readonly pte: PteVersion;
  /** Address width and streams where PARAMS3 and PARAMS4 do not tell them. */
  readonly oas: number;
  readonly streams: number;
  readonly lock: number;
  readonly lockBit: number;
  readonly error: number;
  readonly errorAddrLo: number;
  readonly errorAddrHi: number;
  readonly enableStreams: number;
  readonly tcr: number;
  readonly tcrTranslate: number;
  readonly tcrBypass: number;
  /** 0 where there is no fourth level. */
  readonly tcrFourLevel: number;
  readonly ttbr: number;
  readonly ttbrValid: number;
  /** TTBR holds the address shifted right by this … */
  readonly ttbrShift: number;
  /** … and then left by this. */
  readonly ttbrFieldShift: number;
  readonly ttbrCount: number;
}

const T8103: DartVariant = {
  generation: 't8020',
  pte: 'dart1',
  oas: 36,
  streams: 16,
  lock: T8020_REGISTERS.CONFIG.offset,
  lockBit: maskLo(T8020_CONFIG.LOCK),
  error: T8020_REGISTERS.ERROR.offset,
  errorAddrLo: T8020_REGISTERS.ERROR_ADDR_LO.offset,
  errorAddrHi: T8020_REGISTERS.ERROR_ADDR_HI.offset,
  enableStreams: T8020_REGISTERS.STREAMS_ENABLE.offset,
  tcr: T8020_REGISTERS.TCR.offset,
  tcrTranslate: maskLo(T8020_TCR.TRANSLATE_ENABLE),
  tcrBypass: maskLo(T8020_TCR.BYPASS_DAPF) | maskLo(T8020_TCR.BYPASS_DART),
  tcrFourLevel: 0,
  ttbr: T8020_REGISTERS.TTBR.offset,
  ttbrValid: maskLo(T8020_TTBR.VALID),
  ttbrShift: 12,
  ttbrFieldShift: T8020_TTBR.ADDR.lsb,
  ttbrCount: 4,
};

const VARIANTS: Readonly<Record<string, DartVariant>> = {
  'apple,t8103-dart': T8103,
  'apple,t6000-dart': { ...T8103, pte: 'dart2', oas: 42 },
  'apple,t8110-dart': {
    generation: 't8110',
    pte: 'dart2',
    oas: 42,
    streams: 256,
    lock: T8110_REGISTERS.PROTECT.offset,
    lockBit: maskLo(PROTECT.TTBR_TCR),
    error: T8110_REGISTERS.ERROR.offset,
    errorAddrLo: T8110_REGISTERS.ERROR_ADDR_LO.offset,
    errorAddrHi: T8110_REGISTERS.ERROR_ADDR_HI.offset,
    enableStreams: T8110_REGISTERS.ENABLE_STREAMS.offset,
    tcr: T8110_REGISTERS.TCR.offset,
    tcrTranslate: maskLo(T8110_TCR.TRANSLATE_ENABLE),
    tcrBypass: maskLo(T8110_TCR.BYPASS_DAPF) | maskLo(T8110_TCR.BYPASS_DART),
    tcrFourLevel: maskLo(T8110_TCR.FOUR_LEVEL),
    ttbr: T8110_REGISTERS.TTBR.offset,
    ttbrValid: maskLo(T8110_TTBR.VALID),
    ttbrShift: 14,
    ttbrFieldShift: T8110_TTBR.ADDR.lsb,
    ttbrCount: 1,
  },
};

/** The variant that `compatible` names. @throws IommuError `ENODEV` for one that this driver does not know. */
export const variantOf = (compatible: string): DartVariant => {
  const variant = Object.hasOwn(VARIANTS, compatible) ? VARIANTS[compatible] : undefined;
  if (variant !== undefined) return variant;
  throw new IommuError('ENODEV', `no driver for "${compatible}": known are ${Object.keys(VARIANTS).join(', ')}`, {
    compatible,
  });
};
