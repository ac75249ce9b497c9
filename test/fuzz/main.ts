/** `npm run fuzz`: damaged sessions against a live data plane. What it does is in `fuzz.ts`. */
import { ensureTools } from '../../cli/setup/tools.ts'
import { CulvertError } from '../../lib/errors.ts'
import { failureStatus } from '../helpers/program-end.ts'
import { readCorpus, readFinding, writeFinding } from './files.ts'
import { fuzz, type Progress } from './fuzz.ts'
import { HELP, parseArgs } from './options.ts'
import { jsonOf, summaryOf } from './summary.ts'

/** Without a terminal, a line every so often, s. */
const QUIET_EVERY_S = 10
const EX_INTERRUPTED = 130

const interrupted = new AbortController()

async function main(argv: readonly string[]): Promise<number> {
  const args = parseArgs(argv)
  if (!args) {
    process.stdout.write(HELP)
    return 0
  }
  if (process.getuid?.() !== 0)
    throw new CulvertError('DENIED', 'network namespaces need root', { hint: 'sudo npm run fuzz' })
  const { seconds, isJson } = args
  const corpus = args.corpus === undefined ? [] : readCorpus(args.corpus)
  const finding = args.replay === undefined ? undefined : readFinding(args.replay)
  const seed = finding?.seed ?? args.seed
  ensureTools()
  const interrupt = () => interrupted.abort()
  process.once('SIGINT', interrupt)
  process.once('SIGTERM', interrupt)
  const files = new Map<string, string>()
  say(`seed ${seed}\n`)
  const report = await fuzz({
    seconds,
    seed,
    corpus,
    ...(args.cases === undefined ? {} : { cases: args.cases }),
    ...(finding === undefined ? {} : { replay: finding.cases }),
    signal: interrupted.signal,
    progress: tellProgress,
    found: found => {
      say(`\nFOUND ${found.what}\n`)
      if (!finding && found.cases.length > 0) files.set(found.what, writeFinding(found, seed, files.size + 1))
    },
  })
  if (process.stderr.isTTY) say('\n')
  process.stdout.write(isJson ? jsonOf(report, files) : summaryOf(report, files))
  if (report.findings.length > 0) return 1
  return interrupted.signal.aborted ? EX_INTERRUPTED : 0
}

function tellProgress({ elapsedMs, cases, findings }: Progress): void {
  const seconds = Math.round(elapsedMs / 1000)
  const line = `${seconds} s: ${cases} cases, ${findings} found`
  if (process.stderr.isTTY) say(`\r${line} `)
  else if (seconds % QUIET_EVERY_S === 0) say(`${line}\n`)
}

function say(text: string): void {
  process.stderr.write(text)
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (err) {
  const failed = failureStatus('culvert fuzz', err)
  process.exitCode = interrupted.signal.aborted ? EX_INTERRUPTED : failed
}
