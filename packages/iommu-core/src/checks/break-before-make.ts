/**
 * Break-before-make (Arm ARM D8.16.1): an entry that is valid must not become a different valid one (another output address,
 * table for block or block for table) unless it was invalid in between and what was cached of it has been invalidated.
 */
import { addressOfPfn, hex, join64, pfnOf } from '@iommu-ts/bits';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import type { PageTable } from '@iommu-ts/page-table';
import type { DomainModel } from './domain-model.ts';
import type { EngineObserver } from './domain-watch.ts';
import { POISON } from './quarantine.ts';
import { at } from './report-log.ts';
import type { CheckState } from './state.ts';
import type { Block, TablePages } from './table-pages.ts';
import { LAYER } from './types.ts';
import type { CheckEvent, InvalidationEvent } from './types.ts';

/** Entries of one operation that are looked at; what a larger one has beyond them is not. */
const LIMIT = 0x1_0000;

/** A valid entry as it was seen. */
interface Seen {
  readonly level: number;
  readonly startPfn: number;
  readonly lastPfn: number;
  /** Where it stands: page and byte. */
  readonly pfn: number;
  readonly offset: number;
  readonly hi: number;
  readonly lo: number;
  readonly isTable: boolean;
  /** The block that it stands in; undefined where the allocator did not give it. */
  readonly block: Block | undefined;
}

/** An entry that was valid and is not, and may still be cached. */
interface Broken {
  readonly seen: Seen;
  readonly by: CheckEvent;
}

type Entries = Map<string, Seen>;

export class BreakBeforeMake implements EngineObserver {
  readonly #state: CheckState;
  readonly #tables: TablePages;
  readonly #memory: PhysicalMemory;
  readonly #broken = new WeakMap<DomainModel, Map<string, Broken>>();
  /** The call of the engine that is under way, and the valid entries in its range when it began. */
  #call: {
    readonly startPfn: number;
    readonly lastPfn: number;
    readonly seen: Entries;
    readonly model: DomainModel;
  } | null = null;

  constructor(state: CheckState, tables: TablePages) {
    this.#state = state;
    this.#tables = tables;
    this.#memory = state.pages.memory;
  }

  before(model: DomainModel, startPfn: number, lastPfn: number): void {
    this.#call = { model, startPfn, lastPfn, seen: this.#read(model.domain.table, startPfn, lastPfn) };
  }

  after(model: DomainModel): void {
    const call = this.#call;
    if (call === null) return;
    this.#call = null;
    this.#look(model, call.seen);
    const broken = this.#brokenOf(model);
    if (broken.size === 0) return;
    for (const [key, seen] of this.#read(model.domain.table, call.startPfn, call.lastPfn)) {
      const old = broken.get(key);
      if (old === undefined) continue;
      broken.delete(key);
      if (differs(model.domain.table, old.seen, seen)) this.#remade(model, old, seen);
    }
  }

  /** An invalidation has taken effect, maybe in the middle of a call. */
  invalidated(event: InvalidationEvent): void {
    const call = this.#call;
    if (call !== null) this.#look(call.model, call.seen);
    for (const model of this.#state.models.values()) {
      const broken = this.#broken.get(model);
      if (broken === undefined || broken.size === 0) continue;
      if (event.domain >= 0 && event.domain !== model.domain.id) continue;
      if (event.requester >= 0) continue;
      for (const [key, { seen }] of broken) {
        const needs = seen.isTable ? LAYER.TABLE | LAYER.LEAF : LAYER.LEAF;
        if ((event.layers & needs) !== needs) continue;
        if (event.startPfn <= seen.lastPfn && event.lastPfn >= seen.startPfn) broken.delete(key);
      }
    }
  }

  #brokenOf(model: DomainModel): Map<string, Broken> {
    let broken = this.#broken.get(model);
    if (broken === undefined) this.#broken.set(model, (broken = new Map()));
    return broken;
  }

  /** Entries that were valid: those that are not any more are broken, those that are different now were never. */
  #look(model: DomainModel, entries: Entries): void {
    const { table } = model.domain;
    let cached: boolean | null = null;
    for (const [key, seen] of entries) {
      // A table that was freed meanwhile holds no entries any more.
      if (this.#tables.holding(seen.pfn) !== seen.block || !this.#memory.locate(seen.pfn, false)) {
        entries.delete(key);
        continue;
      }
      const w = this.#memory.index + seen.offset / 4;
      const lo = this.#memory.view[w]!;
      const hi = this.#memory.view[w + 1]!;
      if (lo === seen.lo && hi === seen.hi) continue;
      entries.delete(key);
      if (lo === POISON.lo && hi === POISON.hi) continue;
      cached ??= mayBeCached(model);
      if (!cached) continue;
      if (((lo & table.presentLo) | (hi & table.presentHi)) === 0) {
        this.#brokenOf(model).set(key, { seen, by: this.#state.log.event });
      } else if (differs(table, seen, { ...seen, hi, lo })) this.#changed(model, seen, hi, lo);
    }
  }

  #changed(model: DomainModel, seen: Seen, hi: number, lo: number): void {
    const { log, hardware } = this.#state;
    const { table, leaf, completion } = hardware!.invalidationHints;
    log.report(`${seen.pfn} ${seen.offset}`, {
      kind: 'break-before-make',
      what: `${entryText(model, seen)} became ${hex(join64(hi, lo))} without having been invalid in between`,
      hint: `write an invalid entry, ${seen.isTable ? table : leaf}, ${completion}, and only then the new entry`,
      addresses: addressesOf(seen, hi, lo),
      unmappedBy: log.event,
    });
  }

  #remade(model: DomainModel, old: Broken, seen: Seen): void {
    const { log, hardware } = this.#state;
    const { table, leaf } = hardware!.invalidationHints;
    log.report(`${seen.pfn} ${seen.offset}`, {
      kind: 'break-before-make',
      what:
        `${entryText(model, old.seen)} was made invalid and became ${hex(join64(seen.hi, seen.lo))} before an invalidation ` +
        `that covers it completed`,
      hint: this.#state.missing(old.seen.isTable ? table : leaf, 'completed before the new entry is written'),
      addresses: addressesOf(old.seen, seen.hi, seen.lo),
      mappedBy: log.event,
      unmappedBy: old.by,
    });
  }

  /** Valid entries on the paths of `startPfn … lastPfn`. */
  #read(table: PageTable, startPfn: number, lastPfn: number): Entries {
    const entries: Entries = new Map();
    for (let pfn = startPfn; pfn <= lastPfn && entries.size < LIMIT;) {
      const { steps } = table.walk(addressOfPfn(pfn));
      let next = lastPfn + 1;
      for (const step of steps) {
        const pages = 2 ** (table.granuleLg2 + table.bits * step.level - 12);
        const first = Math.floor(pfn / pages) * pages;
        next = first + pages;
        if (step.kind !== 'table' && step.kind !== 'leaf') continue;
        entries.set(`${step.level} ${first}`, {
          level: step.level,
          startPfn: first,
          lastPfn: next - 1,
          pfn: pfnOf(step.entryPa),
          offset: Number(step.entryPa & 0xfffn),
          hi: Number(BigInt.asIntN(32, step.entry >> 32n)),
          lo: Number(BigInt.asIntN(32, step.entry)),
          isTable: step.kind === 'table',
          block: this.#tables.holding(pfnOf(step.entryPa)),
        });
      }
      const last = steps.at(-1);
      pfn = last === undefined ? lastPfn + 1 : this.#readOn(table, last, next, lastPfn, entries);
    }
    return entries;
  }

  /** The entries beside the last one of a walk, without a walk for each; returns the page that needs one again. */
  #readOn(
    table: PageTable,
    step: { readonly level: number; readonly tablePa: bigint; readonly index: number },
    from: number,
    lastPfn: number,
    entries: Entries,
  ): number {
    const { level, tablePa } = step;
    const pages = 2 ** (table.granuleLg2 + table.bits * level - 12);
    const end = (level === table.topLevel ? table.topMask : table.indexMask) + 1;
    let first = from;
    for (let index = step.index + 1; index < end && first <= lastPfn && entries.size < LIMIT; index++) {
      const byte = Number(tablePa & 0xfffn) + index * 8;
      const pfn = pfnOf(tablePa) + Math.floor(byte / 4096);
      if (!this.#memory.locate(pfn, false)) return lastPfn + 1;
      const w = this.#memory.index + (byte % 4096) / 4;
      const lo = this.#memory.view[w]!;
      const hi = this.#memory.view[w + 1]!;
      if (((lo & table.presentLo) | (hi & table.presentHi)) !== 0) {
        if (level > 0 && (lo & table.typeMask) === table.tableType + level * table.tableStep) return first;
        const seen = { level, startPfn: first, lastPfn: first + pages - 1, pfn, offset: byte % 4096, hi, lo };
        entries.set(`${level} ${first}`, { ...seen, isTable: false, block: this.#tables.holding(pfn) });
      }
      first += pages;
    }
    return first;
  }
}

/** Whether some device may hold translations of the domain. */
const mayBeCached = (model: DomainModel): boolean => {
  for (const user of model.users.values()) if (user.attached || user.flushedAt < user.leftAt) return true;
  return false;
};

/** Another output address, or another kind of entry. */
const differs = (table: PageTable, a: Seen, b: Seen): boolean =>
  ((a.lo ^ b.lo) & (table.oaMaskLo | table.typeMask | table.foldLo)) !== 0 || ((a.hi ^ b.hi) & table.oaMaskHi) !== 0;

const entryText = (model: DomainModel, seen: Seen): string =>
  `the entry ${hex(join64(seen.hi, seen.lo))} (a ${seen.isTable ? 'table' : seen.level === 0 ? 'page' : 'block'}, level ` +
  `${seen.level} from below) for iova ${at(seen.startPfn)} of domain ${model.domain.id}`;

const addressesOf = (seen: Seen, hi: number, lo: number): Record<string, bigint> => ({
  iova: addressOfPfn(seen.startPfn),
  entry: addressOfPfn(seen.pfn, seen.offset),
  old: join64(seen.hi, seen.lo),
  new: join64(hi, lo),
});
