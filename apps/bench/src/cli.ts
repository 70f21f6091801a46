/** `pnpm bench`: what is run and in which order. */
import { writeFileSync } from 'node:fs';
import { PhysicalMemory } from '@iommu-ts/iommu-pages';
import { Command, InvalidArgumentError } from 'commander';
import { checksOnRatios } from './checks-on.ts';
import { checksOffRatios } from './checks-off.ts';
import { DRIVERS, loadDriver } from './drivers.ts';
import { measureRow } from './measure.ts';
import type { RowResult } from './measure.ts';
import { oneOrAllRatios } from './one-or-all.ts';
import { LAYOUTS, fillRatio, pageRows } from './page-rows.ts';
import { bulkRatios, iotlbRatio, representative, scaleRatios, singleRatios } from './ratios.ts';
import type { Ratio } from './ratios.ts';
import { describeEnvironment, environment, figure, kernelRows, kernelTable, ratioTable, rowTable } from './report.ts';
import { systemRows } from './system-rows.ts';
import { FULL, MIB, QUICK, tableRows } from './table-rows.ts';
import type { Row } from './table-rows.ts';

interface Options {
  readonly filter?: RegExp;
  readonly driver: readonly string[];
  readonly quick: boolean;
  readonly rounds?: number;
  readonly rows: boolean;
  readonly ratios: boolean;
  readonly json?: string;
  readonly check: boolean;
}

const positive = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('A whole number from 1 is expected.');
  return value;
};

const regExp = (text: string): RegExp => {
  try {
    return new RegExp(text);
  } catch {
    throw new InvalidArgumentError('A regular expression is expected.');
  }
};

/** Names of drivers, by comma. @throws InvalidArgumentError for another name. */
export const driverList = (text: string): string[] => {
  const names = text.split(',');
  if (names.some((name) => !(name in DRIVERS))) {
    throw new InvalidArgumentError(`Drivers are ${Object.keys(DRIVERS).join(', ')}.`);
  }
  return names;
};

/** Progress: on stderr, so that stdout has the tables only. */
const say = (text: string): void => void process.stderr.write(`${text}\n`);

/** Memory for one of two allocators that are compared. */
const quarter = (): PhysicalMemory => new PhysicalMemory([{ base: 0n, size: BigInt(256 * MIB), kind: 'flat' }]);

const run = async (options: Options, main: string): Promise<void> => {
  const scale = options.quick ? QUICK : FULL;
  const rounds = options.rounds ?? (options.quick ? 5 : 15);
  const wanted = (name: string): boolean => options.filter === undefined || options.filter.test(name);
  // One flat range for all rows, touched once: no row pays for the host's page faults.
  const memory = new PhysicalMemory([{ base: 0n, size: BigInt(512 * MIB), kind: 'flat' }]);
  memory.ranges[0]!.words.fill(0);
  const harnesses = [];
  for (const name of options.driver) harnesses.push(await loadDriver(name));

  const rows: RowResult[] = [];
  const measure = async (driver: string, format: string, made: { row: Row; rig: { release(): void } }) => {
    const result = await measureRow(driver, format, made.row, options.quick ? 2e7 : 2e8, options.quick ? 3 : 12);
    made.rig.release();
    rows.push(result);
    say(`${driver} ${format} ${result.row}: ${figure(result.ns)} ns`);
  };
  if (options.rows) {
    for (const harness of harnesses) {
      for (const variant of harness.formats) {
        for (const row of tableRows(memory, variant, scale)) {
          if (wanted(`${harness.name}/${variant.name}/${row.name}`)) {
            await measure(harness.name, variant.name, row.make());
          }
        }
      }
      for (const row of systemRows(memory, harness, scale)) {
        if (wanted(`${harness.name}/${harness.formats[0]!.name}/${row.name}`)) {
          await measure(harness.name, harness.formats[0]!.name, row.make());
        }
      }
    }
  }

  if (options.rows) {
    for (const layout of LAYOUTS) {
      for (const row of pageRows(memory, layout, scale)) {
        if (wanted(`iommu-pages/${layout}/${row.name}`)) await measure('iommu-pages', layout, row.make());
      }
    }
  }

  const ratios: Ratio[] = [];
  const keep = (more: readonly Ratio[]): void => {
    for (const ratio of more) {
      ratios.push(ratio);
      say(`${ratio.name}, ${ratio.subject}: ${ratio.ratio.toFixed(2)}`);
    }
  };
  if (options.ratios) {
    for (const harness of harnesses) {
      const variant = representative(harness);
      if (wanted(`ratio/${harness.name}/${variant.name}/single`)) keep(singleRatios(memory, variant, scale, rounds));
      if (wanted(`ratio/${harness.name}/${variant.name}/bulk`)) keep(bulkRatios(memory, variant, scale, rounds));
      if (wanted(`ratio/${harness.name}/${variant.name}/scale`)) keep(scaleRatios(memory, variant, scale, rounds));
      if (wanted(`ratio/${harness.name}/iotlb`)) keep([iotlbRatio(harness, scale, rounds)]);
    }
    for (const layout of LAYOUTS) {
      if (wanted(`ratio/iommu-pages/${layout}/fill`)) {
        keep([fillRatio([quarter(), quarter()], layout, scale, rounds)]);
      }
    }
    const drivers = options.driver.filter((name) => wanted(`ratio/${name}/one-or-all`));
    if (drivers.length > 0) {
      keep(await oneOrAllRatios(main, drivers, options.quick, rounds));
    }
    for (const harness of harnesses) {
      if (wanted(`ratio/${harness.name}/checks-on`)) keep(checksOnRatios(harness, scale, Math.min(rounds, 5)));
    }
    const unchecked = options.driver.filter((name) => wanted(`ratio/${name}/checks-off`));
    if (unchecked.length > 0)
      keep(await checksOffRatios(main, unchecked, options.quick, Math.max(rounds, options.quick ? 1 : 15)));
  }

  const kernel = kernelRows(rows);
  const where = environment();
  if (rows.length > 0) process.stdout.write(`${rowTable(rows)}\n\n`);
  if (kernel.length > 0) process.stdout.write(`${kernelTable(kernel)}\n\n`);
  if (ratios.length > 0) process.stdout.write(`${ratioTable(ratios)}\n\n`);
  const judged = ratios.filter((r) => r.target !== null).length;
  const missed = ratios.filter((r) => !r.pass).length;
  process.stdout.write(`${describeEnvironment(where)}\n`);
  process.stdout.write(
    `${rows.length} rows, ${ratios.length} ratios${judged > 0 ? `, ${judged - missed} within their targets, ${missed} not` : ''}${options.quick ? ' (quick: smaller regions, few passes)' : ''}\n`,
  );
  if (options.json !== undefined) {
    const { quick, driver } = options;
    const document = { format: 'iommu-bench/1', ...where, options: { quick, rounds, driver }, rows, ratios, kernel };
    writeFileSync(options.json, `${JSON.stringify(document, null, 2)}\n`);
  }
  if (options.check && missed > 0) process.exitCode = 1;
};

/** The command line. @param main file that serves when it is started with `--serve`: see one-or-all.ts. */
export const createProgram = (main: string): Command =>
  new Command('bench')
    .description('Measures page tables, translation and DMA of every driver; the last table holds the ratios to reach.')
    .option(
      '-f, --filter <regexp>',
      'only rows and ratios whose "driver/format/row" or "ratio/driver/…" matches',
      regExp,
    )
    .option('-d, --driver <list>', 'drivers, by comma', driverList, Object.keys(DRIVERS))
    .option('-q, --quick', 'smaller regions and few passes: a look, not a measurement', false)
    .option('-r, --rounds <n>', 'rounds of each ratio (default 15)', positive)
    .option('--no-rows', 'leave the rows out')
    .option('--no-ratios', 'leave the ratios out')
    .option('-j, --json <file>', 'write rows, ratios, machine, Node and commit to a file')
    .option('--check', 'exit with 1 when a ratio misses its target', false)
    .action((options: Options) => run(options, main));
