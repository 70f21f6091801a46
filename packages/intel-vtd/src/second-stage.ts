/**
 * The page table that a unit's second stage reads, by address-width code and capabilities.
 * VT-d specification revision 4.1, section 3.7; 9.3 field AW.
 */
import type { PageTableConfig, PageTableFormat } from '@iommu-ts/page-table';
import { VTD_SS_39, VTD_SS_48, VTD_SS_57 } from './formats.ts';
import type { Capabilities } from './registers.ts';

/** Format of a context or PASID entry's AW; null for a code that no supported width has. */
export const secondStageFormat = (aw: number): PageTableFormat | null =>
  aw === 1 ? VTD_SS_39 : aw === 2 ? VTD_SS_48 : aw === 3 ? VTD_SS_57 : null;

/** Page sizes of the second stage (CAP.SSLPS), as a bitmap. */
export const secondStagePageSizes = (caps: Capabilities): bigint =>
  0x1000n | (caps.pages2M ? 1n << 21n : 0n) | (caps.pages1G ? 1n << 30n : 0n);

/**
 * Configuration of a second-stage table of width code `aw` (1 … 3).
 * @param hostAddressWidth bits of a physical address (default: CAP.MGAW, at most 52)
 */
export const secondStageConfig = (caps: Capabilities, aw: number, hostAddressWidth?: number): PageTableConfig => ({
  format: secondStageFormat(aw) ?? VTD_SS_48,
  ias: Math.min(caps.mgaw, 12 + 9 * (aw + 2)),
  oas: hostAddressWidth ?? Math.min(52, caps.mgaw),
  pageSizes: secondStagePageSizes(caps),
  topLevel: aw + 1,
  incoherent: !caps.coherent,
});
