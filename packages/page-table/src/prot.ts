/** Protection bits of a mapping, with Linux's values (`IOMMU_READ` …); they may be or-ed. */
export const PROT = {
  /** The device may read. */
  READ: 1,
  /** The device may write. */
  WRITE: 2,
  /** DMA is cache coherent. */
  CACHE: 4,
  /** The device may not fetch instructions. */
  NOEXEC: 8,
  /** The target is a device, not memory. */
  MMIO: 16,
  /** Only privileged transactions. */
  PRIV: 32,
} as const;
