/** Random lives of an allocator, over several nodes, lists and kernels, against a model. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BuddySource, GFP, IommuPagesList, NO_PAGE, NUMA_NO_NODE, PhysicalMemory } from '../src/index.ts';
import type { Handover } from '../src/index.ts';
import { codeOf } from './code-of.ts';
import { makePages } from './make-pages.ts';
import { ASKED, FLAGS, Model, RAM } from './model.ts';

fc.configureGlobal({ seed: 20_261_124 });

const LOCAL = 1;
const GROUPS = [0, 1, 2];
const ranges = RAM.map(({ first, count, node }) => ({ base: BigInt(first) << 12n, size: BigInt(count) << 12n, node }));

/** Allocator and model, side by side. */
class Pair {
  readonly memory = new PhysicalMemory(ranges);
  source = new BuddySource(this.memory, ranges);
  pages = makePages(this.memory, this.source, { localNode: LOCAL, coherency: 'dma-api' });
  lists = [0, 1, 2].map((n) => new IommuPagesList(`list ${n}`));
  model = new Model();

  constructor() {
    this.memcg(1);
  }

  alloc(asked: number, size: number, gfp: number): void {
    const blockPages = 2 ** Math.ceil(Math.log2(Math.max(1, Math.ceil(size / 4096))));
    const pfn = this.pages.allocPagesNodeSz(asked, size, gfp);
    const node = asked === NUMA_NO_NODE ? LOCAL : asked;
    const exact = (gfp & GFP.THISNODE) !== 0;
    if (pfn === NO_PAGE) {
      expect(this.model.hasRoom(exact ? node : -2, blockPages)).toBe(false);
      return;
    }
    const local = this.model.hasRoom(node, blockPages);
    const block = this.model.add(pfn, blockPages, (gfp & GFP.ACCOUNT) === 0 ? 0 : this.model.memcg);
    expect(pfn % blockPages, 'alignment').toBe(0);
    expect(this.pages.sizeOf(pfn)).toBe(blockPages * 4096);
    if (local || exact) expect(block.node, 'the node asked for, while it has room').toBe(node);
    const bytes = this.memory.readBytes(BigInt(pfn) << 12n, blockPages * 4096);
    expect(
      bytes.every((byte) => byte === 0),
      'zeroed',
    ).toBe(true);
    // Something of its own, to be found again after a kexec and to make the zeroing of the next visible.
    this.memory.writeBytes(BigInt(pfn) << 12n, bytes.fill((pfn & 0x7f) + 1));
  }

  free(which: number): void {
    const block = this.pick(which);
    if (block === undefined) return;
    const code = codeOf(() => this.pages.freeIncoherent(block.pfn));
    expect(code).toBe(block.list >= 0 ? 'EBUSY' : 'nothing thrown');
    if (block.list < 0) this.model.remove(block.pfn);
  }

  add(which: number, to: number): void {
    const block = this.pick(which);
    if (block === undefined) return;
    const list = this.model.lists[to]!;
    const code = codeOf(() => this.pages.listAdd(this.lists[to]!, block.pfn));
    if (list === 'stale') expect(code).toBe('EINVAL');
    else if (block.list >= 0) expect(code).toBe('EBUSY');
    else {
      expect(code).toBe('nothing thrown');
      list.push(block.pfn);
      block.list = to;
    }
  }

  splice(from: number, to: number): void {
    const [a, b] = [this.model.lists[from]!, this.model.lists[to]!];
    const code = codeOf(() => this.pages.listSplice(this.lists[from]!, this.lists[to]!));
    if (a === 'stale' || b === 'stale' || from === to) {
      expect(code).toBe('EINVAL');
      return;
    }
    expect(code).toBe('nothing thrown');
    for (const pfn of a) this.model.live.get(pfn)!.list = to;
    this.model.lists[to] = [...a, ...b];
    this.model.lists[from] = 'stale';
  }

  put(at: number): void {
    const list = this.model.lists[at]!;
    if (list !== 'stale') this.pages.stopIncoherentList(this.lists[at]!);
    const code = codeOf(() => this.pages.putPagesList(this.lists[at]!));
    expect(code).toBe(list === 'stale' ? 'EINVAL' : 'nothing thrown');
    if (list === 'stale') return;
    for (const pfn of list) this.model.remove(pfn);
    this.model.lists[at] = 'stale';
  }

  release(at: number): void {
    const list = this.model.lists[at]!;
    const code = codeOf(() => this.pages.listRelease(this.lists[at]!));
    expect(code).toBe(list === 'stale' ? 'EINVAL' : 'nothing thrown');
    if (list === 'stale') return;
    for (const pfn of list) this.model.live.get(pfn)!.list = -1;
    this.model.lists[at] = [];
  }

  /** A list that was put or spliced may be used again; a full one would lose its blocks. */
  init(at: number): void {
    if (this.model.lists[at] !== 'stale') return;
    this.lists[at]!.init();
    this.model.lists[at] = [];
  }

  preserve(which: number): void {
    const block = this.pick(which);
    if (block === undefined) return;
    expect(codeOf(() => this.pages.preserve(block.pfn))).toBe(block.preserved ? 'EBUSY' : 'nothing thrown');
    block.preserved = true;
  }

  unpreserve(which: number): void {
    const block = this.pick(which);
    if (block === undefined) return;
    expect(codeOf(() => this.pages.unpreserve(block.pfn))).toBe(block.preserved ? 'nothing thrown' : 'EINVAL');
    block.preserved = false;
  }

  incoherent(which: number): void {
    const block = this.pick(which);
    if (block === undefined) return;
    expect(this.pages.startIncoherent(block.pfn)).toBe(block.incoherent ? -22 : 0);
    block.incoherent = true;
  }

  memcg(group: number): void {
    expect(this.pages.setMemcg(group)).toBe(this.model.memcg);
    this.model.memcg = group;
  }

  kexec(): void {
    const handover = JSON.parse(JSON.stringify(this.pages.kexec())) as Handover;
    const next = new Model();
    for (const { pfn, pages, memcg, preserved } of this.model.live.values()) {
      if (!preserved) continue;
      next.add(pfn, pages, memcg);
      next.live.delete(pfn); // in use, but nobody's yet
      next.waiting.set(pfn, { pfn, bytes: pages * 4096, memcg });
    }
    const byPfn = [...next.waiting.values()].toSorted((a, b) => a.pfn - b.pfn);
    expect(handover).toEqual({ version: 1, blocks: byPfn });
    this.model = next;
    this.source = new BuddySource(this.memory, ranges);
    this.pages = makePages(this.memory, this.source, { localNode: LOCAL, coherency: 'dma-api', handover });
    this.lists = [0, 1, 2].map((n) => new IommuPagesList(`list ${n}`));
    this.memcg(1);
  }

  restore(which: number): void {
    const waiting = [...this.model.waiting.values()];
    const block = waiting[which % Math.max(1, waiting.length)];
    if (block === undefined) {
      const live = this.pick(which);
      if (live !== undefined) expect(codeOf(() => this.pages.restore(BigInt(live.pfn) << 12n))).toBe('EINVAL');
      return;
    }
    const { pfn, bytes, memcg } = block;
    expect(this.pages.restore(BigInt(pfn) << 12n)).toBe(pfn);
    this.model.waiting.delete(pfn);
    for (let p = pfn; p < pfn + bytes / 4096; p++) this.model.used.delete(p);
    this.model.add(pfn, bytes / 4096, memcg);
    const content = this.memory.readBytes(BigInt(pfn) << 12n, bytes);
    expect(
      content.every((byte) => byte === (pfn & 0x7f) + 1),
      'content of a restored block',
    ).toBe(true);
  }

  check(): void {
    const { pages, model, source } = this;
    const blocks = [...model.live.values()];
    const facts = (real: boolean) => ({
      // By node: the counter, and what the source has left.
      nodes: RAM.map(({ node }) => (real ? pages.nrIommuPages(node) : model.pages((b) => b.node === node))),
      free: RAM.map(({ node, first, count }) => {
        if (real) return source.freePages(node);
        let used = 0;
        for (const pfn of model.used) if (pfn >= first && pfn < first + count) used++;
        return count - used;
      }),
      all: real ? pages.nrSecPageTablePages : model.pages(),
      groups: [1, 2].map((g) => (real ? pages.counters.memcgPages(g) : model.pages((b) => b.memcg === g))),
      mappings: real ? pages.dmaMappings : blocks.filter((b) => b.incoherent).length,
      lists: this.lists.map((l, n) => (real ? (l.stale ? 'stale' : pages.listPages(l)) : model.lists[n])),
      lengths: this.lists.map((l, n) => (l.stale ? 0 : real ? l.length : model.lists[n]!.length)),
    });
    const [got, wanted] = [facts(true), facts(false)];
    if (JSON.stringify(got) !== JSON.stringify(wanted)) expect(got).toEqual(wanted);
  }

  /** Everything is given back: nothing may be left. */
  end(): void {
    for (const list of this.lists.keys()) {
      this.put(list);
      this.init(list);
    }
    for (const { pfn } of this.model.live.values()) {
      this.pages.freeIncoherent(pfn);
      this.model.remove(pfn);
    }
    this.pages.finishRestore();
    this.model.waiting.clear();
    this.model.used.clear();
    this.check();
  }

  pick(which: number) {
    const live = [...this.model.live.values()];
    return live[which % Math.max(1, live.length)];
  }
}

const list = fc.nat({ max: 2 });
const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc
      .tuple(fc.constantFrom(...ASKED), fc.integer({ min: 1, max: 0x1_0000 }), fc.constantFrom(...FLAGS))
      .map(([node, size, gfp]) => ['alloc', node, size, gfp] as const),
  },
  { weight: 3, arbitrary: fc.nat({ max: 99 }).map((n) => ['free', n] as const) },
  { weight: 4, arbitrary: fc.tuple(fc.nat({ max: 99 }), list).map(([n, to]) => ['add', n, to] as const) },
  { weight: 1, arbitrary: fc.tuple(list, list).map(([from, to]) => ['splice', from, to] as const) },
  { weight: 1, arbitrary: list.map((at) => ['put', at] as const) },
  { weight: 2, arbitrary: list.map((at) => ['init', at] as const) },
  { weight: 1, arbitrary: list.map((at) => ['release', at] as const) },
  { weight: 5, arbitrary: fc.nat({ max: 99 }).map((n) => ['preserve', n] as const) },
  { weight: 1, arbitrary: fc.nat({ max: 99 }).map((n) => ['unpreserve', n] as const) },
  { weight: 2, arbitrary: fc.nat({ max: 99 }).map((n) => ['incoherent', n] as const) },
  { weight: 2, arbitrary: fc.constantFrom(...GROUPS).map((n) => ['memcg', n] as const) },
  { weight: 1, arbitrary: fc.constant(['kexec'] as const) },
  { weight: 3, arbitrary: fc.nat({ max: 99 }).map((n) => ['restore', n] as const) },
);

const run = (pair: Pair, [op, ...args]: readonly [string, ...number[]]): void => {
  (pair[op as 'alloc'] as (...a: number[]) => void).apply(pair, args);
};

test('counters, alignment, contents and free memory agree with the model; nothing leaks', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60, size: 'max' }), (steps) => {
      const pair = new Pair();
      for (const one of steps) {
        run(pair, one);
        pair.check();
      }
      pair.end();
      expect(pair.pages.warnings.filter(({ kind }) => kind === 'freed-incoherent')).toEqual([]);
      // A list that is put is stopped first, and free goes through freeIncoherent: no mapping is left.
      expect([pair.pages.dmaMappings, pair.pages.nrIommuPages()]).toEqual([0, 0]);
    }),
    { numRuns: 80 },
  );
});
