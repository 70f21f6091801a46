/** Reads one device's configuration out of a dump: registers by name, structures from memory. */
import { IommuError, addressOfPfn, hex, join64, pfnOf } from '@iommu-ts/bits';
import type { DeviceConfig, HardwareStats } from '@iommu-ts/iommu-core';
import { ACCESS } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { CAUSES } from './faults.ts';
import { SV39, SV39X4, SV48, SV48X4, SV57, SV57X4 } from './formats.ts';
import { DeviceContext } from './hardware/context.ts';
import { Directory } from './hardware/directory.ts';
import { Features } from './hardware/features.ts';
import { PageWalker } from './hardware/walk.ts';

const FIRST = { 8: { format: SV39, ias: 39 }, 9: { format: SV48, ias: 48 }, 10: { format: SV57, ias: 57 } } as const;
const SECOND = {
  8: { format: SV39X4, ias: 41 },
  9: { format: SV48X4, ias: 50 },
  10: { format: SV57X4, ias: 59 },
} as const;
const MODES = ['Off', 'Bare', '1LVL', '2LVL', '3LVL'];

const invalid = (reason: string, details: Record<string, string> = {}): DeviceConfig => ({
  kind: 'invalid',
  reason,
  details,
});

/**
 * What `ddtp` and the device directory in `memory` say about `requester` (an untranslated request without process_id).
 * `register` gives values by specification name; `capabilities` and `ddtp` are needed. Never throws for what memory holds.
 */
export const inspectDevice = (
  memory: PhysicalMemory,
  register: (name: string) => bigint | undefined,
  requester: number,
): DeviceConfig => {
  const capabilities = register('capabilities');
  const ddtp = register('ddtp');
  if (capabilities === undefined || ddtp === undefined) return invalid('the dump has no capabilities or ddtp register');
  const mode = Number(ddtp & 0xfn);
  const details: Record<string, string> = { 'ddtp.iommu_mode': MODES[mode] ?? `reserved (${mode})` };
  if (mode === 0) return { kind: 'blocked', reason: 'ddtp.iommu_mode is Off', details };
  if (mode === 1) return { kind: 'identity', details };
  if (mode > 4) return invalid(`ddtp.iommu_mode ${mode} is reserved`, details);
  let features: Features;
  try {
    const fctl = register('fctl');
    features = new Features({ capabilities, ...(fctl === undefined ? {} : { fctl }) });
  } catch (error) {
    return invalid(error instanceof IommuError ? error.message : String(error), details);
  }
  const stats: HardwareStats = { walks: 0, walkReads: 0, structureReads: 0, commands: 0, invalidations: 0, faults: 0 };
  const directory = new Directory(memory, features, new PageWalker(memory, features, stats), stats);
  // ddtp.PPN stands at bit 10; the page frame number is the same number.
  directory.place(mode - 1, pfnOf(((ddtp >> 10n) & 0xfff_ffff_ffffn) << 12n));
  const ctx = new DeviceContext();
  const cause = directory.locate(ctx, requester, -1, ACCESS.READ);
  if (cause !== 0) return invalid(`cause ${cause}: ${CAUSES[cause]?.name ?? 'unknown'}`, details);
  details['tc'] = hex(ctx.tc >>> 0);
  details['iohgatp.MODE'] = `${ctx.s2Mode}`;
  details['fsc.MODE'] = `${ctx.s1Mode}`;
  const tables = [];
  const { pas: oas } = features;
  if (ctx.s1Mode !== 0) {
    details['PSCID'] = hex(ctx.pscid);
    const format = FIRST[ctx.s1Mode as keyof typeof FIRST];
    tables.push({
      name: 'first stage',
      config: { ...format, oas, svnapot: true, svpbmt: features.svpbmt },
      root: join64(ctx.s1Hi, ctx.s1Lo),
    });
  }
  if (ctx.s2Mode !== 0) {
    details['GSCID'] = hex(ctx.gscid);
    const format = SECOND[ctx.s2Mode as keyof typeof SECOND];
    tables.push({
      name: 'second stage',
      config: { ...format, oas, svnapot: true, svpbmt: features.svpbmt },
      root: addressOfPfn(ctx.s2Pfn),
    });
  }
  if (tables.length === 0) return { kind: 'identity', details };
  return { kind: 'paging', domainId: ctx.s1Mode !== 0 ? ctx.pscid : ctx.gscid, tables, details };
};
