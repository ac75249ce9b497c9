/**
 * A client that runs inside a pod: one new TCP connection and one HTTP request after the other, at a fixed rate, until
 * it is told to stop (SIGTERM) or the time is over; then one line of JSON with what it saw. A connection that takes
 * longer than the limit counts as failed.
 *
 * usage: node load.ts URL RATE SECONDS
 */
import { request } from 'node:http'
import { errorCode, errorText } from '../../lib/errors.ts'

const LIMIT_MS = 10_000

export interface LoadResult {
  requests: number
  failed: number
  /** Failures by name. */
  errors: Record<string, number>
  slowestMs: number
  /** Time from start to first byte of the answer, ms, of each request in order. */
  firstMs: number | undefined
  /** Answers by the pod that gave them. */
  pods: Record<string, number>
}

const [url = '', rate = '20', seconds = '10'] = process.argv.slice(2)
const result: LoadResult = { requests: 0, failed: 0, errors: {}, slowestMs: 0, firstMs: undefined, pods: {} }
let open = 0
let isStopping = false

function once(): void {
  const startedAt = performance.now()
  open++
  let isDone = false
  const done = (err?: unknown) => {
    if (isDone) return
    isDone = true
    open--
    result.requests++
    if (err === undefined) {
      const took = performance.now() - startedAt
      result.firstMs ??= took
      result.slowestMs = Math.max(result.slowestMs, took)
    } else {
      result.failed++
      const name = errorCode(err) ?? errorText(err)
      result.errors[name] = (result.errors[name] ?? 0) + 1
    }
    finishWhenIdle()
  }
  const asking = request(url, { agent: false, timeout: LIMIT_MS }, answer => {
    const pod = answer.headers['x-pod']
    if (typeof pod === 'string') result.pods[pod] = (result.pods[pod] ?? 0) + 1
    answer.on('error', done)
    answer.on('end', () =>
      answer.statusCode === 200 ? done() : done(new Error(`HTTP ${answer.statusCode}`)),
    )
    answer.resume()
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
