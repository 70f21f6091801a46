/** The parts that are modelled: what Linux takes from the device tree's `compatible`, and what PARAMS1 … PARAMS4 say. */
import { IommuError, encode } from '@iommu-ts/bits';
import type { Generation } from './faults.ts';
import { PARAMS1, PARAMS2, PARAMS3, PARAMS4 } from './registers.ts';
import type { PteVersion } from './structures.ts';

/** A DART as it is built into a chip. */
export interface DartPart {
  /** Device-tree `compatible`. */
  readonly compatible: string;
  /** Register layout. */
  readonly generation: Generation;
  /** Page-table entry. */
  readonly pte: PteVersion;
  /** 12 or 14. `dart2` entries cannot hold physical address bits 13:12, so they exist with 14 only. */
  readonly pageShift: 12 | 14;
  /** Bits of a physical address: 36 with `dart1`, 36 or 42 with `dart2`. */
  readonly paWidth: number;
  /**
   * Bits of an IOVA. t8110: PARAMS3.VA_WIDTH, above 36 the part has four levels. t8020: what four TTBRs cover, 38 bits
   * with 16 KiB pages, 32 with 4 KiB (Linux uses 32 of them).
   */
  readonly vaWidth: number;
  /** Streams: 16 on t8020, up to 256 on t8110. */
  readonly streams: number;
  /** PARAMS2.BYPASS_SUPPORT. */
  readonly bypass: boolean;
}

const T8103: DartPart = {
  compatible: 'apple,t8103-dart',
  generation: 't8020',
  pte: 'dart1',
  pageShift: 14,
  paWidth: 36,
  vaWidth: 38,
  streams: 16,
  bypass: true,
};

const T8110: DartPart = {
  compatible: 'apple,t8110-dart',
  generation: 't8110',
  pte: 'dart2',
  pageShift: 14,
  paWidth: 42,
  vaWidth: 36,
  streams: 256,
  bypass: true,
};

/** Ready-made parts. `bypass` differs from one DART to the next inside a chip: override it where it matters. */
export const DART_PARTS = {
  /** M1: 16 KiB pages, 36-bit addresses, 16 streams. */
  t8103: T8103,
  /** The t8103 layout with 4 KiB pages: four TTBRs of 1 GiB. */
  't8103-4k': { ...T8103, pageShift: 12, vaWidth: 32 },
  /** M1 Pro/Max/Ultra: t8020 registers, `dart2` entries, 42-bit addresses. */
  t6000: { ...T8103, compatible: 'apple,t6000-dart', pte: 'dart2', paWidth: 42 },
  /** M2: t8110 registers, 36-bit IOVAs, three levels counting the TTBR. */
  t8110: T8110,
  /** M2 Pro/Max/Ultra: as t8110 with 42-bit IOVAs, four levels counting the TTBR. */
  t6020: { ...T8110, vaWidth: 42 },
} as const satisfies Record<string, DartPart>;

/** Name of a ready-made part. */
export type DartPreset = keyof typeof DART_PARTS;

/** Choice of a part: a preset (default `'t8103'`), and what differs from it. */
export interface DartPartOptions {
  readonly preset?: DartPreset;
  readonly streams?: number;
  readonly bypass?: boolean;
  /** t8110 generation only. */
  readonly vaWidth?: number;
}

/**
 * The part that `options` describe.
 * @throws IommuError `EINVAL` for an unknown preset; `EOPNOTSUPP` for a part that does not exist or is not built.
 */
export const resolvePart = (options: DartPartOptions = {}): DartPart => {
  const preset = options.preset ?? 't8103';
  const base: DartPart | undefined = Object.hasOwn(DART_PARTS, preset) ? DART_PARTS[preset] : undefined;
  if (base === undefined) {
    throw new IommuError('EINVAL', `no DART preset "${preset}": known are ${Object.keys(DART_PARTS).join(', ')}`, {
      preset,
    });
  }
  const part: DartPart = {
    ...base,
    streams: options.streams ?? base.streams,
    bypass: options.bypass ?? base.bypass,
    vaWidth: options.vaWidth ?? base.vaWidth,
  };
  checkPart(part);
  return part;
};

/** Refuses what no DART is, or what is not modelled. @throws IommuError `EOPNOTSUPP` with the reason. */
export const checkPart = (part: DartPart): void => {
  const t8110 = part.generation === 't8110';
  const no = (reason: string): never => {
    throw new IommuError('EOPNOTSUPP', `DART ${part.compatible}: ${reason}`, { compatible: part.compatible });
  };
  if (part.pageShift !== 12 && part.pageShift !== 14) no(`page shift ${String(part.pageShift)} is neither 12 nor 14`);
  if (part.pte === 'dart2' && part.pageShift !== 14)
    no('dart2 entries hold no physical address bits 13:12: 16 KiB pages only');
  if (t8110 && part.pte !== 'dart2') no('t8110 registers go with dart2 entries');
  if (part.paWidth !== 36 && !(part.paWidth === 42 && part.pte === 'dart2'))
    no(`physical address width ${part.paWidth}: dart1 has 36, dart2 36 or 42`);
  const maxStreams = t8110 ? 256 : 16;
  if (!Number.isInteger(part.streams) || part.streams < 1 || part.streams > maxStreams)
    no(`${part.streams} streams: 1 to ${maxStreams} are possible`);
  if (t8110 && !(Number.isInteger(part.vaWidth) && part.vaWidth >= 32 && part.vaWidth <= 47))
    no(`IOVA width ${part.vaWidth}: 32 to 47 are possible`);
  if (!t8110 && part.vaWidth !== (part.pageShift === 14 ? 38 : 32))
    no(`IOVA width ${part.vaWidth}: four TTBRs cover ${part.pageShift === 14 ? 38 : 32} bits`);
};

/** PARAMS1 … PARAMS4 of a part; t8020 has the first two only. */
export const paramsOf = (part: DartPart): readonly [number, number, number, number] => [
  Number(encode(PARAMS1, { PAGE_SHIFT: part.pageShift })),
  Number(encode(PARAMS2, { BYPASS_SUPPORT: part.bypass })),
  Number(encode(PARAMS3, { PA_WIDTH: part.paWidth, VA_WIDTH: part.vaWidth, VER_MAJ: 2 })),
  Number(encode(PARAMS4, { NUM_CLIENTS: 1, NUM_SIDS: part.streams })),
];
