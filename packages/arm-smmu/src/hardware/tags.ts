/**
 * What IOTLB entries are tagged with (IHI 0070, 3.17): translation regime, VMID and ASID, interned as one small integer.
 *
 * Together they have 35 bits: as a number that would be a heap number each time it is handed to a function that is not
 * inlined. A small integer never is. Tags are made when a configuration is decoded and only looked up by commands.
 */

/** Translation regimes. */
export const WORLD = { EL1: 0, S2: 1, NESTED: 2, EL2: 3, EL2_E2H: 4 } as const;

const NONE = -1;

export class TagTable {
  /** By tag. */
  #worlds = new Uint8Array(64);
  #ids = new Int32Array(64);
  #count = 0;
  /** Open addressing: tag, or NONE. */
  #slots = new Int32Array(128).fill(NONE);

  /** Tags made so far: 0 … size - 1. */
  get size(): number {
    return this.#count;
  }
  worldOf(tag: number): number {
    return this.#worlds[tag]!;
  }
  vmidOf(tag: number): number {
    return this.#ids[tag]! >>> 16;
  }
  asidOf(tag: number): number {
    return this.#ids[tag]! & 0xffff;
  }

  /** The tag, or -1 when nothing was ever cached under it. */
  find(world: number, vmid: number, asid: number): number {
    return this.#slots[this.#slot(world, (vmid << 16) | asid)]!;
  }

  /** The tag; made when it is new. */
  intern(world: number, vmid: number, asid: number): number {
    const ids = (vmid << 16) | asid;
    const slot = this.#slot(world, ids);
    if (this.#slots[slot] !== NONE) return this.#slots[slot]!;
    const tag = this.#count++;
    if (tag === this.#ids.length) this.#grow();
    this.#worlds[tag] = world;
    this.#ids[tag] = ids;
    this.#slots[this.#slot(world, ids)] = tag;
    return tag;
  }

  #slot(world: number, ids: number): number {
    const mask = this.#slots.length - 1;
    const h = Math.imul(ids ^ (world << 13), 0x9e37_79b1);
    let at = (h ^ (h >>> 15)) & mask;
    for (;;) {
      const tag = this.#slots[at]!;
      if (tag === NONE || (this.#ids[tag] === ids && this.#worlds[tag] === world)) return at;
      at = (at + 1) & mask;
    }
  }

  /** Twice the room; slots are at most half full. */
  #grow(): void {
    const [worlds, ids] = [this.#worlds, this.#ids];
    this.#worlds = new Uint8Array(worlds.length * 2);
    this.#ids = new Int32Array(ids.length * 2);
    this.#worlds.set(worlds);
    this.#ids.set(ids);
    this.#slots = new Int32Array(this.#slots.length * 2).fill(NONE);
    for (let tag = 0; tag < ids.length; tag++) this.#slots[this.#slot(worlds[tag]!, ids[tag]!)] = tag;
  }
}
