/**
 * A device's register block as the CPU reaches it. Offsets are bytes from the block's base. 32-bit accesses are words;
 * a 64-bit read leaves its value in `hi` and `lo` (int32).
 */
export interface MmioPort {
  /** Reads 32 bits; an int32. */
  read32(offset: number): number;
  /** Writes 32 bits. */
  write32(offset: number, value: number): void;
  /** Reads 64 bits into {@link hi} and {@link lo}. */
  read64(offset: number): void;
  /** Writes 64 bits in one access. */
  write64(offset: number, valueHi: number, valueLo: number): void;
  /** High word of the last {@link read64}. */
  readonly hi: number;
  /** Low word of the last {@link read64}. */
  readonly lo: number;
}
