/**
 * Commands: RISC-V IOMMU Architecture Specification 1.0, section "Command-Queue (CQ)". A command is 16 bytes; bits are
 * counted over both doublewords, so bit 64 is bit 0 of the second.
 */
import { bit, bits } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';

/** Bytes of a command. */
export const COMMAND_BYTES = 16;

/** Values of `opcode`. */
export const OPCODE = { IOTINVAL: 1, IOFENCE: 2, IODIR: 3, ATS: 4 } as const;

/** Values of `func3`, by opcode. */
export const FUNC3 = {
  IOTINVAL: { VMA: 0, GVMA: 1 },
  IOFENCE: { C: 0 },
  IODIR: { INVAL_DDT: 0, INVAL_PDT: 1 },
  ATS: { INVAL: 0, PRGR: 1 },
} as const;

/** Page-table cache invalidation. */
export const IOTINVAL = {
  'ADDR[63:12]': bits(125, 74),
  S: bit(73, 'ADDR is a range (address range invalidation extension)'),
  GSCID: bits(59, 44),
  NL: bit(34, 'non-leaf entries too (non-leaf PTE invalidation extension)'),
  GV: bit(33, 'GSCID is valid'),
  PSCV: bit(32, 'PSCID is valid'),
  PSCID: bits(31, 12),
  AV: bit(10, 'ADDR is valid'),
  func3: bits(9, 7),
  opcode: bits(6, 0),
} as const satisfies Layout;

/** Command-queue fence. */
export const IOFENCE = {
  'ADDR[63:2]': bits(125, 64),
  DATA: bits(63, 32),
  PW: bit(13, 'previous writes are globally visible'),
  PR: bit(12, 'previous reads are globally visible'),
  WSI: bit(11, 'wired interrupt on completion'),
  AV: bit(10, 'DATA is written to ADDR'),
  func3: bits(9, 7),
  opcode: bits(6, 0),
} as const satisfies Layout;

/** Directory cache invalidation. */
export const IODIR = {
  DID: bits(63, 40, 'device_id'),
  DV: bit(33, 'DID is valid'),
  PID: bits(31, 12, 'process_id'),
  func3: bits(9, 7),
  opcode: bits(6, 0),
} as const satisfies Layout;

/** PCIe ATS messages. */
export const ATS = {
  PAYLOAD: bits(127, 64),
  DSEG: bits(63, 56),
  RID: bits(55, 40),
  DSV: bit(33),
  PV: bit(32),
  PID: bits(31, 12),
  func3: bits(9, 7),
  opcode: bits(6, 0),
} as const satisfies Layout;

/** Layout and name of a command by opcode and func3, for decoders; null for one that is not defined. */
export const commandOf = (opcode: number, func3: number): { name: string; layout: Layout } | null => {
  switch ((opcode << 3) | func3) {
    case (1 << 3) | 0:
      return { name: 'IOTINVAL.VMA', layout: IOTINVAL };
    case (1 << 3) | 1:
      return { name: 'IOTINVAL.GVMA', layout: IOTINVAL };
    case (2 << 3) | 0:
      return { name: 'IOFENCE.C', layout: IOFENCE };
    case (3 << 3) | 0:
      return { name: 'IODIR.INVAL_DDT', layout: IODIR };
    case (3 << 3) | 1:
      return { name: 'IODIR.INVAL_PDT', layout: IODIR };
    case (4 << 3) | 0:
      return { name: 'ATS.INVAL', layout: ATS };
    case (4 << 3) | 1:
      return { name: 'ATS.PRGR', layout: ATS };
    default:
      return null;
  }
};
