/** On a machine whose walker does not snoop: entries that the device needed and that were not flushed; flushes for nothing. */
import { addressOfPfn, hex, pfnOf } from '@iommu-ts/bits';
import type { CacheMaintenance } from '@iommu-ts/iommu-pages';
import type { DeviceMemory } from './device-memory.ts';
import { at } from './report-log.ts';
import type { CheckState, Probe } from './state.ts';
import type { Block, TablePages } from './table-pages.ts';

/**
 * What the device sees of a block until its first bytes are written back: stale, and valid in every format, so that zeroes
 * that stayed in the cache show.
 */
const STALE = { hi: 0x0bad_f4ee, lo: 0x0bad_f4ef } as const;

/** Flushes of one kind of operation, so far. */
export interface FlushRow {
  readonly operation: string;
  readonly calls: number;
  /** Cache lines of 64 bytes written back, and those of them whose bytes the device had already. */
  readonly lines: number;
  readonly notNeeded: number;
}

/** What was asked of the device. */
interface Asked {
  readonly requester: number;
  readonly pasid: number;
  readonly iovaHi: number;
  readonly iovaLo: number;
  readonly access: number;
}

/**
 * A block counts as cached by the CPU from its first flush on, or, when it is allocated in an operation on a running driver,
 * from its allocation. What is neither (queues, which are made once and never flushed) is uncached memory.
 */
export class Incoherence implements CacheMaintenance {
  readonly #state: CheckState;
  readonly #tables: TablePages;
  readonly #memory: DeviceMemory;
  readonly #rows = new Map<string, { operation: string; calls: number; lines: number; notNeeded: number }>();

  constructor(state: CheckState, tables: TablePages) {
    this.#state = state;
    this.#tables = tables;
    this.#memory = state.memory;
  }

  allocated(block: Block): void {
    // What lies in one 4 KiB page with parts of others shows with them.
    if (block.part && (block.bytes < 4096 || this.#memory.hasImage(block.pfn))) return;
    if (this.#tables.started && this.#state.log.depth > 0) this.#memory.imageBegin(block.pfn, block.bytes, STALE);
  }

  freeing(pfn: number, bytes: number): void {
    this.#memory.imageEnd(pfn, bytes);
  }

  clean(pfn: number, offset: number, length: number): void {
    const memory = this.#memory;
    const page = Math.floor(pfn);
    // Beside a table, in the same CPU page, a queue may lie that is never flushed.
    const first = page + Math.floor(offset / 4096);
    const whole = this.#tables.holding(page);
    const part = whole?.cut === true ? this.#tables.partHolding(first) : undefined;
    const block =
      whole?.cut !== true ? whole : part !== undefined && part.bytes >= 4096 ? part : { pfn: first, bytes: 4096 };
    if (block !== undefined && !memory.hasImage(block.pfn)) memory.imageBegin(block.pfn, block.bytes, STALE);
    const { linesCleaned, linesEqual } = memory;
    memory.clean(page, offset + (pfn - page) * 4096, length);
    const { what } = this.#state.log.event;
    const operation = what.includes('(') ? `${what.slice(0, what.indexOf('('))}()` : what;
    let row = this.#rows.get(operation);
    if (row === undefined) this.#rows.set(operation, (row = { operation, calls: 0, lines: 0, notNeeded: 0 }));
    row.calls++;
    row.lines += memory.linesCleaned - linesCleaned;
    row.notNeeded += memory.linesEqual - linesEqual;
  }

  get rows(): readonly FlushRow[] {
    return [...this.#rows.values()];
  }

  /** Holds the answer from the device's memory against the one from the CPU's. */
  check(asked: Asked, fresh: Probe): void {
    const state = this.#state;
    const { requester, pasid, iovaHi, iovaLo, access } = asked;
    const read = new Set(this.#memory.probePages);
    const coherent = state.probe(requester, pasid, iovaHi, iovaLo, access, 0, true);
    const same =
      coherent.status === fresh.status &&
      (coherent.status !== 0 || (coherent.hi === fresh.hi && coherent.lo === fresh.lo));
    if (same) return;
    const address = this.#unseenOnPath(asked) ?? this.#unseenIn([...read, ...this.#memory.probePages]);
    if (address === null) return;
    const pfn = pfnOf(address);
    const block = this.#tables.holding(pfn);
    const from = block?.pfn ?? pfn;
    const offset = (pfn - from) * 4096 + Number(address & 0xfffn);
    const iova = (BigInt(iovaHi >>> 0) << 32n) | BigInt(iovaLo >>> 0);
    const real = state.pages.memory;
    const iovaPfn = pfnOf(iova);
    const mapping = state.modelOf(requester, pasid)?.mappings.overlap(iovaPfn, iovaPfn);
    const [cpu, device] = [real.readU64(address), this.#memory.readU64(address)];
    state.log.report(`${address}`, {
      kind: 'incoherent',
      what:
        `device ${hex(requester)} needed the entry at ${hex(address)} for iova ${hex(iova)}: the CPU has written ${hex(cpu)}, ` +
        `the device still reads ${hex(device)}, as the bytes were not flushed`,
      hint: `flushIncoherent(${hex(from)}, ${hex(offset)}, 8): bytes ${hex(offset)} to ${hex(offset + 7)} of the block at ${at(from)}`,
      addresses: { entry: address, iova, written: cpu, seen: device },
      ...(mapping === undefined ? {} : { mappedBy: mapping.mappedBy }),
    });
  }

  /** The first entry on the path through the domain's tables that the device does not see. */
  #unseenOnPath(asked: Asked): bigint | null {
    const model = this.#state.modelOf(asked.requester, asked.pasid);
    if (model === null) return null;
    const iova = (BigInt(asked.iovaHi >>> 0) << 32n) | BigInt(asked.iovaLo >>> 0);
    for (const { entryPa } of model.domain.table.walk(iova).steps) {
      if (this.#memory.unseen(pfnOf(entryPa)).includes(Number(entryPa & 0xff8n))) return entryPa;
    }
    return null;
  }

  /** The first doubleword in the pages given that the device does not see: for structures. */
  #unseenIn(pages: readonly number[]): bigint | null {
    for (const pfn of pages) {
      const [offset] = this.#memory.unseen(pfn);
      if (offset !== undefined) return addressOfPfn(pfn, offset);
    }
    return null;
  }
}
