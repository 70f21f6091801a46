import { hex } from '@iommu-ts/bits';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { ArenaSource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { GatherRecord, PROT, PageTable, X86_64_4LEVEL } from '@iommu-ts/page-table';
import type { PageTableConfig } from '@iommu-ts/page-table';
import { describe, expect, test } from 'vitest';
import { playSnapshot, readSnapshot } from '../src/index.ts';
import type { SnapshotParts } from '../src/index.ts';
import { toy } from './toy.ts';

const CONFIG: PageTableConfig = { format: X86_64_4LEVEL, ias: 48, oas: 52 };
const BASE = 0x10_0000n;
const TABLES = 64;

/** An ELF64 core with one segment, positions from the System V ABI. */
const coreOf = (pa: bigint, bytes: Uint8Array): Uint8Array => {
  const core = new Uint8Array(64 + 56 + bytes.length);
  const view = new DataView(core.buffer);
  core.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 4, true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  view.setUint32(64, 1, true);
  view.setBigUint64(72, 120n, true);
  view.setBigUint64(88, pa, true);
  view.setBigUint64(96, BigInt(bytes.length), true);
  core.set(bytes, 120);
  return core;
};

/** A machine whose one device (0x18) has three mappings: a 2 MiB page, a read-only page, and two pages in one. */
const snapshot = (): SnapshotParts => {
  const memory = new PhysicalMemory([{ base: 0n, size: 1n << 30n }]);
  const pages = new IommuPages(memory, new ArenaSource(memory, BASE));
  const table = new PageTable(pages, CONFIG);
  const gather = new GatherRecord();
  const rw = PROT.READ | PROT.WRITE;
  expect(table.map(0, 0x4000_0000, 0, 0x20_0000, 0x20_0000, rw, gather)).toBe(0);
  expect(table.map(0, 0x5000_0000, 0, 0x7000, 0x1000, PROT.READ, gather)).toBe(0);
  expect(table.map(0, 0x6000_0000, 0, 0x9000, 0x2000, rw, gather)).toBe(0);
  return {
    name: 'guest',
    manifest: JSON.stringify({
      format: 'iommu-guest-snapshot/1',
      iommu: 'toy-iommu',
      ram: [{ base: '0x0', size: '0x40000000' }],
      registers: [{ name: 'ROOT', offset: '0x0', size: 8, value: hex(table.root) }],
      devices: [
        { rid: '0x0018', name: 'nvme', domain: 'D0' },
        { rid: '0x0020', name: 'bridge', domain: null },
      ],
    }),
    mappings: JSON.stringify({
      format: 'iommu-mappings/1',
      mappings: [
        { domain: 'D0', rids: ['0x0018'], iova: '0x60000000', pa: '0x9000', size: '0x1000', iommuProt: 3 },
        { domain: 'D0', rids: ['0x0018'], iova: '0x60001000', pa: '0xa000', size: '0x1000', iommuProt: 2 },
        { domain: 'D0', rids: ['0x0018'], iova: '0x40000000', pa: '0x200000', size: '0x200000', iommuProt: 7 },
        { domain: 'D0', rids: ['0x0018'], iova: '0x50000000', pa: '0x7000', size: '0x1000', iommuProt: 1 },
        { domain: 'D9', rids: [], iova: '0x0', pa: '0x0', size: '0x1000', iommuProt: 3 },
      ],
    }),
    core: coreOf(BASE, memory.readBytes(BASE, TABLES * 4096)),
  };
};

const harness: DriverHarness = {
  ...toy,
  inspect: (_memory, register, requester) =>
    requester === 0x18
      ? { kind: 'paging', tables: [{ name: 'first', config: CONFIG, root: register('ROOT')! }], details: {} }
      : { kind: 'identity', details: {} },
};

const play = (parts: SnapshotParts) => playSnapshot(readSnapshot(parts), harness);

describe('comparison', () => {
  test('sizes and splits do not matter, write-only counts as read-write', () => {
    expect(play(snapshot())).toEqual([
      { device: '0x18 nvme', ok: true, kind: 'paging', leaves: 4, bytes: 0x20_3000n },
      { device: '0x20 bridge', ok: true, kind: 'identity', leaves: 0, bytes: 0n },
    ]);
  });
  const changes: [string, string, string, RegExp][] = [
    ['another pa', '"pa":"0x7000"', '"pa":"0x8000"', /expected 0x50000000 -> 0x8000 .*found 0x50000000 -> 0x7000/],
    ['another permission', '"iommuProt":1', '"iommuProt":3', /expected .* rw, found .* r-/],
    ['a mapping more', '"domain":"D9"', '"domain":"D0"', /expected 0x0 -> 0x0/],
    [
      'a mapping less',
      '"domain":"D0","rids":["0x0018"],"iova":"0x50000000"',
      '"domain":"D1","iova":"0x50000000"',
      /expected 0x60000000.*found 0x50000000/,
    ],
    ['a shorter one', '"size":"0x200000"', '"size":"0x1ff000"', /size 0x1ff000/],
  ];
  for (const [name, from, to, message] of changes) {
    test(`${name} is seen`, () => {
      const parts = snapshot();
      expect(parts.mappings).toContain(from);
      const [device] = play({ ...parts, mappings: parts.mappings.replace(from, to) });
      expect(device!.ok).toBe(false);
      expect(device!.difference).toMatch(message);
    });
  }
  test('a changed bit of a table is seen', () => {
    const parts = snapshot();
    const entry = parts.core.findIndex((_, i) => i >= 120 && parts.core[i] === 0x25 && parts.core[i + 1] === 0x70);
    expect(entry).toBeGreaterThan(0);
    parts.core[entry]! ^= 2;
    expect(play(parts)[0]!.ok).toBe(false);
  });
  test('a device in no domain must not map, one in a domain must be found there', () => {
    const parts = snapshot();
    const swapped = parts.manifest
      .replace('"domain":"D0"', '"domain":null')
      .replace('"0x0020","name":"bridge","domain":null', '"0x0020","name":"bridge","domain":"D0"');
    const [nvme, bridge] = play({ ...parts, manifest: swapped });
    expect(nvme!.difference).toMatch(/in no paging domain, but/);
    expect(bridge!.difference).toMatch(/expected a paging domain, found identity/);
  });
});

const bad = (change: Partial<SnapshotParts>, message: RegExp): void => {
  expect(() => readSnapshot({ ...snapshot(), ...change })).toThrow(message);
  expect(() => readSnapshot({ ...snapshot(), ...change })).toThrow(expect.objectContaining({ code: 'EFORMAT' }));
};

describe('damaged parts', () => {
  test('manifest', () => {
    bad({ manifest: '{' }, /guest\/manifest\.json: not JSON/);
    bad({ manifest: '{}' }, /"format"/);
    bad({ manifest: snapshot().manifest.replace('"rid":"0x0018"', '"rid":"eighteen"') }, /device 0.*"rid"/);
    bad({ manifest: snapshot().manifest.replace('"value"', '"valeu"') }, /register 0.*"value"/);
    bad({ manifest: snapshot().manifest.replace('"ram"', '"rom"') }, /"ram"/);
  });
  test('mappings', () => {
    bad({ mappings: '[]' }, /guest\/mappings\.json/);
    bad({ mappings: snapshot().mappings.replace('"iommuProt":1', '"iommuProt":"r"') }, /mapping 3.*"iommuProt"/);
  });
  test('core', () => {
    const { core } = snapshot();
    bad({ core: core.subarray(0, 40) }, /tables\.core: byte 40/);
    bad({ core: core.subarray(0, 5000) }, /byte 96.*segment 0/);
    bad({ core: new Uint8Array(4096) }, /byte 0.*magic/);
    const outside = coreOf(0x4000_0000n, new Uint8Array(8));
    bad({ core: outside }, /segment at 0x40000000.*RAM/);
  });
});
