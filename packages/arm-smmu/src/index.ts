/**
 * `@iommu-ts/arm-smmu`: the Arm SMMUv3 (IHI 0070) on both sides of its registers. {@link SmmuV3} is the device,
 * {@link ArmSmmuDriver} what an operating system does with it, {@link createArmSmmuIommu} both with memory and a bus.
 * @packageDocumentation
 */
export { ABORT_SILENT, SmmuV3 } from './hardware/unit.ts';
export type { SmmuV3Options } from './hardware/unit.ts';
export { Capabilities } from './hardware/capabilities.ts';
export type { SmmuIds } from './hardware/capabilities.ts';
export { ArmSmmuDriver } from './driver/driver.ts';
export type { ArmSmmuDriverOptions } from './driver/driver.ts';
export type { CommandSender } from './driver/command-queue.ts';
export type { DomainOwner, SmmuDomainOps } from './driver/domain.ts';
export type { StreamInvalidation } from './driver/stream-table.ts';
export { createArmSmmuIommu } from './system.ts';
export type { ArmSmmuSystem, ArmSmmuSystemOptions } from './system.ts';
export { PRESETS, presetIds } from './presets.ts';
export type { PresetName } from './presets.ts';
export { inspectStream } from './inspect.ts';
export {
  AIDR,
  CMDQ_CONS,
  CMDQ_PROD,
  CR0,
  CR1,
  CR2,
  EVENTQ_CONS,
  EVENTQ_PROD,
  GBPA,
  GERROR,
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  IIDR,
  IRQ_CFG0,
  IRQ_CFG1,
  IRQ_CFG2,
  IRQ_CTRL,
  QUEUE_BASE,
  REG,
  REGISTERS,
  REGISTER_BYTES,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
} from './registers.ts';
export {
  ADDRESS_SIZES,
  CD,
  CD_BYTES,
  L1CD,
  L1CD_BYTES,
  L1STD,
  L1STD_BYTES,
  STE,
  STE_BYTES,
  STE_CONFIG,
} from './structures.ts';
export {
  CERROR,
  CFGI_CD,
  CFGI_STE,
  CFGI_STE_RANGE,
  CMD,
  CMD_SYNC,
  COMMAND,
  PREFETCH,
  SYNC_CS,
  TLBI,
  TLBI_TG,
  commandLayout,
  decodeCommand,
} from './commands.ts';
export { CLASS, EVENT, EVENT_BYTES, EVENT_RECORD, decodeEvent, eventName } from './faults.ts';
export { ARM_S1_16K, ARM_S1_4K, ARM_S1_64K, ARM_S2_16K, ARM_S2_4K, ARM_S2_64K, goldenConfig } from './formats.ts';
