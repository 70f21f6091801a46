/**
 * Formats of AMD-Vi: the format suite, and entry values typed from the specification (AMD IOMMU 2.2.3; APM Vol. 2 5.3),
 * not taken from formats.ts.
 */
import { formatConformance } from '@iommu-ts/conformance/suite';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { GatherRecord, PROT, PageTable } from '@iommu-ts/page-table';
import type { PageTableConfig } from '@iommu-ts/page-table';
import { describe, expect, it } from 'vitest';
import { AMD_V1, AMD_V2_47, AMD_V2_56 } from '../src/formats.ts';

formatConformance([
  { name: 'v1-32', config: { format: AMD_V1, ias: 32, oas: 40, topLevel: 1 } },
  { name: 'v1-48', config: { format: AMD_V1, ias: 48, oas: 52 } },
  { name: 'v1-64', config: { format: AMD_V1, ias: 64, oas: 52 } },
  { name: 'v1-64-4k2m1g', config: { format: AMD_V1, ias: 64, oas: 48, pageSizes: 0x4020_1000n } },
  { name: 'v1-48-nogaps', config: { format: AMD_V1, ias: 48, oas: 52, flushRangeNoGaps: true } },
  { name: 'v2-47', config: { format: AMD_V2_47, ias: 47, oas: 52 } },
  { name: 'v2-56', config: { format: AMD_V2_56, ias: 56, oas: 52 } },
]);

const fresh = (config: PageTableConfig): { memory: PhysicalMemory; table: PageTable } => {
  const memory = new PhysicalMemory([{ base: 0n, size: 1n << 24n }]);
  return { memory, table: new PageTable(new IommuPages(memory, new BuddySource(memory)), config) };
};
/** Entries on the way to a mapping of `size` bytes at `iova` → `pa`, top first, read from memory. */
const entries = (config: PageTableConfig, iova: bigint, pa: bigint, size: number, prot: number): bigint[] => {
  const { memory, table } = fresh(config);
  const words = [iova, pa].flatMap((a) => [Number(a >> 32n), Number(a & 0xffff_ffffn)]) as [
    number,
    number,
    number,
    number,
  ];
  expect(table.map(...words, size, prot)).toBe(0);
  return table.walk(iova).steps.map((step) => memory.readU64(step.entryPa));
};
const last = (list: bigint[]): bigint => list[list.length - 1]!;

describe('v1, 2.2.3', () => {
  const config: PageTableConfig = { format: AMD_V1, ias: 48, oas: 52 };
  const PR = 1n;
  const FC = 1n << 60n;
  const IR = 1n << 61n;
  const IW = 1n << 62n;

  it.each([
    ['IR, bit 61', PROT.READ, PR | FC | IR],
    ['IW, bit 62', PROT.WRITE, PR | FC | IW],
    ['both', PROT.READ | PROT.WRITE, PR | FC | IR | IW],
    ['nothing else', 63, PR | FC | IR | IW],
  ])('leaf: %s', (_name, prot, bits) =>
    expect(last(entries(config, 0n, 0x1_2345_6000n, 4096, prot))).toBe(0x1_2345_6000n | bits),
  );

  // NextLevel is bits 11:9. A level's own size has 0; any other has 7, and a run of ones from bit 12 tells the size:
  // the lowest zero is bit (log2(size) - 1).
  it.each([
    [0x1000, 0x8000_0000n],
    [0x2000, 0x8000_0e00n],
    [0x4000, 0x8000_1e00n],
    [0x8000, 0x8000_3e00n],
    [0x1_0000, 0x8000_7e00n],
    [0x10_0000, 0x8007_fe00n],
    [0x20_0000, 0x8000_0000n],
    [0x40_0000, 0x801f_fe00n],
    [0x80_0000, 0x803f_fe00n],
    [0x4000_0000, 0x8000_0000n],
    [0x8000_0000, 0xbfff_fe00n],
  ])('size %d', (size, address) =>
    expect(last(entries(config, 0x8000_0000n, 0x8000_0000n, size, 3))).toBe(address | PR | FC | IR | IW),
  );

  it('a size between two levels is repeated in the lower one', () => {
    const { memory, table } = fresh(config);
    expect(table.map(0, 0x8000, 0, 0x1_0000, 0x8000, 3)).toBe(0);
    const { tablePa } = table.walk(0x8000n).steps[2]!;
    const entry = (i: number): bigint => memory.readU64(tablePa + BigInt(8 * i));
    for (let i = 8; i < 16; i++) expect(entry(i)).toBe(0x1_3e00n | PR | FC | IR | IW);
    expect([entry(7), entry(16)]).toEqual([0n, 0n]);
    const [leaf] = [...table.leaves()];
    expect(leaf).toMatchObject({ iova: 0x8000n, pa: 0x1_0000n, size: 0x8000n, level: 0 });
    // A range that ends inside takes it whole.
    expect(table.unmap(0, 0x8000, 4096, new GatherRecord())).toBe(0x8000);
    for (let i = 8; i < 16; i++) expect(entry(i)).toBe(0n);
  });

  it('512 GiB is made of 256 GiB leaves', () => {
    const { table } = fresh(config);
    expect(table.map(0x80, 0, 0x80, 0, 2 ** 39, 3)).toBe(0);
    expect([...table.leaves()].map((leaf) => leaf.size)).toEqual([1n << 38n, 1n << 38n]);
  });

  it('table entries: PR, IR, IW, no FC, NextLevel is the level of the table below counted from 1', () => {
    const list = entries({ ...config, ias: 64, topLevel: 5 }, 0n, 0n, 4096, 1).slice(0, -1);
    expect(list.map((entry) => (entry >> 9n) & 7n)).toEqual([5n, 4n, 3n, 2n, 1n]);
    for (const entry of list) expect(entry & 0xfff0_0000_0000_01ffn).toBe(PR | IR | IW);
  });

  it('tells the hardware the root and the mode', () => {
    const { table } = fresh(config);
    expect(table.hwInfo()).toEqual({ host_pt_root: table.root, mode: 3 });
    expect(table.map(0x80, 0, 0, 0, 4096, 3)).toBe(0);
    expect(table.hwInfo()).toEqual({ host_pt_root: table.root, mode: 4 });
  });
});

describe('v2, x86-64', () => {
  const config: PageTableConfig = { format: AMD_V2_47, ias: 47, oas: 52 };

  it('leaves and tables', () => {
    expect(last(entries(config, 0n, 0x4000_0000n, 4096, PROT.READ))).toBe(0x4000_0025n);
    expect(last(entries(config, 0n, 0x4000_0000n, 1 << 21, 3))).toBe(0x4000_00e7n);
    for (const entry of entries(config, 0n, 0n, 4096, 1).slice(0, -1)) expect(entry & 0xfffn).toBe(0x027n);
  });

  it('has no upper half', () => {
    const { table } = fresh(config);
    expect(table.map(0xffff_8000, 0, 0, 0, 4096, 3)).toBe(-34);
    expect(table.hwInfo()).toEqual({ gcr3_pt: table.root, levels: 4 });
  });
});
