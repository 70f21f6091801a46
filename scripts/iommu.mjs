// `pnpm --silent iommu …`: the built command, with paths as the user gave them (pnpm changes the directory, INIT_CWD
// is where the user was). Builds first when there is no build; all that the build says goes to stderr.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { buildCli, root } from './build-cli.mjs';

const main = path.join(root, 'apps/cli/dist/main.js');
const built = existsSync(main) ? 0 : buildCli(['ignore', 2, 2]);
if (built !== 0) process.exit(built);

const run = spawnSync(process.execPath, [main, ...process.argv.slice(2)], {
  cwd: process.env.INIT_CWD ?? process.cwd(),
  stdio: 'inherit',
});
process.exitCode = run.status ?? 1;
