/**
 * Seeded bugs of a VT-d driver. Descriptors as in specification 4.1, section 6.5.2: type in bits 3:0 (1 context cache,
 * 2 IOTLB, 5 wait), granularity in 5:4, domain-id in 31:16.
 */
import {
  changeOps,
  commonMutations,
  incoherentMutations,
  keepContextAtDetach,
  leafHintMutations,
  rangeMutations,
  scenarios,
  tableMutations,
} from '@iommu-ts/conformance/mutation';
import type { Mutation, RingLayout } from '@iommu-ts/conformance/mutation';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { harness } from '../src/harness.ts';
import { VTD_PRESETS, createVtdIommu } from '../src/index.ts';
import type { VtdPreset } from '../src/index.ts';

const type = (words: Int32Array): number => words[0]! & 0xf;
const granularity = (words: Int32Array): number => (words[0]! >>> 4) & 3;
const CC_INV = 1;
const IOTLB_INV = 2;
const WAIT = 5;
const GLOBAL = 1;
const DOMAIN = 2;
const PAGE = 3;

/** IQA 0x90: address 63:12, QS 2:0 (256 descriptors and up); IQT 0x88 counts bytes. */
export const ring: RingLayout = {
  base: 0x90,
  place: (hi, lo) => ({ pfn: (hi >>> 0) * 0x10_0000 + (lo >>> 12), entries: 256 << (lo & 7) }),
  tail: 0x88,
  indexOf: (value) => value >>> 4,
  invalidates: (words) => type(words) === CC_INV || type(words) === IOTLB_INV,
  nop: [WAIT, 0, 0, 0],
  complete: (words, memory) => {
    // SW: status data (63:32) goes to the status address (127:66).
    if (type(words) === WAIT && (words[0]! & 0x20) !== 0) memory.store32(words[3]!, words[2]! & ~3, words[1]!);
  },
};

/** What a driver that polls memory sees at once; register reads go to the device as ever. */
const IMPATIENT = { impatient: () => undefined };
const iotlb = (words: Int32Array, of: number): boolean => type(words) === IOTLB_INV && granularity(words) === of;
const variant = (preset: VtdPreset): DriverHarness => ({
  ...harness,
  createSystem: (options) => createVtdIommu({ ...options, preset }),
});
/** ECAP.QI (bit 1) clear: commands are register writes. */
const registers = variant({ ...VTD_PRESETS.server, ecap: 0xf41n });
/** CCMD 0x28; the IOTLB registers at 16 · ECAP.IRO (17:8). */
const CCMD = 0x28;
const IVA = 0xf0;
const IOTLB = IVA + 8;

export const mutations: readonly Mutation[] = [
  ...commonMutations,
  ...tableMutations,
  ...rangeMutations,
  ...leafHintMutations,
  ...incoherentMutations,
  {
    name: 'context-not-invalidated',
    bug: 'attach rewrites the context entry and sends no cc_inv_dsc',
    scenario: scenarios.move,
    check: 'stale-translation',
    hint: 'context',
    port: { command: (words) => (type(words) === CC_INV ? 'drop' : undefined) },
  },
  {
    name: 'context-of-another-device',
    bug: 'cc_inv_dsc names the function of the device beside the one that was attached',
    scenario: scenarios.move,
    check: 'stale-translation',
    hint: 'context',
    // SID stands in bits 47:32.
    port: { command: (words) => void (type(words) === CC_INV && (words[1]! ^= 4)) },
  },
  {
    name: 'context-under-new-domain-id',
    bug: 'cc_inv_dsc names a domain-id that the context entry was not programmed with before',
    scenario: scenarios.move,
    check: 'stale-translation',
    hint: 'context',
    port: { command: (words) => void (type(words) === CC_INV && (words[0]! ^= 0x40_0000)) },
  },
  {
    name: 'context-left-at-detach',
    bug: 'detach leaves the context entry present',
    scenario: scenarios.detach,
    check: 'use-after-free',
    hint: /clear the entry/,
    system: keepContextAtDetach((rig, pfn) => pfn !== rig.port.ringPfn),
  },
  {
    name: 'invalidation-lost',
    bug: 'the page-selective iotlb_inv_dsc is counted and never written to the queue',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => (iotlb(words, PAGE) ? 'drop' : undefined) },
  },
  {
    name: 'another-domain-id',
    bug: 'iotlb_inv_dsc names the domain-id of another domain',
    scenario: scenarios.neighbours,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => void (iotlb(words, PAGE) && (words[0]! ^= 1 << 16)) },
  },
  {
    name: 'address-mask-zero',
    bug: 'iotlb_inv_dsc of a range is sent with AM=0: one page',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => void (iotlb(words, PAGE) && (words[2]! &= ~0x3f)) },
  },
  {
    name: 'address-one-range-on',
    bug: 'iotlb_inv_dsc has the address where the range ends in place of where it begins',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => void (iotlb(words, PAGE) && (words[2]! += 0x1000 << (words[2]! & 0x3f))) },
  },
  {
    name: 'hint-set-for-tables',
    bug: 'tables went with the unmap, iotlb_inv_dsc is sent with IH=1',
    scenario: scenarios.tables,
    check: 'freed-before-flush',
    hint: 'table',
    port: { command: (words) => void (iotlb(words, PAGE) && (words[2]! |= 1 << 6)) },
  },
  {
    name: 'domain-not-flushed-at-detach',
    bug: 'the last device leaves, and the domain-selective iotlb_inv_dsc is left out',
    scenario: scenarios.reattach,
    check: 'stale-translation',
    hint: 'table',
    port: { command: (words) => (iotlb(words, DOMAIN) ? 'drop' : undefined) },
  },
  {
    name: 'wait-not-awaited',
    bug: 'inv_wait_dsc is sent, and the driver goes on without looking for its status',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'completion',
    port: IMPATIENT,
  },
  {
    name: 'tables-freed-before-wait',
    bug: 'tables are freed when the invalidation has been queued, without waiting for inv_wait_dsc',
    scenario: scenarios.tables,
    check: 'freed-before-flush',
    hint: 'completion',
    port: IMPATIENT,
  },
  {
    name: 'everything-invalidated',
    bug: 'a global iotlb_inv_dsc for the unmap of a page: all domains pay',
    scenario: scenarios.neighbours,
    check: 'over-invalidation',
    hint: /limited to domain/,
    port: { command: (words) => void (iotlb(words, PAGE) && (words[0] = (words[0]! & 0xcf) | (GLOBAL << 4))) },
  },
  {
    name: 'caching-mode-ignored',
    bug: 'CAP.CM is set, and nothing is invalidated after a map',
    scenario: scenarios.firstTouch,
    harness: variant(VTD_PRESETS.virtual),
    check: 'stale-translation',
    hint: 'leaf',
    domain: (domain, rig) =>
      changeOps(domain, (ops) => {
        const original = ops.iotlbSyncMap!.bind(ops);
        return { iotlbSyncMap: (...args: Parameters<typeof original>) => rig.port.silently(() => original(...args)) };
      }),
  },
  {
    name: 'context-command-lost',
    bug: 'registers in place of the queue: CCMD is not written',
    scenario: scenarios.move,
    harness: registers,
    check: 'stale-translation',
    hint: 'context',
    port: { write64: (offset) => offset !== CCMD },
  },
  {
    name: 'address-register-not-written',
    bug: 'registers in place of the queue: IVA_REG keeps the address of the unmap before',
    scenario: scenarios.remap,
    harness: registers,
    check: 'stale-translation',
    hint: 'leaf',
    port: { write64: (offset) => offset !== IVA },
  },
  {
    name: 'iotlb-command-lost',
    bug: 'registers in place of the queue: IVA_REG is written, IOTLB_REG is not',
    scenario: scenarios.remap,
    harness: registers,
    check: 'stale-translation',
    hint: 'leaf',
    port: { write64: (offset) => offset !== IOTLB },
  },
];
