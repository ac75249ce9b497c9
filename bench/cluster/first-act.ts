/**
 * A pod's first act: an HTTP request, the moment it runs. Tries until it is answered, and tells how long after its own
 * start that was, how often it had to try, and how long the connection that was answered took.
 *
 * usage: node first-act.ts URL
 * Prints `{ "answeredAfterMs", "tookMs", "failures": [codes] }`.
 */
import { request } from 'node:http'
import { errorCode } from '../../lib/errors.ts'

const DEADLINE_MS = 30_000
const [url = ''] = process.argv.slice(2)
const beganMs = performance.now()
const failures: string[] = []

function attempt(): void {
  const startedMs = performance.now()
  const asking = request(url, { agent: false }, answer => {
    answer.resume()
    answer.on('error', again)
    answer.on('end', () => {
      const nowMs = performance.now()
      tell({ answeredAfterMs: nowMs - beganMs, tookMs: nowMs - startedMs, failures })
    })
  })
  asking.on('error', again)
  asking.end()
}

function again(err: unknown): void {
  failures.push(errorCode(err) ?? 'unknown')
  if (performance.now() - beganMs > DEADLINE_MS) tell({ answeredAfterMs: null, tookMs: null, failures })
  else setTimeout(attempt, 5)
}

function tell(result: unknown): void {
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
}

attempt()
