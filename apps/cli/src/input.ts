/** Reading what the user names: files and folders, packed or plain, told apart by content. */
import { closeSync, openSync, readFileSync, readSync, readdirSync, realpathSync, statSync } from 'node:fs';
import path from 'node:path';
import { constants, gunzipSync } from 'node:zlib';
import { IommuError } from '@iommu-ts/bits';

/** No input that this program makes sense of is larger when unpacked. */
const MAX_BYTES = 1 << 30;

/** What stops a command before it has begun: told in one line, exit status 2. */
export const inputError = (message: string, details: Record<string, string> = {}): IommuError =>
  new IommuError('EFORMAT', message, details);

const reasonOf = (error: unknown): string => {
  switch ((error as { code?: string }).code) {
    case 'ENOENT':
      return 'no such file or folder';
    case 'EACCES':
    case 'EPERM':
      return 'permission denied';
    case 'EISDIR':
      return 'is a folder, expected a file';
    case 'ERR_FS_FILE_TOO_LARGE':
      return 'too large';
    default:
      return (error as Error).message;
  }
};

/** True for a folder. @throws IommuError `EFORMAT` when there is nothing of that name. */
export const isFolder = (name: string, shown: string = name): boolean => {
  try {
    return statSync(name).isDirectory();
  } catch (error) {
    throw inputError(`${shown}: ${reasonOf(error)}`);
  }
};

export const exists = (name: string): boolean => {
  try {
    statSync(name);
    return true;
  } catch {
    return false;
  }
};

/**
 * Bytes of a file; gzip is unpacked.
 * @param shown the file's name in messages
 * @throws IommuError `EFORMAT` naming the file and what is wrong with it.
 */
export const readBytes = (name: string, shown: string = name): Uint8Array => {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(name);
  } catch (error) {
    throw inputError(`${shown}: ${reasonOf(error)}`);
  }
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  try {
    return gunzipSync(bytes, { maxOutputLength: MAX_BYTES });
  } catch (error) {
    const why = (error as { code?: string }).code === 'Z_BUF_ERROR' ? 'it ends too early' : (error as Error).message;
    throw inputError(`${shown}: byte ${bytes.length}: expected whole gzip data (${why})`);
  }
};

/** Text of a file, gzip unpacked. @throws IommuError `EFORMAT`; also when it is not UTF-8. */
export const readText = (name: string, shown: string = name): string => {
  const bytes = readBytes(name, shown);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw inputError(`${shown}: expected UTF-8 text (or gzip of it), found other bytes`);
  }
};

/** Bytes that are looked at to tell what a file is. */
const HEAD_BYTES = 4096;

/** The beginning of a regular file as text, gzip unpacked as far as it goes; empty when there is none. Never throws. */
export const headText = (name: string): string => {
  try {
    if (!statSync(name).isFile()) return '';
    const bytes = new Uint8Array(HEAD_BYTES);
    const file = openSync(name, 'r');
    let head: Uint8Array;
    try {
      head = bytes.subarray(0, readSync(file, bytes));
    } finally {
      closeSync(file);
    }
    if (head[0] === 0x1f && head[1] === 0x8b) head = gunzipSync(head, { finishFlush: constants.Z_SYNC_FLUSH });
    return new TextDecoder().decode(head);
  } catch {
    return '';
  }
};

/** The path without links. */
export const realPath = (name: string): string => {
  try {
    return realpathSync(name);
  } catch (error) {
    throw inputError(`${name}: ${reasonOf(error)}`);
  }
};

/** Names in a folder, sorted, with the folder's path before them. */
export const listFolder = (folder: string): string[] => {
  try {
    return readdirSync(folder)
      .toSorted()
      .map((name) => path.join(folder, name));
  } catch (error) {
    throw inputError(`${folder}: ${reasonOf(error)}`);
  }
};

/** The first of `names` (or the same with `.gz`) that stands in `folder`. */
export const findIn = (folder: string, ...names: string[]): string | null => {
  for (const name of names) {
    for (const candidate of [name, `${name}.gz`]) {
      const full = path.join(folder, candidate);
      if (exists(full)) return full;
    }
  }
  return null;
};
