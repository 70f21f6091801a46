/** The README's example, run, with what it says beside each line. */
import { readFileSync } from 'node:fs';
import { BuddySource, IommuPages, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { expect, it } from 'vitest';
import { GatherRecord, PROT, PageTable, X86_64_4LEVEL } from '../src/index.ts';

it('does what it says', () => {
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const code = /```ts\n([^]*?)```/.exec(readme)![1]!.replaceAll(/^import .*$/gm, '');
  const lines = code.split('\n').filter((line) => /^(table|\[)/.test(line));
  expect(lines).toHaveLength(5);
  // eslint-disable-next-line no-new-func -- the README's own text is what is to run
  const run = new Function(
    'lib',
    `const { BuddySource, IommuPages, PhysicalMemory, GatherRecord, PROT, PageTable, X86_64_4LEVEL } = lib; const out = [];
     ${code.replaceAll(/^(table.*?|\[.*?);/gm, 'out.push($1);')}; return { out, root: table.root, left: gather.freelist.length };`,
  ) as (lib: object) => { out: unknown[]; root: bigint; left: number };
  const { out, root, left } = run({
    BuddySource,
    IommuPages,
    PhysicalMemory,
    GatherRecord,
    PROT,
    PageTable,
    X86_64_4LEVEL,
  });
  expect(out[0]).toBe(0);
  expect(out[1]).toBe(0x8000_1234n);
  expect((out[2] as { size: bigint }[]).map((leaf) => leaf.size)).toEqual([0x20_0000n, 0x1000n, 0x1000n, 0x1000n]);
  expect(out[3]).toEqual({ gcr3_pt: root, levels: 4 });
  expect(out[4]).toBe(0x20_3000);
  expect(left).toBe(0);
});
