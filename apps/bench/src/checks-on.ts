/** What each check costs when it is on: the rows of a whole system with it against the same rows without any. */
import type { CheckKind, DriverHarness, SystemOptions } from '@iommu-ts/iommu-core';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { ratioOf } from './ratios.ts';
import type { Ratio } from './ratios.ts';
import { compare } from './stats.ts';
import { systemRows } from './system-rows.ts';
import { MIB } from './table-rows.ts';
import type { Scale } from './table-rows.ts';

const KINDS: readonly CheckKind[] = [
  'use-after-free',
  'freed-before-flush',
  'stale-translation',
  'over-invalidation',
  'incoherent',
  'leak',
  'misuse',
  'break-before-make',
];

/** Rows that the factors are taken of: one that maps, one that moves data. */
const ROWS = ['map-sync-unmap-strict', 'dma-4k'];

const rowOf = (harness: DriverHarness, scale: Scale, name: string, options: SystemOptions) =>
  systemRows(new PhysicalMemory([{ base: 0n, size: 64n * BigInt(MIB), kind: 'flat' }]), harness, scale, options)
    .find((r) => r.name === name)!
    .make();

/** Factors of one driver; they have no target, they are to be known. `with call sites` is all checks and a stack each. */
export const checksOnRatios = (harness: DriverHarness, scale: Scale, rounds: number): readonly Ratio[] => {
  // A check costs many times what it watches: fewer operations say as much.
  const small = { ...scale, lookups: Math.max(64, scale.lookups >>> 5) };
  const variants: readonly (readonly [string, SystemOptions])[] = [
    ...KINDS.map((kind) => [kind, { checks: { kinds: [kind] } }] as const),
    ['all', { checks: true }],
    ['all, IOTLB retain', { checks: true, iotlb: { mode: 'retain' } }],
    ['all, with call sites', { checks: { callSites: true } }],
  ];
  const ratios: Ratio[] = [];
  for (const name of ROWS) {
    const plain = rowOf(harness, small, name, {});
    for (const [label, options] of variants) {
      const checked = rowOf(harness, small, name, options);
      const result = compare(
        () => checked.row.pass() / checked.row.ops,
        () => plain.row.pass() / plain.row.ops,
        rounds,
      );
      const found = checked.rig.system.checks?.reports.length ?? 0;
      if (found > 0) throw new Error(`${harness.name} ${name}, ${label}: ${found} reports`);
      ratios.push(ratioOf(`check on / off: ${label}: ${name}`, harness.name, null, result));
      checked.rig.release();
    }
    plain.rig.release();
  }
  return ratios;
};
