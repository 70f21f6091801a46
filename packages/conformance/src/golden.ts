/**
 * Player of golden tables (`iommu-golden/1`): the operations of a file are carried out by the engine on a fresh table whose
 * pages come from the real allocator over an arena, and everything that the file recorded is compared: each return value
 * and length, the leaves, the probes, the log of allocations, every byte of every table, and what the hardware is told.
 *
 * Which format and options a file means is the drivers' business: they are handed in as `resolve`.
 */
import { IommuError, addressOfPfn, hex, hi32, join64, lo32 } from '@iommu-ts/bits';
import { ArenaSource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { GatherRecord, PageTable, RULES_GENERIC_PT } from '@iommu-ts/page-table';
import type { GoldenConfig, GoldenHeader, HwInfo, PageTableConfig } from '@iommu-ts/page-table';
import { FieldReader, formatError, hexOfBytes, isObject, parseBytes, parseU64 } from './json-lines.ts';

/** Value of `format` in the file. */
export const GOLDEN_FORMAT = 'iommu-golden/1';

/** RAM above the arena's base: sparse, so only what is touched costs memory. */
const ARENA_BYTES = 64n << 30n;
/** The same in flat RAM, where a range is at most 4 GiB. */
const FLAT_ARENA_BYTES = 1n << 30n;

/** Mismatches kept; a wrong bit shows up in thousands of entries. */
const MISMATCH_LIMIT = 20;

interface MapOp {
  readonly op: 'map';
  readonly iova: bigint;
  readonly pa: bigint;
  readonly sizeLg2: number;
  readonly count: number;
  readonly length: bigint;
  readonly prot: number;
  readonly ret: number;
  readonly mapped: bigint;
}

interface UnmapOp {
  readonly op: 'unmap';
  readonly iova: bigint;
  readonly sizeLg2: number;
  readonly count: number;
  readonly length: bigint;
  readonly unmapped: bigint;
}

interface GoldenLeaf {
  readonly iova: bigint;
  readonly pa: bigint;
  readonly size: bigint;
  readonly level: number;
  readonly entry: bigint;
}

/** A golden file, read and checked. */
export interface GoldenFile extends GoldenHeader {
  readonly file: string;
  readonly arenaBase: bigint;
  readonly ops: readonly (MapOp | UnmapOp)[];
  readonly root: FieldReader;
  readonly leaves: readonly GoldenLeaf[];
  readonly tables: readonly { readonly pa: bigint; readonly bytes: Uint8Array; readonly level: number }[];
  readonly probes: readonly { readonly iova: bigint; readonly pa: bigint | null }[];
  readonly alloc: readonly { readonly op: string; readonly pa: bigint; readonly size: number }[];
}

/** One thing that was not as recorded. */
export interface GoldenMismatch {
  /** `op 17`, `leaf 3`, `table 0x80001000`, `probe 5`, `alloc 9`, `root`. */
  readonly where: string;
  readonly expected: string;
  readonly got: string;
}

/** How a golden file compares. */
export interface GoldenResult {
  readonly file: string;
  readonly name: string;
  readonly pageTable: string;
  readonly ok: boolean;
  readonly ops: number;
  /** The first mismatches; empty when all is as recorded. */
  readonly mismatches: readonly GoldenMismatch[];
  /** Why the file could not be played at all: no driver knows its format. */
  readonly reason?: string;
}

const lg2Of = (reader: FieldReader, name: string): number => {
  const value = reader.u64(name);
  if (value === 0n || (value & (value - 1n)) !== 0n) reader.fail(name, 'a power of two');
  return value.toString(2).length - 1;
};

const objects = (root: FieldReader, name: string): FieldReader[] =>
  root.array(name).map((value, i) => {
    if (!isObject(value)) throw formatError(root.file, `"${name}"[${i}]`, 'an object', value);
    return new FieldReader(root.file, `"${name}"[${i}]`, value);
  });

const readOp = (op: FieldReader): MapOp | UnmapOp => {
  const kind = op.string('op');
  const common = {
    iova: op.u64('iova'),
    sizeLg2: lg2Of(op, 'size'),
    count: op.number('count'),
    length: op.u64('len'),
  };
  if (kind === 'unmap') return { op: 'unmap', ...common, unmapped: op.u64('ret') };
  if (kind !== 'map') op.fail('op', '"map" or "unmap"');
  const ret = op.value['ret'];
  if (typeof ret !== 'number' || !Number.isInteger(ret) || ret > 0) op.fail('ret', '0 or a negative errno');
  return {
    op: 'map',
    ...common,
    pa: op.u64('pa'),
    prot: op.object('prot').number('raw', 63),
    ret,
    mapped: op.u64('mapped'),
  };
};

const readConfig = (config: FieldReader): GoldenConfig => ({
  ias: config.number('ias', 64),
  oas: config.number('oas', 64),
  granule: config.number('granule', 1 << 30),
  pageSizeBitmap: hex(config.u64('pageSizeBitmap')),
  signExtend: config.boolean('signExtend'),
  incoherent: config.boolean('incoherent'),
  featureNames: config
    .array('featureNames')
    .map((name) => (typeof name === 'string' ? name : config.fail('featureNames', 'names'))),
  startTopLevel: config.has('startTopLevel') ? config.number('startTopLevel', 5) : undefined,
});

/** Checks the shape of a golden file. @throws IommuError `EFORMAT`: which file, where, and what was expected. */
export const readGolden = (json: unknown, file = 'golden file'): GoldenFile => {
  if (!isObject(json)) throw formatError(file, 'the file', 'a JSON object', json);
  const root = new FieldReader(file, 'the file', json);
  if (json['format'] !== GOLDEN_FORMAT) root.fail('format', `"${GOLDEN_FORMAT}"`);
  const config = root.object('config');
  const levels = root.object('tableLevels');
  const tables = Object.entries(root.object('tables').value).map(([address, bytes]) => {
    const pa = parseU64(address);
    if (pa === undefined) throw formatError(file, '"tables"', 'addresses as "0x…"', address);
    const parsed = typeof bytes === 'string' ? parseBytes(bytes) : undefined;
    if (parsed === undefined) throw formatError(file, `"tables"["${address}"]`, 'bytes as hex digits', bytes);
    return { pa, bytes: parsed, level: levels.number(address, 5) };
  });
  return {
    file,
    pageTable: root.string('pageTable'),
    name: root.string('name'),
    config: readConfig(config),
    arenaBase: config.u64('arenaBase'),
    ops: objects(root, 'ops').map((op) => readOp(op)),
    root: root.object('root'),
    leaves: objects(root, 'leaves').map((leaf) => ({
      iova: leaf.u64('iova'),
      pa: leaf.u64('pa'),
      size: leaf.u64('size'),
      level: leaf.number('level', 5),
      entry: leaf.u64('pteHex'),
    })),
    tables,
    probes: objects(root, 'probes').map((probe) => ({
      iova: probe.u64('iova'),
      pa: probe.has('pa') ? probe.u64('pa') : null,
    })),
    alloc: root.array('alloc').map((event, i) => {
      const [op, pa, size] = Array.isArray(event) ? (event as unknown[]) : [];
      const [address, bytes] = [parseU64(pa), parseU64(size)];
      if ((op !== 'alloc' && op !== 'free') || address === undefined || bytes === undefined) {
        throw formatError(file, `"alloc"[${i}]`, '["alloc" or "free", "0x…", bytes]', event);
      }
      return { op, pa: address, size: Number(bytes) };
    }),
  };
};

/** Collects differences up to a limit. */
class Differences {
  readonly list: GoldenMismatch[] = [];
  #all = 0;

  get any(): boolean {
    return this.#all > 0;
  }

  add(where: string, expected: string, got: string): void {
    this.#all++;
    if (this.list.length < MISMATCH_LIMIT) this.list.push({ where, expected, got });
  }

  same(where: string, expected: string, got: string): void {
    if (expected !== got) this.add(where, expected, got);
  }
}

const leafText = (leaf: GoldenLeaf | undefined): string =>
  leaf === undefined
    ? 'none'
    : `iova ${hex(leaf.iova)} pa ${hex(leaf.pa)} size ${hex(leaf.size)} level ${leaf.level} entry ${hex(leaf.entry)}`;

/** What a file records of the hardware's view, as text: nested objects and lists flattened by path, numbers in hex. */
const flatten = (value: unknown, path: string, out: Map<string, string>): void => {
  if (Array.isArray(value)) value.forEach((item, i) => flatten(item, `${path}[${i}]`, out));
  else if (isObject(value)) for (const [key, item] of Object.entries(value)) flatten(item, `${path}.${key}`, out);
  else out.set(path, typeof value === 'bigint' ? hex(value) : typeof value === 'number' ? hex(value) : String(value));
};

const compareRoot = (file: GoldenFile, table: PageTable, differences: Differences): void => {
  const geometry = table.geometry();
  const ours: Record<string, unknown> = {
    pa: geometry.root,
    topLevel: geometry.topLevel,
    levels: geometry.levels,
    topChanges: geometry.topChanges,
    startLevel: geometry.format.specLevel(geometry.topLevel),
    pgdBits: geometry.topBits,
    pgdBytes: geometry.topBytes,
    bitsPerLevel: geometry.bitsPerLevel,
    nTtbrs: geometry.roots.length,
    nLevels: geometry.levels + 1,
    tblBits: Math.log2(geometry.roots.length),
    hw: table.hwInfo() satisfies HwInfo,
  };
  const [expected, got] = [new Map<string, string>(), new Map<string, string>()];
  flatten(file.root.value, 'root', expected);
  flatten(ours, 'root', got);
  for (const [path, value] of expected) differences.same(path, value, got.get(path) ?? 'nothing');
  for (const [path, value] of got)
    if (path.startsWith('root.hw') && !expected.has(path)) differences.add(path, 'nothing', value);
};

/** Index of the first byte that differs (or that only one has), -1 when there is none. */
const firstDifference = (a: Uint8Array, b: Uint8Array): number => {
  const common = Math.min(a.length, b.length);
  for (let at = 0; at < common; at++) if (a[at] !== b[at]) return at;
  return a.length === b.length ? -1 : common;
};

const compareTables = (file: GoldenFile, table: PageTable, memory: PhysicalMemory, differences: Differences): void => {
  const wanted = new Map(file.tables.map((entry) => [entry.pa, entry]));
  for (const { pa, level, bytes } of table.tables()) {
    const where = `table ${hex(pa)}`;
    const want = wanted.get(pa);
    wanted.delete(pa);
    if (want === undefined) {
      differences.add(where, 'no table there', `a table of level ${level}`);
      continue;
    }
    differences.same(`${where} level`, String(want.level), String(table.format.specLevel(level)));
    differences.same(`${where} bytes`, String(want.bytes.length), String(bytes));
    const at = firstDifference(want.bytes, memory.readBytes(pa, bytes));
    if (at < 0) continue;
    const entry = [at - (at % 8), at - (at % 8) + 8] as const;
    const [expected, got] = [want.bytes.slice(...entry), memory.readBytes(pa, bytes).slice(...entry)];
    differences.add(`${where} entry ${entry[0] / 8}`, hexOfBytes(expected), hexOfBytes(got));
  }
  for (const [pa, { level }] of wanted)
    differences.add(`table ${hex(pa)}`, `a table of level ${level}`, 'no table there');
};

const compareLeaves = (file: GoldenFile, table: PageTable, differences: Differences): void => {
  let i = 0;
  for (const leaf of table.leaves()) {
    const want = file.leaves[i];
    const level = table.format.specLevel(leaf.level);
    const same =
      want !== undefined &&
      want.iova === leaf.iova &&
      want.pa === leaf.pa &&
      want.size === leaf.size &&
      want.level === level &&
      want.entry === leaf.entry;
    if (!same) differences.add(`leaf ${i}`, leafText(want), leafText({ ...leaf, level }));
    i++;
  }
  for (; i < file.leaves.length; i++) differences.add(`leaf ${i}`, leafText(file.leaves[i]), 'none');
};

const paText = (pa: bigint | null): string => (pa === null ? 'not mapped' : hex(pa));

const eventText = (event: { op: string; pa: bigint; size: number } | undefined): string =>
  event === undefined ? 'nothing' : `${event.op} ${hex(event.pa)} ${hex(event.size)}`;

const compareProbes = (file: GoldenFile, table: PageTable, differences: Differences): void => {
  file.probes.forEach(({ iova, pa }, i) => {
    const found = table.iovaToPhys(hi32(iova), lo32(iova));
    const got = found ? join64(table.outHi, table.outLo) : null;
    const where = `probe ${i} (iova ${hex(iova)})`;
    // The kernel answers 0 both for "not mapped" and for a mapping of address 0.
    if (pa === null && got === 0n) return;
    differences.same(where, paText(pa), paText(got));
    const walked = table.walk(iova).pa;
    differences.same(`${where}, walked`, paText(got), paText(walked));
  });
};

/** Carries the file's operations out. */
const playOps = (file: GoldenFile, table: PageTable, pages: IommuPages, differences: Differences): void => {
  const gather = new GatherRecord();
  const range = table.format.rules === RULES_GENERIC_PT;
  file.ops.forEach((op, i) => {
    const iovaHi = hi32(op.iova);
    const iovaLo = lo32(op.iova);
    if (op.op === 'map') {
      const paHi = hi32(op.pa);
      const paLo = lo32(op.pa);
      const ret = range
        ? table.map(iovaHi, iovaLo, paHi, paLo, Number(op.length), op.prot, gather)
        : table.mapPages(iovaHi, iovaLo, paHi, paLo, op.sizeLg2, op.count, op.prot, gather);
      differences.same(`op ${i} (map ${hex(op.iova)}) ret`, String(op.ret), String(ret));
      differences.same(`op ${i} (map ${hex(op.iova)}) mapped`, hex(op.mapped), hex(table.mapped));
    } else {
      const got = range
        ? table.unmap(iovaHi, iovaLo, Number(op.length), gather)
        : table.unmapPages(iovaHi, iovaLo, op.sizeLg2, op.count, gather);
      differences.same(`op ${i} (unmap ${hex(op.iova)}) ret`, hex(op.unmapped), hex(got));
    }
    pages.putPagesList(gather.freelist);
    gather.reset();
  });
};

/**
 * Plays one golden file.
 * @param json the parsed file.
 * @param resolve names the format and options of a file, or null for one it does not know.
 * @param fileName for messages.
 * @param memoryKind what the arena lies in: sparse RAM takes the engine's plain loops, flat RAM its SIMD ones.
 * @throws IommuError `EFORMAT` when the file is not what it should be.
 */
export const playGolden = (
  json: unknown,
  resolve: (header: GoldenHeader) => PageTableConfig | null,
  fileName = 'golden file',
  memoryKind: 'sparse' | 'flat' = 'sparse',
): GoldenResult => {
  const file = readGolden(json, fileName);
  const result = { file: fileName, name: file.name, pageTable: file.pageTable, ops: file.ops.length };
  const config = resolve(file);
  if (config === null) {
    const reason = `no driver knows the page table "${file.pageTable}"`;
    return { ...result, ok: false, mismatches: [], reason };
  }
  if ((file.arenaBase & 0xfffn) !== 0n || file.arenaBase >= 1n << 52n) {
    throw formatError(fileName, '"config"', '"arenaBase" to be a page address below 2^52', hex(file.arenaBase));
  }
  const memory = new PhysicalMemory([
    { base: file.arenaBase, size: memoryKind === 'flat' ? FLAT_ARENA_BYTES : ARENA_BYTES, kind: memoryKind },
  ]);
  const source = new ArenaSource(memory, file.arenaBase);
  const log: { op: string; pa: bigint; size: number }[] = [];
  source.onEvent = ([op, pfn, size]) => log.push({ op, pa: addressOfPfn(pfn), size });
  const pages = new IommuPages(memory, source);
  const sync = (gather: GatherRecord): void => {
    pages.putPagesList(gather.freelist);
    gather.reset();
  };
  let table: PageTable;
  try {
    table = new PageTable(pages, { ...config, sync });
  } catch (error) {
    if (!(error instanceof Error) || (error as Partial<IommuError>).code === undefined) throw error;
    throw new IommuError(
      'EFORMAT',
      `${fileName}: "config": expected what ${file.pageTable} can have: ${error.message}`,
      {
        file: fileName,
        where: '"config"',
      },
    );
  }
  const differences = new Differences();
  playOps(file, table, pages, differences);
  file.alloc.forEach((event, i) => {
    differences.same(`alloc ${i}`, eventText(event), eventText(log[i]));
  });
  if (log.length > file.alloc.length) {
    differences.add(`alloc ${file.alloc.length}`, 'the end of the log', `${log.length - file.alloc.length} more`);
  }
  compareRoot(file, table, differences);
  compareTables(file, table, memory, differences);
  compareLeaves(file, table, differences);
  compareProbes(file, table, differences);
  return { ...result, ok: !differences.any, mismatches: differences.list };
};
