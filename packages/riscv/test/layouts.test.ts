/**
 * Registers, structures, commands and fault records against positions typed here a second time, from the specification's
 * figures. Nothing below is computed from the layouts under test.
 */
import { maskOf, overlaps } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';
import { expect, test } from 'vitest';
import { ATS, FUNC3, IODIR, IOFENCE, IOTINVAL, OPCODE, commandOf } from '../src/commands.ts';
import { CAUSES, FAULT_RECORD, decodeFault } from '../src/faults.ts';
import * as registers from '../src/registers.ts';
import * as structures from '../src/structures.ts';

/** msb and lsb of every field. */
const spans = (layout: Layout): Record<string, [number, number]> =>
  Object.fromEntries(Object.entries(layout).map(([name, f]) => [name, [f.msb, f.lsb]]));

test('register offsets and widths', () => {
  const at = Object.fromEntries(Object.entries(registers.REGISTERS).map(([name, r]) => [name, [r.offset, r.width]]));
  expect(at).toEqual({
    capabilities: [0, 8],
    fctl: [8, 4],
    ddtp: [16, 8],
    cqb: [24, 8],
    cqh: [32, 4],
    cqt: [36, 4],
    fqb: [40, 8],
    fqh: [48, 4],
    fqt: [52, 4],
    pqb: [56, 8],
    pqh: [64, 4],
    pqt: [68, 4],
    cqcsr: [72, 4],
    fqcsr: [76, 4],
    pqcsr: [80, 4],
    ipsr: [84, 4],
    iocountovf: [88, 4],
    iocountinh: [92, 4],
    iohpmcycles: [96, 8],
    iohpmctr: [104, 8],
    iohpmevt: [352, 8],
    tr_req_iova: [600, 8],
    tr_req_ctl: [608, 8],
    tr_response: [616, 8],
    icvec: [760, 8],
    msi_addr: [768, 8],
    msi_data: [776, 4],
    msi_vec_ctl: [780, 4],
  });
  expect(registers.REGISTERS.iohpmctr).toMatchObject({ count: 31, stride: 8 });
  expect(registers.REGISTERS.iohpmevt).toMatchObject({ count: 31, stride: 8 });
  expect(registers.REGISTERS.msi_addr).toMatchObject({ count: 16, stride: 16 });
});

test('register fields', () => {
  expect(spans(registers.capabilities)).toEqual({
    version: [7, 0],
    Sv32: [8, 8],
    Sv39: [9, 9],
    Sv48: [10, 10],
    Sv57: [11, 11],
    Svrsw60t59b: [14, 14],
    Svpbmt: [15, 15],
    Sv32x4: [16, 16],
    Sv39x4: [17, 17],
    Sv48x4: [18, 18],
    Sv57x4: [19, 19],
    AMO_MRIF: [21, 21],
    MSI_FLAT: [22, 22],
    MSI_MRIF: [23, 23],
    AMO_HWAD: [24, 24],
    ATS: [25, 25],
    T2GPA: [26, 26],
    END: [27, 27],
    IGS: [29, 28],
    HPM: [30, 30],
    DBG: [31, 31],
    PAS: [37, 32],
    PD8: [38, 38],
    PD17: [39, 39],
    PD20: [40, 40],
    QOSID: [41, 41],
    NL: [42, 42],
    S: [43, 43],
    custom: [63, 56],
  });
  expect(spans(registers.fctl)).toEqual({ BE: [0, 0], WSI: [1, 1], GXL: [2, 2] });
  expect(spans(registers.ddtp)).toEqual({ iommu_mode: [3, 0], busy: [4, 4], PPN: [53, 10] });
  expect(spans(registers.queueBase)).toEqual({ 'LOG2SZ-1': [4, 0], PPN: [53, 10] });
  expect(spans(registers.cqcsr)).toEqual({
    cqen: [0, 0],
    cie: [1, 1],
    cqmf: [8, 8],
    cmd_to: [9, 9],
    cmd_ill: [10, 10],
    fence_w_ip: [11, 11],
    cqon: [16, 16],
    busy: [17, 17],
    custom: [31, 28],
  });
  expect(spans(registers.fqcsr)).toEqual({
    fqen: [0, 0],
    fie: [1, 1],
    fqmf: [8, 8],
    fqof: [9, 9],
    fqon: [16, 16],
    busy: [17, 17],
    custom: [31, 28],
  });
  expect(spans(registers.pqcsr)).toMatchObject({
    pqen: [0, 0],
    pie: [1, 1],
    pqmf: [8, 8],
    pqof: [9, 9],
    pqon: [16, 16],
  });
  expect(spans(registers.ipsr)).toEqual({ cip: [0, 0], fip: [1, 1], pmip: [2, 2], pip: [3, 3] });
  expect(spans(registers.icvec)).toEqual({ civ: [3, 0], fiv: [7, 4], pmiv: [11, 8], piv: [15, 12] });
  expect(spans(registers.tr_req_ctl)).toEqual({
    'Go/Busy': [0, 0],
    Priv: [1, 1],
    Exe: [2, 2],
    NW: [3, 3],
    PID: [31, 12],
    PV: [32, 32],
    DID: [63, 40],
  });
  expect(spans(registers.tr_response)).toEqual({ fault: [0, 0], PBMT: [8, 7], S: [9, 9], PPN: [53, 10] });
  expect(spans(registers.iohpmevt)).toEqual({
    eventID: [14, 0],
    DMASK: [15, 15],
    PID_PSCID: [35, 16],
    DID_GSCID: [59, 36],
    PV_PSCV: [60, 60],
    DV_GSCV: [61, 61],
    IDT: [62, 62],
    OF: [63, 63],
  });
});

test('structure fields', () => {
  expect(spans(structures.DDTE)).toEqual({ V: [0, 0], PPN: [53, 10] });
  expect(spans(structures.PDTE)).toEqual({ V: [0, 0], PPN: [53, 10] });
  expect(spans(structures.DC_tc)).toEqual({
    V: [0, 0],
    EN_ATS: [1, 1],
    EN_PRI: [2, 2],
    T2GPA: [3, 3],
    DTF: [4, 4],
    PDTV: [5, 5],
    PRPR: [6, 6],
    GADE: [7, 7],
    SADE: [8, 8],
    DPE: [9, 9],
    SBE: [10, 10],
    SXL: [11, 11],
    custom: [31, 24],
  });
  expect(spans(structures.DC_iohgatp)).toEqual({ PPN: [43, 0], GSCID: [59, 44], MODE: [63, 60] });
  expect(spans(structures.DC_ta)).toEqual({ PSCID: [31, 12], RCID: [51, 40], MCID: [63, 52] });
  for (const pointer of [structures.iosatp, structures.pdtp, structures.DC_msiptp]) {
    expect(spans(pointer)).toEqual({ PPN: [43, 0], MODE: [63, 60] });
  }
  expect(spans(structures.DC_msi_addr_mask)).toEqual({ mask: [51, 0] });
  expect(spans(structures.DC_msi_addr_pattern)).toEqual({ pattern: [51, 0] });
  expect(spans(structures.PC_ta)).toEqual({ V: [0, 0], ENS: [1, 1], SUM: [2, 2], PSCID: [31, 12] });
  expect(spans(structures.MSIPTE)).toEqual({ V: [0, 0], M: [2, 1], PPN: [53, 10], C: [63, 63] });
  expect(spans(structures.MSIPTE_MRIF)).toEqual({ V: [0, 0], M: [2, 1], MRIF_ADDR_55_9: [53, 7], C: [63, 63] });
  expect(spans(structures.MSIPTE_MRIF_1)).toEqual({ N90: [9, 0], NPPN: [53, 10], N10: [60, 60] });
  expect(spans(structures.PTE)).toEqual({
    V: [0, 0],
    R: [1, 1],
    W: [2, 2],
    X: [3, 3],
    U: [4, 4],
    G: [5, 5],
    A: [6, 6],
    D: [7, 7],
    RSW: [9, 8],
    PPN: [53, 10],
    reserved: [58, 54],
    RSW60T59B: [60, 59],
    PBMT: [62, 61],
    N: [63, 63],
  });
  expect(structures.DC_BYTES).toEqual({ base: 32, extended: 64 });
});

test('commands', () => {
  expect(spans(IOTINVAL)).toEqual({
    opcode: [6, 0],
    func3: [9, 7],
    AV: [10, 10],
    PSCID: [31, 12],
    PSCV: [32, 32],
    GV: [33, 33],
    NL: [34, 34],
    GSCID: [59, 44],
    S: [73, 73],
    'ADDR[63:12]': [125, 74],
  });
  expect(spans(IOFENCE)).toEqual({
    opcode: [6, 0],
    func3: [9, 7],
    AV: [10, 10],
    WSI: [11, 11],
    PR: [12, 12],
    PW: [13, 13],
    DATA: [63, 32],
    'ADDR[63:2]': [125, 64],
  });
  expect(spans(IODIR)).toEqual({ opcode: [6, 0], func3: [9, 7], PID: [31, 12], DV: [33, 33], DID: [63, 40] });
  expect(spans(ATS)).toMatchObject({ PID: [31, 12], PV: [32, 32], DSV: [33, 33], RID: [55, 40], DSEG: [63, 56] });
  expect(OPCODE).toEqual({ IOTINVAL: 1, IOFENCE: 2, IODIR: 3, ATS: 4 });
  expect(FUNC3).toEqual({
    IOTINVAL: { VMA: 0, GVMA: 1 },
    IOFENCE: { C: 0 },
    IODIR: { INVAL_DDT: 0, INVAL_PDT: 1 },
    ATS: { INVAL: 0, PRGR: 1 },
  });
  const names = [...Array(128).keys()].flatMap((opcode) =>
    [...Array(8).keys()].map((func3) => commandOf(opcode, func3)?.name).filter((name) => name !== undefined),
  );
  expect(names).toEqual([
    'IOTINVAL.VMA',
    'IOTINVAL.GVMA',
    'IOFENCE.C',
    'IODIR.INVAL_DDT',
    'IODIR.INVAL_PDT',
    'ATS.INVAL',
    'ATS.PRGR',
  ]);
});

test('fault records', () => {
  expect(spans(FAULT_RECORD)).toEqual({
    CAUSE: [11, 0],
    PID: [31, 12],
    PV: [32, 32],
    PRIV: [33, 33],
    TTYP: [39, 34],
    DID: [63, 40],
    custom: [95, 64],
    iotval: [191, 128],
    iotval2: [255, 192],
  });
  const numbers = [1, 4, 5, 6, 7, 12, 13, 15, 20, 21, 23];
  for (let n = 256; n <= 274; n++) numbers.push(n);
  expect(Object.keys(CAUSES).map(Number)).toEqual(numbers);
  // The column "Reported if DTF is 1?" of the table of causes.
  const withDtf = numbers.filter((n) => CAUSES[n]!.withDtf);
  expect(withDtf).toEqual([256, 257, 258, 259, 268, 272, 273]);
});

test('a record decoded', () => {
  // Write by device 0x12345, process 0xabcde in supervisor mode, second stage, while reading a first-stage table.
  const word0 = (0x12345n << 40n) | (3n << 34n) | (1n << 33n) | (1n << 32n) | (0xabcden << 12n) | 23n;
  const event = decodeFault([word0, 0n, 0x7fff_1234n, 0x8000_1231n]);
  expect(event).toMatchObject({
    name: 'Write/AMO guest-page fault',
    code: 23,
    requester: 0x12345,
    pasid: 0xabcde,
    iova: 0x7fff_1234n,
    access: 'write',
    fields: { PRIV: 1n, TTYP: 3, iotval2: 0x8000_1231n },
  });
  expect(event.text).toMatch(/GPA 0x80001230 \(implicit access\)/);
  // Not caused by a transaction.
  expect(decodeFault([273n, 0n, 0xfee0_0000n, 0n])).toMatchObject({ requester: -1, pasid: -1, access: 'unknown' });
  expect(decodeFault([0x9ffn, 0n, 0n, 0n]).name).toBe('cause 2559');
});

test('no two fields share a bit', () => {
  const layouts: Record<string, unknown> = { ...registers, ...structures, IOTINVAL, IOFENCE, IODIR, ATS, FAULT_RECORD };
  let checked = 0;
  for (const [name, layout] of Object.entries(layouts)) {
    const isLayout =
      typeof layout === 'object' && Object.values(layout as object).every((f) => typeof f?.msb === 'number');
    if (!isLayout || name === 'ATS') continue;
    checked++;
    expect(overlaps(layout as Layout), name).toEqual([]);
    for (const field of Object.values(layout as Layout)) expect(maskOf(field)).toBeGreaterThan(0n);
  }
  expect(checked).toBeGreaterThan(25);
});
