/** Tags of IOTLB entries: one for each regime, VMID and ASID, found again, also when the table has grown. */
import { expect, test } from 'vitest';
import { TagTable, WORLD } from '../src/hardware/tags.ts';

test('every combination has a tag of its own', () => {
  const tags = new TagTable();
  const seen = new Map<number, string>();
  const all: [number, number, number][] = [];
  for (const world of Object.values(WORLD)) {
    for (const vmid of [0, 1, 2, 7, 255, 256, 0x7fff, 0x8000, 0xffff]) {
      for (const asid of [0, 1, 2, 255, 256, 0x8000, 0xffff]) all.push([world, vmid, asid]);
    }
  }
  for (const [world, vmid, asid] of all) {
    expect(tags.find(world, vmid, asid)).toBe(-1);
    const tag = tags.intern(world, vmid, asid);
    expect(seen.has(tag), `tag ${tag} twice`).toBe(false);
    seen.set(tag, `${world}/${vmid}/${asid}`);
  }
  for (const [world, vmid, asid] of all) {
    const tag = tags.find(world, vmid, asid);
    expect(seen.get(tag)).toBe(`${world}/${vmid}/${asid}`);
    expect(tags.intern(world, vmid, asid)).toBe(tag);
    expect([tags.worldOf(tag), tags.vmidOf(tag), tags.asidOf(tag)]).toEqual([world, vmid, asid]);
  }
});
