/**
 * An application that does nothing wrong: round trips on one connection after the other, each of which must come back
 * as it was sent. Runs in a pod. Each line that it is given is answered with one line of JSON: what has happened since
 * the last. Ends when its input does.
 *
 * usage: node honest-client.ts HOST PORT
 */
import { randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { errorCode, errorText } from '../../lib/errors.ts'

export interface HonestReport {
  readonly roundTrips: number
  readonly connections: number
  /** The first few, and how many there were. */
  readonly failures: readonly string[]
  readonly failed: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly worstMs: number
}

const ROUND_TRIPS_PER_CONNECTION = 40
const LARGEST_BYTES = 20_000
const PAUSE_MS = 1
const TIMEOUT_MS = 5000
const KEPT_FAILURES = 10

const [host = '', port = ''] = process.argv.slice(2)
let times: number[] = []
let connections = 0
let failures: string[] = []
let failed = 0

function report(): HonestReport {
  const sorted = times.toSorted((a, b) => a - b)
  const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0
  const said = { failures, failed, connections, roundTrips: times.length }
  times = []
  failures = []
  failed = 0
  connections = 0
  return { ...said, p50Ms: at(0.5), p99Ms: at(0.99), worstMs: sorted.at(-1) ?? 0 }
}

function open(): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port: Number(port), noDelay: true })
    socket.once('connect', () => resolve(socket))
    socket.on('error', reject)
  })
}

/** Sends bytes and waits until they are back. */
function roundTrip(socket: Socket): Promise<void> {
  const sent = randomBytes(1 + Math.floor(Math.random() ** 4 * LARGEST_BYTES))
  return new Promise((resolve, reject) => {
    const got: Buffer[] = []
    let bytes = 0
    const done = (err?: Error) => {
      clearTimeout(late)
      socket.off('data', take).off('error', done).off('close', gone)
      if (err) reject(err)
      else resolve()
    }
    const take = (chunk: Buffer) => {
      got.push(chunk)
      bytes += chunk.length
      if (bytes < sent.length) return
      done(Buffer.concat(got).equals(sent) ? undefined : new Error('came back otherwise than it was sent'))
    }
    const gone = () => done(new Error('ended by the other side'))
    const late = setTimeout(() => done(new Error(`not back within ${TIMEOUT_MS} ms`)), TIMEOUT_MS)
    socket.on('data', take).on('error', done).on('close', gone)
    socket.write(sent)
  })
}

async function connectionOfRoundTrips(): Promise<void> {
  const socket = await open()
  connections++
  try {
    for (let round = 0; round < ROUND_TRIPS_PER_CONNECTION; round++) {
      const startedAt = performance.now()
      await roundTrip(socket)
      times.push(performance.now() - startedAt)
      await new Promise(resolve => setTimeout(resolve, PAUSE_MS))
    }
  } finally {
    socket.destroy()
  }
}

async function forEver(): Promise<never> {
  for (;;)
    try {
      await connectionOfRoundTrips()
    } catch (err) {
      failed++
      if (failures.length < KEPT_FAILURES) failures.push(errorCode(err) ?? errorText(err))
      await new Promise(resolve => setTimeout(resolve, 10))
    }
}

const asked = createInterface({ input: process.stdin })
asked.on('line', () => process.stdout.write(`${JSON.stringify(report())}\n`))
asked.on('close', () => process.exit(0))
process.stdout.write('started\n')
void forEver()
