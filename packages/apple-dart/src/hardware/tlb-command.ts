/**
 * Invalidation commands: t8020 STREAM_SELECT + STREAM_COMMAND, t8110 TLB_CMD. A command completes at once, unless
 * `busyReads` asks for BUSY to be read as one that many times first: then the invalidation happens when BUSY falls, so that a
 * driver that does not wait is found out. In the adversarial device (IOTLB mode `'retain'`) it happens when software next reads
 * any register, or, with `busyReads`, after that many reads more.
 */
import { fieldOfWord, maskLo } from '@iommu-ts/bits';
import { LAYER } from '@iommu-ts/iommu-core';
import type { HardwareStats, InvalidationEvent, Iotlb, RegisterFile } from '@iommu-ts/iommu-core';
import { STREAM_COMMANDS, TLB_OPS } from '../commands.ts';
import { STREAM_COMMAND, T8020_REGISTERS, T8110_REGISTERS, TLB_CMD } from '../registers.ts';
import type { Generation } from '../faults.ts';
import type { Retained } from './retained.ts';

/** Executes the flush commands on the IOTLB, whose tag is the stream. */
export class TlbCommand {
  readonly #words: Int32Array;
  readonly #iotlb: Iotlb;
  readonly #stats: HardwareStats;
  readonly #t8110: boolean;
  readonly #streams: number;
  readonly #at: number;
  readonly #busy: number;
  readonly #busyReads: number;
  readonly #retained: Retained | null;
  /** Told of each flush that has taken effect, stream by stream. */
  onInvalidate: ((event: InvalidationEvent) => void) | null = null;
  /** Command under way, and the streams that were selected for it. */
  #pending = false;
  #command = 0;
  #select = 0;
  #left = 0;

  constructor(
    registers: RegisterFile,
    iotlb: Iotlb,
    stats: HardwareStats,
    options: {
      readonly generation: Generation;
      readonly streams: number;
      readonly busyReads: number;
      readonly retained: Retained | null;
    },
  ) {
    this.#words = registers.words;
    this.#iotlb = iotlb;
    this.#stats = stats;
    this.#t8110 = options.generation === 't8110';
    this.#streams = options.streams;
    this.#at = (this.#t8110 ? T8110_REGISTERS.TLB_CMD.offset : T8020_REGISTERS.STREAM_COMMAND.offset) >>> 2;
    this.#busy = maskLo(this.#t8110 ? TLB_CMD.BUSY : STREAM_COMMAND.BUSY);
    this.#busyReads = options.busyReads;
    this.#retained = options.retained;
  }

  /** Flushes that have not taken effect: 0 or 1. */
  get pending(): number {
    return this.#pending && this.#isFlush(this.#command) ? 1 : 0;
  }

  #isFlush(command: number): boolean {
    if (!this.#t8110) return (command & STREAM_COMMANDS.INVALIDATE) !== 0;
    const op = fieldOfWord(command, TLB_CMD.OP);
    return op === TLB_OPS.FLUSH_ALL || op === TLB_OPS.FLUSH_SID;
  }

  /** A write to the command register. One that comes while another is under way waits for that one. */
  write(value: number): void {
    if (this.#pending) this.#complete();
    this.#command = value;
    this.#select = this.#words[T8020_REGISTERS.STREAM_SELECT.offset >>> 2]!;
    this.#left = this.#busyReads;
    this.#pending = true;
    if (this.#left === 0 && this.#retained === null) this.#complete();
    else this.#words[this.#at] = this.#busy;
  }

  /** Before the command register is read (adversarial: any register): BUSY falls after `busyReads` reads. */
  beforeRead(): void {
    if (this.#pending && this.#left-- === 0) this.#complete();
  }

  /** Forgets a command under way. */
  reset(): void {
    this.#pending = false;
  }

  #complete(): void {
    this.#pending = false;
    this.#words[this.#at] = 0;
    if (this.#t8110) this.#t8110Command(this.#command);
    else if ((this.#command & STREAM_COMMANDS.INVALIDATE) !== 0) {
      this.#count();
      this.#flushMask(this.#select);
    }
  }

  #t8110Command(value: number): void {
    const op = fieldOfWord(value, TLB_CMD.OP);
    if (op === TLB_OPS.FLUSH_ALL) {
      this.#count();
      this.#flushAll('TLB_CMD FLUSH_ALL');
    } else if (op === TLB_OPS.FLUSH_SID) {
      this.#count();
      this.#flush(fieldOfWord(value, TLB_CMD.STREAM), 'TLB_CMD FLUSH_SID');
    }
  }

  /** Stream by stream; all of them at once only where nobody wants to know whose entries went. */
  #flushMask(mask: number): void {
    const all = this.#streams === 32 ? -1 : (1 << this.#streams) - 1;
    if ((mask & all) === all && this.onInvalidate === null) {
      this.#flushAll('');
      return;
    }
    for (let left = mask & all; left !== 0; left &= left - 1) {
      this.#flush(31 - Math.clz32(left & -left), 'STREAM_COMMAND INVALIDATE');
    }
  }

  #flush(sid: number, name: string): void {
    this.#iotlb.invalidateTag(sid);
    this.#retained?.drop(sid);
    if (this.onInvalidate !== null) this.tell(`${name} stream ${sid}`, sid);
  }

  #flushAll(name: string): void {
    this.#iotlb.invalidateAll();
    this.#retained?.clear();
    if (this.onInvalidate !== null) this.tell(name, -1);
  }

  /** Reports that all that was kept for `requester` (-1: for all) has gone. */
  tell(name: string, requester: number): void {
    this.onInvalidate?.({ name, layers: LAYER.ALL, domain: -1, requester, startPfn: 0, lastPfn: Infinity });
  }

  #count(): void {
    this.#stats.commands++;
    this.#stats.invalidations++;
  }
}
