/**
 * The kernel's plain ftrace text of the `iommu` events (include/trace/events/iommu.h). It names no domain: everything is
 * played in one domain, read-write, and what collides there is left out and counted.
 */
import { PROT } from '@iommu-ts/page-table';
import { inputError } from '../input.ts';
import type { Trace, TraceEvent } from './trace.ts';

const DOMAIN = 'trace';
const MAP =
  /\bmap: IOMMU: iova=(0x[0-9a-f]{1,16})(?: - 0x[0-9a-f]{1,16})? paddr=(0x[0-9a-f]{1,16}) size=(0x[0-9a-f]{1,16}|\d{1,19})/;
const UNMAP = /\bunmap: IOMMU: iova=(0x[0-9a-f]{1,16})(?: - 0x[0-9a-f]{1,16})? size=(0x[0-9a-f]{1,16}|\d{1,19})/;
const ATTACH = /\battach_device_to_domain: IOMMU: device=(?:[0-9a-f]{4,}:)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])/;

/** Live ranges of the one domain, sorted by start. */
class Live {
  readonly #starts: bigint[] = [];
  readonly #ends: bigint[] = [];

  #at(value: bigint): number {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const mid = (low + high) >>> 1;
      if (this.#starts[mid]! < value) low = mid + 1;
      else high = mid;
    }
    return low;
  }

  touches(start: bigint, end: bigint): boolean {
    const at = this.#at(start);
    return (at < this.#starts.length && this.#starts[at]! < end) || (at > 0 && this.#ends[at - 1]! > start);
  }

  add(start: bigint, end: bigint): void {
    const at = this.#at(start);
    this.#starts.splice(at, 0, start);
    this.#ends.splice(at, 0, end);
  }

  /** Takes `[start, end)` out, cutting what reaches over. */
  remove(start: bigint, end: bigint): void {
    let at = this.#at(start);
    if (at > 0 && this.#ends[at - 1]! > start) at--;
    while (at < this.#starts.length && this.#starts[at]! < end) {
      const [from, to] = [this.#starts[at]!, this.#ends[at]!];
      this.#starts.splice(at, 1);
      this.#ends.splice(at, 1);
      if (from < start) {
        this.#starts.splice(at, 0, from);
        this.#ends.splice(at, 0, start);
        at++;
      }
      if (to > end) {
        this.#starts.splice(at, 0, end);
        this.#ends.splice(at, 0, to);
        at++;
      }
    }
  }
}

/** Reads ftrace text. @throws IommuError `EFORMAT` when not one line of it is an event of the `iommu` group. */
export const parseFtrace = (text: string, name: string): Trace => {
  const events: TraceEvent[] = [];
  const live = new Live();
  let collisions = 0;
  let orphans = 0;
  let line = 0;
  for (const row of text.split('\n')) {
    line++;
    if (!row.includes('IOMMU:')) continue;
    const unmap = UNMAP.exec(row);
    if (unmap !== null) {
      const iova = BigInt(unmap[1]!);
      const size = BigInt(unmap[2]!);
      if (size === 0n || iova + size > 1n << 64n)
        throw inputError(`${name}: line ${line}: expected a range that ends by 2^64`);
      if (!live.touches(iova, iova + size)) orphans++;
      else {
        live.remove(iova, iova + size);
        events.push({ op: 'unmap', line, domain: DOMAIN, iova, size });
      }
      continue;
    }
    const map = MAP.exec(row);
    if (map !== null) {
      const iova = BigInt(map[1]!);
      const pa = BigInt(map[2]!);
      const size = BigInt(map[3]!);
      if (size === 0n || iova + size > 1n << 64n || pa + size > 1n << 64n) {
        throw inputError(`${name}: line ${line}: expected a range that ends by 2^64`);
      }
      if (live.touches(iova, iova + size)) collisions++;
      else {
        live.add(iova, iova + size);
        events.push({ op: 'map', line, domain: DOMAIN, iova, pa, size, prot: PROT.READ | PROT.WRITE });
      }
      continue;
    }
    const attach = ATTACH.exec(row);
    if (attach !== null) {
      const [bus, device, fn] = attach.slice(1).map((part) => Number.parseInt(part, 16));
      events.push({ op: 'attach', line, domain: DOMAIN, rid: (bus! << 8) | (device! << 3) | fn! });
    }
  }
  if (events.length === 0) {
    throw inputError(
      `${name}: expected events (JSON lines), a snapshot folder, or ftrace text with "map: IOMMU:" lines; found none of them`,
    );
  }
  // A trace that begins after the devices were attached still needs one to make the DMA.
  const attached = events.some((event) => event.op === 'attach');
  if (!attached) events.unshift({ op: 'attach', line: 0, domain: DOMAIN, rid: 0x10 });
  const notes = ['ftrace text names no domain and no permissions: all is played in one domain, read-write'];
  if (collisions > 0) notes.push(`${collisions} maps left out: their IOVA was in use (they belong to other domains)`);
  if (orphans > 0) notes.push(`${orphans} unmaps left out: nothing was mapped there`);
  if (!attached) notes.push('no device was attached in it: requester 0x10 stands in');
  return { name, source: 'ftrace', events, notes, leftOut: collisions + orphans, hasProt: false };
};
