/** Every translation on the bus against one from memory: stale answers, and who forgot what. */
import { addressOfPfn, hex, join64, pfnOfWords } from '@iommu-ts/bits';
import type { Translator } from '../transaction.ts';
import { ACCESS, NO_PASID, TRANSLATE_OK } from '../transaction.ts';
import type { DomainModel } from './domain-model.ts';
import type { Incoherence } from './incoherence.ts';
import { allocatedText } from './quarantine.ts';
import type { FreedBlock } from './quarantine.ts';
import { at } from './report-log.ts';
import type { CheckState, Probe } from './state.ts';
import { LAYER } from './types.ts';

const LAYERS = { LEAF: 'final translation', TABLE: 'table entry', CONTEXT: 'device structure' } as const;

/** A device's answer, and what it was asked. */
interface Answer {
  readonly requester: number;
  readonly pasid: number;
  readonly iovaHi: number;
  readonly iovaLo: number;
  readonly access: number;
  readonly length: number;
  readonly status: number;
  readonly hi: number;
  readonly lo: number;
}

/** Stands between bus and device. */
export class CheckedTranslator implements Translator {
  readonly #state: CheckState;
  readonly #inner: Translator;
  readonly #freed: ReadonlyMap<number, FreedBlock>;
  readonly #incoherence: Incoherence | null;
  outHi = 0;
  outLo = 0;
  /** Who is being translated for. */
  requester = -1;
  pasid = NO_PASID;
  /** Translations that still answered for what was unmapped in lazy mode and not flushed yet, as they may. */
  lazyUses = 0;
  /** Freed pages that the device came to in the present translation. */
  readonly touched: { readonly pfn: number; readonly write: boolean }[] = [];
  readonly #probes: boolean;

  constructor(
    state: CheckState,
    inner: Translator,
    freed: ReadonlyMap<number, FreedBlock>,
    incoherence: Incoherence | null,
  ) {
    this.#state = state;
    this.#inner = inner;
    this.#freed = freed;
    this.#incoherence = incoherence;
    const { log } = state;
    this.#probes = incoherence !== null || log.wants('stale-translation') || log.wants('use-after-free');
  }

  translate(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number, length = 1): number {
    const { log } = this.#state;
    log.translating = true;
    let status: number;
    try {
      status = this.#translate(requester, pasid, iovaHi, iovaLo, access, length);
    } finally {
      log.translating = false;
    }
    log.settle();
    return status;
  }

  #translate(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number, length: number): number {
    const inner = this.#inner;
    this.requester = requester;
    this.pasid = pasid;
    const status = inner.translate(requester, pasid, iovaHi, iovaLo, access, length);
    this.requester = -1;
    const { outHi: hi, outLo: lo } = inner;
    this.outHi = hi;
    this.outLo = lo;
    if (!this.#probes) return status;
    const answer: Answer = { requester, pasid, iovaHi, iovaLo, access, length, status, hi, lo };
    const fresh = this.#state.probe(requester, pasid, iovaHi, iovaLo, access, 0);
    this.#incoherence?.check(answer, fresh);
    if (fresh.freed >= 0) this.#throughFreed(answer, fresh.freed);
    for (const { pfn, write } of this.touched.splice(0)) if (fresh.freed < 0) this.#usedFreed(answer, pfn, write);
    if (fresh.freed < 0 && !this.#agree(answer, fresh)) this.#stale(answer, fresh);
    return status;
  }

  #agree(answer: Answer, fresh: Probe): boolean {
    const ok = answer.status === TRANSLATE_OK;
    if (ok !== (fresh.status === TRANSLATE_OK)) {
      // A probe asks for one byte; the device may have refused the access for another one.
      const { requester, pasid, iovaHi, iovaLo, access, length } = answer;
      if (ok || length <= 1) return false;
      return this.#state.probe(requester, pasid, iovaHi, iovaLo + length - 1, access, 0).status !== TRANSLATE_OK;
    }
    return !ok || (answer.hi === fresh.hi && answer.lo === fresh.lo);
  }

  /** A cached entry led the device to a freed page: in memory nothing leads there. */
  #usedFreed(answer: Answer, pfn: number, write: boolean): void {
    const block = this.#freed.get(pfn);
    if (block === undefined) return;
    const { table, context } = this.#state.hardware!.invalidationHints;
    this.#state.log.report(hex(pfn), {
      kind: 'use-after-free',
      what:
        `${who(answer)}: the device ${write ? 'writes to' : 'reads'} page ${at(pfn)} through a cached entry, and the page ` +
        `has been freed${allocatedText(block)}`,
      hint: this.#state.missing(block.isTable ? table : context, 'completed before the page is freed'),
      addresses: { page: addressOfPfn(pfn), iova: iovaOf(answer) },
      freedBy: block.freedBy,
    });
  }

  /** The tables or structures in memory lead to a freed page. */
  #throughFreed(answer: Answer, pfn: number): void {
    const { log } = this.#state;
    const block = this.#freed.get(pfn);
    log.report(hex(pfn), {
      kind: 'use-after-free',
      what: `${who(answer)}: an entry in memory still leads to page ${at(pfn)}, which has been freed${block === undefined ? '' : allocatedText(block)}`,
      hint: 'clear the entry that points to the page, and invalidate it, before the page is freed',
      addresses: { page: addressOfPfn(pfn), iova: iovaOf(answer) },
      ...(block === undefined ? {} : { freedBy: block.freedBy }),
    });
  }

  #stale(answer: Answer, fresh: Probe): void {
    const state = this.#state;
    const { log } = state;
    const pfn = pfnOfWords(answer.iovaHi, answer.iovaLo);
    const model = state.modelOf(answer.requester, answer.pasid);
    const ok = answer.status === TRANSLATE_OK;
    const freshOk = fresh.status === TRANSLATE_OK;
    const pending = model?.pendingAt(pfn);
    if (ok && !freshOk && pending !== undefined) {
      this.lazyUses++;
      return;
    }
    if (!log.wants('stale-translation')) return;
    const layer = this.#staleLayer(answer, fresh);
    const mapped = model?.mappings.overlap(pfn, pfn);
    const gone = model?.mappings.lastGone(pfn);
    const said = ok
      ? `went to ${hex(join64(answer.hi, answer.lo))} through a cached ${LAYERS[layer]}`
      : `was refused (code ${hex(answer.status)}) because of a cached ${LAYERS[layer]}`;
    const truth = freshOk
      ? `memory says ${hex(join64(fresh.hi, fresh.lo))}`
      : `memory says no (code ${hex(fresh.status)})`;
    log.report(`${answer.requester} ${answer.pasid} ${pfn}`, {
      kind: 'stale-translation',
      what: `${who(answer)} ${said}, but ${truth}`,
      hint:
        pending === undefined
          ? this.#hint(answer, layer, model)
          : pending.gather === null
            ? 'wait for the flush: in lazy mode an IOVA may be mapped again only after its released callback has run'
            : 'iotlbSync() of the gather that holds the IOVA, before it is mapped again',
      addresses: {
        iova: iovaOf(answer),
        ...(ok ? { cached: join64(answer.hi, answer.lo) } : {}),
        ...(freshOk ? { fresh: join64(fresh.hi, fresh.lo) } : {}),
      },
      ...(mapped !== undefined ? { mappedBy: mapped.mappedBy } : gone !== undefined ? { mappedBy: gone.mappedBy } : {}),
      ...(gone === undefined ? {} : { unmappedBy: gone.unmappedBy }),
    });
  }

  /** The outermost layer without which the answer is the one from memory. */
  #staleLayer(answer: Answer, fresh: Probe): keyof typeof LAYERS {
    if (this.#same(answer, fresh, LAYER.TABLE | LAYER.CONTEXT)) return 'LEAF';
    return this.#same(answer, fresh, LAYER.CONTEXT) ? 'TABLE' : 'CONTEXT';
  }

  #same(answer: Answer, fresh: Probe, layers: number): boolean {
    const { requester, pasid, iovaHi, iovaLo, access } = answer;
    const { status, hi, lo } = this.#state.probe(requester, pasid, iovaHi, iovaLo, access, layers);
    if (status !== TRANSLATE_OK) return fresh.status !== TRANSLATE_OK;
    return fresh.status === TRANSLATE_OK && hi === fresh.hi && lo === fresh.lo;
  }

  #hint(answer: Answer, layer: keyof typeof LAYERS, model: DomainModel | null): string {
    const { leaf, table, context } = this.#state.hardware!.invalidationHints;
    const iova = hex(iovaOf(answer));
    const domain = model === null ? '' : ` of domain ${model.domain.id}`;
    switch (layer) {
      case 'LEAF':
        return this.#state.missing(leaf, `for iova ${iova}${domain}, after its entry had changed`);
      case 'TABLE':
        return this.#state.missing(table, `for iova ${iova}${domain}, after a table on its path had gone`);
      case 'CONTEXT':
        return this.#state.missing(context, `for device ${hex(answer.requester)}, after its structures had changed`);
    }
  }
}

const iovaOf = (answer: Answer): bigint => join64(answer.iovaHi, answer.iovaLo);

const who = (answer: Answer): string => {
  const verb = (answer.access & ACCESS.WRITE) !== 0 ? 'write' : 'read';
  const pasid = answer.pasid === NO_PASID ? '' : ` with PASID ${hex(answer.pasid)}`;
  return `the ${verb} of device ${hex(answer.requester)}${pasid} at iova ${hex(iovaOf(answer))}`;
};
