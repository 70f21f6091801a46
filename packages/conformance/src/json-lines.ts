/**
 * Reading recorded files: JSON values checked field by field, so that a damaged file ends in one sentence that names the
 * file, the line and what was expected, never in a stack trace of the player.
 */
import { IommuError } from '@iommu-ts/bits';

/** An object of a recorded file, with the place it came from. */
export interface RecordedObject {
  /** Line of the file, from 1; 0 for a file that is one JSON value. */
  readonly line: number;
  readonly value: Readonly<Record<string, unknown>>;
}

/** `EFORMAT` for `file` at `where`: what was expected, and what stood there. */
export const formatError = (file: string, where: string, expected: string, got?: unknown): IommuError => {
  const shown = got === undefined ? 'nothing' : shorten(JSON.stringify(got) ?? String(got));
  return new IommuError('EFORMAT', `${file}: ${where}: expected ${expected}, found ${shown}`, {
    file,
    where,
    expected,
  });
};

const shorten = (text: string): string => (text.length > 60 ? `${text.slice(0, 57)}...` : text);

export const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The objects of a JSON-lines text; blank lines are passed over. @throws IommuError `EFORMAT`. */
export const parseJsonLines = (text: string, file: string): RecordedObject[] => {
  const objects: RecordedObject[] = [];
  let line = 0;
  for (const row of text.split('\n')) {
    line++;
    if (row.trim() === '') continue;
    let value: unknown;
    try {
      value = JSON.parse(row);
    } catch {
      throw formatError(file, `line ${line}`, 'a JSON object', row);
    }
    if (!isObject(value)) throw formatError(file, `line ${line}`, 'a JSON object', value);
    objects.push({ line, value });
  }
  return objects;
};

/** Typed access to the fields of one recorded object. Every getter throws `EFORMAT` that names file, line and field. */
export class FieldReader {
  readonly file: string;
  readonly where: string;
  readonly value: Readonly<Record<string, unknown>>;

  constructor(file: string, where: string, value: Readonly<Record<string, unknown>>) {
    this.file = file;
    this.where = where;
    this.value = value;
  }

  has(name: string): boolean {
    return this.value[name] !== undefined && this.value[name] !== null;
  }

  fail(name: string, expected: string): never {
    throw formatError(this.file, this.where, `"${name}" to be ${expected}`, this.value[name]);
  }

  string(name: string): string {
    const value = this.value[name];
    return typeof value === 'string' ? value : this.fail(name, 'a string');
  }

  boolean(name: string): boolean {
    const value = this.value[name];
    return typeof value === 'boolean' ? value : this.fail(name, 'true or false');
  }

  /** A value of 64 bits: `"0x…"`, or a JSON number. */
  u64(name: string): bigint {
    return parseU64(this.value[name]) ?? this.fail(name, 'a 64-bit number as "0x…"');
  }

  /** A whole number from 0 to `max`, as JSON number or `"0x…"`. */
  number(name: string, max: number = Number.MAX_SAFE_INTEGER): number {
    const value = parseU64(this.value[name]);
    if (value === undefined || value > BigInt(max)) this.fail(name, `a whole number from 0 to ${max}`);
    return Number(value);
  }

  /** Bytes as lower-case hex in memory order. */
  bytes(name: string): Uint8Array {
    const value = this.value[name];
    const bytes = typeof value === 'string' ? parseBytes(value) : undefined;
    return bytes ?? this.fail(name, 'bytes as hex digits, two a byte');
  }

  array(name: string): readonly unknown[] {
    const value = this.value[name];
    return Array.isArray(value) ? value : this.fail(name, 'a list');
  }

  object(name: string): FieldReader {
    const value = this.value[name];
    if (!isObject(value)) this.fail(name, 'an object');
    return new FieldReader(this.file, `${this.where}, "${name}"`, value);
  }
}

const HEX = /^0x[0-9a-f]{1,16}$/i;

/** A u64 from `"0x…"` or a whole JSON number; undefined for anything else. */
export const parseU64 = (value: unknown): bigint | undefined => {
  if (typeof value === 'string' && HEX.test(value)) return BigInt(value);
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  return undefined;
};

/** Value of each hex digit by character code, -1 for what is none. */
const DIGITS = new Int8Array(128).fill(-1);
for (const [value, digit] of [...'0123456789abcdef'].entries()) {
  DIGITS[digit.charCodeAt(0)] = value;
  DIGITS[digit.toUpperCase().charCodeAt(0)] = value;
}
const digitAt = (text: string, at: number): number => {
  const code = text.charCodeAt(at);
  return code < 128 ? DIGITS[code]! : -1;
};

/** Bytes from hex digits; undefined when it is something else. */
export const parseBytes = (text: string): Uint8Array | undefined => {
  if (text.length % 2 !== 0) return undefined;
  const bytes = new Uint8Array(text.length / 2);
  for (let i = 0; i < bytes.length; i++) {
    const high = digitAt(text, 2 * i);
    const low = digitAt(text, 2 * i + 1);
    if (high < 0 || low < 0) return undefined;
    bytes[i] = high * 16 + low;
  }
  return bytes;
};

const BYTE_TEXT: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

/** Hex digits of `bytes`, two a byte. */
export const hexOfBytes = (bytes: Uint8Array): string => {
  let text = '';
  for (const byte of bytes) text += BYTE_TEXT[byte]!;
  return text;
};
