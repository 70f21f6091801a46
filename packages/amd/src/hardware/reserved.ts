/** Reserved bits of the device table entry. AMD I/O Virtualization Technology (IOMMU) Specification, 48882, section 2.2.2. */
import { maskWord } from '@iommu-ts/bits';
import type { Field, Layout } from '@iommu-ts/bits';
import { ExtFeature } from '../registers.ts';
import { DTE } from '../structures.ts';

/** Bits 127:0 of a device table entry with V=1 that must be zero, given the features. */
export const dteReserved = (efr: bigint): Int32Array => {
  const sup = (field: Field): boolean => ((efr >> BigInt(field.lsb)) & 1n) === 1n;
  const known: Layout = DTE;
  const absent = new Set<Field>([DTE.GIoV]);
  if (!sup(ExtFeature.HASup) && !sup(ExtFeature.HDSup)) absent.add(DTE.HAD);
  if (!sup(ExtFeature.PPRSup)) for (const field of [DTE.PPR, DTE.GPRP]) absent.add(field);
  if (!sup(ExtFeature.GTSup)) {
    for (const field of [DTE.GV, DTE.GLX, DTE.GCR3TRPLo, DTE.GCR3TRPMid, DTE.GCR3TRPHi]) absent.add(field);
  }
  const words = new Int32Array(4);
  for (let w = 0; w < 4; w++) {
    let used = 0;
    for (const field of Object.values(known)) if (!absent.has(field)) used |= maskWord(field, w);
    words[w] = ~used;
  }
  return words;
};
