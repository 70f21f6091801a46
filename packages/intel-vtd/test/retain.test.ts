/**
 * The adversarial unit: what is cached stays until the descriptor that specification 4.1, section 6.5 defines to drop it,
 * and invalidations take effect when software next reads a register. Descriptors by hand, numbers from section 6.5.2.
 */
import type { InvalidationEvent } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { Bare, CAP, CONTEXTS, ECAP, QUEUE, R, ROOT, W } from './rig.ts';

const retain = { mode: 'retain' } as const;
const FSTS = 0x34;
const SID = 0x18;
const NONE = -6n; // LGN_3, read of what is not mapped
const CM = 1n << 7n;

/** Context-cache invalidate: type 1; G 1 global, 2 domain, 3 device. */
const cc = (g: number, did = 0, sid = 0, fm = 0): bigint =>
  1n | (BigInt(g) << 4n) | (BigInt(did) << 16n) | (BigInt(sid) << 32n) | (BigInt(fm) << 48n);
/** IOTLB invalidate: type 2; G 1 global, 2 domain, 3 page. */
const iotlb = (g: number, did = 0): bigint => 2n | (BigInt(g) << 4n) | (BigInt(did) << 16n);
const IH = 1n << 6n;

/** A descriptor, executed: FSTS is read. */
const done = (bare: Bare, low: bigint, high = 0n): void => {
  bare.submit(low, high);
  bare.rd(FSTS);
};

/** SID in domain 7, four levels, page 0x5000; the queue runs. */
const mapped = (options: { cap?: bigint; ecap?: bigint } = {}) => {
  const bare = new Bare({ iotlb: retain, ...options });
  const root = bare.attach(SID, 7);
  const leaf = bare.entry(root, 4, 0x5000n, 1, 0x100_0003n);
  bare.enable();
  bare.enableQueue();
  const events: InvalidationEvent[] = [];
  bare.unit.onInvalidate = (event) => events.push(event);
  return { bare, root, leaf, events };
};
const scope = (e: InvalidationEvent) => [e.layers, e.domain, e.requester, e.startPfn, e.lastPfn];

describe('IOTLB (6.2.4, 6.5.2.3)', () => {
  test('a translation goes with its page, its domain, or all; no other command touches it', () => {
    const { bare, leaf, events } = mapped();
    expect(bare.go(SID, 0x5000n)).toBe(0x100_0000n);
    bare.put(leaf, 0n);
    done(bare, iotlb(3, 8), 0x5000n); // another domain
    done(bare, iotlb(3, 7), 0x6000n); // another page
    done(bare, iotlb(2, 8));
    done(bare, cc(1));
    expect(bare.go(SID, 0x5abcn)).toBe(0x100_0abcn);
    done(bare, iotlb(3, 7), 0x5000n | IH);
    expect(bare.go(SID, 0x5000n)).toBe(NONE);
    expect(events.map(scope)).toEqual([
      [3, 8, -1, 5, 5],
      [3, 7, -1, 6, 6],
      [3, 8, -1, 0, Infinity],
      [4, -1, -1, 0, Infinity],
      [1, 7, -1, 5, 5],
    ]);
    expect(events[4]!.name).toBe('iotlb_inv_dsc DID=0x7 ADDR=0x5000 AM=0 IH=1');
    for (const command of [iotlb(2, 7), iotlb(1)]) {
      bare.put(leaf, 0x100_0003n);
      expect(bare.go(SID, 0x5000n)).toBe(0x100_0000n);
      bare.put(leaf, 0n);
      done(bare, command);
      expect(bare.go(SID, 0x5000n)).toBe(NONE);
    }
  });

  test('an address mask: the aligned range, not a page more', () => {
    const { bare, root, events } = mapped();
    const at = [...Array(8).keys()].map((n) =>
      bare.entry(root, 4, 0x8000n + BigInt(n << 12), 1, 0x100_0003n + BigInt(n << 12)),
    );
    const all = (): bigint[] => at.map((_, n) => bare.go(SID, 0x8000n + BigInt(n << 12)));
    const before = all();
    for (const entry of at) bare.put(entry, 0n);
    done(bare, iotlb(3, 7), 0xd000n | 1n);
    expect(all()).toEqual(before.map((pa, n) => (n === 4 || n === 5 ? NONE : pa)));
    expect(scope(events[0]!)).toEqual([3, 7, -1, 0xc, 0xd]);
  });

  test('a large page goes with any address in it', () => {
    const { bare, root } = mapped();
    const entry = bare.entry(root, 4, 0x4000_0000n, 2, 0x20_0083n);
    expect(bare.go(SID, 0x4012_3000n)).toBe(0x32_3000n);
    bare.put(entry, 0n);
    done(bare, iotlb(3, 7), 0x401f_f000n);
    expect(bare.go(SID, 0x4000_0000n)).toBe(NONE);
  });
});

describe('paging-structure caches (6.2.5)', () => {
  /** Another leaf table stands where the first did. */
  const replaced = () => {
    const rig = mapped();
    const { bare, root } = rig;
    bare.go(SID, 0x5000n);
    const table = bare.table();
    bare.put(table + 8n * 5n, 0x200_0003n);
    bare.entry(root, 4, 0x5000n, 2, table | 3n);
    return rig;
  };

  test('IH=1 drops the translation and keeps the way to it', () => {
    const { bare } = replaced();
    done(bare, iotlb(3, 7), 0x5000n | IH);
    expect(bare.go(SID, 0x5000n)).toBe(0x100_0000n);
  });

  test('IH=0, the domain, or all drop both', () => {
    for (const [low, high] of [
      [iotlb(3, 7), 0x5000n],
      [iotlb(2, 7), 0n],
      [iotlb(1), 0n],
    ] as const) {
      const { bare } = replaced();
      done(bare, low, high);
      expect(bare.go(SID, 0x5000n)).toBe(0x200_0000n);
    }
  });

  test('of another domain or another address, or a context command: neither', () => {
    const { bare } = replaced();
    done(bare, iotlb(3, 8), 0x5000n);
    done(bare, iotlb(2, 8));
    done(bare, iotlb(3, 7), 0x20_0000n);
    done(bare, cc(3, 7, SID));
    done(bare, iotlb(3, 7), 0x5000n | IH);
    expect(bare.go(SID, 0x5000n)).toBe(0x100_0000n);
  });

  test('permissions of the entries above are kept with it', () => {
    const { bare, root } = mapped();
    const middle = bare.entry(root, 4, 0x5000n, 2, bare.table() | 1n); // read only
    const table = bare.memory.readU64(middle) & ~0xfffn;
    bare.put(table + 8n * 5n, 0x300_0003n);
    bare.put(table + 8n * 6n, 0x300_1003n);
    expect(bare.go(SID, 0x5000n)).toBe(0x300_0000n);
    expect(bare.go(SID, 0x6000n, W)).toBe(-5n);
    expect(bare.go(SID, 0x6000n)).toBe(0x300_1000n);
  });

  test('without CAP.CM what is not present is never kept', () => {
    const { bare, root } = mapped();
    expect(bare.go(SID, 0x6000n)).toBe(NONE);
    expect(bare.go(SID, 0x4000_0000n)).toBe(NONE);
    bare.entry(root, 4, 0x6000n, 1, 0x100_1003n);
    bare.entry(root, 4, 0x4000_0000n, 2, 0x20_0083n);
    expect(bare.go(SID, 0x6000n)).toBe(0x100_1000n);
    expect(bare.go(SID, 0x4000_0000n)).toBe(0x20_0000n);
  });
});

describe('context cache (6.2.2, 6.5.2.1)', () => {
  const clear = (bare: Bare, sid = SID): void => bare.put(CONTEXTS + 16n * BigInt(sid), 0n, 0n);

  test('an entry goes globally, with its domain, or with its source-id and its domain-id', () => {
    for (const [command, goes] of [
      [cc(1), true],
      [cc(2, 7), true],
      [cc(3, 7, SID), true],
      [cc(2, 8), false],
      [cc(3, 7, SID + 1), false],
      [cc(3, 8, SID), false], // the domain-id is the one that was programmed (CCMD.DID)
      [iotlb(1), false],
    ] as const) {
      const { bare } = mapped();
      bare.go(SID, 0x5000n);
      clear(bare);
      expect(bare.go(SID, 0x5000n)).toBe(0x100_0000n);
      done(bare, command);
      expect(bare.go(SID, 0x5000n), `descriptor ${command.toString(16)}`).toBe(goes ? -2n : 0x100_0000n);
    }
  });

  test('none takes the place of another', () => {
    const { bare } = mapped();
    const sids = [SID, SID + 0x400, SID + 0x800, SID + 0xfc00];
    for (const sid of sids) bare.context(sid, (bare.memory.readU64(CONTEXTS + 16n * 0x18n) & ~0xfffn) | 1n, 0x702n);
    for (const sid of sids) expect(bare.go(sid, 0x5000n)).toBe(0x100_0000n);
    for (const sid of sids) bare.context(sid, 0n, 0n);
    for (const sid of sids) expect(bare.go(sid, 0x5000n)).toBe(0x100_0000n);
  });

  test('the function mask takes function bits out, and each function is told', () => {
    const { bare, events } = mapped();
    const entry = bare.memory.readU64(CONTEXTS + 16n * 0x18n);
    for (let f = 0; f < 8; f++) bare.context(0x18 + f, entry, 0x702n);
    const gone = (fm: number): number[] => {
      for (let f = 0; f < 8; f++) {
        bare.context(0x18 + f, entry, 0x702n);
        bare.go(0x18 + f, 0x5000n);
        bare.context(0x18 + f, 0n, 0n);
      }
      events.length = 0;
      done(bare, cc(3, 7, 0x1b, fm));
      return [...Array(8).keys()].filter((f) => bare.go(0x18 + f, 0x5000n) === -2n);
    };
    for (const [fm, functions] of [
      [0, [3]],
      [1, [3, 7]],
      [2, [1, 3, 5, 7]],
      [3, [0, 1, 2, 3, 4, 5, 6, 7]],
    ] as const) {
      expect(gone(fm)).toEqual(functions);
      expect(events.map((e) => e.requester)).toEqual(functions.map((f) => 0x18 + f));
      expect(events.every((e) => e.domain === 7 && e.layers === 4)).toBe(true);
      done(bare, cc(1));
    }
  });

  test('SRTP and TE drop nothing (6.6), unless CAP.ESRTPS says so', () => {
    for (const esrtps of [false, true]) {
      const { bare, leaf, events } = mapped({ cap: CAP | (esrtps ? 1n << 63n : 0n) });
      bare.go(SID, 0x5000n);
      bare.put(leaf, 0n);
      clear(bare);
      bare.wr(0x18, 0x0400_0000); // TE off
      bare.wr64(0x20, ROOT);
      bare.wr(0x18, 0x4400_0000); // SRTP
      bare.wr(0x18, 0x8400_0000);
      expect(bare.go(SID, 0x5000n)).toBe(esrtps ? -2n : 0x100_0000n);
      expect(events.map((e) => [e.name, ...scope(e)])).toEqual(esrtps ? [['SRTP', 7, -1, -1, 0, Infinity]] : []);
    }
  });

  test('reset drops all, and is told', () => {
    const { bare, leaf, events } = mapped();
    bare.go(SID, 0x5000n);
    bare.put(leaf, 0n);
    bare.unit.reset();
    bare.enable();
    expect(bare.go(SID, 0x5000n)).toBe(NONE);
    expect(events).toMatchObject([{ name: 'reset', layers: 7 }]);
  });
});

describe('caching mode (6.1)', () => {
  test('second-stage entries that were not present are kept under the domain-id', () => {
    const { bare, root } = mapped({ cap: CAP | CM });
    expect(bare.go(SID, 0x6000n)).toBe(NONE);
    expect(bare.go(SID, 0x4000_0000n)).toBe(NONE);
    bare.entry(root, 4, 0x6000n, 1, 0x100_1003n);
    bare.entry(root, 4, 0x4000_0000n, 2, 0x20_0083n);
    const both = (): bigint[] => [bare.go(SID, 0x6000n), bare.go(SID, 0x4000_0000n)];
    expect(both()).toEqual([NONE, NONE]);
    done(bare, iotlb(3, 8), 0x6000n);
    done(bare, iotlb(3, 7), 0x5000n);
    expect(both()).toEqual([NONE, NONE]);
    done(bare, iotlb(3, 7), 0x6000n);
    expect(both()).toEqual([0x100_1000n, NONE]);
    done(bare, iotlb(2, 7));
    expect(both()).toEqual([0x100_1000n, 0x20_0000n]);
  });

  test('contexts that were not present are kept under domain-id 0', () => {
    const { bare } = mapped({ cap: CAP | CM });
    const entry = bare.memory.readU64(CONTEXTS + 16n * 0x18n);
    for (const [sid, reason] of [
      [0x19, -2n],
      [0x119, -1n], // no context table for the bus: LRT_2
    ] as const) {
      expect(bare.go(sid, 0x5000n)).toBe(reason);
      bare.context(sid, entry, 0x702n);
      expect(bare.go(sid, 0x5000n)).toBe(reason);
      done(bare, cc(3, 7, sid));
      done(bare, cc(3, 0, sid ^ 1));
      done(bare, cc(2, 7));
      expect(bare.go(sid, 0x5000n)).toBe(reason);
      done(bare, cc(3, 0, sid));
      expect(bare.go(sid, 0x5000n)).toBe(0x100_0000n);
    }
  });
});

describe('invalidations take effect when software next reads a register', () => {
  test('the queue: not by the tail, not by another write, not by a DMA', () => {
    const { bare, leaf, events } = mapped();
    bare.go(SID, 0x5000n);
    bare.put(leaf, 0n);
    bare.submit(cc(3, 7, SID));
    bare.submit(iotlb(3, 7), 0x5000n);
    bare.submit(5n | (1n << 5n) | (0x77n << 32n), 0x40_0000n); // wait, with a status write
    bare.wr(0x38, 0);
    expect(bare.unit.pendingInvalidations).toBe(2);
    expect(bare.go(SID, 0x5000n)).toBe(0x100_0000n);
    expect(bare.memory.readU64(0x40_0000n)).toBe(0n);
    expect(events).toEqual([]);
    const left: number[] = [];
    bare.unit.onInvalidate = () => left.push(bare.unit.pendingInvalidations);
    expect(bare.rd64(0x80)).toBe(0x30n);
    expect(left).toEqual([1, 0]);
    expect(bare.unit.pendingInvalidations).toBe(0);
    expect(bare.memory.readU64(0x40_0000n)).toBe(0x77n);
    expect(bare.go(SID, 0x5000n)).toBe(NONE);
  });

  test('the registers: ICC and IVT stand until then', () => {
    const { bare, leaf, events } = mapped({ ecap: ECAP & ~2n });
    bare.go(SID, 0x5000n);
    bare.put(leaf, 0n);
    bare.wr64(0x28, (1n << 63n) | (1n << 61n)); // CCMD: global
    bare.wr64(0xf0, 0x5000n | IH); // IVA
    bare.wr64(0xf8, (1n << 63n) | (3n << 60n) | (7n << 32n)); // IOTLB: pages of domain 7
    expect(bare.unit.pendingInvalidations).toBe(2);
    expect(bare.go(SID, 0x5000n)).toBe(0x100_0000n);
    expect(bare.rd(0xfc) >>> 31).toBe(0);
    expect(bare.go(SID, 0x5000n)).toBe(NONE);
    expect(events.map((e) => e.name)).toEqual(['CCMD', 'IOTLB_REG DID=0x7 ADDR=0x5000 AM=0 IH=1']);
    expect(bare.unit.pendingInvalidations).toBe(0);
  });

  test('in the other modes at once, with the same word of it', () => {
    for (const mode of ['none', 'sized', 'unbounded'] as const) {
      const bare = new Bare({ iotlb: { mode } });
      const events: InvalidationEvent[] = [];
      bare.unit.onInvalidate = (event) => events.push(event);
      bare.enableQueue();
      bare.submit(iotlb(2, 7));
      expect(events.map(scope)).toEqual([[3, 7, -1, 0, Infinity]]);
      expect(bare.unit.pendingInvalidations).toBe(0);
    }
  });

  test('an incorrect descriptor invalidates nothing and is not told; a queue that stopped has nothing pending', () => {
    const { bare, events } = mapped();
    done(bare, iotlb(0, 7));
    bare.submit(cc(1));
    bare.rd(FSTS);
    expect(events).toEqual([]);
    expect(bare.unit.pendingInvalidations).toBe(0);
    expect(bare.memory.readU64(QUEUE)).toBe(iotlb(0, 7));
  });
});

describe('scalable mode (6.2.3, 6.5.2.2, 6.5.2.4)', () => {
  const CAP_S = 0x11d2_008c_222f_0e06n;
  /** RPS, FSTS, SSTS, SMTS, PASID with 20 bits. */
  const ECAP_S = 0xf43n | (1n << 49n) | (3n << 46n) | (1n << 43n) | (1n << 40n) | (19n << 35n);
  const [CONTEXT, DIRECTORY, PASIDS] = [0x11_0000n, 0x12_0000n, 0x13_0000n];
  const entryOf = (pasid: number): bigint => PASIDS + 64n * BigInt(pasid);
  /** PASID-cache invalidate: type 7; G 0 domain, 1 PASID, 3 global. */
  const pc = (g: number, did = 0, pasid = 0): bigint =>
    7n | (BigInt(g) << 4n) | (BigInt(did) << 16n) | (BigInt(pasid) << 32n);
  /** PASID-based IOTLB invalidate: type 6; G 2 PASID, 3 page. */
  const piotlb = (g: number, did: number, pasid: number): bigint =>
    6n | (BigInt(g) << 4n) | (BigInt(did) << 16n) | (BigInt(pasid) << 32n);
  /** SID 0x18: PASID 5 and (for requests without) PASID 9, first stage, domains 21 and 22; page 0x5000. */
  const scalable = () => {
    const bare = new Bare({ cap: CAP_S, ecap: ECAP_S, iotlb: retain });
    bare.put(ROOT, CONTEXT | 1n, 0n);
    bare.put(CONTEXT + 32n * 0x18n, DIRECTORY | 9n, 9n, 0n, 0n); // PASIDE, RID_PASID 9
    bare.put(DIRECTORY, PASIDS | 1n);
    const roots = [5, 9].map((pasid, n) => {
      const root = bare.table();
      bare.put(entryOf(pasid), 0x41n, BigInt(21 + n), root);
      bare.entry(root, 4, 0x5000n, 1, 0x100_0007n + 0x1000n * BigInt(pasid), 7n);
      return root;
    });
    bare.enable(1n);
    bare.enableQueue();
    const events: InvalidationEvent[] = [];
    bare.unit.onInvalidate = (event) => events.push(event);
    const both = (): bigint[] => [bare.go(0x18, 0x5000n, R, 5), bare.go(0x18, 0x5000n)];
    return { bare, roots, events, both };
  };
  const [FIVE, NINE] = [0x100_5000n, 0x100_9000n];

  test('PASID entries go with their own command, by PASID and domain-id, not with the context', () => {
    const { bare, both, events } = scalable();
    expect(both()).toEqual([FIVE, NINE]);
    bare.put(entryOf(5), 0n, 0n, 0n);
    bare.put(entryOf(9), 0n, 0n, 0n);
    done(bare, cc(1));
    done(bare, pc(1, 21, 9)); // of another domain
    done(bare, pc(1, 21, 6));
    done(bare, pc(0, 23));
    expect(both()).toEqual([FIVE, NINE]);
    done(bare, pc(1, 21, 5));
    expect(both()).toEqual([-0x59n, NINE]);
    done(bare, pc(0, 22));
    expect(both()).toEqual([-0x59n, -0x59n]);
    expect(events.slice(-2).map((e) => [e.name, ...scope(e)])).toEqual([
      ['pc_inv_dsc DID=0x15 PASID=0x5', 4, 21, -1, 0, Infinity],
      ['pc_inv_dsc DID=0x16', 4, 22, -1, 0, Infinity],
    ]);
  });

  test('contexts go with theirs, not with the PASID entries', () => {
    const { bare, both } = scalable();
    expect(both()).toEqual([FIVE, NINE]);
    bare.put(CONTEXT + 32n * 0x18n, 0n, 0n);
    done(bare, pc(3));
    expect(both()).toEqual([FIVE, NINE]);
    done(bare, cc(3, 0, 0x19));
    expect(both()).toEqual([FIVE, NINE]);
    done(bare, cc(3, 77, 0x18)); // no domain-id in a scalable-mode context
    expect(both()).toEqual([-0x41n, -0x41n]);
  });

  test('first-stage translations and tables, by PASID and domain-id', () => {
    const { bare, roots, both, events } = scalable();
    expect(both()).toEqual([FIVE, NINE]);
    const table = bare.table();
    bare.put(table + 8n * 5n, 0x200_0007n);
    bare.entry(roots[0]!, 4, 0x5000n, 2, table | 7n);
    done(bare, piotlb(3, 21, 6), 0x5000n);
    done(bare, piotlb(2, 22, 5));
    done(bare, iotlb(3, 21), 0x5000n); // names addresses of the second stage
    done(bare, piotlb(3, 21, 5), 0x5000n | IH);
    expect(both()).toEqual([FIVE, NINE]); // through the table that is still known
    done(bare, piotlb(3, 21, 5), 0x5000n);
    expect(both()).toEqual([0x200_0000n, NINE]);
    expect(events.at(-1)).toMatchObject({ layers: 3, domain: 21, startPfn: 5, lastPfn: 5 });
    bare.put(table + 8n * 5n, 0n);
    done(bare, iotlb(2, 22));
    expect(both()).toEqual([0x200_0000n, NINE]);
    done(bare, iotlb(2, 21));
    expect(both()[0]).toBe(-0x71n);
  });
});
