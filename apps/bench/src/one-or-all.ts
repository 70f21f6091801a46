/**
 * All drivers loaded and warmed in one process, against one driver alone in its own: what a shared engine costs when it has
 * met every format. The two processes of a pair are asked in turns, so that a drift of the machine meets both.
 */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { DRIVERS, loadDriver } from './drivers.ts';
import { representative, sharedProcessRatio } from './ratios.ts';
import type { Ratio } from './ratios.ts';
import { systemRows } from './system-rows.ts';
import { MIB, tableRows } from './table-rows.ts';
import type { Row, Scale } from './table-rows.ts';

/** Rows compared: the start of their names. */
const ROWS = /^(map-\d+k|unmap-\d+k|map-256x|unmap-256x|iova-to-phys-64m|translate-|dma-4k|map-sync)/;

const flatMemory = (): PhysicalMemory => new PhysicalMemory([{ base: 0n, size: BigInt(64 * MIB), kind: 'flat' }]);

/** Rows of one driver, each on memory of its own (they live at the same time), made once and kept warm. */
export const rowsOf = (harness: DriverHarness, scale: Scale): readonly Row[] => {
  const makers = (memory: PhysicalMemory) => [
    ...tableRows(memory, representative(harness), scale),
    ...systemRows(memory, harness, scale),
  ];
  return makers(flatMemory())
    .map((made, i) => ({ name: made.name, i }))
    .filter(({ name }) => ROWS.test(name))
    .map(({ i }) => makers(flatMemory())[i]!.make().row);
};

/** As in `compare`: the fastest of three passes, in nanoseconds an operation. */
const fastest = (row: Row): number => Math.min(row.pass(), row.pass(), row.pass()) / row.ops;

/** The child's side: answers `round` messages with nanoseconds by row. Ends with its parent. */
export const serve = async (drivers: readonly string[], scale: Scale): Promise<void> => {
  const rows = new Map<string, readonly Row[]>();
  for (const name of drivers) rows.set(name, rowsOf(await loadDriver(name), scale));
  for (let i = 0; i < 5; i++) for (const list of rows.values()) for (const row of list) row.pass();
  process.on('message', (driver: string) => {
    const answer = Object.fromEntries(rows.get(driver)!.map((row) => [row.name, fastest(row)]));
    process.send!(answer);
  });
  process.once('disconnect', () => process.exit(0));
  process.send!('ready');
};

/** The next message of a child; rejects when the child ends first. */
export const next = <T>(child: ChildProcess): Promise<T> =>
  new Promise((resolve, reject) => {
    const gone = (code: number | null): void => reject(new Error(`the measuring process ended with code ${code}`));
    child.once('exit', gone);
    child.once('message', (message) => {
      child.off('exit', gone);
      resolve(message as T);
    });
  });

const start = async (main: string, drivers: readonly string[], quick: boolean): Promise<ChildProcess> => {
  const child = fork(main, ['--serve', drivers.join(','), ...(quick ? ['--quick'] : [])], {
    execArgv: ['--expose-gc'],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  await next(child);
  return child;
};

/**
 * Pairs of fresh processes that the rounds are spread over: which code the host's compiler settles on for a process differs
 * from start to start by up to a half (one in two compiles `unmap` into its caller), and the median should see that.
 */
const PAIRS = 5;

interface Series {
  readonly all: number[];
  readonly alone: number[];
}

/** Asks both processes for a round of `driver`, by turns which first, `rounds` times. */
const askBoth = async (
  all: ChildProcess,
  alone: ChildProcess,
  driver: string,
  rounds: number,
  series: Map<string, Series>,
): Promise<void> => {
  const ask = async (child: ChildProcess, side: keyof Series): Promise<void> => {
    child.send(driver);
    for (const [row, ns] of Object.entries(await next<Record<string, number>>(child))) {
      let pair = series.get(row);
      if (pair === undefined) series.set(row, (pair = { all: [], alone: [] }));
      pair[side].push(ns);
    }
  };
  for (let round = 0; round < rounds; round++) {
    if (round % 2 === 0) await ask(all, 'all');
    await ask(alone, 'alone');
    if (round % 2 === 1) await ask(all, 'all');
  }
};

/** @param main file that calls {@link serve} when it is started with `--serve`. */
export const oneOrAllRatios = async (
  main: string,
  drivers: readonly string[],
  quick: boolean,
  rounds: number,
): Promise<readonly Ratio[]> => {
  const results = new Map<string, Map<string, Series>>(drivers.map((driver) => [driver, new Map()]));
  const pairs = Math.min(PAIRS, rounds);
  for (let pair = 0; pair < pairs; pair++) {
    const all = await start(main, Object.keys(DRIVERS), quick);
    try {
      for (const driver of drivers) {
        const alone = await start(main, [driver], quick);
        try {
          await askBoth(all, alone, driver, Math.ceil(rounds / pairs), results.get(driver)!);
        } finally {
          alone.disconnect();
        }
      }
    } finally {
      all.disconnect();
    }
  }
  return [...results].flatMap(([driver, series]) =>
    [...series].map(([row, { all, alone }]) => sharedProcessRatio(driver, row, all, alone)),
  );
};
