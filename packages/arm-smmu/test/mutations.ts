/**
 * Seeded bugs of an SMMUv3 driver. Commands as in Arm IHI 0070, chapter 4: opcode in bits 7:0, ASID 63:48 and VMID 47:32,
 * NUM 16:12, SCALE 24:20, Leaf 64, TTL 73:72, TG 75:74.
 */
import {
  commonMutations,
  incoherentMutations,
  keepContextAtDetach,
  lateFlushMutations,
  leafHintMutations,
  rangeMutations,
  scenarios,
  strideOf,
  tableMutations,
} from '@iommu-ts/conformance/mutation';
import type { Mutation, RingLayout } from '@iommu-ts/conformance/mutation';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { harness } from '../src/harness.ts';
import { createArmSmmuIommu } from '../src/index.ts';
import type { ArmSmmuSystemOptions } from '../src/index.ts';

const CFGI_STE = 0x03;
const TLBI_NH_ALL = 0x10;
const TLBI_NH_ASID = 0x11;
const TLBI_NH_VA = 0x12;
const TLBI_S2_IPA = 0x2a;
const SYNC = 0x46;
const opcode = (words: Int32Array): number => words[0]! & 0xff;

/** CMDQ_BASE 0x90: address 51:5, LOG2SIZE 4:0; CMDQ_PROD 0x98: index and a wrap bit above it. */
let log2 = 0;
export const ring: RingLayout = {
  base: 0x90,
  place: (hi, lo) => {
    log2 = lo & 0x1f;
    return { pfn: (hi & 0xf_ffff) * 0x10_0000 + (lo >>> 12), entries: 1 << log2 };
  },
  tail: 0x98,
  indexOf: (value) => value & ((1 << log2) - 1),
  invalidates: (words) => opcode(words) < SYNC,
  nop: [SYNC, 0, 0, 0],
};

/** CMDQ_CONS has caught up with CMDQ_PROD, and there is no error: GERROR 0x60, GERRORN 0x64. */
const IMPATIENT = {
  impatient: (offset: number, lastTail: number) =>
    offset === 0x9c ? lastTail : offset === 0x60 || offset === 0x64 ? 0 : undefined,
};
const variant = (options: ArmSmmuSystemOptions): DriverHarness => ({
  ...harness,
  createSystem: (given) => createArmSmmuIommu({ ...given, ...options }),
});
const stage2 = variant({ stage: 2 });
const noRanges = variant({ preset: 'stage1', granuleLg2: 14 });

export const mutations: readonly Mutation[] = [
  ...commonMutations,
  ...tableMutations,
  ...rangeMutations,
  ...leafHintMutations,
  ...incoherentMutations,
  ...lateFlushMutations,
  {
    name: 'ste-not-invalidated',
    bug: 'attach rewrites the stream table entry and sends no CMD_CFGI_STE',
    scenario: scenarios.move,
    check: 'stale-translation',
    hint: 'context',
    port: { command: (words) => (opcode(words) === CFGI_STE ? 'drop' : undefined) },
  },
  {
    name: 'ste-of-another-stream',
    bug: 'CMD_CFGI_STE names the stream beside the one that was attached',
    scenario: scenarios.move,
    check: 'stale-translation',
    hint: 'context',
    port: { command: (words) => void (opcode(words) === CFGI_STE && (words[1]! ^= 4)) },
  },
  {
    name: 'ste-left-at-detach',
    bug: 'detach leaves the stream table entry valid',
    scenario: scenarios.detach,
    check: 'use-after-free',
    hint: /clear the entry/,
    system: keepContextAtDetach((rig, pfn) => pfn !== rig.port.ringPfn),
  },
  {
    name: 'invalidation-lost',
    bug: 'CMD_TLBI_NH_VA is counted and never written to the queue',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => (opcode(words) === TLBI_NH_VA ? 'drop' : undefined) },
  },
  {
    name: 'another-asid',
    bug: 'CMD_TLBI_NH_VA names the ASID of another domain',
    scenario: scenarios.neighbours,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => void (opcode(words) === TLBI_NH_VA && (words[1]! ^= 3 << 16)) },
  },
  {
    name: 'leaf-set-for-tables',
    bug: 'tables went with the unmap, CMD_TLBI_NH_VA is sent with Leaf=1',
    scenario: scenarios.tables,
    check: 'freed-before-flush',
    hint: 'table',
    port: { command: (words) => void (opcode(words) === TLBI_NH_VA && (words[2]! |= 1)) },
  },
  {
    name: 'range-scale-lost',
    bug: 'a range command is sent with SCALE=0: one granule for each of NUM',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => void (opcode(words) === TLBI_NH_VA && (words[0]! &= ~(0x1f << 20))) },
  },
  {
    name: 'level-hint-wrong',
    bug: 'a range command says in TTL that the leaves are blocks of level 2, they are pages of level 3',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    port: {
      command: (words) => void (opcode(words) === TLBI_NH_VA && (words[2]! & 0xf00) === 0x700 && (words[2]! ^= 0x100)),
    },
  },
  {
    name: 'asid-not-flushed',
    bug: 'CMD_TLBI_NH_ASID is left out when a domain goes; its ASID is used again',
    scenario: scenarios.detach,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => (opcode(words) === TLBI_NH_ASID ? 'drop' : undefined) },
  },
  {
    name: 'sync-not-awaited',
    bug: 'CMD_SYNC is sent, and the driver goes on without waiting for CMDQ_CONS',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'completion',
    port: IMPATIENT,
  },
  {
    name: 'tables-freed-before-sync-completes',
    bug: 'tables are freed when the invalidation has been queued, without waiting for CMD_SYNC',
    scenario: scenarios.tables,
    check: 'freed-before-flush',
    hint: 'completion',
    port: IMPATIENT,
  },
  {
    name: 'everything-invalidated',
    bug: 'CMD_TLBI_NH_ALL for the unmap of a page: all ASIDs pay',
    scenario: scenarios.neighbours,
    check: 'over-invalidation',
    hint: /limited to domain/,
    port: {
      command: (words) => {
        if (opcode(words) !== TLBI_NH_VA) return;
        words.fill(0);
        words[0] = TLBI_NH_ALL;
      },
    },
  },
  {
    name: 'block-installed-without-break',
    bug: 'a block takes the place of a table, the invalidation comes after it in place of before',
    scenario: scenarios.block,
    check: 'break-before-make',
    hint: /write an invalid entry, .*TLBI/,
    domain: (domain) => {
      // Without it the engine leaves what it has taken out to the caller, at the end of the map.
      (domain.table as { sync: unknown }).sync = null;
    },
  },
  {
    name: 'another-vmid',
    bug: 'stage 2: CMD_TLBI_S2_IPA names the VMID of another domain',
    scenario: scenarios.neighbours,
    harness: stage2,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => void (opcode(words) === TLBI_S2_IPA && (words[1]! ^= 3)) },
  },
  {
    name: 'stage-1-command-for-stage-2',
    bug: 'stage 2: CMD_TLBI_NH_VA is sent where CMD_TLBI_S2_IPA belongs',
    scenario: scenarios.remap,
    harness: stage2,
    check: 'stale-translation',
    hint: 'leaf',
    port: {
      command: (words) => void (opcode(words) === TLBI_S2_IPA && (words[0] = (words[0]! & ~0xff) | TLBI_NH_VA)),
    },
  },
  {
    name: 'stride-too-large',
    bug: 'no range commands: pages of 16 KiB are invalidated with the stride of a 32 MiB block',
    scenario: scenarios.remap,
    harness: noRanges,
    check: 'stale-translation',
    hint: 'leaf',
    domain: strideOf(25),
  },
];
