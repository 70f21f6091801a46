/**
 * Where the fields of the descriptors lie, as data, for 64-bit kernels.
 *
 * - `overlay`: today (Linux 7.2). Every page frame has a `struct page`; an I/O page-table block uses that of its first
 *   frame, seen as `struct ioptdesc`. The names and offsets are those of `include/linux/mm_types.h` and
 *   `drivers/iommu/iommu-pages.h`; that both agree where they must is asserted by the tests, as the kernel does.
 * - `memdesc`: the plan (kernelnewbies.org, MatthewWilcox/Memdescs). Every page frame has one 8-byte word: bits 3:0 say
 *   what the frame is used for, the others are a pointer, so what it points at is aligned to 16 bytes.
 */

/** One field of a structure, in bytes. */
export interface StructField {
  readonly offset: number;
  readonly bytes: number;
}

/** A structure: its fields by name, and its size with the padding at the end. */
export interface StructLayout {
  readonly name: string;
  readonly bytes: number;
  readonly fields: Readonly<Record<string, StructField>>;
}

/** Lays fields out one after another, each aligned to its own size (at most 8), as a C compiler does. */
const struct = <K extends string>(
  name: string,
  align: number,
  sizes: Readonly<Record<K, number>>,
): StructLayout & { readonly fields: Readonly<Record<K, StructField>> } => {
  const fields = {} as Record<K, StructField>;
  let at = 0;
  for (const [key, bytes] of Object.entries(sizes) as [K, number][]) {
    const own = Math.min(bytes, 8);
    at = Math.ceil(at / own) * own;
    fields[key] = { offset: at, bytes };
    at += bytes;
  }
  return { name, bytes: Math.ceil(at / align) * align, fields };
};

/** A `struct list_head`: `next`, then `prev`, 8 bytes each. */
const LIST_HEAD = 16;

const PAGE_FIELDS = {
  flags: 8,
  lru: LIST_HEAD,
  mapping: 8,
  index: 8,
  private: 8,
  page_type: 4,
  _refcount: 4,
} as const;

/** `struct page` with CONFIG_MEMCG. Aligned to two words (CONFIG_HAVE_ALIGNED_STRUCT_PAGE: x86-64, arm64). */
export const STRUCT_PAGE = struct('struct page', 16, { ...PAGE_FIELDS, memcg_data: 8 });
/** `struct page` without CONFIG_MEMCG: a word less, and the same size by its alignment. */
export const STRUCT_PAGE_NO_MEMCG = struct('struct page', 16, PAGE_FIELDS);

const IOPTDESC_FIELDS = {
  __page_flags: 8,
  iopt_freelist_elm: LIST_HEAD,
  __page_mapping: 8,
  /** A union: `u8 incoherent`, or `pgoff_t __index` of the page. */
  __index: 8,
  _private: 8,
  __page_type: 4,
  __page_refcount: 4,
} as const;

/** `struct ioptdesc` over `struct page`, with CONFIG_MEMCG. */
export const IOPTDESC_OVERLAY = struct('struct ioptdesc', 8, { ...IOPTDESC_FIELDS, memcg_data: 8 });
/** `struct ioptdesc` over `struct page`, without CONFIG_MEMCG. */
export const IOPTDESC_OVERLAY_NO_MEMCG = struct('struct ioptdesc', 8, IOPTDESC_FIELDS);

/**
 * Bits of `flags` that are used. `PG_head` marks the first frame of a compound block; the order of the block is in bits
 * 7:0 of `flags` of the second. The node is in the highest bits (NODES_SHIFT 10).
 */
export const PAGE_FLAGS = { PG_head: 6, orderMask: 0xff, nodeShift: 54, nodeBits: 10 } as const;

/** Bit 0 of the first word of `lru`: the frame is a tail, and the other bits are the address of the head's descriptor. */
export const COMPOUND_TAIL = 1;

/** The 8 bytes that a page frame has in the `memdesc` layout. */
export const MEMDESC = struct('struct page (memdesc)', 8, { memdesc: 8 });

/**
 * Types in bits 3:0 of a memdesc, as far as they are used here. The plan names no type for I/O page tables yet;
 * 14 is one of the two that it has not assigned.
 */
export const MEMDESC_TYPE = { Misc: 0, Slab: 5, Ioptdesc: 14 } as const;

/** Bits 3:0. */
export const MEMDESC_TYPE_MASK = 0xf;

const MEMDESC_IOPTDESC_FIELDS = {
  /** Bits 0 and up: {@link IOPTDESC_FLAGS}; the node as in `struct page`. */
  flags: 8,
  iopt_freelist_elm: LIST_HEAD,
  /** First frame of the block: with the overlay it follows from the descriptor's address. */
  pfn: 8,
  order: 1,
  incoherent: 1,
  _unused: 2,
  refcount: 4,
} as const;

/** `struct ioptdesc` allocated on its own, with CONFIG_MEMCG. */
export const IOPTDESC_MEMDESC = struct('struct ioptdesc (memdesc)', 16, { ...MEMDESC_IOPTDESC_FIELDS, memcg_data: 8 });
/** `struct ioptdesc` allocated on its own, without CONFIG_MEMCG: the same size by its alignment. */
export const IOPTDESC_MEMDESC_NO_MEMCG = struct('struct ioptdesc (memdesc)', 16, MEMDESC_IOPTDESC_FIELDS);

/** What stands at the beginning of a page of descriptors (`struct slab`). */
export const SLAB_HEADER = struct('struct slab', 16, {
  /** Neighbours among the pages that have a free descriptor. */
  slab_list: LIST_HEAD,
  /** Offset of the first free descriptor in the page, 0 for none; a free descriptor begins with the offset of the next. */
  freelist: 4,
  inuse: 4,
});

/** Descriptors in one page of them. */
export const slabObjects = (bytes: number): number => Math.floor((4096 - SLAB_HEADER.bytes) / bytes);

/** Word (of 32 bits) at which a field begins. */
export const wordOf = (field: StructField): number => field.offset / 4;
