/** What invalidations cost: commands sent, entries that they dropped, and those that need not have gone. */
import { addressOfPfn, hex, hiOfPfn, join64, loOfPfn } from '@iommu-ts/bits';
import { ACCESS, TRANSLATE_OK } from '../transaction.ts';
import type { DomainModel } from './domain-model.ts';
import type { SyncObserver } from './domain-watch.ts';
import type { CheckState } from './state.ts';
import type { TablePages } from './table-pages.ts';
import type { InvalidationEvent, IotlbListener } from './types.ts';

/** A command (by name, whatever it was told), so far. */
export interface InvalidationRow {
  readonly command: string;
  readonly sent: number;
  /** Entries of the IOTLB that went with it, and those of them that were still true. */
  readonly dropped: number;
  readonly stillTrue: number;
}

/** An operation that invalidates, so far. */
export interface SyncRow {
  readonly operation: string;
  readonly calls: number;
  /** Invalidations that were made. */
  readonly sent: number;
  /** Calls that needed one: something cached had become untrue, or a table had gone that a device may have cached. */
  readonly minimum: number;
}

interface Drop {
  readonly tag: number;
  readonly pfn: number;
  readonly hi: number;
  readonly lo: number;
}

interface Frame {
  readonly operation: string;
  readonly model: DomainModel | null;
  sent: number;
  needed: boolean;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export class Invalidations implements SyncObserver, IotlbListener {
  readonly #state: CheckState;
  readonly #tables: TablePages;
  readonly #commands = new Map<string, Mutable<InvalidationRow>>();
  readonly #operations = new Map<string, Mutable<SyncRow>>();
  readonly #frames: Frame[] = [];
  /** Who filled entries of a tag last. */
  readonly #owners = new Map<number, { readonly requester: number; readonly pasid: number }>();
  #drops: Drop[] = [];
  syncOf: DomainModel | null = null;
  /** Who is being translated for; -1: nobody, so what is dropped is dropped by an invalidation. */
  translating: { readonly requester: number; readonly pasid: number } | null = null;

  constructor(state: CheckState, tables: TablePages) {
    this.#state = state;
    this.#tables = tables;
  }

  begin(operation: string, of: DomainModel | null): void {
    const model = this.syncOf ?? of;
    const needed = model !== null && this.#tables.hasGathered(model);
    this.#frames.push({ operation, model, sent: 0, needed });
    this.#state.syncing.push(model);
  }

  end(): void {
    const frame = this.#frames.pop()!;
    this.#state.syncing.pop();
    let row = this.#operations.get(frame.operation);
    if (row === undefined) {
      row = { operation: frame.operation, calls: 0, sent: 0, minimum: 0 };
      this.#operations.set(frame.operation, row);
    }
    row.calls++;
    row.sent += frame.sent;
    if (frame.needed) row.minimum++;
  }

  filled(tag: number): void {
    const { translating } = this;
    if (translating === null || translating.requester < 0) return;
    const owner = this.#owners.get(tag);
    if (owner?.requester === translating.requester && owner.pasid === translating.pasid) return;
    this.#owners.set(tag, { requester: translating.requester, pasid: translating.pasid });
  }

  dropped(tag: number, pfn: number, _sizeLg2: number, outHi: number, outLo: number): void {
    // Entries that make room for others during a translation are no invalidation.
    if (this.translating !== null && this.translating.requester >= 0) return;
    this.#drops.push({ tag, pfn, hi: outHi, lo: outLo });
  }

  /** An invalidation has taken effect: what was dropped before goes to its account. */
  invalidated(event: InvalidationEvent): void {
    const drops = this.#drops;
    this.#drops = [];
    const name = event.name.replaceAll(/ (?:\S*=\S*|stream \d+)/g, '');
    let row = this.#commands.get(name);
    if (row === undefined) {
      row = { command: name, sent: 0, dropped: 0, stillTrue: 0 };
      this.#commands.set(name, row);
    }
    row.sent++;
    row.dropped += drops.length;
    const frame = this.#frames.at(-1);
    if (frame !== undefined) frame.sent++;
    let wrong: { drop: Drop; of: DomainModel; requester: number } | null = null;
    let stillTrue = 0;
    for (const drop of drops) {
      const owner = this.#owners.get(drop.tag);
      if (owner === undefined || !this.#isTrue(owner.requester, owner.pasid, drop)) {
        if (frame !== undefined) frame.needed = true;
        continue;
      }
      stillTrue++;
      const of = this.#state.modelOf(owner.requester, owner.pasid);
      const model = frame?.model ?? null;
      if (wrong !== null || model === null || of === null || of === model) continue;
      // A device that the domain has had may hold its translations as well.
      if (event.requester >= 0 && model.users.has(event.requester)) continue;
      wrong = { drop, of, requester: owner.requester };
    }
    row.stillTrue += stillTrue;
    if (frame === undefined || frame.model === null) return;
    if (wrong !== null) this.#wrongScope(event, frame.model, wrong);
    else if (frame.operation === 'iotlbSync()' && event.domain < 0 && event.requester < 0 && isWhole(event)) {
      this.#everything(event, frame.model);
    }
  }

  #isTrue(requester: number, pasid: number, drop: Drop): boolean {
    for (const access of [ACCESS.READ, ACCESS.WRITE]) {
      const { status, hi, lo } = this.#state.probe(requester, pasid, hiOfPfn(drop.pfn), loOfPfn(drop.pfn), access, 0);
      if (status === TRANSLATE_OK) return hi === drop.hi && lo === drop.lo;
    }
    return false;
  }

  #wrongScope(
    event: InvalidationEvent,
    model: DomainModel,
    wrong: { readonly drop: Drop; readonly of: DomainModel; readonly requester: number },
  ): void {
    const { drop, of, requester } = wrong;
    const mapping = of.mappings.overlap(drop.pfn, drop.pfn);
    this.#state.log.report(`scope ${model.domain.id} ${of.domain.id}`, {
      kind: 'over-invalidation',
      what:
        `${event.name}, sent for domain ${model.domain.id}, dropped translations of domain ${of.domain.id} that were still ` +
        `true (device ${hex(requester)}, iova ${hex(addressOfPfn(drop.pfn))})`,
      hint: `${this.#state.hardware!.invalidationHints.leaf}, limited to domain ${model.domain.id}`,
      addresses: { iova: addressOfPfn(drop.pfn), translation: join64(drop.hi, drop.lo) },
      ...(mapping === undefined ? {} : { mappedBy: mapping.mappedBy }),
      unmappedBy: this.#state.log.event,
    });
  }

  #everything(event: InvalidationEvent, model: DomainModel): void {
    this.#state.log.report('everything', {
      kind: 'over-invalidation',
      what: `${event.name}, sent for an unmap in domain ${model.domain.id}, drops all translations of the unit`,
      hint: `${this.#state.hardware!.invalidationHints.leaf}, limited to domain ${model.domain.id} and the range unmapped`,
      addresses: {},
      unmappedBy: this.#state.log.event,
    });
  }

  get commandRows(): readonly InvalidationRow[] {
    return [...this.#commands.values()];
  }

  get operationRows(): readonly SyncRow[] {
    return [...this.#operations.values()];
  }
}

const isWhole = (event: InvalidationEvent): boolean => event.startPfn <= 0 && event.lastPfn >= 2 ** 52 - 1;
