/** Bit positions and offsets, typed again from the specification (48882), not imported. */
import { overlaps } from '@iommu-ts/bits';
import type { Layout } from '@iommu-ts/bits';
import { describe, expect, test } from 'vitest';
import * as amd from '../src/index.ts';

const positions = (layout: Layout): Record<string, [number, number]> =>
  Object.fromEntries(Object.entries(layout).map(([name, { msb, lsb }]) => [name, [msb, lsb]]));

describe('registers (3.4)', () => {
  test('offsets', () => {
    const offsets = Object.fromEntries(Object.entries(amd.REGISTERS).map(([name, r]) => [name, [r.offset, r.width]]));
    expect(offsets).toEqual({
      DevTabBaseAddr: [0x0, 8],
      ComBaseAddr: [0x8, 8],
      EventBaseAddr: [0x10, 8],
      Control: [0x18, 8],
      ExclusionBase: [0x20, 8],
      ExclusionLimit: [0x28, 8],
      ExtFeature: [0x30, 8],
      PprBaseAddr: [0x38, 8],
      DevTabSegBaseAddr: [0x100, 8],
      MsiCapHeader: [0x158, 4],
      MsiAddrLo: [0x15c, 4],
      MsiAddrHi: [0x160, 4],
      MsiData: [0x164, 4],
      ExtFeature2: [0x1a0, 8],
      CmdBufHead: [0x2000, 8],
      CmdBufTail: [0x2008, 8],
      EvtLogHead: [0x2010, 8],
      EvtLogTail: [0x2018, 8],
      Status: [0x2020, 8],
      PprLogHead: [0x2030, 8],
      PprLogTail: [0x2038, 8],
    });
  });

  test('fields', () => {
    expect(positions(amd.DevTabBaseAddr)).toEqual({ DevTabBase: [51, 12], Size: [8, 0] });
    expect(positions(amd.DevTabSegBaseAddr)).toEqual({ DevTabSegBase: [51, 12], Size: [7, 0] });
    expect(positions(amd.ComBaseAddr)).toEqual({ ComLen: [59, 56], ComBase: [51, 12] });
    expect(positions(amd.EventBaseAddr)).toEqual({ EventLen: [59, 56], EventBase: [51, 12] });
    expect(positions(amd.ExclusionBase)).toEqual({ ExclusionBase: [51, 12], Allow: [1, 1], ExEn: [0, 0] });
    expect(positions(amd.ExclusionLimit)).toEqual({ ExclusionLimit: [51, 12] });
    expect(positions(amd.QueuePointer)).toEqual({ Ptr: [18, 4] });
    expect(positions(amd.Control)).toEqual({
      DevTblSegEn: [36, 34],
      GAIntEn: [29, 29],
      GALogEn: [28, 28],
      GAEn: [17, 17],
      GTEn: [16, 16],
      PPREn: [15, 15],
      PprIntEn: [14, 14],
      PprLogEn: [13, 13],
      CmdBufEn: [12, 12],
      Isoc: [11, 11],
      Coherent: [10, 10],
      ResPassPW: [9, 9],
      PassPW: [8, 8],
      InvTimeOut: [7, 5],
      ComWaitIntEn: [4, 4],
      EventIntEn: [3, 3],
      EventLogEn: [2, 2],
      HtTunEn: [1, 1],
      IommuEn: [0, 0],
    });
    expect(positions(amd.Status)).toEqual({
      GAInt: [10, 10],
      GALOverflow: [9, 9],
      GALogRun: [8, 8],
      PprLogRun: [7, 7],
      PprInt: [6, 6],
      PprOverflow: [5, 5],
      CmdBufRun: [4, 4],
      EventLogRun: [3, 3],
      ComWaitInt: [2, 2],
      EventLogInt: [1, 1],
      EventOverflow: [0, 0],
    });
    expect(positions(amd.ExtFeature)).toMatchObject({
      MsiCapMmioSup: [46, 46],
      DevTblSegSup: [39, 38],
      PASmax: [36, 32],
      GAMSup: [23, 21],
      SmiFSup: [17, 16],
      GLXSup: [15, 14],
      GATS: [13, 12],
      HATS: [11, 10],
      PCSup: [9, 9],
      HESup: [8, 8],
      GASup: [7, 7],
      IASup: [6, 6],
      GTSup: [4, 4],
      NXSup: [3, 3],
      XTSup: [2, 2],
      PPRSup: [1, 1],
      PreFSup: [0, 0],
    });
    expect(positions(amd.MsiCapHeader)).toMatchObject({ Msi64En: [23, 23], MsiEn: [16, 16], MsiCapID: [7, 0] });
  });
});

describe('structures (2.2)', () => {
  test('device table entry', () => {
    expect(amd.DTE_BYTES).toBe(32);
    expect(positions(amd.DTE)).toEqual({
      SnoopAttribute: [255, 248],
      Mode0FC: [247, 247],
      AttrV: [246, 246],
      Lint1Pass: [191, 191],
      Lint0Pass: [190, 190],
      IntCtl: [189, 188],
      NMIPass: [186, 186],
      EIntPass: [185, 185],
      INITPass: [184, 184],
      IntTabRoot: [179, 134],
      IG: [133, 133],
      IntTabLen: [132, 129],
      IV: [128, 128],
      GCR3TRPHi: [127, 107],
      SysMgt: [105, 104],
      EX: [103, 103],
      SD: [102, 102],
      Cache: [101, 101],
      IoCtl: [100, 99],
      SA: [98, 98],
      SE: [97, 97],
      I: [96, 96],
      GCR3TRPMid: [95, 80],
      DomainID: [79, 64],
      IW: [62, 62],
      IR: [61, 61],
      GCR3TRPLo: [60, 58],
      GLX: [57, 56],
      GV: [55, 55],
      GIoV: [54, 54],
      GPRP: [53, 53],
      PPR: [52, 52],
      HostPageTableRootPtr: [51, 12],
      Mode: [11, 9],
      HAD: [8, 7],
      TV: [1, 1],
      V: [0, 0],
    });
  });

  test('page table entries', () => {
    expect(positions(amd.PTE)).toEqual({
      IW: [62, 62],
      IR: [61, 61],
      FC: [60, 60],
      U: [59, 59],
      Reserved: [58, 52],
      PageAddress: [51, 12],
      NextLevel: [11, 9],
      D: [6, 6],
      A: [5, 5],
      PR: [0, 0],
    });
    expect(positions(amd.PDE)).toEqual({
      IW: [62, 62],
      IR: [61, 61],
      Reserved: [60, 52],
      NextTableAddress: [51, 12],
      NextLevel: [11, 9],
      A: [5, 5],
      PR: [0, 0],
    });
    expect([0, 1, 2, 3, 4, 5, 6].map(amd.widthOfMode)).toEqual([64, 21, 30, 39, 48, 57, 64]);
  });
});

describe('commands (2.4)', () => {
  test('opcodes', () => {
    expect(amd.COMMAND).toEqual({
      COMPLETION_WAIT: 1,
      INVALIDATE_DEVTAB_ENTRY: 2,
      INVALIDATE_IOMMU_PAGES: 3,
      INVALIDATE_IOTLB_PAGES: 4,
      INVALIDATE_INTERRUPT_TABLE: 5,
      PREFETCH_IOMMU_PAGES: 6,
      COMPLETE_PPR_REQUEST: 7,
      INVALIDATE_IOMMU_ALL: 8,
    });
  });

  test('fields', () => {
    const Opcode = [63, 60];
    expect(positions(amd.COMMANDS.COMPLETION_WAIT)).toEqual({
      StoreData: [127, 64],
      Opcode,
      StoreAddress: [51, 3],
      F: [2, 2],
      I: [1, 1],
      S: [0, 0],
    });
    expect(positions(amd.COMMANDS.INVALIDATE_DEVTAB_ENTRY)).toEqual({ Opcode, DeviceID: [15, 0] });
    expect(positions(amd.COMMANDS.INVALIDATE_IOMMU_PAGES)).toEqual({
      Address: [127, 76],
      GN: [66, 66],
      PDE: [65, 65],
      S: [64, 64],
      Opcode,
      DomainID: [47, 32],
      PASID: [19, 0],
    });
    expect(positions(amd.COMMANDS.INVALIDATE_IOTLB_PAGES)).toEqual({
      Address: [127, 76],
      Type: [69, 68],
      GN: [66, 66],
      S: [64, 64],
      Opcode,
      PASIDHi: [59, 48],
      QueueID: [47, 32],
      Maxpend: [31, 24],
      PASIDLo: [23, 16],
      DeviceID: [15, 0],
    });
    expect(positions(amd.COMMANDS.INVALIDATE_INTERRUPT_TABLE)).toEqual({ Opcode, DeviceID: [15, 0] });
    expect(positions(amd.COMMANDS.COMPLETE_PPR_REQUEST)).toEqual({
      CompletionTag: [111, 96],
      GN: [66, 66],
      Opcode,
      PASID: [51, 32],
      DeviceID: [15, 0],
    });
    expect(positions(amd.COMMANDS.INVALIDATE_IOMMU_ALL)).toEqual({ Opcode });
  });
});

describe('events (2.5)', () => {
  test('codes', () => {
    expect(amd.EVENT).toEqual({
      ILLEGAL_DEV_TABLE_ENTRY: 1,
      IO_PAGE_FAULT: 2,
      DEV_TAB_HARDWARE_ERROR: 3,
      PAGE_TAB_HARDWARE_ERROR: 4,
      ILLEGAL_COMMAND_ERROR: 5,
      COMMAND_HARDWARE_ERROR: 6,
      IOTLB_INV_TIMEOUT: 7,
      INVALID_DEVICE_REQUEST: 8,
      INVALID_PPR_REQUEST: 9,
    });
  });

  test('flags', () => {
    expect(positions(amd.EVENTS.IO_PAGE_FAULT)).toEqual({
      Address: [127, 64],
      EventCode: [63, 60],
      TR: [56, 56],
      RZ: [55, 55],
      PE: [54, 54],
      RW: [53, 53],
      PR: [52, 52],
      I: [51, 51],
      US: [50, 50],
      NX: [49, 49],
      GN: [48, 48],
      DomainID: [47, 32],
      PASIDHi: [19, 16],
      DeviceID: [15, 0],
    });
    expect(positions(amd.EVENTS.ILLEGAL_DEV_TABLE_ENTRY)).toMatchObject({ TR: [56, 56], RZ: [55, 55], RW: [53, 53] });
    expect(positions(amd.EVENTS.DEV_TAB_HARDWARE_ERROR)).toMatchObject({ Type: [58, 57], Address: [127, 68] });
    expect(positions(amd.EVENTS.PAGE_TAB_HARDWARE_ERROR)).toMatchObject({ Type: [58, 57], Address: [127, 67] });
    expect(positions(amd.EVENTS.INVALID_DEVICE_REQUEST)).toMatchObject({ Type: [59, 57], DeviceID: [15, 0] });
  });

  test('decoded', () => {
    // As Linux's driver met it in the recording: a write by device 0x18 of domain 3.
    expect(amd.decodeEvent(0x2020_0003_0000_0018n, 0xdead_0000n)).toMatchObject({
      name: 'IO_PAGE_FAULT',
      code: 2,
      requester: 0x18,
      pasid: -1,
      iova: 0xdead_0000n,
      access: 'write',
      fields: { DomainID: 3n, RW: 1n, PR: 0n },
      text: 'IO_PAGE_FAULT: write address 0xdead0000 by device 0x18, not present or outside the table',
    });
    expect(amd.decodeEvent(0x5000_0000_0000_0000n, 0x4001070n)).toMatchObject({
      name: 'ILLEGAL_COMMAND_ERROR',
      requester: -1,
      iova: 0n,
      access: 'unknown',
      text: 'ILLEGAL_COMMAND_ERROR: physical address 0x4001070',
    });
    expect(amd.decodeEvent(0x2001_1234_000a_0018n, 0n).pasid).toBe(0xa1234);
    expect(amd.decodeEvent(0xf000_0000_0000_0000n, 0n).name).toBe('EVENT_0xf');
  });
});

test('no two fields of a layout share a bit', () => {
  const layouts: [string, Layout][] = [
    ...Object.entries(amd.REGISTERS).flatMap(([name, r]): [string, Layout][] =>
      'layout' in r ? [[name, r.layout]] : [],
    ),
    ...Object.entries(amd.COMMANDS),
    ...Object.entries(amd.EVENTS),
    ['DTE', amd.DTE],
    ['PTE', amd.PTE],
    ['PDE', amd.PDE],
  ];
  for (const [name, layout] of layouts) expect(overlaps(layout), name).toEqual([]);
});
