import { fileURLToPath } from 'node:url';
import { measureChecksOff } from './checks-off.ts';
import { createProgram, driverList } from './cli.ts';
import { serve } from './one-or-all.ts';
import { FULL, QUICK } from './table-rows.ts';

const main = fileURLToPath(import.meta.url);
const [mode, driver = '', ...rest] = process.argv.slice(2);
const scale = rest.includes('--quick') ? QUICK : FULL;
// Started by one-or-all.ts or checks-off.ts: a process that measures on request.
if (mode === '--serve') await serve(driverList(driver), scale);
else if (mode === '--checks-off') await measureChecksOff(main, driver, scale, Number(rest[0]), Number(rest[1]));
else await createProgram(main).parseAsync();
