import { describe, expect, test } from 'vitest';
import { parseTrace, readTrace } from '../src/replay/trace.ts';
import { fixture, textOf } from './helpers.ts';

describe('events', () => {
  const lines = [
    '{"op":"attach","domain":"D0","rid":"0x0018","device":"0000:00:03.0"}',
    '{"op":"map","domain":"D0","iova":"0xfffffffffffff000","pa":"0x1000","size":"0x1000","iommuProt":7}',
    '',
    '{"op":"unmap","domain":"D0","iova":"0xfffffffffffff000","size":"0x1000"}',
  ];
  test('are read with their lines', () => {
    expect(parseTrace(lines.join('\n'), 't').events).toEqual([
      { op: 'attach', line: 1, domain: 'D0', rid: 0x18 },
      { op: 'map', line: 2, domain: 'D0', iova: 0xffff_ffff_ffff_f000n, pa: 0x1000n, size: 0x1000n, prot: 7 },
      { op: 'unmap', line: 4, domain: 'D0', iova: 0xffff_ffff_ffff_f000n, size: 0x1000n },
    ]);
  });
  const damaged: [string, RegExp][] = [
    ['{"op":"attach","domain":"D0"}', /^t: line 1: expected .* in "rid"/],
    ['{"op":"remap","domain":"D0"}', /line 1: expected "attach", "map" or "unmap" in "op"/],
    ['{"op":"unmap","domain":"D0","iova":"0x0","size":"0x0"}', /line 1: expected a size above 0 in "size"/],
    ['{"op":"unmap","domain":"D0","iova":"12","size":"0x1000"}', /line 1: .*"iova"/],
    [
      '{"op":"unmap","domain":"D0","iova":"0xfffffffffffff000","size":"0x2000"}',
      /line 1: expected a range that ends by 2\^64/,
    ],
    [
      '{"op":"map","domain":"D0","iova":"0x0","pa":"0xfffffffffffff000","size":"0x2000","iommuProt":3}',
      /memory that ends by 2\^64/,
    ],
    ['{"op":"map","domain":"D0","iova":"0x0","pa":"0x0","size":"0x1000","iommuProt":"rw"}', /"iommuProt"/],
    ['{"op":"map"', /line 1: expected a JSON object/],
    ['{"format":"iommu-vectors/1"}', /iommu-vectors\/1 \(that is for "iommu verify"\)/],
    ['hello', /expected events .* or ftrace text/],
  ];
  for (const [text, message] of damaged) {
    test(`damaged: ${text}`, () => expect(() => parseTrace(text, 't')).toThrow(message));
  }
});

describe('ftrace text', () => {
  const row = (what: string): string => `   kworker/0:2-169     [000] ..s1.     6.867066: ${what}`;
  const map = (iova: string, pa: string, size: number): string =>
    row(`map: IOMMU: iova=0x${iova} - 0x0000000000000000 paddr=0x${pa} size=${size}`);
  const unmap = (iova: string, size: number): string =>
    row(`unmap: IOMMU: iova=0x${iova} - 0x0000000000000000 size=${size} unmapped_size=${size}`);
  const trace = (rows: string[]) => parseTrace(['# tracer: nop', '#', ...rows].join('\n'), 't');

  test('one domain, read-write, requesters from the addresses', () => {
    const attach = row('attach_device_to_domain: IOMMU: device=0000:05:1f.2');
    const group = row('add_device_to_group: IOMMU: groupID=1 device=0000:00:02.0');
    const { events, source, leftOut, notes } = trace([
      group,
      attach,
      map('fffff000', '8090000', 4096),
      unmap('fffff000', 4096),
    ]);
    expect(source).toBe('ftrace');
    expect(events).toEqual([
      { op: 'attach', line: 4, domain: 'trace', rid: 0x5fa },
      { op: 'map', line: 5, domain: 'trace', iova: 0xffff_f000n, pa: 0x809_0000n, size: 4096n, prot: 3 },
      { op: 'unmap', line: 6, domain: 'trace', iova: 0xffff_f000n, size: 4096n },
    ]);
    expect(leftOut).toBe(0);
    expect(notes[0]).toMatch(/no domain/);
  });
  test('collisions are left out, counted and told', () => {
    const rows = [
      map('1000', '8000', 8192),
      map('2000', '9000', 4096),
      map('0', 'a000', 8192),
      map('3000', 'b000', 4096),
      unmap('2000', 4096),
      map('2000', 'c000', 4096),
      unmap('1000', 12288),
      unmap('1000', 4096),
    ];
    const { events, leftOut, notes } = trace(rows);
    expect(events.map((e) => e.op)).toEqual(['attach', 'map', 'map', 'unmap', 'map', 'unmap']);
    expect(leftOut).toBe(3);
    expect(notes.join()).toMatch(/2 maps left out.*1 unmaps left out/);
  });
  test('a trace without attach events gets a device', () => {
    const { events, notes } = trace([map('1000', '8000', 4096)]);
    expect(events[0]).toMatchObject({ op: 'attach', rid: 0x10 });
    expect(notes.join()).toMatch(/stands in/);
  });
  test('the recorded text gives the events that the folder has, without their domains', () => {
    const name = 'guests/linux-6.12-amd-vi';
    const text = parseTrace(textOf(`${name}/trace.txt.gz`), 't');
    const events = readTrace(fixture(name)).events;
    expect(text.events.length + text.leftOut).toBe(events.length);
    expect(text.leftOut).toBeGreaterThan(0);
  });
});

test('a folder without events or text', () => {
  expect(() => readTrace(fixture('golden'))).toThrow(
    /expected events\.jsonl\(\.gz\) or trace\.txt\(\.gz\) in the folder/,
  );
});
