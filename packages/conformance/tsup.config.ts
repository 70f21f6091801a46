import { defineConfig } from 'tsup';

export default defineConfig({
  entry: { index: 'src/index.ts', 'suite/index': 'src/suite/index.ts', 'mutation/index': 'src/mutation/index.ts' },
  format: ['esm'],
  dts: true,
  sourcemap: true,
  clean: true,
  target: 'es2023',
  platform: 'node',
  tsconfig: 'tsconfig.build.json',
});
