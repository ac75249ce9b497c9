/**
 * What the bench's own clients have in common: they run in the client's pod as programs of their own, take a few numbers
 * as arguments, print one line of JSON, and end with status 1 and a reason when a single connection fails: a figure that
 * errors are part of says nothing.
 */
import { connect, type Socket } from 'node:net'
import { errorText } from '../../lib/errors.ts'
import { quantile } from '../stats.ts'

/** Where times of several processes are compared: CLOCK_MONOTONIC, in nanoseconds. */
export function nowNs(): bigint {
  return process.hrtime.bigint()
}

/** The argument at this place as a number. */
export function argument(at: number): number {
  const value = Number(process.argv[2 + at])
  if (!Number.isFinite(value)) stop(`argument ${at + 1} is not a number`)
  return value
}

/** The host that is called: the first argument. */
export function host(): string {
  return process.argv[2] ?? stop('the host is missing')
}

/** Tells why it cannot go on, and ends. */
export function stop(why: unknown): never {
  process.stderr.write(`${errorText(why)}\n`)
  process.exit(1)
}

/** One line of JSON on standard output. */
export function tell(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}

/** Resolves when connected. `onError` hears of every failure, also later ones. */
export function dial(port: number, onError: (err: Error) => void): Promise<Socket> {
  return new Promise(resolve => {
    const socket = connect({ host: host(), port, noDelay: true })
    socket.on('error', onError)
    socket.once('connect', () => resolve(socket))
  })
}

/** How long things took, µs. */
export interface Latencies {
  readonly count: number
  readonly p50: number
  readonly p90: number
  readonly p99: number
  readonly p999: number
  readonly max: number
}

/** Of times in milliseconds. */
export function latenciesOf(timesMs: readonly number[]): Latencies {
  const sorted = Float64Array.from(timesMs).sort()
  const at = (part: number) => quantile([...sorted], part) * 1000
  return {
    count: sorted.length,
    p50: at(0.5),
    p90: at(0.9),
    p99: at(0.99),
    p999: at(0.999),
    max: (sorted.at(-1) ?? 0) * 1000,
  }
}
