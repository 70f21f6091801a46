/** Rows of a whole system: device, bus, emulated IOMMU, driver. */
import { compileFunction } from 'node:vm';
import type { DriverHarness, IommuHardware, IommuSystem, PagingDomain, SystemOptions } from '@iommu-ts/iommu-core';
import { ACCESS, NO_PASID } from '@iommu-ts/iommu-core';
import { BuddySource, IommuPages } from '@iommu-ts/iommu-pages';
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { PROT } from '@iommu-ts/page-table';
import { now, Random } from './stats.ts';
import { GIB } from './table-rows.ts';
import type { Row, Scale } from './table-rows.ts';

const RW = PROT.READ | PROT.WRITE;
const REQUESTER = 1;
/** Pages that fit every IOTLB geometry used here. */
const HOT_PAGES = 64;

/** One driver with its hardware on flat memory, and a domain with a device attached. */
export class SystemRig {
  readonly system: IommuSystem;
  readonly domain: PagingDomain;
  readonly granuleLg2: number;
  readonly dataPfn: number;

  constructor(memory: PhysicalMemory, harness: DriverHarness, options: SystemOptions = {}) {
    const half = BigInt(memory.ranges[0]!.endPfn) * 2048n;
    const pages = new IommuPages(memory, new BuddySource(memory, [{ base: 0x100_0000n, size: half - 0x100_0000n }]));
    this.system = harness.createSystem({ memory, pages, mode: 'strict', ...options });
    this.domain = this.system.driver.createDomain();
    this.system.driver.attach(REQUESTER, this.domain);
    this.granuleLg2 = this.system.driver.info.granuleLg2;
    this.dataPfn = Number(half >> 12n);
  }

  /** Maps `bytes` at 1 GiB to the data half of the memory (over and over where that is smaller), granule by granule. */
  map(bytes: number): void {
    const granule = 2 ** this.granuleLg2;
    const dataBytes = Math.min(this.dataPfn * 4096, GIB);
    for (let at = 0; at < bytes; at += granule) {
      const pa = this.dataPfn * 4096 + (at % dataBytes);
      const errno = this.domain.mapWords(0, GIB + at, Math.floor(pa / 2 ** 32), pa | 0, granule, RW);
      if (errno !== 0) throw new Error(`map: errno ${errno}`);
    }
  }

  release(): void {
    this.system.driver.detach(REQUESTER);
    this.domain.free();
    this.system.driver.release();
  }
}

/** Translates IOVAs below 4 GiB, over and over up to `count`; returns 0 when none was refused. */
type TranslateAll = (hardware: IommuHardware, iovas: Int32Array, count: number) => number;

/**
 * The measuring loop, compiled anew for each driver: one loop for all would itself meet five classes, and its slow calls
 * would be taken for the library's.
 */
const translateAllOf = (driver: string): TranslateAll =>
  compileFunction(
    `// ${driver}
    const mask = iovas.length - 1;
    let refused = 0;
    for (let i = 0; i < count; i++) refused |= hardware.translate(${REQUESTER}, ${NO_PASID}, 0, iovas[i & mask], ${ACCESS.READ});
    return refused;`,
    ['hardware', 'iovas', 'count'],
  ) as TranslateAll;

/** IOVAs of random bytes in the first `pages` granules. */
const iovasIn = (rig: SystemRig, pages: number, count: number): Int32Array => {
  const random = new Random(7);
  return Int32Array.from({ length: count }, () => GIB + random.below(pages << rig.granuleLg2));
};

/** Maker of a row that translates: `bytes` mapped (0: {@link HOT_PAGES} granules), the system as `options` say. */
const translateRow =
  (memory: PhysicalMemory, harness: DriverHarness, scale: Scale, name: string, bytes: number, options: SystemOptions) =>
  (): { row: Row; rig: SystemRig } => {
    const rig = new SystemRig(memory, harness, options);
    const size = bytes === 0 ? HOT_PAGES << rig.granuleLg2 : bytes;
    rig.map(size);
    const iovas = iovasIn(rig, size >>> rig.granuleLg2, Math.min(1 << 16, scale.lookups));
    const { hardware } = rig.system;
    const translateAll = translateAllOf(harness.name);
    const row: Row = {
      name,
      ops: scale.lookups,
      per: 'call',
      pass() {
        const start = now();
        const refused = translateAll(hardware, iovas, scale.lookups);
        const ns = now() - start;
        if (refused !== 0) throw new Error(`translations were refused (${refused})`);
        return ns;
      },
    };
    return { row, rig };
  };

/** Rows of one driver with its default format. */
export const systemRows = (
  memory: PhysicalMemory,
  harness: DriverHarness,
  scale: Scale,
  options: SystemOptions = {},
): { readonly name: string; make(): { row: Row; rig: SystemRig } }[] => [
  { name: 'translate-hit', make: translateRow(memory, harness, scale, 'translate-hit', 0, options) },
  {
    // 64 MiB of pages through an IOTLB of 256 entries: hardly ever a hit, and every miss evicts.
    name: 'translate-miss',
    make: translateRow(memory, harness, scale, 'translate-miss', scale.small, options),
  },
  {
    // The same addresses as translate-hit with no IOTLB: a walk each, tables in the host's cache.
    name: 'translate-walk',
    make: translateRow(memory, harness, scale, 'translate-walk', 0, { ...options, iotlb: { mode: 'none' } }),
  },
  {
    name: 'dma-4k',
    make() {
      const rig = new SystemRig(memory, harness, options);
      rig.map(HOT_PAGES << rig.granuleLg2);
      const pages = (HOT_PAGES << rig.granuleLg2) >>> 12;
      const buffer = new Uint8Array(4096).fill(0x5a);
      const ops = Math.max(1, scale.lookups >>> 4);
      const row: Row = {
        name: 'dma-4k',
        ops,
        per: 'call',
        pass() {
          const { bus } = rig.system;
          let bad = 0;
          const start = now();
          for (let i = 0; i < ops; i++) {
            const page = (i * 37) % pages;
            // By turns a write and a read of one whole page.
            const access = (i & 1) === 0 ? ACCESS.WRITE : ACCESS.READ;
            bad |= bus.transfer(REQUESTER, NO_PASID, 0, GIB + page * 4096, access, buffer, 0, 4096);
          }
          const ns = now() - start;
          if (bad !== 0) throw new Error(`DMA was refused (${bad})`);
          return ns;
        },
      };
      return { row, rig };
    },
  },
  {
    name: 'map-sync-unmap-strict',
    make() {
      const rig = new SystemRig(memory, harness, options);
      const granule = 2 ** rig.granuleLg2;
      const ops = Math.max(1, scale.lookups >>> 4);
      const row: Row = {
        name: 'map-sync-unmap-strict',
        ops,
        per: 'call',
        pass() {
          const { domain } = rig;
          const pa = rig.dataPfn * 4096;
          let bad = 0;
          const start = now();
          for (let i = 0; i < ops; i++) {
            const at = (i & 1023) * granule;
            bad |= domain.mapWords(0, GIB + at, Math.floor(pa / 2 ** 32), pa | 0, granule, RW);
            if (domain.unmapWords(0, GIB + at, granule) !== granule) bad |= 1;
          }
          const ns = now() - start;
          if (bad !== 0) throw new Error(`map or unmap failed (${bad})`);
          return ns;
        },
      };
      return { row, rig };
    },
  },
];
