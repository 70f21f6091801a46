/** Descriptors in emulated memory make no garbage, as those of the host. */
import { BuddySource, IommuPages, IommuPagesList, PhysicalMemory } from '@iommu-ts/iommu-pages';
import { describe, expect, test } from 'vitest';
import { bytesPerCall } from '../src/suite/garbage.ts';

/** A heap number a call would be 12 bytes or more. */
const NEXT_TO_NOTHING = 4;
const LIST = 100;

describe.each(['host', 'overlay', 'memdesc'] as const)('%s', (layout) => {
  const memory = new PhysicalMemory([
    { base: 0n, size: 1n << 24n, kind: 'flat' },
    { base: 1n << 32n, size: 1n << 24n, node: 1, kind: 'flat' },
  ]);
  // Not what is measured here.
  memory.zeroPages = () => {};
  const pages = new IommuPages(memory, new BuddySource(memory), { layout });
  // Some live blocks, so that more than one page of descriptors is in use.
  for (let i = 0; i < 1000; i++) pages.allocPagesNodeSz(i & 1, 4096);

  test('allocate and free, on two nodes', () => {
    const bytes = bytesPerCall((n) => {
      for (let i = 0; i < n; i++) pages.freePages(pages.allocPagesNodeSz(i & 1, 4096 << (i & 2)));
    });
    expect(bytes).toBeLessThan(NEXT_TO_NOTHING);
  });

  test('lists', () => {
    const list = new IommuPagesList();
    const other = new IommuPagesList();
    const bytes = bytesPerCall((n) => {
      for (let i = 0; i < n; i += 2 * LIST) {
        list.init();
        other.init();
        for (let k = 0; k < LIST; k++) {
          pages.listAdd(list, pages.allocPagesNodeSz(k & 1, 4096));
          pages.listAdd(other, pages.allocPagesNodeSz(0, 8192));
        }
        pages.listSplice(list, other);
        pages.putPagesList(other);
      }
    });
    expect(bytes).toBeLessThan(NEXT_TO_NOTHING);
    expect(pages.nrIommuPages()).toBe(1000);
  });
});
