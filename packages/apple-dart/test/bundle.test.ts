/** Importing this driver pulls in no other. */
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { expect, test } from 'vitest';

const bundle = async (entry: string): Promise<{ inputs: string[]; text: string }> => {
  const { metafile, outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL(entry, import.meta.url))],
    bundle: true,
    write: false,
    metafile: true,
    format: 'esm',
    platform: 'neutral',
    conditions: ['@iommu-ts/source'],
  });
  return { inputs: Object.keys(metafile.inputs), text: outputFiles[0]!.text };
};

test.each(['../src/index.ts', '../src/harness.ts'])('%s', async (entry) => {
  const { inputs, text } = await bundle(entry);
  expect(inputs.filter((input) => /packages\/(intel-vtd|amd|arm-smmu|riscv|conformance)\//.test(input))).toEqual([]);
  expect(inputs.some((input) => input.includes('page-table/src'))).toBe(true);
  expect(text).not.toMatch(/from ['"]node:/);
});
