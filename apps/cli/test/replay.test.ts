/** Replay of traces made by hand: what is moved, clipped, refused and cut, and that nothing wrong goes unseen. */
import { Bus } from '@iommu-ts/iommu-core';
import type { DriverHarness, IommuSystem } from '@iommu-ts/iommu-core';
import { describe, expect, test } from 'vitest';
import { harnesses } from '../src/harnesses.ts';
import { replay } from '../src/replay/replay.ts';
import type { DriverResult, ReplayOptions } from '../src/replay/result.ts';
import { parseTrace, readTrace } from '../src/replay/trace.ts';
import { fixture } from './helpers.ts';

const by = (name: string): DriverHarness => harnesses.find((h) => h.name === name)!;
const OPTIONS: ReplayOptions = { check: 'all', mode: 'strict', iova: 'keep', seed: 7, timing: false };

type Row = Readonly<Record<string, unknown>>;
const attach = (rid: number, domain = 'D0'): Row => ({ op: 'attach', domain, rid: `0x${rid.toString(16)}` });
const map = (iova: bigint, pa: bigint, size: bigint, prot = 3, domain = 'D0'): Row => ({
  op: 'map',
  domain,
  iova: `0x${iova.toString(16)}`,
  pa: `0x${pa.toString(16)}`,
  size: `0x${size.toString(16)}`,
  iommuProt: prot,
});
const unmap = (iova: bigint, size: bigint, domain = 'D0'): Row => ({
  op: 'unmap',
  domain,
  iova: `0x${iova.toString(16)}`,
  size: `0x${size.toString(16)}`,
});

const play = (
  name: string | DriverHarness,
  rows: readonly Row[],
  options: Partial<ReplayOptions> = {},
): DriverResult => {
  const trace = parseTrace(rows.map((row) => JSON.stringify(row)).join('\n'), 'by hand');
  const harness = typeof name === 'string' ? by(name) : name;
  return replay(trace, [harness], { ...OPTIONS, ...options }).drivers[0]!;
};

const right = (result: DriverResult): void => {
  expect(result.told).toEqual([]);
  expect(result.wrong).toBe(0);
  expect(result.faultsCaught).toBe(result.faultsProvoked);
};

describe.each(harnesses.map((h) => h.name))('%s', (name) => {
  test('map, DMA, unmap, fault', () => {
    const result = play(name, [attach(3), map(0x4000_0000n, 0x10_0000n, 0x4000n), unmap(0x4000_0000n, 0x4000n)]);
    right(result);
    expect(result).toMatchObject({
      events: 3,
      maps: 1,
      unmaps: 1,
      attaches: 1,
      moved: 0,
      clipped: 0,
      refused: 0,
      cut: 0,
    });
    expect(result.dmaChecked).toBeGreaterThan(8);
    expect(result.faultsProvoked).toBeGreaterThanOrEqual(3);
    expect(result.invalidationCommands).toBeGreaterThan(0);
    expect(result.mappedBytes).toEqual({ now: 0, peak: 0x4000 });
  });
  test('permissions, a doorbell, and two domains at one IOVA', () => {
    const rows = [
      attach(1),
      attach(2, 'D1'),
      map(0x4000_0000n, 0x10_0000n, 0x4000n, 1),
      map(0x4000_4000n, 0x10_4000n, 0x4000n, 2),
      map(0x4000_8000n, 0x2800_0000n, 0x4000n, 2 | 16),
      map(0x4000_0000n, 0x20_0000n, 0x4000n, 3, 'D1'),
      unmap(0x4000_0000n, 0xc000n),
      unmap(0x4000_0000n, 0x4000n, 'D1'),
    ];
    right(play(name, rows));
    right(play(name, rows, { mode: 'lazy' }));
    right(play(name, rows, { iova: 'allocate' }));
  });
  test('every combination of IOMMU_* bits', () => {
    const rows = [attach(1)];
    for (let prot = 0; prot < 64; prot++) {
      rows.push(map(0x4000_0000n + BigInt(prot) * 0x4000n, 0x4000_0000n + BigInt(prot) * 0x4000n, 0x4000n, prot));
    }
    const result = play(name, [...rows, unmap(0x4000_0000n, 64n * 0x4000n)]);
    right(result);
    // Neither READ nor WRITE is no mapping.
    expect(result.refusals).toEqual({ 'map: EINVAL': 16 });
  });
  test('a map before its domain has a device, and a device that moves on', () => {
    const rows = [
      map(0x4000_0000n, 0x10_0000n, 0x4000n),
      attach(1),
      attach(2, 'D1'),
      map(0x5000_0000n, 0x20_0000n, 0x4000n, 3, 'D1'),
      attach(1, 'D1'),
      unmap(0x4000_0000n, 0x4000n),
      unmap(0x5000_0000n, 0x4000n, 'D1'),
    ];
    const result = play(name, rows);
    right(result);
    expect(result.dmaChecked).toBeGreaterThan(0);
  });
  test('the other address rule: everything is moved, and comes back', () => {
    const rows = [
      attach(1),
      ...[0n, 1n, 2n].map((n) => map(0x4000_0000n + n * 0x4000n, 0x10_0000n, 0x4000n)),
      unmap(0x4000_0000n, 0xc000n),
    ];
    const result = play(name, rows, { iova: 'allocate' });
    right(result);
    expect(result.moved).toBe(3);
    expect(result.mappedBytes.now).toBe(0);
  });
  test('lazy mode: an IOVA that waits for the flush is not used again', () => {
    const rows = [attach(1)];
    for (let i = 0; i < 40; i++)
      rows.push(map(0x4000_0000n, 0x10_0000n + BigInt(i) * 0x4000n, 0x4000n), unmap(0x4000_0000n, 0x4000n));
    const strict = play(name, rows);
    const lazy = play(name, rows, { mode: 'lazy' });
    right(strict);
    right(lazy);
    expect(strict.moved).toBe(0);
    expect(lazy.moved).toBe(39);
    expect(lazy.invalidationCommands).toBeLessThan(strict.invalidationCommands);
  });
  test('what the unit cannot express is refused or clipped, and counted', () => {
    const rows = [
      attach(1),
      // Beyond every physical width.
      map(0x4000_0000n, 1n << 60n, 0x4000n),
      map(0x5000_0000n, 0x10_0000n, 0x4000n),
      unmap(0x6000_0000n, 0x4000n),
      unmap(0x4000_0000n, 0x4000n, 'D9'),
    ];
    const result = play(name, rows);
    right(result);
    expect(result.refused).toBe(3);
    expect(result.refusals).toMatchObject({
      'map: physical address beyond the width': 1,
      'unmap: nothing mapped there': 2,
    });
  });
});

describe('moved', () => {
  test('out of a reserved window', () => {
    const rows = [attach(1), map(0xfee0_0000n, 0x10_0000n, 0x1000n), unmap(0xfee0_0000n, 0x1000n)];
    for (const name of ['intel-vtd', 'amd']) {
      const result = play(name, rows);
      right(result);
      expect(result.moved).toBe(1);
    }
  });
  test('into a narrower aperture', () => {
    const rows = [attach(1), map(0xffff_ffff_ffff_c000n, 0x10_0000n, 0x4000n), unmap(0xffff_ffff_ffff_c000n, 0x4000n)];
    const dart = play('apple-dart', rows);
    right(dart);
    expect(dart.moved).toBe(1);
  });
  test('onto a larger granule: neighbours are mapped too, their pages kept apart', () => {
    const rows = [attach(1)];
    for (let i = 0n; i < 8n; i++)
      rows.push(map(0x4000_0000n + i * 0x1000n, 0x10_3000n - i * 0x1000n + 0x8000n, 0x1000n));
    rows.push(unmap(0x4000_0000n, 0x4000n), unmap(0x4000_4000n, 0x4000n));
    const result = play('apple-dart', rows);
    right(result);
    expect(result).toMatchObject({ moved: 8, widened: 8, refused: 0 });
    expect(result.mappedBytes).toEqual({ now: 0, peak: 8 * 0x4000 });
  });
  test('a moved mapping keeps clear of the places that the trace wants later', () => {
    const rows = [attach(1), map(0xfee0_0000n, 0x10_0000n, 0x1000n)];
    for (let at = 0xffff_f000n; at > 0xffff_0000n; at -= 0x1000n)
      rows.push(map(at, 0x20_0000n + at - 0xffff_0000n, 0x1000n));
    rows.push(unmap(0xffff_1000n, 0xf000n), unmap(0xfee0_0000n, 0x1000n));
    const result = play('intel-vtd', rows);
    right(result);
    expect(result.moved).toBe(1);
  });
});

test("refused: a target in the unit's own interrupt window", () => {
  const rows = [attach(1), map(0x4000_0000n, 0xfee0_0000n, 0x4000n, 2 | 16)];
  for (const name of ['intel-vtd', 'amd']) {
    expect(play(name, rows).refusals).toEqual({ "map: physical address in the unit's interrupt window": 1 });
  }
  for (const name of ['arm-smmu', 'apple-dart', 'riscv']) {
    const result = play(name, rows);
    right(result);
    expect(result.refused).toBe(0);
  }
});

test('clipped: memory that reaches over the physical width, and more than the aperture has', () => {
  const { oas, apertureLast } = by('apple-dart').createSystem().driver.info;
  const edge = (1n << BigInt(oas)) - 0x4000n;
  const over = play('apple-dart', [attach(1), map(0x4000_0000n, edge, 0x10_0000n), unmap(0x4000_0000n, 0x10_0000n)]);
  right(over);
  expect(over).toMatchObject({ clipped: 1, refused: 0, mappedBytes: { now: 0, peak: 0x4000 } });
  const large = play('apple-dart', [attach(1), map(0x4000_0000n, 0x10_0000n, apertureLast + 0x4001n, 1 | 16)], {
    check: 'none',
  });
  expect(large.refusals).toEqual({});
  expect(large.clipped).toBe(1);
});

test('large and odd mappings: a whole address space, one byte, no alignment', () => {
  const rows: Row[] = [attach(1)];
  for (const [iova, pa, size] of [
    [0n, 0n, 1n << 33n],
    [1n << 40n, 1n << 30n, 1n << 45n],
    [0n, (1n << 64n) - 4096n, 4096n],
    [0x7777n, 0x3333n, 0x5555n],
    [0x7777n, 0x3333n, 1n],
  ] as const) {
    rows.push(map(iova, pa, size), unmap(iova, size));
  }
  for (const { name } of harnesses) {
    const result = play(name, rows);
    right(result);
    expect(result.dmaChecked).toBeGreaterThan(12);
    expect(result.mappedBytes.now).toBe(0);
    expect(result.refusals['map: physical address beyond the width']).toBe(1);
  }
});

test('what a driver throws is a wrong result, told with its line', () => {
  const sound = by('amd');
  const throwing: DriverHarness = {
    ...sound,
    createSystem: (options) => {
      const system = sound.createSystem(options);
      system.driver.attach = () => {
        throw new Error('the queue is on fire');
      };
      return system;
    },
  };
  expect(play(throwing, [attach(1), map(0x4000_0000n, 0x10_0000n, 0x4000n)]).told).toContain(
    'line 1: threw: the queue is on fire',
  );
});

describe('streams', () => {
  test('by order of first attach where ids are narrower, and no more than there are', () => {
    const rows: Row[] = [];
    for (let i = 0; i < 17; i++)
      rows.push(attach(0x1000 + i, `D${i}`), map(0x4000_0000n, 0x10_0000n + BigInt(i) * 0x4000n, 0x4000n, 3, `D${i}`));
    const result = play('apple-dart', rows);
    right(result);
    expect(result.refusals['attach: all streams are in use']).toBe(1);
    expect(result.dmaChecked).toBeGreaterThan(0);
    expect(play('riscv', rows).refused).toBe(0);
  });
});

describe('an unmap that cuts a mapping', () => {
  const big = (more: readonly Row[]): Row[] => [attach(1), map(0x4000_0000n, 0x4000_0000n, 0x20_0000n), ...more];
  test('of small pages: the rest stays, and goes later', () => {
    const rows = [
      attach(1),
      map(0x4000_1000n, 0x10_0000n, 0x8000n),
      unmap(0x4000_3000n, 0x2000n),
      map(0x4000_3000n, 0x20_0000n, 0x1000n),
      unmap(0x4000_1000n, 0x8000n),
    ];
    for (const name of ['intel-vtd', 'arm-smmu', 'riscv']) {
      for (const mode of ['strict', 'lazy'] as const) {
        const result = play(name, rows, { mode });
        right(result);
        expect(result).toMatchObject({ cut: 1, refused: 0, mappedBytes: { now: 0 } });
      }
    }
  });
  test('generic_pt: beginning inside a large page does nothing', () => {
    const result = play('riscv', big([unmap(0x4010_0000n, 0x1000n), unmap(0x4000_0000n, 0x20_0000n)]));
    right(result);
    expect(result).toMatchObject({
      cut: 1,
      refusals: { 'unmap: begins inside a larger page': 1 },
      mappedBytes: { now: 0 },
    });
  });
  test('generic_pt: ending inside takes the whole page', () => {
    for (const mode of ['strict', 'lazy'] as const) {
      const result = play('riscv', big([unmap(0x4000_0000n, 0x1000n), map(0x4000_0000n, 0x10_0000n, 0x1000n)]), {
        mode,
      });
      right(result);
      expect(result).toMatchObject({ cut: 1, refused: 0, moved: 0, mappedBytes: { now: 0x1000, peak: 0x20_0000 } });
    }
  });
  test('io-pgtable: a large page is never cut', () => {
    const result = play('arm-smmu', big([unmap(0x4000_0000n, 0x1000n), unmap(0x4000_0000n, 0x20_0000n)]));
    right(result);
    expect(result).toMatchObject({ cut: 1, refused: 1, mappedBytes: { now: 0 } });
  });
  test('less than a granule', () => {
    const rows = [
      attach(1),
      map(0x4000_0000n, 0x10_0000n, 0x8000n),
      unmap(0x4000_1000n, 0x1000n),
      unmap(0x4000_0000n, 0x8000n),
    ];
    const result = play('apple-dart', rows);
    right(result);
    expect(result).toMatchObject({
      cut: 1,
      refusals: { 'unmap: less than a granule of a mapping': 1 },
      mappedBytes: { now: 0 },
    });
  });
});

describe('recorded traces', () => {
  test('the same seed gives the same run', () => {
    const trace = readTrace(fixture('guests/linux-6.12-amd-vi'));
    const once = (): unknown =>
      replay(trace, [by('amd')], { ...OPTIONS, check: 'sample' }).drivers.map((d) => ({
        ...d,
        nsPerMap: 0,
        nsPerUnmap: 0,
      }));
    expect(once()).toEqual(once());
  });
  test('all five, everything checked, both modes', () => {
    const trace = readTrace(fixture('guests/linux-6.12-intel-vtd-legacy'));
    for (const mode of ['strict', 'lazy'] as const) {
      const report = replay(trace, harnesses, { ...OPTIONS, mode });
      for (const result of report.drivers) {
        right(result);
        expect(result.dmaChecked).toBeGreaterThan(20_000);
        expect(result.tablePages.peak).toBeGreaterThanOrEqual(result.tablePages.now);
        expect(result.refused).toBe(0);
      }
    }
  });
});

describe('nothing wrong goes unseen', () => {
  const rows: Row[] = [attach(1), attach(2, 'D1')];
  for (let i = 0n; i < 30n; i++) {
    rows.push(map(0x4000_0000n + i * 0x4000n, 0x10_0000n + i * 0x4000n, 0x4000n, i % 3n === 0n ? 1 : 3));
  }
  for (let i = 0n; i < 30n; i++) rows.push(unmap(0x4000_0000n + i * 0x4000n, 0x4000n));

  const broken = (name: string, harm: (system: IommuSystem) => IommuSystem): DriverHarness => {
    const sound = by(name);
    return { ...sound, createSystem: (options) => harm(sound.createSystem(options)) };
  };
  /** The system with a bus whose answers `change` may change: status, and the low word of the address. */
  const translating = (
    system: IommuSystem,
    change: (status: number, iovaLo: number) => [status: number, flip: number],
  ): IommuSystem => {
    const { hardware, memory } = system;
    const translator = {
      outHi: 0,
      outLo: 0,
      translate(requester: number, pasid: number, hi: number, lo: number, access: number): number {
        const [status, flip] = change(hardware.translate(requester, pasid, hi, lo, access), lo);
        translator.outHi = hardware.outHi;
        translator.outLo = hardware.outLo ^ flip;
        return status;
      },
    };
    return { ...system, bus: new Bus(memory, translator) };
  };

  test.each(harnesses.map((h) => h.name))('%s: a wrong address', (name) => {
    const wrong = broken(name, (system) =>
      translating(system, (status, lo) => [status, (lo & 0xf000) === 0x8000 ? 0x40_0000 : 0]),
    );
    const result = play(wrong, rows);
    expect(result.wrong).toBeGreaterThan(0);
    expect(result.told[0]).toMatch(/^line \d+: .* other bytes|a bus error/);
  });
  test.each(harnesses.map((h) => h.name))('%s: a refusal where there should be none', (name) => {
    const wrong = broken(name, (system) =>
      translating(system, (status, lo) => [(lo & 0xff_f000) === 0x5000 ? 1 : status, 0]),
    );
    expect(play(wrong, rows).wrong).toBeGreaterThan(0);
  });
  test.each(harnesses.map((h) => h.name))('%s: an invalidation that is lost', (name) => {
    const wrong = broken(name, (system) => {
      const { iotlb } = system.hardware;
      for (const method of ['invalidateAll', 'invalidateTag', 'invalidateRange', 'invalidateWhere'] as const) {
        (iotlb as unknown as Record<string, () => number>)[method] = () => 0;
      }
      return system;
    });
    const result = play(wrong, rows);
    expect(result.wrong).toBeGreaterThan(0);
    expect(result.told.join('\n')).toMatch(/went through, expected a fault \(notPresent\)/);
  });
  test.each(harnesses.map((h) => h.name))('%s: a record that is lost', (name) => {
    const wrong = broken(name, (system) => {
      const real = system.driver.handleFaults.bind(system.driver);
      system.driver.handleFaults = () => (real(), []);
      return system;
    });
    const result = play(wrong, rows);
    expect(result.faultsCaught).toBeLessThan(result.faultsProvoked);
    expect(result.told[0]).toMatch(/expected a record of it .*found no record/);
  });
  test.each(harnesses.map((h) => h.name))('%s: a record of another access', (name) => {
    const wrong = broken(name, (system) => {
      const real = system.driver.handleFaults.bind(system.driver);
      system.driver.handleFaults = () => real().map((event) => ({ ...event, iova: event.iova ^ 0x8000_0000n }));
      return system;
    });
    expect(play(wrong, rows).wrong).toBeGreaterThan(0);
  });
});
