import { FieldReader, formatError, isObject, parseU64 } from './json-lines.ts';

/** A place where a recording and the specification part, and the specification is followed. */
export interface KnownDeviation {
  /** The file's name without its folder. */
  readonly file: string;
  readonly scenario: string;
  /** Line of the operation in the file, from 1 (the header is line 1). */
  readonly op: number;
  /** Where the specification says otherwise. */
  readonly clause: string;
  readonly why: string;
}

/** Reads the text of a known-deviations file, a JSON list. @throws IommuError `EFORMAT`. */
export const parseKnownDeviations = (text: string, file: string): KnownDeviation[] => {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw formatError(file, 'the file', 'a JSON list of known deviations', text.slice(0, 40));
  }
  if (!Array.isArray(value)) throw formatError(file, 'the file', 'a JSON list of known deviations', value);
  return value.map((item: unknown, i): KnownDeviation => {
    if (!isObject(item)) throw formatError(file, `entry ${i}`, 'an object', item);
    const fields = new FieldReader(file, `entry ${i}`, item);
    if (parseU64(item['op']) === undefined) fields.fail('op', 'the line number of the operation');
    return {
      file: fields.string('file'),
      scenario: fields.string('scenario'),
      op: fields.number('op'),
      clause: fields.string('clause'),
      why: fields.string('why'),
    };
  });
};
