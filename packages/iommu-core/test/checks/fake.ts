/**
 * A small IOMMU of no vendor, for tests of the checks: 4-level x86-64 tables, a device table of 8-byte entries
 * (bit 0 valid, bits 11..4 domain, bits 51..12 root), commands written to registers and executed when a register is read.
 * Its driver makes the mistakes that it is told to make.
 */
import { addressOfPfn, hi32, hiOfPfn, join64, lo32, loOfPfn } from '@iommu-ts/bits';
import { NO_PAGE } from '@iommu-ts/iommu-pages';
import type { IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { X86_64_4LEVEL } from '@iommu-ts/page-table';
import type { GatherRecord } from '@iommu-ts/page-table';
import { createMachine } from '../../src/machine.ts';
import { LAYER } from '../../src/checks/types.ts';
import type { InvalidationEvent } from '../../src/checks/types.ts';
import { PagingDomain } from '../../src/domain.ts';
import type { Domain, PagingDomainOps } from '../../src/domain.ts';
import type { CreateDomainOptions, DriverInfo, IommuDriver, IommuHardware, SystemOptions } from '../../src/driver.ts';
import { Iotlb } from '../../src/iotlb.ts';
import type { MmioPort } from '../../src/mmio.ts';
import { ACCESS } from '../../src/transaction.ts';
import { WalkCache } from '../../src/walk-cache.ts';
import type { VirtualClock } from '../../src/clock.ts';

/** Mistakes of the driver. */
export interface Mistakes {
  /** Sends nothing on a sync, on a flush of a domain, on an attach or detach. */
  noSync?: boolean;
  noFlushAll?: boolean;
  noContext?: boolean;
  /** Does not read a register after the commands. */
  noWait?: boolean;
  /** Tells the device that only leaves went, although tables did. */
  leafOnly?: boolean;
  /** Invalidates another domain. */
  otherDomain?: boolean;
  /** Invalidates every domain for one. */
  global?: boolean;
  /** Flushes no cache lines of tables, or of the device table. */
  noTableFlush?: boolean;
  noStructureFlush?: boolean;
  /** Called when an entry has been written and is about to be flushed. */
  whileWriting?: () => void;
  /** Keeps a page of a domain that was freed, or of the driver. */
  leakDomainPage?: boolean;
  leakDeviceTable?: boolean;
}

const CMD = { leaf: 1, table: 2, all: 3, context: 4 } as const;

/** Registers: 0 root page, 8 command (opcode, domain or requester), 16 first page, 24 last page; 32 status. */
class FakeHardware implements IommuHardware {
  readonly name = 'fake';
  readonly memory: PhysicalMemory;
  readonly iotlb = new Iotlb({ mode: 'retain' });
  readonly walkCache = new WalkCache();
  readonly contexts = new Map<number, { root: number; tag: number }>();
  readonly stats = { walks: 0, walkReads: 0, structureReads: 0, commands: 0, invalidations: 0, faults: 0 };
  readonly needsBreakBeforeMake: boolean;
  readonly invalidationHints = { leaf: 'INV_LEAF', table: 'INV_TABLE', context: 'INV_CONTEXT', completion: 'STATUS' };
  onInterrupt = null;
  onInvalidate: ((event: InvalidationEvent) => void) | null = null;
  outHi = 0;
  outLo = 0;
  #queue: (() => void)[] = [];
  #range: [number, number] = [0, 0];
  #root = 0;
  readonly mmio: MmioPort = {
    hi: 0,
    lo: 0,
    read32: () => (this.#work(), 0),
    read64: () => this.#work(),
    write32: () => {},
    write64: (offset, hi, lo) => {
      if (offset === 0) this.#root = lo;
      else if (offset === 16) this.#range[0] = (hi >>> 0) * 2 ** 32 + (lo >>> 0);
      else if (offset === 24) this.#range[1] = (hi >>> 0) * 2 ** 32 + (lo >>> 0);
      else if (offset === 8) this.#command(hi, lo);
    },
  };

  constructor(memory: PhysicalMemory, needsBreakBeforeMake = false) {
    this.memory = memory;
    this.needsBreakBeforeMake = needsBreakBeforeMake;
  }

  get pendingInvalidations(): number {
    return this.#queue.length;
  }

  reset(): void {}

  #work(): void {
    for (const run of this.#queue.splice(0)) run();
  }

  #command(opcode: number, id: number): void {
    const [startPfn, lastPfn] = this.#range;
    this.#queue.push(() => {
      const matches = (tag: number): boolean => id < 0 || tag === id;
      if (opcode === CMD.context) this.contexts.delete(id);
      const whole = opcode === CMD.all;
      const [first, last] = whole ? [0, Infinity] : [startPfn, lastPfn];
      if (opcode !== CMD.context) this.iotlb.invalidateWhere(matches, first, last);
      if (opcode === CMD.table || whole) this.walkCache.invalidate(matches, first, last);
      this.onInvalidate?.({
        name: opcode === CMD.context ? `INV_CONTEXT DEV=${id}` : `INV_${whole ? 'ALL' : 'PAGES'} DOMAIN=${id}`,
        layers: opcode === CMD.context ? LAYER.CONTEXT : opcode === CMD.leaf ? LAYER.LEAF : LAYER.LEAF | LAYER.TABLE,
        domain: opcode === CMD.context ? -1 : id,
        requester: opcode === CMD.context ? id : -1,
        startPfn: opcode === CMD.context ? 0 : first,
        lastPfn: opcode === CMD.context ? Infinity : last,
      });
    });
  }

  translate(requester: number, _pasid: number, hi: number, lo: number, access: number): number {
    return this.#run(requester, hi, lo, access, LAYER.ALL, true);
  }

  probe(requester: number, _pasid: number, hi: number, lo: number, access: number, layers: number): number {
    return this.#run(requester, hi, lo, access, layers, false);
  }

  #run(requester: number, hi: number, lo: number, access: number, layers: number, fill: boolean): number {
    let context = (layers & LAYER.CONTEXT) === 0 ? undefined : this.contexts.get(requester);
    if (context === undefined) {
      if (!this.memory.load64(hiOfPfn(this.#root), loOfPfn(this.#root) + requester * 8)) return 1;
      const entry = join64(this.memory.hi, this.memory.lo);
      if ((entry & 1n) === 0n) return 1;
      context = { root: Number((entry >> 12n) & 0xff_ffff_ffffn), tag: Number((entry >> 4n) & 0xffn) };
      if (fill) this.contexts.set(requester, context);
    }
    const { tag } = context;
    const cached = (layers & LAYER.LEAF) !== 0;
    if (cached && (fill ? this.iotlb.lookup(tag, hi, lo) : this.iotlb.peek(tag, hi, lo))) {
      this.outHi = this.iotlb.outHi;
      this.outLo = this.iotlb.outLo;
      return (this.iotlb.perm & access) === access ? 0 : 3;
    }
    return this.#walk(context.root, tag, hi, lo, access, (layers & LAYER.TABLE) !== 0, fill);
  }

  #walk(root: number, tag: number, hi: number, lo: number, access: number, tables: boolean, fill: boolean): number {
    const span = (level: number): number => 12 + 9 * (level + 1);
    let level = 3;
    let table = root;
    if (tables && this.walkCache.find(tag, hi, lo, 0, 2, span)) {
      level = this.walkCache.level;
      table = Number(join64(this.walkCache.hi, this.walkCache.lo) >> 12n);
    }
    const iova = join64(hi, lo);
    for (; ; level--) {
      const index = Number((iova >> BigInt(12 + 9 * level)) & 0x1ffn);
      if (!this.memory.locate(table, false)) return 2;
      const at = this.memory.index + 2 * index;
      const entry = join64(this.memory.view[at + 1]!, this.memory.view[at]!);
      if ((entry & 1n) === 0n) return 2;
      const target = Number((entry >> 12n) & 0xff_ffff_ffffn);
      if (level === 0 || (entry & 0x80n) !== 0n) {
        const sizeLg2 = 12 + 9 * level;
        const out = ((BigInt(target) << 12n) & (-1n << BigInt(sizeLg2))) | (iova & ((1n << BigInt(sizeLg2)) - 1n));
        this.outHi = hi32(out) | 0;
        this.outLo = lo32(out) | 0;
        const perm = ACCESS.READ | ((entry & 2n) === 0n ? 0 : ACCESS.WRITE);
        if (fill) this.iotlb.fill(tag, hi, lo, sizeLg2, this.outHi, this.outLo, perm, 0);
        return (perm & access) === access ? 0 : 3;
      }
      table = target;
      if (fill) this.walkCache.fill(tag, level - 1, hi, lo, span(level - 1), hiOfPfn(table), loOfPfn(table), 0);
    }
  }
}

class FakeDriver implements IommuDriver {
  readonly identityDomain = { type: 'identity' } as const;
  readonly blockedDomain = { type: 'blocked' } as const;
  readonly mistakes: Mistakes;
  readonly info = { name: 'fake', requesters: 16, invalidationCommands: 0 } as unknown as DriverInfo;
  readonly #mmio: MmioPort;
  readonly #pages: IommuPages;
  readonly #clock: VirtualClock;
  readonly #incoherent: boolean;
  readonly #table: number;
  readonly #of = new Map<number, Domain>();
  readonly #domainPage = new Map<PagingDomain, number>();
  #ids = 1;

  constructor(mmio: MmioPort, pages: IommuPages, clock: VirtualClock, incoherent: boolean, mistakes: Mistakes) {
    this.#mmio = mmio;
    this.#pages = pages;
    this.#clock = clock;
    this.#incoherent = incoherent;
    this.mistakes = mistakes;
    this.#table = pages.allocPagesSz(4096);
    if (incoherent) pages.startIncoherent(this.#table);
    mmio.write64(0, 0, this.#table);
  }

  createDomain(options: CreateDomainOptions = {}): PagingDomain {
    const page = this.#pages.allocPagesSz(4096);
    if (page === NO_PAGE) throw new Error('no page');
    const domain = new PagingDomain({
      pages: this.#pages,
      clock: this.#clock,
      mode: options.mode ?? 'strict',
      id: this.#ids++,
      table: {
        format: X86_64_4LEVEL,
        ias: 48,
        oas: 52,
        incoherent: this.#incoherent,
        flush: (pfn, offset, bytes) => {
          this.mistakes.whileWriting?.();
          if (this.mistakes.noTableFlush !== true) this.#pages.flushIncoherent(pfn, offset, bytes);
        },
      },
      ops: this.#ops(),
      ...(options.flushQueue === undefined ? {} : { flushQueue: options.flushQueue }),
    });
    this.#domainPage.set(domain, page);
    return domain;
  }

  #ops(): PagingDomainOps {
    return {
      iotlbSync: (domain, gather) => this.#sync(domain, gather),
      flushIotlbAll: (domain) => {
        if (this.mistakes.noFlushAll !== true) this.#send(CMD.all, domain.id, 0, 0);
      },
      release: (domain) => {
        if (this.mistakes.leakDomainPage !== true) this.#pages.freePages(this.#domainPage.get(domain)!);
      },
    };
  }

  #sync(domain: PagingDomain, gather: GatherRecord): void {
    const { mistakes } = this;
    if (mistakes.noSync === true) return;
    const id = mistakes.global === true ? -1 : mistakes.otherDomain === true ? domain.id ^ 3 : domain.id;
    if (mistakes.global === true || mistakes.otherDomain === true) this.#send(CMD.all, id, 0, 0);
    else {
      const opcode = gather.tableLevels === 0 || mistakes.leafOnly === true ? CMD.leaf : CMD.table;
      this.#send(opcode, id, gather.startPfn, gather.lastPfn);
    }
  }

  #send(opcode: number, id: number, startPfn: number, lastPfn: number): void {
    const mmio = this.#mmio;
    mmio.write64(16, Math.floor(startPfn / 2 ** 32), startPfn | 0);
    mmio.write64(24, Math.floor(lastPfn / 2 ** 32), lastPfn | 0);
    mmio.write64(8, opcode, id);
    if (this.mistakes.noWait !== true) mmio.read32(32);
  }

  #write(requester: number, entry: bigint): void {
    this.#pages.memory.writeU64(addressOfPfn(this.#table, requester * 8), entry);
    if (this.mistakes.noStructureFlush !== true) this.#pages.flushIncoherent(this.#table, requester * 8, 8);
    if (this.mistakes.noContext !== true) this.#send(CMD.context, requester, 0, 0);
  }

  attach(requester: number, domain: Domain): void {
    const old = this.#of.get(requester);
    if (domain.type !== 'paging') throw new Error('paging domains only');
    this.#write(requester, (BigInt(domain.table.rootPfn) << 12n) | (BigInt(domain.id) << 4n) | 1n);
    this.#of.set(requester, domain);
    domain.attached();
    this.#left(old);
  }

  detach(requester: number): void {
    const old = this.#of.get(requester);
    this.#of.delete(requester);
    this.#write(requester, 0n);
    this.#left(old);
  }

  #left(old: Domain | undefined): void {
    if (old?.type === 'paging') old.detached();
  }

  domainOf(requester: number): Domain | null {
    return this.#of.get(requester) ?? null;
  }
  reservedRegions(): readonly [] {
    return [];
  }
  handleFaults(): [] {
    return [];
  }
  release(): void {
    this.#mmio.write64(0, 0, 0);
    if (this.mistakes.leakDeviceTable !== true) this.#pages.freePages(this.#table);
  }
}

/** A system with checks over the fake device. `mistakes` may be changed at any time. */
export const createFake = (options: SystemOptions & { bbm?: boolean } = {}, mistakes: Mistakes = {}) => {
  const machine = createMachine({ checks: true, ...options });
  const hardware = new FakeHardware(machine.deviceMemory, options.bbm === true);
  const driver = new FakeDriver(
    machine.port(hardware.mmio),
    machine.pages,
    machine.clock,
    options.incoherentWalker === true,
    mistakes,
  );
  const system = machine.system(hardware, driver);
  return { ...system, checks: system.checks!, mistakes };
};
