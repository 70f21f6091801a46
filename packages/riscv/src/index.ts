/**
 * `@iommu-ts/riscv`: the RISC-V IOMMU (Architecture Specification 1.0), emulated on both sides of its registers: the hardware,
 * and a driver for it.
 * @packageDocumentation
 */
export { createRiscvIommu } from './create.ts';
export type { CreateRiscvIommuOptions, RiscvIommuPreset, RiscvIommuSystem } from './create.ts';
export { RiscvIommuHardware } from './hardware/unit.ts';
export { DEFAULT_CAPABILITIES } from './hardware/features.ts';
export type { Features, RiscvIommuHardwareOptions } from './hardware/features.ts';
export type { AtsMessage } from './hardware/queues.ts';
export { RiscvIommuDriver } from './driver/driver.ts';
export type { RiscvIommuDriverOptions } from './driver/driver.ts';
export { inspectDevice } from './inspect.ts';
export * as registers from './registers.ts';
export * as structures from './structures.ts';
export * as commands from './commands.ts';
export { CAUSE, CAUSES, FAULT_RECORD, FAULT_RECORD_BYTES, TTYP, decodeFault } from './faults.ts';
export type { Cause } from './faults.ts';
export { SV39, SV39X4, SV48, SV48X4, SV57, SV57X4, goldenConfig } from './formats.ts';
