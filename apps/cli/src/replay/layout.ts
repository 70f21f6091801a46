/**
 * Physical memory for a replay: RAM under every address of the trace that is RAM, stubs under doorbells and other
 * addresses that are not, and RAM for our own tables and queues above all of them.
 */
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { PROT } from '@iommu-ts/page-table';
import type { Trace } from './trace.ts';

/** A half-open range of physical addresses. */
export interface Span {
  readonly start: bigint;
  readonly end: bigint;
}

const PAGE = 4096n;
const MIB2 = 0x20_0000n;
const GIB = 1n << 30n;
/** Room for tables and queues: the first of these that fits. */
const TABLE_ROOMS = [GIB, 0x1000_0000n, 0x400_0000n, 0x100_0000n] as const;
/** Interrupt messages of x86 (Intel SDM vol. 3, 11.11.1): never RAM. */
export const X86_MSI: Span = { start: 0xfee0_0000n, end: 0xfef0_0000n };

const floor = (value: bigint, to: bigint): bigint => value - (value % to);
const ceil = (value: bigint, to: bigint): bigint => floor(value + to - 1n, to);

/** Sorted, overlapping and touching ones joined. */
export const joinSpans = (spans: readonly Span[]): Span[] => {
  const sorted = spans.toSorted((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  const out: { start: bigint; end: bigint }[] = [];
  for (const { start, end } of sorted) {
    const last = out.at(-1);
    if (last !== undefined && start <= last.end) {
      if (end > last.end) last.end = end;
    } else out.push({ start, end });
  }
  return out;
};

/** `spans` without what `holes` cover; both sorted and disjoint. */
const subtract = (spans: readonly Span[], holes: readonly Span[]): Span[] => {
  const out: Span[] = [];
  for (const span of spans) {
    let { start } = span;
    for (const hole of holes) {
      if (hole.end <= start || hole.start >= span.end) continue;
      if (hole.start > start) out.push({ start, end: hole.start });
      start = hole.end;
    }
    if (start < span.end) out.push({ start, end: span.end });
  }
  return out;
};

/** What the physical addresses of a trace are. */
export interface Survey {
  /** Stretches that mappings lead to. */
  readonly seen: readonly Span[];
  /** RAM: everything between the lowest and the highest of them that is no device. */
  readonly ram: readonly Span[];
  readonly mmio: readonly Span[];
}

/** Tells RAM from doorbells: by IOMMU_MMIO where permissions were recorded, by place where not. */
export const survey = (trace: Trace): Survey => {
  const spans: { span: Span; mmio: boolean }[] = [];
  let high = 0;
  let maps = 0;
  for (const event of trace.events) {
    if (event.op !== 'map') continue;
    const span = { start: floor(event.pa, PAGE), end: ceil(event.pa + event.size, PAGE) };
    spans.push({ span, mmio: (event.prot & PROT.MMIO) !== 0 });
    maps++;
    if (event.pa >= GIB) high++;
  }
  // Text without permissions: a machine whose RAM begins at 1 GiB or above has devices below it (Arm, RISC-V boards).
  const devicesBelow = !trace.hasProt && high > 0 && high >= 0.95 * maps;
  const isMmio = (s: { span: Span; mmio: boolean }): boolean => s.mmio || (devicesBelow && s.span.start < GIB);
  const devices = spans.filter((s) => isMmio(s)).map((s) => s.span);
  const msi = spans.some(({ span }) => span.start < X86_MSI.end && span.end > X86_MSI.start);
  const mmio = joinSpans(msi ? [...devices, X86_MSI] : devices);
  const seen = joinSpans(
    spans.filter((s) => !isMmio(s)).map(({ span }) => ({ start: floor(span.start, MIB2), end: ceil(span.end, MIB2) })),
  );
  const whole = seen.length === 0 ? [] : [{ start: seen[0]!.start, end: seen.at(-1)!.end }];
  return { seen, ram: subtract(whole, mmio), mmio };
};

/** One store that a stub has seen. */
export interface DoorbellWrite {
  readonly address: bigint;
  readonly size: number;
  readonly value: bigint;
}

/** What stands in for the devices behind doorbell addresses: records stores, answers loads by a pattern. */
export class Doorbells {
  /** Stores so far. */
  count = 0;
  last: DoorbellWrite | null = null;

  write(address: bigint, size: number, value: bigint): void {
    this.count++;
    this.last = { address, size, value };
  }

  /** What a load of `size` bytes at `address` gives. */
  read(address: bigint, size: number): bigint {
    return BigInt.asUintN(8 * size, (address ^ 0x5ca1_ab1en) * 0x9e37_79b9n);
  }
}

/** Memory for one driver's run. */
export interface Layout {
  readonly memory: PhysicalMemory;
  readonly doorbells: Doorbells;
  /** RAM of the trace: where DMA may go. */
  readonly ram: readonly Span[];
  /** Its doorbells and other devices. */
  readonly mmio: readonly Span[];
  /** Where tables and queues lie. */
  readonly tables: { readonly base: bigint; readonly size: bigint };
}

/** True when the whole of `[start, end)` lies in one of `spans`. */
export const covers = (spans: readonly Span[], start: bigint, end: bigint): boolean =>
  spans.some((s) => s.start <= start && end <= s.end);

/** Place for the tables: above everything of the trace that a unit with `oas` address bits can reach at all. */
const tableRoom = (surveyed: Survey, oas: number): { readonly base: bigint; readonly size: bigint } => {
  const limit = 1n << BigInt(oas);
  const taken = joinSpans([...surveyed.seen, ...surveyed.mmio]).filter((s) => s.start < limit);
  for (const size of TABLE_ROOMS) {
    const above = ceil(taken.at(-1)?.end ?? 0n, size);
    if (above + size <= limit) return { base: above, size };
    // No room above: the highest gap that is large enough.
    for (let i = taken.length - 1; i >= 0; i--) {
      const base = floor(taken[i]!.start, size) - size;
      if (base >= (i === 0 ? 0n : taken[i - 1]!.end)) return { base, size };
    }
  }
  // The trace maps all there is: the top is ours, and DMA to it is not asked for.
  return { base: limit - GIB, size: GIB };
};

/** Lays out memory for a unit whose physical addresses have `oas` bits. */
export const layOut = (surveyed: Survey, oas: number): Layout => {
  const tables = tableRoom(surveyed, oas);
  const room = { start: tables.base, end: tables.base + tables.size };
  const memory = new PhysicalMemory([{ base: tables.base, size: tables.size }]);
  const ram = subtract(surveyed.ram, [room]);
  for (const { start, end } of ram) memory.addRam({ base: start, size: end - start, kind: 'sparse' });
  const doorbells = new Doorbells();
  for (const { start, end } of subtract(surveyed.mmio, [room])) {
    memory.addMmio({
      name: 'doorbell',
      base: start,
      size: end - start,
      handler: {
        read: (offset, size) => doorbells.read(start + BigInt(offset), size),
        write: (offset, size, value) => doorbells.write(start + BigInt(offset), size, value),
      },
    });
  }
  return { memory, doorbells, ram, mmio: subtract(surveyed.mmio, [room]), tables };
};
