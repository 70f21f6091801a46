// Builds the command line and what it needs. turbo asks for the package manager's binary, which is on the PATH under
// `pnpm …`; started in another way, npx fetches the version that package.json names.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root. */
export const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

const TURBO = ['run', 'build', '--filter=@iommu-ts/cli', '--output-logs=errors-only'];

/** @param stdio as of `spawn`. @returns the exit status. */
export const buildCli = (stdio) => {
  const run = (command, args) => spawnSync(command, args, { cwd: root, stdio }).status;
  const pnpm = spawnSync('pnpm', ['--version'], { cwd: root, stdio: 'ignore' });
  if (pnpm.status === 0) return run(process.execPath, [path.join(root, 'node_modules/turbo/bin/turbo'), ...TURBO]) ?? 1;
  const { packageManager } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
  return run('npx', ['-y', packageManager, 'exec', 'turbo', ...TURBO]) ?? 1;
};
