/** Addresses as two words: widths, the interrupt range, table indices. VT-d specification revision 4.1, 3.6, 3.7, 3.14. */

/** True when `hi:lo` needs more than `bits` bits (30 … 64). */
export const beyond = (hi: number, lo: number, bits: number): boolean => {
  if (bits > 32) return bits < 64 && hi >>> (bits - 32) !== 0;
  return hi !== 0 || (bits < 32 && lo >>> bits !== 0);
};

/** True for an address of the interrupt range 0xFEEx_xxxx. */
export const inInterruptRange = (hi: number, lo: number): boolean => hi === 0 && lo >>> 20 === 0xfee;

/** Index of level `level` (1 lowest) for the address `hi:lo`: nine bits from bit 12 + 9 (level - 1). */
export const indexOf = (level: number, hi: number, lo: number): number => {
  switch (level) {
    case 1:
      return (lo >>> 12) & 511;
    case 2:
      return (lo >>> 21) & 511;
    case 3:
      return ((lo >>> 30) | (hi << 2)) & 511;
    case 4:
      return (hi >>> 7) & 511;
    default:
      return (hi >>> 16) & 511;
  }
};
