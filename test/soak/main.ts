/** `npm run soak`: a lab under traffic and disturbances. What it does is in `soak.ts`. */
import { writeFileSync } from 'node:fs'
import { ensureTools } from '../../cli/setup/tools.ts'
import { failureStatus } from '../helpers/program-end.ts'
import { HELP, parseArgs } from './options.ts'
import { htmlOf } from './plot.ts'
import { soak, type SoakProgress } from './soak.ts'
import { summaryOf } from './summary.ts'

/** Without a terminal, a line every so often, ms. */
const QUIET_EVERY_MS = 10_000
const EX_INTERRUPTED = 130
const MIB = 1024 * 1024

const interrupted = new AbortController()

async function main(argv: readonly string[]): Promise<number> {
  const args = parseArgs(argv)
  if (!args) {
    process.stdout.write(HELP)
    return 0
  }
  const { minutes, seed, everySeconds, pauses, isJson, html } = args
  ensureTools()
  const interrupt = () => interrupted.abort()
  process.once('SIGINT', interrupt)
  process.once('SIGTERM', interrupt)
  say(`seed ${seed}\n`)
  const report = await soak({
    seconds: minutes * 60,
    seed,
    everySeconds,
    pauses,
    signal: interrupted.signal,
    progress,
  })
  if (process.stderr.isTTY) say('\n')
  if (html !== undefined) writeFileSync(html, htmlOf(report))
  process.stdout.write(isJson ? `${JSON.stringify(report, undefined, 1)}\n` : summaryOf(report))
  if (report.wrong.length > 0) return 1
  return interrupted.signal.aborted ? EX_INTERRUPTED : 0
}

let toldAtMs = 0

function progress({ elapsedMs, doing, samples }: SoakProgress): void {
  if (!process.stderr.isTTY && elapsedMs - toldAtMs < QUIET_EVERY_MS) return
  toldAtMs = elapsedMs
  const parts = samples.map(({ part, rssBytes }) => `${part} ${Math.round(rssBytes / MIB)} MiB`).join(', ')
  const line = `${Math.round(elapsedMs / 1000)} s: ${doing.padEnd(22)} ${parts}`
  say(process.stderr.isTTY ? `\r${line.padEnd(100)}` : `${line}\n`)
}

function say(text: string): void {
  process.stderr.write(text)
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (err) {
  const failed = failureStatus('culvert soak', err)
  process.exitCode = interrupted.signal.aborted ? EX_INTERRUPTED : failed
}
