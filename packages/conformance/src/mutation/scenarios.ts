/**
 * What drivers do all day. A scenario makes no assertion of its own: the checks look on. Runs of pages have PA and IOVA one
 * granule apart, so that they stay small pages in formats that would merge them.
 */
import type { PagingDomain } from '@iommu-ts/iommu-core';
import { DEVICE, OTHER, RO, RW } from '../suite/driver/rig.ts';
import type { MutationRig } from './rig.ts';
import type { Scenario } from './types.ts';

/** Virtual time enough for any flush queue. */
const LONG = 2_000_000_000;
const RUN = 8;
const FAR = 0x2000_0000n;

const iovas = (rig: MutationRig, count = RUN): bigint[] => Array.from({ length: count }, (_, i) => rig.iova(i));

/** IOVA, PA and size of a run of small pages that fills two tables. */
const tablesFull = (rig: MutationRig): { iova: bigint; pa: bigint; size: bigint; ends: bigint[] } => {
  const block = rig.pageSizes.find((s) => s >= 512n * rig.granule) ?? 2048n * rig.granule;
  // Beyond the window of the short runs.
  const iova = rig.window(FAR + 4n * block, block)! + FAR;
  const size = 2n * block;
  return { iova, pa: rig.ramFor(4n * block)! + rig.granule, size, ends: [iova, iova + block, iova + size - 16n] };
};

/** `free` runs when a domain is done; its id may come back at once. */
const drop = (rig: MutationRig, domain: PagingDomain, ...requesters: number[]): void => {
  for (const requester of requesters) rig.driver.detach(requester);
  domain.free();
};

export const remap: Scenario = {
  name: 'remap',
  doc: 'pages are mapped, used, unmapped together and one by one, mapped elsewhere with less permission, used again',
  run: (rig) => {
    const domain = rig.attached(DEVICE);
    const all = iovas(rig);
    const size = BigInt(RUN) * rig.granule;
    domain.map(rig.iova(0), rig.pa(1), size, RW);
    // The fault handler comes by: it reads registers, and a device may have waited for that.
    rig.driver.handleFaults();
    rig.dma(DEVICE, ...all);
    rig.giveBack(domain, rig.iova(0), size, rig.pa(1));
    rig.dma(DEVICE, ...all);
    domain.map(rig.iova(0), rig.pa(41), size, RO);
    rig.dma(DEVICE, ...all);
    rig.giveBack(domain, rig.iova(2), rig.granule, rig.pa(43));
    rig.dma(DEVICE, ...all);
    rig.giveBack(domain, rig.iova(0), 2n * rig.granule, rig.pa(41));
    domain.map(rig.iova(2), rig.pa(90), rig.granule, RW);
    rig.dma(DEVICE, ...all);
    rig.tearDown();
  },
};

export const tables: Scenario = {
  name: 'tables',
  doc: 'ranges that fill tables are mapped, used, unmapped whole (the tables go) and mapped anew elsewhere',
  run: (rig) => {
    const domain = rig.attached(DEVICE);
    const { iova, pa, size, ends } = tablesFull(rig);
    for (let round = 0n; round < 2n; round++) {
      domain.map(iova, pa + round * 4n * rig.granule, size, RW);
      rig.dma(DEVICE, ...ends);
      domain.unmap(iova, size);
      // Also where nobody has been: only what is cached of the tables could lead on.
      rig.dma(DEVICE, ...ends, iova + 5n * rig.granule, iova + size / 2n + 5n * rig.granule);
    }
    // One table goes, the next stays.
    domain.map(iova, pa, size, RW);
    rig.dma(DEVICE, ...ends);
    domain.unmap(iova, size / 2n);
    rig.dma(DEVICE, ...ends);
    domain.unmap(iova + size / 2n, size / 2n);
    rig.tearDown();
  },
};

export const block: Scenario = {
  name: 'block',
  doc: 'a large page takes the place of small ones that were unmapped one by one: the emptied table goes during the map',
  needs: (rig) => rig.bigPage !== null,
  run: (rig) => {
    const domain = rig.attached(DEVICE);
    const big = rig.pageSizes.find((s) => s >= 512n * rig.granule) ?? rig.bigPage!;
    const iova = rig.window(4n * big, 4n * big)! + big;
    const pa = rig.ramFor(4n * big)! + big;
    for (const at of [0n, rig.granule]) domain.map(iova + at, pa + big + at + rig.granule, rig.granule, RW);
    rig.dma(DEVICE, iova, iova + rig.granule);
    for (const at of [0n, rig.granule]) domain.unmap(iova + at, rig.granule);
    rig.dma(DEVICE, iova, iova + rig.granule);
    domain.map(iova, pa, big, RW);
    rig.dma(DEVICE, iova, iova + big - 16n);
    domain.unmap(iova, big);
    rig.dma(DEVICE, iova, iova + big - 16n);
    rig.tearDown();
  },
};

export const move: Scenario = {
  name: 'move',
  doc: 'a device moves between two domains that map the same IOVA to different memory, to none, and back',
  run: (rig) => {
    const a = rig.attached(DEVICE);
    const b = rig.driver.createDomain();
    a.map(rig.iova(0), rig.pa(1), rig.granule, RW);
    b.map(rig.iova(0), rig.pa(5), rig.granule, RW);
    rig.dma(DEVICE, rig.iova(0));
    rig.driver.attach(DEVICE, b);
    rig.dma(DEVICE, rig.iova(0));
    rig.driver.attach(DEVICE, rig.driver.blockedDomain);
    rig.dma(DEVICE, rig.iova(0));
    rig.driver.attach(DEVICE, a);
    rig.dma(DEVICE, rig.iova(0));
    rig.driver.attach(OTHER, b);
    rig.dma(OTHER, rig.iova(0));
    rig.driver.attach(OTHER, a);
    rig.dma(OTHER, rig.iova(0));
    rig.tearDown();
  },
};

export const detach: Scenario = {
  name: 'detach',
  doc: 'a device is taken out and goes on with its DMA while the domain is freed and the next one takes its id',
  run: (rig) => {
    const first = rig.attached(DEVICE);
    first.map(rig.iova(0), rig.pa(1), rig.granule, RW);
    rig.dma(DEVICE, rig.iova(0));
    rig.driver.detach(DEVICE);
    rig.dma(DEVICE, rig.iova(0));
    first.free();
    rig.dma(DEVICE, rig.iova(0), rig.iova(1));
    const second = rig.attached(OTHER);
    rig.dma(OTHER, rig.iova(0));
    second.map(rig.iova(0), rig.pa(9), rig.granule, RW);
    rig.dma(OTHER, rig.iova(0));
    rig.tearDown();
  },
};

export const reattach: Scenario = {
  name: 'reattach',
  doc: 'mappings change while no device is attached; then one comes back',
  run: (rig) => {
    const domain = rig.attached(DEVICE);
    const { iova, pa, size, ends } = tablesFull(rig);
    domain.map(iova, pa, size, RW);
    rig.dma(DEVICE, ...ends);
    rig.driver.detach(DEVICE);
    domain.unmap(iova, size);
    domain.map(iova, pa + 8n * rig.granule, size, RW);
    rig.driver.attach(DEVICE, domain);
    rig.dma(DEVICE, ...ends);
    rig.driver.attach(OTHER, domain);
    rig.dma(OTHER, ...ends);
    domain.unmap(iova, size);
    rig.dma(OTHER, ...ends);
    rig.dma(DEVICE, ...ends);
    rig.tearDown();
  },
};

export const neighbours: Scenario = {
  name: 'neighbours',
  doc: 'two devices in two domains work at the same time, with the same IOVAs; one unmaps, the other goes on',
  run: (rig) => {
    const a = rig.attached(DEVICE);
    const b = rig.attached(OTHER);
    const size = BigInt(RUN) * rig.granule;
    a.map(rig.iova(0), rig.pa(1), size, RW);
    b.map(rig.iova(0), rig.pa(101), size, RW);
    for (const requester of [DEVICE, OTHER]) rig.dma(requester, ...iovas(rig));
    rig.giveBack(a, rig.iova(1), rig.granule, rig.pa(2));
    for (const requester of [DEVICE, OTHER]) rig.dma(requester, ...iovas(rig));
    rig.giveBack(b, rig.iova(4), 2n * rig.granule, rig.pa(105));
    for (const requester of [DEVICE, OTHER]) rig.dma(requester, ...iovas(rig));
    drop(rig, a, DEVICE);
    rig.dma(OTHER, ...iovas(rig));
    rig.tearDown();
  },
};

export const lazy: Scenario = {
  name: 'lazy',
  doc: 'lazy mode: unmaps wait in the flush queue; an IOVA is used again as soon as it is released',
  run: (rig) => {
    const domain = rig.driver.createDomain({ mode: 'lazy' });
    rig.driver.attach(DEVICE, domain);
    const { iova, pa, size, ends } = tablesFull(rig);
    domain.map(iova, pa, size, RW);
    domain.map(rig.iova(0), rig.pa(1), 2n * rig.granule, RW);
    rig.dma(DEVICE, ...ends, ...iovas(rig, 2));
    // The owner of the IOVA takes it again when it is told that it may.
    domain.unmap(rig.iova(0), rig.granule, () => domain.map(rig.iova(0), rig.pa(77), rig.granule, RW));
    rig.dma(DEVICE, ...iovas(rig, 2));
    domain.unmap(iova, size);
    rig.system.clock.advance(LONG);
    rig.dma(DEVICE, ...ends, ...iovas(rig, 2));
    domain.map(iova, pa + 8n * rig.granule, size, RW);
    rig.dma(DEVICE, ...ends);
    domain.unmap(iova, size);
    domain.flush();
    rig.dma(DEVICE, ...ends);
    rig.tearDown();
  },
};

export const grow: Scenario = {
  name: 'grow',
  doc: 'mappings ever higher up, to the end of the aperture, while a low one is in use',
  run: (rig) => {
    const domain = rig.attached(DEVICE, OTHER);
    domain.map(rig.iova(0), rig.pa(1), rig.granule, RW);
    rig.dma(DEVICE, rig.iova(0));
    const { apertureLast } = rig.info;
    const high: bigint[] = [];
    for (let lg2 = 33n; ; lg2 += 5n) {
      const last = (1n << lg2) - 1n < apertureLast ? (1n << lg2) - 1n : apertureLast;
      high.push(last + 1n - rig.granule);
      domain.map(high.at(-1)!, rig.pa(10 + high.length), rig.granule, RW);
      rig.dma(DEVICE, rig.iova(0), ...high);
      rig.dma(OTHER, ...high);
      if (last === apertureLast) break;
    }
    for (const iova of high) domain.unmap(iova, rig.granule);
    rig.dma(DEVICE, rig.iova(0), ...high);
    rig.tearDown();
  },
};

export const firstTouch: Scenario = {
  name: 'first touch',
  doc: 'a device asks for addresses before they are mapped, and again after',
  run: (rig) => {
    const domain = rig.attached(DEVICE);
    rig.dma(DEVICE, ...iovas(rig));
    domain.map(rig.iova(0), rig.pa(1), BigInt(RUN) * rig.granule, RW);
    rig.dma(DEVICE, ...iovas(rig));
    const far = rig.info.requesters - 1;
    rig.dma(far, rig.iova(0));
    rig.driver.attach(far, domain);
    rig.dma(far, ...iovas(rig));
    rig.tearDown();
  },
};

export const shared: Scenario = {
  name: 'shared',
  doc: 'two devices use one domain; pages are unmapped under both, one device leaves, the other goes on',
  run: (rig) => {
    const domain = rig.attached(DEVICE, OTHER);
    const size = BigInt(RUN) * rig.granule;
    domain.map(rig.iova(0), rig.pa(1), size, RW);
    for (const requester of [DEVICE, OTHER]) rig.dma(requester, ...iovas(rig));
    rig.giveBack(domain, rig.iova(1), 2n * rig.granule, rig.pa(2));
    for (const requester of [DEVICE, OTHER]) rig.dma(requester, ...iovas(rig));
    rig.driver.detach(DEVICE);
    rig.giveBack(domain, rig.iova(4), rig.granule, rig.pa(5));
    for (const requester of [DEVICE, OTHER]) rig.dma(requester, ...iovas(rig));
    rig.tearDown();
  },
};
