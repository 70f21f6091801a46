/** Positions of registers and fields, typed again from IHI 0070: nothing here is computed from the tables under test. */
import { encode, maskOf, overlaps } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';
import { describe, expect, test } from 'vitest';
import * as smmu from '../src/index.ts';

/** Offsets of chapter 6.1, page 0 and page 1. */
const OFFSETS: Readonly<Record<string, number>> = {
  IDR0: 0x0000,
  IDR1: 0x0004,
  IDR2: 0x0008,
  IDR3: 0x000c,
  IDR4: 0x0010,
  IDR5: 0x0014,
  IIDR: 0x0018,
  AIDR: 0x001c,
  CR0: 0x0020,
  CR0ACK: 0x0024,
  CR1: 0x0028,
  CR2: 0x002c,
  STATUSR: 0x0040,
  GBPA: 0x0044,
  AGBPA: 0x0048,
  IRQ_CTRL: 0x0050,
  IRQ_CTRLACK: 0x0054,
  GERROR: 0x0060,
  GERRORN: 0x0064,
  GERROR_IRQ_CFG0: 0x0068,
  GERROR_IRQ_CFG1: 0x0070,
  GERROR_IRQ_CFG2: 0x0074,
  STRTAB_BASE: 0x0080,
  STRTAB_BASE_CFG: 0x0088,
  CMDQ_BASE: 0x0090,
  CMDQ_PROD: 0x0098,
  CMDQ_CONS: 0x009c,
  EVENTQ_BASE: 0x00a0,
  EVENTQ_IRQ_CFG0: 0x00b0,
  EVENTQ_IRQ_CFG1: 0x00b8,
  EVENTQ_IRQ_CFG2: 0x00bc,
  PRIQ_BASE: 0x00c0,
  PRIQ_IRQ_CFG0: 0x00d0,
  PRIQ_IRQ_CFG1: 0x00d8,
  PRIQ_IRQ_CFG2: 0x00dc,
  EVENTQ_PROD: 0x100a8,
  EVENTQ_CONS: 0x100ac,
  PRIQ_PROD: 0x100c8,
  PRIQ_CONS: 0x100cc,
};

test('register offsets', () => {
  expect(smmu.REG).toEqual(OFFSETS);
  expect(Object.fromEntries(Object.entries(smmu.REGISTERS).map(([name, r]) => [name, r.offset]))).toEqual(OFFSETS);
  const wide = Object.entries(smmu.REGISTERS).filter(([, r]) => r.width === 8);
  expect(wide.map(([name]) => name).toSorted()).toEqual([
    'CMDQ_BASE',
    'EVENTQ_BASE',
    'EVENTQ_IRQ_CFG0',
    'GERROR_IRQ_CFG0',
    'PRIQ_BASE',
    'PRIQ_IRQ_CFG0',
    'STRTAB_BASE',
  ]);
});

/** Fields as the specification prints them: `NAME msb lsb`, `NAME bit`. */
const check = (layout: Layout, text: string): void => {
  const wanted = Object.fromEntries(
    text
      .trim()
      .split(/\s*;\s*/)
      .map((line) => {
        const [name, msb, lsb] = line.split(/\s+/);
        return [name!, [Number(msb), Number(lsb ?? msb)]];
      }),
  );
  expect(Object.fromEntries(Object.entries(layout).map(([name, f]) => [name, [f.msb, f.lsb]]))).toEqual(wanted);
};

describe('fields', () => {
  test('identification registers (6.3.1-6.3.8)', () => {
    check(
      smmu.IDR0,
      `ST_LEVEL 28 27; TERM_MODEL 26; STALL_MODEL 25 24; ATSRECERR 23; TTENDIAN 22 21; VATOS 20; CD2L 19; VMID16 18;
       VMW 17; PRI 16; ATOS 15; SEV 14; MSI 13; ASID16 12; NS1ATS 11; ATS 10; Hyp 9; DORMHINT 8; HTTU 7 6; BTM 5;
       COHACC 4; TTF 3 2; S1P 1; S2P 0`,
    );
    check(
      smmu.IDR1,
      `ECMDQ 31; TABLES_PRESET 30; QUEUES_PRESET 29; REL 28; ATTR_TYPES_OVR 27; ATTR_PERMS_OVR 26; CMDQS 25 21;
       EVENTQS 20 16; PRIQS 15 11; SSIDSIZE 10 6; SIDSIZE 5 0`,
    );
    check(
      smmu.IDR3,
      `DPT 15; PTWNNC 14; E0PD 13; BBML 12 11; RIL 10; STT 9; FWB 8; MPAM 7; PPS 5; XNX 4; PBHA 3; HAD 2`,
    );
    check(smmu.IDR5, `STALL_MAX 31 16; VAX 11 10; D128 8; DS 7; GRAN64K 6; GRAN16K 5; GRAN4K 4; OAS 2 0`);
    check(smmu.AIDR, `ArchMajorRev 7 4; ArchMinorRev 3 0`);
    check(smmu.IIDR, `ProductID 31 20; Variant 19 16; Revision 15 12; Implementer 11 0`);
  });

  test('control registers (6.3.9-6.3.31)', () => {
    check(smmu.CR0, `VMW 8 6; ATSCHK 4; CMDQEN 3; EVENTQEN 2; PRIQEN 1; SMMUEN 0`);
    check(smmu.CR1, `TABLE_SH 11 10; TABLE_OC 9 8; TABLE_IC 7 6; QUEUE_SH 5 4; QUEUE_OC 3 2; QUEUE_IC 1 0`);
    check(smmu.CR2, `PTM 2; RECINVSID 1; E2H 0`);
    check(
      smmu.GBPA,
      `Update 31; ABORT 20; INSTCFG 19 18; PRIVCFG 17 16; SHCFG 13 12; ALLOCCFG 11 8; MTCFG 4; MemAttr 3 0`,
    );
    check(smmu.IRQ_CTRL, `EVENTQ_IRQEN 2; PRIQ_IRQEN 1; GERROR_IRQEN 0`);
    check(
      smmu.GERROR,
      `SFM_ERR 8; MSI_GERROR_ABT_ERR 7; MSI_PRIQ_ABT_ERR 6; MSI_EVENTQ_ABT_ERR 5; MSI_CMDQ_ABT_ERR 4; PRIQ_ABT_ERR 3;
       EVENTQ_ABT_ERR 2; CMDQ_ERR 0`,
    );
    check(smmu.STRTAB_BASE, `RA 62; ADDR 51 6`);
    check(smmu.STRTAB_BASE_CFG, `FMT 17 16; SPLIT 10 6; LOG2SIZE 5 0`);
    check(smmu.QUEUE_BASE, `RA 62; ADDR 51 5; LOG2SIZE 4 0`);
    check(smmu.CMDQ_CONS, `ERR 30 24; RD 19 0`);
    check(smmu.EVENTQ_PROD, `OVFLG 31; WR 19 0`);
    check(smmu.EVENTQ_CONS, `OVACKFLG 31; RD 19 0`);
  });

  test('structures (5.1-5.4)', () => {
    check(smmu.L1STD, `L2Ptr 51 6; Span 4 0`);
    check(smmu.L1CD, `L2Ptr 51 12; V 0`);
    check(
      smmu.STE,
      `S2TTB 243 196; S2R 186; S2S 185; S2HA 184; S2HD 183; S2PTW 182; S2AFFD 181; S2ENDI 180; S2AA64 179; S2PS 178 176;
       S2TG 175 174; S2SH0 173 172; S2OR0 171 170; S2IR0 169 168; S2SL0 167 166; S2T0SZ 165 160; S2VMID 143 128;
       INSTCFG 115 114; PRIVCFG 113 112; NSCFG 111 110; SHCFG 109 108; ALLOCCFG 104 101; MTCFG 100; MemAttr 99 96;
       STRW 95 94; EATS 93 92; S1STALLD 91; S1MPAM 90; S2FWB 89; MEV 83; CONT 80 77; S1CSH 71 70; S1COR 69 68;
       S1CIR 67 66; S1DSS 65 64; S1CDMax 63 59; S1ContextPtr 51 6; S1Fmt 5 4; Config 3 1; V 0`,
    );
    check(
      smmu.CD,
      `AMAIR1 319 288; AMAIR0 287 256; MAIR1 255 224; MAIR0 223 192; TTB1 179 132; E0PD1 130; HAD1 129; NSCFG1 128;
       TTB0 115 68; E0PD0 66; HAD0 65; NSCFG0 64; ASID 63 48; ASET 47; A 46; R 45; S 44; HA 43; HD 42; AA64 41; PAN 40;
       TBI1 39; TBI0 38; UWXN 37; WXN 36; AFFD 35; IPS 34 32; V 31; EPD1 30; SH1 29 28; OR1 27 26; IR1 25 24; TG1 23 22;
       T1SZ 21 16; ENDI 15; EPD0 14; SH0 13 12; OR0 11 10; IR0 9 8; TG0 7 6; T0SZ 5 0`,
    );
  });

  test('commands (chapter 4)', () => {
    check(
      smmu.TLBI,
      `Address 127 76; TG 75 74; TTL 73 72; Leaf 64; ASID 63 48; VMID 47 32; SCALE 24 20; NUM 16 12; OPCODE 7 0`,
    );
    check(smmu.CMD_SYNC, `MSIAddress 119 66; MSIData 63 32; MSIAttr 27 24; MSH 23 22; CS 13 12; OPCODE 7 0`);
    check(smmu.CFGI_STE, `Leaf 64; StreamID 63 32; SSec 10; OPCODE 7 0`);
    check(smmu.CFGI_STE_RANGE, `Range 68 64; StreamID 63 32; SSec 10; OPCODE 7 0`);
    check(smmu.CFGI_CD, `Leaf 64; StreamID 63 32; SubstreamID 31 12; SSec 10; OPCODE 7 0`);
    expect(smmu.CMD).toMatchObject({
      PREFETCH_CONFIG: 1,
      CFGI_STE: 3,
      CFGI_STE_RANGE: 4,
      CFGI_CD: 5,
      CFGI_CD_ALL: 6,
      TLBI_NH_ALL: 0x10,
      TLBI_NH_ASID: 0x11,
      TLBI_NH_VA: 0x12,
      TLBI_NH_VAA: 0x13,
      TLBI_EL2_ALL: 0x20,
      TLBI_EL2_ASID: 0x21,
      TLBI_EL2_VA: 0x22,
      TLBI_EL2_VAA: 0x23,
      TLBI_S12_VMALL: 0x28,
      TLBI_S2_IPA: 0x2a,
      TLBI_NSNH_ALL: 0x30,
      ATC_INV: 0x40,
      PRI_RESP: 0x41,
      RESUME: 0x44,
      STALL_TERM: 0x45,
      SYNC: 0x46,
    });
  });

  test('event records (7.3)', () => {
    check(
      smmu.EVENT_RECORD,
      `IPA 247 204; FetchAddr 247 195; InputAddr 191 128; TTRnW 108; CLASS 105 104; S2 103; NSIPA 100; RnW 99; InD 98;
       PnU 97; Stall 95; STAG 79 64; StreamID 63 32; SubstreamID 31 12; SSV 11; EVENT 7 0`,
    );
    expect(smmu.EVENT).toMatchObject({
      C_BAD_STREAMID: 2,
      F_STE_FETCH: 3,
      C_BAD_STE: 4,
      F_STREAM_DISABLED: 6,
      C_BAD_SUBSTREAMID: 8,
      F_CD_FETCH: 9,
      C_BAD_CD: 0xa,
      F_WALK_EABT: 0xb,
      F_TRANSLATION: 0x10,
      F_ADDR_SIZE: 0x11,
      F_ACCESS: 0x12,
      F_PERMISSION: 0x13,
    });
  });

  test('no field lies over another', () => {
    const { IDR0, IDR1, IDR3, IDR5, CR0, CR1, GBPA, STE, CD, TLBI, CMD_SYNC } = smmu;
    for (const layout of [IDR0, IDR1, IDR3, IDR5, CR0, CR1, GBPA, STE, CD, TLBI, CMD_SYNC]) {
      expect(overlaps(layout)).toEqual([]);
    }
    expect(overlaps(smmu.EVENT_RECORD)).toEqual([['IPA', 'FetchAddr']]);
  });
});

test('bytes that Linux wrote', () => {
  // The STE and CD of the recorded NVMe controller, as 64-bit words.
  const ste = { V: 1, Config: 5, S1ContextPtr: 0x451e_c000n >> 6n, S1DSS: 2, S1CIR: 1, S1COR: 1, S1CSH: 3 };
  expect(encode(smmu.STE, ste)).toBe(0x0000_0000_0000_00d6_0000_0000_451e_c00bn);
  const cd = {
    T0SZ: 16,
    TG0: 2,
    IR0: 1,
    OR0: 1,
    SH0: 3,
    EPD1: 1,
    V: 1,
    IPS: 5,
    AA64: 1,
    R: 1,
    A: 1,
    ASET: 1,
    ASID: 2,
    TTB0: 0x451e_8000n >> 4n,
  };
  expect(encode(smmu.CD, cd)).toBe(0x0000_0000_451e_8000_0002_e205_c000_3590n);
  expect(maskOf(smmu.CD.TTB0)).toBe(0x000f_ffff_ffff_fff0n << 64n);
});

test('commands taken apart', () => {
  expect(smmu.decodeCommand([0x12, 0x0002_0000, 0xffff_0001 | 0, 0])).toMatchObject({
    name: 'CMD_TLBI_NH_VA',
    fields: { ASID: 2n, VMID: 0n, Leaf: 1n, Address: 0xf_fff0n, TG: 0n },
  });
  expect(smmu.decodeCommand([0x04, 0, 0x1f, 0]).name).toBe('CMD_CFGI_ALL');
  expect(smmu.decodeCommand([0x0fc0_2046, 0, 0, 0])).toMatchObject({ name: 'CMD_SYNC', fields: { CS: 2n, MSH: 3n } });
  expect(smmu.decodeCommand([0xff, 0, 0, 0]).name).toBe('opcode 0xff');
});
