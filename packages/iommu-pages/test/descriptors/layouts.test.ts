/**
 * The kernel's static asserts about `struct ioptdesc`, and offsets typed again from `include/linux/mm_types.h` and
 * `drivers/iommu/iommu-pages.h` (Linux 7.2, 64-bit).
 */
import { describe, expect, test } from 'vitest';
import {
  IOPTDESC_MEMDESC,
  IOPTDESC_MEMDESC_NO_MEMCG,
  IOPTDESC_OVERLAY,
  IOPTDESC_OVERLAY_NO_MEMCG,
  MEMDESC,
  MEMDESC_TYPE,
  PAGE_FLAGS,
  SLAB_HEADER,
  STRUCT_PAGE,
  STRUCT_PAGE_NO_MEMCG,
  slabObjects,
} from '../../src/descriptors/layouts.ts';
import type { StructLayout } from '../../src/descriptors/layouts.ts';

const offsets = (layout: StructLayout): Record<string, number> =>
  Object.fromEntries(Object.entries(layout.fields).map(([name, field]) => [name, field.offset]));

const PAGE = { flags: 0, lru: 8, mapping: 24, index: 32, private: 40, page_type: 48, _refcount: 52 };
const IOPTDESC = {
  __page_flags: 0,
  iopt_freelist_elm: 8,
  __page_mapping: 24,
  __index: 32,
  _private: 40,
  __page_type: 48,
  __page_refcount: 52,
};

describe.each([
  ['with memcg', STRUCT_PAGE, IOPTDESC_OVERLAY, { memcg_data: 56 }, 64],
  ['without memcg', STRUCT_PAGE_NO_MEMCG, IOPTDESC_OVERLAY_NO_MEMCG, {}, 56],
] as const)('overlay, 64-bit %s', (_name, page, desc, memcg, descBytes) => {
  test('offsets', () => {
    expect(offsets(page)).toEqual({ ...PAGE, ...memcg });
    expect(offsets(desc)).toEqual({ ...IOPTDESC, ...memcg });
  });
  test('sizes: struct page is aligned to two words', () => {
    expect([page.bytes, desc.bytes]).toEqual([64, descBytes]);
  });
  test('sizeof(struct ioptdesc) <= sizeof(struct page)', () => {
    expect(desc.bytes).toBeLessThanOrEqual(page.bytes);
  });
  // `index` is not among them: `incoherent` may lie over it, as nothing reads an index of these pages.
  const pairs: [string, string][] = [
    ['flags', '__page_flags'],
    ['lru', 'iopt_freelist_elm'],
    ['mapping', '__page_mapping'],
    ['private', '_private'],
    ['page_type', '__page_type'],
    ['_refcount', '__page_refcount'],
    ...('memcg_data' in page.fields ? [['memcg_data', 'memcg_data'] as [string, string]] : []),
  ];
  test.each(pairs)('offsetof(struct page, %s) == offsetof(struct ioptdesc, %s)', (inPage, inDesc) => {
    const a = (page as StructLayout).fields[inPage];
    expect(a).toBeDefined();
    expect((desc as StructLayout).fields[inDesc]).toEqual(a);
  });
});

describe('memdesc', () => {
  test('8 bytes a page frame; what they point at is a multiple of 16 bytes, as bits 3:0 are the type', () => {
    expect(MEMDESC.bytes).toBe(8);
    for (const layout of [IOPTDESC_MEMDESC, IOPTDESC_MEMDESC_NO_MEMCG, SLAB_HEADER]) expect(layout.bytes % 16).toBe(0);
    expect(MEMDESC_TYPE).toEqual({ Misc: 0, Slab: 5, Ioptdesc: 14 });
  });
  test('offsets', () => {
    const fields = { flags: 0, iopt_freelist_elm: 8, pfn: 24, order: 32, incoherent: 33, _unused: 34, refcount: 36 };
    expect(offsets(IOPTDESC_MEMDESC)).toEqual({ ...fields, memcg_data: 40 });
    expect(offsets(IOPTDESC_MEMDESC_NO_MEMCG)).toEqual(fields);
    expect([IOPTDESC_MEMDESC.bytes, IOPTDESC_MEMDESC_NO_MEMCG.bytes]).toEqual([48, 48]);
    // (4096 - 32) / 48
    expect([SLAB_HEADER.bytes, slabObjects(48)]).toEqual([32, 84]);
  });
});

test('bits of the page flags', () => {
  expect(PAGE_FLAGS).toEqual({ PG_head: 6, orderMask: 0xff, nodeShift: 54, nodeBits: 10 });
});
