import { describe, expect, test } from 'vitest';
import { MappingModel } from '../../src/checks/mappings.ts';

const by = (operation: number) => ({ what: 'map', operation, timeNs: 0 });

describe('MappingModel', () => {
  test('agrees with a page-by-page model', () => {
    let seed = 99;
    const next = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fff_ffff;
      return (seed >>> 8) % below;
    };
    const model = new MappingModel();
    const pages = new Map<number, number>();
    for (let i = 1; i < 3000; i++) {
      const start = next(200);
      const last = start + next(20);
      if (next(2) === 0) {
        const pa = 1000 + next(1000);
        model.add({ startPfn: start, lastPfn: last, paPfn: pa, mappedBy: by(i) });
        for (let pfn = start; pfn <= last; pfn++) pages.set(pfn, pa + pfn - start);
      } else {
        model.remove(start, last, by(i));
        for (let pfn = start; pfn <= last; pfn++) pages.delete(pfn);
      }
      const [from, to] = [next(200), 200 + next(20)];
      const mapped = [...pages.keys()].filter((pfn) => pfn >= from && pfn <= to).toSorted((a, b) => a - b);
      const overlap = model.overlap(from, to);
      expect(overlap === undefined ? undefined : Math.max(overlap.startPfn, from), `step ${i}`).toBe(mapped[0]);
      let hole = from;
      while (pages.has(hole)) hole++;
      expect(model.firstHole(from, to), `step ${i}`).toBe(hole > to ? -1 : hole);
      const one = model.overlap(from, from);
      expect(one === undefined ? undefined : one.paPfn + from - one.startPfn).toBe(pages.get(from));
    }
    expect(model.live.reduce((sum, m) => sum + m.lastPfn - m.startPfn + 1, 0)).toBe(pages.size);
  });

  test('remembers what went, and finds by physical page', () => {
    const model = new MappingModel();
    model.add({ startPfn: 10, lastPfn: 19, paPfn: 100, mappedBy: by(1) });
    model.remove(12, 13, by(2));
    expect(model.lastGone(13)).toMatchObject({ startPfn: 12, lastPfn: 13, paPfn: 102, unmappedBy: { operation: 2 } });
    expect(model.lastGone(14)).toBeUndefined();
    expect(model.ofPhysical(102, 103)).toBeUndefined();
    expect(model.ofPhysical(103, 104)).toMatchObject({ startPfn: 14, paPfn: 104 });
  });
});
