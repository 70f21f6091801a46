/** A dump is register values by name, and memory. */
import { PageTable } from '@iommu-ts/page-table';
import { describe, expect, test } from 'vitest';
import { inspect } from '../src/inspect.ts';
import type { DartPreset } from '../src/parts.ts';
import { createAppleDart } from '../src/system.ts';
import type { AppleDartSystem } from '../src/system.ts';

/** The registers of a live device by the documented names, from plain offsets. */
const dump = (system: AppleDartSystem, preset: DartPreset) => {
  const values = new Map<string, bigint>();
  const add = (name: string, offset: number): void => {
    values.set(name, BigInt(system.hardware.mmio.read32(offset) >>> 0));
  };
  add('PARAMS1', 0);
  add('PARAMS2', 4);
  if (preset === 't8110' || preset === 't6020') {
    add('PARAMS3', 8);
    add('PARAMS4', 12);
    for (let i = 0; i < 8; i++) add(`ENABLE_STREAMS[${i}]`, 0xc00 + 4 * i);
    for (let s = 0; s < 256; s++) {
      add(`TCR[${s}]`, 0x1000 + 4 * s);
      add(`TTBR[${s}]`, 0x1400 + 4 * s);
    }
  } else {
    add('STREAMS_ENABLE', 0xfc);
    for (let i = 0; i < 4; i++) add(`REMAP[${i}]`, 0x80 + 4 * i);
    for (let s = 0; s < 16; s++) {
      add(`TCR[${s}]`, 0x100 + 4 * s);
      for (let i = 0; i < 4; i++) add(`TTBR[${s}][${i}]`, 0x200 + 16 * s + 4 * i);
    }
    values.set('COMPATIBLE_T6000', preset === 't6000' ? 1n : 0n);
  }
  return (name: string): bigint | undefined => values.get(name);
};

const from = (values: Record<string, bigint>) => (name: string) => values[name];

describe.each(['t8103', 't8103-4k', 't6000', 't8110', 't6020'] as const)('%s', (preset) => {
  test('tables are found, and hold what was mapped', () => {
    const system = createAppleDart({ preset });
    const { driver, memory } = system;
    const { pageSizes: page, apertureLast } = driver.info;
    const domain = driver.createDomain();
    driver.attach(3, domain);
    const mappings = [
      { iova: 5n * page, pa: 0x10_0000n },
      { iova: 6n * page, pa: 0x40_0000n },
      { iova: 0x6000_0000n, pa: 0x80_0000n },
      { iova: apertureLast + 1n - page, pa: 0xc0_0000n },
    ];
    for (const { iova, pa } of mappings) domain.map(iova, pa, page, 3);
    const config = inspect(memory, dump(system, preset), 3);
    expect(config.kind).toBe('paging');
    const span = preset === 't8103-4k' ? 1n << 30n : 0n;
    const found = config.tables!.flatMap(({ name, config: table, root }) => {
      const base = span * BigInt(/\[(\d)\]$/.exec(name)![1]!);
      return [...PageTable.open(memory, table, root).leaves()].map((l) => ({ iova: base + l.iova, pa: l.pa }));
    });
    expect(found).toEqual(mappings);
    expect(config.tables).toHaveLength(preset === 't8103-4k' ? 4 : 1);
    expect(config.details['TCR']).toBe(
      preset.startsWith('t8103') || preset === 't6000' ? '0x80' : preset === 't6020' ? '0x9' : '0x1',
    );
  });

  test('identity, blocked, never attached', () => {
    const system = createAppleDart({ preset });
    system.driver.attach(1, system.driver.identityDomain);
    system.driver.attach(2, system.driver.blockedDomain);
    const register = dump(system, preset);
    expect(inspect(system.memory, register, 1).kind).toBe('identity');
    expect(inspect(system.memory, register, 2).kind).toBe('blocked');
    expect(inspect(system.memory, register, 4).kind).toBe('blocked');
  });
});

describe('odd dumps', () => {
  const { memory } = createAppleDart();
  test('nothing at all', () => expect(inspect(memory, () => undefined, 0).kind).toBe('blocked'));
  test('registers alone', () => {
    expect(inspect(memory, from({ 'TCR[0]': 0x80n }), 0)).toMatchObject({ kind: 'invalid', reason: 'no valid TTBR' });
    expect(inspect(memory, from({ 'TCR[0]': 0x180n }), 0).kind).toBe('invalid');
    expect(inspect(memory, from({ 'TCR[0]': 0x100n }), 0).kind).toBe('identity');
    expect(inspect(memory, from({ 'TCR[0]': 0x100n, PARAMS2: 0n }), 0).kind).toBe('blocked');
    expect(inspect(memory, from({ 'TCR[0]': 0x80n, STREAMS_ENABLE: 2n }), 0).kind).toBe('blocked');
    expect(inspect(memory, from({ 'TCR[0]': 0x80n, PARAMS1: 0x0d00_0000n }), 0).kind).toBe('invalid');
    expect(inspect(memory, from({ 'TCR[0]': 0x80n, PARAMS1: 0x0c00_0000n, COMPATIBLE_T6000: 1n }), 0).kind).toBe(
      'invalid',
    );
    expect(inspect(memory, from({ 'TCR[9]': 0x100n, 'REMAP[0]': 9n }), 0)).toMatchObject({
      kind: 'identity',
      details: { stream: '9', 'remapped from': '0' },
    });
    const t8110 = { PARAMS3: 0x2a24_0000n, 'TCR[5]': 0x280n, 'TCR[2]': 1n, 'TTBR[2]': 0x11n };
    expect(inspect(memory, from(t8110), 5)).toMatchObject({ kind: 'paging', tables: [{ root: 0x1_0000n }] });
    // Garbage tables do not throw.
    const config = inspect(memory, from({ 'TCR[0]': 0x80n, 'TTBR[0][0]': 0xffff_ffffn }), 0);
    expect([...PageTable.open(memory, config.tables![0]!.config, config.tables![0]!.root).leaves()]).toEqual([]);
  });
});
