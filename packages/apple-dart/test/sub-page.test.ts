/** The suite that every driver passes, with tables that share CPU pages. */
import { driverConformance, withPages } from '@iommu-ts/conformance/suite';
import { describe } from 'vitest';
import { harness } from '../src/harness.ts';
import { createAppleDart } from '../src/system.ts';

const omit = { id_exhaustion: 'thousands of domains; says nothing about tables' };

// Tables of 16 KiB, four in a page.
describe('16 KiB pages under a kernel with 64 KiB pages', () =>
  driverConformance(withPages(harness, { cpuPageSize: 65536, subPage: true }), { omit }));
describe('four TTBRs of 4 KiB pages under a kernel with 16 KiB pages', () =>
  driverConformance(
    withPages(
      { ...harness, createSystem: (options) => createAppleDart({ ...options, preset: 't8103-4k' }) },
      { cpuPageSize: 16384, subPage: true },
    ),
    { omit },
  ));
