/**
 * A second DART, written for the tests alone: it shares no line and no constant with `src`, works on whole bigint addresses
 * and reads memory through the friendly path. Bit positions and error codes are typed from Linux's `io-pgtable-dart.c`,
 * `apple-dart.c` and m1n1's `dart8020.py`, `dart8110.py`.
 */
import type { PhysicalMemory } from '@iommu-ts/iommu-pages';

/** What a stream is set up with. */
export interface Setup {
  readonly registers: 't8020' | 't8110';
  readonly entries: 1 | 2;
  readonly pageBytes: 4096 | 16384;
  /** Levels of tables below the TTBR. */
  readonly levels: 2 | 3;
  /** Bits an IOVA may have. */
  readonly iovaBits: number;
  /** Top tables by TTBR, null where not valid. */
  readonly tops: readonly (bigint | null)[];
}

/** The answer: an address, or the code that ERROR must show. */
export type Answer = { readonly pa: bigint } | { readonly code: number };

const CODES = {
  t8020: { ttbr: 0x1, pgd: 0x2, pmd: 0x2, pte: 0x4, write: 0x8, read: 0x10, bus: 0x40, subWrite: 0x80, subRead: 0x80 },
  t8110: { ttbr: 0x1, pgd: 0x2, pmd: 0x4, pte: 0x8, write: 0x10, read: 0x20, bus: 0x40, subWrite: 0x10, subRead: 0x20 },
} as const;

const readEntry = (memory: PhysicalMemory, pa: bigint): bigint | null => {
  try {
    return memory.readU64(pa);
  } catch {
    return null;
  }
};

/** Address field of an entry. */
const addressIn = (entry: bigint, setup: Setup): bigint => {
  if (setup.entries === 2) return ((entry >> 10n) % 2n ** 28n) * 16384n;
  const address = (entry % 2n ** 36n) - (entry % 4096n);
  return address - (address % BigInt(setup.pageBytes));
};

/** What the hardware has to answer to one access of `length` bytes. */
export const answer = (memory: PhysicalMemory, setup: Setup, iova: bigint, access: 'r' | 'w', length = 1): Answer => {
  const code = CODES[setup.registers];
  const page = BigInt(setup.pageBytes);
  const slots = page / 8n;
  if (iova >= 2n ** BigInt(setup.iovaBits)) return { code: code.ttbr };
  const span = page * slots ** BigInt(setup.levels);
  const which = setup.tops.length === 1 ? 0n : iova / span;
  if (setup.tops.length === 1 && iova >= span) return { code: code.ttbr };
  const top = setup.tops[Number(which)] ?? null;
  if (top === null) return { code: code.ttbr };
  let table = top;
  for (let level = setup.levels - 1; level >= 0; level--) {
    const slot = (iova / (page * slots ** BigInt(level))) % slots;
    const entry = readEntry(memory, table + slot * 8n);
    if (entry === null) return { code: code.bus };
    if (entry % 2n === 0n) return { code: [code.pte, code.pmd, code.pgd][level]! };
    if (level > 0) {
      table = addressIn(entry, setup);
      continue;
    }
    const bitSet = (n: number): boolean => (entry / 2n ** BigInt(n)) % 2n === 1n;
    const noRead = bitSet(setup.entries === 1 ? 8 : 3);
    const noWrite = bitSet(setup.entries === 1 ? 7 : 2);
    if (access === 'w' && noWrite) return { code: code.write };
    if (access === 'r' && noRead) return { code: code.read };
    if (!(setup.entries === 1 && bitSet(1))) {
      const unit = page / 4096n;
      const first = (iova % page) / unit;
      const last = ((iova % page) + BigInt(length) - 1n) / unit;
      const start = entry >> 52n;
      const end = (entry >> 40n) % 4096n;
      if (first < start || last > end) return { code: access === 'w' ? code.subWrite : code.subRead };
    }
    return { pa: addressIn(entry, setup) + (iova % page) };
  }
  throw new Error('not reached');
};
