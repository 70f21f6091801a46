/** Bundling this driver pulls in no other driver. */
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { expect, test } from 'vitest';

const entry = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

test.each(['../src/index.ts', '../src/harness.ts'])('%s', async (path) => {
  const { metafile } = await build({
    entryPoints: [entry(path)],
    bundle: true,
    write: false,
    metafile: true,
    format: 'esm',
    platform: 'neutral',
    conditions: ['@iommu-ts/source'],
  });
  const inputs = Object.keys(metafile.inputs);
  expect(inputs.some((input) => input.endsWith('src/hardware/unit.ts'))).toBe(true);
  expect(inputs.filter((input) => /(intel-vtd|amd|riscv|apple-dart|conformance)\/src/.test(input))).toEqual([]);
  // Neither node: modules nor anything from outside the scope.
  expect(inputs.filter((input) => /node_modules|^node:/.test(input))).toEqual([]);
});

test('a user of the hardware alone gets no driver', async () => {
  const { metafile } = await build({
    stdin: {
      contents: "export { SmmuV3 } from './index.ts';",
      resolveDir: entry('../src'),
      loader: 'ts',
    },
    bundle: true,
    write: false,
    metafile: true,
    format: 'esm',
    platform: 'neutral',
    treeShaking: true,
    conditions: ['@iommu-ts/source'],
  });
  const [output] = Object.values(metafile.outputs);
  const bytes = (suffix: string): number =>
    Object.entries(output!.inputs).find(([path]) => path.endsWith(suffix))?.[1].bytesInOutput ?? 0;
  expect(bytes('src/hardware/unit.ts')).toBeGreaterThan(0);
  expect(bytes('src/driver/driver.ts')).toBe(0);
  expect(bytes('page-table/src/map.ts')).toBe(0);
});
