/** A located device context (and process context, if any) as the translation process needs it: plain numbers, one hidden class. */
export class DeviceContext {
  /** Key, and the cache generation that filled it (0: empty). */
  did = -1;
  pid = -2;
  generation = 0;

  /** `DC.tc`, low word. */
  tc = 0;
  /** First stage: mode (0 Bare, 8 … 10), address of the root, PSCID. */
  s1Mode = 0;
  s1Hi = 0;
  s1Lo = 0;
  pscid = 0;
  /** `PC.ta.ENS`: supervisor privilege may be asked for; true where no process context was used. */
  ens = true;
  /** `PC.ta.SUM` where a process context was used. */
  sum = false;
  /** Second stage. */
  s2Mode = 0;
  s2Pfn = 0;
  gscid = 0;
  /** MSI page table: recognised at all, its first page, mask and pattern (page numbers as words). */
  msi = false;
  msiPfn = 0;
  msiMaskHi = 0;
  msiMaskLo = 0;
  msiPatternHi = 0;
  msiPatternLo = 0;
  /** Tag of its translations in the IOTLB. */
  tag = 0;
}
