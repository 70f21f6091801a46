/**
 * The ratios that the project holds itself to. Both sides of each run in this process, in turns, on flat memory; a ratio is
 * the median over the rounds.
 */
import type { DriverHarness, FormatVariant } from '@iommu-ts/iommu-core';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { Calibration, typedArrayFill } from './calibration.ts';
import { compare, comparison, now } from './stats.ts';
import type { Comparison } from './stats.ts';
import { systemRows } from './system-rows.ts';
import { GIB, MIB, TableRig, lookUpAll, randomOffsets } from './table-rows.ts';
import type { Scale } from './table-rows.ts';

export interface Ratio extends Comparison {
  readonly name: string;
  /** Format or driver. */
  readonly subject: string;
  /** Highest value allowed; null: there is none, the figure is to be known. */
  readonly target: number | null;
  readonly pass: boolean;
}

export const ratioOf = (name: string, subject: string, target: number | null, c: Comparison): Ratio => ({
  name,
  subject,
  target,
  ...c,
  pass: target === null || c.ratio <= target,
});

const CHUNK = 256;

/** The format of each driver that stands for it: four levels of 4 KiB tables where it has them. */
export const representative = (harness: DriverHarness): FormatVariant =>
  harness.formats.find((f) => /^(vtdss|amdv1-va|riscv64-sv|arm-s1-4k-)48$|^dart2-16k-36-42$/.test(f.name)) ??
  harness.formats[0]!;

/** Look-up and map of one page, against the calibration on the same addresses. */
export const singleRatios = (
  memory: PhysicalMemory,
  variant: FormatVariant,
  scale: Scale,
  rounds: number,
): readonly Ratio[] => {
  const rig = new TableRig(memory, variant.config, 'granule');
  const granule = 2 ** rig.granuleLg2;
  const calibration = new Calibration(flatWords(16 * MIB));
  const results: Ratio[] = [];

  for (const [name, bytes] of [
    ['walk, 64 MiB mapped', Math.max(scale.small, CHUNK * granule)],
    ['walk, 1 GiB mapped', Math.max(scale.large, CHUNK * granule)],
  ] as const) {
    rig.map(bytes, CHUNK * granule);
    if (calibration.mapRange(0, GIB, 1, 0, bytes / 4096, 3) !== 0) throw new Error('calibration: map failed');
    const offsets = randomOffsets(bytes, 1 << 16);
    const engine = (): number => {
      const start = now();
      lookUpAll(rig, offsets, scale.lookups);
      return (now() - start) / scale.lookups;
    };
    const yardstick = (): number => {
      const start = now();
      walkAll(calibration, offsets, scale.lookups);
      return (now() - start) / scale.lookups;
    };
    results.push(ratioOf(`${name} / calibration`, variant.name, 2, compare(engine, yardstick, rounds)));
    rig.unmap(bytes, CHUNK * granule);
    unmapAll(calibration, bytes / 4096);
  }

  const pages = Math.max(scale.large / granule, CHUNK);
  const engine = (): number => {
    const start = now();
    rig.map(pages * granule, granule);
    const ns = now() - start;
    rig.unmap(pages * granule, CHUNK * granule);
    return ns / pages;
  };
  const yardstick = (): number => {
    const start = now();
    mapAll(calibration, pages);
    const ns = now() - start;
    unmapAll(calibration, pages);
    return ns / pages;
  };
  results.push(ratioOf('map of one page a call / calibration', variant.name, 2, compare(engine, yardstick, rounds)));
  rig.release();
  return results;
};

const walkAll = (calibration: Calibration, offsets: Int32Array, count: number): number => {
  const mask = offsets.length - 1;
  let sum = 0;
  let missing = 0;
  for (let i = 0; i < count; i++) {
    if (calibration.walk(0, (GIB + offsets[i & mask]!) | 0)) sum = (sum + calibration.outLo) | 0;
    else missing++;
  }
  if (missing > 0) throw new Error(`calibration: ${missing} of ${count} walks found nothing`);
  return sum;
};

const mapAll = (calibration: Calibration, pages: number): void => {
  let bad = 0;
  for (let i = 0; i < pages; i++) bad |= calibration.mapPage(0, (GIB + i * 4096) | 0, 1, i << 12, 3);
  if (bad !== 0) throw new Error('calibration: map failed');
};

const unmapAll = (calibration: Calibration, pages: number): void => {
  for (let i = 0; i < pages; i++) {
    if (!calibration.unmapPage(0, (GIB + i * 4096) | 0)) throw new Error('calibration: unmap failed');
  }
};

/** Bulk map and unmap, 256 pages a call, against filling as many entries (calibration) or bytes (host). */
export const bulkRatios = (
  memory: PhysicalMemory,
  variant: FormatVariant,
  scale: Scale,
  rounds: number,
): readonly Ratio[] => {
  const rig = new TableRig(memory, variant.config, 'granule');
  const granule = 2 ** rig.granuleLg2;
  const entries = Math.max(scale.large / granule, CHUNK);
  const bytes = entries * granule;
  const words = flatWords(entries * 8 + 4096);
  const calibration = new Calibration(words);
  rig.map(bytes, CHUNK * granule);
  rig.unmap(bytes, CHUNK * granule);

  const map = (): number => {
    const start = now();
    rig.map(bytes, CHUNK * granule);
    const ns = now() - start;
    rig.unmap(bytes, CHUNK * granule);
    return ns / entries;
  };
  const unmap = (): number => {
    rig.map(bytes, CHUNK * granule);
    const start = now();
    rig.unmap(bytes, CHUNK * granule);
    return (now() - start) / entries;
  };
  const hostFill = (): number => {
    const start = now();
    for (let at = 0; at < entries; at += CHUNK) typedArrayFill(words, at * 2, CHUNK, at);
    return (now() - start) / entries;
  };
  const checkedFill = (): number => {
    words.fill(0);
    let filled = 0;
    const start = now();
    for (let at = 0; at < entries; at += CHUNK) filled += calibration.fill(at * 2, CHUNK, 1, (at << 10) | 7);
    const ns = now() - start;
    if (filled !== entries) throw new Error(`calibration: filled ${filled} of ${entries}`);
    return ns / entries;
  };
  const results = [
    ratioOf('bulk map / TypedArray.fill of as many bytes', variant.name, 12, compare(map, hostFill, rounds)),
    ratioOf('bulk unmap / TypedArray.fill of as many bytes', variant.name, 12, compare(unmap, hostFill, rounds)),
    ratioOf('bulk map / calibration fill', variant.name, 0.5, compare(map, checkedFill, rounds)),
    ratioOf('bulk unmap / calibration fill', variant.name, 0.5, compare(unmap, checkedFill, rounds)),
  ];
  rig.release();
  return results;
};

/** Time an entry with 16 GiB mapped against 64 MiB. */
export const scaleRatios = (
  memory: PhysicalMemory,
  variant: FormatVariant,
  scale: Scale,
  rounds: number,
): readonly Ratio[] => {
  const rig = new TableRig(memory, variant.config, 'granule', 16n * BigInt(GIB));
  const granule = 2 ** rig.granuleLg2;
  const small = Math.max(scale.small, CHUNK * granule);
  const large = 16 * Math.max(scale.large, CHUNK * granule);
  const present = (bytes: number, repeats: number) => (): number => {
    let ns = 0;
    for (let i = 0; i < repeats; i++) {
      const start = now();
      rig.map(bytes, CHUNK * granule);
      ns += now() - start;
      rig.unmap(bytes, CHUNK * granule);
    }
    return ns / ((bytes / granule) * repeats);
  };
  const fresh = (bytes: number, repeats: number) => (): number => {
    let ns = 0;
    for (let i = 0; i < repeats; i++) {
      rig.renew();
      const start = now();
      rig.map(bytes, bytes);
      ns += now() - start;
    }
    rig.renew();
    return ns / ((bytes / granule) * repeats);
  };
  const repeats = Math.min(64, large / small);
  const results = [
    ratioOf(
      'map, 16 GiB / 64 MiB, tables present',
      variant.name,
      1.3,
      compare(present(large, 1), present(small, repeats), rounds),
    ),
    ratioOf(
      'map, 16 GiB / 64 MiB, new tables',
      variant.name,
      1.7,
      compare(fresh(large, 1), fresh(small, repeats), rounds),
    ),
  ];
  rig.release();
  return results;
};

/** A hit in the IOTLB against a walk of the same addresses, both through the device's translate. */
export const iotlbRatio = (harness: DriverHarness, scale: Scale, rounds: number): Ratio => {
  // Each side is a system of its own, and each on memory of its own.
  const make = (name: string) =>
    systemRows(new PhysicalMemory([{ base: 0n, size: 64n * BigInt(MIB), kind: 'flat' }]), harness, scale)
      .find((r) => r.name === name)!
      .make().row;
  const hit = make('translate-hit');
  const walk = make('translate-walk');
  const result = compare(
    () => hit.pass() / hit.ops,
    () => walk.pass() / walk.ops,
    rounds,
  );
  return ratioOf('IOTLB hit / walk', harness.name, 0.5, result);
};

/** Ratios of two series taken elsewhere (one process with all drivers against one with a single driver). */
export const sharedProcessRatio = (
  subject: string,
  row: string,
  all: readonly number[],
  alone: readonly number[],
): Ratio => ratioOf(`five drivers in one process / one alone: ${row}`, subject, 1.25, comparison(all, alone));

const flatWords = (bytes: number): Int32Array => {
  const size = BigInt(Math.ceil(bytes / 4096)) * 4096n;
  return new PhysicalMemory([{ base: 0n, size, kind: 'flat' }]).ranges[0]!.words;
};
