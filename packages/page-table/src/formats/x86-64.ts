/**
 * x86-64 paging as an IOMMU's first stage: Intel VT-d (Architecture Specification, 9.7 First-Stage Paging Entries) and
 * AMD-Vi's guest or v2 table (AMD64 Architecture Programmer's Manual Vol. 2, 5.3). The bits are one and the same.
 */
import { bit, bits } from '@iommu-ts/bits';
import type { TableGeometry } from '../config.ts';
import { RULES_GENERIC_PT, defineFormat } from '../format.ts';
import type { FormatSpec } from '../format.ts';
import { PROT } from '../prot.ts';

const PS = bit(7, 'page size: a leaf above level 0');
const OA = bits(51, 12, 'address of the page or of the next table');

const base: Omit<FormatSpec, 'name' | 'maxTopLevel' | 'topLevel'> = {
  spec: 'Intel VT-d 9.7; AMD APM Vol. 2 5.3',
  rules: RULES_GENERIC_PT,
  granuleLg2: 12,
  signExtend: true,
  sizes: [{ lg2: 12 }, { lg2: 21 }, { lg2: 30 }],
  leafLayout: {
    XD: bit(63, 'execute disable'),
    OA,
    SW: bits(11, 9, 'ignored by hardware'),
    G: bit(8, 'global'),
    PS,
    D: bit(6, 'dirty'),
    A: bit(5, 'accessed'),
    PCD: bit(4, 'page-level cache disable'),
    PWT: bit(3, 'page-level write-through'),
    US: bit(2, 'user'),
    RW: bit(1, 'writes allowed'),
    P: bit(0, 'present'),
  },
  tableLayout: {
    XD: bit(63, 'execute disable'),
    OA,
    SW: bits(11, 9, 'ignored by hardware; Linux marks a flushed entry in bit 9'),
    PS,
    A: bit(5, 'accessed'),
    PCD: bit(4, 'page-level cache disable'),
    PWT: bit(3, 'page-level write-through'),
    US: bit(2, 'user'),
    RW: bit(1, 'writes allowed'),
    P: bit(0, 'present'),
  },
  oa: OA,
  maxOas: 52,
  present: bit(0),
  tableType: { field: PS, value: 0 },
  tableBits: [
    { field: 'P', value: 1 },
    { field: 'RW', value: 1 },
    { field: 'US', value: 1 },
    { field: 'A', value: 1 },
    { field: 'SW', value: 1, feature: 'incoherent' },
  ],
  blockBits: [{ field: 'PS', value: 1 }],
  // A, and D where writes are allowed, are set beforehand so that hardware need not write the entry.
  attributes: [
    { field: 'P', value: 1 },
    { field: 'US', value: 1 },
    { field: 'A', value: 1 },
    { field: 'RW', value: 1, when: PROT.WRITE },
    { field: 'D', value: 1, when: PROT.WRITE },
  ],
  write: { field: 'RW', value: 1 },
  exec: { field: 'XD', value: 0 },
  hw: (table: TableGeometry) => ({ gcr3_pt: table.root, levels: table.levels }),
};

/** Four levels: 48 bits of IOVA, sign-extended. */
export const X86_64_4LEVEL = /* @__PURE__ */ defineFormat({
  ...base,
  name: 'x86-64-4level',
  maxTopLevel: 3,
  topLevel: 3,
});

/** Five levels: 57 bits of IOVA, sign-extended. */
export const X86_64_5LEVEL = /* @__PURE__ */ defineFormat({
  ...base,
  name: 'x86-64-5level',
  maxTopLevel: 4,
  topLevel: 4,
});

/** AMD v2, four levels: 47 bits of IOVA; Linux gives the top bit up instead of sign-extending. */
export const X86_64_AMD_4LEVEL = /* @__PURE__ */ defineFormat({
  ...base,
  name: 'x86-64-amd-4level',
  signExtend: false,
  maxTopLevel: 3,
  topLevel: 3,
});

/** AMD v2, five levels: 56 bits of IOVA, not sign-extended. */
export const X86_64_AMD_5LEVEL = /* @__PURE__ */ defineFormat({
  ...base,
  name: 'x86-64-amd-5level',
  signExtend: false,
  maxTopLevel: 4,
  topLevel: 4,
});
