/**
 * The list element of a descriptor in emulated memory: a `struct list_head` of two addresses of descriptors.
 * The list itself (Linux: `struct iommu_pages_list`) is a variable of the driver, which has no emulated address: the first
 * and the last point at {@link ANCHOR} in its place. Both words zero: on no list.
 */

/** Stands for the address of the list's own head: no descriptor lies there, and bit 0 is clear as in every link. */
const ANCHOR_LO = -2;
const ANCHOR_HI = -1;

/** Takes note that the element at `view[at]` is alone on a list. */
export const linkAlone = (view: Int32Array, at: number): void => {
  view[at] = ANCHOR_LO;
  view[at + 1] = ANCHOR_HI;
  view[at + 2] = ANCHOR_LO;
  view[at + 3] = ANCHOR_HI;
};

/** Takes note that the element is on no list. */
export const unlink = (view: Int32Array, at: number): void => {
  view[at] = 0;
  view[at + 1] = 0;
  view[at + 2] = 0;
  view[at + 3] = 0;
};

/** Ends the list at this element. */
export const linkLast = (view: Int32Array, at: number): void => {
  view[at] = ANCHOR_LO;
  view[at + 1] = ANCHOR_HI;
};

/** True when the element is on a list. */
export const isLinked = (view: Int32Array, at: number): boolean => (view[at]! | view[at + 1]!) !== 0;

/** True when the element is the last of its list. */
export const isLast = (view: Int32Array, at: number): boolean => view[at] === ANCHOR_LO && view[at + 1] === ANCHOR_HI;
