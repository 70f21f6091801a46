/**
 * What an instance has, decoded once from `capabilities` (specification section "IOMMU capabilities").
 */
import { IommuError, extract, hex } from '@iommu-ts/bits';
import { capabilities as CAP, fctl as FCTL } from '../registers.ts';

/** Options of the hardware: its identification registers and the limits of its WARL fields. */
export interface RiscvIommuHardwareOptions {
  /** The `capabilities` register. Default {@link DEFAULT_CAPABILITIES}. */
  readonly capabilities?: bigint;
  /** Reset value of `fctl`; only WSI may be set, and only where `capabilities.IGS` allows it. */
  readonly fctl?: bigint;
  /** Reset value of `ddtp`: mode Off (0) or Bare (1). */
  readonly ddtpReset?: bigint;
  /** Largest value that the `LOG2SZ-1` fields of the queue bases take (WARL); default 31. */
  readonly queueLog2szMax?: number;
  /** Deepest device directory: 2 = 1LVL, 3 = 2LVL, 4 = 3LVL (default); deeper modes are not taken by `ddtp` (WARL). */
  readonly maxIommuMode?: number;
}

/**
 * Version 1.0; Sv39, Sv48, Sv57 in both stages; MSI page tables in basic mode; A and D updates; debug interface;
 * process directories of all depths; MSI interrupts; 56 address bits.
 */
export const DEFAULT_CAPABILITIES = 0x1f8_814e_0e10n;

/** Plain numbers and flags; one object an instance. */
export class Features {
  readonly capabilities: bigint;
  readonly fctlReset: number;
  readonly fctlWritable: number;
  readonly ddtpReset: bigint;
  readonly queueLog2szMax: number;
  readonly maxIommuMode: number;
  /** First page frame number that is beyond `PAS`. */
  readonly pasEndPfn: number;
  readonly pas: number;
  /** Bit n: first-stage (second-stage) mode n is supported; bit 0 Bare. */
  readonly iosatpModes: number;
  readonly iohgatpModes: number;
  /** Bit n: `pdtp.MODE` n is supported. */
  readonly pdtpModes: number;
  readonly msiFlat: boolean;
  readonly msiMrif: boolean;
  readonly amoHwad: boolean;
  readonly svpbmt: boolean;
  readonly svrsw60t59b: boolean;
  readonly ats: boolean;
  readonly t2gpa: boolean;
  readonly hpm: boolean;
  readonly dbg: boolean;
  readonly nl: boolean;
  readonly s: boolean;
  readonly igs: number;
  /** Reserved bits of `msi_addr_mask` and `msi_addr_pattern`, by word. */
  readonly msiPageReservedHi: number;
  readonly msiPageReservedLo: number;

  /** @throws IommuError `EINVAL` for values that the architecture rules out, `EOPNOTSUPP` for what is not built yet. */
  constructor(options: RiscvIommuHardwareOptions) {
    const cap = options.capabilities ?? DEFAULT_CAPABILITIES;
    const has = (name: keyof typeof CAP): boolean => extract(cap, CAP[name]) !== 0n;
    this.capabilities = cap;
    this.igs = Number(extract(cap, CAP.IGS));
    this.pas = Number(extract(cap, CAP.PAS));
    const fctl = options.fctl ?? (this.igs === 1 ? 2n : 0n);
    const reject = (what: string): never => {
      throw new IommuError('EOPNOTSUPP', `capabilities ${hex(cap)} fctl ${hex(fctl)}: ${what} is not supported yet`, {
        capabilities: cap,
        fctl,
      });
    };
    const wrong = (what: string): never => {
      throw new IommuError('EINVAL', `capabilities ${hex(cap)} fctl ${hex(fctl)}: ${what}`, {
        capabilities: cap,
        fctl,
      });
    };
    if (has('END') || (fctl & 1n) !== 0n) reject('big-endian operation (END, fctl.BE)');
    if ((fctl & 4n) !== 0n) reject('RV32 addressing (fctl.GXL)');
    if (has('QOSID')) reject('the QoS id extension (QOSID)');
    if (this.igs === 3) wrong('IGS 3 is reserved');
    if (this.pas < 12 || this.pas > 56) wrong(`PAS ${this.pas} is not from 12 to 56`);
    const wsi = (fctl & extractMask(FCTL.WSI)) !== 0n;
    if ((this.igs === 0 && wsi) || (this.igs === 1 && !wsi)) wrong('fctl.WSI does not agree with IGS');
    this.fctlReset = wsi ? 2 : 0;
    this.fctlWritable = this.igs === 2 ? 2 : 0;
    this.ddtpReset = options.ddtpReset ?? 0n;
    if ((this.ddtpReset & 0xfn) > 1n) wrong(`ddtp resets to ${hex(this.ddtpReset)}, which is neither Off nor Bare`);
    this.queueLog2szMax = options.queueLog2szMax ?? 31;
    if (!(this.queueLog2szMax >= 0 && this.queueLog2szMax <= 31)) wrong(`queueLog2szMax ${this.queueLog2szMax}`);
    this.maxIommuMode = options.maxIommuMode ?? 4;
    if (!(this.maxIommuMode >= 2 && this.maxIommuMode <= 4)) wrong(`maxIommuMode ${this.maxIommuMode}`);
    this.pasEndPfn = 2 ** (this.pas - 12);
    const modes = (...names: (keyof typeof CAP)[]): number =>
      names.reduce((set, name, i) => set | (has(name) ? 1 << (8 + i) : 0), 1);
    this.iosatpModes = modes('Sv39', 'Sv48', 'Sv57');
    this.iohgatpModes = modes('Sv39x4', 'Sv48x4', 'Sv57x4');
    this.pdtpModes = 1 | (has('PD8') ? 2 : 0) | (has('PD17') ? 4 : 0) | (has('PD20') ? 8 : 0);
    this.msiFlat = has('MSI_FLAT');
    this.msiMrif = has('MSI_MRIF');
    this.amoHwad = has('AMO_HWAD');
    this.svpbmt = has('Svpbmt');
    this.svrsw60t59b = has('Svrsw60t59b');
    this.ats = has('ATS');
    this.t2gpa = has('T2GPA');
    this.hpm = has('HPM');
    this.dbg = has('DBG');
    this.nl = has('NL');
    this.s = has('S');
    const mgpaw = has('Sv57x4') ? 59 : has('Sv48x4') ? 50 : has('Sv39x4') ? 41 : has('Sv32x4') ? 34 : this.pas;
    const reserved = ~((1n << BigInt(mgpaw - 12)) - 1n);
    this.msiPageReservedHi = Number(BigInt.asIntN(32, reserved >> 32n));
    this.msiPageReservedLo = Number(BigInt.asIntN(32, reserved));
  }
}

const extractMask = (field: { readonly msb: number; readonly lsb: number }): bigint =>
  ((1n << BigInt(field.msb - field.lsb + 1)) - 1n) << BigInt(field.lsb);
