/**
 * `@iommu-ts/iommu-core`: what five IOMMUs share. Bus and transactions, domains and their invalidation, IOTLB, queues in
 * memory, register files, IOVA and id allocators, faults, the virtual clock.
 * @packageDocumentation
 */
export { VirtualClock } from './clock.ts';
export type { Timer } from './clock.ts';
export { ACCESS, NO_PASID, TRANSLATE_OK } from './transaction.ts';
export type { Translator } from './transaction.ts';
export type { MmioPort } from './mmio.ts';
export { RegisterFile } from './register-file.ts';
export type { RegisterAccess, RegisterHooks, RegisterMap, RegisterSpec } from './register-file.ts';
export { Iotlb } from './iotlb.ts';
export type { IotlbMode, IotlbOptions } from './iotlb.ts';
export type { FaultEvent, FaultKind } from './fault.ts';
export { IdAllocator } from './ids.ts';
export { touchesReserved } from './reserved-region.ts';
export type { ReservedRegion, ReservedRegionType } from './reserved-region.ts';
export { IovaAllocator } from './iova-allocator.ts';
export { RingQueue } from './ring-queue.ts';
export { FLUSH_QUEUE_DEFAULTS, FlushQueue } from './flush-queue.ts';
export type { FlushQueueOptions } from './flush-queue.ts';
export { PagingDomain } from './domain.ts';
export type {
  Domain,
  DomainMode,
  DomainType,
  FreeMode,
  PagingDomainOps,
  PagingDomainOptions,
  PlainDomain,
} from './domain.ts';
export { Bus, DMA_BUS_ERROR, DmaDevice } from './bus.ts';
export type { DmaResult } from './bus.ts';
export { WalkCache } from './walk-cache.ts';
export { Checks } from './checks/checks.ts';
export type { CheckSummary, CheckedMachine } from './checks/checks.ts';
export type { DeviceMemory } from './checks/device-memory.ts';
export type { FlushRow } from './checks/incoherence.ts';
export type { InvalidationRow, SyncRow } from './checks/invalidations.ts';
export { formatReport } from './checks/report-log.ts';
export { CHECK_KINDS, LAYER } from './checks/types.ts';
export type {
  CheckEvent,
  CheckKind,
  CheckOptions,
  CheckReport,
  InvalidationEvent,
  InvalidationHints,
  IotlbListener,
} from './checks/types.ts';
export { createMachine } from './machine.ts';
export type { Machine } from './machine.ts';
export type {
  CreateDomainOptions,
  DeviceConfig,
  DriverHarness,
  DriverInfo,
  FormatVariant,
  HardwareStats,
  IommuDriver,
  IommuHardware,
  IommuSystem,
  SystemOptions,
} from './driver.ts';
