/** Random sequences against the reference model, shrunk by fast-check. */
import { IommuError, hex } from '@iommu-ts/bits';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import fc from 'fast-check';
import { expect } from 'vitest';
import { ReferenceModel } from '../reference-model.ts';
import { DEVICE, Rig, RO, RW } from './rig.ts';
import type { DriverCase } from './rig.ts';

/** Granules in the window that the sequences play in. */
const SPAN = 48;
/** Fixed, so that a failure is the same everywhere; fast-check prints it with the shrunk sequence. */
const SEED = 20_261_122;

type Step =
  | { readonly kind: 'map'; readonly at: number; readonly count: number; readonly pa: number; readonly write: boolean }
  | { readonly kind: 'unmap'; readonly at: number; readonly count: number }
  | { readonly kind: 'dma'; readonly at: number; readonly offset: number; readonly write: boolean };

const place = fc.integer({ min: 0, max: SPAN - 1 });
const count = fc.integer({ min: 1, max: 12 });
const steps = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('map' as const), at: place, count, pa: place, write: fc.boolean() }),
    fc.record({ kind: fc.constant('unmap' as const), at: place, count }),
    fc.record({ kind: fc.constant('dma' as const), at: place, offset: fc.nat(4000), write: fc.boolean() }),
  ),
  { minLength: 1, maxLength: 60 },
);

export const propertyCases: readonly DriverCase[] = [
  {
    name: 'property_model',
    // Sequences map what is mapped and unmap what is not.
    reports: () => ['misuse'],
    run(harness) {
      const property = fc.property(steps, fc.boolean(), (sequence, lazy) => play(harness, sequence, lazy));
      fc.assert(property, { seed: SEED, numRuns: 60 });
    },
  },
];

const play = (harness: DriverHarness, sequence: readonly Step[], lazy: boolean): void => {
  const rig = new Rig(harness, { mode: lazy ? 'lazy' : 'strict' });
  const domain = rig.attached(DEVICE);
  const model = new ReferenceModel(rig.granule);
  // IOVA and PA differ by an odd number of granules: every mapping is made of granules, and the model is exact.
  const paOf = (n: number, iova: bigint): bigint => {
    const pa = rig.pa(2 * n);
    return ((pa ^ iova) & rig.granule) === 0n ? pa + rig.granule : pa;
  };
  for (const step of sequence) {
    const iova = rig.iova(step.at);
    if (step.kind === 'map') {
      const size = BigInt(Math.min(step.count, SPAN - step.at)) * rig.granule;
      const prot = step.write ? RW : RO;
      const pa = paOf(step.pa, iova);
      const free = model.freeBytes(iova, size);
      let mapped = size;
      try {
        domain.map(iova, pa, size, prot);
      } catch (error) {
        if (!(error instanceof IommuError)) throw error;
        mapped = BigInt(error.details['mapped']!);
        expect(error.code).toBe(rig.info.rules === 'generic_pt' ? 'EADDRINUSE' : 'EEXIST');
        // What was mapped before the conflict stays (io-pgtable: all of a table's entries or none).
        if (rig.info.rules === 'generic_pt') expect(mapped).toBe(free);
        else expect(mapped <= free).toBe(true);
      }
      if (mapped === size) expect(free, `map over a mapping at ${hex(iova)} succeeded`).toBe(size);
      model.map(iova, pa, mapped, prot);
    } else if (step.kind === 'unmap') {
      const size = BigInt(Math.min(step.count, SPAN - step.at)) * rig.granule;
      expect(domain.unmap(iova, size)).toBe(model.unmap(iova, size));
      domain.flush();
    } else {
      const address = iova + BigInt(step.offset);
      const to = model.translate(address);
      expect(domain.iovaToPhys(address)).toBe(to?.address ?? null);
      if (to === null || (step.write && to.prot === RO)) rig.refused(DEVICE, address, step.write ? 'write' : 'read');
      else if (step.write) rig.writes(DEVICE, address, to.address);
      else rig.reads(DEVICE, address, to.address);
    }
  }
  const leaves = [...domain.table.leaves()].reduce((sum, leaf) => sum + leaf.size, 0n);
  expect(leaves, 'bytes mapped in the tables').toBe(BigInt(model.pages.size) * rig.granule);
  for (let n = 0; n < SPAN; n++) {
    expect(domain.iovaToPhys(rig.iova(n))).toBe(model.translate(rig.iova(n))?.address ?? null);
  }
};
