import { z } from 'zod';
import { formatError } from './json-lines.ts';

const schema = z.array(
  z.object({
    /** The file's name without its folder; a `*` stands for the seed, as scenarios are the same for every seed. */
    file: z.string(),
    scenario: z.string(),
    /** Line of the operation in the file, from 1 (the header is line 1), or for every seed its kind. */
    op: z.union([z.number().int().positive(), z.enum(['rd', 'dma', 'chk'])]),
    /** Where the specification says otherwise. */
    clause: z.string(),
    why: z.string(),
  }),
);

/** A place where a recording and the specification part, and the specification is followed. */
export type KnownDeviation = Readonly<z.infer<typeof schema>[number]>;

/** Reads the text of a known-deviations file, a JSON list. @throws IommuError `EFORMAT`. */
export const parseKnownDeviations = (text: string, file: string): KnownDeviation[] => {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw formatError(file, 'the file', 'a JSON list of known deviations', text.slice(0, 40));
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const [entry, field] = issue.path;
  const where = entry === undefined ? 'the file' : `entry ${String(entry)}`;
  const what = field === undefined ? '' : ` in "${String(field)}"`;
  throw formatError(file, where, `a list of {file, scenario, op, clause, why}; ${issue.message}${what}`, value);
};

/** The deviations of `known` that are about the file called `name`. */
export const deviationsOf = (known: readonly KnownDeviation[], name: string): KnownDeviation[] =>
  known.filter(({ file }) => {
    const [before = '', after] = file.split('*');
    if (after === undefined) return file === name;
    return name.length >= before.length + after.length && name.startsWith(before) && name.endsWith(after);
  });

/** The deviation that excuses a mismatch at line `line`, an operation of kind `kind`, if there is one. */
export const findDeviation = (
  known: readonly KnownDeviation[],
  scenario: string,
  line: number,
  kind: unknown,
): KnownDeviation | undefined => known.find((d) => d.scenario === scenario && (d.op === line || d.op === kind));
