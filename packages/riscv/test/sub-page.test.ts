/** The suite that every driver passes, with tables that share CPU pages of 64 KiB. */
import { driverConformance, withPages } from '@iommu-ts/conformance/suite';
import { harness } from '../src/harness.ts';

driverConformance(withPages(harness, { cpuPageSize: 65536, subPage: true }), {
  omit: { id_exhaustion: 'thousands of domains; says nothing about tables' },
});
