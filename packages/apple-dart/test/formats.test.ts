/**
 * Formats of Apple's DART: the format suite, entry values, and a second walker. There are no recorded tables of hardware for
 * all variants, and driver and hardware share formats.ts: a wrong bit would agree with itself. So the walker here is
 * typed anew from the layouts that the Asahi Linux project found, and reads bytes of memory only.
 */
import { Random, formatConformance } from '@iommu-ts/conformance/suite';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { GatherRecord, PROT, PageTable } from '@iommu-ts/page-table';
import type { PageTableConfig } from '@iommu-ts/page-table';
import { describe, expect, it } from 'vitest';
import { DART_V1_16K, DART_V1_4K, DART_V2_16K } from '../src/formats.ts';

const V1_16K: PageTableConfig = { format: DART_V1_16K, ias: 36, oas: 36 };
const V1_16K_32: PageTableConfig = { format: DART_V1_16K, ias: 32, oas: 36 };
const V1_4K_32: PageTableConfig = { format: DART_V1_4K, ias: 32, oas: 36 };
const V1_4K_36: PageTableConfig = { format: DART_V1_4K, ias: 36, oas: 36 };
const V2_16K_32: PageTableConfig = { format: DART_V2_16K, ias: 32, oas: 42 };
const V2_16K_42: PageTableConfig = { format: DART_V2_16K, ias: 42, oas: 42 };

formatConformance([
  { name: 'v1-16k-36', config: V1_16K },
  { name: 'v1-16k-32', config: V1_16K_32 },
  { name: 'v1-4k-32', config: V1_4K_32 },
  { name: 'v1-4k-36', config: V1_4K_36 },
  { name: 'v2-16k-32', config: V2_16K_32 },
  { name: 'v2-16k-42', config: V2_16K_42 },
]);

/** What a request finds: an address with its permissions, or the level (TTBR = 0) where the way ended. */
type Found = { readonly pa: bigint; readonly read: boolean; readonly write: boolean } | { readonly endedAt: number };

/** t8020/t8103: page and table address in bits 35:12; bit 8 refuses reads, bit 7 writes; bits 63:52 and 51:40 sub-pages. */
const walkV1 = (
  read: (pa: bigint) => bigint,
  ttbrs: readonly bigint[],
  pageBits: number,
  levels: number,
  iova: bigint,
): Found => {
  const perLevel = pageBits - 3;
  let table = ttbrs[Number(iova >> BigInt(pageBits + levels * perLevel))];
  if (table === undefined) return { endedAt: 0 };
  for (let level = 1; ; level++) {
    const index = (iova >> BigInt(pageBits + (levels - level) * perLevel)) & BigInt((1 << perLevel) - 1);
    const entry = read(table + index * 8n);
    if ((entry & 1n) === 0n) return { endedAt: level };
    const address = entry & 0x0000_000f_ffff_f000n;
    if (level < levels) {
      table = address;
      continue;
    }
    const offset = iova & BigInt((1 << pageBits) - 1);
    // Sub-page protection is told off by bit 1; the bounds must then not matter, and Linux sets them to all of the page.
    expect(entry >> 52n, 'first sub-page').toBe(0n);
    expect((entry >> 40n) & 0xfffn, 'last sub-page').toBe(0xfffn);
    expect((entry >> 1n) & 1n, 'SP_DIS').toBe(1n);
    return { pa: address | offset, read: ((entry >> 8n) & 1n) === 0n, write: ((entry >> 7n) & 1n) === 0n };
  }
};

/** t6000/t8110: address bits 41:14 in entry bits 37:10; bit 3 refuses reads, bit 2 writes, bit 1 is not cached. */
const walkV2 = (read: (pa: bigint) => bigint, ttbrs: readonly bigint[], levels: number, iova: bigint): Found => {
  let table = ttbrs[Number(iova >> BigInt(14 + levels * 11))];
  if (table === undefined) return { endedAt: 0 };
  for (let level = 1; ; level++) {
    const index = (iova >> BigInt(14 + (levels - level) * 11)) & 0x7ffn;
    const entry = read(table + index * 8n);
    if ((entry & 1n) === 0n) return { endedAt: level };
    const address = ((entry >> 10n) & 0xfff_ffffn) << 14n;
    if (level < levels) {
      table = address;
      continue;
    }
    expect(entry >> 52n, 'first sub-page').toBe(0n);
    expect((entry >> 40n) & 0xfffn, 'last sub-page').toBe(0xfffn);
    return { pa: address | (iova & 0x3fffn), read: (entry & 8n) === 0n, write: (entry & 4n) === 0n };
  }
};

describe('the second walker', () => {
  it.each([
    ['v1, 16 KiB, 36 bits', V1_16K, 14, 2],
    ['v1, 16 KiB, 32 bits', V1_16K_32, 14, 2],
    ['v1, 4 KiB, 32 bits, 4 TTBRs', V1_4K_32, 12, 2],
    ['v1, 4 KiB, 36 bits', V1_4K_36, 12, 3],
    ['v2, 16 KiB, 32 bits', V2_16K_32, 14, 2],
    ['v2, 16 KiB, 42 bits', V2_16K_42, 14, 3],
  ] as const)('%s', (name, config, pageBits, levels) => {
    const seed = 0xda27;
    const random = new Random(seed);
    const memory = new PhysicalMemory([{ base: 0x8_0000_0000n, size: 1n << 28n }]);
    const pages = new IommuPages(memory, new BuddySource(memory));
    const table = new PageTable(pages, config);
    const { ttbr } = table.hwInfo() as { ttbr: readonly bigint[] };
    const read = (pa: bigint): bigint => memory.readU64(pa);
    const walk = (iova: bigint): Found =>
      name.startsWith('v1') ? walkV1(read, ttbr, pageBits, levels, iova) : walkV2(read, ttbr, levels, iova);
    const page = 1n << BigInt(pageBits);
    const held = new Map<bigint, { pa: bigint; prot: number }>();
    const gather = new GatherRecord();
    for (let step = 0; step < 300; step++) {
      const iova = BigInt(random.below(2 ** (config.ias - pageBits))) * page;
      const pa = BigInt(random.below(2 ** (config.oas - pageBits))) * page;
      const prot = 1 + random.below(3) + 4 * random.below(2);
      expect(
        table.map(
          Number(iova >> 32n),
          Number(iova & 0xffff_ffffn),
          Number(pa >> 32n),
          Number(pa & 0xffff_ffffn),
          Number(page),
          prot,
        ),
      ).toBe(held.has(iova) ? -17 : 0);
      if (!held.has(iova)) held.set(iova, { pa, prot });
      if (random.oneIn(4)) {
        const gone = random.pick([...held.keys()]);
        expect(table.unmap(Number(gone >> 32n), Number(gone & 0xffff_ffffn), Number(page), gather)).toBe(Number(page));
        held.delete(gone);
        expect(walk(gone), `seed ${seed} step ${step}`).toEqual({ endedAt: levels });
      }
    }
    for (const [iova, { pa, prot }] of held) {
      const offset = BigInt(random.below(Number(page)));
      const want = { pa: pa + offset, read: (prot & 1) !== 0, write: (prot & 2) !== 0 };
      expect(walk(iova + offset), `seed ${seed}`).toEqual(want);
      expect(table.walk(iova + offset).pa).toBe(pa + offset);
    }
  });
});

describe('entries', () => {
  const leaf = (config: PageTableConfig, pa: bigint, prot: number): bigint => {
    const memory = new PhysicalMemory([{ base: 0n, size: 1n << 24n }]);
    const table = new PageTable(new IommuPages(memory, new BuddySource(memory)), config);
    expect(table.map(0, 0, Number(pa >> 32n), Number(pa & 0xffff_ffffn), table.granuleBytes, prot)).toBe(0);
    const { steps } = table.walk(0n);
    return memory.readU64(steps[steps.length - 1]!.entryPa);
  };

  it.each([
    ['read and write', PROT.READ | PROT.WRITE, 0x000f_ff05_afec_4003n],
    ['read', PROT.READ, 0x000f_ff05_afec_4083n],
    ['write', PROT.WRITE, 0x000f_ff05_afec_4103n],
    ['nothing else is told', 63, 0x000f_ff05_afec_4003n],
  ])('v1: %s', (_name, prot, entry) => expect(leaf(V1_16K, 0x5_afec_4000n, prot)).toBe(entry));

  it.each([
    ['read, write, cached', PROT.READ | PROT.WRITE | PROT.CACHE, 1n],
    ['read, write', PROT.READ | PROT.WRITE, 3n],
    ['read, cached', PROT.READ | PROT.CACHE, 5n],
    ['read', PROT.READ, 7n],
    ['write, cached', PROT.WRITE | PROT.CACHE, 9n],
    ['write', PROT.WRITE, 0xbn],
  ])('v2: %s', (_name, prot, bits) =>
    expect(leaf(V2_16K_42, 0x195_f471_0000n, prot)).toBe((0xfffn << 40n) | (0x195_f471_0000n >> 4n) | bits),
  );

  it('4 KiB pages with 32 bits have four TTBRs, a GiB each', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 1n << 24n }]);
    const table = new PageTable(new IommuPages(memory, new BuddySource(memory)), V1_4K_32);
    const { ttbr } = table.hwInfo() as { ttbr: readonly bigint[] };
    expect(ttbr).toHaveLength(4);
    for (let i = 0; i < 4; i++) {
      expect(table.map(0, i * 0x4000_0000, 0, 0, 4096, 3)).toBe(0);
      expect(table.walk(BigInt(i) << 30n).steps[0]!.tablePa).toBe(ttbr[i]);
    }
    expect(table.map(1, 0, 0, 0, 4096, 3)).toBe(-12);
  });
});
