/** The command line: what is asked for, in which words, and the exit status. */
import { Command, CommanderError } from 'commander';
import type { DriverHarness } from '@iommu-ts/iommu-core';
import { pagesReportCommand } from './commands/pages.ts';
import type { PagesReportFlags } from './commands/pages.ts';
import { replayCommand } from './commands/replay.ts';
import type { ReplayFlags } from './commands/replay.ts';
import { verifyCommand } from './commands/verify.ts';
import type { VerifyFlags } from './commands/verify.ts';
import { goldenClaims } from './goldens.ts';
import type { GoldenClaim } from './goldens.ts';
import { harnesses } from './harnesses.ts';
import type { Io } from './io.ts';

/** What the commands work on; tests hand in others. */
export interface Parts {
  readonly harnesses: readonly DriverHarness[];
  readonly claims: Readonly<Record<string, GoldenClaim>>;
}

const REPLAY_EXAMPLES = `
Examples:
  iommu replay                                       the bundled trace through all five
  iommu replay events.jsonl.gz --driver riscv,amd    two drivers side by side
  iommu replay snapshot-folder --mode lazy --check all
  iommu replay trace.txt --json out.json --report out.html
  iommu replay --sanitize --mode lazy                stale caches, early frees, leaks: reported

Exit status: 0, 1 when a byte or a fault was wrong or the checks found a mistake, 2 when the input could not be read.`;

const VERIFY_EXAMPLES = `
Examples:
  iommu verify golden/                               every file in the folder
  iommu verify vectors/qemu/*.jsonl.gz --driver arm-smmu
  iommu verify guests/linux-6.12-amd-vi              a snapshot's folder

Exit status: 0, 1 when something failed, 2 when something could not be read.`;

const PAGES_EXAMPLES = `
Examples:
  iommu pages report                                 tables, measured up to 16 GiB of RAM, computed up to 16 TiB
  iommu pages report --html pages.html               the same with plots, as a page
  iommu pages report --no-timing --json              as JSON on stdout

Exit status: 0, 1 when a measurement is not what was computed, 2 for bad arguments.`;

const program = (io: Io, version: string, parts: Parts, status: (code: number) => void): Command => {
  const names = parts.harnesses.map((h) => h.name).join(', ');
  const root = new Command('iommu')
    .description('Five IOMMUs, emulated on both sides of the register interface.')
    .version(version)
    .showHelpAfterError('(iommu --help tells more)');
  root
    .command('replay')
    .description("play a Linux kernel's IOMMU trace through drivers and emulated IOMMUs, every DMA byte checked")
    .argument('[trace]', 'events.jsonl(.gz), a snapshot folder, or ftrace text (default: the bundled trace)')
    .option('--driver <names>', `all, or some of ${names}, with commas between`, 'all')
    .option('--check <level>', 'DMA and faults checked: none, sample, all', 'sample')
    .option('--mode <mode>', 'invalidation: strict or lazy (flush queue)', 'strict')
    .option('--iova <rule>', "keep the trace's addresses where the driver can, or allocate", 'keep')
    .option('--seed <number>', 'of the random choices', '1')
    .option('--no-timing', 'leave out the rounds that measure time')
    .option('--sanitize', 'under the checks, on devices that keep in their caches all that they may')
    .option('--json [file]', 'the report as JSON, on stdout or into a file')
    .option('--report <file>', 'a page of plots (HTML, self-contained)')
    .addHelpText('after', REPLAY_EXAMPLES)
    .action((trace: string | undefined, flags: ReplayFlags) =>
      status(replayCommand(io, trace, flags, parts.harnesses)),
    );
  root
    .command('verify')
    .description('play golden tables, recorded vectors and guest snapshots, and compare')
    .argument('[inputs...]', 'files and folders, packed or plain, recognised by content')
    .option('--driver <names>', `all, or some of ${names}: inputs of the others are left out`, 'all')
    .option('--json [file]', 'the report as JSON, on stdout or into a file')
    .option(
      '--known-deviations <file>',
      'operations where the specification says otherwise than the recording (JSON); may be given again',
      (file: string, before: readonly string[] = []) => [...before, file],
    )
    .option('-v, --verbose', 'a line for each failed case')
    .addHelpText('after', VERIFY_EXAMPLES)
    .action((inputs: string[], flags: VerifyFlags) =>
      status(verifyCommand(io, inputs, flags, parts.harnesses, parts.claims)),
    );
  const pages = root.command('pages').description("the allocator of I/O page-table pages (Linux's iommu-pages)");
  pages
    .command('report')
    .description(
      'what descriptors cost (struct page of today, memdesc as planned), and what tables that share pages save',
    )
    .option('--no-timing', 'leave out the rounds that measure time')
    .option('--trace <file>', 'the trace that tables are built for (default: the bundled trace)')
    .option('--no-trace', 'leave it out')
    .option('--json [file]', 'the report as JSON, on stdout or into a file')
    .option('--html <file>', 'a page of tables and plots (HTML, self-contained)')
    .addHelpText('after', PAGES_EXAMPLES)
    .action((flags: PagesReportFlags) => status(pagesReportCommand(io, flags, parts.harnesses)));
  for (const command of [root, ...root.commands, ...pages.commands]) {
    command.exitOverride().configureOutput({
      writeOut: (text) => io.out(text),
      writeErr: (text) => io.err(text.replace(/^error:/, 'iommu:')),
    });
  }
  return root;
};

/** Runs `iommu <args>`; returns the exit status. Bad input ends in one line on the error stream and status 2. */
export const run = async (
  args: readonly string[],
  io: Io,
  version: string,
  parts: Parts = { harnesses, claims: goldenClaims },
): Promise<number> => {
  let status = 0;
  try {
    const root = program(io, version, parts, (code) => (status = code));
    if (args.length === 0) {
      io.err(root.helpInformation());
      return 2;
    }
    await root.parseAsync([...args], { from: 'user' });
    return status;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const { code, message } = error as { code?: string; message: string };
    if (code === 'EFORMAT') {
      io.err(`iommu: ${message}\n`);
      return 2;
    }
    // A mistake of this program: one line too, and the place where it happened for those who ask.
    io.err(`iommu: internal error: ${message}\n`);
    if (process.env['DEBUG'] !== undefined) io.err(`${(error as Error).stack}\n`);
    return 70;
  }
};
