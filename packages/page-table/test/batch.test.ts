/** The batched forms do what as many single calls do. */
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { expect, it } from 'vitest';
import { GatherRecord, NOT_MAPPED, PageTable, iovaToPhysBatch, mapBatch, unmapBatch } from '../src/index.ts';
import { PLAIN } from './local-formats.ts';

it('maps, looks up and unmaps', () => {
  const memory = new PhysicalMemory([{ base: 0x1_0000_0000n, size: 1n << 24n, kind: 'flat' }]);
  const table = new PageTable(new IommuPages(memory, new BuddySource(memory)), { format: PLAIN, ias: 48, oas: 52 });
  const iovas = BigUint64Array.from({ length: 100 }, (_, i) => 0x7fff_0000_0000n + BigInt(i) * 0x20_1000n);
  const pas = BigUint64Array.from({ length: 100 }, (_, i) => 0xf_0000_0000_0000n + BigInt(99 - i) * 0x1000n);
  expect(mapBatch(table, iovas, pas, 4096, 3)).toBe(100);
  const out = new BigUint64Array(100);
  expect(
    iovaToPhysBatch(
      table,
      iovas.map((iova) => iova + 0x123n),
      out,
    ),
  ).toBe(100);
  expect([...out]).toEqual([...pas].map((pa) => pa + 0x123n));
  // The second is taken: the batch ends there.
  const results = new Int32Array(3);
  expect(mapBatch(table, BigUint64Array.of(0x1000n, iovas[5]!, 0x2000n), pas, 4096, 3, null, results)).toBe(1);
  expect([...results]).toEqual([0, -98, 0]);
  const gather = new GatherRecord();
  expect(unmapBatch(table, iovas.subarray(0, 40), 4096, gather)).toBe(40 * 4096);
  expect(gather.startPfn).toBe(Number(iovas[0]! >> 12n));
  expect(gather.lastPfn).toBe(Number(iovas[39]! >> 12n));
  expect(iovaToPhysBatch(table, iovas, out)).toBe(60);
  expect(out[39]).toBe(NOT_MAPPED);
  expect(out[40]).toBe(pas[40]);
});
