/**
 * ELF64 core files, as far as dumps of physical memory need them: every PT_LOAD segment's bytes and physical address.
 * System V ABI, chapter 4 (ELF header) and 5 (program header); little-endian only.
 */
import { hex } from '@iommu-ts/bits';
import { formatError } from './json-lines.ts';

const PT_LOAD = 1;
const EHDR_BYTES = 64;
const PHDR_BYTES = 56;

/** Calls `load` with the physical address and bytes of each PT_LOAD segment. @throws IommuError `EFORMAT` with the byte offset. */
export const readCore = (core: Uint8Array, file: string, load: (pa: bigint, bytes: Uint8Array) => void): void => {
  const view = new DataView(core.buffer, core.byteOffset, core.byteLength);
  const fail = (at: number, expected: string, got: string): never => {
    throw formatError(file, `byte ${at}`, expected, got);
  };
  if (core.length < EHDR_BYTES) fail(core.length, `an ELF header of ${EHDR_BYTES} bytes`, 'the end of the file');
  if (view.getUint32(0, true) !== 0x464c_457f) fail(0, 'the ELF magic 7f 45 4c 46', hex(view.getUint32(0, true)));
  if (core[4] !== 2 || core[5] !== 1) fail(4, 'ELF64, little-endian', `class ${core[4]}, data ${core[5]}`);
  const table = Number(view.getBigUint64(32, true));
  const entry = view.getUint16(54, true);
  const count = view.getUint16(56, true);
  if (entry < PHDR_BYTES) fail(54, `program headers of ${PHDR_BYTES} bytes`, `${entry}`);
  for (let i = 0; i < count; i++) {
    const at = table + i * entry;
    if (at + PHDR_BYTES > core.length) fail(at, `program header ${i} of ${count}`, 'the end of the file');
    if (view.getUint32(at, true) !== PT_LOAD) continue;
    const offset = Number(view.getBigUint64(at + 8, true));
    const pa = view.getBigUint64(at + 24, true);
    const size = Number(view.getBigUint64(at + 32, true));
    if (offset + size > core.length)
      fail(at + 32, `${size} bytes of segment ${i} at byte ${offset}`, 'the end of the file');
    load(pa, core.subarray(offset, offset + size));
  }
};
