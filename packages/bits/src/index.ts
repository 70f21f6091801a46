/**
 * `@iommu-ts/bits`: field layouts as specifications print them, 64-bit values as words, and the one error class.
 * @packageDocumentation
 */
export {
  bit,
  bits,
  decode,
  describeLayout,
  encode,
  extract,
  fieldOfWord,
  insert,
  maskHi,
  maskLo,
  maskOf,
  maskWord,
  overlaps,
  widthOf,
} from './layout.ts';
export type { Field, FieldValues, Layout } from './layout.ts';
export {
  addressOfPfn,
  blockPfnOf,
  blockPfnOfWords,
  checkU64,
  hi32,
  hiOfPfn,
  join64,
  lo32,
  loOfPfn,
  numberOfWords,
  pfnOf,
  pfnOfWords,
  toNumber,
} from './words.ts';
export { IommuError, codeOfErrno, hex } from './error.ts';
export type { IommuErrorCode } from './error.ts';
export { CHECKS } from './build.ts';
