/**
 * A client that runs inside a pod: one new TCP connection and one HTTP request after the other, at a fixed rate, until
 * it is told to stop (SIGTERM) or the time is over; then one line of JSON with what it saw. A connection that takes
 * longer than the limit counts as failed.
 *
 * usage: node load.ts URL RATE SECONDS
 */
import { errorCode, errorText } from '../../lib/errors.ts'
import { request } from '../../lib/plain-http.ts'

const LIMIT_MS = 30_000

export interface LoadResult {
  requests: number
  /** Each failure: when the connection was begun and when it failed (Unix ms), and how. */
  failures: { startedAtMs: number; failedAtMs: number; error: string }[]
  slowestMs: number
  /** Answers by the pod that gave them. */
  pods: Record<string, number>
}

const [url = '', rate = '20', seconds = '10'] = process.argv.slice(2)
const result: LoadResult = { requests: 0, failures: [], slowestMs: 0, pods: {} }
let open = 0
let isStopping = false

function once(): void {
  const startedAtMs = Date.now()
  let isDone = false
  open++
  const done = (err?: unknown) => {
    if (isDone) return
    isDone = true
    open--
    result.requests++
    result.slowestMs = Math.max(result.slowestMs, Date.now() - startedAtMs)
    if (err !== undefined)
      result.failures.push({ startedAtMs, failedAtMs: Date.now(), error: errorCode(err) ?? errorText(err) })
    finishWhenIdle()
  }
  const asking = request(url, { agent: false, timeout: LIMIT_MS }, answer => {
    let body = ''
    answer.setEncoding('utf8')
    answer.on('error', done)
    answer.on('data', (text: string) => (body += text))
    answer.on('end', () => {
      const pod = /"pod": "([^"]+)"/.exec(body)?.[1]
      if (answer.statusCode !== 200 || pod === undefined) return done(new Error(`HTTP ${answer.statusCode}`))
      result.pods[pod] = (result.pods[pod] ?? 0) + 1
      done()
    })
  })
  asking.on('timeout', () => asking.destroy(new Error('timeout')))
  asking.on('error', done)
  asking.end()
}

function stop(): void {
  if (isStopping) return
  isStopping = true
  clearInterval(ticker)
  finishWhenIdle()
}

function finishWhenIdle(): void {
  if (isStopping && open === 0) process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
}

const ticker = setInterval(once, 1000 / Number(rate))
setTimeout(stop, Number(seconds) * 1000)
process.on('SIGTERM', stop)
process.stdout.write('started\n')
