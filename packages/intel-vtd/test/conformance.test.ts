/** The suite that every driver passes. */
import { driverConformance } from '@iommu-ts/conformance/suite';
import { harness } from '../src/harness.ts';

driverConformance(harness);
