/**
 * The translation-request interface: specification chapter "Debug support", registers `tr_req_iova`, `tr_req_ctl`,
 * `tr_response`. A request completes before the write of `Go/Busy` returns.
 */
import { ACCESS } from '@iommu-ts/iommu-core';
import type { RegisterFile } from '@iommu-ts/iommu-core';
import { REGISTERS } from '../registers.ts';
import type { TranslationEngine } from './translate.ts';

const IOVA = REGISTERS.tr_req_iova.offset >> 2;
const CTL = REGISTERS.tr_req_ctl.offset >> 2;
const RESPONSE = REGISTERS.tr_response.offset >> 2;

/** Runs the request that stands in the registers, as an untranslated request, and writes the response (4 KiB ranges). */
export const runTranslationRequest = (registers: RegisterFile, engine: TranslationEngine): void => {
  const words = registers.words;
  const ctl = words[CTL]!;
  const high = words[CTL + 1]!;
  const access =
    ((ctl & 4) !== 0 ? ACCESS.EXEC : ACCESS.READ) |
    ((ctl & 8) !== 0 ? 0 : ACCESS.WRITE) |
    ((ctl & 2) !== 0 ? ACCESS.PRIV : 0);
  const pid = (high & 1) !== 0 ? ctl >>> 12 : -1;
  const cause = engine.translate(high >>> 8, pid, words[IOVA + 1]!, words[IOVA]!, access);
  // The PPN stands two bits lower than in the address.
  words[RESPONSE] = cause !== 0 ? 1 : ((engine.outLo >>> 2) & ~0x3ff) | (engine.outHi << 30) | (engine.pbmt << 7);
  words[RESPONSE + 1] = cause !== 0 ? 0 : (engine.outHi >>> 2) & 0x3f_ffff;
  // Go/Busy goes back to 0: the response is valid.
  words[CTL] = ctl & ~1;
};
