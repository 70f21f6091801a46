/**
 * What the adversarial device may keep, thing by thing: how to come to use it after memory has changed, the commands that leave
 * it alone, and those that drop it. Commands are typed from sections "IOMMU Page-Table cache invalidation commands" and "IOMMU
 * directory cache invalidation commands" of the specification, and from its extensions NL and S.
 */
import { BareMetal, DDT, G, RWXUAD, V, ppn } from './bare-metal.ts';
import { SV39 } from './world.ts';

/** The default device with NL (bit 42) and S (bit 43). */
export const CAPABILITIES = 0xdf8_814e_0e10n;
export const PDTV = 1n << 5n;
const [LEAF, TABLE, CONTEXT] = [1, 2, 4];

export type Command = readonly [bigint, bigint];
interface Operands {
  readonly pscid?: bigint;
  readonly gscid?: bigint;
  readonly addr?: bigint;
  readonly nl?: boolean;
  readonly s?: boolean;
}
const tables = (func3: bigint, { pscid, gscid, addr, nl, s }: Operands): Command => [
  1n |
    (func3 << 7n) |
    (addr === undefined ? 0n : 1n << 10n) |
    (pscid === undefined ? 0n : (pscid << 12n) | (1n << 32n)) |
    (gscid === undefined ? 0n : (gscid << 44n) | (1n << 33n)) |
    (nl === true ? 1n << 34n : 0n),
  addr === undefined ? 0n : ((addr >> 12n) << 10n) | (s === true ? 1n << 9n : 0n),
];
export const vma = (operands: Operands = {}): Command => tables(0n, operands);
export const gvma = (operands: Operands = {}): Command => tables(1n, operands);
export const ddt = (did?: bigint): Command => [3n | (did === undefined ? 0n : (1n << 33n) | (did << 40n)), 0n];
export const pdt = (did: bigint, pid: bigint): Command => [
  3n | (1n << 7n) | (1n << 33n) | (pid << 12n) | (did << 40n),
  0n,
];

export const start = (levels: 1 | 2 | 3 = 1): BareMetal =>
  new BareMetal({ capabilities: CAPABILITIES }, { mode: 'retain' }).enable(levels);

/** A situation: `change` has been made in memory, and `did`, `pid`, `iova` still go to `old` instead of `now`. */
export interface Case {
  readonly bare: BareMetal;
  readonly did: number;
  readonly pid?: number;
  readonly iova: bigint;
  readonly old: bigint;
  readonly now: bigint;
}

const OLD = 0x5_0000n;
export const NOW = 0x6_0000n;

/** A first-stage table with `leaf` for `iova`; the root and the entry's address. */
export const firstStage = (bare: BareMetal, iova: bigint, leaf: bigint, level = 0): { root: bigint; entry: bigint } => {
  const root = bare.page();
  return { root, entry: bare.map(root, 3, iova, leaf, level) };
};

export const CASES: Record<
  string,
  { section: string; layer: number; make(): Case; keep: Record<string, Command>; drop: Record<string, Command> }
> = {
  'a device context': {
    section: 'Changing device directory table entry',
    layer: CONTEXT,
    make: () => {
      const bare = start();
      bare.dc(5, { ta: 1n << 12n, fsc: SV39 | (firstStage(bare, 0x1000n, ppn(OLD) | RWXUAD).root >> 12n) });
      bare.reaches(5, 0x1000n, OLD);
      bare.dc(5, { ta: 2n << 12n, fsc: SV39 | (firstStage(bare, 0x1000n, ppn(NOW) | RWXUAD).root >> 12n) });
      return { bare, did: 5, iova: 0x1000n, old: OLD, now: NOW };
    },
    // "The IOTINVAL command has no effect on the IOMMU directory caches."
    keep: { 'IOTINVAL.VMA': vma(), 'IOTINVAL.GVMA': gvma(), 'another device': ddt(6n), INVAL_PDT: pdt(5n, 0n) },
    drop: { 'its device': ddt(5n), 'all devices': ddt() },
  },
  'a non-leaf DDT entry': {
    section: 'Changing device directory table entry',
    layer: CONTEXT,
    make: () => {
      const bare = start(2);
      const directory = (pa: bigint): void => {
        const table = bare.page();
        const { root } = firstStage(bare, 0x1000n, ppn(pa) | RWXUAD);
        for (const did of [1n, 2n]) {
          bare.memory.writeU64(table + did * 64n, V);
          bare.memory.writeU64(table + did * 64n + 16n, (pa >> 16n) << 12n);
          bare.memory.writeU64(table + did * 64n + 24n, SV39 | (root >> 12n));
        }
        bare.memory.writeU64(DDT, ppn(table) | V);
      };
      directory(OLD);
      bare.reaches(1, 0x1000n, OLD);
      directory(NOW);
      return { bare, did: 2, iova: 0x1000n, old: OLD, now: NOW };
    },
    keep: { 'IOTINVAL.VMA': vma(), 'the leaf entry alone': ddt(2n) },
    drop: { 'all devices': ddt() },
  },
  'a process context': {
    section: 'Changing process directory table entry',
    layer: CONTEXT,
    make: () => {
      const bare = start();
      const table = bare.page();
      const context = (pa: bigint): void => {
        bare.memory.writeU64(table + 48n, ((pa >> 16n) << 12n) | V);
        bare.memory.writeU64(table + 56n, SV39 | (firstStage(bare, 0x1000n, ppn(pa) | RWXUAD).root >> 12n));
      };
      bare.dc(5, { tc: V | PDTV, fsc: (1n << 60n) | (table >> 12n) });
      context(OLD);
      bare.reaches(5, 0x1000n, OLD, 1, 3);
      context(NOW);
      return { bare, did: 5, pid: 3, iova: 0x1000n, old: OLD, now: NOW };
    },
    keep: { 'IOTINVAL.VMA': vma(), 'another process': pdt(5n, 2n), 'another device': pdt(6n, 3n), DDT: ddt(6n) },
    drop: { 'its process': pdt(5n, 3n), 'its device': ddt(5n), 'all devices': ddt() },
  },
  'a non-leaf PDT entry': {
    section: 'Changing process directory table entry',
    layer: CONTEXT,
    make: () => {
      const bare = start();
      const root = bare.page();
      const directory = (pa: bigint): void => {
        const table = bare.page();
        const first = firstStage(bare, 0x1000n, ppn(pa) | RWXUAD).root;
        for (const pid of [1n, 2n]) {
          bare.memory.writeU64(table + pid * 16n, ((pa >> 16n) << 12n) | V);
          bare.memory.writeU64(table + pid * 16n + 8n, SV39 | (first >> 12n));
        }
        bare.memory.writeU64(root, ppn(table) | V);
      };
      bare.dc(5, { tc: V | PDTV, fsc: (2n << 60n) | (root >> 12n) });
      directory(OLD);
      bare.reaches(5, 0x1000n, OLD, 1, 1);
      directory(NOW);
      return { bare, did: 5, pid: 2, iova: 0x1000n, old: OLD, now: NOW };
    },
    keep: { 'IOTINVAL.VMA': vma(), 'the leaf entry alone': pdt(5n, 2n), 'another device': ddt(6n) },
    drop: { 'its device': ddt(5n), 'all devices': ddt() },
  },
  'a leaf of the first stage': {
    section: 'Changing first-stage page table entry',
    layer: LEAF,
    make: () => {
      const bare = start();
      const { root, entry } = firstStage(bare, 0x7000n, ppn(OLD) | RWXUAD);
      bare.dc(5, { ta: 1n << 12n, fsc: SV39 | (root >> 12n) });
      bare.reaches(5, 0x7000n, OLD);
      bare.memory.writeU64(entry, ppn(NOW) | RWXUAD);
      return { bare, did: 5, iova: 0x7000n, old: OLD, now: NOW };
    },
    keep: {
      'another PSCID': vma({ pscid: 2n }),
      'another page': vma({ pscid: 1n, addr: 0x6000n }),
      'a range below': vma({ pscid: 1n, addr: 0x4000n, s: true }),
      'virtual machines': vma({ gscid: 0n }),
      'a PSCID of a virtual machine': vma({ gscid: 0n, pscid: 1n }),
      GVMA: gvma(),
      IODIR: ddt(),
    },
    drop: {
      'the page': vma({ pscid: 1n, addr: 0x7000n }),
      'the page in all spaces': vma({ addr: 0x7000n }),
      'a range': vma({ pscid: 1n, addr: 0x5000n, s: true }),
      'the PSCID': vma({ pscid: 1n }),
      all: vma(),
    },
  },
  'a 2 MiB leaf': {
    section: 'Changing first-stage page table entry',
    layer: LEAF,
    make: () => {
      const bare = start();
      const { root, entry } = firstStage(bare, 0x20_0000n, ppn(0x800_0000n) | RWXUAD, 1);
      bare.dc(5, { ta: 1n << 12n, fsc: SV39 | (root >> 12n) });
      bare.reaches(5, 0x21_0000n, 0x801_0000n);
      bare.memory.writeU64(entry, ppn(0x820_0000n) | RWXUAD);
      return { bare, did: 5, iova: 0x30_0000n, old: 0x810_0000n, now: 0x830_0000n };
    },
    keep: {
      'a page below': vma({ pscid: 1n, addr: 0x1f_f000n }),
      'a page above': vma({ pscid: 1n, addr: 0x40_0000n }),
    },
    drop: { 'any page of it': vma({ pscid: 1n, addr: 0x3f_f000n }) },
  },
  'a page of a NAPOT leaf': {
    section: 'Svnapot in the Privileged specification: any or all pages of the leaf may be cached by themselves',
    layer: LEAF,
    make: () => {
      const bare = start();
      const root = bare.page();
      const leaf = (pa: bigint): void => {
        for (let i = 0n; i < 16n; i++) {
          bare.map(root, 3, 0x1_0000n + i * 0x1000n, (1n << 63n) | ppn(pa + 0x8000n) | RWXUAD);
        }
      };
      leaf(0x10_0000n);
      bare.dc(5, { ta: 1n << 12n, fsc: SV39 | (root >> 12n) });
      bare.reaches(5, 0x1_5000n, 0x10_5000n);
      leaf(0x11_0000n);
      return { bare, did: 5, iova: 0x1_5000n, old: 0x10_5000n, now: 0x11_5000n };
    },
    keep: { 'its first page': vma({ pscid: 1n, addr: 0x1_0000n }) },
    drop: { 'the page': vma({ pscid: 1n, addr: 0x1_5000n }) },
  },
  'a non-leaf PTE of the first stage': {
    section: 'Non-leaf PTE Invalidation Extension; without it, AV=0',
    layer: TABLE,
    make: () => {
      const bare = start();
      const { root } = firstStage(bare, 0x1000n, ppn(0x1_0000n) | RWXUAD);
      bare.map(root, 3, 0x2000n, ppn(OLD) | RWXUAD);
      bare.dc(5, { ta: 1n << 12n, fsc: SV39 | (root >> 12n) });
      bare.reaches(5, 0x1000n, 0x1_0000n);
      const other = bare.page();
      bare.memory.writeU64(other + 16n, ppn(NOW) | RWXUAD);
      bare.map(root, 3, 0n, ppn(other) | V, 1);
      return { bare, did: 5, iova: 0x2000n, old: OLD, now: NOW };
    },
    keep: {
      'a leaf': vma({ pscid: 1n, addr: 0x2000n }),
      'the leaf in all spaces': vma({ addr: 0x2000n }),
      'NL elsewhere': vma({ pscid: 1n, addr: 0x20_0000n, nl: true }),
      'NL in another PSCID': vma({ pscid: 2n, addr: 0x2000n, nl: true }),
      'another PSCID': vma({ pscid: 2n }),
      GVMA: gvma(),
    },
    drop: {
      NL: vma({ pscid: 1n, addr: 0x2000n, nl: true }),
      'NL in all spaces': vma({ addr: 0x2000n, nl: true }),
      'the PSCID': vma({ pscid: 1n }),
      all: vma(),
    },
  },
  'a global leaf': {
    section: 'IOTINVAL.VMA operands: PSCV=1 leaves global mappings',
    layer: LEAF,
    make: () => {
      const bare = start();
      const { root, entry } = firstStage(bare, 0x7000n, ppn(OLD) | RWXUAD | G);
      bare.dc(5, { ta: 1n << 12n, fsc: SV39 | (root >> 12n) });
      bare.reaches(5, 0x7000n, OLD);
      bare.memory.writeU64(entry, ppn(NOW) | RWXUAD | G);
      return { bare, did: 5, iova: 0x7000n, old: OLD, now: NOW };
    },
    keep: { 'the PSCID': vma({ pscid: 1n }), 'its page': vma({ pscid: 1n, addr: 0x7000n }) },
    drop: { 'the page in all spaces': vma({ addr: 0x7000n }), all: vma() },
  },
  'a leaf of the second stage': {
    section: 'Changing second-stage page table entry',
    layer: LEAF,
    make: () => {
      const bare = start();
      const root = bare.page(0x4000n);
      const entry = bare.map(root, 3, 0x7000n, ppn(OLD) | RWXUAD, 0, true);
      bare.dc(5, { iohgatp: SV39 | (3n << 44n) | (root >> 12n) });
      bare.reaches(5, 0x7000n, OLD);
      bare.memory.writeU64(entry, ppn(NOW) | RWXUAD);
      return { bare, did: 5, iova: 0x7000n, old: OLD, now: NOW };
    },
    keep: {
      'another page': gvma({ gscid: 3n, addr: 0x6000n }),
      'another machine': gvma({ gscid: 4n }),
      'the host': vma(),
      'first-stage leaves': vma({ gscid: 3n, addr: 0x7000n }),
    },
    drop: {
      'the page': gvma({ gscid: 3n, addr: 0x7000n }),
      'the machine': gvma({ gscid: 3n }),
      'all machines, the address is ignored': gvma({ addr: 0x6000n }),
    },
  },
  'a non-leaf PTE of the second stage': {
    section: 'Changing second-stage page table entry',
    layer: TABLE,
    make: () => {
      const bare = start();
      const root = bare.page(0x4000n);
      bare.map(root, 3, 0x1000n, ppn(0x1_0000n) | RWXUAD, 0, true);
      bare.map(root, 3, 0x2000n, ppn(OLD) | RWXUAD, 0, true);
      bare.dc(5, { iohgatp: SV39 | (3n << 44n) | (root >> 12n) });
      bare.reaches(5, 0x1000n, 0x1_0000n);
      const other = bare.page();
      bare.memory.writeU64(other + 16n, ppn(NOW) | RWXUAD);
      bare.map(root, 3, 0n, ppn(other) | V, 1, true);
      return { bare, did: 5, iova: 0x2000n, old: OLD, now: NOW };
    },
    keep: {
      'a leaf': gvma({ gscid: 3n, addr: 0x2000n }),
      'NL elsewhere': gvma({ gscid: 3n, addr: 0x20_0000n, nl: true }),
      'another machine': gvma({ gscid: 4n }),
      'the first stage': vma({ gscid: 3n }),
    },
    drop: {
      NL: gvma({ gscid: 3n, addr: 0x2000n, nl: true }),
      'the machine': gvma({ gscid: 3n }),
      'all machines': gvma(),
    },
  },
  'two stages, second changed': {
    section: 'Changing second-stage page table entry',
    layer: LEAF,
    make: () => {
      const { bare, entry2 } = nested(0);
      bare.memory.writeU64(entry2, ppn(NOW) | RWXUAD);
      return { bare, did: 5, iova: 0x7000n, old: OLD, now: NOW };
    },
    keep: {
      'the IOVA is no GPA': gvma({ gscid: 3n, addr: 0x7000n }),
      'another machine': gvma({ gscid: 4n, addr: 0x9000n }),
      'the host': vma(),
    },
    drop: { 'the GPA': gvma({ gscid: 3n, addr: 0x9000n }), 'the machine': gvma({ gscid: 3n }) },
  },
  'two stages, first changed': {
    section: 'Changing first-stage page table entry',
    layer: LEAF,
    make: () => {
      const { bare, entry1 } = nested(0);
      bare.memory.writeU64(entry1, ppn(0xa000n) | RWXUAD);
      return { bare, did: 5, iova: 0x7000n, old: OLD, now: NOW };
    },
    keep: {
      'the host': vma({ pscid: 1n }),
      'another PSCID': vma({ gscid: 3n, pscid: 2n }),
      'another machine': vma({ gscid: 4n, pscid: 1n }),
      'another page': vma({ gscid: 3n, pscid: 1n, addr: 0x9000n }),
      'another GPA': gvma({ gscid: 3n, addr: 0x7000n }),
    },
    drop: {
      'the page': vma({ gscid: 3n, pscid: 1n, addr: 0x7000n }),
      'the page in all spaces': vma({ gscid: 3n, addr: 0x7000n }),
      'the PSCID': vma({ gscid: 3n, pscid: 1n }),
      'the machine': vma({ gscid: 3n }),
    },
  },
  'a part of a 2 MiB leaf that the second stage cuts': {
    section: 'IOTINVAL.VMA operands: entries that contain the first-stage leaf',
    layer: LEAF,
    make: () => {
      const { bare, entry1 } = nested(1);
      bare.memory.writeU64(entry1, ppn(0x20_0000n) | RWXUAD);
      return { bare, did: 5, iova: 0x9000n, old: OLD, now: 0x20_9000n };
    },
    keep: { outside: vma({ gscid: 3n, pscid: 1n, addr: 0x20_0000n }) },
    drop: { 'any page of the leaf': vma({ gscid: 3n, pscid: 1n, addr: 0x1f_f000n }) },
  },
  'an MSI PTE': {
    section: 'Changing MSI page table entry',
    layer: LEAF,
    make: () => {
      const bare = start();
      const root = bare.page(0x4000n);
      const msi = bare.page();
      bare.memory.writeU64(msi + 16n, ppn(OLD) | 7n);
      bare.dc(5, {
        iohgatp: SV39 | (3n << 44n) | (root >> 12n),
        msiptp: (1n << 60n) | (msi >> 12n),
        mask: 3n,
        pattern: 0x50n,
      });
      bare.reaches(5, 0x5_1000n, OLD, 2);
      bare.memory.writeU64(msi + 16n, ppn(NOW) | 7n);
      return { bare, did: 5, iova: 0x5_1000n, old: OLD, now: NOW };
    },
    keep: {
      'another file': gvma({ gscid: 3n, addr: 0x5_2000n }),
      'another machine': gvma({ gscid: 4n }),
      'first stage': vma({ gscid: 3n }),
      IODIR: ddt(),
    },
    drop: {
      'the file': gvma({ gscid: 3n, addr: 0x5_1000n }),
      'the machine': gvma({ gscid: 3n }),
      'all machines': gvma(),
    },
  },
};

/** GSCID 3, PSCID 1: IOVA 0x7000 to GPA 0x9000 (or, with a leaf of level 1, IOVA to the same GPA), and that to {@link OLD}. */
const nested = (level: 0 | 1): { bare: BareMetal; entry1: bigint; entry2: bigint } => {
  const bare = start();
  const second = bare.page(0x4000n);
  const gpa = 0x9000n;
  const { root, entry } = firstStage(bare, level === 0 ? 0x7000n : 0n, ppn(level === 0 ? gpa : 0n) | RWXUAD, level);
  bare.map(second, 3, 0x20_0000n, ppn(0x20_0000n) | RWXUAD, 1, true);
  const entry2 = bare.map(second, 3, gpa, ppn(OLD) | RWXUAD, 0, true);
  bare.map(second, 3, 0xa000n, ppn(NOW) | RWXUAD, 0, true);
  bare.dc(5, { iohgatp: SV39 | (3n << 44n) | (second >> 12n), ta: 1n << 12n, fsc: SV39 | (root >> 12n) });
  bare.reaches(5, level === 0 ? 0x7000n : gpa, OLD);
  return { bare, entry1: entry, entry2 };
};
