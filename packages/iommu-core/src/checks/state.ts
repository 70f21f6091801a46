/** What all checks share: the system under watch, its domains, and one count of moments. */
import type { IommuPages } from '@iommu-ts/iommu-pages';
import type { IommuDriver, IommuHardware } from '../driver.ts';
import type { PagingDomain } from '../domain.ts';
import { NO_PASID } from '../transaction.ts';
import type { DeviceMemory } from './device-memory.ts';
import type { DomainModel } from './domain-model.ts';
import type { ReportLog } from './report-log.ts';

/** The answer of a probe. */
export interface Probe {
  readonly status: number;
  readonly hi: number;
  readonly lo: number;
  /** A freed page that the walk came to, -1 for none. */
  readonly freed: number;
}

/** The system under watch. */
export class CheckState {
  readonly log: ReportLog;
  readonly pages: IommuPages;
  readonly memory: DeviceMemory;
  hardware: IommuHardware | null = null;
  driver: IommuDriver | null = null;
  readonly models = new Map<PagingDomain, DomainModel>();
  /** Counts what has an order: allocations, invalidations, attachments. */
  moment = 0;
  /** Invalidations that are being made, innermost last: for which domain, or null for none (attach, detach). */
  readonly syncing: (DomainModel | null)[] = [];

  constructor(log: ReportLog, pages: IommuPages, memory: DeviceMemory) {
    this.log = log;
    this.pages = pages;
    this.memory = memory;
  }

  /** What the device would answer from memory and the caches in `layers`; leaves no trace. */
  probe(
    requester: number,
    pasid: number,
    hi: number,
    lo: number,
    access: number,
    layers: number,
    coherent = false,
  ): Probe {
    const hardware = this.hardware!;
    this.memory.beginProbe(coherent);
    try {
      const status = hardware.probe(requester, pasid, hi, lo, access, layers);
      return { status, hi: hardware.outHi, lo: hardware.outLo, freed: this.memory.probeFreed };
    } finally {
      this.memory.endProbe();
    }
  }

  /** The domain of the transactions of a device, or null where it is none of the driver's paging domains. */
  modelOf(requester: number, pasid: number): DomainModel | null {
    const driver = this.driver!;
    if (pasid !== NO_PASID || requester >= driver.info.requesters) return null;
    const domain = driver.domainOf(requester);
    return domain === null || domain.type !== 'paging' ? null : (this.models.get(domain) ?? null);
  }

  /** The hint for a missing invalidation: the command, or the wait for it. */
  missing(command: string, why: string): string {
    const { invalidationHints, pendingInvalidations } = this.hardware!;
    return pendingInvalidations > 0
      ? `${invalidationHints.completion}: wait until the ${pendingInvalidations} invalidation(s) that were sent have taken effect`
      : `${command}, ${why}`;
  }
}
