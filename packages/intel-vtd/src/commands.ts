/**
 * Invalidation descriptors of the invalidation queue.
 * VT-d specification revision 4.1, section 6.5.2 "Queued Invalidation Interface". 128 bits each (256 with IQA.DW, the upper
 * half zero). Bits of the second word count on from 64.
 */
import { bit, bits } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';

/** Descriptor types, bits 11:9 and 3:0. */
export const INV_TYPE = {
  CC_INV: 1,
  IOTLB_INV: 2,
  DEV_TLB_INV: 3,
  IEC_INV: 4,
  WAIT: 5,
  PASID_IOTLB_INV: 6,
  PASID_CACHE_INV: 7,
  PASID_DEV_TLB_INV: 8,
} as const;

/** Where the type of any descriptor stands. */
export const INV_DESC = {
  TYPE_HI: bits(11, 9, 'type, high bits'),
  TYPE: bits(3, 0, 'type'),
} as const satisfies Layout;

/** Granularities of CC_INV (as CCMD.CIRG). */
export const CC_GRANULARITY = { GLOBAL: 1, DOMAIN: 2, DEVICE: 3 } as const;
/** Granularities of IOTLB_INV (as IOTLB.IIRG). */
export const IOTLB_GRANULARITY = { GLOBAL: 1, DOMAIN: 2, PAGE: 3 } as const;

/** Context-cache invalidate. */
export const CC_INV = {
  FM: bits(49, 48, 'function mask'),
  SID: bits(47, 32, 'source-id'),
  DID: bits(31, 16, 'domain-id'),
  TYPE_HI: bits(11, 9, '0'),
  G: bits(5, 4, 'granularity: 1 global, 2 domain, 3 device'),
  TYPE: bits(3, 0, '1'),
} as const satisfies Layout;

/** IOTLB invalidate. */
export const IOTLB_INV = {
  ADDR: bits(127, 76, 'address'),
  IH: bit(70, 'invalidation hint: only leaf entries changed'),
  AM: bits(69, 64, 'address mask: 2^AM pages'),
  DID: bits(31, 16, 'domain-id'),
  TYPE_HI: bits(11, 9, '0'),
  DR: bit(7, 'drain reads'),
  DW: bit(6, 'drain writes'),
  G: bits(5, 4, 'granularity: 1 global, 2 domain, 3 page'),
  TYPE: bits(3, 0, '2'),
} as const satisfies Layout;

/** Device-TLB invalidate. */
export const DEV_TLB_INV = {
  ADDR: bits(127, 76, 'address'),
  S: bit(64, 'size: the lowest zero bit of ADDR tells'),
  PFSID_HI: bits(63, 52, 'physical function, high bits'),
  SID: bits(47, 32, 'source-id'),
  MIP: bits(20, 16, 'maximum invalidations pending'),
  PFSID_LO: bits(15, 12, 'physical function, low bits'),
  TYPE_HI: bits(11, 9, '0'),
  TYPE: bits(3, 0, '3'),
} as const satisfies Layout;

/** Interrupt entry cache invalidate. */
export const IEC_INV = {
  IIDX: bits(47, 32, 'interrupt index'),
  IM: bits(31, 27, 'index mask'),
  TYPE_HI: bits(11, 9, '0'),
  G: bit(4, 'granularity: 0 global, 1 index'),
  TYPE: bits(3, 0, '4'),
} as const satisfies Layout;

/** Invalidation wait. */
export const WAIT = {
  STADDR: bits(127, 66, 'status address'),
  STDATA: bits(63, 32, 'status data'),
  TYPE_HI: bits(11, 9, '0'),
  PD: bit(7, 'page-request drain'),
  FN: bit(6, 'fence'),
  SW: bit(5, 'status write'),
  IF: bit(4, 'interrupt'),
  TYPE: bits(3, 0, '5'),
} as const satisfies Layout;

/** PASID-based IOTLB invalidate (scalable mode). */
export const PASID_IOTLB_INV = {
  ADDR: bits(127, 76, 'address'),
  IH: bit(70, 'invalidation hint'),
  AM: bits(69, 64, 'address mask: 2^AM pages'),
  PASID: bits(51, 32, 'PASID'),
  DID: bits(31, 16, 'domain-id'),
  TYPE_HI: bits(11, 9, '0'),
  G: bits(5, 4, 'granularity: 2 PASID, 3 page'),
  TYPE: bits(3, 0, '6'),
} as const satisfies Layout;

/** PASID-cache invalidate (scalable mode). */
export const PASID_CACHE_INV = {
  PASID: bits(51, 32, 'PASID'),
  DID: bits(31, 16, 'domain-id'),
  TYPE_HI: bits(11, 9, '0'),
  G: bits(5, 4, 'granularity: 0 domain, 1 PASID, 3 global'),
  TYPE: bits(3, 0, '7'),
} as const satisfies Layout;

/** Descriptors by name, for decoders. */
export const DESCRIPTORS = {
  CC_INV,
  IOTLB_INV,
  DEV_TLB_INV,
  IEC_INV,
  WAIT,
  PASID_IOTLB_INV,
  PASID_CACHE_INV,
} as const satisfies Readonly<Record<string, Layout>>;

/** IQERCD.IQEI: why the queue stopped. */
export const IQEI = {
  NOT_AVAILABLE: 0,
  INVALID_TAIL: 1,
  FETCH_ERROR: 2,
  INVALID_TYPE: 3,
  RESERVED_FIELD: 4,
  INVALID_WIDTH: 5,
  TAIL_MISALIGNED: 6,
  INVALID_TTM: 7,
} as const;
