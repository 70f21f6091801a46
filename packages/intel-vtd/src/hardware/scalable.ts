/**
 * Scalable mode: not built yet; the unit refuses a root table of that mode as the specification says (7.1.3, RTA conditions).
 */
import type { HardwareStats, Iotlb } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { FAULT } from '../faults.ts';
import type { Capabilities } from '../registers.ts';
import type { Remapper } from './translate.ts';

export class ScalableMode {
  private readonly owner: Remapper;
  constructor(owner: Remapper, _m: PhysicalMemory, _t: Iotlb, _c: Capabilities, _h: number, _s: HardwareStats) {
    this.owner = owner;
  }
  translatePasid(_sid: number, _pasid: number, _hi: number, _lo: number, _access: number): number {
    return this.owner.mode === 0 ? FAULT.RTA_2 : FAULT.RTA_1;
  }
  loadContext(_sid: number, _slot: number): number {
    return FAULT.RTA_1;
  }
  firstStage(_slot: number, _hi: number, _lo: number, _access: number): number {
    return FAULT.RTA_1;
  }
}
