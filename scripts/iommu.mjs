// `pnpm --silent iommu …`: the built command, with paths as the user gave them (pnpm changes the directory, INIT_CWD
// is where the user was). Builds first when there is no build; all that the build says goes to stderr.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const main = path.join(root, 'apps/cli/dist/main.js');

if (!existsSync(main)) {
  const turbo = path.join(root, 'node_modules/turbo/bin/turbo');
  const build = spawnSync(
    process.execPath,
    [turbo, 'run', 'build', '--filter=@iommu-ts/cli', '--output-logs=errors-only'],
    {
      cwd: root,
      stdio: ['ignore', 2, 2],
    },
  );
  if (build.status !== 0) process.exit(build.status ?? 1);
}

const run = spawnSync(process.execPath, [main, ...process.argv.slice(2)], {
  cwd: process.env.INIT_CWD ?? process.cwd(),
  stdio: 'inherit',
});
process.exitCode = run.status ?? 1;
