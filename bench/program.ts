/** The bench's command line: what can be asked of it, and where its results go. */
import { writeFile } from 'node:fs/promises'
import { CommanderError, type Command } from 'commander'
import { verb } from '../cli/command.ts'
import { EXIT, fail, note, print } from '../cli/output.ts'
import { ensureTools, LAB_TOOLS } from '../cli/setup/tools.ts'
import { shutdownSignal } from '../lib/lifecycle.ts'
import { renderHtml } from './html.ts'
import { describeCommit, describeMachine, withoutPlace } from './machine.ts'
import { allMetrics } from './measure/all.ts'
import { SCHEMA, type BenchRun, type MicroResult, type Series } from './model.ts'
import {
  addOutputOptions,
  addRunOptions,
  benchOptions,
  DEFAULT_TIMING,
  type OutputOptions,
  type RunOptions,
} from './options.ts'
import { ProgressLines } from './progress.ts'
import { readRun } from './report-file.ts'
import { renderTable } from './report.ts'
import { runBench } from './run.ts'

/** Interrupted: 128 and the number of SIGINT, as shells have it. */
const EXIT_INTERRUPTED = 130

/** What can be measured by itself, too. */
type Part = 'micro' | 'scale' | 'scale-cluster'

/** What `--micro` and `--scale` add to a run. */
type Parts = Partial<Pick<BenchRun, 'micro' | 'series'>>

/** Runs what the words say; gives the exit status. What went wrong has been said. */
export async function runProgram(words: readonly string[]): Promise<number> {
  const shutdown = shutdownSignal()
  try {
    await benchCommand(shutdown.signal, words).parseAsync(words, { from: 'user' })
    return Number(process.exitCode ?? EXIT.ok)
  } catch (err) {
    if (shutdown.signal.aborted) {
      note('bench: interrupted; nothing is left behind, nothing was written')
      return EXIT_INTERRUPTED
    }
    if (!(err instanceof CommanderError)) return fail(err)
    const isUsage = err.exitCode !== 0
    if (isUsage) note('hint: npm run bench -- --help')
    return isUsage ? EXIT.usage : EXIT.ok
  } finally {
    shutdown.dispose()
  }
}

function benchCommand(signal: AbortSignal, words: readonly string[]): Command {
  const bench = verb({
    name: 'bench',
    summary: '',
    description:
      'Measures Culvert beside no mesh, nginx, haproxy and a real ztunnel: the same two pods in network namespaces of ' +
      'this machine, every arm in turn, in rounds, nothing left out. Takes about four minutes a round with all arms. ' +
      'Needs root; missing programs are installed with apt, or named. bench/README.md says what each number means.',
    examples: [
      ['npm run bench', 'everything, five rounds'],
      ['npm run bench -- --quick --arms none,culvert', 'one short round of two arms: does it work?'],
      ['npm run bench -- --metrics rt-64-p50,rt-64-p99 --seconds 5', 'two figures, thoroughly'],
      ['npm run bench -- --json run.json --html run.html', 'keep everything'],
      ['npm run bench -- compare before.json after.json', 'what a change has changed'],
    ],
  })
  addOutputOptions(addRunOptions(bench))
    .enablePositionalOptions()
    .addHelpText('after', () => `\nMetrics:\n${metricList()}`)
    .action(async (options: RunOptions) => {
      process.exitCode = await measure(options, words, signal)
    })
  return bench
    .addCommand(compareCommand())
    .addCommand(reportCommand())
    .addCommand(partCommand('micro', 'Operations a second of the parts by themselves.', words, signal))
    .addCommand(
      partCommand('scale', 'What an agent takes with up to 200 pods and 100,000 workloads.', words, signal),
    )
    .addCommand(
      partCommand(
        'scale-cluster',
        'The ca-server and its clients in clusters of up to 100,000 pods, of which 100 a second are replaced.',
        words,
        signal,
      ),
    )
}

function compareCommand(): Command {
  return verb({
    name: 'compare',
    summary: 'what has changed between two runs',
    description:
      'Compares two runs that --json has written, metric by metric, and says what is within the noise.',
    examples: [],
  })
    .argument('<before>', 'a file that --json has written')
    .argument('<after>', 'another one')
    .action(async (before: string, after: string) => {
      const { compareRuns } = await import('./compare.ts')
      print(compareRuns(await readRun(before), await readRun(after), isColourful()).trimEnd())
    })
}

function reportCommand(): Command {
  return verb({
    name: 'report',
    summary: 'show a run again',
    description: 'Prints the table of a run that --json has written, and makes its page again.',
    examples: [],
  })
    .argument('<run>', 'a file that --json has written')
    .option('--html <file>', 'write a page with plots')
    .action(async (file: string, options: OutputOptions) => give(await readRun(file), options))
}

function partCommand(
  name: Part,
  description: string,
  words: readonly string[],
  signal: AbortSignal,
): Command {
  const command = verb({ name, summary: description.slice(0, -1).toLowerCase(), description, examples: [] })
  return addOutputOptions(command)
    .option('--quick', 'short: to see that it works, not for figures', false)
    .action(async (options: OutputOptions & { quick: boolean }) => {
      const startedAt = new Date().toISOString()
      const machine = describeMachine()
      const commit = await describeCommit()
      const parts = await measureParts({ parts: [name], quick: options.quick }, signal)
      const finishedAt = new Date().toISOString()
      const command = commandLine(words)
      const nothing = { arms: [], metrics: [], rounds: 0, samples: [] }
      await give(
        { schema: SCHEMA, startedAt, finishedAt, ...commit, command, machine, ...nothing, ...parts },
        options,
      )
    })
}

/** Gives the exit status. */
async function measure(options: RunOptions, words: readonly string[], signal: AbortSignal): Promise<number> {
  ensureTools(LAB_TOOLS)
  const wanted = benchOptions(options, commandLine(words))
  const progress = new ProgressLines(wanted.rounds, wanted.arms.length)
  const { run, failures } = await runBench(wanted, progress, signal)
  if (options.micro || options.scale) await keep(run, options) // half an hour's work, whatever becomes of the rest
  const wantedParts = (['micro', 'scale'] as const).filter(part => options[part])
  const parts = await measureParts({ parts: wantedParts, quick: options.quick }, signal)
  await give({ ...run, ...parts, finishedAt: new Date().toISOString() }, options)
  if (failures > 0) note(`bench: ${failures} measurements failed; see above, or the gaps in the JSON`)
  return failures > 0 ? EXIT.failed : EXIT.ok
}

async function measureParts(
  wanted: { parts: readonly Part[]; quick: boolean },
  signal: AbortSignal,
): Promise<Parts> {
  const progress = (what: string) => note(`bench: ${what}`)
  const options = { quick: wanted.quick, signal }
  const micro: MicroResult[] = []
  const series: Series[] = []
  for (const part of wanted.parts)
    if (part === 'micro') {
      const { runMicro } = await import('./micro/micro.ts')
      micro.push(...(await runMicro(progress, options)))
    } else if (part === 'scale') {
      const { runScale } = await import('./scale.ts')
      const found = await runScale(progress, options)
      series.push(...found.series)
      micro.push(...(found.micro ?? []))
    } else {
      const { runScaleCluster } = await import('./scale-cluster.ts')
      series.push(...(await runScaleCluster(progress, options)))
    }
  return { ...(micro.length > 0 && { micro }), ...(series.length > 0 && { series }) }
}

/** Files first: whatever becomes of the page or the terminal, the figures are kept. */
async function give(run: BenchRun, options: OutputOptions): Promise<void> {
  await keep(run, options)
  print(renderTable(run, isColourful()).trimEnd())
}

async function keep(run: BenchRun, { json, html }: OutputOptions): Promise<void> {
  if (json !== undefined) await writeFile(json, `${JSON.stringify(run, undefined, 1)}\n`)
  if (html !== undefined) await writeFile(html, renderHtml(run))
}

function metricList(): string {
  const metrics = allMetrics(DEFAULT_TIMING)
  const width = Math.max(...metrics.map(({ id }) => id.length))
  return metrics.map(({ id, title, unit }) => `  ${id.padEnd(width)}  ${title} (${unit})`).join('\n')
}

function isColourful(): boolean {
  return process.stdout.isTTY && process.stdout.hasColors()
}

function commandLine(words: readonly string[]): string {
  return withoutPlace(['npm run bench', ...(words.length > 0 ? ['--'] : []), ...words].join(' '))
}
