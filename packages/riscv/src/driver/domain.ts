/** Invalidations of paging domains, as Linux's riscv driver sends them: by leaf for short ranges, else the whole PSCID. */
import type { IdAllocator, PagingDomain, PagingDomainOps } from '@iommu-ts/iommu-core';
import type { GatherRecord } from '@iommu-ts/page-table';
import type { CommandSender } from './command-queue.ts';

/** More leaves than this are invalidated with one command for the whole address space. */
const MAX_PAGE_COMMANDS = 512;
/** The one size of NAPOT leaves, 64 KiB. */
const NAPOT_LG2 = 16;

export class RiscvDomainOps implements PagingDomainOps {
  readonly #commands: CommandSender;
  readonly #pscids: IdAllocator;
  readonly #onRelease: (domain: PagingDomain) => void;

  constructor(commands: CommandSender, pscids: IdAllocator, onRelease: (domain: PagingDomain) => void) {
    this.#commands = commands;
    this.#pscids = pscids;
    this.#onRelease = onRelease;
  }

  iotlbSync(domain: PagingDomain, gather: GatherRecord): void {
    if (gather.empty && gather.tableLevels === 0) return;
    const commands = this.#commands;
    // A NAPOT leaf may be cached page by page (Privileged specification, Svnapot), so each of its pages has to be named.
    const stride = gather.pgsizeLg2 <= NAPOT_LG2 ? 1 : 2 ** (gather.pgsizeLg2 - 12);
    // Without AV the command also drops non-leaf entries, which must go before a table is freed.
    if (gather.tableLevels !== 0 || (gather.lastPfn - gather.startPfn) / stride >= MAX_PAGE_COMMANDS) {
      commands.invalidateSpace(domain.id);
    } else {
      for (let pfn = gather.startPfn; pfn <= gather.lastPfn; pfn += stride) commands.invalidatePage(domain.id, pfn);
    }
    commands.sync();
  }

  flushIotlbAll(domain: PagingDomain): void {
    this.#commands.invalidateSpace(domain.id);
    this.#commands.sync();
  }

  release(domain: PagingDomain): void {
    this.#pscids.free(domain.id);
    this.#onRelease(domain);
  }
}
