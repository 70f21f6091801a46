import { defineConfig } from 'tsup';
import type { Options } from 'tsup';

const common: Options = {
  format: ['esm'],
  target: 'es2023',
  platform: 'node',
  tsconfig: 'tsconfig.build.json',
};

/** Everything in one piece, so that `define` reaches the libraries too. */
const bundle = (outDir: string, define: Record<string, string>): Options => ({
  ...common,
  entry: ['src/bundle.ts'],
  outDir,
  clean: true,
  noExternal: [/^@iommu-ts\//],
  define,
  esbuildOptions(options) {
    options.minifySyntax = true;
  },
});

export default defineConfig([
  { ...common, entry: ['src/main.ts'], sourcemap: true },
  bundle('dist/with-checks', {}),
  bundle('dist/without-checks', { IOMMU_TS_NO_CHECKS: 'true' }),
]);
