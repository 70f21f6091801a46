/**
 * Formats of VT-d: the format suite, and entry values typed from the specification (9.7 First-Stage and 9.8 Second-Stage
 * Paging Entries), not taken from formats.ts.
 */
import { formatConformance } from '@iommu-ts/conformance/suite';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { PROT, PageTable } from '@iommu-ts/page-table';
import type { PageTableConfig } from '@iommu-ts/page-table';
import { describe, expect, it } from 'vitest';
import { VTD_FS_48, VTD_FS_57, VTD_SS_39, VTD_SS_48, VTD_SS_57 } from '../src/formats.ts';

formatConformance([
  { name: 'ss-39', config: { format: VTD_SS_39, ias: 39, oas: 46 } },
  { name: 'ss-48', config: { format: VTD_SS_48, ias: 48, oas: 52 } },
  { name: 'ss-57', config: { format: VTD_SS_57, ias: 57, oas: 52 } },
  { name: 'ss-48-incoherent-snp', config: { format: VTD_SS_48, ias: 48, oas: 52, incoherent: true, snp: true } },
  { name: 'ss-48-4k', config: { format: VTD_SS_48, ias: 48, oas: 52, pageSizes: 0x1000n } },
  { name: 'ss-48-nogaps', config: { format: VTD_SS_48, ias: 48, oas: 52, flushRangeNoGaps: true } },
  { name: 'fs-48', config: { format: VTD_FS_48, ias: 48, oas: 52 } },
  { name: 'fs-57', config: { format: VTD_FS_57, ias: 57, oas: 52 } },
]);

/** Entries on the way to a mapping of `size` bytes at IOVA 0 → `pa`, top first. */
const entries = (config: PageTableConfig, pa: bigint, size: number, prot: number): bigint[] => {
  const memory = new PhysicalMemory([{ base: 0n, size: 1n << 24n }]);
  const table = new PageTable(new IommuPages(memory, new BuddySource(memory)), config);
  expect(table.map(0, 0, Number(pa >> 32n), Number(pa & 0xffff_ffffn), size, prot)).toBe(0);
  // From memory, not from the walk's own record.
  return table.walk(0n).steps.map((step) => memory.readU64(step.entryPa));
};
const last = (list: bigint[]): bigint => list[list.length - 1]!;

describe('second stage, 9.8', () => {
  const config: PageTableConfig = { format: VTD_SS_48, ias: 48, oas: 52 };
  const PA = 0x1_2345_6000n;

  it.each([
    ['R (bit 0)', PROT.READ, 0x1_2345_6001n],
    ['W (bit 1)', PROT.WRITE, 0x1_2345_6002n],
    ['R and W', PROT.READ | PROT.WRITE, 0x1_2345_6003n],
    ['no memory type, no execute', 63, 0x1_2345_6003n],
  ])('%s', (_name, prot, entry) => expect(last(entries(config, PA, 4096, prot))).toBe(entry));

  it('PS is bit 7', () => {
    expect(last(entries(config, 0x4000_0000n, 1 << 21, 3))).toBe(0x4000_0083n);
    expect(last(entries(config, 0x4000_0000n, 1 << 30, 3))).toBe(0x4000_0083n);
    expect(entries(config, 0x4000_0000n, 1 << 30, 3).length).toBe(2);
  });

  it('SNP is bit 11', () => expect(last(entries({ ...config, snp: true }, PA, 4096, 3))).toBe(0x1_2345_6803n));

  it('the address goes up to bit 51', () =>
    expect(last(entries(config, 0xf_ffff_ffff_f000n, 4096, 1))).toBe(0xf_ffff_ffff_f001n));

  it('table entries allow reads and writes; bit 10 marks what was flushed', () => {
    for (const entry of entries(config, PA, 4096, 1).slice(0, -1)) expect(entry & 0xfffn).toBe(0x003n);
    for (const entry of entries({ ...config, incoherent: true }, PA, 4096, 1).slice(0, -1)) {
      expect(entry & 0xfffn).toBe(0x403n);
    }
  });

  it('tells the hardware SSPTPTR and AW', () => {
    const memory = new PhysicalMemory([{ base: 0x10_0000n, size: 1n << 20n }]);
    const pages = new IommuPages(memory, new BuddySource(memory));
    for (const [format, ias, aw] of [
      [VTD_SS_39, 39, 1],
      [VTD_SS_48, 48, 2],
      [VTD_SS_57, 57, 3],
    ] as const) {
      const table = new PageTable(pages, { format, ias, oas: 52 });
      expect(table.hwInfo()).toEqual({ ssptptr: table.root, aw });
    }
  });

  it('FORCE_WRITEABLE refuses what is read-only, after the address check', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 1n << 24n }]);
    const pages = new IommuPages(memory, new BuddySource(memory));
    const table = new PageTable(pages, { format: VTD_SS_48, ias: 48, oas: 46, forceWriteable: true });
    expect(table.map(0, 0, 0, 0, 4096, PROT.READ)).toBe(-22);
    expect(table.map(0, 0, 1 << 14, 0, 4096, PROT.READ)).toBe(-34);
    expect(table.map(0, 0, 0, 0, 4096, PROT.WRITE)).toBe(0);
  });

  it('decodes a leaf by the names of the specification', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 1n << 24n }]);
    const table = new PageTable(new IommuPages(memory, new BuddySource(memory)), config);
    expect(table.decode(0x1_2345_6b83n, 1)).toMatchObject({
      R: 1n,
      W: 1n,
      PS: 1n,
      A: 1n,
      D: 1n,
      SNP: 1n,
      ADDR: 0x12_3456n,
    });
    expect(table.protOf(0x1_2345_6001n)).toEqual({ read: true, write: false });
    expect(table.protOf(0x1_2345_6002n)).toEqual({ read: false, write: true });
  });
});

describe('first stage, 9.7', () => {
  const config: PageTableConfig = { format: VTD_FS_48, ias: 48, oas: 52 };

  it.each([
    ['P, U/S, A', PROT.READ, 4096, 0x4000_0025n],
    ['R/W and D', PROT.READ | PROT.WRITE, 4096, 0x4000_0067n],
    ['write-only cannot be said', PROT.WRITE, 4096, 0x4000_0067n],
    ['no XD, no PWT, no PCD', 63, 4096, 0x4000_0067n],
    ['PS, 2 MiB', PROT.READ, 1 << 21, 0x4000_00a5n],
    ['PS, 1 GiB', PROT.READ | PROT.WRITE, 1 << 30, 0x4000_00e7n],
  ])('%s', (_name, prot, size, entry) => expect(last(entries(config, 0x4000_0000n, size, prot))).toBe(entry));

  it('table entries: P, R/W, U/S, A; bit 9 marks what was flushed', () => {
    for (const entry of entries(config, 0n, 4096, 1).slice(0, -1)) expect(entry & 0xfffn).toBe(0x027n);
    for (const entry of entries({ ...config, incoherent: true }, 0n, 4096, 1).slice(0, -1)) {
      expect(entry & 0xfffn).toBe(0x227n);
    }
  });
});
