/**
 * What the same work costs in the kernel's own page-table code: Linux 7.2 C code, -O2, one core of an AMD Zen 5 server,
 * in userspace. Medians in nanoseconds. `single`: one granule a call; `bulk`: an entry of 512 a call; `whole`: an entry of
 * the whole region in one call; look-ups are independent of each other. Region 1 GiB, `small…` 64 MiB.
 */
export const KERNEL_NOTE = 'Linux 7.2 C code, -O2, one core of an AMD Zen 5 server';

export interface KernelFigures {
  readonly map: number;
  readonly unmap: number;
  readonly bulkMap: number;
  readonly bulkUnmap: number;
  readonly wholeMap: number;
  /** A block of 2 MiB (4 KiB granule), 32 MiB (16 KiB), 512 MiB (64 KiB); absent where it was not measured. */
  readonly block?: number;
  readonly lookUpSmall: number;
  readonly lookUp: number;
}

export const KERNEL: Readonly<Record<string, KernelFigures>> = {
  'amdv1-va48': {
    map: 18.4,
    unmap: 23.9,
    bulkMap: 0.81,
    bulkUnmap: 1.17,
    wholeMap: 0.95,
    block: 26.6,
    lookUpSmall: 17.3,
    lookUp: 37.9,
  },
  'vtdss-48': {
    map: 20.1,
    unmap: 27,
    bulkMap: 0.89,
    bulkUnmap: 0.9,
    wholeMap: 0.97,
    block: 29.5,
    lookUpSmall: 19.5,
    lookUp: 33.8,
  },
  'riscv64-sv48': {
    map: 20.9,
    unmap: 26.6,
    bulkMap: 1.18,
    bulkUnmap: 2.79,
    wholeMap: 1.28,
    block: 29.1,
    lookUpSmall: 20.4,
    lookUp: 30.8,
  },
  'arm-s1-4k-48': {
    map: 13.5,
    unmap: 12.8,
    bulkMap: 1.16,
    bulkUnmap: 2.05,
    wholeMap: 1.27,
    block: 12.2,
    lookUpSmall: 18.6,
    lookUp: 22.9,
  },
  'arm-s2-4k-48': {
    map: 13.8,
    unmap: 12.8,
    bulkMap: 1.16,
    bulkUnmap: 2.04,
    wholeMap: 1.27,
    block: 12.1,
    lookUpSmall: 18.6,
    lookUp: 26.3,
  },
  'arm-s1-16k-47': {
    map: 11.7,
    unmap: 12.2,
    bulkMap: 1.13,
    bulkUnmap: 1.98,
    wholeMap: 1.13,
    block: 24.7,
    lookUpSmall: 14.3,
    lookUp: 14.3,
  },
  'arm-s1-64k-48': {
    map: 12.3,
    unmap: 12.6,
    bulkMap: 1.13,
    bulkUnmap: 2,
    wholeMap: 1.13,
    block: 356,
    lookUpSmall: 14.5,
    lookUp: 14.6,
  },
  'dart1-16k-36-36': {
    map: 7.51,
    unmap: 7.87,
    bulkMap: 1.14,
    bulkUnmap: 1.64,
    wholeMap: 1.13,
    lookUpSmall: 4.63,
    lookUp: 4.85,
  },
  'dart2-16k-36-42': {
    map: 7.52,
    unmap: 6.96,
    bulkMap: 1.14,
    bulkUnmap: 1.62,
    wholeMap: 1.13,
    lookUpSmall: 4.17,
    lookUp: 4.7,
  },
  'dart1-4k-36-36': {
    map: 8.67,
    unmap: 7.57,
    bulkMap: 1.17,
    bulkUnmap: 1.61,
    wholeMap: 1.26,
    lookUpSmall: 5.58,
    lookUp: 8,
  },
};

/** The figure that row `row` of `format` compares with, or null where the kernel has none. */
export const kernelFigure = (format: string, row: string): number | null => {
  const figures = KERNEL[format];
  if (figures === undefined) return null;
  if (row === 'iova-to-phys-64m') return figures.lookUpSmall;
  if (row === 'iova-to-phys-1g') return figures.lookUp;
  if (row.startsWith('map-256x')) return figures.bulkMap;
  if (row.startsWith('unmap-256x')) return figures.bulkUnmap;
  if (row.startsWith('map-1g-of-')) return figures.wholeMap;
  if (row.startsWith('map-2m-of-')) return null;
  if (row.startsWith('unmap-')) return figures.unmap;
  if (/^map-(4|16|64)k$/.test(row)) return figures.map;
  if (/^map-(2|32|512)m$/.test(row)) return figures.block ?? null;
  return null;
};
