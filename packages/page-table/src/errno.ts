/** The negative errno numbers that the engine returns; Linux's values. */
export const ENXIO = -6;
export const ENOMEM = -12;
export const EEXIST = -17;
export const EINVAL = -22;
export const ERANGE = -34;
export const EADDRINUSE = -98;
/** Inside the engine only: no entry, or a leaf in the way, where an unmap looks. */
export const ENOENT = -2;
