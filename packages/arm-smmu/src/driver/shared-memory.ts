/**
 * Memory that driver and SMMU share: tables, descriptors, queues. Where the SMMU does not snoop the CPU's caches
 * (IDR0.COHACC = 0; IHI 0070, 3.15) what the driver writes there must be written back before the SMMU is to see it.
 */
import { IommuError, codeOfErrno } from '@iommu-ts/bits';
import { NO_PAGE } from '@iommu-ts/iommu-pages';
import type { IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';

export class SharedMemory {
  readonly memory: PhysicalMemory;
  readonly pages: IommuPages;
  readonly incoherent: boolean;

  constructor(memory: PhysicalMemory, pages: IommuPages, incoherent: boolean) {
    this.memory = memory;
    this.pages = pages;
    this.incoherent = incoherent;
  }

  /**
   * A zeroed block of at least `bytes`, zeros that the SMMU sees too.
   * @throws IommuError `ENOMEM`; `EINVAL` or `EOPNOTSUPP` when the block can not be made visible to the SMMU.
   */
  allocate(bytes: number, what: string): number {
    const pfn = this.pages.allocPagesSz(bytes);
    if (pfn === NO_PAGE) throw new IommuError('ENOMEM', `no memory for ${what} (${bytes} bytes)`, { bytes });
    const errno = this.incoherent ? this.pages.startIncoherent(pfn) : 0;
    if (errno === 0) return pfn;
    this.pages.freePages(pfn);
    throw new IommuError(codeOfErrno(errno), `the SMMU can not be shown ${what}`, { pfn, errno: `${errno}` });
  }

  /** Gives a block back; NO_PAGE is a no-op. */
  free(pfn: number): void {
    if (this.incoherent) this.pages.freeIncoherent(pfn);
    else this.pages.freePages(pfn);
  }

  /** The driver has written bytes `offset … offset + bytes` of the block at `pfn`: the SMMU may look. */
  written(pfn: number, offset: number, bytes: number): void {
    if (this.incoherent) this.pages.flushIncoherent(pfn, offset, bytes);
  }
}
