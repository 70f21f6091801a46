/** Set by a bundler's `define` in builds that shall have no checks; absent otherwise. */
declare const IOMMU_TS_NO_CHECKS: unknown;

/**
 * True unless the code was bundled with `IOMMU_TS_NO_CHECKS` defined: then the few places where checks look in (a null test at
 * a cache fill, a walk, a command) are compiled out. The benchmarks hold the usual build against such a one.
 */
export const CHECKS: boolean = typeof IOMMU_TS_NO_CHECKS === 'undefined';
