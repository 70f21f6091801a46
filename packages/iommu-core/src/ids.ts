import { IommuError } from '@iommu-ts/bits';

/** Allocator of small ids (domain ids, ASIDs, VMIDs, PASIDs): lowest free first, exhaustion reported. */
export class IdAllocator {
  readonly name: string;
  readonly first: number;
  readonly last: number;
  readonly #used = new Set<number>();
  #hint: number;

  /** Ids `first` … `last`, both inclusive. */
  constructor(name: string, first: number, last: number) {
    this.name = name;
    this.first = first;
    this.last = last;
    this.#hint = first;
  }

  /** Ids in use. */
  get inUse(): number {
    return this.#used.size;
  }

  /** Lowest free id. @throws IommuError `ENOSPC` when all are in use. */
  alloc(): number {
    for (let id = this.#hint; id <= this.last; id++) {
      if (this.#used.has(id)) continue;
      this.#used.add(id);
      this.#hint = id + 1;
      return id;
    }
    throw new IommuError('ENOSPC', `all ${this.last - this.first + 1} ${this.name}s are in use`, {
      first: this.first,
      last: this.last,
    });
  }

  /** Gives `id` back. @throws IommuError `EINVAL` when it is not in use. */
  free(id: number): void {
    if (!this.#used.delete(id)) throw new IommuError('EINVAL', `${this.name} ${id} is not in use`, { id });
    if (id < this.#hint) this.#hint = id;
  }
}
