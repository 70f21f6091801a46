import { defineConfig } from 'tsup';

/** One build for every library package: ESM and CJS, types, no DOM and no `node:` import. */
export const library = (entry: string[] = ['src/index.ts']) =>
  defineConfig({
    entry,
    format: ['esm', 'cjs'],
    dts: true,
    sourcemap: true,
    clean: true,
    target: 'es2023',
    platform: 'neutral',
    tsconfig: 'tsconfig.build.json',
    esbuildOptions(options) {
      // Inlines the hoisted mask constants across files; names and layout stay readable.
      options.minifySyntax = true;
    },
  });
