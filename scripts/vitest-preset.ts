import { defineConfig } from 'vitest/config';

/** Tests see the sources of the other packages, so a package's suite runs without any build. */
export const project = (name: string) =>
  defineConfig({
    resolve: { conditions: ['@iommu-ts/source'] },
    ssr: { resolve: { conditions: ['@iommu-ts/source'], externalConditions: ['@iommu-ts/source'] } },
    test: { name, include: ['test/**/*.test.ts'], testTimeout: 60_000 },
  });
