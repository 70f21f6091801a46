/**
 * `@iommu-ts/amd`: the AMD IOMMU (AMD-Vi), emulated on both sides of the register interface: the hardware behind its
 * registers and in-memory structures, and the driver that an operating system would run.
 * @packageDocumentation
 */
export { createAmdIommu } from './system.ts';
export type { AmdSystem, CreateAmdIommuOptions } from './system.ts';
export { AMD_PRESETS, AmdIommu } from './hardware/unit.ts';
export type { AmdIommuOptions, AmdPreset } from './hardware/unit.ts';
export { AmdDriver } from './driver/driver.ts';
export type { AmdDriverOptions } from './driver/driver.ts';
export {
  ComBaseAddr,
  Control,
  DevTabBaseAddr,
  DevTabSegBaseAddr,
  EventBaseAddr,
  ExclusionBase,
  ExclusionLimit,
  ExtFeature,
  MsiCapHeader,
  QueuePointer,
  REGISTERS,
  REGISTER_BLOCK_SIZE,
  Status,
  registerMap,
} from './registers.ts';
export type { RegisterFeatures } from './registers.ts';
export { DTE, DTE_BYTES, HT_RANGE, INTERRUPT_RANGE, INT_CTL, PDE, PTE, widthOfMode } from './structures.ts';
export { COMMAND, COMMANDS, COMMAND_BYTES } from './commands.ts';
export type { CommandName } from './commands.ts';
export { EVENT, EVENTS, EVENT_BYTES, HARDWARE_ERROR, INVALID_REQUEST, decodeEvent, eventName } from './faults.ts';
export type { EventName } from './faults.ts';
export { AMD_V1, AMD_V2_47, AMD_V2_56, goldenConfig } from './formats.ts';
export { inspect } from './inspect.ts';
