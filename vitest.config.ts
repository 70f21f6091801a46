import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    // The usual default leaves a core to a watcher; there is none.
    maxWorkers: '100%',
    projects: ['packages/*', 'apps/*'],
    reporters: ['default', './scripts/closing-line-reporter.ts'],
  },
});
