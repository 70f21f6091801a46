/**
 * Reads a requester's configuration out of a dump, as hardware would: root table, context table, page table.
 * VT-d specification revision 4.1, chapter 9. Nothing throws for what the dump holds.
 */
import { decode, extract, hex, hi32, lo32 } from '@iommu-ts/bits';
import type { DeviceConfig } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { FAULT_REASONS } from './faults.ts';
import { VTD_FS_48, VTD_FS_57 } from './formats.ts';
import { GSTS, RTADDR, parseCapabilities } from './registers.ts';
import type { Capabilities } from './registers.ts';
import { secondStageFormat } from './second-stage.ts';
import {
  CONTEXT_ENTRY,
  CONTEXT_ENTRY_BYTES,
  PASID_DIR_ENTRY,
  PASID_ENTRY,
  PASID_ENTRY_BYTES,
  PGTT,
  ROOT_ENTRY,
  ROOT_ENTRY_BYTES,
  SM_CONTEXT_ENTRY,
  SM_CONTEXT_ENTRY_BYTES,
  SM_ROOT_ENTRY,
  TT,
  TTM,
} from './structures.ts';

type Details = Record<string, string>;

/** `count` 64-bit words as one value, lowest first; null when nothing answers. */
const load = (memory: PhysicalMemory, address: bigint, count: number): bigint | null => {
  let value = 0n;
  for (let i = 0; i < count; i++) {
    const at = BigInt.asUintN(64, address + BigInt(8 * i));
    if (!memory.load64(hi32(at), lo32(at))) return null;
    value |= BigInt.asUintN(32, BigInt(memory.lo)) << BigInt(64 * i);
    value |= BigInt.asUintN(32, BigInt(memory.hi)) << BigInt(64 * i + 32);
  }
  return value;
};

const invalid = (code: number, details: Details): DeviceConfig => {
  const reason = FAULT_REASONS[code];
  return { kind: 'invalid', reason: reason === undefined ? hex(code) : `${reason.name}: ${reason.text}`, details };
};

const paging = (
  name: string,
  caps: Capabilities,
  aw: number,
  root: bigint,
  domainId: number,
  details: Details,
): DeviceConfig | null => {
  const format = secondStageFormat(aw);
  if (format === null) return null;
  const ias = 12 + 9 * (aw + 2);
  const config = { format, ias, oas: 52, topLevel: aw + 1, incoherent: !caps.coherent };
  return { kind: 'paging', domainId, tables: [{ name, config, root }], details };
};

/**
 * What root and context (or PASID) entries say of requester `requester`.
 * @param register value of a register by its name; `RTADDR` is needed, `CAP`, `ECAP` and `GSTS` are used where known
 */
export const inspectRequester = (
  memory: PhysicalMemory,
  register: (name: string) => bigint | undefined,
  requester: number,
): DeviceConfig => {
  const details: Details = {};
  const gsts = register('GSTS');
  if (gsts !== undefined && extract(gsts, GSTS.TES) === 0n) {
    return { kind: 'identity', reason: 'translation is off (GSTS.TES)', details };
  }
  const rtaddr = register('RTADDR');
  if (rtaddr === undefined) return { kind: 'invalid', reason: 'register RTADDR is not known', details };
  const caps = parseCapabilities(register('CAP') ?? 0n, register('ECAP') ?? 0n);
  const { RTA, TTM: mode } = decode(RTADDR, rtaddr);
  details['rootTable'] = hex(RTA << 12n);
  if (Number(mode) === TTM.SCALABLE) return scalable(memory, caps, RTA << 12n, requester, details);
  if (Number(mode) !== TTM.LEGACY) return invalid(0x30, details);
  const root = load(memory, (RTA << 12n) + BigInt((requester >> 8) * ROOT_ENTRY_BYTES), 2);
  if (root === null) return invalid(0x08, details);
  details['root'] = hex(root);
  const rootFields = decode(ROOT_ENTRY, root);
  if (rootFields.P === 0n) return invalid(0x01, details);
  const entry = load(memory, (rootFields.CTP << 12n) + BigInt((requester & 0xff) * CONTEXT_ENTRY_BYTES), 2);
  if (entry === null) return invalid(0x09, details);
  const context = decode(CONTEXT_ENTRY, entry);
  details['context'] = hex(entry);
  for (const [name, value] of Object.entries(context)) details[name] = hex(value);
  if (context.P === 0n) return invalid(0x02, details);
  const domainId = Number(context.DID);
  if (Number(context.TT) === TT.PASS_THROUGH) return { kind: 'identity', domainId, details };
  if (Number(context.TT) === 3) return invalid(0x03, details);
  const table = paging('second stage', caps, Number(context.AW), context.SSPTPTR << 12n, domainId, details);
  return table ?? invalid(0x03, details);
};

const scalable = (
  memory: PhysicalMemory,
  caps: Capabilities,
  rootTable: bigint,
  requester: number,
  details: Details,
): DeviceConfig => {
  const root = load(memory, rootTable + BigInt((requester >> 8) * ROOT_ENTRY_BYTES), 2);
  if (root === null) return invalid(0x38, details);
  details['root'] = hex(root);
  const halves = decode(SM_ROOT_ENTRY, root);
  const upper = (requester & 0x80) !== 0;
  if ((upper ? halves.UP : halves.LP) === 0n) return invalid(0x39, details);
  const tableAddress = (upper ? halves.UCTP : halves.LCTP) << 12n;
  const entry = load(memory, tableAddress + BigInt((requester & 0x7f) * SM_CONTEXT_ENTRY_BYTES), 4);
  if (entry === null) return invalid(0x40, details);
  details['context'] = hex(entry);
  const context = decode(SM_CONTEXT_ENTRY, entry);
  if (context.P === 0n) return invalid(0x41, details);
  const pasid = Number(context.RID_PASID);
  details['RID_PASID'] = hex(pasid);
  const directory = load(memory, (context.PASIDDIRPTR << 12n) + BigInt(pasid >> 6) * 8n, 1);
  if (directory === null) return invalid(0x50, details);
  const dir = decode(PASID_DIR_ENTRY, directory);
  if (dir.P === 0n) return invalid(0x51, details);
  const value = load(memory, (dir.SMPTBLPTR << 12n) + BigInt((pasid & 63) * PASID_ENTRY_BYTES), 8);
  if (value === null) return invalid(0x58, details);
  details['pasidEntry'] = hex(value);
  const fields = decode(PASID_ENTRY, value);
  for (const [name, part] of Object.entries(fields)) details[name] = hex(part);
  if (fields.P === 0n) return invalid(0x59, details);
  const domainId = Number(fields.DID);
  const firstStage = (): NonNullable<DeviceConfig['tables']>[number] => ({
    name: 'first stage',
    config: { format: fields.FSPM === 1n ? VTD_FS_57 : VTD_FS_48, ias: fields.FSPM === 1n ? 57 : 48, oas: 52 },
    root: fields.FSPTPTR << 12n,
  });
  switch (Number(fields.PGTT)) {
    case PGTT.FIRST_STAGE:
      return { kind: 'paging', domainId, tables: [firstStage()], details };
    case PGTT.SECOND_STAGE:
      return (
        paging('second stage', caps, Number(fields.AW), fields.SSPTPTR << 12n, domainId, details) ??
        invalid(0x5b, details)
      );
    case PGTT.NESTED: {
      const second = paging('second stage', caps, Number(fields.AW), fields.SSPTPTR << 12n, domainId, details);
      if (second === null) return invalid(0x5b, details);
      return { ...second, tables: [firstStage(), ...(second.tables ?? [])] };
    }
    case PGTT.PASS_THROUGH:
      return { kind: 'identity', domainId, details };
    default:
      return invalid(0x5b, details);
  }
};
