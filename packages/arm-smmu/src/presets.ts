/** Identification registers of SMMUs to choose from. */
import { IommuError } from '@iommu-ts/bits';
import type { SmmuIds } from './hardware/capabilities.ts';

/**
 * - `qemu`: as QEMU's virt machine offers it, both stages, 44-bit addresses, RIL;
 * - `full`: everything this model has: 48-bit addresses, range invalidation, two-level stream and CD tables, substreams,
 *   MSIs, EL2 contexts;
 * - `stage1`, `stage2`: one stage only;
 * - `wide`: 52-bit virtual and physical addresses (64 KiB granule).
 */
export const PRESETS = {
  full: { IDR0: 0x0d4c_321b, IDR1: 0x0e73_0510, IDR3: 0x3714, IDR5: 0x75 },
  qemu: { IDR0: 0x0d44_101b, IDR1: 0x0273_0010, IDR3: 0x1414, IDR5: 0x74 },
  stage1: { IDR0: 0x0d40_101a, IDR1: 0x0107_0010, IDR3: 0, IDR5: 0x75 },
  stage2: { IDR0: 0x0d44_1019, IDR1: 0x0273_0010, IDR3: 0x1414, IDR5: 0x74 },
  wide: { IDR0: 0x0d44_101b, IDR1: 0x0273_0010, IDR3: 0x1414, IDR5: 0x476 },
} as const satisfies Readonly<Record<string, SmmuIds>>;

/** Name of a preset. */
export type PresetName = keyof typeof PRESETS;

/** Registers of a preset. @throws IommuError `EINVAL` for a name that there is not. */
export const presetIds = (name: PresetName): SmmuIds => {
  const ids: SmmuIds | undefined = Object.hasOwn(PRESETS, name) ? PRESETS[name] : undefined;
  if (ids === undefined)
    throw new IommuError('EINVAL', `no preset "${String(name)}"`, { presets: Object.keys(PRESETS).join(' ') });
  return ids;
};
