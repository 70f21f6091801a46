/** The part that the header of a recording (`iommu-vectors/1`) describes. */
import { IommuError, extract } from '@iommu-ts/bits';
import { PARAMS1, PARAMS2, PARAMS3, PARAMS4 } from './registers.ts';
import { DART_PARTS, checkPart } from './parts.ts';
import type { DartPart } from './parts.ts';

/**
 * Reads `compatible` and PARAMS1 … PARAMS4 out of a recording's `config`.
 * @throws IommuError `EFORMAT` naming the field and what was expected, `EOPNOTSUPP` for a part that is not modelled.
 */
export const partOfConfig = (
  config: Readonly<Record<string, unknown>>,
): { readonly part: DartPart; readonly params: readonly number[] } => {
  const compatible = config['compatible'] ?? 'apple,t8103-dart';
  const base = Object.values<DartPart>(DART_PARTS).find((part) => part.compatible === compatible);
  if (base === undefined) {
    const known = [...new Set(Object.values<DartPart>(DART_PARTS).map((part) => part.compatible))].join(', ');
    throw new IommuError('EFORMAT', `"compatible" ${JSON.stringify(compatible)}: expected one of ${known}`);
  }
  const t8110 = base.generation === 't8110';
  const params = ['PARAMS1', 'PARAMS2', ...(t8110 ? ['PARAMS3', 'PARAMS4'] : [])].map((name) => word(config, name));
  const field = (i: number, f: { msb: number; lsb: number; doc: string }): number =>
    Number(extract(BigInt(params[i]!), f));
  const pageShift = field(0, PARAMS1.PAGE_SHIFT);
  const part = {
    ...base,
    pageShift: pageShift as 12 | 14,
    bypass: field(1, PARAMS2.BYPASS_SUPPORT) === 1,
    vaWidth: t8110 ? field(2, PARAMS3.VA_WIDTH) : pageShift === 12 ? 32 : base.vaWidth,
    paWidth: t8110 ? field(2, PARAMS3.PA_WIDTH) : base.paWidth,
    streams: t8110 ? field(3, PARAMS4.NUM_SIDS) : base.streams,
  };
  checkPart(part);
  return { part, params };
};

const word = (config: Readonly<Record<string, unknown>>, name: string): number => {
  const value = config[name];
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff) return value;
  if (typeof value === 'string' && /^0x[0-9a-f]{1,8}$/i.test(value)) return Number(value);
  throw new IommuError('EFORMAT', `"${name}" is ${JSON.stringify(value)}: expected a 32-bit value such as "0xe000000"`);
};
