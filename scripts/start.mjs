// `pnpm start`: builds, then plays the bundled trace through all five drivers and IOMMUs.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const node = (args) => spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' }).status ?? 1;

const turbo = path.join(root, 'node_modules/turbo/bin/turbo');
const built = node([turbo, 'run', 'build', '--filter=@iommu-ts/cli', '--output-logs=errors-only']);
process.exitCode =
  built !== 0
    ? built
    : node([path.join(root, 'apps/cli/dist/main.js'), 'replay', '--driver', 'all', ...process.argv.slice(2)]);
