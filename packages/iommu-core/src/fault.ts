/** What a driver's fault handler makes of one architected record. Data for people and tests, made off the hot path. */
export interface FaultEvent {
  /** The specification's name: `F_TRANSLATION`, `IO_PAGE_FAULT`, `SS not present`, `cause 13`, … */
  readonly name: string;
  /** The architected number (event id, fault reason, cause, event code, error bits). */
  readonly code: number;
  /** Requester id (StreamID, DeviceID, device_id, source-id), or -1 when the record has none. */
  readonly requester: number;
  /** PASID, or -1 when the record has none. */
  readonly pasid: number;
  /** Input address the record gives (0 when it gives none). */
  readonly iova: bigint;
  /** `'read'`, `'write'`, or `'unknown'` when the record does not tell. */
  readonly access: 'read' | 'write' | 'unknown';
  /** Further fields of the record by their specification names. */
  readonly fields: Readonly<Record<string, bigint | number | string>>;
  /** The record's bytes or registers as 64-bit words, lowest address first. */
  readonly raw: readonly bigint[];
  /** One sentence for people. */
  readonly text: string;
}

/** The kinds of fault that every IOMMU can be made to record, for suites that run over all of them. */
export type FaultKind = 'not-configured' | 'not-present' | 'permission' | 'address-width' | 'reserved-bit';
