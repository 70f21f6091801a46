/**
 * What an invalidation command is defined to drop (IHI 0070, 4.3, 4.4), as plain numbers: for devices that drop exactly
 * that, and for those who are told of it. The fast scopes of the command queue do not come by here.
 */
import { hex } from '@iommu-ts/bits';
import { LAYER } from '@iommu-ts/iommu-core';
import type { InvalidationEvent, Iotlb } from '@iommu-ts/iommu-core';
import { CMD, decodeCommand } from '../commands.ts';
import type { Capabilities } from './capabilities.ts';
import { WORLD } from './tags.ts';
import type { TagTable } from './tags.ts';

/*
 * Word that an IOTLB entry is stored with:
 *   0      global (nG = 0)
 *   1      stage 2 says Device memory
 *   15:8   log2 of the size of the leaf that the entry is (a part of): that of stage 1, where there is one
 *   17:16  level of that leaf, as the architecture counts
 */
export const GLOBAL = 1;
export const DEVICE = 2;
/** Word for an entry of a leaf of `2^leafLg2` bytes at `level`. */
export const extraOf = (global: boolean, device: boolean, leafLg2: number, level: number): number =>
  (global ? GLOBAL : 0) | (device ? DEVICE : 0) | (leafLg2 << 8) | (level << 16);
const leafLg2Of = (extra: number): number => (extra >>> 8) & 0xff;
const levelOf = (extra: number): number => (extra >>> 16) & 3;

const EL1 = 1 << WORLD.EL1;
const STAGE2 = 1 << WORLD.S2;
const NESTED = 1 << WORLD.NESTED;
const EL2 = 1 << WORLD.EL2;
const EL2_E2H = 1 << WORLD.EL2_E2H;

/** Everything that one command reaches. */
export interface Scope {
  readonly name: string;
  /** {@link LAYER} bits. */
  readonly layers: number;
  /** Regimes as a bit set of {@link WORLD}; 0 for CMD_CFGI_…. */
  readonly worlds: number;
  /** -1: all. */
  readonly vmid: number;
  readonly asid: number;
  /** With an ASID: global entries go as well, whatever ASID they came in under. */
  readonly globals: boolean;
  /** IOVA or IPA in 4 KiB pages, both inclusive. */
  readonly first: number;
  readonly last: number;
  /** Only leaves at this level have to go (TTL); 0: at any. */
  readonly level: number;
  /** StreamIDs, both inclusive. */
  readonly sidFirst: number;
  readonly sidLast: number;
  /** SubstreamID of CMD_CFGI_CD; -1: all of them, and the STE unless {@link cdOnly}. */
  readonly ssid: number;
  readonly cdOnly: boolean;
  /** Only the last level: STE or CD, final translation. */
  readonly leaf: boolean;
}

/** CMD_CFGI_STE … CMD_CFGI_CD_ALL. */
const isConfiguration = (opcode: number): boolean => opcode >= CMD.CFGI_STE && opcode <= CMD.CFGI_CD_ALL;

/** CMD_CFGI_… or CMD_TLBI_…. */
export const isInvalidation = (opcode: number): boolean =>
  isConfiguration(opcode) || (opcode >= CMD.TLBI_NH_ALL && opcode <= CMD.TLBI_NSNH_ALL);

const nameOf = (words: Int32Array): string => {
  const { name, fields } = decodeCommand(words);
  const told = Object.entries(fields).filter(([field, value]) => field !== 'OPCODE' && value !== 0n);
  return [name, ...told.map(([field, value]) => `${field}=${hex(value)}`)].join(' ');
};

/** Scope of a configuration command in `words`. */
const configurationScope = (words: Int32Array): Scope => {
  const opcode = words[0]! & 0xff;
  const sid = words[1]! >>> 0;
  const range = opcode === CMD.CFGI_STE_RANGE;
  const count = range ? 2 ** ((words[2]! & 0x1f) + 1) : 1;
  const sidFirst = sid - (sid % count);
  return {
    name: nameOf(words),
    layers: LAYER.CONTEXT,
    worlds: 0,
    vmid: -1,
    asid: -1,
    globals: false,
    first: 0,
    last: Infinity,
    level: 0,
    sidFirst,
    sidLast: sidFirst + count - 1,
    ssid: opcode === CMD.CFGI_CD ? words[0]! >>> 12 : -1,
    cdOnly: opcode === CMD.CFGI_CD || opcode === CMD.CFGI_CD_ALL,
    leaf: (opcode === CMD.CFGI_STE || opcode === CMD.CFGI_CD) && (words[2]! & 1) !== 0,
  };
};

/** Regimes that a CMD_TLBI_… reaches. */
const worldsOf = (opcode: number, e2h: boolean): number => {
  switch (opcode) {
    case CMD.TLBI_NH_ALL:
    case CMD.TLBI_NH_ASID:
    case CMD.TLBI_NH_VA:
    case CMD.TLBI_NH_VAA:
      // Entries combined of both stages are found by their VA, so they are stage 1's.
      return EL1 | NESTED;
    case CMD.TLBI_EL2_ALL:
      return EL2 | EL2_E2H;
    case CMD.TLBI_EL2_ASID:
      return e2h ? EL2_E2H : 0;
    case CMD.TLBI_EL2_VA:
    case CMD.TLBI_EL2_VAA:
      return e2h ? EL2_E2H : EL2;
    case CMD.TLBI_S2_IPA:
      return STAGE2;
    default:
      return EL1 | STAGE2 | NESTED;
  }
};

/**
 * Scope of the legal command in `words`.
 * @param first, last pages of its address or range; all of them for a command without
 * @param capabilities with stage 2 commands are limited to a VMID; without RIL there is no TTL
 */
export const scopeOf = (
  words: Int32Array,
  first: number,
  last: number,
  capabilities: Capabilities,
  e2h: boolean,
): Scope => {
  const opcode = words[0]! & 0xff;
  if (isConfiguration(opcode)) return configurationScope(words);
  const byAddress =
    opcode === CMD.TLBI_NH_VA ||
    opcode === CMD.TLBI_NH_VAA ||
    opcode === CMD.TLBI_EL2_VA ||
    opcode === CMD.TLBI_EL2_VAA ||
    opcode === CMD.TLBI_S2_IPA;
  const byAsid =
    opcode === CMD.TLBI_NH_VA ||
    opcode === CMD.TLBI_NH_ASID ||
    opcode === CMD.TLBI_EL2_ASID ||
    (opcode === CMD.TLBI_EL2_VA && e2h);
  const el2 = opcode >= CMD.TLBI_EL2_ALL && opcode <= CMD.TLBI_EL2_VAA;
  const leaf = byAddress && (words[2]! & 1) !== 0;
  return {
    name: nameOf(words),
    layers: leaf ? LAYER.LEAF : LAYER.LEAF | LAYER.TABLE,
    worlds: worldsOf(opcode, e2h),
    vmid: el2 || opcode === CMD.TLBI_NSNH_ALL ? -1 : capabilities.s2 ? words[1]! & 0xffff : 0,
    asid: byAsid ? words[1]! >>> 16 : -1,
    globals: byAddress,
    first: byAddress ? first : 0,
    last: byAddress ? last : Infinity,
    level: byAddress && capabilities.ril ? hintOf(words) : 0,
    sidFirst: 0,
    sidLast: -1,
    ssid: -1,
    cdOnly: false,
    leaf,
  };
};

/** TTL of a command with TG; what it can't be (level 1 with 16 KiB granules) is no hint (4.4.1.1). */
const hintOf = (words: Int32Array): number => {
  const tg = (words[2]! >>> 10) & 3;
  const ttl = (words[2]! >>> 8) & 3;
  return tg === 0 || (tg === 2 && ttl === 1) ? 0 : ttl;
};

/** Does an entry under `tag` belong to what `scope` reaches? `extra`: word of a leaf, 0 for a table. */
const reaches = (scope: Scope, tags: TagTable, tag: number, extra: number): boolean => {
  if (((scope.worlds >>> tags.worldOf(tag)) & 1) === 0) return false;
  if (scope.vmid >= 0 && tags.vmidOf(tag) !== scope.vmid) return false;
  if (scope.asid < 0) return true;
  return (extra & GLOBAL) !== 0 ? scope.globals : tags.asidOf(tag) === scope.asid;
};

/** Tables of a tag that `scope` reaches. */
export const reachesTables =
  (scope: Scope, tags: TagTable) =>
  (tag: number): boolean =>
    reaches(scope, tags, tag, 0);

/**
 * Drops the final translations that `scope` reaches, and no other: with a leaf go all entries that are parts of it, wherever
 * in it the address lies; leaves of another level than the hint stay.
 */
export const dropLeaves = (iotlb: Iotlb, tags: TagTable, scope: Scope): void => {
  const sizes = new Set<number>();
  iotlb.invalidateWhere((_, extra) => {
    sizes.add(leafLg2Of(extra));
    return false;
  });
  for (const sizeLg2 of sizes) {
    const pages = 2 ** (sizeLg2 - 12);
    const first = Math.floor(scope.first / pages) * pages;
    const last = Math.floor(scope.last / pages) * pages + pages - 1;
    iotlb.invalidateWhere(
      (tag, extra) =>
        leafLg2Of(extra) === sizeLg2 &&
        (scope.level === 0 || levelOf(extra) === scope.level) &&
        reaches(scope, tags, tag, extra),
      first,
      last,
    );
  }
};

/** Most streams of a range that are told one by one. */
const MOST_STREAMS = 256;

/** Tells of `scope`, which has taken effect. */
export const tell = (scope: Scope, listener: (event: InvalidationEvent) => void): void => {
  const stage2 = scope.worlds !== 0 && (scope.worlds & STAGE2) !== 0;
  const event = (requester: number): InvalidationEvent => ({
    name: scope.name,
    layers: scope.layers,
    // Paging domains are numbered by their ASID, or with stage 2 by their VMID.
    domain: stage2 ? scope.vmid : scope.asid,
    requester,
    startPfn: scope.first,
    lastPfn: scope.last,
  });
  if (scope.worlds !== 0 || scope.sidLast - scope.sidFirst >= MOST_STREAMS) listener(event(-1));
  else for (let sid = scope.sidFirst; sid <= scope.sidLast; sid++) listener(event(sid));
};
