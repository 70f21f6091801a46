/**
 * Commands in the command buffer: 16 bytes each, opcode in bits 63:60.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, section 2.4 "Commands".
 */
import { bit, bits, maskWord } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';

/** Bytes of a command. */
export const COMMAND_BYTES = 16;

/** Opcodes by command name. */
export const COMMAND = {
  COMPLETION_WAIT: 0x1,
  INVALIDATE_DEVTAB_ENTRY: 0x2,
  INVALIDATE_IOMMU_PAGES: 0x3,
  INVALIDATE_IOTLB_PAGES: 0x4,
  INVALIDATE_INTERRUPT_TABLE: 0x5,
  PREFETCH_IOMMU_PAGES: 0x6,
  COMPLETE_PPR_REQUEST: 0x7,
  INVALIDATE_IOMMU_ALL: 0x8,
} as const;

/** Name of a command, as the specification prints it. */
export type CommandName = keyof typeof COMMAND;

const OPCODE = bits(63, 60, 'command opcode');

/** Fields of each command; what no field covers must be zero. */
export const COMMANDS = {
  COMPLETION_WAIT: {
    StoreData: bits(127, 64, 'written to StoreAddress when S=1'),
    Opcode: OPCODE,
    StoreAddress: bits(51, 3, 'physical address bits 51:3'),
    F: bit(2, 'flush the queue: later commands wait'),
    I: bit(1, 'set Status.ComWaitInt'),
    S: bit(0, 'store StoreData'),
  },
  INVALIDATE_DEVTAB_ENTRY: { Opcode: OPCODE, DeviceID: bits(15, 0, 'device') },
  INVALIDATE_IOMMU_PAGES: {
    Address: bits(127, 76, 'first 4 KiB page; with S=1 the ones from bit 12 up encode the size'),
    GN: bit(66, 'guest (1) or nested (0) address'),
    PDE: bit(65, 'cached page directory entries too'),
    S: bit(64, 'size: 0 is 4 KiB, 1 is encoded in Address'),
    Opcode: OPCODE,
    DomainID: bits(47, 32, 'domain'),
    PASID: bits(19, 0, 'with GN=1'),
  },
  INVALIDATE_IOTLB_PAGES: {
    Address: bits(127, 76, 'first 4 KiB page; with S=1 the ones from bit 12 up encode the size'),
    Type: bits(69, 68, 'with InvIotlbTypeSup'),
    GN: bit(66, 'guest (1) or nested (0) address'),
    S: bit(64, 'size: 0 is 4 KiB, 1 is encoded in Address'),
    Opcode: OPCODE,
    PASIDHi: bits(59, 48, 'PASID bits 19:8'),
    QueueID: bits(47, 32, 'queue of the device'),
    Maxpend: bits(31, 24, 'invalidations outstanding at most'),
    PASIDLo: bits(23, 16, 'PASID bits 7:0'),
    DeviceID: bits(15, 0, 'device'),
  },
  INVALIDATE_INTERRUPT_TABLE: { Opcode: OPCODE, DeviceID: bits(15, 0, 'device') },
  PREFETCH_IOMMU_PAGES: {
    Address: bits(127, 76, 'first 4 KiB page'),
    Inval: bit(68, 'drop what is cached first'),
    GN: bit(66, 'guest (1) or nested (0) address'),
    S: bit(64, 'size: 0 is 4 KiB, 1 is encoded in Address'),
    Opcode: OPCODE,
    PASID: bits(51, 32, 'with GN=1'),
    PFCount: bits(31, 24, 'pages to fetch'),
    DeviceID: bits(15, 0, 'device'),
  },
  COMPLETE_PPR_REQUEST: {
    CompletionTag: bits(111, 96, 'page request group'),
    GN: bit(66, 'guest (1) or nested (0) address'),
    Opcode: OPCODE,
    PASID: bits(51, 32, 'with GN=1'),
    DeviceID: bits(15, 0, 'device'),
  },
  INVALIDATE_IOMMU_ALL: { Opcode: OPCODE },
} as const satisfies Record<CommandName, Layout>;

/** Reserved bits of 32-bit word `word` (0 … 3) of a command with these fields, as int32. */
export const reservedWord = (layout: Layout, word: number): number => {
  let used = 0;
  for (const field of Object.values(layout)) used |= maskWord(field, word);
  return ~used;
};
