/**
 * A device's register block as the CPU reaches it. Offsets are bytes from the block's base. 32-bit accesses are words;
 * a 64-bit read leaves its value in `hi` and `lo` (int32).
 */
export interface MmioPort {
  read32(offset: number): number;
  write32(offset: number, value: number): void;
  /** Reads 64 bits into {@link hi} and {@link lo}. */
  read64(offset: number): void;
  write64(offset: number, valueHi: number, valueLo: number): void;
  readonly hi: number;
  readonly lo: number;
}
