/**
 * `@iommu-ts/intel-vtd`: Intel Virtualization Technology for Directed I/O, emulated on both sides of the register interface.
 *
 * - {@link VtdUnit} is the device: registers, remapping structures, page walk, IOTLB, invalidation queue, fault recording.
 * - {@link VtdDriver} is what an operating system does with it, through registers and memory only.
 * - {@link createVtdIommu} makes both, with memory and a bus, ready to use.
 * @packageDocumentation
 */
export { VTD_PRESETS, createVtdIommu } from './system.ts';
export type { VtdPreset, VtdPresetName, VtdSystem, VtdSystemOptions } from './system.ts';
export { VtdUnit } from './hardware/unit.ts';
export type { VtdUnitOptions } from './hardware/unit.ts';
export { VtdDriver } from './driver/driver.ts';
export type { VtdDriverOptions } from './driver/driver.ts';
export { inspectRequester } from './inspect.ts';
export { VTD_FS_48, VTD_FS_57, VTD_SS_39, VTD_SS_48, VTD_SS_57, goldenConfig } from './formats.ts';
export { secondStageConfig, secondStageFormat, secondStagePageSizes } from './second-stage.ts';
export { FAULT, FAULT_REASONS, decodeFaultRecord } from './faults.ts';
export {
  CC_GRANULARITY,
  CC_INV,
  DESCRIPTORS,
  DEV_TLB_INV,
  IEC_INV,
  INV_DESC,
  INV_TYPE,
  IOTLB_GRANULARITY,
  IOTLB_INV,
  IQEI,
  PASID_CACHE_INV,
  PASID_IOTLB_INV,
  WAIT,
} from './commands.ts';
export {
  CONTEXT_ENTRY,
  CONTEXT_ENTRY_BYTES,
  FS_ENTRY,
  PASID_DIR_ENTRY,
  PASID_ENTRY,
  PASID_ENTRY_BYTES,
  PGTT,
  ROOT_ENTRY,
  ROOT_ENTRY_BYTES,
  SM_CONTEXT_ENTRY,
  SM_CONTEXT_ENTRY_BYTES,
  SM_ROOT_ENTRY,
  SS_ENTRY,
  TT,
  TTM,
} from './structures.ts';
export {
  CAP,
  CCMD,
  ECAP,
  EVENT_ADDR,
  EVENT_CTL,
  EVENT_DATA,
  FRCD,
  FSTS,
  GCMD,
  GSTS,
  ICS,
  IOTLB,
  IQA,
  IQERCD,
  IQH,
  IQT,
  IVA,
  OFFSET,
  PMEN,
  RTADDR,
  VER,
  parseCapabilities,
  registerBytes,
  registerMap,
} from './registers.ts';
export type { Capabilities } from './registers.ts';
