/** What a device wants to do, as a bit set. */
export const ACCESS = { READ: 1, WRITE: 2, EXEC: 4, PRIV: 8 } as const;

/** No PASID (SubstreamID, process_id) on the transaction. */
export const NO_PASID = -1;

/** Status of a translation: 0 is success; everything else is a fault that the hardware has recorded as its specification says. */
export const TRANSLATE_OK = 0;

/**
 * The device side of an IOMMU as the bus sees it: one untranslated request in, an address or a refusal out.
 * Nothing is allocated and nothing is thrown; the answer of the last call stands in the `out…` fields.
 */
export interface Translator {
  /**
   * Translates one access that does not cross a 4 KiB page.
   *
   * @param requester requester id / StreamID / DeviceID / device_id / source-id
   * @param pasid PASID, or {@link NO_PASID}
   * @param iovaHi high word of the IOVA (int32 or uint32)
   * @param iovaLo low word
   * @param access {@link ACCESS} bits
   * @param length bytes from `iova` on (default 1), for architectures that protect parts of a page (DART sub-pages)
   * @returns {@link TRANSLATE_OK}, or the architected fault code (VT-d fault reason, AMD event code, SMMUv3 event id, DART
   *   error code bits, RISC-V cause; -1 when the architecture refuses without a code). The fault has been recorded then.
   */
  translate(requester: number, pasid: number, iovaHi: number, iovaLo: number, access: number, length?: number): number;
  /** After success: the physical address, as int32 words. */
  readonly outHi: number;
  readonly outLo: number;
}
