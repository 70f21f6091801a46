/** Bundling this driver pulls in no other driver, and nothing of Node. */
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { expect, test } from 'vitest';

const OTHERS = /packages\/(amd|arm-smmu|apple-dart|riscv|conformance)\//;

test.each(['index.ts', 'harness.ts'])('%s alone', async (entry) => {
  const { metafile } = await build({
    entryPoints: [fileURLToPath(new URL(`../src/${entry}`, import.meta.url))],
    bundle: true,
    absWorkingDir: fileURLToPath(new URL('../../..', import.meta.url)),
    write: false,
    metafile: true,
    format: 'esm',
    platform: 'neutral',
    conditions: ['@iommu-ts/source'],
    logLevel: 'silent',
  });
  const inputs = Object.keys(metafile.inputs);
  expect(inputs.some((file) => file.endsWith('packages/intel-vtd/src/hardware/unit.ts'))).toBe(true);
  expect(inputs.filter((file) => OTHERS.test(file))).toEqual([]);
});
