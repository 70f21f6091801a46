// `pnpm start`: builds, then plays the bundled trace through all five drivers and IOMMUs.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { buildCli, root } from './build-cli.mjs';

const main = path.join(root, 'apps/cli/dist/main.js');
const play = () =>
  spawnSync(process.execPath, [main, 'replay', '--driver', 'all', ...process.argv.slice(2)], {
    cwd: process.env.INIT_CWD ?? root,
    stdio: 'inherit',
  }).status ?? 1;

const built = buildCli('inherit');
process.exitCode = built === 0 ? play() : built;
