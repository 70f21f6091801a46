/**
 * Player of recorded vectors (`iommu-vectors/1`): a header line with the identification registers, then operations in
 * order: memory and register writes go in, register reads, DMA results and memory contents are compared.
 *
 * Rules of comparison (fixtures/README.md and the READMEs beside the vectors):
 * - every `rd` (under its mask), `dma` and `chk` without a mark is compared;
 * - at an operation marked `qemu_deviates` the specification's value beside it is compared, and the scenario ends there;
 * - operations marked `impl` or `note` are carried out but not compared, except that a `cold` answer is when caches are off
 *   (in recordings of drivers a `note` on a `dma` only tells why it was made: those are compared);
 * - `note_…` operations inform people only;
 * - an operation this player does not know fails its scenario.
 */
import { IommuError, hex, hi32, join64, lo32 } from '@iommu-ts/bits';
import { ACCESS, NO_PASID, TRANSLATE_OK } from '@iommu-ts/iommu-core';
import type { DriverHarness, IommuHardware, IotlbOptions } from '@iommu-ts/iommu-core';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { FieldReader, formatError, hexOfBytes, isObject, parseBytes, parseJsonLines, parseU64 } from './json-lines.ts';
import type { RecordedObject } from './json-lines.ts';
import { deviationsOf, findDeviation } from './known-deviations.ts';
import type { KnownDeviation } from './known-deviations.ts';
import { boundedMemory, endlessMemory, readRam } from './recorded-memory.ts';
import type { RamStretch } from './recorded-memory.ts';

/** Value of `format` in the header. */
export const VECTORS_FORMAT = 'iommu-vectors/1';

/** Times a `rd` with `poll` is repeated before it counts as wrong. */
const POLL_LIMIT = 16;
const DMA_LIMIT = 1 << 24;

export interface VectorScenario {
  readonly name: string;
  readonly line: number;
  /** Memory ends where the header's `ram` says. */
  readonly physmem: boolean;
  /** Replaces the header's `config` when the scenario has its own. */
  readonly config: Readonly<Record<string, unknown>> | null;
  readonly ops: readonly RecordedObject[];
}

export interface VectorFile {
  readonly file: string;
  /** `iommu` of the header. */
  readonly iommu: string;
  readonly source: string;
  readonly config: Readonly<Record<string, unknown>>;
  /** A real driver's boot: `note` marks nothing. */
  readonly recording: boolean;
  readonly ram: readonly RamStretch[] | undefined;
  readonly scenarios: readonly VectorScenario[];
}

/** The first thing that was not as recorded. */
export interface Mismatch {
  readonly line: number;
  readonly op: string;
  readonly expected: string;
  readonly got: string;
}

export interface ScenarioResult {
  readonly name: string;
  readonly line: number;
  readonly ok: boolean;
  /** Operations carried out. */
  readonly ops: number;
  /** Of those, how many were compared. */
  readonly compared: number;
  /** Operations after the first mark: not carried out. */
  readonly skippedOps: number;
  readonly mismatch?: Mismatch;
  /** Why the scenario failed without a comparison (not built yet, an exception). */
  readonly reason?: string;
  /** The known deviation that ended the scenario. */
  readonly deviation?: KnownDeviation;
}

export interface VectorReport {
  readonly file: string;
  readonly iommu: string;
  readonly scenarios: readonly ScenarioResult[];
  readonly passed: number;
  readonly failed: number;
  readonly skippedOps: number;
}

export interface PlayVectorsOptions {
  /** Name for messages and for known deviations. */
  readonly file?: string;
  readonly iotlb?: IotlbOptions;
  readonly knownDeviations?: readonly KnownDeviation[];
  /** Plays only scenarios with this name. */
  readonly scenario?: string;
}

/** Reads and checks the text of a vector file. @throws IommuError `EFORMAT`: file, line, and what was expected there. */
export const parseVectors = (text: string, file = 'vectors'): VectorFile => {
  const objects = parseJsonLines(text, file);
  const first = objects[0];
  if (first === undefined) throw formatError(file, 'line 1', `a header with "format": "${VECTORS_FORMAT}"`);
  const header = new FieldReader(file, `line ${first.line}`, first.value);
  if (first.value['format'] !== VECTORS_FORMAT) header.fail('format', `"${VECTORS_FORMAT}"`);
  const config = header.has('config') ? header.object('config').value : {};
  const source = header.has('source') ? header.string('source') : '';
  const scenarios: { -readonly [K in keyof VectorScenario]: VectorScenario[K] }[] = [];
  let ops: RecordedObject[] | null = null;
  for (const object of objects.slice(1)) {
    const fields = new FieldReader(file, `line ${object.line}`, object.value);
    const op = fields.string('op');
    if (op === 'scenario') {
      ops = [];
      scenarios.push({
        name: fields.string('name'),
        line: object.line,
        physmem: object.value['impl'] === 'physmem',
        config: fields.has('config') ? fields.object('config').value : null,
        ops,
      });
      continue;
    }
    if (ops === null) return fields.fail('op', '"scenario" before the first operation');
    checkOp(op, fields);
    ops.push(object);
  }
  if (scenarios.length === 0) throw formatError(file, 'the file', 'at least one "scenario"');
  return {
    file,
    iommu: header.string('iommu'),
    source,
    config,
    recording: typeof config['kernel_cmdline'] === 'string' || source.startsWith('Linux '),
    ram: readRam(config['ram'], file, `line ${first.line}`),
    scenarios,
  };
};

/** Checks the fields of an operation that the player knows. */
const checkOp = (op: string, fields: FieldReader): void => {
  switch (op) {
    case 'mem':
      fields.u64('pa');
      fields.bytes('hex');
      break;
    case 'wr':
      fields.number('off', 0xff_ffff);
      fields.number('size', 8);
      fields.u64('val');
      break;
    case 'rd':
      fields.number('off', 0xff_ffff);
      fields.number('size', 8);
      fields.u64('val');
      if (fields.has('mask')) fields.u64('mask');
      if (fields.has('spec_val')) fields.u64('spec_val');
      break;
    case 'chk':
      fields.u64('pa');
      if (fields.bytes('hex').length === 0) fields.fail('hex', 'at least one byte');
      for (const name of ['mask', 'spec_hex']) {
        if (fields.has(name) && fields.string(name).length !== fields.string('hex').length) {
          fields.fail(name, 'as long as "hex"');
        }
        if (fields.has(name)) fields.bytes(name);
      }
      break;
    case 'dma':
      fields.number('rid', 0xff_ffff);
      fields.u64('iova');
      if (fields.value['rw'] !== 'r' && fields.value['rw'] !== 'w') fields.fail('rw', '"r" or "w"');
      if (fields.number('len', DMA_LIMIT) === 0) fields.fail('len', 'at least 1');
      fields.boolean('ok');
      if (fields.has('pasid')) fields.number('pasid', 0xf_ffff);
      if (fields.has('pa')) fields.u64('pa');
      if (fields.has('hex') && fields.bytes('hex').length !== fields.number('len')) {
        fields.fail('hex', '"len" bytes');
      }
      if (fields.has('spec')) {
        const spec = fields.object('spec');
        spec.boolean('ok');
        if (spec.has('pa')) spec.u64('pa');
      }
      break;
    default:
  }
};

/**
 * Plays the text of a vector file against the bare device that `harness` makes.
 * @throws IommuError `EFORMAT` when the text is not a sound vector file.
 */
export const playVectors = (
  vectors: string | VectorFile,
  harness: DriverHarness,
  options: PlayVectorsOptions = {},
): VectorReport => {
  const file = typeof vectors === 'string' ? parseVectors(vectors, options.file) : vectors;
  const name = (options.file ?? file.file).split(/[\\/]/).at(-1)!;
  const known = deviationsOf(options.knownDeviations ?? [], name);
  const scenarios: ScenarioResult[] = [];
  for (const scenario of file.scenarios) {
    if (options.scenario !== undefined && scenario.name !== options.scenario) continue;
    scenarios.push(playScenario(file, scenario, harness, options.iotlb, known));
  }
  return {
    file: file.file,
    iommu: file.iommu,
    scenarios,
    passed: scenarios.filter((s) => s.ok).length,
    failed: scenarios.filter((s) => !s.ok).length,
    skippedOps: scenarios.reduce((sum, s) => sum + s.skippedOps, 0),
  };
};

const isMarked = (op: Readonly<Record<string, unknown>>): boolean => op['qemu_deviates'] !== undefined;

const playScenario = (
  file: VectorFile,
  scenario: VectorScenario,
  harness: DriverHarness,
  iotlb: IotlbOptions | undefined,
  known: readonly KnownDeviation[],
): ScenarioResult => {
  const { name, line, ops } = scenario;
  const mark = ops.findIndex((o) => isMarked(o.value));
  const end = mark < 0 ? ops.length : mark + 1;
  const skippedOps = ops.length - end;
  const base = { name, line, skippedOps };
  if (scenario.physmem && file.ram === undefined) {
    throw formatError(file.file, 'line 1', '"ram" in "config", which scenarios marked "physmem" need');
  }
  let player: ScenarioPlayer;
  try {
    const memory = scenario.physmem ? boundedMemory(file.ram!) : endlessMemory();
    const hardware = harness.createHardware(memory, scenario.config ?? file.config, iotlb);
    player = new ScenarioPlayer(file, harness, hardware, memory, iotlb?.mode === 'none');
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (code === 'EFORMAT') throw formatError(file.file, 'line 1', `a "config" for ${harness.name} (${message})`);
    return { ...base, ok: false, ops: 0, compared: 0, reason: message };
  }
  let done = 0;
  for (const op of ops.slice(0, end)) {
    let mismatch: Mismatch | null;
    try {
      mismatch = player.play(op);
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      const reason = code === 'EOPNOTSUPP' ? message : `line ${op.line}: the device threw: ${message}`;
      return { ...base, ok: false, ops: done, compared: player.compared, reason };
    }
    done++;
    if (mismatch === null) continue;
    const deviation = findDeviation(known, name, op.line, op.value['op']);
    if (deviation !== undefined) {
      const skipped = ops.length - done;
      return { ...base, skippedOps: skipped, ok: true, ops: done, compared: player.compared, deviation };
    }
    return { ...base, ok: false, ops: done, compared: player.compared, mismatch };
  }
  return { ...base, ok: true, ops: done, compared: player.compared };
};

/** Carries out and compares the operations of one scenario. */
class ScenarioPlayer {
  readonly #file: VectorFile;
  readonly #harness: DriverHarness;
  readonly #hardware: IommuHardware;
  readonly #memory: PhysicalMemory;
  readonly #cold: boolean;
  compared = 0;

  constructor(
    file: VectorFile,
    harness: DriverHarness,
    hardware: IommuHardware,
    memory: PhysicalMemory,
    cachesOff: boolean,
  ) {
    this.#file = file;
    this.#harness = harness;
    this.#hardware = hardware;
    this.#memory = memory;
    this.#cold = cachesOff;
  }

  play({ line, value }: RecordedObject): Mismatch | null {
    const fields = new FieldReader(this.#file.file, `line ${line}`, value);
    const op = fields.string('op');
    switch (op) {
      case 'mem':
        return this.#mem(line, fields);
      case 'wr':
        return this.#wr(fields);
      case 'rd':
        return this.#rd(line, fields);
      case 'chk':
        return this.#chk(line, fields);
      case 'dma':
        return this.#dma(line, fields);
      default:
        if (op.startsWith('note_')) return null;
        throw new IommuError('EOPNOTSUPP', `line ${line}: operation "${op}" is not supported yet`, { op });
    }
  }

  /** Is the recorded value of this operation to be compared? */
  #judged(fields: FieldReader): boolean {
    if (fields.has('impl')) return this.#cold && fields.has('cold');
    return !fields.has('note') || this.#file.recording;
  }

  #mem(line: number, fields: FieldReader): Mismatch | null {
    const pa = fields.u64('pa');
    const bytes = fields.bytes('hex');
    if (this.#memory.copyIn(hi32(pa), lo32(pa), bytes, 0, bytes.length)) return null;
    return { line, op: `mem ${hex(pa)}`, expected: `RAM for ${bytes.length} bytes`, got: 'the RAM ends before' };
  }

  #wr(fields: FieldReader): null {
    const off = fields.number('off');
    const val = fields.u64('val');
    switch (fields.number('size')) {
      case 4:
        this.#hardware.mmio.write32(off, lo32(val) | 0);
        return null;
      case 8:
        this.#hardware.mmio.write64(off, hi32(val) | 0, lo32(val) | 0);
        return null;
      default:
        throw sizeNotSupported(fields);
    }
  }

  #rd(line: number, fields: FieldReader): Mismatch | null {
    const off = fields.number('off');
    const size = fields.number('size');
    if (size !== 4 && size !== 8) throw sizeNotSupported(fields);
    const all = size === 4 ? 0xffff_ffffn : 0xffff_ffff_ffff_ffffn;
    const mask = fields.has('mask') ? fields.u64('mask') & all : all;
    const cold = this.#cold ? parseU64(fields.value['cold']) : undefined;
    const wanted =
      isMarked(fields.value) && fields.has('spec_val') ? fields.u64('spec_val') : (cold ?? fields.u64('val'));
    let got = this.#read(off, size);
    if (!this.#judged(fields)) return null;
    this.compared++;
    const tries = fields.value['poll'] === true ? POLL_LIMIT : 0;
    for (let i = 0; i < tries && (got & mask) !== (wanted & mask); i++) got = this.#read(off, size);
    if ((got & mask) === (wanted & mask)) return null;
    const under = mask === all ? '' : ` under mask ${hex(mask)}`;
    return { line, op: `rd ${hex(off)}`, expected: `${hex(wanted & mask)}${under}`, got: hex(got & mask) };
  }

  #read(off: number, size: 4 | 8): bigint {
    const { mmio } = this.#hardware;
    if (size === 4) return join64(0, mmio.read32(off));
    mmio.read64(off);
    return join64(mmio.hi, mmio.lo);
  }

  #chk(line: number, fields: FieldReader): Mismatch | null {
    if (!this.#judged(fields)) return null;
    this.compared++;
    const pa = fields.u64('pa');
    const cold = this.#cold && typeof fields.value['cold'] === 'string' ? parseBytes(fields.value['cold']) : undefined;
    const wanted =
      isMarked(fields.value) && fields.has('spec_hex') ? fields.bytes('spec_hex') : (cold ?? fields.bytes('hex'));
    const mask = fields.has('mask') ? fields.bytes('mask') : null;
    const got = new Uint8Array(wanted.length);
    const op = `chk ${hex(pa)}`;
    if (!this.#memory.copyOut(hi32(pa), lo32(pa), got, 0, got.length)) {
      return { line, op, expected: hexOfBytes(wanted), got: 'no RAM there' };
    }
    if (wanted.every((byte, i) => ((byte ^ got[i]!) & (mask?.[i] ?? 0xff)) === 0)) return null;
    const under = mask === null ? '' : ` under mask ${hexOfBytes(mask)}`;
    return { line, op, expected: `${hexOfBytes(wanted)}${under}`, got: hexOfBytes(got) };
  }

  #dma(line: number, fields: FieldReader): Mismatch | null {
    const marked = isMarked(fields.value) && fields.has('spec');
    const cold = this.#cold && isObject(fields.value['cold']) ? fields.object('cold') : null;
    const answer = marked ? fields.object('spec') : (cold ?? fields);
    const write = fields.value['rw'] === 'w';
    const iova = fields.u64('iova');
    const length = fields.number('len');
    const data = fields.has('hex') ? fields.bytes('hex') : null;
    const buffer = write && data !== null ? data.slice() : new Uint8Array(length);
    const wantedOk = answer.boolean('ok');
    const wantedPa = wantedOk && answer.has('pa') ? answer.u64('pa') : null;
    if (!this.#judged(fields)) {
      // What is not judged must not shift what is: memory follows the recording, and a translation that another cache
      // would have answered is not made at all (a refusal here would leave a record that the recording does not have).
      if (!wantedOk || fields.has('note')) this.#transfer(fields, iova, write, buffer, false);
      if (write && data !== null && wantedPa !== null)
        this.#memory.copyIn(hi32(wantedPa), lo32(wantedPa), data, 0, length);
      return null;
    }
    // Without bytes a write only asks for its translation; without `pa` the bytes went where memory does not show them.
    const move = write ? data !== null && (!wantedOk || wantedPa !== null) : true;
    const result = this.#transfer(fields, iova, write, buffer, move);
    this.compared++;
    const op = `dma ${write ? 'write' : 'read'} ${hex(iova)}`;
    if (result.ok !== wantedOk) {
      const expected = wantedOk ? `success${wantedPa === null ? '' : ` at ${hex(wantedPa)}`}` : 'a refusal';
      return { line, op, expected, got: result.ok ? `success at ${hex(result.pa)}` : result.why };
    }
    if (!result.ok) return null;
    if (wantedPa !== null && result.pa !== wantedPa) {
      return { line, op, expected: `pa ${hex(wantedPa)}`, got: `pa ${hex(result.pa)}` };
    }
    // The data beside a marked operation is what the other implementation moved.
    if (write || data === null || marked || wantedPa === null) return null;
    if (data.every((byte, i) => byte === buffer[i])) return null;
    return { line, op, expected: hexOfBytes(data), got: hexOfBytes(buffer) };
  }

  /** One DMA: all its pages are translated first, so that a refused one moves nothing. */
  #transfer(
    fields: FieldReader,
    iova: bigint,
    write: boolean,
    buffer: Uint8Array,
    move: boolean,
  ): { ok: boolean; pa: bigint; why: string } {
    const requester = this.#harness.requesterOf(fields.value);
    const pasid = fields.has('pasid') ? fields.number('pasid') : NO_PASID;
    const access = write ? ACCESS.WRITE : ACCESS.READ;
    const parts: { pa: bigint; at: number; length: number }[] = [];
    for (let at = 0; at < buffer.length;) {
      const address = BigInt.asUintN(64, iova + BigInt(at));
      const length = Math.min(buffer.length - at, 4096 - Number(address & 0xfffn));
      const status = this.#hardware.translate(requester, pasid, hi32(address) | 0, lo32(address) | 0, access, length);
      if (status !== TRANSLATE_OK) return { ok: false, pa: 0n, why: `a refusal with code ${hex(status)}` };
      parts.push({ pa: join64(this.#hardware.outHi, this.#hardware.outLo), at, length });
      at += length;
    }
    if (move) {
      for (const { pa, at, length } of parts) {
        const moved = write
          ? this.#memory.copyIn(hi32(pa), lo32(pa), buffer, at, length)
          : this.#memory.copyOut(hi32(pa), lo32(pa), buffer, at, length);
        if (!moved) return { ok: false, pa, why: `nothing answers at pa ${hex(pa)}` };
      }
    }
    return { ok: true, pa: parts[0]!.pa, why: '' };
  }
}

const sizeNotSupported = (fields: FieldReader): IommuError =>
  new IommuError(
    'EOPNOTSUPP',
    `${fields.where}: register accesses of ${fields.number('size')} bytes are not supported yet`,
  );
