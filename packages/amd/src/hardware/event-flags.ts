/**
 * Bits of an event's upper word, in place.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, section 2.5 "Event Logging".
 */
import { maskWord } from '@iommu-ts/bits';
import type { Field } from '@iommu-ts/bits';
import { ACCESS } from '@iommu-ts/iommu-core';
import { EVENTS, HARDWARE_ERROR } from '../faults.ts';

const eventBit = (field: Field): number => maskWord(field, 1);
const FLAG_TYPE_SHIFT = EVENTS.DEV_TAB_HARDWARE_ERROR.Type.lsb - 32;
export const FLAG_RZ = eventBit(EVENTS.IO_PAGE_FAULT.RZ);
export const FLAG_PE = eventBit(EVENTS.IO_PAGE_FAULT.PE);
const FLAG_RW = eventBit(EVENTS.IO_PAGE_FAULT.RW);
export const FLAG_PR = eventBit(EVENTS.IO_PAGE_FAULT.PR);
export const FLAG_GN = eventBit(EVENTS.IO_PAGE_FAULT.GN);
export const MASTER_ABORT = HARDWARE_ERROR.MASTER_ABORT << FLAG_TYPE_SHIFT;

/** RW of an access, in place. */
export const rw = (access: number): number => ((access & ACCESS.WRITE) !== 0 ? FLAG_RW : 0);
