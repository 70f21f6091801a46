/**
 * Addresses as two words: table indices, and sizes that stand in an address.
 * AMD I/O Virtualization Technology (IOMMU) Specification, 48882, section 2.2.3 "I/O Page Tables for Host Translations".
 */
import { widthOfMode } from '../structures.ts';

/** Input address bits that a table of each mode does not reach, upper and lower word. */
export const BEYOND_HI = Int32Array.from({ length: 8 }, (_, mode) => {
  const width = widthOfMode(mode);
  return width >= 64 ? 0 : width > 32 ? -1 << (width - 32) : -1;
});
export const BEYOND_LO = Int32Array.from({ length: 8 }, (_, mode) =>
  widthOfMode(mode) >= 32 ? 0 : -1 << widthOfMode(mode),
);

/** Index into a table of `level` (1 … 6): nine address bits, seven at level 6. */
export const indexOf = (iovaHi: number, iovaLo: number, level: number): number => {
  switch (level) {
    case 1:
      return (iovaLo >>> 12) & 0x1ff;
    case 2:
      return (iovaLo >>> 21) & 0x1ff;
    case 3:
      return ((iovaHi << 2) | (iovaLo >>> 30)) & 0x1ff;
    case 4:
      return (iovaHi >>> 7) & 0x1ff;
    case 5:
      return (iovaHi >>> 16) & 0x1ff;
    default:
      return iovaHi >>> 25;
  }
};

/** IOVA bits that a table of `level` (1 … 5) covers. */
export const spanOf = (level: number): number => 12 + 9 * level;

/** Lowest bit from 12 up that is zero in `hi:lo`; 64 when there is none. */
export const firstZero = (hi: number, lo: number): number => {
  const low = ~lo & ~0xfff;
  if (low !== 0) return 31 - Math.clz32(low & -low);
  const high = ~hi;
  return high === 0 ? 64 : 63 - Math.clz32(high & -high);
};

/** Size that the ones from bit 12 up to the first zero of an invalidation's address stand for; 64: everything. */
export const sizeLg2Of = (hi: number, lo: number): number => {
  const zero = firstZero(hi, lo);
  return zero >= 63 ? 64 : zero + 1;
};
