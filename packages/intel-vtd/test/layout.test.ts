/** Bit positions and offsets, typed again from the specification (rev 4.1, chapters 6, 9 and 11), not imported. */
import { overlaps } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';
import { describe, expect, test } from 'vitest';
import * as vtd from '../src/index.ts';

const positions = (layout: Layout): Record<string, [number, number]> =>
  Object.fromEntries(Object.entries(layout).map(([name, { msb, lsb }]) => [name, [msb, lsb]]));

const map = (cap: bigint, ecap: bigint) => () => vtd.registerMap(0x10, vtd.parseCapabilities(cap, ecap));

describe('registers', () => {
  test('offsets of a unit with fault records at 0x220 and IOTLB registers at 0xf0', () => {
    const rowsOf = vtd.registerMap(0x10, vtd.parseCapabilities(0x00d2_078c_222f_0606n, 0xf43n));
    const rows = Object.fromEntries(Object.entries(rowsOf).map(([name, r]) => [name, [r.offset, r.width, r.access]]));
    expect(rows).toEqual({
      VER: [0x0, 4, 'RO'],
      CAP: [0x8, 8, 'RO'],
      ECAP: [0x10, 8, 'RO'],
      GCMD: [0x18, 4, 'WO'],
      GSTS: [0x1c, 4, 'RO'],
      RTADDR: [0x20, 8, 'RW'],
      CCMD: [0x28, 8, 'RW'],
      FSTS: [0x34, 4, 'RO'],
      FECTL: [0x38, 4, 'RW'],
      FEDATA: [0x3c, 4, 'RW'],
      FEADDR: [0x40, 4, 'RW'],
      FEUADDR: [0x44, 4, 'RW'],
      AFLOG: [0x58, 8, 'RO'],
      PMEN: [0x64, 4, 'RO'],
      PLMBASE: [0x68, 4, 'RO'],
      PLMLIMIT: [0x6c, 4, 'RO'],
      PHMBASE: [0x70, 8, 'RO'],
      PHMLIMIT: [0x78, 8, 'RO'],
      IQH: [0x80, 8, 'RO'],
      IQT: [0x88, 8, 'RW'],
      IQA: [0x90, 8, 'RW'],
      ICS: [0x9c, 4, 'RO'],
      IECTL: [0xa0, 4, 'RW'],
      IEDATA: [0xa4, 4, 'RW'],
      IEADDR: [0xa8, 4, 'RW'],
      IEUADDR: [0xac, 4, 'RW'],
      IQERCD: [0xb0, 8, 'RO'],
      IRTA: [0xb8, 8, 'RO'],
      PQH: [0xc0, 8, 'RO'],
      PQT: [0xc8, 8, 'RO'],
      PQA: [0xd0, 8, 'RO'],
      PRS: [0xdc, 4, 'RO'],
      PECTL: [0xe0, 4, 'RO'],
      PEDATA: [0xe4, 4, 'RO'],
      PEADDR: [0xe8, 4, 'RO'],
      PEUADDR: [0xec, 4, 'RO'],
      IVA: [0xf0, 8, 'WO'],
      IOTLB: [0xf8, 8, 'RW'],
      FRCD_LO: [0x220, 8, 'RO'],
      FRCD_HI: [0x228, 8, 'RO'],
    });
    expect([rowsOf['FRCD_HI']!.count, rowsOf['FRCD_HI']!.stride]).toEqual([8, 16]);
  });

  test('fields', () => {
    expect(positions(vtd.VER)).toEqual({ MAX: [7, 4], MIN: [3, 0] });
    expect(positions(vtd.CAP)).toEqual({
      ESRTPS: [63, 63],
      ESIRTPS: [62, 62],
      ECMDS: [61, 61],
      FS5LP: [60, 60],
      PI: [59, 59],
      FS1GP: [56, 56],
      DRD: [55, 55],
      DWD: [54, 54],
      MAMV: [53, 48],
      NFR: [47, 40],
      PSI: [39, 39],
      SSLPS: [37, 34],
      FRO: [33, 24],
      ZLR: [22, 22],
      MGAW: [21, 16],
      SAGAW: [12, 8],
      CM: [7, 7],
      PHMR: [6, 6],
      PLMR: [5, 5],
      RWBF: [4, 4],
      AFL: [3, 3],
      ND: [2, 0],
    });
    expect(positions(vtd.ECAP)).toMatchObject({
      RPS: [49, 49],
      FSTS: [47, 47],
      SSTS: [46, 46],
      SSADS: [45, 45],
      SMTS: [43, 43],
      PASID: [40, 40],
      PSS: [39, 35],
      SRS: [31, 31],
      ERS: [30, 30],
      PRS: [29, 29],
      NEST: [26, 26],
      MHMV: [23, 20],
      IRO: [17, 8],
      SC: [7, 7],
      PT: [6, 6],
      EIM: [4, 4],
      IR: [3, 3],
      DT: [2, 2],
      QI: [1, 1],
      C: [0, 0],
    });
    expect(positions(vtd.GCMD)).toEqual({
      TE: [31, 31],
      SRTP: [30, 30],
      SFL: [29, 29],
      EAFL: [28, 28],
      WBF: [27, 27],
      QIE: [26, 26],
      IRE: [25, 25],
      SIRTP: [24, 24],
      CFI: [23, 23],
    });
    expect(Object.values(positions(vtd.GSTS))).toEqual(Object.values(positions(vtd.GCMD)));
    expect(positions(vtd.RTADDR)).toEqual({ RTA: [63, 12], TTM: [11, 10] });
    expect(positions(vtd.CCMD)).toEqual({
      ICC: [63, 63],
      CIRG: [62, 61],
      CAIG: [60, 59],
      FM: [33, 32],
      SID: [31, 16],
      DID: [15, 0],
    });
    expect(positions(vtd.FSTS)).toEqual({
      FRI: [15, 8],
      PRO: [7, 7],
      ITE: [6, 6],
      ICE: [5, 5],
      IQE: [4, 4],
      APF: [3, 3],
      AFO: [2, 2],
      PPF: [1, 1],
      PFO: [0, 0],
    });
    expect(positions(vtd.EVENT_CTL)).toEqual({ IM: [31, 31], IP: [30, 30] });
    expect(positions(vtd.EVENT_ADDR)).toEqual({ MA: [31, 2] });
    expect(positions(vtd.IQH)).toEqual({ QH: [18, 4] });
    expect(positions(vtd.IQT)).toEqual({ QT: [18, 4] });
    expect(positions(vtd.IQA)).toEqual({ IQA: [63, 12], DW: [11, 11], QS: [2, 0] });
    expect(positions(vtd.ICS)).toEqual({ IWC: [0, 0] });
    expect(positions(vtd.IQERCD)).toEqual({ ITESID: [63, 48], ICESID: [47, 32], IQEI: [3, 0] });
    expect(positions(vtd.IVA)).toEqual({ ADDR: [63, 12], IH: [6, 6], AM: [5, 0] });
    expect(positions(vtd.IOTLB)).toEqual({
      IVT: [63, 63],
      IIRG: [61, 60],
      IAIG: [58, 57],
      DR: [49, 49],
      DW: [48, 48],
      DID: [47, 32],
    });
    expect(positions(vtd.FRCD)).toEqual({
      F: [127, 127],
      T1: [126, 126],
      AT: [125, 124],
      PV: [123, 104],
      FR: [103, 96],
      PP: [95, 95],
      EXE: [94, 94],
      PRIV: [93, 93],
      T2: [92, 92],
      SID: [79, 64],
      FI: [63, 12],
    });
  });

  test('CAP and ECAP of a real machine read apart', () => {
    // A Xeon of 2019, from its boot log.
    const caps = vtd.parseCapabilities(0x8d2078c106f0466n, 0xf020dfn);
    expect(caps).toMatchObject({
      didBits: 16,
      mgaw: 48,
      sagaw: 4,
      cachingMode: false,
      pages2M: true,
      pages1G: true,
      psi: true,
      mamv: 18,
      frcdCount: 8,
      frcdOffset: 0x100,
      ivaOffset: 0x200,
      qi: true,
      coherent: true,
      interruptRemapping: true,
      passThrough: true,
      snoopControl: true,
      deviceTlb: true,
      scalable: false,
    });
  });

  test('registers that would overlap are refused', () => {
    expect(map(0x0606n, 0xf43n)).toThrow(/overlap/);
    expect(map(0x2200_0606n, 0x0043n)).toThrow(/overlap/);
    expect(map(0x2200_0606n, 0x2243n)).toThrow(/overlap/);
    expect(map(0x2200_0606n, 0xf43n)).not.toThrow();
  });
});

describe('structures in memory', () => {
  test('root and context entries', () => {
    expect([vtd.ROOT_ENTRY_BYTES, vtd.CONTEXT_ENTRY_BYTES, vtd.SM_CONTEXT_ENTRY_BYTES]).toEqual([16, 16, 32]);
    expect(positions(vtd.ROOT_ENTRY)).toEqual({ CTP: [63, 12], P: [0, 0] });
    expect(positions(vtd.CONTEXT_ENTRY)).toEqual({
      DID: [87, 72],
      IGN: [70, 67],
      AW: [66, 64],
      SSPTPTR: [63, 12],
      TT: [3, 2],
      FPD: [1, 1],
      P: [0, 0],
    });
    expect(positions(vtd.SM_ROOT_ENTRY)).toEqual({ UCTP: [127, 76], UP: [64, 64], LCTP: [63, 12], LP: [0, 0] });
    expect(positions(vtd.SM_CONTEXT_ENTRY)).toEqual({
      RID_PRIV: [84, 84],
      RID_PASID: [83, 64],
      PASIDDIRPTR: [63, 12],
      PDTS: [11, 9],
      PRE: [4, 4],
      PASIDE: [3, 3],
      DTE: [2, 2],
      FPD: [1, 1],
      P: [0, 0],
    });
  });

  test('PASID tables', () => {
    expect(vtd.PASID_ENTRY_BYTES).toBe(64);
    expect(positions(vtd.PASID_DIR_ENTRY)).toEqual({ SMPTBLPTR: [63, 12], FPD: [1, 1], P: [0, 0] });
    expect(positions(vtd.PASID_ENTRY)).toMatchObject({
      FSPTPTR: [191, 140],
      WPE: [132, 132],
      FSPM: [131, 130],
      ERE: [129, 129],
      SRE: [128, 128],
      DID: [79, 64],
      SSPTPTR: [63, 12],
      SSADE: [9, 9],
      PGTT: [8, 6],
      AW: [4, 2],
      FPD: [1, 1],
      P: [0, 0],
    });
    expect(vtd.PGTT).toEqual({ FIRST_STAGE: 1, SECOND_STAGE: 2, NESTED: 3, PASS_THROUGH: 4 });
    expect(vtd.TT).toEqual({ UNTRANSLATED: 0, DEVICE_TLB: 1, PASS_THROUGH: 2 });
    expect(vtd.TTM).toEqual({ LEGACY: 0, SCALABLE: 1, ABORT: 3 });
  });

  test('paging entries', () => {
    expect(positions(vtd.SS_ENTRY)).toMatchObject({
      ADDR: [51, 12],
      SNP: [11, 11],
      D: [9, 9],
      A: [8, 8],
      PS: [7, 7],
      W: [1, 1],
      R: [0, 0],
    });
    expect(positions(vtd.FS_ENTRY)).toMatchObject({
      XD: [63, 63],
      ADDR: [51, 12],
      PS: [7, 7],
      D: [6, 6],
      A: [5, 5],
      US: [2, 2],
      RW: [1, 1],
      P: [0, 0],
    });
  });
});

describe('invalidation descriptors', () => {
  test('types', () => {
    expect(vtd.INV_TYPE).toEqual({
      CC_INV: 1,
      IOTLB_INV: 2,
      DEV_TLB_INV: 3,
      IEC_INV: 4,
      WAIT: 5,
      PASID_IOTLB_INV: 6,
      PASID_CACHE_INV: 7,
      PASID_DEV_TLB_INV: 8,
    });
    expect(vtd.IQEI).toEqual({
      NOT_AVAILABLE: 0,
      INVALID_TAIL: 1,
      FETCH_ERROR: 2,
      INVALID_TYPE: 3,
      RESERVED_FIELD: 4,
      INVALID_WIDTH: 5,
      TAIL_MISALIGNED: 6,
      INVALID_TTM: 7,
    });
  });

  test('fields', () => {
    const type = { TYPE_HI: [11, 9], TYPE: [3, 0] };
    expect(positions(vtd.CC_INV)).toEqual({ ...type, FM: [49, 48], SID: [47, 32], DID: [31, 16], G: [5, 4] });
    expect(positions(vtd.IOTLB_INV)).toEqual({
      ...type,
      ADDR: [127, 76],
      IH: [70, 70],
      AM: [69, 64],
      DID: [31, 16],
      DR: [7, 7],
      DW: [6, 6],
      G: [5, 4],
    });
    expect(positions(vtd.DEV_TLB_INV)).toMatchObject({
      ...type,
      ADDR: [127, 76],
      S: [64, 64],
      SID: [47, 32],
      MIP: [20, 16],
    });
    expect(positions(vtd.IEC_INV)).toEqual({ ...type, IIDX: [47, 32], IM: [31, 27], G: [4, 4] });
    expect(positions(vtd.WAIT)).toEqual({
      ...type,
      STADDR: [127, 66],
      STDATA: [63, 32],
      PD: [7, 7],
      FN: [6, 6],
      SW: [5, 5],
      IF: [4, 4],
    });
    expect(positions(vtd.PASID_IOTLB_INV)).toEqual({
      ...type,
      ADDR: [127, 76],
      IH: [70, 70],
      AM: [69, 64],
      PASID: [51, 32],
      DID: [31, 16],
      G: [5, 4],
    });
    expect(positions(vtd.PASID_CACHE_INV)).toEqual({ ...type, PASID: [51, 32], DID: [31, 16], G: [5, 4] });
  });
});

test('no two fields of a layout overlap', () => {
  for (const [name, value] of Object.entries(vtd)) {
    const fields = Object.values(value);
    const isLayout =
      typeof value === 'object' && fields.length > 0 && fields.every((f) => typeof f === 'object' && 'msb' in f);
    if (isLayout) expect(overlaps(value as unknown as Layout), name).toEqual([]);
  }
});

test('fault reasons have the numbers of the specification', () => {
  expect(vtd.FAULT).toMatchObject({
    LRT_2: 1,
    LCT_2: 2,
    LCT_4: 3,
    LGN_1: 4,
    LGN_2: 5,
    LGN_3: 6,
    LSS_1: 7,
    LRT_1: 8,
    LCT_1: 9,
    LRT_3: 10,
    LCT_3: 11,
    LSS_2: 12,
    LCT_5: 13,
    LGN_4: 14,
    RTA_1: 0x30,
    RTA_2: 0x31,
    SRT_2: 0x39,
    SCT_2: 0x41,
    SCT_3: 0x42,
    SPD_2: 0x51,
    SPT_2: 0x59,
    SPT_3: 0x5a,
    SPT_4: 0x5b,
    SFS_2: 0x71,
    SFS_3: 0x72,
    SGN_1: 0x80,
    SGN_2: 0x81,
    SGN_6: 0x85,
  });
  for (const code of Object.values(vtd.FAULT)) expect(vtd.FAULT_REASONS[code], `reason ${code}`).toBeDefined();
});

test('a fault record decodes', () => {
  const event = vtd.decodeFaultRecord(0xffff_7000n, 0xc0ab_cd06_a000_5703n);
  expect(event).toMatchObject({
    name: 'LGN.3',
    code: 6,
    requester: 0x5703,
    pasid: 0xabcd,
    iova: 0xffff_7000n,
    access: 'read',
  });
  expect(event.raw).toEqual([0xffff_7000n, 0xc0ab_cd06_a000_5703n]);
  expect(event.text).toContain('57:00.3');
  expect(vtd.decodeFaultRecord(0n, 0x8000_0055_0000_0018n)).toMatchObject({
    name: 'reason 0x55',
    access: 'write',
    pasid: -1,
  });
});
