/**
 * Formats of the Arm SMMU: the format suite, and descriptors typed from the Arm Architecture Reference Manual (DDI 0487,
 * D8.3), not taken from formats.ts.
 */
import { formatConformance } from '@iommu-ts/conformance/suite';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { PROT, PageTable } from '@iommu-ts/page-table';
import type { PageTableConfig } from '@iommu-ts/page-table';
import { describe, expect, it } from 'vitest';
import { ARM_S1_16K, ARM_S1_4K, ARM_S1_64K, ARM_S2_16K, ARM_S2_4K, ARM_S2_64K } from '../src/formats.ts';

formatConformance([
  { name: 's1-4k-48', config: { format: ARM_S1_4K, ias: 48, oas: 48 } },
  { name: 's1-4k-39', config: { format: ARM_S1_4K, ias: 39, oas: 40 } },
  { name: 's1-4k-48-ttbr1', config: { format: ARM_S1_4K, ias: 48, oas: 48, ttbr1: true } },
  { name: 's1-4k-48-incoherent', config: { format: ARM_S1_4K, ias: 48, oas: 48, incoherent: true } },
  { name: 's1-16k-36', config: { format: ARM_S1_16K, ias: 36, oas: 40 } },
  { name: 's1-16k-48', config: { format: ARM_S1_16K, ias: 48, oas: 48 } },
  { name: 's1-64k-48', config: { format: ARM_S1_64K, ias: 48, oas: 48 } },
  { name: 's1-64k-52', config: { format: ARM_S1_64K, ias: 52, oas: 52 } },
  { name: 's2-4k-40', config: { format: ARM_S2_4K, ias: 40, oas: 40 } },
  { name: 's2-4k-48', config: { format: ARM_S2_4K, ias: 48, oas: 48 } },
  { name: 's2-16k-40', config: { format: ARM_S2_16K, ias: 40, oas: 40 } },
  { name: 's2-64k-52', config: { format: ARM_S2_64K, ias: 52, oas: 52 } },
]);

const fresh = (config: PageTableConfig): { memory: PhysicalMemory; table: PageTable } => {
  const memory = new PhysicalMemory([{ base: 0n, size: 1n << 26n }]);
  return { memory, table: new PageTable(new IommuPages(memory, new BuddySource(memory)), config) };
};
/** Descriptors on the way to a mapping of `size` bytes at IOVA 0 → `pa`, top first, read from memory. */
const descriptors = (config: PageTableConfig, pa: bigint, size: number, prot: number): bigint[] => {
  const { memory, table } = fresh(config);
  expect(table.map(0, 0, Number(pa >> 32n), Number(pa & 0xffff_ffffn), size, prot)).toBe(0);
  return table.walk(0n).steps.map((step) => memory.readU64(step.entryPa));
};
const last = (list: bigint[]): bigint => list[list.length - 1]!;
const XN = 3n << 53n;

const { READ, WRITE, CACHE, MMIO, PRIV, NOEXEC } = PROT;
const RW = READ | WRITE;
const PA = 0x1234_5600_0000n;

describe('stage 1, D8.3', () => {
  const config: PageTableConfig = { format: ARM_S1_4K, ias: 48, oas: 48 };
  // type 1:0, AttrIndx 4:2, NS 5, AP[2:1] 7:6, SH 9:8, AF 10, nG 11, DBM 51, PXN 53, UXN 54
  it.each([
    ['read', READ, 0xec3n],
    ['write', WRITE, 0xe43n],
    ['read and write', RW, 0xe43n],
    ['cached: AttrIndx 1, inner shareable', RW | CACHE, 0xf47n],
    ['device: AttrIndx 2', RW | MMIO, 0xe4bn],
    ['cached device', RW | CACHE | MMIO, 0xf4bn],
    ['privileged: AP[1] clear', RW | PRIV, 0xe03n],
    ['privileged, read', READ | PRIV, 0xe83n],
    ['no execute', RW | NOEXEC, 0xe43n | XN],
  ])('%s', (_name, prot, bits) => {
    expect(last(descriptors(config, PA, 4096, prot))).toBe(PA | bits);
    // A block has type 1 where a page has 3.
    expect(last(descriptors(config, PA, 1 << 21, prot))).toBe(PA | (bits & ~3n) | 1n);
  });

  it('NS: bit 5 of a leaf, NSTable bit 63 of a table', () => {
    const list = descriptors({ ...config, ns: true }, PA, 4096, RW);
    expect(last(list)).toBe(PA | 0xe63n);
    for (const table of list.slice(0, -1)) expect(table & 0xfff0_0000_0000_0fffn).toBe((1n << 63n) | 3n);
  });

  it('DBM is bit 51, of what is writable', () => {
    expect(last(descriptors({ ...config, hd: true }, PA, 4096, RW))).toBe(PA | 0xe43n | (1n << 51n));
    expect(last(descriptors({ ...config, hd: true }, PA, 4096, READ))).toBe(PA | 0xec3n);
  });

  it('incoherent: bit 55 of tables, not of leaves', () => {
    const list = descriptors({ ...config, incoherent: true }, PA, 4096, RW);
    expect(last(list)).toBe(PA | 0xe43n);
    for (const table of list.slice(0, -1)) expect(table & 0xfff0_0000_0000_0fffn).toBe((1n << 55n) | 3n);
  });

  it('64 KiB granule: address bits 51:48 in bits 15:12, in leaves and tables', () => {
    const wide: PageTableConfig = { format: ARM_S1_64K, ias: 52, oas: 52 };
    expect(last(descriptors(wide, 0xa_bcde_1234_0000n, 1 << 16, RW))).toBe(0xbcde_1234_0000n | 0xa000n | 0xe43n);
    const memory = new PhysicalMemory([{ base: 0x3_0000_0000_0000n, size: 1n << 24n }]);
    const table = new PageTable(new IommuPages(memory, new BuddySource(memory)), wide);
    expect(table.map(0, 0, 0, 0, 1 << 16, RW)).toBe(0);
    const [top] = table.walk(0n).steps;
    expect(memory.readU64(top!.entryPa) & 0xffff_0000_0000_f003n).toBe(0x3003n);
    expect(table.walk(0n).pa).toBe(0n);
  });

  it('the output address folds when a run passes 2^48', () => {
    const { table } = fresh({ format: ARM_S1_64K, ias: 52, oas: 52 });
    expect(table.map(0, 0, 0xffff, 0xfff0_0000, 1 << 21, RW)).toBe(0);
    expect(table.walk(0xf_ffffn).pa).toBe(0xffff_ffff_ffffn);
    expect(table.walk(0x10_0000n).pa).toBe(0x1_0000_0000_0000n);
    expect(table.walk(0x1f_ffffn).pa).toBe(0x1_0000_000f_ffffn);
  });

  it('start tables are as long as the address needs', () => {
    for (const [format, ias, bytes, level] of [
      [ARM_S1_4K, 48, 4096, 0],
      [ARM_S1_4K, 32, 32, 1],
      [ARM_S1_16K, 48, 16, 0],
      [ARM_S1_64K, 48, 512, 1],
      [ARM_S1_64K, 52, 8192, 1],
    ] as const) {
      const { table } = fresh({ format, ias, oas: 48 });
      const [start] = [...table.tables()];
      expect(start!.bytes).toBe(bytes);
      expect(table.walk(0n).steps[0]!.specLevel).toBe(level);
    }
  });

  it('TCR and MAIR', () => {
    const { table } = fresh({ format: ARM_S1_16K, ias: 47, oas: 48 });
    expect(table.hwInfo()).toEqual({
      ttbr: table.root,
      tcr: { ips: 5, tg: 2, sh: 3, orgn: 1, irgn: 1, tsz: 17 },
      mair: 0xffff_ffff_f404_ff44n,
    });
  });
});

describe('stage 2, D8.3', () => {
  const config: PageTableConfig = { format: ARM_S2_4K, ias: 48, oas: 48 };
  // MemAttr 5:2, S2AP 7:6, SH 9:8, AF 10
  it.each([
    ['read', READ, 0x657n],
    ['write', WRITE, 0x697n],
    ['read and write', RW, 0x6d7n],
    ['cached', RW | CACHE, 0x7ffn],
    ['device', RW | MMIO, 0x6c7n],
    ['cached device', RW | CACHE | MMIO, 0x7c7n],
    ['privileged is not told', RW | PRIV, 0x6d7n],
    ['no execute', RW | NOEXEC, 0x6d7n | XN],
  ])('%s', (_name, prot, bits) => {
    expect(last(descriptors(config, PA, 4096, prot))).toBe(PA | bits);
    expect(last(descriptors(config, PA, 1 << 21, prot))).toBe(PA | (bits & ~3n) | 1n);
  });

  it('FWB: MemAttr 6 for what is cached', () =>
    expect(last(descriptors({ ...config, fwb: true }, PA, 4096, RW | CACHE))).toBe(PA | 0x7dbn));

  it.each([
    ['4 KiB, 40 bits: 2 tables', ARM_S2_4K, 40, 8192, 1],
    ['4 KiB, 42 bits: 8 tables', ARM_S2_4K, 42, 32768, 1],
    ['16 KiB, 40 bits: 16 tables', ARM_S2_16K, 40, 262144, 2],
    ['16 KiB, 48 bits: 2 tables', ARM_S2_16K, 48, 32768, 1],
    ['4 KiB, 48 bits: one', ARM_S2_4K, 48, 4096, 0],
  ] as const)('start tables, %s', (_name, format, bits, bytes, level) => {
    const { table } = fresh({ format, ias: bits, oas: bits });
    expect([...table.tables()]).toMatchObject([{ bytes }]);
    expect(table.root % BigInt(bytes)).toBe(0n);
    expect(table.walk(0n).steps[0]!.specLevel).toBe(level);
    const top = (1n << BigInt(bits)) - table.pageSizes;
    expect(top).toBeGreaterThan(0n);
  });

  it('VTCR', () => {
    const { table } = fresh(config);
    expect(table.hwInfo()).toEqual({
      vttbr: table.root,
      vtcr: { ps: 5, tg: 0, sh: 3, orgn: 1, irgn: 1, sl: 2, tsz: 16 },
    });
  });
});
