/**
 * Formats of the RISC-V IOMMU: the format suite, and entry values typed from the Privileged Architecture (Sv39 ff.,
 * Svnapot, Svpbmt, two-stage translation), not taken from formats.ts.
 */
import { formatConformance } from '@iommu-ts/conformance/suite';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { GatherRecord, PROT, PageTable } from '@iommu-ts/page-table';
import type { PageTableConfig } from '@iommu-ts/page-table';
import { describe, expect, it } from 'vitest';
import { SV39, SV39X4, SV48, SV48X4, SV57, SV57X4 } from '../src/formats.ts';

formatConformance([
  { name: 'sv39', config: { format: SV39, ias: 39, oas: 56 } },
  { name: 'sv39-svnapot', config: { format: SV39, ias: 39, oas: 56, svnapot: true } },
  { name: 'sv48', config: { format: SV48, ias: 48, oas: 56, svnapot: true } },
  { name: 'sv48-svpbmt', config: { format: SV48, ias: 48, oas: 56, svnapot: true, svpbmt: true } },
  { name: 'sv57', config: { format: SV57, ias: 57, oas: 56, svnapot: true } },
  { name: 'sv39x4', config: { format: SV39X4, ias: 41, oas: 56 } },
  { name: 'sv48x4', config: { format: SV48X4, ias: 50, oas: 56, svnapot: true } },
  { name: 'sv57x4', config: { format: SV57X4, ias: 59, oas: 56 } },
]);

const fresh = (config: PageTableConfig): { memory: PhysicalMemory; table: PageTable } => {
  const memory = new PhysicalMemory([{ base: 0n, size: 1n << 24n }]);
  return { memory, table: new PageTable(new IommuPages(memory, new BuddySource(memory)), config) };
};
/** Entries on the way to a mapping of `size` bytes at IOVA 0 → `pa`, top first, read from memory. */
const entries = (config: PageTableConfig, pa: bigint, size: number, prot: number): bigint[] => {
  const { memory, table } = fresh(config);
  expect(table.map(0, 0, Number(pa >> 32n), Number(pa & 0xffff_ffffn), size, prot)).toBe(0);
  return table.walk(0n).steps.map((step) => memory.readU64(step.entryPa));
};
const last = (list: bigint[]): bigint => list[list.length - 1]!;
/** PPN is bits 53:10. */
const ppn = (pa: bigint): bigint => (pa >> 12n) << 10n;

describe('Sv48', () => {
  const config: PageTableConfig = { format: SV48, ias: 48, oas: 56 };
  const PA = 0xab_cdef_0123_4000n;
  // V 0, R 1, W 2, X 3, U 4, G 5, A 6, D 7
  it.each([
    ['V R X U A', PROT.READ, 0x5bn],
    ['without X', PROT.READ | PROT.NOEXEC, 0x53n],
    ['V R W X U A D', PROT.READ | PROT.WRITE, 0xdfn],
    ['without X', PROT.READ | PROT.WRITE | PROT.NOEXEC, 0xd7n],
    ['a writable page is readable', PROT.WRITE, 0xdfn],
    ['CACHE, MMIO and PRIV change nothing without Svpbmt', PROT.READ | PROT.CACHE | PROT.MMIO | PROT.PRIV, 0x5bn],
  ])('%s', (_name, prot, bits) => expect(last(entries(config, PA, 4096, prot))).toBe(ppn(PA) | bits));

  it('pointers have V only', () => {
    for (const entry of entries(config, PA, 4096, 3).slice(0, -1)) expect(entry & 0xffc0_0000_0000_03ffn).toBe(1n);
  });

  it('leaves at every level', () => {
    expect(entries(config, 0x4000_0000n, 1 << 21, 1)).toHaveLength(3);
    expect(entries(config, 0x4000_0000n, 1 << 30, 1)).toHaveLength(2);
    expect(entries(config, 0x80_0000_0000n, 2 ** 39, 1)).toEqual([ppn(0x80_0000_0000n) | 0x5bn]);
  });

  it('Svpbmt: bits 62:61, 1 NC, 2 IO', () => {
    const typed: PageTableConfig = { ...config, svpbmt: true };
    expect(last(entries(typed, 0n, 4096, PROT.READ | PROT.CACHE))).toBe(0x5bn);
    expect(last(entries(typed, 0n, 4096, PROT.READ))).toBe(0x5bn | (1n << 61n));
    expect(last(entries(typed, 0n, 4096, PROT.READ | PROT.MMIO))).toBe(0x5bn | (2n << 61n));
    expect(last(entries(typed, 0n, 4096, PROT.READ | PROT.MMIO | PROT.CACHE))).toBe(0x5bn | (2n << 61n));
  });

  it('Svnapot: N is bit 63, PPN[3:0] = 1000b, sixteen times', () => {
    const { memory, table } = fresh({ ...config, svnapot: true });
    expect(table.map(0, 0x1_0000, 0, 0x4_0000, 0x1_0000, 3)).toBe(0);
    const { tablePa } = table.walk(0x1_0000n).steps[3]!;
    for (let i = 16; i < 32; i++) {
      expect(memory.readU64(tablePa + BigInt(8 * i))).toBe((1n << 63n) | ppn(0x4_0000n) | 0x2000n | 0xdfn);
    }
    expect(memory.readU64(tablePa + 8n * 15n)).toBe(0n);
    expect(memory.readU64(tablePa + 8n * 32n)).toBe(0n);
    expect([...table.leaves()]).toMatchObject([{ iova: 0x1_0000n, pa: 0x4_0000n, size: 0x1_0000n }]);
    expect(table.unmap(0, 0x1_1000, 4096, new GatherRecord())).toBe(0);
    expect(table.unmap(0, 0x1_0000, 4096, new GatherRecord())).toBe(0x1_0000);
  });

  it('tells the hardware PPN and mode: 8, 9, 10', () => {
    for (const [format, ias, mode] of [
      [SV39, 39, 8],
      [SV48, 48, 9],
      [SV57, 57, 10],
    ] as const) {
      const { table } = fresh({ format, ias, oas: 56 });
      expect(table.hwInfo()).toEqual({ ppn: table.root >> 12n, fsc_iosatp_mode: mode });
    }
  });
});

describe('second stage', () => {
  it('the top table has 2048 entries in 16 KiB, aligned to it', () => {
    for (const [format, ias] of [
      [SV39X4, 41],
      [SV48X4, 50],
      [SV57X4, 59],
    ] as const) {
      const { table } = fresh({ format, ias, oas: 56 });
      expect(table.root % 0x4000n).toBe(0n);
      expect([...table.tables()]).toMatchObject([{ bytes: 0x4000 }]);
      const top = (1n << BigInt(ias)) - 4096n;
      expect(table.map(Number(top >> 32n), Number(top & 0xffff_ffffn), 0, 0, 4096, 3)).toBe(0);
      expect(table.walk(top).steps[0]!.index).toBe(2047);
      // Not sign-extended: the next address is out of range, not the upper half.
      expect(table.map(0xffff_ffff, 0xffff_f000, 0, 0, 4096, 3)).toBe(-34);
    }
  });
});
