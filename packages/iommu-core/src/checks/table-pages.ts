/** The pages that the driver holds: who allocated them, which part of which table they are, and whether they may go. */
import { addressOfPfn, blockPfnOf, hex } from '@iommu-ts/bits';
import type { IommuPagesList } from '@iommu-ts/iommu-pages';
import type { DomainModel } from './domain-model.ts';
import { at } from './report-log.ts';
import type { CheckState } from './state.ts';
import { LAYER } from './types.ts';
import type { CheckEvent, InvalidationEvent } from './types.ts';

/** A live block of the allocator: whole pages, or a part of one. */
export interface Block {
  /** With a fraction for a part of a page. */
  readonly pfn: number;
  readonly bytes: number;
  /** Part of a page: the allocator cut it, the page source does not know of it. */
  readonly part: boolean;
  readonly allocatedBy: CheckEvent;
  readonly moment: number;
  /** Allocated in an operation of the driver (or while it started), and not by somebody else on the same allocator. */
  readonly ofDriver: boolean;
  /** The domain it was allocated for. */
  owner: DomainModel | null;
  /** For a page table: the IOVAs whose walks go through it, in 4 KiB pages. */
  table: { readonly startPfn: number; readonly lastPfn: number } | null;
  /** Who gave it to be freed after a grace period; it is nobody's from then on. */
  leaving: CheckEvent | null;
  /** The allocator has cut it into parts. */
  cut: boolean;
  /** Some part of it was given to be freed after a grace period. */
  partsLeaving: boolean;
}

/** A table that was taken out and waits to be freed. */
interface Gathered {
  readonly model: DomainModel;
  readonly by: CheckEvent;
  /** Devices that may still have it in a walk cache. */
  readonly missing: Set<number>;
}

/** 4 KiB pages of the largest part of a page: half of 64 KiB. */
const MAX_PART = 8;

/** True when an invalidation is limited to no range. */
const isWhole = (event: InvalidationEvent): boolean => event.startPfn <= 0 && event.lastPfn >= 2 ** 52 - 1;

export class TablePages {
  readonly #state: CheckState;
  /** Whole blocks by their first page; and parts of pages, in which the page itself belongs to nobody. */
  readonly blocks = new Map<number, Block>();
  readonly #parts = new Map<number, Block>();
  /** The same by each of their 4 KiB pages. */
  readonly #pages = new Map<number, Block>();
  readonly #gathered = new Map<Block, Gathered>();
  /** Blocks allocated in the present call of the engine or the driver. */
  #fresh: Block[] = [];
  /** A block was freed that had been allocated before the checks began. */
  othersFreed = false;
  /** False until the driver has started. */
  started = false;
  /** Told of parts of pages as they are allocated. */
  onPart: ((part: Block) => void) | null = null;

  constructor(state: CheckState) {
    this.#state = state;
  }

  allocated(pfn: number, bytes: number): Block {
    const block = this.#allocated(pfn, bytes, false);
    this.blocks.set(pfn, block);
    for (let i = 0; i < bytes / 4096; i++) this.#pages.set(pfn + i, block);
    return block;
  }

  /** A part of a page was allocated. The page it lies in belongs to nobody: parts of others may lie beside it. */
  partAllocated(pfn: number, bytes: number): void {
    const part = this.#allocated(pfn, bytes, true);
    this.#parts.set(pfn, part);
    this.onPart?.(part);
    const page = this.#pages.get(Math.floor(pfn));
    if (page === undefined) return;
    page.cut = true;
    page.owner = null;
    page.table = null;
    this.#fresh = this.#fresh.filter((block) => block !== page);
  }

  #allocated(pfn: number, bytes: number, part: boolean): Block {
    const { log } = this.#state;
    const block: Block = {
      pfn,
      bytes,
      part,
      allocatedBy: log.event,
      moment: ++this.#state.moment,
      ofDriver: !this.started || log.depth > 0,
      owner: null,
      table: null,
      leaving: null,
      cut: false,
      partsLeaving: false,
    };
    this.#fresh.push(block);
    return block;
  }

  #isLive(block: Block): boolean {
    return (block.part ? this.#parts : this.blocks).get(block.pfn) === block;
  }

  /** Everything that was allocated for `model` and is live. */
  *of(model: DomainModel): Generator<Block> {
    for (const block of this.blocks.values()) if (block.owner === model && block.leaving === null) yield block;
    for (const block of this.#parts.values()) if (block.owner === model) yield block;
  }

  /** Forgets what was allocated before. */
  beginFresh(): void {
    this.#fresh = [];
  }

  /** What was allocated since {@link beginFresh} belongs to a domain; its top tables are known. */
  ownFresh(model: DomainModel): void {
    const { rootPfns } = model.domain.table;
    for (const block of this.#fresh) {
      if (!this.#isLive(block)) continue;
      block.owner = model;
      if (rootPfns.includes(block.pfn)) block.table = { startPfn: 0, lastPfn: Infinity };
    }
    this.#fresh = [];
  }

  /** Finds the tables that a map of `startPfn … lastPfn` has made. */
  findFresh(model: DomainModel, startPfn: number, lastPfn: number): void {
    if (this.#fresh.length === 0) return;
    const fresh = new Map<number, Block>();
    for (const block of this.#fresh) {
      if (!this.#isLive(block)) continue;
      block.owner = model;
      // Until it is found, it may be on any path.
      block.table = { startPfn: 0, lastPfn: Infinity };
      fresh.set(block.pfn, block);
    }
    this.#fresh = [];
    const { table } = model.domain;
    for (let pfn = startPfn; pfn <= lastPfn && fresh.size > 0;) {
      const { steps } = table.walk(addressOfPfn(pfn));
      let next = lastPfn + 1;
      for (const step of steps) {
        const pages = 2 ** (table.granuleLg2 + table.bits * (step.level + 1) - 12);
        const first = Math.floor(pfn / pages) * pages;
        next = first + pages;
        const block = fresh.get(blockPfnOf(step.tablePa));
        if (block === undefined) continue;
        fresh.delete(block.pfn);
        if (step.level < table.topLevel) block.table = { startPfn: first, lastPfn: next - 1 };
      }
      pfn = next;
    }
  }

  /** Looks at a free list: what is new on it has just been taken out of the table. */
  gather(model: DomainModel, list: IommuPagesList): void {
    if (list.empty || list.stale) return;
    for (const pfn of this.#state.pages.listPages(list)) {
      const block = this.#parts.get(pfn) ?? this.blocks.get(pfn);
      if (block === undefined || this.#gathered.has(block)) continue;
      const missing = new Set<number>();
      for (const [requester, user] of model.users) {
        if (user.attached || (block.moment < user.leftAt && user.flushedAt < user.leftAt)) missing.add(requester);
      }
      this.#gathered.set(block, { model, by: this.#state.log.event, missing });
    }
  }

  /** Tables taken out of `model` that a device may still have cached. */
  hasGathered(model: DomainModel): boolean {
    for (const one of this.#gathered.values()) if (one.model === model && one.missing.size > 0) return true;
    return false;
  }

  /** An invalidation has taken effect. */
  invalidated(event: InvalidationEvent): void {
    const moment = ++this.#state.moment;
    if ((event.layers & LAYER.TABLE) === 0) return;
    for (const [block, { model, missing }] of this.#gathered) {
      if (missing.size === 0 || (event.domain >= 0 && event.domain !== model.domain.id)) continue;
      const span = block.table ?? { startPfn: 0, lastPfn: Infinity };
      if (event.startPfn > span.lastPfn || event.lastPfn < span.startPfn) continue;
      if (event.requester < 0) missing.clear();
      else missing.delete(event.requester);
    }
    if (!isWhole(event)) return;
    for (const model of this.#state.models.values()) {
      if (event.domain >= 0 && event.domain !== model.domain.id) continue;
      if (event.requester < 0) for (const user of model.users.values()) user.flushedAt = moment;
      else {
        const user = model.users.get(event.requester);
        if (user !== undefined) user.flushedAt = moment;
      }
    }
  }

  /** A block goes back to the allocator. */
  freeing(pfn: number): Block | undefined {
    const block = this.blocks.get(pfn);
    if (block === undefined) {
      this.othersFreed = true;
      return undefined;
    }
    this.#gone(block);
    this.blocks.delete(pfn);
    for (let i = 0; i < block.bytes / 4096; i++) this.#pages.delete(pfn + i);
    return block;
  }

  /** A block is given to be freed after a grace period: by then it is too late for an invalidation. */
  leaving(pfn: number): void {
    const block = this.blocks.get(pfn);
    if (this.#parts.has(pfn) || block === undefined) {
      const page = this.#pages.get(Math.floor(pfn));
      if (page !== undefined) page.partsLeaving = true;
      this.partFreeing(pfn);
      return;
    }
    this.#gone(block);
    block.leaving = this.#state.log.event;
  }

  /** A block is freed: nothing happens when it is no part of a page. */
  partFreeing(pfn: number): void {
    const part = this.#parts.get(pfn);
    if (part === undefined) return;
    this.#gone(part);
    this.#parts.delete(pfn);
  }

  /** True while nothing but parts that wait for the end of a grace period keeps a block from being freed. */
  onlyWaits(block: Block): boolean {
    if (block.leaving !== null) return true;
    if (!block.partsLeaving) return false;
    for (const part of this.#parts.keys()) if (part >= block.pfn && part < block.pfn + block.bytes / 4096) return false;
    return true;
  }

  #gone(block: Block): void {
    if (block.leaving === null && block.table !== null && block.owner !== null)
      this.#judge(block, block.owner, this.#gathered.get(block));
    this.#gathered.delete(block);
  }

  #judge(block: Block, model: DomainModel, gathered: Gathered | undefined): void {
    const { log, hardware } = this.#state;
    let requester = -1;
    if (gathered !== undefined) {
      for (const one of gathered.missing) requester = one;
    } else {
      for (const [one, user] of model.users) {
        if (user.attached || (block.moment < user.leftAt && user.flushedAt < user.leftAt)) requester = one;
      }
    }
    if (requester < 0) return;
    const { startPfn, lastPfn } = block.table!;
    const part = lastPfn === Infinity ? 'all IOVAs' : `iova ${at(startPfn)} … ${at(lastPfn, 4095)}`;
    log.report(hex(block.pfn), {
      kind: 'freed-before-flush',
      what:
        `table page ${at(block.pfn)} of domain ${model.domain.id} (${part}) was freed before an invalidation that covers it ` +
        `completed; device ${hex(requester)} may still walk through it`,
      hint: this.#state.missing(hardware!.invalidationHints.table, `completed before the page is freed`),
      addresses: {
        page: addressOfPfn(block.pfn),
        ...(lastPfn === Infinity ? {} : { iova: addressOfPfn(startPfn), last: addressOfPfn(lastPfn, 4095) }),
      },
      ...(gathered === undefined ? {} : { unmappedBy: gathered.by }),
      freedBy: log.event,
    });
  }

  /** The live block that page `pfn` lies in. */
  holding(pfn: number): Block | undefined {
    return this.#pages.get(pfn);
  }

  /** The part of a CPU page that 4 KiB page `pfn` lies in: parts are aligned to their size. */
  partHolding(pfn: number): Block | undefined {
    for (let pages = 1; pages <= MAX_PART; pages *= 2) {
      const part = this.#parts.get(Math.floor(pfn / pages) * pages);
      if (part !== undefined && part.pfn + part.bytes / 4096 > pfn) return part;
    }
    return undefined;
  }

  /** The live block of which `startPfn … lastPfn` holds a page. */
  within(startPfn: number, lastPfn: number): Block | undefined {
    if (lastPfn - startPfn < this.blocks.size) {
      for (let pfn = startPfn; pfn <= lastPfn; pfn++) {
        const block = this.#pages.get(pfn);
        if (block !== undefined) return block;
      }
      return undefined;
    }
    for (const block of this.blocks.values()) {
      if (block.pfn <= lastPfn && block.pfn + block.bytes / 4096 > startPfn) return block;
    }
    return undefined;
  }
}
