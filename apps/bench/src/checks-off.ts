/**
 * What the checks cost while they are off: the usual build against one in which they are compiled out. Both are bundles of the
 * same sources, loaded into one process and measured in turns; several processes, as the host's compiler does not settle on
 * the same code in each.
 */
import { fork } from 'node:child_process';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { next } from './one-or-all.ts';
import { ratioOf } from './ratios.ts';
import type { Ratio } from './ratios.ts';
import { comparison, series } from './stats.ts';
import type { Row, Scale } from './table-rows.ts';

/** Fresh processes that the rounds are spread over. */
const PROCESSES = 5;

interface Bundle {
  readonly hasChecks: boolean;
  makeRows(driver: string, scale: Scale): Promise<readonly Row[]>;
}

interface Times {
  readonly off: readonly number[];
  readonly out: readonly number[];
}

const load = (main: string, name: string): Promise<Bundle> =>
  import(pathToFileURL(join(dirname(main), name, 'bundle.js')).href) as Promise<Bundle>;

/** The child's side: measures one driver and sends `{row: {off, out}}`. `turn` says which bundle is loaded first. */
export const measureChecksOff = async (
  main: string,
  driver: string,
  scale: Scale,
  rounds: number,
  turn: number,
): Promise<void> => {
  const names = ['with-checks', 'without-checks'] as const;
  const bundles = new Map<string, Bundle>();
  for (const name of turn % 2 === 0 ? names : names.toReversed()) bundles.set(name, await load(main, name));
  const [withChecks, without] = names.map((name) => bundles.get(name)!) as [Bundle, Bundle];
  if (!withChecks.hasChecks || without.hasChecks) throw new Error('the bundles are not what their names say');
  const off = await withChecks.makeRows(driver, scale);
  const out = await without.makeRows(driver, scale);
  const answer: Record<string, Times> = {};
  for (const [i, row] of off.entries()) {
    const other = out[i]!;
    const { as, bs } = series(
      () => row.pass() / row.ops,
      () => other.pass() / other.ops,
      rounds,
      5,
    );
    answer[row.name] = { off: as, out: bs };
  }
  process.send!(answer);
  process.disconnect();
};

/** Ratios of all rows of `drivers`. @param main file that calls {@link measureChecksOff} when started with `--checks-off`. */
export const checksOffRatios = async (
  main: string,
  drivers: readonly string[],
  quick: boolean,
  rounds: number,
): Promise<readonly Ratio[]> => {
  const ratios: Ratio[] = [];
  const processes = Math.min(PROCESSES, rounds);
  for (const driver of drivers) {
    const rows = new Map<string, { off: number[]; out: number[] }>();
    for (let turn = 0; turn < processes; turn++) {
      const args = [
        '--checks-off',
        driver,
        `${Math.ceil(rounds / processes)}`,
        `${turn}`,
        ...(quick ? ['--quick'] : []),
      ];
      const child = fork(main, args, { execArgv: ['--expose-gc'], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
      for (const [row, times] of Object.entries(await next<Record<string, Times>>(child))) {
        let all = rows.get(row);
        if (all === undefined) rows.set(row, (all = { off: [], out: [] }));
        all.off.push(...times.off);
        all.out.push(...times.out);
      }
    }
    for (const [row, { off, out }] of rows) {
      ratios.push(ratioOf(`checks off / compiled out: ${row}`, driver, 1.05, comparison(off, out)));
    }
  }
  return ratios;
};
