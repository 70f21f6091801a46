/**
 * Seeded bugs of an AMD IOMMU driver. Commands as in specification 48882, section 2.4: opcode in bits 63:60, that is
 * 31:28 of the second word.
 */
import {
  commonMutations,
  keepContextAtDetach,
  lateFlushMutations,
  rangeMutations,
  scenarios,
  tableMutations,
} from '@iommu-ts/conformance/mutation';
import type { Mutation, RingLayout } from '@iommu-ts/conformance/mutation';

const COMPLETION_WAIT = 1;
const INVALIDATE_DEVTAB_ENTRY = 2;
const INVALIDATE_IOMMU_PAGES = 3;
const INVALIDATE_IOMMU_ALL = 8;
const opcode = (words: Int32Array): number => words[1]! >>> 28;

/** Command Buffer Base Address 0x8: address 51:12, ComLen 59:56; Command Buffer Tail 0x2008 counts bytes. */
export const ring: RingLayout = {
  base: 0x8,
  place: (hi, lo) => ({ pfn: (hi & 0xf_ffff) * 0x10_0000 + (lo >>> 12), entries: 2 ** ((hi >>> 24) & 0xf) }),
  tail: 0x2008,
  indexOf: (value) => value >>> 4,
  invalidates: (words) => opcode(words) === 2 || opcode(words) === 3 || opcode(words) === 8,
  nop: [0, (COMPLETION_WAIT << 28) | 0, 0, 0],
  complete: (words, memory) => {
    // S: StoreData (the second doubleword) goes to StoreAddress (51:3).
    if (opcode(words) === COMPLETION_WAIT && (words[0]! & 1) !== 0) {
      memory.store64(words[1]! & 0xf_ffff, words[0]! & ~7, words[3]!, words[2]!);
    }
  },
};

/** What a driver that polls memory sees at once; register reads go to the device as ever. */
const IMPATIENT = { impatient: () => undefined };

export const mutations: readonly Mutation[] = [
  ...commonMutations,
  ...tableMutations,
  ...rangeMutations,
  ...lateFlushMutations,
  {
    name: 'device-entry-not-invalidated',
    bug: 'attach rewrites the device table entry and sends no INVALIDATE_DEVTAB_ENTRY',
    scenario: scenarios.move,
    check: 'stale-translation',
    hint: 'context',
    port: { command: (words) => (opcode(words) === INVALIDATE_DEVTAB_ENTRY ? 'drop' : undefined) },
  },
  {
    name: 'device-entry-of-another-device',
    bug: 'INVALIDATE_DEVTAB_ENTRY names the function of the device beside the one that was attached',
    scenario: scenarios.move,
    check: 'stale-translation',
    hint: 'context',
    port: { command: (words) => void (opcode(words) === INVALIDATE_DEVTAB_ENTRY && (words[0]! ^= 4)) },
  },
  {
    name: 'grown-top-not-told',
    bug: 'the table grows, the device table entry is rewritten, and INVALIDATE_DEVTAB_ENTRY is forgotten',
    scenario: scenarios.grow,
    check: 'stale-translation',
    hint: 'context',
    port: { command: (words) => (opcode(words) === INVALIDATE_DEVTAB_ENTRY ? 'drop' : undefined) },
  },
  {
    name: 'entry-left-at-detach',
    bug: 'detach leaves the device table entry as it was',
    scenario: scenarios.detach,
    check: 'use-after-free',
    hint: /clear the entry/,
    system: keepContextAtDetach((rig, pfn) => pfn !== rig.port.ringPfn && pfn !== rig.port.ringPfn + 1),
  },
  {
    name: 'invalidation-lost',
    bug: 'INVALIDATE_IOMMU_PAGES is counted and never written to the command buffer',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => (opcode(words) === INVALIDATE_IOMMU_PAGES ? 'drop' : undefined) },
  },
  {
    name: 'another-domain-id',
    bug: 'INVALIDATE_IOMMU_PAGES names the DomainID of another domain',
    scenario: scenarios.neighbours,
    check: 'stale-translation',
    hint: 'leaf',
    // DomainID stands in bits 47:32.
    port: { command: (words) => void (opcode(words) === INVALIDATE_IOMMU_PAGES && (words[1]! ^= 3)) },
  },
  {
    name: 'size-bit-lost',
    bug: 'INVALIDATE_IOMMU_PAGES of a range is sent with S=0: one page',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => void (opcode(words) === INVALIDATE_IOMMU_PAGES && (words[2]! &= ~1)) },
  },
  {
    name: 'address-one-range-on',
    bug: 'INVALIDATE_IOMMU_PAGES has the address where the range ends in place of where it begins',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => void (opcode(words) === INVALIDATE_IOMMU_PAGES && (words[2]! += 0x1_0000)) },
  },
  {
    name: 'directory-entries-kept',
    bug: 'tables went with the unmap, INVALIDATE_IOMMU_PAGES is sent with PDE=0',
    scenario: scenarios.tables,
    check: 'freed-before-flush',
    hint: 'table',
    port: { command: (words) => void (opcode(words) === INVALIDATE_IOMMU_PAGES && (words[2]! &= ~2)) },
  },
  {
    name: 'completion-not-awaited',
    bug: 'COMPLETION_WAIT is sent, and the driver goes on without looking for its store',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'completion',
    port: IMPATIENT,
  },
  {
    name: 'tables-freed-before-completion',
    bug: 'tables are freed when the invalidation has been queued, without waiting for COMPLETION_WAIT',
    scenario: scenarios.tables,
    check: 'freed-before-flush',
    hint: 'completion',
    port: IMPATIENT,
  },
  {
    name: 'everything-invalidated',
    bug: 'INVALIDATE_IOMMU_ALL for the unmap of a page: all devices pay',
    scenario: scenarios.neighbours,
    check: 'over-invalidation',
    hint: /limited to domain/,
    port: {
      command: (words) => {
        if (opcode(words) !== INVALIDATE_IOMMU_PAGES) return;
        words.fill(0);
        words[1] = INVALIDATE_IOMMU_ALL << 28;
      },
    },
  },
];
