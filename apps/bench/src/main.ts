import { fileURLToPath } from 'node:url';
import { createProgram, driverList } from './cli.ts';
import { serve } from './one-or-all.ts';
import { FULL, QUICK } from './table-rows.ts';

// Started by one-or-all.ts: a process that measures on request.
if (process.argv[2] === '--serve') {
  await serve(driverList(process.argv[3] ?? ''), process.argv[4] === '--quick' ? QUICK : FULL);
} else {
  await createProgram(fileURLToPath(import.meta.url)).parseAsync();
}
