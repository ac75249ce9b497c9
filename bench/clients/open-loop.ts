/**
 * Open loop: messages leave at a fixed rate whether or not earlier ones are back, and what is timed is from when a message
 * was *meant* to leave. A client that waits for answers sends less when things are slow, and so measures the slow times
 * less often than they are (coordinated omission); this one does not.
 *
 * A thread of its own does nothing but sleep until the next message is due and write it, because an event loop's timers
 * have a resolution of a millisecond. How late it was itself is told beside the latencies.
 *
 * usage: node open-loop.ts HOST PORT BYTES RATE CONNECTIONS SECONDS WARM-UP-SECONDS
 */
import type { Socket } from 'node:net'
import { Worker } from 'node:worker_threads'
import { errorText } from '../../lib/errors.ts'
import { argument, dial, latenciesOf, nowNs, stop, tell } from './program.ts'
import type { PacerOptions } from './pacer.ts'

/** What is still out when the last message has left may take this long. */
const TAIL_MS = 5000

const [port, bytes, rate, connections] = [argument(1), argument(2), argument(3), argument(4)]
const warmUp = Math.round(argument(6) * rate)
const count = warmUp + Math.round(argument(5) * rate)
const intervalNs = 1e9 / rate

const sockets: Socket[] = []
for (let at = 0; at < connections; at++) sockets.push(await dial(port, stop))

/** A little ahead: the thread has to come up. */
const firstNs = nowNs() + 300_000_000n
const timesMs: number[] = []
let back = 0
for (const [at, socket] of sockets.entries()) {
  let received = 0
  let next = at
  socket.on('end', () => stop('a connection was ended'))
  socket.on('data', chunk => {
    received += chunk.length
    for (; received >= bytes; received -= bytes) {
      const lateNs = Number(nowNs() - firstNs) - next * intervalNs
      if (next >= warmUp) timesMs.push(lateNs / 1e6)
      next += connections
      if (++back === count) finish()
    }
  })
}

const fds = sockets.map(socket => (socket as unknown as { _handle: { fd: number } })._handle.fd)
const lateness = new Float64Array(new SharedArrayBuffer(count * 8))
const workerData: PacerOptions = { fds, bytes, count, intervalNs, firstNs, lateness }
const pacer = new Worker(new URL('pacer.ts', import.meta.url), { workerData })
pacer.on('error', err => stop(errorText(err)))
pacer.once('exit', () =>
  setTimeout(
    () => stop(`${count - back} of ${count} messages were not back after ${TAIL_MS} ms`),
    TAIL_MS,
  ).unref(),
)

function finish(): void {
  const sent = latenciesOf(Array.from(lateness.subarray(warmUp)))
  tell({ ...latenciesOf(timesMs), sendLateness: sent })
  for (const socket of sockets) socket.destroy()
}
