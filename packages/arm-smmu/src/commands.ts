/** Commands of the command queue, 16 bytes each (Arm IHI 0070, chapter 4). Bits 127:64 are the second word. */
import { bit, bits, decode, join64 } from '@iommu-ts/bits';
import type { Field, Layout } from '@iommu-ts/bits';

/** Opcodes (4.1.1). CMD_CFGI_ALL is CFGI_STE_RANGE with Range 31. */
export const CMD = {
  PREFETCH_CONFIG: 0x01,
  PREFETCH_ADDR: 0x02,
  CFGI_STE: 0x03,
  CFGI_STE_RANGE: 0x04,
  CFGI_CD: 0x05,
  CFGI_CD_ALL: 0x06,
  CFGI_VMS_PIDM: 0x07,
  TLBI_NH_ALL: 0x10,
  TLBI_NH_ASID: 0x11,
  TLBI_NH_VA: 0x12,
  TLBI_NH_VAA: 0x13,
  TLBI_EL3_ALL: 0x18,
  TLBI_EL3_VA: 0x1a,
  TLBI_EL2_ALL: 0x20,
  TLBI_EL2_ASID: 0x21,
  TLBI_EL2_VA: 0x22,
  TLBI_EL2_VAA: 0x23,
  TLBI_S12_VMALL: 0x28,
  TLBI_S2_IPA: 0x2a,
  TLBI_NSNH_ALL: 0x30,
  ATC_INV: 0x40,
  PRI_RESP: 0x41,
  RESUME: 0x44,
  STALL_TERM: 0x45,
  SYNC: 0x46,
} as const;

const OPCODE = bits(7, 0);
const CFGI = { SSec: bit(10), OPCODE } as const satisfies Layout;

/** Fields common to all commands. */
export const COMMAND = CFGI;

/** CMD_PREFETCH_CONFIG and CMD_PREFETCH_ADDR (4.2). */
export const PREFETCH = {
  Address: bits(127, 76, 'VA bits 63:12, PREFETCH_ADDR only'),
  StreamID: bits(63, 32),
  SubstreamID: bits(31, 12),
  SSV: bit(11),
  SSec: bit(10),
  OPCODE,
} as const satisfies Layout;

/** CMD_CFGI_STE (4.3.1). */
export const CFGI_STE = { Leaf: bit(64), StreamID: bits(63, 32), SSec: bit(10), OPCODE } as const satisfies Layout;

/** CMD_CFGI_STE_RANGE (4.3.2): 2^(Range+1) streams; Range 31 is CMD_CFGI_ALL. */
export const CFGI_STE_RANGE = {
  Range: bits(68, 64),
  StreamID: bits(63, 32),
  SSec: bit(10),
  OPCODE,
} as const satisfies Layout;

/** CMD_CFGI_CD and CMD_CFGI_CD_ALL (4.3.3, 4.3.4). */
export const CFGI_CD = {
  Leaf: bit(64),
  StreamID: bits(63, 32),
  SubstreamID: bits(31, 12),
  SSec: bit(10),
  OPCODE,
} as const satisfies Layout;

/** CMD_TLBI_… (4.4); NUM, SCALE, TTL and TG with IDR3.RIL only. */
export const TLBI = {
  Address: bits(127, 76, 'VA or IPA bits 63:12'),
  TG: bits(75, 74, '0 one address; 1 4K, 2 16K, 3 64K: a range'),
  TTL: bits(73, 72, 'level of the leaf entries, 0: any'),
  Leaf: bit(64, 'only last-level entries'),
  ASID: bits(63, 48),
  VMID: bits(47, 32),
  SCALE: bits(24, 20),
  NUM: bits(16, 12),
  OPCODE,
} as const satisfies Layout;

/** CMD_SYNC (4.7.3). */
export const CMD_SYNC = {
  MSIAddress: bits(119, 66, 'address bits 55:2; 0: no MSI'),
  MSIData: bits(63, 32),
  MSIAttr: bits(27, 24),
  MSH: bits(23, 22),
  CS: bits(13, 12, 'signal: 0 none, 1 interrupt, 2 WFE event'),
  OPCODE,
} as const satisfies Layout;

/** CMD_SYNC.CS. */
export const SYNC_CS = { NONE: 0, IRQ: 1, SEV: 2 } as const;

/** TLBI.TG by granule size. */
export const TLBI_TG: Readonly<Record<number, number>> = { 12: 1, 14: 2, 16: 3 };

/** Errors in SMMU_CMDQ_CONS.ERR (7.1). */
export const CERROR = { NONE: 0, ILL: 1, ABT: 2, ATC_INV_SYNC: 3 } as const;

const NAMES: ReadonlyMap<number, string> = new Map(Object.entries(CMD).map(([name, code]) => [code, `CMD_${name}`]));

/** Layout of a command by opcode. */
export const commandLayout = (opcode: number): Readonly<Record<string, Field>> => {
  switch (opcode) {
    case CMD.PREFETCH_CONFIG:
    case CMD.PREFETCH_ADDR:
      return PREFETCH;
    case CMD.CFGI_STE:
      return CFGI_STE;
    case CMD.CFGI_STE_RANGE:
      return CFGI_STE_RANGE;
    case CMD.CFGI_CD:
    case CMD.CFGI_CD_ALL:
      return CFGI_CD;
    case CMD.SYNC:
      return CMD_SYNC;
    default:
      return opcode >= CMD.TLBI_NH_ALL && opcode <= CMD.TLBI_NSNH_ALL ? TLBI : COMMAND;
  }
};

/** Name and fields of a command, for people and tools. `words` are the four 32-bit words, lowest address first. */
export const decodeCommand = (words: ArrayLike<number>): { name: string; fields: Readonly<Record<string, bigint>> } => {
  const value = (join64(words[3]!, words[2]!) << 64n) | join64(words[1]!, words[0]!);
  const opcode = words[0]! & 0xff;
  const all = opcode === CMD.CFGI_STE_RANGE && (words[2]! & 0x1f) === 31;
  const name = all ? 'CMD_CFGI_ALL' : (NAMES.get(opcode) ?? `opcode 0x${opcode.toString(16)}`);
  return { name, fields: decode(commandLayout(opcode), value) };
};
