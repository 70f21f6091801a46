/** What the descriptors are in emulated memory, byte by byte: offsets typed again, nothing read back through the allocator. */
import { IommuError } from '@iommu-ts/bits';
import { describe, expect, test } from 'vitest';
import { ArenaSource, BuddySource, IommuPages, IommuPagesList, NO_PAGE, PhysicalMemory } from '../../src/index.ts';
import type { IommuPagesOptions } from '../../src/index.ts';

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return error instanceof IommuError ? `${error.code} ${error.message}` : String(error);
  }
  return 'nothing thrown';
};

/** Page tables from 16 MiB at 4 GiB (node 3), descriptors at 0x100_0000. */
const RAM = 0x1_0000_0000n;
const MAP = 0x100_0000n;
const rig = (layout: 'overlay' | 'memdesc', options: IommuPagesOptions = {}, mapSize = 0x20_0000n) => {
  const memory = new PhysicalMemory([
    { base: MAP, size: 0x100_0000n },
    { base: RAM, size: 0x100_0000n, node: 3 },
  ]);
  const source = new BuddySource(memory, [{ base: RAM, size: 0x100_0000n }]);
  const descriptorRange = { base: MAP, size: mapSize };
  const pages = new IommuPages(memory, source, { layout, descriptorRange, ...options });
  const u64 = (address: bigint): bigint => memory.readU64(address);
  return { memory, source, pages, u64 };
};
const ANCHOR = 0xffff_ffff_ffff_fffen;

describe('overlay', () => {
  const at = (pfn: number): bigint => MAP + (BigInt(pfn) - (RAM >> 12n)) * 64n;

  test('a single page: flags with the node, no list, a reference', () => {
    const { memory, pages, u64 } = rig('overlay');
    const pfn = pages.allocPagesSz(4096);
    const d = at(pfn);
    expect(u64(d)).toBe(3n << 54n);
    expect([u64(d + 8n), u64(d + 16n)]).toEqual([0n, 0n]);
    expect(memory.read(d + 48n, 4)).toBe(0xffff_ffffn);
    expect(memory.read(d + 52n, 4)).toBe(1n);
    pages.freePages(pfn);
    expect(memory.read(d + 52n, 4)).toBe(0n);
    expect(pages.sizeOf(pfn)).toBe(0);
  });

  test('a compound block: PG_head, the order in the second page, every tail points at the head', () => {
    const { memory, pages, u64 } = rig('overlay');
    const pfn = pages.allocPagesSz(0x8000);
    expect(u64(at(pfn)) & 0xffff_ffffn).toBe(1n << 6n);
    expect(u64(at(pfn + 1)) & 0xffn).toBe(3n);
    for (let i = 1; i < 8; i++) {
      expect(u64(at(pfn + i) + 8n)).toBe(at(pfn) | 1n);
      expect(memory.read(at(pfn + i) + 52n, 4)).toBe(0n);
    }
    expect(u64(at(pfn + 8) + 8n)).toBe(0n);
    expect(codeOf(() => pages.freePages(pfn + 3))).toMatch(
      new RegExp(`^EINVAL page 0x${(pfn + 3).toString(16)} .*inside .*0x${pfn.toString(16)}$`),
    );
    // The bytes say how large it is.
    memory.write(at(pfn + 1), 1, 2n);
    expect(pages.sizeOf(pfn)).toBe(0x4000);
    memory.write(at(pfn + 1), 1, 3n);
    pages.freePages(pfn);
    for (let i = 0; i < 8; i++) {
      expect(u64(at(pfn + i)) & 0xffff_ffffn).toBe(0n);
      expect(u64(at(pfn + i) + 8n)).toBe(0n);
    }
    expect(codeOf(() => pages.freePages(pfn + 3))).toMatch(/^EINVAL [^:]*$/);
  });

  test('a list is a chain of addresses of descriptors, both ways; bit 0 of a link is clear', () => {
    const { pages, u64 } = rig('overlay');
    const list = new IommuPagesList();
    const [a, b, c] = [pages.allocPagesSz(4096), pages.allocPagesSz(0x4000), pages.allocPagesSz(4096)];
    for (const pfn of [a, b, c]) pages.listAdd(list, pfn);
    const links = [a, b, c].map((pfn) => [u64(at(pfn) + 8n), u64(at(pfn) + 16n)]);
    expect(links).toEqual([
      [at(b), ANCHOR],
      [at(c), at(a)],
      [ANCHOR, at(b)],
    ]);
    const other = new IommuPagesList();
    const d = pages.allocPagesSz(4096);
    pages.listAdd(other, d);
    pages.listSplice(list, other);
    expect([u64(at(c) + 8n), u64(at(d) + 16n)]).toEqual([at(d), at(c)]);
    pages.putPagesList(other);
    for (const pfn of [a, b, c, d]) expect(u64(at(pfn) + 8n)).toBe(0n);
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('the memory map: 64 bytes for every page frame, and no more', () => {
    const { pages } = rig('overlay');
    expect(pages.descriptorUsage).toEqual({
      layout: 'overlay',
      memmapBytes: 4096 * 64,
      slabBytes: 0,
      slabUsedBytes: 0,
    });
  });

  test('at the end of each range of the source, which does not hand it out; it holds its own frames too', () => {
    const memory = new PhysicalMemory([
      { base: 0n, size: 0x80_0000n },
      { base: RAM, size: 0x81_0000n, node: 1 },
    ]);
    const source = new BuddySource(memory);
    const pages = new IommuPages(memory, source, { layout: 'overlay' });
    // 2048 pages of 64 bytes: 32 pages; 2064 pages: 33 pages, rounded up.
    expect(pages.descriptorUsage.memmapBytes).toBe((32 + 33) * 4096);
    expect(source.freePages(0)).toBe(2048 - 32);
    expect(source.freePages(1)).toBe(2064 - 33);
    const seen = new Set<number>();
    for (let pfn = pages.allocPagesSz(4096); pfn !== NO_PAGE; pfn = pages.allocPagesSz(4096)) {
      expect((pfn < 0x800 - 32 || pfn >= 0x10_0000) && pfn < 0x10_0810 - 33).toBe(true);
      seen.add(pfn);
    }
    expect(seen.size).toBe(2048 + 2064 - 65);
    for (const pfn of seen) pages.freePages(pfn);
    expect(memory.readU64(BigInt(0x800 - 32) * 4096n)).toBe(0n);
  });
});

describe('memdesc', () => {
  const word = (pfn: number): bigint => MAP + (BigInt(pfn) - (RAM >> 12n)) * 8n;
  /** Descriptors of their own begin behind the memory map: 4096 frames of 8 bytes. */
  const SLAB = MAP + 0x8000n;

  test('every frame of a block has the address of one descriptor, and type 14 in bits 3:0', () => {
    const { memory, pages, u64 } = rig('memdesc');
    const pfn = pages.allocPagesSz(0x4000);
    const first = u64(word(pfn));
    expect(first & 0xfn).toBe(14n);
    for (let i = 1; i < 4; i++) expect(u64(word(pfn + i))).toBe(first);
    expect(u64(word(pfn + 4))).toBe(0n);
    const d = first & ~0xfn;
    // The first descriptor of the first page of them, behind its header of 32 bytes.
    expect(d).toBe(SLAB + 32n);
    expect(u64(d)).toBe(3n << 54n);
    expect([u64(d + 8n), u64(d + 16n)]).toEqual([0n, 0n]);
    expect(u64(d + 24n)).toBe(BigInt(pfn));
    expect(memory.read(d + 32n, 1)).toBe(2n);
    expect(memory.read(d + 36n, 4)).toBe(1n);
    expect(pages.sizeOf(pfn)).toBe(0x4000);
    memory.write(d + 32n, 1, 1n);
    expect(pages.sizeOf(pfn)).toBe(0x2000);
    memory.write(d + 32n, 1, 2n);
    expect(codeOf(() => pages.freePages(pfn + 1))).toMatch(/^EINVAL .*inside/);
    pages.freePages(pfn);
    for (let i = 0; i < 4; i++) expect(u64(word(pfn + i))).toBe(0n);
    expect(memory.read(d + 36n, 4)).toBe(0n);
  });

  test('a list is a chain of addresses of descriptors', () => {
    const { pages, u64 } = rig('memdesc');
    const list = new IommuPagesList();
    const blocks = [pages.allocPagesSz(4096), pages.allocPagesSz(0x4000), pages.allocPagesSz(4096)];
    for (const pfn of blocks) pages.listAdd(list, pfn);
    const [a, b, c] = blocks.map((pfn) => u64(word(pfn)) & ~0xfn) as [bigint, bigint, bigint];
    expect([a, b, c].map((d) => [u64(d + 8n), u64(d + 16n)])).toEqual([
      [b, ANCHOR],
      [c, a],
      [ANCHOR, b],
    ]);
    pages.putPagesList(list);
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('84 descriptors a page; pages of them come and go, one empty one stays', () => {
    const { pages } = rig('memdesc');
    const blocks: number[] = [];
    for (const n of [1, 84, 85, 168, 169]) {
      while (blocks.length < n) blocks.push(pages.allocPagesSz(4096));
      expect(pages.descriptorUsage).toEqual({
        layout: 'memdesc',
        memmapBytes: 0x8000,
        slabBytes: Math.ceil(n / 84) * 4096,
        slabUsedBytes: n * 48,
      });
    }
    // In another order than they came.
    for (const pfn of [...blocks.filter((_, i) => i % 3 === 1), ...blocks.filter((_, i) => i % 3 !== 1)]) {
      pages.freePages(pfn);
    }
    expect(pages.descriptorUsage).toMatchObject({ slabBytes: 4096, slabUsedBytes: 0 });
  });

  test('without a range of their own they come from the source, as pages of type 5 that are no table pages', () => {
    const memory = new PhysicalMemory([{ base: 0n, size: 0x40_0000n }]);
    const source = new BuddySource(memory);
    const pages = new IommuPages(memory, source, { layout: 'memdesc' });
    // 1024 frames of 8 bytes: 2 pages.
    expect(source.freePages()).toBe(1022);
    const map = 1022n * 4096n;
    const pfn = pages.allocPagesSz(4096);
    expect(source.freePages()).toBe(1020);
    expect([pages.nrIommuPages(), pages.nrSecPageTablePages]).toEqual([1, 1]);
    const types = Array.from({ length: 1024 }, (_, i) => memory.readU64(map + BigInt(i) * 8n) & 0xfn);
    expect(types.filter((t) => t === 14n)).toHaveLength(1);
    expect(types.filter((t) => t === 5n)).toHaveLength(1);
    const slab = types.indexOf(5n);
    expect(memory.readU64(map + BigInt(slab) * 8n)).toBe((BigInt(slab) << 12n) | 5n);
    expect(codeOf(() => pages.freePages(slab))).toMatch(/^EINVAL/);
    pages.freePages(pfn);
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('no memory for a descriptor is no memory for the block, and nothing leaks', () => {
    // Room for the map and one page of descriptors.
    const { pages, source } = rig('memdesc', {}, 0x9000n);
    const blocks = Array.from({ length: 84 }, () => pages.allocPagesSz(4096));
    expect(blocks.includes(NO_PAGE)).toBe(false);
    const free = source.freePages();
    expect(pages.allocPagesSz(4096)).toBe(NO_PAGE);
    expect([source.freePages(), pages.nrIommuPages(), pages.allocations]).toEqual([free, 84, 84]);
    pages.freePages(blocks[7]!);
    expect(pages.allocPagesSz(4096)).not.toBe(NO_PAGE);
  });
});

describe('far and large', () => {
  test.each([
    ['overlay', 64n],
    ['memdesc', 8n],
  ] as const)('%s: a range of 4 TiB, tables near its end', (layout, bytes) => {
    const map = 1n << 44n;
    const memory = new PhysicalMemory([
      { base: 0n, size: 1n << 42n },
      { base: map, size: 1n << 37n },
    ]);
    const base = (1n << 42n) - 0x10_0000n;
    const descriptorRange = { base: map, size: 1n << 37n };
    const pages = new IommuPages(memory, new ArenaSource(memory, base), { layout, descriptorRange });
    const list = new IommuPagesList();
    const blocks = [pages.allocPagesSz(0x2000), pages.allocPagesSz(4096)];
    for (const pfn of blocks) {
      expect(memory.readU64(map + BigInt(pfn) * bytes + (layout === 'overlay' ? 48n : 0n))).not.toBe(0n);
      pages.listAdd(list, pfn);
    }
    expect(pages.listPages(list)).toEqual(blocks);
    expect(blocks.map((pfn) => pages.sizeOf(pfn))).toEqual([0x2000, 4096]);
    expect(pages.sizeOf(blocks[0]! + 1)).toBe(0);
    pages.putPagesList(list);
    expect(pages.nrIommuPages()).toBe(0);
  });

  test.each([
    ['overlay', 64],
    ['memdesc', 8],
  ] as const)('%s: CPU pages of 64 KiB have one entry each', (layout, bytes) => {
    const { memory, pages } = rig(layout, { cpuPageSize: 65_536 });
    // 16 MiB: 256 CPU pages.
    expect(pages.descriptorUsage.memmapBytes).toBe(Math.ceil((256 * bytes) / 4096) * 4096);
    const [a, b] = [pages.allocPagesSz(4096), pages.allocPagesSz(0x2_0000)];
    expect([pages.sizeOf(a), pages.sizeOf(b), pages.sizeOf(a + 1), pages.sizeOf(b + 16)]).toEqual([
      65_536, 131_072, 0, 0,
    ]);
    const word = (pfn: number): bigint =>
      memory.readU64(MAP + ((BigInt(pfn) - (RAM >> 12n)) / 16n) * BigInt(bytes) + (layout === 'overlay' ? 8n : 0n));
    if (layout === 'overlay') {
      expect(word(b + 16) & 1n).toBe(1n);
      expect(word(a + 16) & 1n).toBe(0n);
    } else expect(word(b + 16)).toBe(word(b));
    expect(codeOf(() => pages.freePages(b + 16))).toMatch(/^EINVAL .*inside/);
    expect(codeOf(() => pages.freePages(b + 17))).toMatch(/^EINVAL .*inside/);
    for (const pfn of [a, b]) pages.freePages(pfn);
    expect(pages.nrIommuPages()).toBe(0);
  });

  test('a range that does not begin with a whole CPU page', () => {
    const memory = new PhysicalMemory([{ base: 0x1000n, size: 0x100_0000n }]);
    const make = (): unknown =>
      new IommuPages(memory, new BuddySource(memory), { layout: 'overlay', cpuPageSize: 65_536 });
    expect(codeOf(make)).toMatch(/^EINVAL /);
  });
});

describe('what is refused', () => {
  const memory = new PhysicalMemory([{ base: 0n, size: 0x40_0000n }]);
  const half = { base: 0n, size: 0x20_0000n };
  const make = (options: IommuPagesOptions): string =>
    codeOf(() => new IommuPages(memory, new BuddySource(memory, [half]), { layout: 'overlay', ...options }));
  test.each([
    ['EALIGN', { descriptorRange: { base: 0x20_0100n, size: 0x2_0000n } }],
    ['ERANGE', { descriptorRange: { base: 0x3f_f000n, size: 0x2_0000n } }],
    ['EADDRINUSE', { descriptorRange: { base: 0x1f_f000n, size: 0x2_0000n } }],
    ['ENOSPC', { descriptorRange: { base: 0x20_0000n, size: 0x7000n } }],
    ['EINVAL', { layout: 'folio' as 'overlay' }],
  ])('%s', (code, options) => {
    expect(make(options)).toMatch(new RegExp(`^${code} `));
  });
  test('a range that is just large enough', () => {
    expect(make({ descriptorRange: { base: 0x20_0000n, size: 0x8000n } })).toBe('nothing thrown');
  });
  test('a source that can not set pages aside', () => {
    const arena = new ArenaSource(memory, 0n);
    expect(codeOf(() => new IommuPages(memory, arena, { layout: 'overlay' }))).toMatch(/^EINVAL .*descriptorRange/);
  });
});
