/** Readers and grace periods, against a model that knows when each reader and each batch came. */
import { IommuError } from '@iommu-ts/bits';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Rcu } from '../src/rcu.ts';
import type { RcuClient } from '../src/rcu.ts';

fc.configureGlobal({ seed: 20_261_124 });

/** A client with numbered batches. */
class Client implements RcuClient {
  later: number[] = [];
  batch: number[] = [];
  freed: number[] = [];
  onEnd: ((batch: readonly number[]) => void) | null = null;
  readonly rcu: Rcu;
  constructor(rcu: Rcu) {
    this.rcu = rcu;
    rcu.register(this);
  }
  get waiting(): boolean {
    return this.later.length > 0;
  }
  put(batch: number): number {
    this.later.push(batch);
    return this.rcu.request();
  }
  begin(): void {
    expect(this.batch).toEqual([]);
    this.batch = this.later;
    this.later = [];
  }
  end(): void {
    this.onEnd?.(this.batch);
    this.freed.push(...this.batch);
    this.batch = [];
  }
}

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return error instanceof IommuError ? error.code : String(error);
  }
  return 'nothing thrown';
};

describe('grace periods', () => {
  test('without a reader a batch is freed by the next run, not before', () => {
    const rcu = new Rcu();
    const client = new Client(rcu);
    const state = client.put(1);
    expect([client.freed, rcu.pending, rcu.poll(state)]).toEqual([[], true, true]);
    expect(rcu.run()).toBe(true);
    expect([client.freed, rcu.pending, rcu.completed]).toEqual([[1], false, 1]);
    expect(rcu.run()).toBe(true);
    expect(rcu.completed).toBe(1);
  });

  test('a reader that had begun holds a batch up, one that came later does not', () => {
    const rcu = new Rcu();
    const client = new Client(rcu);
    const before = rcu.readLock();
    const state = client.put(1);
    const after = rcu.readLock();
    expect([rcu.run(), client.freed, rcu.poll(state), rcu.readers]).toEqual([false, [], false, 2]);
    rcu.readUnlock(before);
    expect([rcu.poll(state), client.freed]).toEqual([true, []]);
    expect(rcu.run()).toBe(true);
    expect([client.freed, rcu.readers]).toEqual([[1], 1]);
    rcu.readUnlock(after);
  });

  test('what comes during a grace period waits for one of its own', () => {
    const rcu = new Rcu();
    const client = new Client(rcu);
    const a = rcu.readLock();
    const first = client.put(1);
    const b = rcu.readLock();
    const second = client.put(2);
    expect(second).toBeGreaterThan(first);
    rcu.readUnlock(a);
    // The second grace period begins in this run, and waits for b.
    expect(rcu.run()).toBe(false);
    expect([client.freed, rcu.poll(first), rcu.poll(second)]).toEqual([[1], true, false]);
    rcu.readUnlock(b);
    expect(rcu.run()).toBe(true);
    expect([client.freed, rcu.poll(second)]).toEqual([[1, 2], true]);
  });

  test('the clock runs what is due at its next tick', () => {
    const timers: { at: number; run: () => void }[] = [];
    const clock = { after: (ns: number, run: () => void) => timers.push({ at: ns, run }) };
    const rcu = new Rcu({ clock, tickNs: 250 });
    const client = new Client(rcu);
    const reader = rcu.readLock();
    client.put(1);
    client.put(2);
    expect(timers).toEqual([]);
    rcu.readUnlock(reader);
    expect(timers.map(({ at }) => at)).toEqual([250]);
    expect(client.freed).toEqual([]);
    timers.shift()!.run();
    // The second batch came in the same grace period's time: its own followed at once, for nobody was reading.
    expect([client.freed, rcu.pending]).toEqual([[1, 2], false]);
    for (const { run } of timers.splice(0)) run();
    expect(client.freed).toEqual([1, 2]);
  });

  test('several clients share the grace periods', () => {
    const rcu = new Rcu();
    const clients = [new Client(rcu), new Client(rcu)];
    clients[0]!.put(1);
    clients[1]!.put(2);
    rcu.run();
    expect(clients.map(({ freed }) => freed)).toEqual([[1], [2]]);
  });

  test('an end without a begin is refused', () => {
    const rcu = new Rcu();
    expect(codeOf(() => rcu.readUnlock(0))).toBe('EINVAL');
    const token = rcu.readLock();
    rcu.readUnlock(token);
    expect(codeOf(() => rcu.readUnlock(token))).toBe('EINVAL');
    const old = rcu.readLock();
    new Client(rcu).put(1);
    rcu.readUnlock(old);
    expect(codeOf(() => rcu.readUnlock(old))).toBe('EINVAL');
    expect(codeOf(() => rcu.readUnlock(77))).toBe('EINVAL');
  });
});

type Op = { readonly op: 'lock' | 'put' | 'run' | 'tick' } | { readonly op: 'unlock'; readonly which: number };
const ops: fc.Arbitrary<Op[]> = fc.array(
  fc.oneof(
    fc.constantFrom<Op>({ op: 'lock' }, { op: 'put' }, { op: 'run' }, { op: 'tick' }),
    fc.record({ op: fc.constant('unlock' as const), which: fc.nat(7) }),
  ),
  { maxLength: 80 },
);

test('no batch is freed while a reader that had begun before it has not ended, and all are in the end', () => {
  fc.assert(
    fc.property(ops, fc.boolean(), (sequence, clocked) => {
      const due: (() => void)[] = [];
      const rcu = new Rcu(clocked ? { clock: { after: (_ns, run) => due.push(run) } } : {});
      const clients = [new Client(rcu), new Client(rcu)];
      // The model: readers that are alive, and the readers that were alive when a batch came.
      const readers: { token: number; id: number }[] = [];
      const olderThan = new Map<number, Set<number>>();
      const states = new Map<number, number>();
      let ids = 0;
      let running = false;
      const alive = (batch: number): boolean => readers.some(({ id }) => olderThan.get(batch)!.has(id));
      for (const client of clients) {
        client.onEnd = (batch) => {
          expect(running).toBe(true);
          for (const number of batch) expect(alive(number)).toBe(false);
        };
      }
      const inside = (run: () => void): void => {
        running = true;
        run();
        running = false;
      };
      const checkPolls = (): void => {
        for (const [batch, state] of states) {
          if (rcu.poll(state)) expect(alive(batch)).toBe(false);
        }
      };
      for (const step of sequence) {
        if (step.op === 'lock') readers.push({ token: rcu.readLock(), id: ids++ });
        else if (step.op === 'unlock') {
          const [reader] = readers.splice(step.which % Math.max(readers.length, 1), 1);
          if (reader !== undefined) rcu.readUnlock(reader.token);
        } else if (step.op === 'put') {
          const batch = ids++;
          olderThan.set(batch, new Set(readers.map(({ id }) => id)));
          states.set(batch, clients[batch % 2]!.put(batch));
        } else if (step.op === 'run') inside(() => rcu.run());
        else inside(() => due.shift()?.());
        expect(rcu.readers).toBe(readers.length);
        checkPolls();
      }
      for (const { token } of readers.splice(0)) rcu.readUnlock(token);
      if (clocked) inside(() => due.splice(0).forEach((run) => run()));
      else inside(() => rcu.run());
      // Without readers one run does it all.
      const freed = clients.flatMap((client) => client.freed).toSorted((a, b) => a - b);
      expect(freed).toEqual([...olderThan.keys()].toSorted((a, b) => a - b));
      expect(rcu.pending).toBe(false);
      checkPolls();
      for (const state of states.values()) expect(rcu.poll(state)).toBe(true);
    }),
    { numRuns: 1000 },
  );
});
