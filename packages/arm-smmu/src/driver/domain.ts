/**
 * Invalidations of paging domains, in Linux's way: by address with the stride of the smallest page removed, the whole ASID
 * or VMID beyond a threshold, and ranges where IDR3.RIL offers them (IHI 0070, 4.4).
 */
import { hiOfPfn, loOfPfn } from '@iommu-ts/bits';
import type { PagingDomain, PagingDomainOps } from '@iommu-ts/iommu-core';
import type { GatherRecord } from '@iommu-ts/page-table';
import { CMD, TLBI_TG } from '../commands.ts';
import type { CommandSender } from './command-queue.ts';

/** Largest NUM + 1 and SCALE of a range command. */
const MAX_NUM = 31;
const MAX_SCALE = 31;

/** What a domain's operations need from the driver that made it. */
export interface DomainOwner {
  readonly commands: CommandSender;
  readonly ril: boolean;
  /** Called once the domain has been freed and its translations are invalidated. */
  released(domain: PagingDomain, ops: SmmuDomainOps): void;
}

/** The vendor's part of one paging domain: stage 1 with an ASID and a CD, or stage 2 with a VMID. */
export class SmmuDomainOps implements PagingDomainOps {
  readonly owner: DomainOwner;
  readonly stage: 1 | 2;
  readonly granuleLg2: number;
  /** Stage 1: page of the context descriptor; -1 for stage 2. */
  readonly cdPfn: number;
  /** Word 1 of the commands: ASID or VMID in place. */
  readonly #tag: number;

  constructor(owner: DomainOwner, stage: 1 | 2, granuleLg2: number, id: number, cdPfn: number) {
    this.owner = owner;
    this.stage = stage;
    this.granuleLg2 = granuleLg2;
    this.cdPfn = cdPfn;
    this.#tag = stage === 1 ? id << 16 : id;
  }

  iotlbSync(domain: PagingDomain, gather: GatherRecord): void {
    if (gather.empty) {
      if (gather.tableLevels !== 0) this.flushIotlbAll(domain);
      return;
    }
    // Walk caches hold tables: only when no table went, the last level alone is enough.
    const leaf = gather.tableLevels === 0 ? 1 : 0;
    const { commands, ril } = this.owner;
    if (ril) this.#ranges(gather, leaf);
    else {
      const strideLg2 = gather.pgsizeLg2 === 0 ? this.granuleLg2 : gather.pgsizeLg2;
      const stride = 2 ** (strideLg2 - 12);
      // More commands than a table has entries: the whole address space is cheaper.
      if ((gather.lastPfn - gather.startPfn + 1) / stride > 2 ** (this.granuleLg2 - 3)) {
        this.flushIotlbAll(domain);
        return;
      }
      const opcode = this.stage === 1 ? CMD.TLBI_NH_VA : CMD.TLBI_S2_IPA;
      for (let pfn = gather.startPfn; pfn <= gather.lastPfn; pfn += stride) {
        commands.invalidate(opcode, this.#tag, loOfPfn(pfn) | leaf, hiOfPfn(pfn));
      }
    }
    commands.sync();
  }

  /** Range commands: NUM x 2^SCALE granules each, smallest SCALE first. */
  #ranges(gather: GatherRecord, leaf: number): void {
    const opcode = this.stage === 1 ? CMD.TLBI_NH_VA : CMD.TLBI_S2_IPA;
    const granule = 2 ** (this.granuleLg2 - 12);
    const tg = TLBI_TG[this.granuleLg2]! << 10;
    const ttl = leaf === 0 ? 0 : levelHint(gather.leafLevels);
    let left = Math.ceil((gather.lastPfn - gather.startPfn + 1) / granule);
    let pfn = gather.startPfn;
    while (left > 0) {
      let scale = 0;
      let num = left;
      while (num % 2 === 0 && scale < MAX_SCALE) {
        num /= 2;
        scale++;
      }
      // The low five bits now; what is above them goes into commands of larger scale.
      num = scale === MAX_SCALE ? Math.min(num, MAX_NUM) : num % 32;
      const low = loOfPfn(pfn) | leaf;
      const one = num === 1 && scale === 0 && ttl === 0;
      // One granule without a hint is a reserved combination: said as a plain address.
      if (one) this.owner.commands.invalidate(opcode, this.#tag, low, hiOfPfn(pfn));
      else {
        const range = opcode | ((num - 1) << 12) | (scale << 20);
        this.owner.commands.invalidate(range, this.#tag, low | tg | (ttl << 8), hiOfPfn(pfn));
      }
      const done = num * 2 ** scale;
      left -= done;
      pfn += done * granule;
    }
  }

  flushIotlbAll(_domain: PagingDomain): void {
    const { commands } = this.owner;
    commands.invalidate(this.stage === 1 ? CMD.TLBI_NH_ASID : CMD.TLBI_S12_VMALL, this.#tag, 0, 0);
    commands.sync();
  }

  release(domain: PagingDomain): void {
    this.owner.released(domain, this);
  }
}

/** TTL of leaves that all lie at one level (bit n: n levels above the lowest), else 0: any level. */
const levelHint = (levels: number): number => {
  switch (levels) {
    case 1:
      return 3;
    case 2:
      return 2;
    case 4:
      return 1;
    default:
      return 0;
  }
};
