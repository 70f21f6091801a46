/** What the two bundles of checks-off.ts export: the usual build, and one with the checks compiled out. */
import { CHECKS } from '@iommu-ts/bits';
import { loadDriver } from './drivers.ts';
import { rowsOf } from './one-or-all.ts';
import type { Row, Scale } from './table-rows.ts';

/** Whether this bundle has the places where checks look in. */
export const hasChecks: boolean = CHECKS;

/** Rows of one driver, checks off. */
export const makeRows = async (driver: string, scale: Scale): Promise<readonly Row[]> =>
  rowsOf(await loadDriver(driver), scale);
