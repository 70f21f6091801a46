/**
 * Faults: RISC-V IOMMU Architecture Specification 1.0, section "Fault/Event-Queue (FQ)".
 * A record is 32 bytes; bits are counted over its four doublewords.
 */
import { bit, bits, hex } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';
import type { FaultEvent } from '@iommu-ts/iommu-core';

/** Bytes of a fault record. */
export const FAULT_RECORD_BYTES = 32;

/** A fault record. */
export const FAULT_RECORD = {
  iotval2: bits(255, 192, 'guest-page fault: GPA[63:2], bit 0 implicit access, bit 1 that access was a write'),
  iotval: bits(191, 128, 'IOVA'),
  custom: bits(95, 64),
  DID: bits(63, 40, 'device_id'),
  TTYP: bits(39, 34, 'transaction type'),
  PRIV: bit(33, 'supervisor privilege'),
  PV: bit(32, 'PID is valid'),
  PID: bits(31, 12, 'process_id'),
  CAUSE: bits(11, 0),
} as const satisfies Layout;

/** A cause: its number is the key of {@link CAUSES}. */
export interface Cause {
  /** The specification's description. */
  readonly name: string;
  /** Reported although `DC.tc.DTF` is 1. */
  readonly withDtf: boolean;
  /** What to look at, for people. */
  readonly meaning: string;
}

const cause = (name: string, withDtf: boolean, meaning: string): Cause => ({ name, withDtf, meaning });

/** All causes that the specification defines. */
export const CAUSES: Readonly<Record<number, Cause>> = {
  1: cause('Instruction access fault', false, 'a page table or the target lies where no memory answers'),
  4: cause('Read address misaligned', false, 'the access is misaligned'),
  5: cause('Read access fault', false, 'a page table or the target lies where no memory answers'),
  6: cause('Write/AMO address misaligned', false, 'the access is misaligned'),
  7: cause('Write/AMO access fault', false, 'a page table or the target lies where no memory answers'),
  12: cause('Instruction page fault', false, 'the first stage does not map the IOVA for execution'),
  13: cause('Read page fault', false, 'the first stage does not map the IOVA for reading'),
  15: cause('Write/AMO page fault', false, 'the first stage does not map the IOVA for writing'),
  20: cause('Instruction guest page fault', false, 'the second stage does not map the GPA for execution'),
  21: cause('Read guest-page fault', false, 'the second stage does not map the GPA for reading'),
  23: cause('Write/AMO guest-page fault', false, 'the second stage does not map the GPA for writing'),
  256: cause('All inbound transactions disallowed', true, 'ddtp.iommu_mode is Off'),
  257: cause('DDT entry load access fault', true, 'the device directory lies where no memory answers'),
  258: cause('DDT entry not valid', true, 'the device has no device context'),
  259: cause('DDT entry misconfigured', true, 'a reserved bit or an unsupported setting in the device directory'),
  260: cause('Transaction type disallowed', false, 'the device_id, process_id, privilege or type is not allowed here'),
  261: cause('MSI PTE load access fault', false, 'the MSI page table lies where no memory answers'),
  262: cause('MSI PTE not valid', false, 'no MSI PTE for this interrupt file'),
  263: cause('MSI PTE misconfigured', false, 'a reserved bit or mode in the MSI PTE'),
  264: cause('MRIF access fault', false, 'the memory-resident interrupt file lies where no memory answers'),
  265: cause('PDT entry load access fault', false, 'the process directory lies where no memory answers'),
  266: cause('PDT entry not valid', false, 'the process has no process context'),
  267: cause('PDT entry misconfigured', false, 'a reserved bit or an unsupported setting in the process directory'),
  268: cause('DDT data corruption', true, 'poisoned data in the device directory'),
  269: cause('PDT data corruption', false, 'poisoned data in the process directory'),
  270: cause('MSI PT data corruption', false, 'poisoned data in the MSI page table'),
  271: cause('MSI MRIF data corruption', false, 'poisoned data in a memory-resident interrupt file'),
  272: cause('Internal data path error', true, 'the IOMMU itself failed'),
  273: cause(
    'IOMMU MSI write access fault',
    true,
    'an interrupt message of the IOMMU went nowhere; iotval is its address',
  ),
  274: cause('First/second-stage PT data corruption', false, 'poisoned data in a page table'),
};

/** Numbers of the causes that this implementation raises, by a short name. */
export const CAUSE = {
  INSTRUCTION_ACCESS_FAULT: 1,
  READ_ACCESS_FAULT: 5,
  WRITE_ACCESS_FAULT: 7,
  INSTRUCTION_PAGE_FAULT: 12,
  READ_PAGE_FAULT: 13,
  WRITE_PAGE_FAULT: 15,
  INSTRUCTION_GUEST_PAGE_FAULT: 20,
  READ_GUEST_PAGE_FAULT: 21,
  WRITE_GUEST_PAGE_FAULT: 23,
  ALL_INBOUND_DISALLOWED: 256,
  DDT_LOAD_ACCESS_FAULT: 257,
  DDT_NOT_VALID: 258,
  DDT_MISCONFIGURED: 259,
  TTYPE_DISALLOWED: 260,
  MSI_PTE_LOAD_ACCESS_FAULT: 261,
  MSI_PTE_NOT_VALID: 262,
  MSI_PTE_MISCONFIGURED: 263,
  MRIF_ACCESS_FAULT: 264,
  PDT_LOAD_ACCESS_FAULT: 265,
  PDT_NOT_VALID: 266,
  PDT_MISCONFIGURED: 267,
  MSI_WRITE_ACCESS_FAULT: 273,
} as const;

/** Values of `TTYP` and their names. */
export const TTYP = { NONE: 0, EXEC: 1, READ: 2, WRITE: 3, TRANSLATED_READ: 6, TRANSLATED_WRITE: 7 } as const;
const TTYP_NAMES: Readonly<Record<number, string>> = {
  0: 'none',
  1: 'untranslated read for execute',
  2: 'untranslated read',
  3: 'untranslated write/AMO',
  5: 'translated read for execute',
  6: 'translated read',
  7: 'translated write/AMO',
  8: 'PCIe ATS translation request',
  9: 'PCIe message request',
};

const isGuestPageFault = (code: number): boolean => code === 20 || code === 21 || code === 23;

/** Decodes a fault record from its four doublewords, lowest address first. */
export const decodeFault = (raw: readonly bigint[]): FaultEvent => {
  const [w0 = 0n, , iotval = 0n, iotval2 = 0n] = raw;
  const code = Number(w0 & 0xfffn);
  const ttyp = Number((w0 >> 34n) & 0x3fn);
  const did = Number(w0 >> 40n);
  const pv = (w0 >> 32n) & 1n;
  const pid = Number((w0 >> 12n) & 0xf_ffffn);
  const known = CAUSES[code];
  const name = known?.name ?? `cause ${code}`;
  const access =
    ttyp === 3 || ttyp === 7 ? 'write' : ttyp === 1 || ttyp === 2 || ttyp === 5 || ttyp === 6 ? 'read' : 'unknown';
  const guest = isGuestPageFault(code)
    ? `, GPA ${hex(iotval2 & ~3n)}${(iotval2 & 1n) !== 0n ? ' (implicit access)' : ''}`
    : '';
  const who = ttyp === 0 ? '' : ` of device ${hex(did)}${pv === 1n ? ` process ${hex(pid)}` : ''}`;
  return {
    name,
    code,
    requester: ttyp === 0 ? -1 : did,
    pasid: pv === 1n ? pid : -1,
    iova: iotval,
    access,
    fields: {
      CAUSE: code,
      PID: pid,
      PV: pv,
      PRIV: (w0 >> 33n) & 1n,
      TTYP: ttyp,
      DID: did,
      iotval,
      iotval2,
    },
    raw: [...raw],
    text: `${name}: ${TTYP_NAMES[ttyp] ?? `TTYP ${ttyp}`}${who} at ${hex(iotval)}${guest}: ${known?.meaning ?? 'a cause that the specification does not define'}`,
  };
};
