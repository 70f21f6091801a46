/**
 * `@iommu-ts/apple-dart`: Apple's DART (Device Address Resolution Table), emulated on both sides of the register interface.
 *
 * {@link createAppleDart} makes a DART with memory, driver and bus; {@link AppleDart} is the bare device,
 * {@link AppleDartDriver} the driver that programs it through its registers. Register, entry and fault layouts are data.
 * @packageDocumentation
 */
export { createAppleDart } from './system.ts';
export type { AppleDartSystem, CreateAppleDartOptions } from './system.ts';
export { AppleDart } from './hardware/unit.ts';
export type { AppleDartOptions } from './hardware/unit.ts';
export { AppleDartDriver } from './driver/driver.ts';
export type { AppleDartDriverOptions } from './driver/driver.ts';
export { DART_PARTS, paramsOf, resolvePart } from './parts.ts';
export type { DartPart, DartPartOptions, DartPreset } from './parts.ts';
export { inspect } from './inspect.ts';
export type { Register } from './inspect.ts';
export {
  PARAMS1,
  PARAMS2,
  PARAMS3,
  PARAMS4,
  PROTECT,
  REGISTER_BLOCK_BYTES,
  STREAM_COMMAND,
  T8020_CONFIG,
  T8020_ERROR,
  T8020_REGISTERS,
  T8020_REMAP,
  T8020_TCR,
  T8020_TTBR,
  T8110_ERROR,
  T8110_REGISTERS,
  T8110_TCR,
  T8110_TTBR,
  TLB_CMD,
} from './registers.ts';
export type { DartField, DartLayout, DartRegister, DartRegisterMap, Source } from './registers.ts';
export { DART1_PTE, DART2_PTE } from './structures.ts';
export type { PteVersion } from './structures.ts';
export { STREAM_COMMANDS, TLB_OPS, tlbFlushSid } from './commands.ts';
export { codeOfError, decodeError, nameOfError } from './faults.ts';
export type { Generation } from './faults.ts';
export { DART_V1_16K, DART_V1_4K, DART_V2_16K, goldenConfig } from './formats.ts';
export { formatName, tableConfig } from './driver/table-config.ts';
