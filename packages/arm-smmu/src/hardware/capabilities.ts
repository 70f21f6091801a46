/** What an SMMUv3 says about itself in its identification registers (IHI 0070, 6.3.1-6.3.8), and what this model has. */
import { IommuError, fieldOfWord, hex } from '@iommu-ts/bits';
import type { Field } from '@iommu-ts/bits';
import { AIDR, IDR0, IDR1, IDR3, IDR5 } from '../registers.ts';
import { ADDRESS_SIZES } from '../structures.ts';

/** Values of the identification registers. */
export interface SmmuIds {
  readonly IDR0: number;
  readonly IDR1: number;
  readonly IDR2?: number;
  readonly IDR3?: number;
  readonly IDR4?: number;
  readonly IDR5: number;
  readonly IIDR?: number;
  readonly AIDR?: number;
  /** Reset value of GBPA: 0x1000 (use incoming shareability) bypasses, 0x101000 aborts. */
  readonly GBPA_reset?: number;
}

const need = (ok: boolean, what: string, name: string, value: number): void => {
  if (ok) return;
  throw new IommuError('EOPNOTSUPP', `${name} ${hex(value >>> 0)}: ${what}`, { [name]: value >>> 0 });
};

/** The identification registers taken apart: plain numbers and booleans, read on the hot path. */
export class Capabilities {
  readonly ids: SmmuIds;
  readonly s1: boolean;
  readonly s2: boolean;
  readonly asid16: boolean;
  readonly vmid16: boolean;
  readonly hyp: boolean;
  readonly msi: boolean;
  readonly cd2l: boolean;
  readonly twoLevel: boolean;
  readonly attrPermsOvr: boolean;
  readonly sidSize: number;
  readonly ssidSize: number;
  readonly cmdqLog2: number;
  readonly evtqLog2: number;
  readonly had: boolean;
  readonly xnx: boolean;
  readonly ril: boolean;
  readonly stt: boolean;
  readonly e0pd: boolean;
  readonly va52: boolean;
  /** Output (and intermediate) address size in bits. */
  readonly oas: number;
  /** Granules as a bit set of log2 sizes: bit 12, 14, 16. */
  readonly granules: number;

  /** @throws IommuError `EOPNOTSUPP` when a register offers what this model does not have. */
  constructor(ids: SmmuIds) {
    this.ids = ids;
    const [idr0, idr1, idr3, idr5] = [ids.IDR0 | 0, ids.IDR1 | 0, (ids.IDR3 ?? 0) | 0, ids.IDR5 | 0];
    const f0 = (field: Field): number => fieldOfWord(idr0, field);
    const f1 = (field: Field): number => fieldOfWord(idr1, field);
    const f3 = (field: Field): number => fieldOfWord(idr3, field);
    const f5 = (field: Field): number => fieldOfWord(idr5, field);
    const absent0 = (name: keyof typeof IDR0, what: string): void =>
      need(f0(IDR0[name]) === 0, `${what} (${name}) is not supported yet`, 'IDR0', idr0);
    need(f0(IDR0.S1P) + f0(IDR0.S2P) > 0, 'neither stage is there', 'IDR0', idr0);
    need(f0(IDR0.TTF) === 2, 'only AArch64 tables (TTF 2) are supported', 'IDR0', idr0);
    need(f0(IDR0.TTENDIAN) === 2, 'only little-endian tables (TTENDIAN 2) are supported', 'IDR0', idr0);
    need(
      f0(IDR0.STALL_MODEL) === 1,
      'stalled transactions (STALL_MODEL other than 1) are not supported yet',
      'IDR0',
      idr0,
    );
    need(f0(IDR0.TERM_MODEL) === 1, 'termination as RAZ/WI (TERM_MODEL 0) is not supported yet', 'IDR0', idr0);
    absent0('HTTU', 'hardware update of flags');
    absent0('ATS', 'PCIe ATS');
    absent0('PRI', 'the page request interface');
    absent0('ATOS', 'address translation operations');
    absent0('VATOS', 'address translation operations');
    absent0('VMW', 'VMID wildcards');
    need(f0(IDR0.ST_LEVEL) < 2, 'ST_LEVEL is reserved', 'IDR0', idr0);
    need(f1(IDR1.ECMDQ) === 0, 'enhanced command queues (ECMDQ) are not supported yet', 'IDR1', idr1);
    need(f1(IDR1.TABLES_PRESET) === 0, 'preset tables (TABLES_PRESET) are not supported yet', 'IDR1', idr1);
    need(f1(IDR1.QUEUES_PRESET) === 0, 'preset queues (QUEUES_PRESET) are not supported yet', 'IDR1', idr1);
    need(f1(IDR1.SIDSIZE) <= 32, 'SIDSIZE is above 32', 'IDR1', idr1);
    need(f1(IDR1.SSIDSIZE) <= 20, 'SSIDSIZE is above 20', 'IDR1', idr1);
    need(f1(IDR1.CMDQS) <= 19 && f1(IDR1.EVENTQS) <= 19, 'a queue size is above 2^19', 'IDR1', idr1);
    need(f3(IDR3.MPAM) === 0, 'memory partitioning (MPAM) is not supported yet', 'IDR3', idr3);
    need(f3(IDR3.DPT) === 0, 'device permission tables (DPT) are not supported yet', 'IDR3', idr3);
    need((idr3 & 0xffff_0000) === 0, 'indirect permissions and later features are not supported yet', 'IDR3', idr3);
    need(f5(IDR5.DS) === 0, '52-bit addresses with small granules (DS) are not supported yet', 'IDR5', idr5);
    need(f5(IDR5.D128) === 0, '128-bit descriptors (D128) are not supported yet', 'IDR5', idr5);
    need(f5(IDR5.VAX) <= 1, 'virtual addresses above 52 bits (VAX) are not supported yet', 'IDR5', idr5);
    need(f5(IDR5.OAS) <= 6, '56-bit physical addresses (OAS 7) are not supported yet', 'IDR5', idr5);
    this.s1 = f0(IDR0.S1P) === 1;
    this.s2 = f0(IDR0.S2P) === 1;
    this.asid16 = f0(IDR0.ASID16) === 1;
    this.vmid16 = f0(IDR0.VMID16) === 1;
    this.hyp = f0(IDR0.Hyp) === 1;
    this.msi = f0(IDR0.MSI) === 1;
    this.cd2l = f0(IDR0.CD2L) === 1;
    this.twoLevel = f0(IDR0.ST_LEVEL) === 1;
    this.attrPermsOvr = f1(IDR1.ATTR_PERMS_OVR) === 1;
    this.sidSize = f1(IDR1.SIDSIZE);
    this.ssidSize = f1(IDR1.SSIDSIZE);
    this.cmdqLog2 = f1(IDR1.CMDQS);
    this.evtqLog2 = f1(IDR1.EVENTQS);
    this.had = f3(IDR3.HAD) === 1;
    this.xnx = f3(IDR3.XNX) === 1;
    this.ril = f3(IDR3.RIL) === 1;
    this.stt = f3(IDR3.STT) === 1;
    this.e0pd = f3(IDR3.E0PD) === 1;
    this.va52 = f5(IDR5.VAX) === 1;
    this.oas = ADDRESS_SIZES[f5(IDR5.OAS)]!;
    this.granules = (f5(IDR5.GRAN4K) << 12) | (f5(IDR5.GRAN16K) << 14) | (f5(IDR5.GRAN64K) << 16);
    need(this.granules !== 0, 'no granule is there', 'IDR5', idr5);
    need(fieldOfWord(ids.AIDR ?? 1, AIDR.ArchMajorRev) === 0, 'not an SMMUv3', 'AIDR', ids.AIDR ?? 1);
  }
}
