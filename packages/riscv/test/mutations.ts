/**
 * Seeded bugs of a RISC-V IOMMU driver. Opcodes and fields of commands are typed from the specification, chapter "In-memory
 * queue interface": IOTINVAL 1, IOFENCE 2, IODIR 3 in bits 6:0, func3 in bits 9:7.
 */
import {
  commonMutations,
  keepContextAtDetach,
  leafHintMutations,
  rangeMutations,
  scenarios,
  strideOf,
  tableMutations,
} from '@iommu-ts/conformance/mutation';
import type { Mutation, RingLayout } from '@iommu-ts/conformance/mutation';

const IOTINVAL_VMA = 1;
const IODIR_INVAL_DDT = 3;
const IOFENCE_C = 2;
const opcode = (words: Int32Array): number => words[0]! & 0x3ff;
/** Bit 10: ADDR is valid. */
const AV = 1 << 10;
const CQH = 0x20;

/** `cqb` 0x18: PPN 53:10, LOG2SZ-1 4:0; `cqt` 0x24 counts entries. */
export const ring: RingLayout = {
  base: 0x18,
  place: (hi, lo) => ({ pfn: (hi & 0x3f_ffff) * 0x40_0000 + (lo >>> 10), entries: 2 ** ((lo & 0x1f) + 1) }),
  tail: 0x24,
  indexOf: (value) => value,
  invalidates: (words) => (words[0]! & 0x7f) === 1 || (words[0]! & 0x7f) === 3,
  nop: [IOFENCE_C, 0, 0, 0],
};

export const mutations: readonly Mutation[] = [
  ...commonMutations,
  ...tableMutations,
  ...rangeMutations,
  ...leafHintMutations,
  {
    name: 'directory-entry-not-invalidated',
    bug: 'attach rewrites the device context and sends no IODIR.INVAL_DDT',
    scenario: scenarios.move,
    check: 'stale-translation',
    hint: 'context',
    port: { command: (words) => (opcode(words) === IODIR_INVAL_DDT ? 'drop' : undefined) },
  },
  {
    name: 'directory-entry-of-another-device',
    bug: 'IODIR.INVAL_DDT names the device_id beside the one that was attached',
    scenario: scenarios.move,
    check: 'stale-translation',
    hint: 'context',
    // DID stands in bits 63:40.
    port: { command: (words) => void (opcode(words) === IODIR_INVAL_DDT && (words[1]! += 0x300)) },
  },
  {
    name: 'context-left-at-detach',
    bug: 'detach leaves the device context valid in memory',
    scenario: scenarios.detach,
    check: 'use-after-free',
    hint: /clear the entry/,
    system: keepContextAtDetach((rig, pfn) => pfn !== rig.port.ringPfn),
  },
  {
    name: 'invalidation-lost',
    bug: 'IOTINVAL.VMA with an address is counted and never written to the queue',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => (opcode(words) === IOTINVAL_VMA && (words[0]! & AV) !== 0 ? 'drop' : undefined) },
  },
  {
    name: 'another-pscid',
    bug: 'IOTINVAL.VMA names the PSCID of another domain',
    scenario: scenarios.neighbours,
    check: 'stale-translation',
    hint: 'leaf',
    // PSCID stands in bits 31:12.
    port: { command: (words) => void (opcode(words) === IOTINVAL_VMA && (words[0]! ^= 3 << 12)) },
  },
  {
    name: 'address-not-shifted',
    bug: 'IOTINVAL.VMA has the address where bits 63:12 of it belong, two bits off',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => void (opcode(words) === IOTINVAL_VMA && (words[2]! <<= 2)) },
  },
  {
    name: 'guest-stage-command',
    bug: 'IOTINVAL.GVMA is sent for a first-stage table',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    port: {
      command: (words) => {
        if (opcode(words) !== IOTINVAL_VMA) return;
        words[0] = (words[0]! & 0x7f) | (1 << 7) | (words[0]! & AV);
        words[1] = 0;
      },
    },
  },
  {
    name: 'stride-too-large',
    bug: 'a range of 4 KiB pages is invalidated with the stride of a 2 MiB page',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    domain: strideOf(21),
  },
  {
    name: 'fence-not-awaited',
    bug: 'the driver sends IOFENCE.C and goes on without waiting for the head to pass it',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'completion',
    port: { impatient: (offset, lastTail) => (offset === CQH ? lastTail : undefined) },
  },
  {
    name: 'tables-freed-before-fence',
    bug: 'tables are freed when the invalidation has been queued, without waiting for IOFENCE.C',
    scenario: scenarios.tables,
    check: 'freed-before-flush',
    hint: 'completion',
    port: { impatient: (offset, lastTail) => (offset === CQH ? lastTail : undefined) },
  },
  {
    name: 'space-not-flushed',
    bug: 'IOTINVAL.VMA of the whole PSCID is left out when a domain goes; its PSCID is used again',
    scenario: scenarios.detach,
    check: 'stale-translation',
    hint: 'leaf',
    port: { command: (words) => (opcode(words) === IOTINVAL_VMA && (words[0]! & AV) === 0 ? 'drop' : undefined) },
  },
  {
    name: 'everything-invalidated',
    bug: 'IOTINVAL.VMA without PSCV: all address spaces pay for the unmap of one',
    scenario: scenarios.neighbours,
    check: 'over-invalidation',
    hint: /limited to domain/,
    port: {
      command: (words) => {
        if (opcode(words) !== IOTINVAL_VMA) return;
        words[0] = IOTINVAL_VMA;
        words.fill(0, 1);
      },
    },
  },
];
