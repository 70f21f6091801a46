/**
 * Reads a device's configuration out of a dump: registers and memory only, nothing is executed.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, section 2.2.2 "Device Table".
 */
import { addressOfPfn, decode, extract, hex } from '@iommu-ts/bits';
import type { DeviceConfig } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { AMD_V1 } from './formats.ts';
import { Control, DevTabBaseAddr, DevTabSegBaseAddr } from './registers.ts';
import { DTE, DTE_BYTES } from './structures.ts';

type Registers = (name: string) => bigint | undefined;

const none = { details: {} } as const;

/** First of the names that the dump has. */
const named = (register: Registers, ...names: string[]): bigint | undefined => {
  for (const name of names) {
    const value = register(name);
    if (value !== undefined) return value;
  }
  return undefined;
};

/** See `DriverHarness.inspect`. Registers: `DeviceTableBase` and `Control`, or by their specification names. */
export const inspect = (
  memory: PhysicalMemory,
  register: (name: string) => bigint | undefined,
  requester: number,
): DeviceConfig => {
  const base = named(register, 'DeviceTableBase', 'DevTabBaseAddr');
  const control = named(register, 'Control') ?? 1n;
  if (extract(control, Control.IommuEn) === 0n) return { kind: 'identity', reason: 'IommuEn is 0', ...none };
  if (base === undefined) return { kind: 'invalid', reason: 'no register DeviceTableBase in the dump', ...none };
  if (!Number.isInteger(requester) || requester < 0 || requester > 0xffff) {
    return { kind: 'invalid', reason: `DeviceID ${requester} has more than 16 bits`, ...none };
  }

  const segmentsLg2 = Math.min(3, Number(extract(control, Control.DevTblSegEn)));
  const segment = requester >> (16 - segmentsLg2);
  const index = requester & ((1 << (16 - segmentsLg2)) - 1);
  const segmentBase = segment === 0 ? base : named(register, `DevTabSegBaseAddr${segment}`);
  if (segmentBase === undefined) return { kind: 'invalid', reason: `no register DevTabSegBaseAddr${segment}`, ...none };
  const size = extract(segmentBase, segmentsLg2 === 0 ? DevTabBaseAddr.Size : DevTabSegBaseAddr.Size);
  if (BigInt(index * DTE_BYTES) >= (size + 1n) << 12n) {
    return { kind: 'invalid', reason: `DeviceID ${hex(requester)} is beyond the device table`, ...none };
  }
  const at = (extract(segmentBase, DevTabBaseAddr.DevTabBase) << 12n) + BigInt(index * DTE_BYTES);
  const words = [0n, 8n, 16n, 24n].map((offset) => {
    const pa = at + offset;
    return memory.load64(Number(pa >> 32n), Number(pa & 0xffff_ffffn))
      ? (BigInt(memory.hi >>> 0) << 32n) | BigInt(memory.lo >>> 0)
      : null;
  });
  if (words.includes(null)) return { kind: 'invalid', reason: `no memory at ${hex(at)} (device table entry)`, ...none };
  const dte = words.reduceRight<bigint>((all, word) => (all << 64n) | word!, 0n);
  return describe(dte, at);
};

const describe = (dte: bigint, at: bigint): DeviceConfig => {
  const f = decode(DTE, dte);
  const details: Record<string, string> = { DTE: hex(at) };
  for (const [name, value] of Object.entries(f)) if (value !== 0n) details[name] = hex(value);
  if (f.V === 0n) return { kind: 'identity', reason: 'V is 0', details };
  if (f.TV === 0n) return { kind: 'invalid', reason: 'not configured: V is 1, TV is 0', details };
  const domainId = Number(f.DomainID);
  if (f.GV !== 0n)
    return { kind: 'invalid', reason: 'guest translation (GV=1) is not supported yet', domainId, details };
  const mode = Number(f.Mode);
  if (mode === 7) return { kind: 'invalid', reason: 'Mode 7 is reserved', domainId, details };
  if (mode === 0) {
    const kind = f.IR === 0n && f.IW === 0n ? 'blocked' : 'identity';
    return { kind, domainId, details };
  }
  const root = addressOfPfn(Number(f.HostPageTableRootPtr));
  const config = { format: AMD_V1, ias: 64, oas: 52, topLevel: mode - 1 };
  return { kind: 'paging', domainId, tables: [{ name: 'host', config, root }], details };
};
