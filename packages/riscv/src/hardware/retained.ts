/**
 * What the adversarial device (IOTLB mode `'retain'`) keeps beyond the IOTLB: every entry that the specification allows in an
 * IOATC (section "Caching in-memory data structures"), without bound, until a command that is defined to drop it.
 *
 * - Directory entries (non-leaf and leaf, of DDT and PDT) by device_id and process_id: dropped by IODIR commands alone.
 *   INVAL_DDT with DV=1 drops the device context and all of the device's PDT entries, but no non-leaf DDT entry;
 *   INVAL_PDT drops one process context, but no non-leaf PDT entry. Neither IOTINVAL nor a write of `ddtp` drops any.
 * - Non-leaf PTEs of each stage by themselves (the first stage by address space and IOVA, the second by GSCID and GPA):
 *   dropped by IOTINVAL with AV=0, or with AV=1 and NL=1; with AV=1 alone they stay.
 * - MSI PTEs by GSCID and GPA, dropped by IOTINVAL.GVMA.
 *
 * Not kept: what has V=0 (forbidden), what is misconfigured or refused an access, and leaves of the second stage that the walk
 * of a first stage went through (they are read anew each time). Non-leaf entries under a global mapping go with their PSCID.
 */
import { WalkCache } from '@iommu-ts/iommu-core';

/** Keys of process-directory entries: device_id above 22 bits of process_id prefix and level. */
const PDT_DEVICE = 2 ** 22;
const keyOfPdt = (did: number, level: number, prefix: number): number => did * PDT_DEVICE + prefix * 4 + level;

/** Directory entries and MSI PTEs as words, as they stood in memory when they were read. */
export class RetainedStructures {
  readonly #devices = new Map<number, Int32Array>();
  /** Non-leaf DDT entries: page of the table of `level`, by `level` and the device_id bits above its index. */
  readonly #deviceTables = new Map<number, number>();
  /** Process contexts (level 0) and non-leaf PDT entries (the words of the entry that points to the table of `level`). */
  readonly #processes = new Map<number, Int32Array>();
  readonly #msi = new Map<number, Map<number, Int32Array>>();

  /** Words of the device context, or undefined. */
  device(did: number): Int32Array | undefined {
    return this.#devices.get(did);
  }
  keepDevice(did: number, view: Int32Array, at: number, words: number): void {
    this.#devices.set(did, view.slice(at, at + words));
  }

  /** Page of the DDT table of `level` for devices with this prefix, or -1. */
  deviceTable(level: number, prefix: number): number {
    return this.#deviceTables.get(prefix * 4 + level) ?? -1;
  }
  keepDeviceTable(level: number, prefix: number, pfn: number): void {
    this.#deviceTables.set(prefix * 4 + level, pfn);
  }

  /** Words of the process context of (`did`, `pid`), or undefined. */
  process(did: number, pid: number): Int32Array | undefined {
    return this.#processes.get(keyOfPdt(did, 0, pid));
  }
  keepProcess(did: number, pid: number, view: Int32Array, at: number): void {
    this.#processes.set(keyOfPdt(did, 0, pid), view.slice(at, at + 4));
  }

  /** Words of the PDT entry that points to the table of `level - 1` for process_ids with this prefix. */
  processTable(did: number, level: number, prefix: number): Int32Array | undefined {
    return this.#processes.get(keyOfPdt(did, level, prefix));
  }
  keepProcessTable(did: number, level: number, prefix: number, lo: number, hi: number): void {
    this.#processes.set(keyOfPdt(did, level, prefix), Int32Array.of(lo, hi));
  }

  /** Words of the MSI PTE of guest page `gpaPfn`, or undefined. */
  msi(gscid: number, gpaPfn: number): Int32Array | undefined {
    return this.#msi.get(gscid)?.get(gpaPfn);
  }
  keepMsi(gscid: number, gpaPfn: number, words: Int32Array): void {
    const known = this.#msi.get(gscid);
    if (known === undefined) this.#msi.set(gscid, new Map([[gpaPfn, words]]));
    else known.set(gpaPfn, words);
  }

  /** Entries kept, all kinds together. */
  get size(): number {
    let n = this.#devices.size + this.#deviceTables.size + this.#processes.size;
    for (const guest of this.#msi.values()) n += guest.size;
    return n;
  }

  /** IODIR.INVAL_DDT with DV=0: all DDT and PDT entries. */
  dropDirectory(): void {
    this.#devices.clear();
    this.#deviceTables.clear();
    this.#processes.clear();
  }

  /** IODIR.INVAL_DDT with DV=1. */
  dropDevice(did: number): void {
    this.#devices.delete(did);
    for (const key of this.#processes.keys()) if (Math.floor(key / PDT_DEVICE) === did) this.#processes.delete(key);
  }

  /** IODIR.INVAL_PDT. */
  dropProcess(did: number, pid: number): void {
    this.#processes.delete(keyOfPdt(did, 0, pid));
  }

  /** MSI PTEs of a guest (`gscid` < 0: of all) at guest pages `first` … `last`. */
  dropMsi(gscid: number, first: number, last: number): void {
    for (const [id, guest] of this.#msi) {
      if (gscid >= 0 && id !== gscid) continue;
      for (const pfn of guest.keys()) if (pfn >= first && pfn <= last) guest.delete(pfn);
    }
  }

  clear(): void {
    this.dropDirectory();
    this.#msi.clear();
  }
}

/** `extra` of an IOTLB entry that is a leaf of a host address space, not global: it needs no {@link LeafOrigin}. */
export const OWN_LEAF = -1;

/** Where any other IOTLB entry came from: the leaves of its stages, in 4 KiB pages, inclusive. */
export interface LeafOrigin {
  readonly global: boolean;
  /** IOVAs of the first stage's leaf; first > last without a first stage. */
  readonly firstIova: number;
  readonly lastIova: number;
  /** GPAs of the second stage's leaf; first > last without a second stage. */
  readonly firstGpa: number;
  readonly lastGpa: number;
}

/** All that mode `'retain'` adds to the IOTLB. */
export class Retained {
  readonly structures = new RetainedStructures();
  /** Non-leaf PTEs: first stage by address-space tag and IOVA, second stage by GSCID and GPA. */
  readonly first = new WalkCache();
  readonly second = new WalkCache();
  /** A global leaf may be in the IOTLB. */
  anyGlobal = false;
  /** By `extra` of IOTLB entries. */
  readonly #origins: LeafOrigin[] = [];
  readonly #known = new Map<string, number>();

  /** `extra` for an IOTLB entry of this origin. */
  extraOf(origin: LeafOrigin): number {
    const { global, firstIova, lastIova, firstGpa, lastGpa } = origin;
    const key = `${global} ${firstIova} ${lastIova} ${firstGpa} ${lastGpa}`;
    if (global) this.anyGlobal = true;
    let extra = this.#known.get(key);
    if (extra === undefined) {
      extra = this.#origins.length;
      this.#known.set(key, extra);
      this.#origins.push(origin);
    }
    return extra;
  }

  /** What `extra` stands for; undefined for {@link OWN_LEAF}. */
  origin(extra: number): LeafOrigin | undefined {
    return this.#origins[extra];
  }

  clear(): void {
    this.structures.clear();
    this.first.invalidate();
    this.second.invalidate();
    this.#origins.length = 0;
    this.#known.clear();
    this.anyGlobal = false;
  }
}
