/** What is replayed: the events of a Linux kernel's IOMMU trace, from `events.jsonl`, a snapshot folder, or ftrace text. */
import path from 'node:path';
import { parseJsonLines } from '@iommu-ts/conformance';
import { z } from 'zod';
import { findIn, inputError, isFolder, readText } from '../input.ts';
import { parseFtrace } from './ftrace.ts';

/** One event. `line` is its line in the file. */
export type TraceEvent =
  | { readonly op: 'attach'; readonly line: number; readonly domain: string; readonly rid: number }
  | {
      readonly op: 'map';
      readonly line: number;
      readonly domain: string;
      readonly iova: bigint;
      readonly pa: bigint;
      readonly size: bigint;
      /** IOMMU_* bits. */
      readonly prot: number;
    }
  | {
      readonly op: 'unmap';
      readonly line: number;
      readonly domain: string;
      readonly iova: bigint;
      readonly size: bigint;
    };

export interface Trace {
  /** As the user named it. */
  readonly name: string;
  readonly source: 'events' | 'ftrace';
  readonly events: readonly TraceEvent[];
  /** Things left out while reading, for people: ftrace text names no domain. */
  readonly notes: readonly string[];
  /** Events left out while reading. */
  readonly leftOut: number;
  /** Permissions were recorded (ftrace text has none: all is read-write). */
  readonly hasProt: boolean;
}

const u64 = z
  .string()
  .regex(/^0x[0-9a-f]{1,16}$/i, 'a 64-bit number as "0x…"')
  .transform((text) => BigInt(text));
const size = u64.refine((value) => value > 0n, 'a size above 0');
const domain = z.string('the name of a domain').min(1, 'the name of a domain');
const eventSchema = z.discriminatedUnion('op', [
  z.object({
    op: z.literal('attach'),
    domain,
    rid: u64.refine((v) => v <= 0xff_ffffn, 'a requester id up to 0xffffff').transform(Number),
  }),
  z.object({
    op: z.literal('map'),
    domain,
    iova: u64,
    pa: u64,
    size,
    iommuProt: z.number('IOMMU_* bits as a number').int().min(0).max(0xff),
  }),
  z.object({ op: z.literal('unmap'), domain, iova: u64, size }),
]);

/** Reads the text of an `events.jsonl`. @throws IommuError `EFORMAT`: file, line, and what was expected there. */
const parseEvents = (text: string, file: string): TraceEvent[] =>
  parseJsonLines(text, file).map(({ line, value }): TraceEvent => {
    const parsed = eventSchema.safeParse(value);
    if (!parsed.success) {
      const issue = parsed.error.issues[0]!;
      const where = issue.path.length === 0 ? '' : ` in "${issue.path.join('.')}"`;
      const expected = issue.path[0] === 'op' ? '"attach", "map" or "unmap"' : issue.message;
      throw inputError(`${file}: line ${line}: expected ${expected}${where}`);
    }
    const event = parsed.data;
    if (event.op === 'attach') return { op: 'attach', line, domain: event.domain, rid: event.rid };
    if (event.iova + event.size > 1n << 64n) {
      throw inputError(
        `${file}: line ${line}: expected a range that ends by 2^64, found ${value['iova']} + ${value['size']}`,
      );
    }
    if (event.op === 'unmap') return { op: 'unmap', line, domain: event.domain, iova: event.iova, size: event.size };
    const { iova, pa } = event;
    if (pa + event.size > 1n << 64n) {
      throw inputError(
        `${file}: line ${line}: expected memory that ends by 2^64, found ${value['pa']} + ${value['size']}`,
      );
    }
    return { op: 'map', line, domain: event.domain, iova, pa, size: event.size, prot: event.iommuProt };
  });

/** Reads the text of a trace, told by its content. */
export const parseTrace = (text: string, name: string): Trace => {
  const start = text.trimStart();
  if (start.startsWith('{')) {
    const format = /^\{[^\n]*?"format"\s*:\s*"([^"]*)"/.exec(start)?.[1];
    if (format !== undefined) {
      throw inputError(`${name}: line 1: expected events or ftrace text, found ${format} (that is for "iommu verify")`);
    }
    return { name, source: 'events', events: parseEvents(text, name), notes: [], leftOut: 0, hasProt: true };
  }
  return parseFtrace(text, name);
};

/** Reads a trace file or snapshot folder. @throws IommuError `EFORMAT`: which file, where, and what was expected. */
export const readTrace = (name: string, shown: string = name): Trace => {
  let file = name;
  let label = shown;
  if (isFolder(name, shown)) {
    const found = findIn(name, 'events.jsonl', 'trace.txt');
    if (found === null) throw inputError(`${shown}: expected events.jsonl(.gz) or trace.txt(.gz) in the folder`);
    file = found;
    label = path.join(shown, path.basename(found));
  }
  const trace = parseTrace(readText(file, label), label);
  if (trace.events.length === 0) throw inputError(`${label}: expected at least one map, unmap or attach event`);
  return { ...trace, name: shown };
};
