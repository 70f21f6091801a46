import { IommuError, hex } from '@iommu-ts/bits';
import type { IommuErrorCode } from '@iommu-ts/bits';

/** What the allocator warns of, where Linux has a `WARN_ON`. */
export type PagesWarningKind =
  /** Memory was asked for that a table can not lie in (`__GFP_HIGHMEM`). */
  | 'highmem'
  /** An allocation that may sleep, in atomic context. */
  | 'atomic'
  /** `startIncoherent` of a block that is incoherent already. */
  | 'already-incoherent'
  /** The DMA API gave an address that is not the physical one. */
  | 'dma-not-direct'
  /** A block was freed without `stopIncoherentList` or `freeIncoherent` on a DMA-API machine. */
  | 'freed-incoherent'
  /** A block was freed that the next kernel was to get. */
  | 'freed-preserved';

/** A `WARN_ON` that struck. */
export interface PagesWarning {
  readonly kind: PagesWarningKind;
  readonly message: string;
  /** Page that it is about, or -1. */
  readonly pfn: number;
}

/** `'record'`: kept in a list. `'throw'`: thrown as {@link IommuError} (Linux: `panic_on_warn`), kept as well. */
export type WarnMode = 'record' | 'throw';

/** Warnings that are kept; the oldest go first. */
const KEPT = 64;

/** Where warnings go. */
export class Warnings {
  readonly list: PagesWarning[] = [];
  /** All warnings so far, kept or not. */
  total = 0;
  readonly #mode: WarnMode;
  readonly #onWarn: ((warning: PagesWarning) => void) | null;

  constructor(mode: WarnMode = 'record', onWarn: ((warning: PagesWarning) => void) | null = null) {
    this.#mode = mode;
    this.#onWarn = onWarn;
  }

  /** @throws IommuError with `code`, in mode `'throw'`. */
  warn(kind: PagesWarningKind, code: IommuErrorCode, message: string, pfn: number): void {
    const warning = { kind, message, pfn };
    this.total++;
    if (this.list.length === KEPT) this.list.shift();
    this.list.push(warning);
    if (this.#onWarn !== null) this.#onWarn(warning);
    if (this.#mode === 'throw') throw new IommuError(code, message, pfn < 0 ? { kind } : { kind, pfn });
  }
}

/** How messages name a page; a part of one has its bytes from the page's first behind it. */
export const hexPfn = (pfn: number): string => {
  const page = Math.floor(pfn);
  return page === pfn ? hex(pfn) : `${hex(page)}+${hex(Math.round((pfn - page) * 4096))}`;
};
