/** Whatever is mapped and unmapped: what the unit reads from the tables is what the engine wrote, and nothing stale is left. */
import { PROT } from '@iommu-ts/page-table';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createVtdIommu } from '../src/index.ts';
import type { VtdPresetName } from '../src/index.ts';

const SEED = 20_261_123;
const SID = 0x18;
const PAGE = 0x1000n;

/** A map or unmap of up to 1024 pages, near one of a few bases so that ranges meet. */
const step = fc.record({
  map: fc.boolean(),
  base: fc.constantFrom(0n, 0x1f_f000n, 0x3fff_f000n, 0x7f_ffe0_0000n, 0x1234_5000n),
  page: fc.bigInt({ min: 0n, max: 2048n }),
  count: fc.oneof(fc.bigInt({ min: 1n, max: 8n }), fc.constantFrom(512n, 1024n)),
  pa: fc.bigInt({ min: 0n, max: 0xf_ffffn }),
  prot: fc.constantFrom(PROT.READ, PROT.WRITE, PROT.READ | PROT.WRITE),
});

describe.each<VtdPresetName>(['server', 'client', 'server-57', 'virtual'])('%s', (preset) => {
  test.each(['none', 'sized', 'unbounded'] as const)('IOTLB %s', (mode) => {
    const property = fc.property(fc.array(step, { minLength: 1, maxLength: 25 }), (steps) => {
      const { driver, hardware, pages } = createVtdIommu({ preset, iotlb: { mode, sets: 8, ways: 2 } });
      const domain = driver.createDomain();
      driver.attach(SID, domain);
      for (const { map, base, page, count, pa, prot } of steps) {
        const iova = (base + page * PAGE) & driver.info.apertureLast & ~0xfffn;
        const size = count * PAGE;
        const [hi, lo] = [Number(iova >> 32n), Number(iova & 0xffff_ffffn)];
        if (map) domain.mapWords(hi, lo, Number(pa >> 20n), Number((pa << 12n) & 0xffff_ffffn), Number(size), prot);
        else domain.unmapWords(hi, lo, Number(size));
        // Every page of the range, and one on either side, both ways of access: the engine's answer is the unit's.
        const stride = count > 8n ? 37n : 1n;
        for (let at = -1n; at <= count; at += stride) {
          const probe = BigInt.asUintN(64, iova + at * PAGE + 0x123n);
          if (probe > driver.info.apertureLast) continue;
          const expected = domain.iovaToPhys(probe);
          const [probeHi, probeLo] = [Number(probe >> 32n), Number(probe & 0xffff_ffffn)];
          const answers = [1, 2].map((access) => {
            const status = hardware.translate(SID, -1, probeHi, probeLo, access);
            const out = (BigInt(hardware.outHi >>> 0) << 32n) | BigInt(hardware.outLo >>> 0);
            return status === 0 ? out : null;
          });
          if (expected === null) expect(answers).toEqual([null, null]);
          else {
            expect(answers.filter((answer) => answer !== null).length).toBeGreaterThan(0);
            for (const answer of answers) if (answer !== null) expect(answer).toBe(expected);
          }
        }
      }
      driver.detach(SID);
      domain.free();
      driver.release();
      expect(pages.nrIommuPages()).toBe(0);
    });
    fc.assert(property, { seed: SEED, numRuns: 12 });
  });
});
