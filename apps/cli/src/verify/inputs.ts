/** Finds what there is to verify: golden tables, vectors and snapshots, told by content. */
import path from 'node:path';
import { GOLDEN_FORMAT, SNAPSHOT_FORMAT, VECTORS_FORMAT } from '@iommu-ts/conformance';
import { exists, findIn, headText, inputError, isFolder, listFolder, readText, realPath } from '../input.ts';

export type VerifyInput =
  | { readonly kind: 'golden'; readonly file: string; readonly json: unknown }
  | { readonly kind: 'vectors'; readonly file: string; readonly text: string }
  | { readonly kind: 'snapshot'; readonly file: string; readonly folder: string };

const KNOWN = `${GOLDEN_FORMAT}, ${VECTORS_FORMAT} or ${SNAPSHOT_FORMAT}`;

/** `format` of a JSON object. */
const formatOf = (value: unknown): string | null =>
  typeof value === 'object' && value !== null && 'format' in value && typeof value.format === 'string'
    ? value.format
    : null;

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
};

/** Where `JSON.parse` gave up, as far as it says, in one line. */
const complaint = (text: string): string => {
  try {
    JSON.parse(text);
    return '';
  } catch (error) {
    return (error as Error).message.replaceAll(/\s+/g, ' ');
  }
};

/**
 * Recognises one file. Null: sound JSON that is none of the three (only when `lenient`).
 * @throws IommuError `EFORMAT` for a file that can't be read or is none of the three.
 */
const recognise = (file: string, lenient = false): VerifyInput | null => {
  const text = readText(file);
  const newline = text.indexOf('\n');
  const first = parse(newline < 0 ? text : text.slice(0, newline));
  if (formatOf(first) === VECTORS_FORMAT) return { kind: 'vectors', file, text };
  const json = parse(text);
  if (json === undefined) {
    // JSON lines without a format: a trace, which is for `iommu replay`.
    if (lenient && typeof first === 'object' && first !== null && formatOf(first) === null) return null;
    throw inputError(`${file}: expected JSON with "format" ${KNOWN} (${complaint(text)})`);
  }
  switch (formatOf(json)) {
    case GOLDEN_FORMAT:
      return { kind: 'golden', file, json };
    case SNAPSHOT_FORMAT:
      return { kind: 'snapshot', file: path.dirname(file), folder: path.dirname(file) };
    default: {
      if (lenient) return null;
      const found = formatOf(json);
      throw inputError(`${file}: expected "format" ${KNOWN}, found ${found === null ? 'no "format"' : `"${found}"`}`);
    }
  }
};

/** The snapshot that a folder is. A manifest of something else, or a damaged one, is a file like others. */
const snapshotIn = (folder: string): VerifyInput | null => {
  const manifest = findIn(folder, 'manifest.json');
  if (manifest === null) return null;
  try {
    const input = recognise(manifest, true);
    return input?.kind === 'snapshot' ? input : null;
  } catch {
    return null;
  }
};

/** Called so, a file in a folder has to be sound JSON. */
const CANDIDATE = /\.jsonl?(?:\.gz)?$/;
/** Called anything else, it is looked at only when it says at its beginning what it is. */
const SAYS_SO = new RegExp(`"format"\\s*:\\s*"(?:${GOLDEN_FORMAT}|${VECTORS_FORMAT}|${SNAPSHOT_FORMAT})"`);

/** One thing to verify, or why it can't be read. */
export type Found = VerifyInput | { readonly kind: 'unreadable'; readonly file: string; readonly message: string };

/** Everything that `name` stands for: a file, a snapshot folder, or a folder of any of them. */
export const findInputs = (name: string): Generator<Found> => search(name, false, new Set());

function* search(name: string, lenient: boolean, seen: Set<string>): Generator<Found> {
  try {
    if (!isFolder(name)) {
      const input = recognise(name, lenient);
      if (input !== null) yield input;
      return;
    }
  } catch (error) {
    yield { kind: 'unreadable', file: name, message: (error as Error).message };
    return;
  }
  let children: string[];
  try {
    // A link may lead back up.
    const real = realPath(name);
    if (seen.has(real)) return;
    seen.add(real);
    children = listFolder(name);
  } catch (error) {
    yield { kind: 'unreadable', file: name, message: (error as Error).message };
    return;
  }
  const snapshot = snapshotIn(name);
  if (snapshot !== null) {
    yield snapshot;
    return;
  }
  for (const child of children) {
    if (!exists(child)) continue;
    if (isFolder(child) || CANDIDATE.test(child) || SAYS_SO.test(headText(child))) yield* search(child, true, seen);
  }
}
