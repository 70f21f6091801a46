/**
 * The commands that DART takes through registers; there is no command queue. From Linux `apple-dart.c` and m1n1.
 *
 * t8020: streams as a bit mask into STREAM_SELECT, then the command into STREAM_COMMAND, then poll STREAM_COMMAND.BUSY.
 * t8110: one TLB_CMD for each stream, polling TLB_CMD.BUSY after each.
 */
import { maskLo } from '@iommu-ts/bits';
import { STREAM_COMMAND, TLB_CMD } from './registers.ts';

/** t8020 STREAM_COMMAND values. */
export const STREAM_COMMANDS = {
  /** Drop every cached translation of the selected streams. */
  INVALIDATE: maskLo(STREAM_COMMAND.INVALIDATE),
} as const;

/** t8110 TLB_CMD.OP values. */
export const TLB_OPS = {
  /** Drop every cached translation. */
  FLUSH_ALL: 0,
  /** Drop every cached translation of TLB_CMD.STREAM. */
  FLUSH_SID: 1,
} as const;

/** TLB_CMD that flushes stream `sid`. */
export const tlbFlushSid = (sid: number): number =>
  (TLB_OPS.FLUSH_SID << TLB_CMD.OP.lsb) | ((sid & 0xff) << TLB_CMD.STREAM.lsb);
