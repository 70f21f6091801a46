/**
 * `@iommu-ts/apple-dart/harness`: this driver for suites, players, the command line and benchmarks that know no vendor.
 * The system it makes is a t8103.
 * @packageDocumentation
 */
import { IommuError } from '@iommu-ts/bits';
import type { DriverHarness, FormatVariant } from '@iommu-ts/iommu-core';
import { formatName, tableConfig } from './driver/table-config.ts';
import { REASON, codesOf } from './faults.ts';
import { AppleDart } from './hardware/unit.ts';
import { inspect } from './inspect.ts';
import { partOfConfig } from './recorded.ts';
import type { PteVersion } from './structures.ts';
import { createAppleDart } from './system.ts';

const variant = (pte: PteVersion, pageShift: number, ias: number, oas: number): FormatVariant => ({
  name: formatName(pte, pageShift, ias, oas),
  config: tableConfig(pte, pageShift, ias, oas),
});

const code = (reason: number): number => codesOf('t8020')[reason]!;

/** Apple DART for code that knows no vendor. */
export const harness: DriverHarness = {
  name: 'apple-dart',
  vectorName: 'apple-dart',
  title: 'Apple DART (t8103)',
  createSystem: (options) => createAppleDart(options),
  createHardware: (memory, config, iotlb) =>
    new AppleDart(memory, { ...partOfConfig(config), ...(iotlb === undefined ? {} : { iotlb }) }),
  requesterOf: (op) => {
    const sid = op['sid'];
    if (typeof sid === 'number') return sid;
    throw new IommuError('EFORMAT', `a DART operation needs "sid", the stream: got ${JSON.stringify(sid)}`);
  },
  inspect,
  formats: [
    variant('dart1', 14, 32, 36),
    variant('dart1', 14, 36, 36),
    variant('dart1', 12, 32, 36),
    variant('dart1', 12, 36, 36),
    variant('dart2', 14, 32, 42),
    variant('dart2', 14, 36, 36),
    variant('dart2', 14, 36, 42),
    variant('dart2', 14, 42, 42),
  ],
  faultCodes: {
    notConfigured: [code(REASON.NO_TTBR)],
    notPresent: [code(REASON.NO_PMD), code(REASON.NO_PTE)],
    permission: [code(REASON.WRITE), code(REASON.READ)],
    // Above the aperture, a TTBR may still cover the address: then its table has no entry there.
    addressWidth: [code(REASON.NO_TTBR), code(REASON.NO_PMD)],
    reservedBit: [],
  },
  setReservedBit: () => false,
};
