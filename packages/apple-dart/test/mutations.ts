/**
 * Seeded bugs of an Apple DART driver. Register offsets as in Linux's `apple-dart.c`: t8103 TLB command 0x20, stream select
 * 0x34, TCR 0x100, TTBR 0x200 (four a stream); t8110 TLB command 0x80, its stream in bits 7:0.
 */
import { commonMutations, lateFlushMutations, scenarios } from '@iommu-ts/conformance/mutation';
import type { Mutation, MutationTarget, PortFault } from '@iommu-ts/conformance/mutation';
import { harness } from '../src/harness.ts';
import { createAppleDart } from '../src/system.ts';

const STREAM_COMMAND = 0x20;
const STREAM_SELECT = 0x34;
const TCR = 0x100;
const TTBR = 0x200;
const STREAMS = 16;
const T8110_TLB_CMD = 0x80;

export const t8103: MutationTarget = { harness, ring: null, commandRegister: STREAM_COMMAND };
const t8110 = {
  ...harness,
  createSystem: (options: Parameters<typeof harness.createSystem>[0]) =>
    createAppleDart({ ...options, preset: 't8110' }),
};

/** The next flush after a stream was given its tables is left out. */
const flushAfterTtbr = (): NonNullable<PortFault['write32']> => {
  let changed = false;
  return (offset, value) => {
    if (offset >= TTBR && offset < TTBR + 16 * STREAMS && value !== 0) changed = true;
    if (offset !== STREAM_COMMAND || !changed) return value;
    changed = false;
    return null;
  };
};

export const mutations: readonly Mutation[] = [
  ...commonMutations,
  ...lateFlushMutations,
  {
    name: 'flush-lost',
    bug: 'the streams are selected, and the flush command is never written',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    port: { write32: (offset, value) => (offset === STREAM_COMMAND ? null : value) },
  },
  {
    name: 'another-stream-selected',
    bug: 'the stream is selected by its number in place of its bit',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'leaf',
    port: { write32: (offset, value) => (offset === STREAM_SELECT ? 31 - Math.clz32(value) : value) },
  },
  {
    name: 'first-stream-only',
    bug: 'of the streams of a domain only the first is flushed',
    scenario: scenarios.shared,
    check: 'stale-translation',
    hint: 'leaf',
    port: { write32: (offset, value) => (offset === STREAM_SELECT ? value & -value : value) },
  },
  {
    name: 'busy-not-awaited',
    bug: 'the flush command is written, and the driver goes on while BUSY is set',
    scenario: scenarios.remap,
    check: 'stale-translation',
    hint: 'completion',
    port: { impatient: (offset) => (offset === STREAM_COMMAND ? 0 : undefined) },
  },
  {
    name: 'all-streams-flushed',
    bug: 'all streams are flushed for the unmap of one domain',
    scenario: scenarios.neighbours,
    check: 'over-invalidation',
    hint: /limited to domain/,
    port: { write32: (offset, value) => (offset === STREAM_SELECT ? (1 << STREAMS) - 1 : value) },
  },
  {
    name: 'attached-without-flush',
    bug: 'a stream is given the tables of another domain without a flush',
    scenario: scenarios.move,
    check: 'stale-translation',
    hint: /flush of the stream/,
    port: { write32: flushAfterTtbr() },
  },
  {
    name: 'stream-left-on-at-detach',
    bug: 'detach leaves TCR and TTBRs of the stream as they were',
    scenario: scenarios.detach,
    check: 'use-after-free',
    hint: /clear the entry/,
    port: { write32: (offset, value) => (offset >= TCR && offset < TTBR + 16 * STREAMS && value === 0 ? null : value) },
  },
  {
    name: 't8110-another-stream',
    bug: 'TLB_CMD names the stream beside the one that was unmapped (t8110)',
    scenario: scenarios.remap,
    harness: t8110,
    check: 'stale-translation',
    hint: 'leaf',
    port: { write32: (offset, value) => (offset === T8110_TLB_CMD ? value ^ 1 : value) },
  },
];
