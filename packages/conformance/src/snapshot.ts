/**
 * Guest snapshots (`iommu-guest-snapshot/1`): what a running Linux had in its IOMMU's tables. The dump's structures and
 * tables are walked by a driver's own code, and every leaf is compared with the mappings that the kernel had asked for.
 *
 * The parts of the folder are handed in as text and bytes (already unpacked): this package reads no files.
 */
import { IommuError, hex } from '@iommu-ts/bits';
import type { DeviceConfig, DriverHarness } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { PROT, PageTable } from '@iommu-ts/page-table';
import { readCore } from './elf-core.ts';
import { FieldReader, formatError, isObject } from './json-lines.ts';
import { boundedMemory, readRam } from './recorded-memory.ts';
import type { RamStretch } from './recorded-memory.ts';

/** Value of `format` in the manifest. */
export const SNAPSHOT_FORMAT = 'iommu-guest-snapshot/1';

/** Leaves read from one table before the dump is taken to be garbage. */
const LEAF_LIMIT = 5_000_000;

export interface SnapshotParts {
  /** Name of the folder, for messages. */
  readonly name: string;
  /** Text of `manifest.json`. */
  readonly manifest: string;
  /** Text of `mappings.json`. */
  readonly mappings: string;
  /** Bytes of `tables.core`. */
  readonly core: Uint8Array;
}

export interface SnapshotMapping {
  readonly domain: string;
  readonly iova: bigint;
  readonly pa: bigint;
  readonly size: bigint;
  /** IOMMU_* bits as the kernel asked for them. */
  readonly prot: number;
}

export interface SnapshotDevice {
  readonly rid: number;
  readonly name: string;
  /** Null: not in a paging domain. */
  readonly domain: string | null;
}

export interface Snapshot {
  readonly name: string;
  readonly iommu: string;
  readonly memory: PhysicalMemory;
  readonly ram: readonly RamStretch[];
  readonly registers: ReadonlyMap<string, bigint>;
  readonly devices: readonly SnapshotDevice[];
  readonly mappings: readonly SnapshotMapping[];
  /** Stage 2 of this machine's Arm SMMU was used (it keeps write-only mappings, stage 1 does not). */
  readonly stage2: boolean;
}

/** How one device's tables compare. */
export interface SnapshotDeviceResult {
  readonly device: string;
  readonly ok: boolean;
  readonly kind: DeviceConfig['kind'];
  /** Leaves found by walking. */
  readonly leaves: number;
  /** Bytes mapped. */
  readonly bytes: bigint;
  /** The first difference. */
  readonly difference?: string;
}

const parseJson = (text: string, file: string): Readonly<Record<string, unknown>> => {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new IommuError('EFORMAT', `${file}: not JSON (${(error as Error).message})`, { file });
  }
  if (!isObject(value)) throw formatError(file, 'the file', 'a JSON object', value);
  return value;
};

const object = (value: unknown, file: string, where: string): FieldReader => {
  if (!isObject(value)) throw formatError(file, where, 'an object', value);
  return new FieldReader(file, where, value);
};

/** Reads the parts of a snapshot. @throws IommuError `EFORMAT`: which part, where, and what was expected. */
export const readSnapshot = (parts: SnapshotParts): Snapshot => {
  const file = `${parts.name}/manifest.json`;
  const manifest = new FieldReader(file, 'the manifest', parseJson(parts.manifest, file));
  if (manifest.value['format'] !== SNAPSHOT_FORMAT) manifest.fail('format', `"${SNAPSHOT_FORMAT}"`);
  const ram = readRam(manifest.value['ram'], file, 'the manifest');
  if (ram === undefined || ram.length === 0) return manifest.fail('ram', 'a list of {base, size}');
  const registers = new Map<string, bigint>();
  for (const [i, item] of manifest.array('registers').entries()) {
    const register = object(item, file, `register ${i}`);
    // Registers that the capture had no name for are of no use here.
    if (register.value['name'] === null) continue;
    registers.set(register.string('name'), register.u64('value'));
  }
  const devices = manifest.array('devices').map((item, i): SnapshotDevice => {
    const device = object(item, file, `device ${i}`);
    return {
      rid: device.number('rid', 0xff_ffff),
      name: device.string('name'),
      domain: device.has('domain') ? device.string('domain') : null,
    };
  });
  const mappingsFile = `${parts.name}/mappings.json`;
  const mappings = new FieldReader(mappingsFile, 'the file', parseJson(parts.mappings, mappingsFile))
    .array('mappings')
    .map((item, i): SnapshotMapping => {
      const mapping = object(item, mappingsFile, `mapping ${i}`);
      return {
        domain: mapping.string('domain'),
        iova: mapping.u64('iova'),
        pa: mapping.u64('pa'),
        size: mapping.u64('size'),
        prot: mapping.number('iommuProt', 0xff),
      };
    });
  const memory = boundedMemory(ram);
  readCore(parts.core, `${parts.name}/tables.core`, (pa, bytes) => {
    if (!memory.copyIn(Number(pa >> 32n), Number(pa & 0xffff_ffffn), bytes, 0, bytes.length)) {
      throw formatError(
        `${parts.name}/tables.core`,
        `segment at ${hex(pa)}`,
        'an address in the RAM of the manifest',
        hex(pa),
      );
    }
  });
  const tables = isObject(manifest.value['tables']) ? manifest.value['tables'] : {};
  const kinds = isObject(tables['ste_kinds']) ? tables['ste_kinds'] : {};
  return {
    name: parts.name,
    iommu: manifest.string('iommu'),
    memory,
    ram,
    registers,
    devices,
    mappings,
    stage2: 's2' in kinds,
  };
};

/** One run of pages: IOVA, PA, size, and what the tables allow. */
interface Run {
  iova: bigint;
  pa: bigint;
  size: bigint;
  readonly access: string;
}

/** Sorted, with neighbours joined that continue each other, so that page sizes and splits do not matter. */
const joined = (runs: readonly Run[]): Run[] => {
  const sorted = runs.toSorted((a, b) => (a.iova < b.iova ? -1 : a.iova > b.iova ? 1 : 0));
  const out: Run[] = [];
  for (const run of sorted) {
    const last = out.at(-1);
    if (
      last !== undefined &&
      last.access === run.access &&
      last.iova + last.size === run.iova &&
      last.pa + last.size === run.pa
    ) {
      last.size += run.size;
    } else out.push({ ...run });
  }
  return out;
};

const accessOf = (read: boolean, write: boolean): string => `${read ? 'r' : '-'}${write ? 'w' : '-'}`;

const runText = (run: Run | undefined): string =>
  run === undefined ? 'nothing more' : `${hex(run.iova)} -> ${hex(run.pa)} size ${hex(run.size)} ${run.access}`;

/** Compares the tables of every device (or of `rid`) with the mappings. Never throws for what the dump holds. */
export const playSnapshot = (snapshot: Snapshot, harness: DriverHarness): SnapshotDeviceResult[] =>
  snapshot.devices.map((device) => {
    const base = { device: `${hex(device.rid)} ${device.name}` };
    try {
      return { ...base, ...compareDevice(snapshot, device, harness) };
    } catch (error) {
      const { message } = error as Error;
      return { ...base, ok: false, kind: 'invalid', leaves: 0, bytes: 0n, difference: message };
    }
  });

const compareDevice = (
  snapshot: Snapshot,
  device: SnapshotDevice,
  harness: DriverHarness,
): Omit<SnapshotDeviceResult, 'device'> => {
  const config = harness.inspect(snapshot.memory, (name) => snapshot.registers.get(name), device.rid);
  const found: Run[] = [];
  let leaves = 0;
  for (const table of config.tables ?? []) {
    for (const leaf of PageTable.open(snapshot.memory, table.config, table.root).leaves()) {
      if (++leaves > LEAF_LIMIT) throw new IommuError('EFORMAT', `more than ${LEAF_LIMIT} leaves: not a page table`);
      found.push({ iova: leaf.iova, pa: leaf.pa, size: leaf.size, access: accessOf(leaf.prot.read, leaf.prot.write) });
    }
  }
  const bytes = found.reduce((sum, run) => sum + run.size, 0n);
  const result = { kind: config.kind, leaves, bytes };
  if (device.domain === null) {
    if (leaves === 0) return { ...result, ok: true };
    return { ...result, ok: false, difference: `in no paging domain, but its tables map ${runText(found[0])}` };
  }
  if (config.kind !== 'paging') {
    const reason = config.reason === undefined ? '' : ` (${config.reason})`;
    return { ...result, ok: false, difference: `expected a paging domain, found ${config.kind}${reason}` };
  }
  const keepsWriteOnly = keepsWriteOnlyMappings(snapshot);
  const wanted = snapshot.mappings
    .filter((m) => m.domain === device.domain)
    .map((m): Run => {
      const write = (m.prot & PROT.WRITE) !== 0;
      const read = (m.prot & PROT.READ) !== 0 || (write && !keepsWriteOnly);
      return { iova: m.iova, pa: m.pa, size: m.size, access: accessOf(read, write) };
    });
  const [a, b] = [joined(wanted), joined(found)];
  const n = Math.max(a.length, b.length);
  for (let i = 0; i < n; i++) {
    if (runText(a[i]) !== runText(b[i])) {
      return { ...result, ok: false, difference: `expected ${runText(a[i])}, found ${runText(b[i])}` };
    }
  }
  return { ...result, ok: true };
};

/**
 * The recording kernels' rule for a mapping that asks for WRITE alone (fixtures/README.md, "Rule of comparison"): AMD v1 and
 * Arm stage 2 keep it apart, all others made it read-write.
 */
const keepsWriteOnlyMappings = (snapshot: Snapshot): boolean => snapshot.iommu === 'amd-vi' || snapshot.stage2;
