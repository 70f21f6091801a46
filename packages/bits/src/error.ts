/**
 * Stable codes of {@link IommuError}. Where Linux has an errno for the case, its name is used.
 *
 * - `ENXIO` (-6) misaligned for every page size of the domain
 * - `ENOMEM` (-12) no page for a table
 * - `EBUSY` (-16) the thing is still in use
 * - `EEXIST` (-17) a mapping exists already (io-pgtable formats)
 * - `ENODEV` (-19) no such device or unit
 * - `EINVAL` (-22) an argument that no case accepts
 * - `ENOSPC` (-28) ids, IOVA space or a table's slots are used up
 * - `ERANGE` (-34) outside the address width
 * - `EOPNOTSUPP` (-95) the hardware or this version does not have it
 * - `EADDRINUSE` (-98) a mapping exists already (generic_pt formats)
 * - `ETIMEDOUT` (-110) the hardware did not complete a command
 * - `EALIGN` an address or size breaks an alignment rule of the API
 * - `EFORMAT` a file or a structure is not what it should be
 * - `EIO` physical memory did not answer
 */
export type IommuErrorCode =
  | 'ENXIO'
  | 'ENOMEM'
  | 'EBUSY'
  | 'EEXIST'
  | 'ENODEV'
  | 'EINVAL'
  | 'ENOSPC'
  | 'ERANGE'
  | 'EOPNOTSUPP'
  | 'EADDRINUSE'
  | 'ETIMEDOUT'
  | 'EALIGN'
  | 'EFORMAT'
  | 'EIO';

const ERRNO_CODE: Readonly<Record<number, IommuErrorCode>> = {
  6: 'ENXIO',
  12: 'ENOMEM',
  16: 'EBUSY',
  17: 'EEXIST',
  19: 'ENODEV',
  22: 'EINVAL',
  28: 'ENOSPC',
  34: 'ERANGE',
  95: 'EOPNOTSUPP',
  98: 'EADDRINUSE',
  110: 'ETIMEDOUT',
};

/** The code of a negative errno as the engine returns it (`-98` → `'EADDRINUSE'`); `EINVAL` for an unknown number. */
export const codeOfErrno = (errno: number): IommuErrorCode => ERRNO_CODE[-errno] ?? 'EINVAL';

/**
 * Misuse of the API. Faults of devices and tables are data, never this error.
 *
 * Test `code`, not the message and not `instanceof` (ESM and CJS copies of a package have two classes).
 * `details` are strings (numbers in hex) so that they survive JSON.
 */
export class IommuError extends Error {
  override readonly name: string = 'IommuError';
  readonly code: IommuErrorCode;
  readonly details: Readonly<Record<string, string>>;

  constructor(
    code: IommuErrorCode,
    message: string,
    details: Readonly<Record<string, bigint | number | string>> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.code = code;
    this.details = Object.fromEntries(
      Object.entries(details).map(([key, value]) => [key, typeof value === 'string' ? value : hex(value)]),
    );
  }
}

/** `0x…`, lower case, of a whole number; negative numbers as `-0x…`. */
export const hex = (value: bigint | number): string =>
  value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
